"""What a classifier of K classes is worth: numbers with their uncertainty, as `shared_core.metrics` has them for two.

Shapes: N samples, K classes, B bootstrap resamples. Probabilities `p_NK`, answers and labels (N,) in 0..K-1; weights
`w_BN` count how often each resample drew each sample (`shared_core.intervals`). Everywhere `groups` and `unit` mean
what they mean there.

The macro-F1 is the plain mean of F1 over the classes that occur among the labels of the whole sample (Opitz and Burst
2019, arXiv:1911.03347, their first formula). A class that is predicted only does not enter the mean, but its wrong
predictions cost the others their recall. F1 is 0 where it is 0/0: in a resample that by chance holds neither a label
nor a prediction of a class, as scikit-learn's `f1_score(labels=..., zero_division=0)` has it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shared_core import metrics
from shared_core.errors import UserError
from shared_core.intervals import Estimate, Floats, Ratio, Resamples, proportion, same_length, undefined

Indices = NDArray[np.int64]
FLOOR = 1e-12  # probabilities count as this much at least where their logarithm is taken
TOLERANCE = 1e-3  # how far from 1 the probabilities of a sample may add up


def scores(
    p_NK: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    unit: str = "groups",
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The numbers of a whole sample, with 95 % intervals: accuracy, macro_f1, log_loss, brier and ece.

    Accuracy has a Wilson interval, macro_f1, log_loss (nats) and brier (the squared error summed over the classes,
    0..2; Brier 1950) bootstrap ones. The answer is the most probable class, the first of equals. ece is that of the
    answer's probability (top-label); it has a limit instead of an interval, as `metrics.calibration_error` explains.

    Args:
        p_NK: each row adds up to 1.
        labels: (N,) in 0..K-1.
        n_resamples: 0 spares the bootstrap; its bounds are then NaN.

    Raises:
        UserError: no samples, NaN, rows that are no probabilities, labels outside 0..K-1, different lengths.
    """
    p, y = checked(p_NK, labels)
    n, classes = p.shape
    answers, rows = p.argmax(axis=1), np.arange(n)
    sources = None if groups is None else np.asarray(groups)
    resamples = Resamples(n, n_resamples, seed, sources, unit)
    squares = ((p - np.eye(classes)[y]) ** 2).sum(axis=1)
    found = {
        "accuracy": proportion(answers == y, sources, unit),
        "macro_f1": _bounded(resamples.estimate(MacroF1(answers, y, classes))),
        "log_loss": resamples.estimate(Ratio(-np.log(np.maximum(p[rows, y], FLOOR)), np.ones(n))),
        "brier": resamples.estimate(Ratio(squares, np.ones(n))),
        "ece": metrics.calibration_error(np.minimum(p.max(axis=1), 1.0), answers == y, n_resamples, seed),
    }
    return found


@dataclass(frozen=True)
class ClassScores:
    """One class against the rest."""

    support: int  # labels of the class
    f1: Estimate  # bootstrap
    precision: Estimate  # Wilson; n: answers of the class
    recall: Estimate  # Wilson; n: support


def per_class(
    answers: ArrayLike,
    labels: ArrayLike,
    classes: int,
    groups: ArrayLike | None = None,
    unit: str = "groups",
    n_resamples: int = 1000,
    seed: int = 0,
) -> tuple[ClassScores, ...]:
    """F1, precision and recall of each of the `classes` classes, with 95 % intervals; undefined where there is no n.

    Raises `UserError` for no samples, answers or labels outside 0..classes-1, or different lengths.
    """
    q, y = _checked_answers(answers, labels, classes)
    sources = None if groups is None else np.asarray(groups)
    resamples = Resamples(len(y), n_resamples, seed, sources, unit)

    def share(part: NDArray[np.bool_], whole: NDArray[np.bool_], reason: str) -> Estimate:
        if not whole.any():
            return undefined(reason)
        return proportion(part[whole], None if sources is None else sources[whole], unit)

    def one(k: int) -> ClassScores:
        predicted, positive = q == k, y == k
        hit = predicted & positive
        f1 = undefined("no label of this class and none predicted")
        if (predicted | positive).any():
            f1 = _bounded(resamples.estimate(Ratio(2.0 * hit, 1.0 * predicted + positive)))
        precision, recall = share(hit, predicted, "never predicted"), share(hit, positive, "no label of this class")
        return ClassScores(int(positive.sum()), f1, precision, recall)

    return tuple(one(k) for k in range(classes))


