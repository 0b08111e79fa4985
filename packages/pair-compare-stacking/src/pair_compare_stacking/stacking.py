"""Honest stacking: which method to use, what it is really worth, and whether the base models may be stacked at all.

A method is judged on pairs it was not fitted on, made of source images it was not fitted on; the choice among methods
likewise (nested cross-validation).

Shapes: N pairs, M base models. `logit_NM` float64: log-odds that the left digit is larger. `y` (N,): 1 where it is.
`fold` (N,): integers; pairs of different folds share no source image. `sources` (N, 2): the two images of a pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pair_compare_stacking import stackers
from pair_compare_stacking.calibration import nll
from pair_compare_stacking.stackers import BEST_SINGLE, METHODS, WORDS
from shared_core import metrics
from shared_core.errors import UserError
from shared_core.metrics import Estimate

MEAN = METHODS[0]
NESTED = "nested"  # the procedure that chooses among the methods, as if it were one of them
TIE = 1e-6  # nats per pair
LEVEL = 0.05  # of significance
FEWEST_FOLDS = 3  # one to judge on, and two for the choice
UNIT = "images"  # what pairs share


@dataclass(frozen=True)
class CrossValidation:
    """Out-of-fold answers of the methods, of the best single model and of the procedure that chooses (`NESTED`)."""

    y: np.ndarray  # (N,)
    fold: np.ndarray  # (N,)
    sources: np.ndarray | None  # (N, 2)
    p: dict[str, np.ndarray]  # (N,) by method
    chosen: dict[int, str]  # the method chosen without each fold

    def right(self, method: str) -> np.ndarray:
        """(N,) whether the out-of-fold answer is."""
        return (self.p[method] >= 0.5) == (self.y == 1)

    def accuracy(self, method: str) -> Estimate:
        """With an interval that allows for shared source images."""
        return metrics.proportion(self.right(method), self.sources, UNIT)

    def nll(self, method: str) -> float:
        """Nats per pair."""
        return nll(self.p[method], self.y)

    def fold_accuracies(self, method: str) -> list[float]:
        """In each fold, in the order of `chosen`."""
        right = self.right(method)
        return [float(right[self.fold == k].mean()) for k in self.chosen]


@dataclass(frozen=True)
class Decision:
    """Which method to use, and why."""

    method: str  # to use: the candidate if its gain is significant, else the mean
    candidate: str  # of the lowest out-of-fold NLL
    significant: bool  # better, p below 5 %, and the interval of the difference excludes 0
    p_value: float  # McNemar's, which takes pairs as independent
    difference: Estimate  # accuracy of the nested procedure less that of the mean, over source images if they are known
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"difference": self.difference.as_dict()}


def cross_validate(
    logit_NM: np.ndarray,
    y: np.ndarray,
    fold: np.ndarray,
    models: Sequence[str],
    sources: np.ndarray | None = None,
    methods: Sequence[str] = METHODS,
    seed: int = 0,
) -> CrossValidation:
    """Nested cross-validation: every fold is answered by stackers that were fitted, and chosen, on the other folds.

    Raises UserError for rows as `stackers.check_rows` does, for fewer than three folds, and for folds that share a
    source image.
    """
    logit_NM, y, fold = stackers.check_rows(logit_NM, y, fold, models)
    folds = np.unique(fold)
    if len(folds) < FEWEST_FOLDS:
        raise UserError(f"{len(folds)} fold(s): nested cross-validation needs {FEWEST_FOLDS} at least; draw more")
    if MEAN not in methods or set(methods) - set(METHODS):
        wanted = f"{MEAN}, against which all are judged, and others of {', '.join(METHODS[1:])}"
        raise UserError(f"stacking methods {', '.join(methods)}: must be {wanted}")
    check_folds(fold, sources)
    p = _out_of_fold(logit_NM, y, fold, models, (*methods, BEST_SINGLE), seed)
    chosen, nested = {}, np.empty(len(y))
    for k in folds:
        held, rest = fold == k, fold != k
        inner = _out_of_fold(logit_NM[rest], y[rest], fold[rest], models, methods, seed)
        chosen[int(k)] = _lowest_loss(inner, y[rest])
        nested[held] = p[chosen[int(k)]][held]
    return CrossValidation(y, fold, sources, {**p, NESTED: nested}, chosen)


def decide(found: CrossValidation) -> Decision:
    """What to use: the method of the lowest out-of-fold NLL if choosing so is significantly better than the mean.

    The gain is that of the nested procedure: the answers of the method that happens to be lowest on all folds would
    flatter it, because they helped to choose it.
    """
    candidate = _lowest_loss({method: p for method, p in found.p.items() if method in METHODS}, found.y)
    base, right = found.right(MEAN), found.right(NESTED)
    p_value = metrics.mcnemar(base, right)
    difference = metrics.paired_difference(base, right, found.sources, UNIT)
    significant = candidate != MEAN and p_value < LEVEL and difference.low > 0
    sentence = _sentence(found, candidate, significant, p_value, difference)
    return Decision(candidate if significant else MEAN, candidate, significant, p_value, difference, sentence)


def agreement(logit_NM: np.ndarray) -> np.ndarray:
    """Share of pairs that two base models answer alike: (M, M)."""
    left_NM = (np.asarray(logit_NM) >= 0).astype(float)
    return (left_NM.T @ left_NM + (1 - left_NM).T @ (1 - left_NM)) / len(left_NM)


def error_correlation(logit_NM: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's correlation of the errors of two base models: (M, M). NaN where one is always or never wrong."""
    wrong_NM = ((np.asarray(logit_NM) >= 0) != (np.asarray(y)[:, None] == 1)).astype(float)
    centred_NM = wrong_NM - wrong_NM.mean(axis=0)
    products = centred_NM.T @ centred_NM
    norm_M = np.sqrt(np.diag(products))
    norm_M = np.where(wrong_NM.min(axis=0) == wrong_NM.max(axis=0), np.nan, norm_M)
    return np.clip(products / np.outer(norm_M, norm_M), -1, 1)


