"""How early, and how right: scores of answers over time, and of decisions beside answers at a fixed time.

"Earliness" means the share of a series that was seen in one half of the literature (small is early), and what was left
unseen in the other (large is early). Here the first is `fraction_observed`, and no score has the bare name.

Shapes: N series, L lengths (numbers of steps seen, ascending), K classes, B bootstrap resamples. `p_NLK`: probabilities
after each length. Decisions are `stop_N`, indices into the lengths, and `answer_N`, classes (`timeseries_dualmodal.
stopping`). `steps` is the season's number of steps T. `groups`, `unit`, `n_resamples` and `seed` are as in
`shared_core.intervals`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from shared_core import multiclass
from shared_core.intervals import Estimate, Ratio, Resamples, proportion

RECOGNISED = 0.8  # F1 from which the predecessor calls a class recognised
DELAY_COSTS = (0.05, 0.1, 0.2, 0.5, 1.0)  # of waiting through all steps, in wrong answers


@dataclass(frozen=True)
class Curve:
    """Scores of the answers after each of L lengths."""

    lengths: tuple[int, ...]
    accuracy: tuple[Estimate, ...]
    macro_f1: tuple[Estimate, ...]
    f1_LK: np.ndarray  # F1 of each class; NaN for a class without labels

    def recognised(self, level: float = RECOGNISED) -> int | None:
        """The first length at which the macro-F1 reaches `level`; None where none does."""
        return first_reaching(self.lengths, [estimate.value for estimate in self.macro_f1], level)

    def classes_recognised(self, level: float = RECOGNISED) -> tuple[int | None, ...]:
        """The same for the F1 of each class."""
        return tuple(first_reaching(self.lengths, f1_L, level) for f1_L in self.f1_LK.T)


def curve(
    p_NLK: np.ndarray,
    answers_NL: np.ndarray,
    y: np.ndarray,
    lengths: Sequence[int],
    groups: np.ndarray | None = None,
    unit: str = "groups",
    n_resamples: int = 1000,
    seed: int = 0,
) -> Curve:
    """Scores at every length: accuracy of the likeliest classes, macro-F1 and F1 by class of other answers.

    Args:
        answers_NL: those (N, L) that macro-F1 wants.
        y: labels (N,).

    Raises UserError as `multiclass.scores`.
    """
    n, _, classes = p_NLK.shape
    resamples = Resamples(n, n_resamples, seed, groups, unit)
    accuracy, macro_f1, f1 = [], [], []
    for p_NK, answer_N in zip(p_NLK.transpose(1, 0, 2), answers_NL.T, strict=True):
        p_NK, labels = multiclass.checked(p_NK, y)
        statistic = multiclass.MacroF1(answer_N, labels, classes)
        accuracy.append(proportion(p_NK.argmax(axis=1) == labels, groups, unit))
        macro_f1.append(_bounded(resamples.estimate(statistic)))
        f1.append(np.where(statistic.occurring, statistic.per_class(np.ones((1, n)))[0], np.nan))
    return Curve(tuple(lengths), tuple(accuracy), tuple(macro_f1), np.array(f1))


def first_reaching(lengths: Sequence[int], scores: Sequence[float] | np.ndarray, level: float) -> int | None:
    """The first length whose score is at least `level`; None where there is none. NaN reaches nothing."""
    return next((length for length, score in zip(lengths, scores, strict=True) if score >= level), None)


def decision_scores(
    stop_N: np.ndarray,
    answer_N: np.ndarray,
    y: np.ndarray,
    lengths: Sequence[int],
    steps: int,
    classes: int,
    groups: np.ndarray | None = None,
    unit: str = "groups",
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """What decisions are worth, with 95 % intervals.

    - accuracy, macro_f1: of the answers
    - steps_observed: mean t; fraction_observed: mean t / T; small is early
    - unobserved_elects: 1 - mean (t - 1) / (T - 1), what ELECTS calls earliness (Russwurm et al. 2023, ISPRS Journal of
      Photogrammetry and Remote Sensing 196:445): large is early; undefined of a season of one step
    - harmonic_mean: of accuracy and 1 - fraction_observed, as TEASER (Schaefer and Leser 2020, DMKD 34:1336) and aeon

    Raises ValueError where a series has no answer yet.
    """
    fraction_N = _fraction(stop_N, lengths, steps)
    hit_N, n = (answer_N == y).astype(float), len(y)
    resamples = Resamples(n, n_resamples, seed, groups, unit)
    ones_N, both_N2 = np.ones(n), np.stack([hit_N, 1 - fraction_N], axis=1)

    def harmonic_mean(w_BN: np.ndarray) -> np.ndarray:
        accuracy_B, unseen_B = (w_BN @ both_N2 / w_BN.sum(axis=1, keepdims=True)).T
        total_B = accuracy_B + unseen_B
        return np.divide(2 * accuracy_B * unseen_B, total_B, out=np.zeros(len(w_BN)), where=total_B > 0)

    seen = resamples.estimate(Ratio(fraction_N * steps, ones_N))
    unobserved_N = 1 - (fraction_N * steps - 1) / (steps - 1) if steps > 1 else np.full(n, np.nan)
    return {
        "accuracy": proportion(answer_N == y, groups, unit),
        "macro_f1": multiclass.macro_f1(answer_N, y, classes, groups, unit, n_resamples, seed),
        "steps_observed": seen,
        "fraction_observed": replace(seen, value=seen.value / steps, low=seen.low / steps, high=seen.high / steps),
        "unobserved_elects": resamples.estimate(Ratio(unobserved_N, ones_N)),
        "harmonic_mean": resamples.estimate(harmonic_mean),
    }


def cost(
    stop_N: np.ndarray,
    answer_N: np.ndarray,
    y: np.ndarray,
    lengths: Sequence[int],
    steps: int,
    delay_cost: float,
    groups: np.ndarray | None = None,
    unit: str = "groups",
    n_resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Mean of (answer wrong) + delay_cost * t / T. Raises ValueError where a series has no answer yet."""
    cost_N = _costs(stop_N, answer_N, y, lengths, steps, delay_cost)
    return Resamples(len(y), n_resamples, seed, groups, unit).estimate(Ratio(cost_N, np.ones(len(y))))


