"""Scores of curves and decisions against their formulas, and the comparison with fixed times where it is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_core.intervals import bootstrap
from timeseries_dualmodal import earliness

LENGTHS = (2, 4, 8)


def answers_with(right_NL: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, L, 2) and labels for which the answers are right where they are said to be."""
    y = np.arange(len(right_NL)) % 2
    says_NL = np.where(right_NL, y[:, None], 1 - y[:, None])
    return np.eye(2)[says_NL] * 0.8 + 0.1, y


def rows(*shares: float, n: int = 100) -> np.ndarray:
    """Right answers (n, L): the first series of each length."""
    return np.arange(n)[:, None] < np.array(shares) * n


def test_a_curve_is_scikit_learns_scores_at_each_length() -> None:
    from sklearn.metrics import accuracy_score, f1_score

    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 200)
    p_NLK = rng.dirichlet(np.ones(4), (200, 3)) + np.array([0.0, 0.3, 2.0])[:, None] * np.eye(4)[y][:, None]
    p_NLK /= p_NLK.sum(axis=2, keepdims=True)
    answers_NL = (p_NLK * [1, 1.3, 1, 1]).argmax(axis=2)
    found = earliness.curve(p_NLK, answers_NL, y, LENGTHS, n_resamples=20)
    for k, q in enumerate(answers_NL.T):
        assert found.accuracy[k].value == accuracy_score(y, p_NLK[:, k].argmax(axis=1))
        assert found.macro_f1[k].value == pytest.approx(f1_score(y, q, labels=[0, 1, 2], average="macro"))
        assert found.f1_LK[k, :3] == pytest.approx(f1_score(y, q, labels=[0, 1, 2], average=None))
    assert np.isnan(found.f1_LK[:, 3]).all()  # no label
    assert found.recognised() == 8 and found.recognised(1.01) is None
    assert found.classes_recognised() == (8, 8, 8, None)


def test_the_first_length_that_reaches_a_level() -> None:
    assert earliness.first_reaching((2, 4, 8), [0.7, 0.8, 0.75], 0.8) == 4
    assert earliness.first_reaching((2, 4, 8), [0.7, np.nan, 0.75], 0.8) is None


decided = st.integers(2, 40).flatmap(
    lambda n: st.tuples(*(st.lists(st.integers(0, k), min_size=n, max_size=n).map(np.array) for k in (2, 3, 3)))
)


