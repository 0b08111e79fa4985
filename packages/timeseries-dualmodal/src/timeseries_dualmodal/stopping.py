"""When to answer: stopping rules for early classification, fitted on validation series.

Both rules read calibrated probabilities (`timeseries_dualmodal.temperature`) after each of L lengths, the shortest
first. Each series gets one answer, the most probable class at the length where its rule stops; what comes later does
not change it. The cost of an answer is 1 if it is wrong, plus `delay_cost` times the share of the season's steps seen
(Achenchabe et al. 2021, "Early classification of time series: cost-based optimization criterion and algorithms",
Machine Learning 110:1481).

- Confidence: stops where the probability of the answer reaches a threshold and the answer has been the same for some
  lengths in a row. The threshold is the one with the lowest cost on the validation series.
- Cost: stops where going on is not expected to lower the cost. What it lowers is regressed at every length but the last
  on what is known there. The target is the cost that the rule itself comes to later, so lengths are fitted from the
  last to the first: optimal stopping by regression (Longstaff and Schwartz 2001, Review of Financial Studies 14:113),
  non-myopic as CALIMERA is (Bilski and Jastrzebska 2023, Information Processing and Management 60:103465). Where that
  is no cheaper on series left out of the fit than one length for all, the rule is to answer at that length.

Shapes: N series, L lengths, K classes, F features. `p_NLK`: probabilities after each length, `p_NK` after one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from shared_core.errors import UserError
from timeseries_dualmodal.decision_config import Decision

NOT_YET = -1  # stands for the answer and the length of a series that has not stopped
NEVER = 2.0  # a threshold that no probability reaches
FEATURES = ("top", "top_squared", "margin", "concentration")
PENALTY = 10.0  # of the ridge regressions
DELAY_COSTS = tuple(float(c) for c in np.geomspace(0.01, 2.0, 16))  # tried for `hold`
FOLDS = 5
LARGEST = 1e9  # of numbers in a stored rule


class Decisions(NamedTuple):
    """What was decided for N series."""

    stop_N: np.ndarray  # int64 index of the length at which it was decided, or NOT_YET
    answer_N: np.ndarray  # int64 class, or NOT_YET

    @property
    def stopped_N(self) -> np.ndarray:
        """Whether there is an answer."""
        return self.stop_N != NOT_YET


@dataclass(frozen=True)
class Rule(ABC):
    """A fitted rule; made by `fit` or `from_dict`."""

    lengths: tuple[int, ...]  # L, ascending: numbers of steps
    classes: int

    @abstractmethod
    def stops(self, index: int, p_NK: np.ndarray, agreed_N: np.ndarray) -> np.ndarray:
        """Which series (N,) stop at the length `index` (the last excluded), if they have not yet.

        `agreed_N`: for how many lengths in a row, this one included, the answer has been the same.
        """

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, from which `from_dict` makes the same rule."""


@dataclass(frozen=True)
class ConfidenceRule(Rule):
    """Stops at a probability of `threshold` and more, after `agreement` equal answers in a row."""

    threshold: float
    agreement: int

    def stops(self, index: int, p_NK: np.ndarray, agreed_N: np.ndarray) -> np.ndarray:
        return (p_NK.max(axis=1) >= self.threshold) & (agreed_N >= self.agreement)

    def as_dict(self) -> dict[str, Any]:
        return {"rule": "confidence"} | _plain(asdict(self))


@dataclass(frozen=True)
class CostRule(Rule):
    """Stops where what going on saves, a linear function of `FEATURES` with an offset per answer, is not positive."""

    delay_cost: float  # that it was fitted for
    coefficients: tuple[tuple[float, ...], ...]  # (L - 1, F)
    offsets: tuple[tuple[float, ...], ...]  # (L - 1, K)

    def stops(self, index: int, p_NK: np.ndarray, agreed_N: np.ndarray) -> np.ndarray:
        saving_N = np.asarray(self.offsets[index])[p_NK.argmax(axis=1)]
        # term by term, since a matrix product may round a series differently in another batch
        for coefficient, feature_N in zip(self.coefficients[index], _features(p_NK), strict=True):
            saving_N = saving_N + coefficient * feature_N
        return saving_N <= 0

    def as_dict(self) -> dict[str, Any]:
        return {"rule": "cost"} | _plain(asdict(self))


