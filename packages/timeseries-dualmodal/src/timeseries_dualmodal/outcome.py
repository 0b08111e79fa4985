"""What was answered about a split after each length, and what that is worth.

Shapes: N series, L lengths, K classes, B resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shared_core import multiclass
from shared_core.intervals import Estimate, Floats, Resamples
from shared_core.multiclass import MacroF1
from timeseries_dualmodal import decision, temperature, weighing


@dataclass(frozen=True)
class Outcome:
    """Answers to N series after each of L lengths; `groups` and `unit` as in `shared_core.intervals`."""

    lengths: tuple[int, ...]  # steps seen
    p_NLK: NDArray[np.float64]
    y: NDArray[np.int64]  # (N,)
    groups: NDArray[np.str_] | None = None  # (N,)
    unit: str = "groups"
    weights_LK: NDArray[np.float64] | None = None  # of the classes, where macro-F1 wants others than the likeliest

    @property
    def classes(self) -> int:
        return self.p_NLK.shape[2]

    @cached_property
    def likeliest_NL(self) -> NDArray[np.int64]:
        """The answers of which the most are right."""
        return self.p_NLK.argmax(axis=2)

    @cached_property
    def answers_NL(self) -> NDArray[np.int64]:
        """The answers that macro-F1 wants."""
        return self.likeliest_NL if self.weights_LK is None else weighing.answers(self.p_NLK, self.weights_LK)

    @property
    def sources(self) -> tuple[NDArray[np.str_] | None, str]:
        """The `groups` and `unit` of every interval. Series that all share one source are drawn one by one.

        Drawing that one source would give the same series each time, and an interval without width; this one is about
        other series of the source, not about other sources.
        """
        one = self.groups is not None and len(np.unique(self.groups)) == 1
        return None if one else self.groups, self.unit

    def at(self, lengths: tuple[int, ...]) -> Outcome:
        """Some of the lengths."""
        places = [self.lengths.index(length) for length in lengths]
        weights_LK = None if self.weights_LK is None else self.weights_LK[places]
        return replace(self, lengths=lengths, p_NLK=self.p_NLK[:, places], weights_LK=weights_LK)

    def take(self, rows: NDArray[np.bool_]) -> Outcome:
        """Some of the series."""
        groups = None if self.groups is None else self.groups[rows]
        return replace(self, p_NLK=self.p_NLK[rows], y=self.y[rows], groups=groups)

    def macro_f1(self, length: int) -> Estimate:
        return multiclass.macro_f1(self._answers(length), self.y, self.classes, *self.sources)

    def mean_macro_f1(self) -> Estimate:
        """The mean over the lengths: one number for a curve."""
        return self._resamples().estimate(self._mean_of_lengths())

    def mean_less(self, other: Outcome) -> Estimate:
        """How much larger the mean over the lengths is than that of other answers to the same series."""
        ours, theirs = self._mean_of_lengths(), other._mean_of_lengths()
        return self._resamples().estimate(lambda w_BN: ours(w_BN) - theirs(w_BN))

    def less(self, other: Outcome, length: int) -> Estimate:
        """How much larger the macro-F1 is at a length."""
        theirs, ours = other._answers(length), self._answers(length)
        return multiclass.macro_f1_difference(theirs, ours, self.y, self.classes, *self.sources)

    def _resamples(self) -> Resamples:
        groups, unit = self.sources
        return Resamples(len(self.y), groups=groups, unit=unit)

    def _answers(self, length: int) -> NDArray[np.int64]:
        return self.answers_NL[:, self.lengths.index(length)]

    def _mean_of_lengths(self) -> _Mean:
        return _Mean([MacroF1(answers, self.y, self.classes) for answers in self.answers_NL.T])


class _Mean:
    """The mean of several functions of weights (B, N)."""

    def __init__(self, parts: list[MacroF1]) -> None:
        self.parts = parts

    def __call__(self, w_BN: Floats) -> Floats:
        found: Floats = np.mean([part(w_BN) for part in self.parts], axis=0)
        return found


def answering(val: Outcome, other: Outcome) -> Outcome:
    """The answers that macro-F1 wants: plain probabilities, calibrated and weighed by those of validation series."""
    temperatures, weights_LK = decision.answering(val.p_NLK, val.y)
    return replace(other, p_NLK=temperature.apply(other.p_NLK, temperatures), weights_LK=weights_LK)


def best(of_val: Mapping[str, Outcome]) -> str:
    """The name of the answers with the largest mean macro-F1; to be asked of validation series."""
    return best_of_several([of_val], list(of_val))


def best_of_several(of_splits: Sequence[Mapping[str, Outcome]], names: Sequence[str]) -> str:
    """The same over the validation series of several splits."""

    def mean(name: str) -> float:
        parts = [of_val[name] for of_val in of_splits]
        return float(np.mean([part._mean_of_lengths()(np.ones((1, len(part.y))))[0] for part in parts]))

    return max(names, key=mean)
