"""Numbers with their uncertainty: every metric here comes as a value with a confidence interval and its n.

Shapes: n samples, B bootstrap resamples; weights `w_Bn` count how often each resample drew each sample
(`shared_core.intervals`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shared_core.errors import UserError
from shared_core.intervals import (
    Estimate,
    Floats,
    Ratio,
    Resamples,
    bootstrap,
    difference,
    overlap,
    paired_difference,
    proportion,
    same_length,
    undefined,
    wilson,
)

__all__ = [
    "Estimate",
    "Ratio",
    "Reliability",
    "Resamples",
    "RiskCoverage",
    "binary",
    "bootstrap",
    "calibration_error",
    "confusion_matrix",
    "difference",
    "expected_calibration_error",
    "mcnemar",
    "overlap",
    "paired_difference",
    "proportion",
    "reliability_bins",
    "risk_coverage",
    "roc_auc",
    "wilson",
]


def binary(
    probabilities: ArrayLike,
    labels: ArrayLike,
    threshold: float = 0.5,
    groups: ArrayLike | None = None,
    unit: str = "groups",
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """What a binary classifier is worth: accuracy, f1, precision, recall, roc_auc, ece and brier, with 95 % intervals.

    Accuracy, precision and recall are proportions and get Wilson intervals (their n is the denominator), the others
    bootstrap intervals; all tend to be too narrow where sources are few. ECE has none: sampling noise adds to it, so
    that an interval around it would miss the true one; its `method` tells what a calibrated model would show.

    Args:
        probabilities: (n,) probability of class 1.
        labels: (n,) 0 or 1.
        threshold: class 1 is predicted from this probability on.
        groups: (n,) or (n, 2), the sources that samples share, and `unit`, what they are called: as in
            `shared_core.intervals`. Without them samples count as independent.
        n_resamples: 0 spares the bootstrap; its bounds are then NaN.

    Raises:
        UserError: NaN or values outside [0, 1], labels other than 0 and 1, no samples, different lengths.
    """
    p, y = _checked(probabilities, labels)
    predicted = p >= threshold
    right, positive, hit = predicted == y, y == 1, predicted & (y == 1)
    sources = None if groups is None else np.asarray(groups)
    resamples = Resamples(len(p), n_resamples, seed, sources, unit)

    def share(part: NDArray[np.bool_], whole: NDArray[np.bool_], reason: str) -> Estimate:
        if not whole.any():
            return undefined(reason)
        return proportion(part[whole], None if sources is None else sources[whole], unit)

    f1, auc = undefined("no positive label and none predicted"), undefined("only one class among the labels")
    if (predicted | positive).any():
        f1 = resamples.estimate(Ratio(2.0 * hit, 1.0 * predicted + positive))
    if len(np.unique(y)) == 2:
        auc = resamples.estimate(_auc(p, y))
    found = {
        "accuracy": share(right, np.ones(len(p), bool), ""),
        "f1": f1,
        "precision": share(hit, predicted, "nothing predicted positive"),
        "recall": share(hit, positive, "no positive label"),
        "roc_auc": auc,
        "ece": calibration_error(p, y, n_resamples, seed),
        "brier": resamples.estimate(Ratio((p - y) ** 2, np.ones(len(p)))),
    }
    # all of them lie in [0, 1], where NaN bounds stay NaN
    return {name: replace(e, low=max(e.low, 0.0), high=min(e.high, 1.0)) for name, e in found.items()}


def roc_auc(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

    NaN with only one class. Raises `UserError` as `binary` does; scores may be any numbers.
    """
    p, y = _checked(probabilities, labels, bounded=False)
    return float(_auc(p, y)(np.ones((1, len(p))))[0])


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Mean distance between predicted probability and observed frequency over equally wide bins of probability.

    Naeini et al. 2015 (AAAI 29), for the probability of class 1. Raises `UserError` as `binary` does.
    """
    p, y = _checked(probabilities, labels)
    return float(_ece(p, y, bins))


def calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, n_resamples: int = 1000, seed: int = 0, bins: int = 15
) -> Estimate:
    """`expected_calibration_error`, and below what 95 % of the errors lie that a calibrated model would show.

    That is found by drawing labels from the probabilities themselves (consistency resampling, Bröcker and Smith 2007,
    Weather and Forecasting 22:651). It has no interval: its bounds are NaN.
    """
    p, y = _checked(probabilities, labels)
    value = float(_ece(p, y, bins))
    if not n_resamples:
        return Estimate(value, math.nan, math.nan, len(p), f"{bins} bins")
    generator = np.random.default_rng(seed)
    rows = max(1, 4_000_000 // len(p))  # drawn at once
    starts = range(0, n_resamples, rows)
    drawn = [_ece(p, generator.random((min(rows, n_resamples - at), len(p))) < p, bins) for at in starts]
    limit = float(np.quantile(np.concatenate(drawn), 0.95))
    method = f"{bins} bins; of a calibrated model 95 % lie below {limit:.4f}"
    return Estimate(value, math.nan, math.nan, len(p), method)


class Reliability(NamedTuple):
    """Occupied bins of predicted probability, each array (bins,)."""

    probability: Floats  # mean prediction
    frequency: Floats  # share of class 1
    low: Floats  # Wilson bounds of the frequency
    high: Floats
    size: NDArray[np.int64]


def reliability_bins(
    probabilities: ArrayLike, labels: ArrayLike, bins: int = 15, groups: ArrayLike | None = None
) -> Reliability:
    """What a reliability diagram shows; empty bins are left out. `groups` and errors are as in `binary`."""
    p, y = _checked(probabilities, labels)
    index = _bin(p, bins)
    count = np.bincount(index, minlength=bins)
    used = count > 0
    sums = [np.bincount(index, values, minlength=bins)[used] for values in (p, y)]
    sources = None if groups is None else np.asarray(groups)
    inside = [index == k for k in np.flatnonzero(used)]
    intervals = [proportion(y[rows], None if sources is None else sources[rows]) for rows in inside]
    low, high = np.array([i.low for i in intervals]), np.array([i.high for i in intervals])
    return Reliability(sums[0] / count[used], sums[1] / count[used], low, high, count[used])


class RiskCoverage(NamedTuple):
    coverage: Floats  # (n,) share of samples answered, the most confident first
    risk: Floats  # (n,) share of wrong answers among them
    area: float  # mean risk over coverages (AURC; Geifman and El-Yaniv 2017)


def risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> RiskCoverage:
    """How many errors remain when the least confident answers are withheld.

    Among equal confidences errors count as spread evenly, so that their order in the file does not matter.
    """
    c, right = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    n = same_length(c, right)
    if not np.isfinite(c).all():
        raise UserError("confidence: holds NaN or infinite values; check the model's output")
    _, index, count = np.unique(-c, return_inverse=True, return_counts=True)
    errors = (np.bincount(index, 1 - right) / count)[np.sort(index)]
    k = np.arange(1, n + 1)
    risk = np.cumsum(errors) / k
    return RiskCoverage(k / n, risk, float(risk.mean()))


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> float:
    """Exact two-sided p-value that two classifiers err equally often on the same samples (McNemar 1947).

    Only the samples on which exactly one of them is right matter: under the hypothesis either is right with 1/2. The
    samples count as independent; where they share sources, `paired_difference` says what the difference is worth.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    same_length(a, b)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n, k = only_a + only_b, np.arange(1, min(only_a, only_b) + 1)
    log_terms = np.concatenate([[0.0], np.cumsum(np.log(n - k + 1) - np.log(k))])  # log of "n choose 0..k"
    log_tail = np.logaddexp.reduce(log_terms) - n * math.log(2)
    return min(1.0, 2 * math.exp(log_tail))