class Decider:
    """Decides for N series while they grow; what it says after each length equals `decide` on all of them.

    Args:
        series: N.
        forced: whether a series that never stopped is answered at the last length; else it stays NOT_YET.
    """

    def __init__(self, rule: Rule, series: int, forced: bool = True) -> None:
        self.rule, self.forced = rule, forced
        self._index = 0  # of the next length
        self._previous_N = np.full(series, NOT_YET)
        self._agreed_N = np.zeros(series, np.int64)
        self._stop_N, self._answer_N = np.full(series, NOT_YET), np.full(series, NOT_YET)

    def update(self, p_NK: np.ndarray) -> Decisions:
        """What is decided after the next length, by the probabilities there; those of stopped series are not read.

        Raises ValueError for another number of series or classes, and after the last length.
        """
        rule = self.rule
        if self._index == len(rule.lengths):
            raise ValueError(f"all {len(rule.lengths)} lengths have been seen; a new season needs a new Decider")
        if p_NK.shape != (len(self._stop_N), rule.classes):
            raise ValueError(f"probabilities {p_NK.shape}: must be ({len(self._stop_N)}, {rule.classes})")
        p_NK = np.ascontiguousarray(p_NK, np.float64)  # sums then do not depend on the batch's layout
        answer_N = p_NK.argmax(axis=1)
        self._agreed_N = np.where(answer_N == self._previous_N, self._agreed_N + 1, 1)
        self._previous_N = answer_N
        if self._index < len(rule.lengths) - 1:
            stops_N = rule.stops(self._index, p_NK, self._agreed_N)
        else:
            stops_N = np.full(len(p_NK), self.forced)
        newly_N = stops_N & (self._stop_N == NOT_YET)
        self._stop_N = np.where(newly_N, self._index, self._stop_N)
        self._answer_N = np.where(newly_N, answer_N, self._answer_N)
        self._index += 1
        return Decisions(self._stop_N, self._answer_N)


def decide(rule: Rule, p_NLK: np.ndarray, forced: bool = True) -> Decisions:
    """What is decided once all lengths are there; `forced` as in `Decider`.

    Fewer lengths than the rule has are decided as far as they go. Raises ValueError for more, or other classes.
    """
    if p_NLK.ndim != 3 or not 1 <= p_NLK.shape[1] <= len(rule.lengths):
        raise ValueError(f"probabilities {p_NLK.shape}: must be (N, 1..{len(rule.lengths)}, {rule.classes})")
    decider = Decider(rule, len(p_NLK), forced)
    for index in range(p_NLK.shape[1]):
        found = decider.update(p_NLK[:, index])
    return found


def fit(
    settings: Decision,
    p_NLK: np.ndarray,
    y: np.ndarray,
    lengths: Sequence[int],
    steps: int,
    groups: np.ndarray | None = None,
) -> Rule:
    """The rule that the settings ask for.

    Args:
        p_NLK: calibrated probabilities of validation series.
        y: (N,) their classes.
        lengths: the L lengths, ascending.
        steps: of the whole season; at least the last length.
        groups: (N,) where each comes from: where a rule is tried on series left out of a fit, so are those of the same
            group, if there are 5 groups.

    Raises:
        UserError: too few validation series for `hold`.
        ValueError: shapes that do not fit, or lengths that do not ascend within 1..steps.
    """
    _check(p_NLK, y, lengths, steps)
    task = _Task(np.asarray(p_NLK, np.float64), y, tuple(int(n) for n in lengths), steps, _folds(len(y), groups))
    if settings.rule == "confidence":
        return _fit_confidence(settings, task)
    if settings.hold is None:
        return _cheaper(task, settings.delay_cost)
    if len(y) < FOLDS:
        raise UserError(f"decision.hold: {len(y)} validation series, needs {FOLDS}; raise --split.val or leave it out")
    # on the series it was fitted on, a regression looks better than it is: the delay cost is chosen by other ones
    tried = [(cost, _cross_fitted(task, cost)) for cost in DELAY_COSTS]
    return _fit_cost(task, task.earliest(tried, settings.hold))


class _Task(NamedTuple):
    """The validation series, and what decisions are worth on them."""

    p_NLK: np.ndarray
    y: np.ndarray
    lengths: tuple[int, ...]
    steps: int
    fold_N: np.ndarray

    @property
    def classes(self) -> int:
        return self.p_NLK.shape[2]

    def take(self, rows: np.ndarray) -> _Task:
        return self._replace(p_NLK=self.p_NLK[rows], y=self.y[rows], fold_N=self.fold_N[rows])

    def fraction(self, stop_N: np.ndarray) -> np.ndarray:
        """Share of the steps seen."""
        return np.asarray(self.lengths)[stop_N] / self.steps

    def wrong(self, stop_N: np.ndarray) -> np.ndarray:
        """Whether the answer at that length is wrong."""
        return (self.p_NLK[np.arange(len(self.y)), stop_N].argmax(axis=1) != self.y).astype(np.float64)

    def cost(self, stop_N: np.ndarray, delay_cost: float) -> np.ndarray:
        return self.wrong(stop_N) + delay_cost * self.fraction(stop_N)

    def at(self, index: int) -> np.ndarray:
        """Decisions (N,) that all fall at one length."""
        return np.full(len(self.y), index)

    def cheapest(self, tried: Iterable[tuple[float, np.ndarray]], delay_cost: float) -> float:
        """Of settings with their decisions (N,), the one with the lowest mean cost; the first of equals."""
        return min(tried, key=lambda pair: self.cost(pair[1], delay_cost).mean())[0]

    def earliest(self, tried: Iterable[tuple[float, np.ndarray]], hold: float) -> float:
        """The earliest one that holds a share of the last length's accuracy; where none does, the most accurate."""
        goal = hold * (1 - self.wrong(self.at(len(self.lengths) - 1)).mean())
        rated = [(1 - self.wrong(stop_N).mean(), self.fraction(stop_N).mean(), value) for value, stop_N in tried]
        holding = [(when, value) for accuracy, when, value in rated if accuracy >= goal - 1e-12]
        return min(holding)[1] if holding else max(rated)[2]