def macro_f1(
    answers: ArrayLike,
    labels: ArrayLike,
    classes: int,
    groups: ArrayLike | None = None,
    unit: str = "groups",
    n_resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """The macro-F1 of answers (N,), with a 95 % bootstrap interval. Raises `UserError` as `per_class` does."""
    q, y = _checked_answers(answers, labels, classes)
    return _bounded(Resamples(len(y), n_resamples, seed, groups, unit).estimate(MacroF1(q, y, classes)))


def macro_f1_difference(
    a: ArrayLike,
    b: ArrayLike,
    labels: ArrayLike,
    classes: int,
    groups: ArrayLike | None = None,
    unit: str = "groups",
    n_resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """The macro-F1 of answers `b` less that of answers `a`, each (N,), given to the same samples.

    The bootstrap is paired: both are measured on the same resamples. Raises `UserError` as `per_class` does.
    """
    first, y = _checked_answers(a, labels, classes)
    second, _ = _checked_answers(b, labels, classes)
    of_a, of_b = MacroF1(first, y, classes), MacroF1(second, y, classes)
    return Resamples(len(y), n_resamples, seed, groups, unit).estimate(lambda w_BN: of_b(w_BN) - of_a(w_BN))


class MacroF1:
    """The macro-F1 as a function of weights, for `Resamples.estimate`; see the head of this module.

    A confusion matrix's margins and diagonal are sums over samples, so those of all resamples are one matrix product.
    """

    def __init__(self, answers: Indices, labels: Indices, classes: int) -> None:
        """Answers and labels (N,), both in 0..classes-1."""
        eye = np.eye(classes)
        labelled_NK, answered_NK = eye[labels], eye[answers]
        self.occurring = np.bincount(labels, minlength=classes) > 0  # (K,)
        self._hit_and_both_N2K = np.concatenate([labelled_NK * answered_NK, labelled_NK + answered_NK], axis=1)

    def per_class(self, w_BN: Floats) -> Floats:
        """The F1 of each class: (B, K)."""
        hit_BK, both_BK = np.split(w_BN @ self._hit_and_both_N2K, 2, axis=1)
        return np.divide(2 * hit_BK, both_BK, out=np.zeros_like(both_BK), where=both_BK > 0)

    def __call__(self, w_BN: Floats) -> Floats:
        mean: Floats = self.per_class(w_BN)[:, self.occurring].mean(axis=1)
        return mean


def checked(p_NK: ArrayLike, labels: ArrayLike) -> tuple[Floats, Indices]:
    """Probabilities as float64 (N, K) and labels as int64 (N,). Raises `UserError` where they are none."""
    p, y = np.asarray(p_NK, dtype=float), np.asarray(labels)
    if p.ndim != 2 or p.shape[1] < 1:
        raise UserError(f"probabilities: shape {p.shape}; must be (samples, classes)")
    same_length(p, y)
    if bad := int((~np.isfinite(p)).any(axis=1).sum()):
        raise UserError(f"probabilities: {bad} of {len(p)} rows hold NaN or infinite values; check the model's output")
    off = (p < 0).any(axis=1) | (np.abs(p.sum(axis=1) - 1) > TOLERANCE)
    if off.any():
        raise UserError(
            f"probabilities: {int(off.sum())} of {len(p)} rows are negative or do not add up to 1; pass logits through "
            "a softmax"
        )
    return p, _checked_indices("labels", y, p.shape[1])


def _checked_answers(answers: ArrayLike, labels: ArrayLike, classes: int) -> tuple[Indices, Indices]:
    q, y = np.asarray(answers), np.asarray(labels)
    same_length(q, y)
    return _checked_indices("answers", q, classes), _checked_indices("labels", y, classes)


def _checked_indices(name: str, values: NDArray[np.generic], classes: int) -> Indices:
    if values.ndim != 1:
        raise UserError(f"{name}: shape {values.shape}; must be one number per sample")
    outside = ~np.isin(values, np.arange(classes))
    if outside.any():
        examples = ", ".join(str(value) for value in np.unique(values[outside])[:3])
        raise UserError(f"{name}: must lie in 0..{classes - 1}, found {examples}; check the classes")
    return values.astype(np.int64)


def _bounded(estimate: Estimate) -> Estimate:
    """Bounds within 0..1, where NaN stays NaN."""
    return replace(estimate, low=max(estimate.low, 0.0), high=min(estimate.high, 1.0))
