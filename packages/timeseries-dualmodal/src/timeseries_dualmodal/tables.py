"""Tables of an evaluation: rows of dictionaries, an `Estimate` as its dictionary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared_core.intervals import Estimate
from timeseries_dualmodal import baselines, earliness
from timeseries_dualmodal.costs import Costs
from timeseries_dualmodal.earliness import Curve
from timeseries_dualmodal.outcome import Outcome

Rows = list[dict[str, Any]]
MODEL = "model"
NEVER = "not reached"
SMALLEST_GROUP = 20  # series; of fewer, a macro-F1 says nothing


def by_length(model: Outcome, others: Mapping[str, Outcome], best: str | None) -> Rows:
    """Macro-F1 after each length, of the model and of the baselines; the model against the best of these."""
    rows = []
    for length in model.lengths:
        row: dict[str, Any] = {"steps": length, MODEL: model.macro_f1(length).as_dict()}
        row |= {named(name): round(other.macro_f1(length).value, 3) for name, other in others.items()}
        if best is not None:
            row[f"model less {named(best)}"] = model.less(others[best], length).as_dict()
        rows.append(row)
    return rows


def parts(model: Outcome, alone: Mapping[str, Outcome]) -> Rows:
    """Macro-F1 after each length of the model and of its parts, and the means over the lengths."""
    rows: Rows = [
        {"steps": length, MODEL: model.macro_f1(length).as_dict()}
        | {name: part.macro_f1(length).as_dict() for name, part in alone.items()}
        for length in model.lengths
    ]
    mean: dict[str, Any] = {"steps": "mean", MODEL: model.mean_macro_f1().as_dict()}
    mean |= {name: part.mean_macro_f1().as_dict() for name, part in alone.items()}
    less: dict[str, Any] = {"steps": "gain of both", MODEL: ""}
    less |= {name: model.mean_less(part).as_dict() for name, part in alone.items()}
    return [*rows, mean, less]


def likeliest(model: Outcome, curve: Curve) -> Rows:
    """Accuracy and macro-F1 of the likeliest class after each of the model's lengths."""
    plain = replace(model, weights_LK=None)
    return [
        {
            "steps": length,
            "accuracy": curve.accuracy[curve.lengths.index(length)].as_dict(),
            "macro-F1": plain.macro_f1(length).as_dict(),
        }
        for length in model.lengths
    ]


def by_class(curve: Curve, classes: Sequence[str], y: NDArray[np.int64], shown: Sequence[int]) -> Rows:
    """F1 of each class after each length, and the first length at which it is recognised."""
    recognised = curve.classes_recognised()
    rows = []
    for k, name in enumerate(classes):
        f1 = {f"{length} steps": _number(curve.f1_LK[curve.lengths.index(length), k]) for length in shown}
        first = recognised[k]
        rows.append(
            {
                "class": name,
                "series": int((y == k).sum()),
                **f1,
                f"F1 of {earliness.RECOGNISED:g} after": NEVER if first is None else f"{first} steps",
            }
        )
    return rows


def by_group(model: Outcome, values: NDArray[np.str_], name: str, shown: Sequence[int]) -> Rows:
    """Macro-F1 for the series of each region, year or whatever the column says; no rows where all have too few."""
    found, counts = np.unique(values, return_counts=True)
    if counts.max() < SMALLEST_GROUP:
        return []
    rows = []
    for value, count in zip(found.tolist(), counts.tolist(), strict=True):
        part = None if count < SMALLEST_GROUP else model.take(values == value)
        scores = {f"{length} steps": "too few" if part is None else part.macro_f1(length).as_dict() for length in shown}
        rows.append({name: value, "series": count, **scores})
    return rows


def decisions(scores: Mapping[str, Estimate], fixed: Mapping[int, Mapping[str, Estimate]]) -> Rows:
    """What the stopping rule's answers are worth, beside those that are all given after a fixed number of steps."""
    keys = ("accuracy", "macro_f1", "steps_observed", "fraction_observed", "harmonic_mean")
    rows = [{"answered": "by the rule", **{key: scores[key].as_dict() for key in keys}}]
    for length, of_length in fixed.items():
        rows.append({"answered": f"after {length} steps", **{key: of_length[key].as_dict() for key in keys}})
    return rows


def by_price(found: Costs) -> Rows:
    """Costs of answers by the price of waiting, and their means over the prices."""
    rows = [
        {
            "price of waiting": f"{price:g}",
            "the rule": found.rule[price].as_dict(),
            "at one time for all": found.fixed[price].as_dict(),
            "that time": f"{found.lengths[price]} steps",
        }
        for price in found.rule
    ]
    average = {"the rule": found.average.as_dict(), "at one time for all": found.fixed_average.as_dict()}
    return [*rows, {"price of waiting": "mean", **average, "that time": ""}]


def named(baseline: str) -> str:
    """A baseline's name in tables."""
    return baseline.replace("_", " ") if baseline in baselines.NAMES else baseline


def _number(value: float) -> float | str:
    return "" if np.isnan(value) else round(float(value), 3)