@given(decided)
@settings(deadline=None, max_examples=40)
def test_decision_scores_are_their_formulas(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    stop_N, answer_N, y = data
    t = np.array(LENGTHS)[stop_N]
    found = earliness.decision_scores(stop_N, answer_N, y, LENGTHS, 10, 4, n_resamples=10)
    accuracy, fraction = (answer_N == y).mean(), (t / 10).mean()
    assert found["accuracy"].value == pytest.approx(accuracy)
    assert found["steps_observed"].value == pytest.approx(t.mean())
    assert found["fraction_observed"].value == pytest.approx(fraction)
    assert found["unobserved_elects"].value == pytest.approx(1 - ((t - 1) / 9).mean())
    harmonic = 2 * accuracy * (1 - fraction) / (accuracy + 1 - fraction)
    assert found["harmonic_mean"].value == pytest.approx(harmonic)
    for name, e in found.items():
        assert e.low <= e.value <= e.high and e.n == len(y), name
    for delay_cost in (0.0, 0.3):
        e = earliness.cost(stop_N, answer_N, y, LENGTHS, 10, delay_cost, n_resamples=10)
        assert e.value == pytest.approx(1 - accuracy + delay_cost * fraction)


def test_intervals_are_those_of_resampled_series() -> None:
    rng = np.random.default_rng(0)
    stop_N, y = rng.integers(0, 3, 150), rng.integers(0, 3, 150)
    answer_N = np.where(rng.random(150) < 0.7, y, 0)

    def plain(stop: np.ndarray, answer: np.ndarray, y: np.ndarray) -> float:
        accuracy, unseen = (answer == y).mean(), 1 - np.array(LENGTHS)[stop].mean() / 10
        return 2 * accuracy * unseen / (accuracy + unseen)

    for groups in (None, np.arange(150) // 5):
        slow = bootstrap(plain, stop_N, answer_N, y, n_resamples=50, groups=groups)
        fast = earliness.decision_scores(stop_N, answer_N, y, LENGTHS, 10, 3, groups, n_resamples=50)["harmonic_mean"]
        assert (fast.value, fast.low, fast.high) == pytest.approx((slow.value, slow.low, slow.high))


def test_average_cost_is_the_mean_over_rules_of_their_own_costs() -> None:
    y = np.arange(40) % 2
    early, late = (np.zeros(40, int), np.zeros(40, int)), (np.full(40, 2), y)
    rules = {0.1: late, 1.0: early}
    found = earliness.average_cost(rules, y, LENGTHS, 8)
    each = [earliness.cost(*rule, y, LENGTHS, 8, delay_cost).value for delay_cost, rule in rules.items()]
    assert each == pytest.approx([0.1, 0.5 + 0.25]) and found.value == pytest.approx(np.mean(each))
    same = {delay_cost: late for delay_cost in (0.1, 0.5)}
    assert earliness.average_cost(same, y, LENGTHS, 8).value == pytest.approx(0.3)  # the cost at their mean


def test_a_season_of_one_step_has_nothing_unobserved_in_electss_sense() -> None:
    zeros = np.zeros(5, int)
    found = earliness.decision_scores(zeros, zeros, zeros, (1,), 1, 2, n_resamples=10)
    assert np.isnan(found["unobserved_elects"].value) and found["fraction_observed"].value == 1
    assert found["harmonic_mean"].value == 0


@pytest.mark.parametrize(
    ("share", "time"),
    [
        (0.5, 2.0),  # what the first length has
        (0.3, 2.0),  # less than any has: the first
        (0.6, 3.0),  # half of the way from .5 to .7
        (0.7, 4.0),
        (0.8, 6.0),
        (0.9, 8.0),
    ],
)
def test_the_frontier_of_fixed_times_is_looked_up_at_the_rules_accuracy(share: float, time: float) -> None:
    p_NLK, y = answers_with(rows(0.5, 0.7, 0.9))
    answer_N = np.where(np.arange(100) < share * 100, y, 1 - y)
    stop_N = np.arange(100) % 2  # 3 steps on average
    found = earliness.saving_at_equal_accuracy(stop_N, answer_N, p_NLK, y, LENGTHS)
    assert found.accuracy == pytest.approx(share) and found.steps_observed == 3
    assert found.fixed_steps == pytest.approx(time) and not found.beyond
    assert found.saving.value == pytest.approx(1 - 3 / time)
    assert found.accuracy_gain.value == pytest.approx(share - 0.6)
    assert found.saving.low <= found.saving.value <= found.saving.high < 1


def test_waiting_longer_for_a_worse_answer_counts_as_the_earlier_one() -> None:
    p_NLK, y = answers_with(rows(0.5, 0.9, 0.8))
    answer_N = np.where(np.arange(100) < 85, y, 1 - y)
    found = earliness.saving_at_equal_accuracy(np.zeros(100, int), answer_N, p_NLK, y, LENGTHS)
    assert found.fixed_steps == pytest.approx(2 + 2 * 0.35 / 0.4) and not found.beyond


def test_a_rule_that_is_better_than_every_fixed_time_is_called_that() -> None:
    p_NLK, y = answers_with(rows(0.5, 0.9, 0.8))
    found = earliness.saving_at_equal_accuracy(np.zeros(100, int), y, p_NLK, y, LENGTHS)
    assert found.beyond and found.fixed_steps == 4 and found.saving.value == pytest.approx(0.5)
    assert "more accurate than answers at any fixed time, the best of which is after 4.0" in str(found)


@given(st.integers(0, 999), st.integers(0, 2))
@settings(deadline=None, max_examples=30)
def test_a_fixed_time_saves_nothing_over_itself(seed: int, index: int) -> None:
    """Unless an earlier length is as good; then less than nothing, by as much as it came later."""
    rng = np.random.default_rng(seed)
    p_NLK, y = answers_with(rng.random((60, 3)) < np.sort(rng.random(3)))
    found = earliness.saving_at_equal_accuracy(
        np.full(60, index), p_NLK[:, index].argmax(axis=1), p_NLK, y, LENGTHS, n_resamples=20
    )
    accuracy_L = (p_NLK.argmax(axis=2) == y[:, None]).mean(axis=0)
    assert not found.beyond and found.accuracy_gain.value <= 1e-12
    if index == 0 or accuracy_L[index] > accuracy_L[:index].max():
        assert found.saving.value == pytest.approx(0) and found.accuracy_gain.value == pytest.approx(0)
    else:
        assert found.saving.value < 0


def test_the_interval_of_a_saving_is_that_of_resampled_series() -> None:
    rng = np.random.default_rng(2)
    p_NLK, y = answers_with(rng.random((120, 3)) < [0.5, 0.7, 0.9])
    stop_N = rng.integers(0, 3, 120)
    answer_N = np.where(rng.random(120) < 0.75, y, 1 - y)

    def plain(right_NL: np.ndarray, hit: np.ndarray, t: np.ndarray) -> float:
        frontier = np.maximum.accumulate(right_NL.mean(axis=0))
        rising, where = np.unique(frontier, return_index=True)  # the first time of each height
        return float(1 - t.mean() / np.interp(hit.mean(), rising, np.array(LENGTHS, float)[where]))

    right_NL = p_NLK.argmax(axis=2) == y[:, None]
    slow = bootstrap(plain, right_NL, answer_N == y, np.array(LENGTHS)[stop_N], n_resamples=80)
    fast = earliness.saving_at_equal_accuracy(stop_N, answer_N, p_NLK, y, LENGTHS, n_resamples=80).saving
    assert (fast.value, fast.low, fast.high) == pytest.approx((slow.value, slow.low, slow.high))


def test_series_without_an_answer_are_no_decisions_to_score() -> None:
    zeros, stop_N = np.zeros(3, int), np.array([0, -1, 1])
    with pytest.raises(ValueError, match="1 of 3 series have no answer yet"):
        earliness.decision_scores(stop_N, zeros, zeros, LENGTHS, 8, 2)
    with pytest.raises(ValueError, match="have no answer yet"):
        earliness.cost(stop_N, zeros, zeros, LENGTHS, 8, 0.1)