def confusion_matrix(labels: ArrayLike, predictions: ArrayLike, classes: int) -> NDArray[np.int64]:
    """(classes, classes) counts, rows the truth and columns the prediction. Raises `UserError` outside 0..classes-1."""
    y, q = np.asarray(labels), np.asarray(predictions)
    same_length(y, q)
    for name, values in (("labels", y), ("predictions", q)):
        if (outside := ~np.isin(values, np.arange(classes))).any():
            raise UserError(f"{name}: must lie in 0..{classes - 1}; found {_examples(values[outside])}")
    return np.bincount(y.astype(int) * classes + q.astype(int), minlength=classes**2).reshape(classes, classes)


# Metrics of weights: each takes (B, n) and gives (B,).


def _auc(p: Floats, y: Floats) -> Callable[[Floats], Floats]:
    order = np.argsort(p, kind="stable")
    scores, positive = p[order], y[order]
    starts = np.flatnonzero(np.concatenate([[True], scores[1:] != scores[:-1]]))  # of runs of equal scores

    def statistic(w_Bn: Floats) -> Floats:
        w_Bn = w_Bn[:, order]
        positives = np.add.reduceat(w_Bn * positive, starts, axis=1)
        negatives = np.add.reduceat(w_Bn * (1 - positive), starts, axis=1)
        below = np.cumsum(negatives, axis=1) - negatives / 2
        pairs = positives.sum(axis=1) * negatives.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            values: Floats = (positives * below).sum(axis=1) / pairs
        return values

    return statistic


def _ece(p: Floats, y: NDArray[Any], bins: int) -> Floats:
    """ECE of labels (..., n), of each row on its own: (...)."""
    in_bin_nK = np.zeros((len(p), bins))
    in_bin_nK[np.arange(len(p)), _bin(p, bins)] = 1.0
    found: Floats = np.abs((p - y) @ in_bin_nK).sum(axis=-1) / len(p)
    return found


def _bin(p: Floats, bins: int) -> NDArray[np.int64]:
    """Index of the bin [k/bins, (k+1)/bins) of each probability; 1 belongs to the last."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], p, side="right")


def _checked(probabilities: ArrayLike, labels: ArrayLike, bounded: bool = True) -> tuple[Floats, Floats]:
    p, y = np.asarray(probabilities, dtype=float), np.asarray(labels, dtype=float)
    same_length(p, y)
    if (bad := ~np.isfinite(p)).any():
        raise UserError(f"probabilities: {bad.sum()} of {len(p)} are NaN or infinite; check the model's output")
    if bounded and (outside := (p < 0) | (p > 1)).any():
        found = _examples(p[outside])
        raise UserError(f"probabilities: must lie in [0, 1], found {found}; pass logits through a sigmoid")
    if (outside := ~np.isin(y, (0, 1))).any():
        raise UserError(f"labels: must be 0 or 1, found {_examples(y[outside])}; check the label column")
    return p, y


def _examples(values: NDArray[Any]) -> str:
    return ", ".join(f"{value:g}" for value in np.unique(values)[:3])