def _fit_confidence(settings: Decision, task: _Task) -> ConfidenceRule:
    def rule(threshold: float) -> ConfidenceRule:
        return ConfidenceRule(task.lengths, task.classes, threshold, settings.agreement)

    seen = np.quantile(task.p_NLK.max(axis=2), np.linspace(0, 1, 101))
    thresholds = [NEVER, *(float(value) for value in np.unique(seen)[::-1])]
    tried = [(threshold, decide(rule(threshold), task.p_NLK).stop_N) for threshold in thresholds]
    if settings.hold is None:
        return rule(task.cheapest(tried, settings.delay_cost))
    return rule(task.earliest(tried, settings.hold))


def _cheaper(task: _Task, delay_cost: float) -> CostRule:
    """The fitted rule, or one length for all where the rule is not cheaper on series that it did not see.

    Of probabilities that say little a regression finds chance alone, and what follows it can cost more than not looking
    at them. Too few series for folds are not compared.
    """
    if len(task.y) < FOLDS:
        return _fit_cost(task, delay_cost)
    fixed_L = np.array([task.cost(task.at(index), delay_cost).mean() for index in range(len(task.lengths))])
    if fixed_L.min() <= task.cost(_cross_fitted(task, delay_cost), delay_cost).mean() + 1e-12:
        return _at_one_length(task, int(fixed_L.argmin()), delay_cost)
    return _fit_cost(task, delay_cost)


def _at_one_length(task: _Task, stop: int, delay_cost: float) -> CostRule:
    """Answers every series at the length `stop`: going on saves 1 before it and -1 from it on."""
    before = len(task.lengths) - 1
    offsets = tuple((1.0 if index < stop else -1.0,) * task.classes for index in range(before))
    return CostRule(task.lengths, task.classes, delay_cost, ((0.0,) * len(FEATURES),) * before, offsets)


def _fit_cost(task: _Task, delay_cost: float) -> CostRule:
    last = len(task.lengths) - 1
    later_N = task.cost(task.at(last), delay_cost)  # what a series costs that goes on from the length looked at
    fitted: list[tuple[np.ndarray, np.ndarray]] = []
    for index in reversed(range(last)):
        now_N = task.cost(task.at(index), delay_cost)
        p_NK = np.ascontiguousarray(task.p_NLK[:, index])
        coefficient_F, offset_K = _regress(p_NK, now_N - later_N)
        fitted.insert(0, (coefficient_F, offset_K))
        saving_N = coefficient_F @ np.stack(_features(p_NK)) + offset_K[p_NK.argmax(axis=1)]
        later_N = np.where(saving_N <= 0, now_N, later_N)
    coefficients, offsets = (tuple(tuple(parts[k].tolist()) for parts in fitted) for k in range(2))
    return CostRule(task.lengths, task.classes, delay_cost, coefficients, offsets)