def average_cost(
    by_delay_cost: Mapping[float, tuple[np.ndarray, np.ndarray]],
    y: np.ndarray,
    lengths: Sequence[int],
    steps: int,
    groups: np.ndarray | None = None,
    unit: str = "groups",
    n_resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """AvgCost (Renault et al. 2024, arXiv:2406.18332): the mean of `cost` over delay costs.

    Args:
        by_delay_cost: delay cost -> (stop_N, answer_N) of the rule fitted for it. (Of one set of decisions for all of
            them this would be no more than `cost` at their mean.)

    Raises ValueError where a series has no answer yet.
    """
    found = [_costs(*decided, y, lengths, steps, delay_cost) for delay_cost, decided in by_delay_cost.items()]
    mean_N = np.mean(found, axis=0)
    return Resamples(len(y), n_resamples, seed, groups, unit).estimate(Ratio(mean_N, np.ones(len(y))))


@dataclass(frozen=True)
class Saving:
    """A stopping rule beside answers at a fixed time."""

    accuracy: float  # of the rule
    steps_observed: float  # the rule's mean
    fixed_steps: float  # what answers at a fixed time need for the same accuracy
    beyond: bool  # no fixed time is as accurate: `fixed_steps` is that of the most accurate one
    saving: Estimate  # 1 - steps_observed / fixed_steps
    accuracy_gain: Estimate  # the rule's accuracy less that of answers at its mean time

    def __str__(self) -> str:
        than = (
            "more accurate than answers at any fixed time, the best of which" if self.beyond else "as accurate as what"
        )
        needs = "is after" if self.beyond else "answers at a fixed time reach after"
        return (
            f"accuracy {self.accuracy:.3f} after {self.steps_observed:.1f} steps: {than} {needs} {self.fixed_steps:.1f}"
        )


def saving_at_equal_accuracy(
    stop_N: np.ndarray,
    answer_N: np.ndarray,
    p_NLK: np.ndarray,
    y: np.ndarray,
    lengths: Sequence[int],
    groups: np.ndarray | None = None,
    unit: str = "groups",
    n_resamples: int = 1000,
    seed: int = 0,
) -> Saving:
    """How much earlier a rule reaches the accuracy that it has than answers of the same model at a fixed time.

    The fixed times form a frontier: their accuracy, or that of an earlier one where that is higher (nobody must use all
    that was seen), and straight lines between them (what answering some series at the one time and the others at the
    next gives). The frontier is looked up at the rule's accuracy. A rule below the first length's accuracy is held
    against the first length. One above every length's accuracy is held against the most accurate length: the saving
    then understates it, and `beyond` says so.

    The interval is over series; each resample has a frontier and a rule of its own. Where the frontier is flat a small
    difference in accuracy is a large one in time: the interval is then wide, and `accuracy_gain` the steadier number.

    Raises ValueError where a series has no answer yet.
    """
    length_L = np.asarray(lengths, float)
    seen_N = _fraction(stop_N, lengths, 1)
    right_NL = (p_NLK.argmax(axis=2) == y[:, None]).astype(float)
    columns = np.concatenate([right_NL, (answer_N == y)[:, None], seen_N[:, None]], axis=1)

    def means(w_BN: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mean_BC = w_BN @ columns / w_BN.sum(axis=1, keepdims=True)
        return np.maximum.accumulate(mean_BC[:, :-2], axis=1), mean_BC[:, -2], mean_BC[:, -1]

    def saving(w_BN: np.ndarray) -> np.ndarray:
        frontier_BL, accuracy_B, seen_B = means(w_BN)
        return 1 - seen_B / _time_of(accuracy_B, frontier_BL, length_L)

    def gain(w_BN: np.ndarray) -> np.ndarray:
        frontier_BL, accuracy_B, seen_B = means(w_BN)
        at_B = np.array([np.interp(seen, length_L, row) for seen, row in zip(seen_B, frontier_BL, strict=True)])
        return accuracy_B - at_B

    resamples = Resamples(len(y), n_resamples, seed, groups, unit)
    frontier_1L, accuracy_1, seen_1 = means(np.ones((1, len(y))))
    return Saving(
        accuracy=float(accuracy_1[0]),
        steps_observed=float(seen_1[0]),
        fixed_steps=float(_time_of(accuracy_1, frontier_1L, length_L)[0]),
        beyond=bool(accuracy_1[0] > frontier_1L[0, -1] + 1e-12),
        saving=resamples.estimate(saving),
        accuracy_gain=resamples.estimate(gain),
    )


def _time_of(accuracy_B: np.ndarray, frontier_BL: np.ndarray, length_L: np.ndarray) -> np.ndarray:
    """The first time (B,) at which rising frontiers have reached an accuracy, or the time of their highest point."""
    goal_B1 = np.minimum(accuracy_B, frontier_BL[:, -1])[:, None]
    right_B = (frontier_BL >= goal_B1 - 1e-12).argmax(axis=1)  # rounding must not put it a length later
    left_B, rows = np.maximum(right_B - 1, 0), np.arange(len(frontier_BL))
    low_B, high_B = frontier_BL[rows, left_B], frontier_BL[rows, right_B]
    share_B = np.divide(goal_B1[:, 0] - low_B, high_B - low_B, out=np.ones(len(rows)), where=high_B > low_B)
    return length_L[left_B] + np.clip(share_B, 0, 1) * (length_L[right_B] - length_L[left_B])


def _fraction(stop_N: np.ndarray, lengths: Sequence[int], steps: int) -> np.ndarray:
    """Steps seen over `steps`, of each series."""
    if (stop_N < 0).any():
        raise ValueError(
            f"{int((stop_N < 0).sum())} of {len(stop_N)} series have no answer yet; scores need forced ones"
        )
    return np.asarray(lengths, float)[stop_N] / steps


def _costs(
    stop_N: np.ndarray, answer_N: np.ndarray, y: np.ndarray, lengths: Sequence[int], steps: int, delay_cost: float
) -> np.ndarray:
    return (answer_N != y) + delay_cost * _fraction(stop_N, lengths, steps)


def _bounded(estimate: Estimate) -> Estimate:
    return replace(estimate, low=max(estimate.low, 0.0), high=min(estimate.high, 1.0))