def check_folds(fold: np.ndarray, sources: np.ndarray | None) -> None:
    """Raises UserError where two folds share a source image, or `sources` is not (N, 2)."""
    if sources is None:
        return
    if np.shape(sources) != (len(fold), 2):
        raise UserError(f"source images of shape {np.shape(sources)}: must be ({len(fold)}, 2), two for every pair")
    images, image = np.unique(sources, return_inverse=True)
    fold_of = np.repeat(np.unique(fold, return_inverse=True)[1], 2)
    lowest, highest = np.full(len(images), len(fold)), np.full(len(images), -1)
    np.minimum.at(lowest, image.ravel(), fold_of)
    np.maximum.at(highest, image.ravel(), fold_of)
    shared = images[lowest < highest]
    if len(shared):
        raise UserError(
            f"folds: {len(shared)} of {len(images)} source images occur in more than one, such as {shared[0]}; divide "
            "the images into folds first, then draw pairs within each"
        )


def check_unseen(stack_sources: Any, trained_on: Mapping[str, Iterable[Any]]) -> None:
    """Whether base models were trained on source images of the pairs that a stacker is fitted on or judged by.

    Args:
        stack_sources: ids of the images, in any shape; all ids are numbers, or all are strings.
        trained_on: the ids that each base model was trained on.

    Raises UserError that names each such model, on how many of the images it was trained and one of them; also where
    the ids of either side are unknown or cannot be compared.
    """
    wanted = _ids(stack_sources)
    if not wanted:
        raise UserError("stacking: no source images given, so whether base models were trained on them is unknown")
    overlaps = []
    for name, ids in trained_on.items():
        seen = _ids(ids)
        if not seen or {type(i) for i in seen} != {type(i) for i in wanted}:
            raise UserError(
                f"base model {name}: which source images it was trained on is unknown, or written in another way than "
                "those to stack on; train it again"
            )
        if shared := wanted & seen:
            overlaps.append(f"{name} on {len(shared)} (such as {min(shared)})")
    if overlaps:
        raise UserError(
            f"stacking: of its {len(wanted)} source images, base models were trained on some: {', '.join(overlaps)}; "
            "stack on images withheld from all of them"
        )


def _ids(values: Any) -> set[int] | set[str]:
    array = values if isinstance(values, np.ndarray) else np.asarray(list(values))
    return set(array.ravel().tolist())


def _out_of_fold(
    logit_NM: np.ndarray, y: np.ndarray, fold: np.ndarray, models: Sequence[str], methods: Sequence[str], seed: int
) -> dict[str, np.ndarray]:
    """Answers to each fold by stackers fitted on the others: (N,) by method."""
    p = {method: np.empty(len(y)) for method in methods}
    for k in np.unique(fold):
        held, rest = fold == k, fold != k
        for method in methods:
            fitted = stackers.fit(method, logit_NM[rest], y[rest], fold[rest], models, seed)
            p[method][held] = fitted.predict(logit_NM[held])
    return p


def _lowest_loss(p: Mapping[str, np.ndarray], y: np.ndarray) -> str:
    """The method of the lowest NLL; the simplest of those that are as good."""
    losses = {method: nll(values, y) for method, values in p.items()}
    good = [method for method in METHODS if method in losses and losses[method] <= min(losses.values()) + TIE]
    return good[0]


def _sentence(found: CrossValidation, candidate: str, significant: bool, p_value: float, gap: Estimate) -> str:
    mean, n = WORDS[MEAN], f"{len(found.y):,}"
    if candidate == MEAN:
        return f"Stacking uses {mean}: no other method has a lower loss out of fold, over {n} pairs."
    before, after = found.right(MEAN).mean(), found.right(NESTED).mean()
    low, value, high = (f"{100 * bound:+.2f}" for bound in (gap.low, gap.value, gap.high))
    over = "taking pairs as independent" if found.sources is None else "allowing for shared source images"
    measured = (
        "has the lowest loss out of fold, and choosing the method by nested cross-validation "
        f"changes the accuracy over {n} pairs from {100 * before:.2f} to {100 * after:.2f} %: by {value} points, "
        f"interval {low} to {high} {over}, McNemar's p = {p_value:.2g}"
    )
    if significant:
        return f"Stacking uses {WORDS[candidate]}: of all methods it {measured}, a significant gain over {mean}."
    return f"Stacking uses {mean}: {WORDS[candidate]} {measured}, no significant gain."