def _regress(p_NK: np.ndarray, saving_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression on standardised features and answers: coefficients (F,) and offsets (K,) of the plain ones."""
    from sklearn.linear_model import Ridge

    columns = np.concatenate([np.stack(_features(p_NK), axis=1), np.eye(p_NK.shape[1])[p_NK.argmax(axis=1)]], axis=1)
    mean, spread = columns.mean(axis=0), columns.std(axis=0)
    spread[spread < 1e-9] = 1.0  # always the same
    ridge = Ridge(PENALTY).fit((columns - mean) / spread, saving_N)
    slope = ridge.coef_ / spread
    f = len(FEATURES)
    return slope[:f], slope[f:] + ridge.intercept_ - slope @ mean


def _cross_fitted(task: _Task, delay_cost: float) -> np.ndarray:
    """Decisions (N,) of rules that did not see the series they decide."""
    stop_N = np.empty(len(task.y), np.int64)
    for fold in range(FOLDS):
        inside = task.fold_N == fold
        rule = _fit_cost(task.take(np.flatnonzero(~inside)), delay_cost)
        stop_N[inside] = decide(rule, task.p_NLK[inside]).stop_N
    return stop_N


def _folds(series: int, groups: np.ndarray | None) -> np.ndarray:
    """The fold (N,) of each series: that of its group, where there are groups enough."""
    codes = np.arange(series) if groups is None else np.unique(groups, return_inverse=True)[1]
    return (codes if codes.max(initial=0) >= FOLDS - 1 else np.arange(series)) % FOLDS


def _features(p_NK: np.ndarray) -> tuple[np.ndarray, ...]:
    """The `FEATURES`, (N,) each: the largest probability, its square, its lead, and the sum of all squares."""
    second_N, top_N = np.sort(p_NK, axis=1)[:, -2:].T
    return top_N, top_N * top_N, top_N - second_N, (p_NK * p_NK).sum(axis=1)


def from_dict(data: Any) -> Rule:
    """The rule that `as_dict` described. Raises UserError for anything that is no such description."""
    if not isinstance(data, dict):
        raise _unfit("is no mapping")
    kinds: dict[Any, Callable[[dict[str, Any]], Rule]] = {"confidence": _confidence_rule, "cost": _cost_rule}
    kind = data.get("rule")
    if not isinstance(kind, str) or kind not in kinds:
        raise _unfit(f"rule is {kind!r:.40}")
    own = {"confidence": {"threshold", "agreement"}, "cost": {"delay_cost", "coefficients", "offsets"}}[kind]
    if odd := sorted(repr(key) for key in data.keys() ^ ({"rule", "lengths", "classes"} | own)):
        raise _unfit(f"{odd[0]:.40} is missing or too much")
    return kinds[kind](data)


def _confidence_rule(data: dict[str, Any]) -> ConfidenceRule:
    (threshold,) = _numbers([data["threshold"]], 1, "threshold", 0.0, NEVER)
    return ConfidenceRule(*_lengths_and_classes(data), threshold, _whole(data["agreement"], "agreement"))


def _cost_rule(data: dict[str, Any]) -> CostRule:
    lengths, classes = _lengths_and_classes(data)
    (delay_cost,) = _numbers([data["delay_cost"]], 1, "delay_cost", 0.0, LARGEST)
    tables = []
    for key, width in (("coefficients", len(FEATURES)), ("offsets", classes)):
        rows = data[key]
        if not isinstance(rows, list) or len(rows) != len(lengths) - 1:
            raise _unfit(f"{key} must have one row for each length but the last")
        tables.append(tuple(_numbers(row, width, key, -LARGEST, LARGEST) for row in rows))
    return CostRule(lengths, classes, delay_cost, *tables)


def _lengths_and_classes(data: dict[str, Any]) -> tuple[tuple[int, ...], int]:
    if not isinstance(data["lengths"], list) or not data["lengths"]:
        raise _unfit("lengths must be a list of numbers of steps")
    lengths = tuple(_whole(length, "lengths") for length in data["lengths"])
    if list(lengths) != sorted(set(lengths)):
        raise _unfit("lengths do not ascend")
    return lengths, _whole(data["classes"], "classes", least=2)


def _whole(value: Any, key: str, least: int = 1) -> int:
    if type(value) is not int or not least <= value <= LARGEST:
        raise _unfit(f"{key} must be a whole number of {least} or more, found {value!r:.40}")
    return value


def _numbers(values: Any, count: int, key: str, low: float, high: float) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) != count:
        raise _unfit(f"{key} must be lists of {count} numbers")
    for value in values:
        if type(value) not in (int, float) or not low <= value <= high:
            raise _unfit(f"{key} must lie in {low:g}..{high:g}, found {value!r:.40}")
    return tuple(float(value) for value in values)


def _unfit(what: str) -> UserError:
    return UserError(f"stopping rule: {what}; fit it again, or give the file that was written")


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def _check(p_NLK: np.ndarray, y: np.ndarray, lengths: Sequence[int], steps: int) -> None:
    if p_NLK.ndim != 3 or len(p_NLK) == 0 or p_NLK.shape[1] != len(lengths) or p_NLK.shape[2] < 2:
        raise ValueError(f"probabilities {p_NLK.shape}: must be (N, {len(lengths)}, K), N at least 1, K at least 2")
    if y.shape != p_NLK.shape[:1]:
        raise ValueError(f"labels {y.shape}: must be {p_NLK.shape[:1]}")
    if list(lengths) != sorted(set(lengths)) or not 1 <= lengths[0] <= lengths[-1] <= steps:
        raise ValueError(f"lengths {list(lengths)}: must ascend within 1..{steps}")
