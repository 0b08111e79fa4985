"""Tables about several models: each of them and each way of combining them, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from pair_compare_stacking import stackers
from pair_compare_stacking.comparison import HEADS
from pair_compare_stacking.model import Prediction
from pair_compare_stacking.stacking import NESTED, UNIT, CrossValidation
from shared_core import metrics
from shared_core.metrics import Estimate

SAME = "same answers"
BESIDE = {"mean": "mean", stackers.BEST_SINGLE: "best single"}  # what all are compared with, and its name in columns


def every_model(
    models: dict[str, Prediction], methods: dict[str, np.ndarray], y: np.ndarray, sources: np.ndarray | None
) -> list[dict[str, Any]]:
    """Accuracy and calibration error of each model and each method: rows of a table.

    Each beside the mean and, where stage 4 found it, the best single model, with McNemar's p for the difference.

    Args:
        methods: P(left larger) (N,) by `stackers.METHODS`, mean at least, and `stackers.BEST_SINGLE`.
        sources: (N, 2) source images.
    """
    answers = {name: torch.sigmoid(prediction.logit.double()).numpy() for name, prediction in models.items()}
    answers |= {f"all: {stackers.WORDS.get(method, method)}": p for method, p in methods.items()}
    beside = {word: methods[method] for method, word in BESIDE.items() if method in methods}
    right_of = {word: (p >= 0.5) == (y == 1) for word, p in beside.items()}
    rows = []
    for name, p in answers.items():
        right = (p >= 0.5) == (y == 1)
        row: dict[str, Any] = {"model": name, "accuracy": metrics.proportion(right, sources, UNIT).as_dict()}
        for word, reference in right_of.items():
            if (right == reference).all():  # itself, or the same model, calibrated
                row |= {f"less the {word}": SAME, f"p ({word})": ""}
                continue
            row[f"less the {word}"] = metrics.paired_difference(reference, right, sources, UNIT).as_dict()
            row[f"p ({word})"] = float(f"{metrics.mcnemar(reference, right):.2g}")
        rows.append(row | {"ECE": round(metrics.expected_calibration_error(p, y), 4)})
    return rows


def head_weights(of_models: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Weights of the heads of each model that has several (`Comparison.weights`): rows of a table, columns by head."""
    several = {name: weights for name, weights in of_models.items() if len(weights) > 1}
    used = {head for weights in several.values() for head in weights}
    columns = [head for head in HEADS if head in used]
    return [
        {"model": name, **{head: round(weights[head], 3) if head in weights else "" for head in columns}}
        for name, weights in several.items()
    ]


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
        name = _nested(found) if method == NESTED else stackers.WORDS.get(method, method)
        rows.append(
            {
                "method": name,
                "accuracy": found.accuracy(method).as_dict(),
                "log loss": round(found.nll(method), 4),
                "by fold": ", ".join(f"{accuracy:.3f}" for accuracy in found.fold_accuracies(method)),
            }
        )
    return rows


def _nested(found: CrossValidation) -> str:
    """The procedure that chooses, in words, with what it chose."""
    counts = Counter(found.chosen.values()).most_common()
    return f"whatever the other folds choose ({', '.join(f'{method} {n}x' for method, n in counts)})"


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
    return f"{value:.3g}" if isinstance(value, float) else str(value)
