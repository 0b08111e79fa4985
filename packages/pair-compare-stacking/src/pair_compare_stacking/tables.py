"""Tables about several models: each of them and each way of combining them, side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pair_compare_stacking import stackers
from pair_compare_stacking.model import Prediction
from pair_compare_stacking.stacking import NESTED, UNIT, CrossValidation
from shared_core import metrics
from shared_core.metrics import Estimate


def every_model(
    models: dict[str, Prediction], methods: dict[str, np.ndarray], y: np.ndarray, sources: np.ndarray | None
) -> list[dict[str, Any]]:
    """Accuracy, calibration error and difference to the mean, for each model and each method: rows of a table."""
    answers = {name: torch.sigmoid(prediction.logit.double()).numpy() for name, prediction in models.items()}
    answers |= {f"all: {stackers.WORDS.get(method, method)}": p for method, p in methods.items()}
    mean = (methods["mean"] >= 0.5) == y
    rows = []
    for name, p in answers.items():
        right = (p >= 0.5) == y
        rows.append(
            {
                "model": name,
                "accuracy": metrics.proportion(right, sources, UNIT).as_dict(),
                "less the mean": metrics.paired_difference(mean, right, sources, UNIT).as_dict(),
                "McNemar's p": round(metrics.mcnemar(mean, right), 4),
                "ECE": round(metrics.expected_calibration_error(p, y), 4),
            }
        )
    return rows


def learned(stacker: stackers.Stacker) -> list[dict[str, Any]]:
    """What a fitted stacker holds for each base model: rows of a table."""
    about = stacker.describe()
    columns = {key: values for key, values in about.items() if isinstance(values, dict)}
    return [
        {"model": name, **{key: round(float(values[name]), 4) for key, values in columns.items()}}
        for name in stacker.models
    ]


def side_by_side(of_splits: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Accuracies of `every_model` on several splits: rows of one table."""
    rows: dict[str, dict[str, Any]] = {}
    for split, of_split in of_splits.items():
        for row in of_split:
            rows.setdefault(row["model"], {"model": row["model"]})[split] = row["accuracy"]
    return list(rows.values())


def over_seeds(right: dict[str, list[np.ndarray]], sources: np.ndarray | None) -> list[dict[str, Any]]:
    """Models that differ in their seed only, as one; each group against the one before: rows of a table.

    Args:
        right: name of a group -> for each of its seeds (N,) whether the answers are right.
        sources: (N, 2) source images.
    """
    rows, before = [], None
    for name, of_seeds in right.items():
        share = np.mean(of_seeds, axis=0)  # (N,) of the seeds that answer a pair rightly
        by_seed = [float(one.mean()) for one in of_seeds]
        row = {
            "model": name,
            "seeds": len(by_seed),
            "accuracy, mean over seeds": metrics.paired_difference(
                np.zeros_like(share), share, sources, UNIT
            ).as_dict(),
            "by seed": ", ".join(f"{accuracy:.4f}" for accuracy in by_seed),
            "less the one before": "",
        }
        if before is not None:
            row["less the one before"] = metrics.paired_difference(before, share, sources, UNIT).as_dict()
        rows.append(row)
        before = share
    return rows


def cross_validation(found: CrossValidation) -> list[dict[str, Any]]:
    """What each method is worth out of fold: rows of a table."""
    rows = []
    for method in found.p:
        name = "whatever the other folds choose" if method == NESTED else stackers.WORDS.get(method, method)
        rows.append(
            {
                "method": name,
                "accuracy": found.accuracy(method).as_dict(),
                "log loss": round(found.nll(method), 4),
                "by fold": ", ".join(f"{score['accuracy']:.3f}" for score in found.fold_scores(method)),
            }
        )
    return rows


def render(rows: list[dict[str, Any]]) -> str:
    """Rows as aligned text."""
    cells = [list(rows[0]), *([_text(value) for value in row.values()] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def _text(value: Any) -> str:
    if isinstance(value, dict):
        e = Estimate.from_dict(value)
        return f"{e.value:.4f} [{e.low:.4f}, {e.high:.4f}]"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
