"""Stopping rules: the incremental answer is the whole one, known optima are found, and what is stored is the rule."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from shared_core.errors import UserError
from timeseries_dualmodal import stopping
from timeseries_dualmodal.decision_config import Decision
from timeseries_dualmodal.stopping import NOT_YET, ConfidenceRule, CostRule, Decider, Rule, decide, fit

LENGTHS = (3, 6, 9, 12)


def growing(n: int, lengths: int = 4, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities; every series is nearly a guess up to a length of its own. And their classes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    strength = np.where(np.arange(lengths) >= rng.integers(0, lengths + 1, (n, 1)), 2.5, 0.3)[:, :, None]
    seen = strength * np.eye(classes)[y][:, None] + rng.normal(size=(n, lengths, classes))
    logit = (strength * seen).cumsum(axis=1)
    e = np.exp(logit - logit.max(axis=2, keepdims=True))
    return e / e.sum(axis=2, keepdims=True), y


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    lengths, classes = tuple(range(1, draw(st.integers(1, 6)) + 1)), draw(st.integers(2, 12))
    if draw(st.booleans()):
        return ConfidenceRule(lengths, classes, draw(st.floats(0, 1)), draw(st.integers(1, 3)))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    tables = [rng.normal(size=(len(lengths) - 1, width)).tolist() for width in (len(stopping.FEATURES), classes)]
    return CostRule(lengths, classes, 0.2, *(tuple(map(tuple, table)) for table in tables))


def any_probabilities(rule: Rule, n: int, seed: int, coarse: bool) -> np.ndarray:
    """Of any kind; coarse ones have ties and certainties."""
    rng = np.random.default_rng(seed)
    p_NLK = rng.dirichlet(np.full(rule.classes, 0.3), (n, len(rule.lengths)))
    p_NLK = (p_NLK * 4).round() + 1e-9 if coarse else p_NLK
    return p_NLK / p_NLK.sum(axis=2, keepdims=True)


def test_series_of_a_group_share_a_fold() -> None:
    group_N = np.arange(120) % 7
    fold_N = stopping._folds(120, np.array([f"field {group}" for group in group_N]))
    assert set(fold_N) == set(range(stopping.FOLDS))
    assert all(len(set(fold_N[group_N == group])) == 1 for group in range(7))
    for groups in (None, group_N % 3):  # too few groups for the folds
        assert np.array_equal(stopping._folds(120, groups), np.arange(120) % stopping.FOLDS)


@given(rules(), st.integers(0, 20), st.integers(0, 9999), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=200)
def test_what_is_decided_step_by_step_is_what_is_decided_on_the_whole(
    rule: Rule, n: int, seed: int, coarse: bool, forced: bool
) -> None:
    p_NLK = any_probabilities(rule, n, seed, coarse)
    whole = decide(rule, p_NLK, forced)
    together = Decider(rule, n, forced)
    alone = [Decider(rule, 1, forced) for _ in range(n)]
    for index in range(len(rule.lengths)):
        found = together.update(np.asfortranarray(p_NLK[:, index]))
        each = [decider.update(p_NLK[[row], index]) for row, decider in enumerate(alone)]
        so_far = decide(rule, p_NLK[:, : index + 1], forced)
        stopped_N = (whole.stop_N != NOT_YET) & (whole.stop_N <= index)
        for stop_N, answer_N in (found, so_far):
            assert np.array_equal(stop_N, np.where(stopped_N, whole.stop_N, NOT_YET))
            assert np.array_equal(answer_N, np.where(stopped_N, whole.answer_N, NOT_YET))
        assert [int(one.stop_N[0]) for one in each] == found.stop_N.tolist()
        assert [int(one.answer_N[0]) for one in each] == found.answer_N.tolist()
    assert whole.stopped_N.all() or not forced
    rows = np.flatnonzero(whole.stopped_N)
    assert np.array_equal(whole.answer_N[rows], p_NLK[rows, whole.stop_N[rows]].argmax(axis=1))


@given(rules(), st.integers(0, 9999), st.integers(0, 5))
@settings(deadline=None)
def test_nothing_after_a_decision_changes_it(rule: Rule, seed: int, index: int) -> None:
    index %= len(rule.lengths)
    p_NLK = any_probabilities(rule, 8, seed, False)
    other_NLK = p_NLK.copy()
    other_NLK[:, index + 1 :] = any_probabilities(rule, 8, seed + 1, True)[:, index + 1 :]
    first, second = decide(rule, p_NLK), decide(rule, other_NLK)
    early_N = first.stop_N <= index
    assert np.array_equal(early_N, second.stop_N <= index)
    assert np.array_equal(first.answer_N[early_N], second.answer_N[early_N])


@given(st.floats(0.3, 1), st.integers(1, 4), st.integers(0, 999), st.booleans())
@settings(deadline=None)
def test_confidence_is_its_definition(threshold: float, agreement: int, seed: int, forced: bool) -> None:
    p_NLK, _ = growing(10, seed=seed)
    found = decide(ConfidenceRule(LENGTHS, 3, threshold, agreement), p_NLK, forced)
    for p_LK, stop in zip(p_NLK, found.stop_N, strict=True):
        answers = p_LK.argmax(axis=1)
        oracle = len(LENGTHS) - 1 if forced else NOT_YET
        for index in range(len(LENGTHS) - 1):
            same = index + 1 >= agreement and len(set(answers[index + 1 - agreement : index + 1])) == 1
            if p_LK[index].max() >= threshold and same:
                oracle = index
                break
        assert stop == oracle


@given(rules())
@settings(deadline=None)
def test_a_stored_rule_is_the_same_rule(rule: Rule) -> None:
    assert stopping.from_dict(json.loads(json.dumps(rule.as_dict()))) == rule


@pytest.mark.parametrize("kind", ["cost", "confidence"])
def test_a_fitted_rule_can_be_stored_and_fitting_it_again_gives_the_same(kind: str) -> None:
    p_NLK, y = growing(200)
    for chosen in (Decision(rule=kind), Decision(rule=kind, hold=0.98)):
        rule = fit(chosen, p_NLK, y, LENGTHS, 14)
        assert rule == fit(chosen, p_NLK, y, LENGTHS, 14) == stopping.from_dict(json.loads(json.dumps(rule.as_dict())))


def cost(p_NLK: np.ndarray, y: np.ndarray, found: stopping.Decisions, delay_cost: float) -> float:
    seen = np.array(LENGTHS)[found.stop_N] / LENGTHS[-1]
    return float((found.answer_N != y).mean() + delay_cost * seen.mean())


@pytest.mark.parametrize("delay_cost", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("kind", ["cost", "confidence"])
def test_rules_beat_every_fixed_time_on_new_series(kind: str, delay_cost: float) -> None:
    p_NLK, y = growing(600)
    rule = fit(Decision(rule=kind, delay_cost=delay_cost, agreement=1), p_NLK, y, LENGTHS, 12)
    new_NLK, truth = growing(4000, seed=1)
    ours = cost(new_NLK, truth, decide(rule, new_NLK), delay_cost)
    fixed = [
        cost(new_NLK, truth, stopping.Decisions(np.full(4000, k), new_NLK[:, k].argmax(axis=1)), delay_cost)
        for k in range(len(LENGTHS))
    ]
    assert ours < min(fixed) - 0.005


@pytest.mark.parametrize("kind", ["cost", "confidence"])
def test_the_dearer_the_delay_the_earlier_the_answer(kind: str) -> None:
    p_NLK, y = growing(600)
    new_NLK, _ = growing(2000, seed=1)
    seen = [
        decide(fit(Decision(rule=kind, delay_cost=c), p_NLK, y, LENGTHS, 12), new_NLK).stop_N.mean()
        for c in (0.01, 0.1, 0.5, 2.0, 50.0)
    ]
    assert seen == sorted(seen, reverse=True)
    assert seen[0] > 1.5 and seen[-1] <= (0 if kind == "cost" else 1.6)  # which needs two equal answers


@pytest.mark.parametrize("kind", ["cost", "confidence"])
@pytest.mark.parametrize("hold", [1.0, 0.97, 0.9])
def test_the_accuracy_asked_for_is_held_with_time_to_spare(kind: str, hold: float) -> None:
    p_NLK, y = growing(800)
    rule = fit(Decision(rule=kind, hold=hold), p_NLK, y, LENGTHS, 12)
    new_NLK, truth = growing(6000, seed=1)
    found = decide(rule, new_NLK)
    goal = hold * (new_NLK[:, -1].argmax(axis=1) == truth).mean()
    assert (found.answer_N == truth).mean() > goal - 0.02
    assert found.stop_N.mean() < 3 - 0.2


def test_the_optimum_is_found_where_it_is_known() -> None:
    """Half of the series are clear at once, the others a coin toss until the last length."""
    n = 400
    y, clear = np.arange(n) % 2, np.arange(n) % 4 < 2
    p_NLK = np.repeat(np.eye(2)[y][:, None], 2, axis=1)
    p_NLK[~clear, 0] = 0.51, 0.49
    p_NLK[~clear & (np.arange(n) % 8 < 4), 0] = 0.49, 0.51
    for delay_cost, stops in ((0.9, np.where(clear, 0, 1)), (1.2, np.zeros(n))):  # the toss costs 1/2, waiting half
        rule = fit(Decision(delay_cost=delay_cost), p_NLK, y, (6, 12), 12)
        assert np.array_equal(decide(rule, p_NLK).stop_N, stops)


def test_the_cost_rule_looks_further_than_the_next_length() -> None:
    """Of half of the series nothing is learned at the second length, everything at the third: the way is worth it."""
    y, clear = np.arange(300) % 3, np.arange(300) < 150
    p_NLK = np.full((300, 3, 3), 1 / 3)
    p_NLK[clear] = np.eye(3)[y[clear]][:, None]
    p_NLK[:, 2] = np.eye(3)[y]
    rule = fit(Decision(delay_cost=0.5), p_NLK, y, (4, 8, 12), 12)
    assert np.array_equal(decide(rule, p_NLK).stop_N, np.where(clear, 0, 2))


def is_at_one_length(rule: Rule) -> bool:
    assert isinstance(rule, CostRule)
    return not np.any(rule.coefficients)


@pytest.mark.parametrize("seed", range(5))
def test_probabilities_that_say_nothing_give_one_length_for_all(seed: int) -> None:
    """Whatever a regression finds in them is chance; on other series it only costs."""
    rng = np.random.default_rng(seed)
    p_NLK, y = rng.dirichlet(np.ones(3), (60, len(LENGTHS))), rng.integers(0, 3, 60)
    rule = fit(Decision(delay_cost=0.05), p_NLK, y, LENGTHS, 12)
    assert is_at_one_length(rule) and stopping.from_dict(json.loads(json.dumps(rule.as_dict()))) == rule
    costs = [
        cost(p_NLK, y, stopping.Decisions(np.full(60, k), p_NLK[:, k].argmax(axis=1)), 0.05)
        for k in range(len(LENGTHS))
    ]
    assert (decide(rule, rng.dirichlet(np.ones(3), (200, len(LENGTHS)))).stop_N == np.argmin(costs)).all()


def test_probabilities_that_say_something_keep_their_rule() -> None:
    p_NLK, y = growing(600)
    for delay_cost in (0.05, 0.2, 0.4):
        rule = fit(Decision(delay_cost=delay_cost), p_NLK, y, LENGTHS, 12)
        assert not is_at_one_length(rule) and len(set(decide(rule, p_NLK).stop_N.tolist())) > 1


def test_one_length_is_answered_at_once_or_never() -> None:
    p_NLK, y = growing(20, lengths=1)
    for kind in ("cost", "confidence"):
        rule = fit(Decision(rule=kind), p_NLK, y, (5,), 12)
        assert (decide(rule, p_NLK).stop_N == 0).all()
        assert (decide(rule, p_NLK, forced=False).answer_N == NOT_YET).all()


@pytest.mark.parametrize("n", [1, 3])
def test_few_validation_series_give_some_rule_and_no_promise(n: int) -> None:
    p_NLK, y = growing(n)
    for kind in ("cost", "confidence"):
        assert decide(fit(Decision(rule=kind), p_NLK, y, LENGTHS, 12), p_NLK).stopped_N.all()
    with pytest.raises(UserError, match=r"decision\.hold: \d validation series, needs 5; raise --split\.val"):
        fit(Decision(hold=1.0), p_NLK, y, LENGTHS, 12)


def test_a_decider_refuses_what_it_cannot_mean() -> None:
    decider = Decider(ConfidenceRule((1, 2), 3, 0.5, 1), 4)
    with pytest.raises(ValueError, match=r"must be \(4, 3\)"):
        decider.update(np.full((4, 2), 0.5))
    for _ in range(2):
        decider.update(np.full((4, 3), 1 / 3))
    with pytest.raises(ValueError, match="a new season needs a new Decider"):
        decider.update(np.full((4, 3), 1 / 3))
    with pytest.raises(ValueError, match=r"must be \(N, 1\.\.2, 3\)"):
        decide(decider.rule, np.full((1, 3, 3), 1 / 3))


@pytest.mark.parametrize(
    ("lengths", "steps", "rows"),
    [((3, 3, 9, 12), 12, 20), ((3, 6, 9, 12), 11, 20), ((3, 6), 12, 20), (LENGTHS, 12, 19)],
)
def test_what_does_not_fit_together_is_a_programming_error(lengths: tuple[int, ...], steps: int, rows: int) -> None:
    p_NLK, y = growing(20)
    with pytest.raises(ValueError):
        fit(Decision(), p_NLK, y[:rows], lengths, steps)


COST = CostRule((3, 6), 2, 0.2, ((1.0, 2.0, 3.0, 4.0),), ((0.5, -0.5),)).as_dict()
CONFIDENCE = ConfidenceRule((3, 6), 2, 0.9, 2).as_dict()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "is no mapping"),
        ({}, "rule is None"),
        (COST | {"rule": ["cost"]}, "rule is"),
        (COST | {"rule": "confidence"}, "is missing or too much"),
        (CONFIDENCE | {"threshold": float("nan")}, r"threshold must lie in 0\.\.2, found nan"),
        (CONFIDENCE | {"agreement": True}, "agreement must be a whole number"),
        (CONFIDENCE | {"lengths": [6, 3]}, "lengths do not ascend"),
        (CONFIDENCE | {"lengths": []}, "lengths must be a list"),
        (CONFIDENCE | {"classes": 1}, "classes must be a whole number of 2 or more"),
        (COST | {"coefficients": []}, "coefficients must have one row for each length but the last"),
        (COST | {"offsets": [[1.0]]}, "offsets must be lists of 2 numbers"),
        (COST | {"offsets": [[1.0, "2"]]}, "offsets must lie in"),
        (COST | {"delay_cost": -1}, "delay_cost must lie in"),
    ],
)
def test_a_damaged_rule_is_refused_in_one_line(data: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        stopping.from_dict(data)
    assert "\n" not in str(error.value) and "stopping rule" in str(error.value)


@pytest.mark.parametrize("wrong", [{"rule": "oracle"}, {"delay_cost": 0}, {"hold": 1.5}, {"agreement": 0}])
def test_settings_are_bounded(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Decision(**wrong)
