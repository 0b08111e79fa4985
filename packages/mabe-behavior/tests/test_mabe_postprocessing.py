"""From probabilities to bouts: what comes out is a submission, whatever goes in."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mabe_behavior import metric, postprocessing, streams
from mabe_behavior.actions import Behaviour
from mabe_behavior.bouts import Bouts
from mabe_behavior.postprocessing import Rule, Rules, apply, apply_all
from mabe_behavior.streams import Stream
from shared_core.errors import UserError

ACTIONS = ("attack", "mount", "sniff")


def stream(p_TK: Any, actions: tuple[str, ...] = ACTIONS, fps: float = 10.0, **others: Any) -> Stream:
    given = dict(video="v", lab="lab", agent="mouse1", target="mouse2") | others
    return Stream(**given, actions=actions, p_TK=np.array(p_TK, np.float32), fps=fps)


def drawn(*numbers: int, actions: int = 2) -> np.ndarray:
    """(T, K) probabilities 0.9 for the action of each frame, 0.1 for the others; -1: for none."""
    return np.where(np.array(numbers)[:, None] == np.arange(actions), 0.9, 0.1)


def told(bouts: Bouts) -> list[tuple[str, int, int]]:
    return [row[3:] for row in bouts.rows]


rules_drawn = st.builds(
    Rule,
    threshold=st.floats(0.05, 1.0),
    smooth=st.sampled_from([0.0, 0.3, 0.7]),
    gap=st.sampled_from([0.0, 0.1, 0.2, 0.35]),
    least=st.sampled_from([0.0, 0.1, 0.3, 0.55]),
)
# shares of the largest, so that ties, plateaus and zeros come up
probabilities = st.integers(1, 40).flatmap(
    lambda frames: st.lists(
        st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]), min_size=3, max_size=3), min_size=frames, max_size=frames
    )
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(probabilities, min_size=2, max_size=2),
    st.lists(rules_drawn, min_size=3, max_size=3),
    st.sampled_from([10.0, 24.99, 30.0]),
)
def test_what_comes_out_is_a_submission(tables: Any, chosen: list[Rule], fps: float) -> None:
    rules = Rules(dict(zip(ACTIONS, chosen, strict=True)))
    both = [stream(tables[0], fps=fps), stream(tables[1], fps=fps, target="self")]
    found = apply_all(both, rules)
    for one in both:
        mine = [row for row in found.rows if row[2] == one.target]
        taken = np.zeros(len(one), int)
        for _, _, _, action, start, stop in mine:
            assert 0 <= start < stop <= len(one)
            assert (stop - start) / fps >= rules.pooled[action].least - 1e-6
            taken[start:stop] += 1
        assert taken.max() <= 1
        # what is said of an animal and a mouse does not depend on what is said of it alone
        assert mine == apply(one, rules).rows
        of_one = sorted((row[3], row[4], row[5]) for row in mine)
        for (action, _, stop), (other, start, _) in pairwise(of_one):
            between = [row for row in mine if row[4] < start and row[5] > stop]
            # a gap that is short enough is left only to what is said in it
            assert action != other or between or (start - stop) / fps > rules.pooled[action].gap - 1e-6
    looked = {"v": [Behaviour("mouse1", one.target, action) for one in both for action in ACTIONS]}
    if len(found):
        truth = Bouts.of([("v", "mouse1", "mouse2", "attack", 0, 1)])
        assert 0 <= metric.score(truth, found, {"v": "lab"}, looked).value <= 1


def test_the_largest_ratio_to_its_threshold_wins() -> None:
    rules = Rules({"attack": Rule(0.2), "mount": Rule(0.6), "sniff": Rule(0.9)})
    p = [[0.3, 0.7, 0.89], [0.3, 1.0, 0.89], [0.1, 0.5, 0.8], [0.4, 0.4, 0.95]]  # 1.5 to 1.17; 1.5 to 1.67; none; 2
    assert told(apply(stream(p), rules)) == [("attack", 0, 1), ("mount", 1, 2), ("attack", 3, 4)]


def test_of_equal_ratios_the_first_action_wins() -> None:
    rules = Rules({"attack": Rule(0.5), "mount": Rule(0.25)})
    assert told(apply(stream([[1.0, 0.5]], ACTIONS[:2]), rules)) == [("attack", 0, 1)]


def test_a_probability_at_the_threshold_counts() -> None:
    assert told(apply(stream([[0.5], [0.499]], ("attack",)), Rules({"attack": Rule(0.5)}))) == [("attack", 0, 1)]


@pytest.mark.parametrize(
    ("numbers", "gap", "least", "expected"),
    [
        ((0, 0, -1, 0), 0.1, 0.0, [("attack", 0, 4)]),
        ((0, 0, -1, -1, 0), 0.1, 0.0, [("attack", 0, 2), ("attack", 4, 5)]),
        ((0, 0, 1, 0), 0.5, 0.0, [("attack", 0, 2), ("mount", 2, 3), ("attack", 3, 4)]),  # something else is said in it
        ((-1, 0, -1, -1), 0.5, 0.0, [("attack", 1, 2)]),  # nothing is filled towards the ends
        ((-1, 0), 0.5, 0.0, [("attack", 1, 2)]),
        ((0, -1), 0.5, 0.0, [("attack", 0, 1)]),
        ((0, -1, 1, 1), 0.5, 0.0, [("attack", 0, 1), ("mount", 2, 4)]),
        ((0, -1, 0, -1, 0), 0.1, 0.5, [("attack", 0, 5)]),  # long enough once filled
        ((0, 0, -1, 1, 1, 1), 0.0, 0.3, [("mount", 3, 6)]),
        ((0, 0, 0, 1, 0, 0, 0), 0.1, 0.2, [("attack", 0, 7)]),  # a flicker of another does not split it
        ((0, 0, 0, 1, 0, 0, 0), 0.0, 0.2, [("attack", 0, 3), ("attack", 4, 7)]),
        ((0,), 0.1, 0.2, []),
    ],
)
def test_gaps_and_short_bouts(numbers: tuple[int, ...], gap: float, least: float, expected: list[Any]) -> None:
    rules = Rules(dict.fromkeys(ACTIONS[:2], Rule(0.5, 0.0, gap, least)))
    assert told(apply(stream(drawn(*numbers), ACTIONS[:2]), rules)) == expected


def test_seconds_do_not_depend_on_the_frame_rate() -> None:
    once = drawn(*([0] * 5 + [-1] * 2 + [0] * 5 + [-1] * 9 + [1] * 2 + [-1] * 9 + [0] * 8))
    rules = Rules(dict.fromkeys(ACTIONS[:2], Rule(0.5, 0.0, 0.2, 0.3)))
    slow, fast = (
        told(apply(stream(np.repeat(once, times, axis=0), ACTIONS[:2], 10.0 * times), rules)) for times in (1, 3)
    )
    assert fast == [(action, 3 * start, 3 * stop) for action, start, stop in slow]
    assert slow == [("attack", 0, 12), ("attack", 32, 40)]


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50),
    st.sampled_from([0.05, 0.1, 0.5, 1.0, 20.0]),
    st.sampled_from([10.0, 30.0]),
)
def test_smoothing_is_the_mean_of_a_window(p_T: list[float], seconds: float, fps: float) -> None:
    found = postprocessing.smoothed(np.array(p_T)[:, None], fps, [seconds])[:, 0]
    half = min(range(400), key=lambda h: (round(abs((2 * h + 1) / fps - seconds), 9), h))
    for t, value in enumerate(found):
        assert value == pytest.approx(np.mean(p_T[max(0, t - half) : t + half + 1]), abs=1e-9)


def test_each_action_has_its_own_smoothing() -> None:
    p_TK = np.random.default_rng(0).random((30, 3))
    seconds = (0.0, 0.3, 0.5)
    together = postprocessing.smoothed(p_TK, 10.0, seconds)
    for k, one in enumerate(seconds):
        assert np.allclose(together[:, k], postprocessing.smoothed(p_TK[:, [k]], 10.0, [one])[:, 0])
    assert np.array_equal(together[:, 0], p_TK[:, 0])


def test_only_what_is_looked_for_is_said() -> None:
    p = [[0.9, 0.8, 0.7]] * 4
    rules = Rules(dict.fromkeys(ACTIONS, Rule()))
    looked = [Behaviour("mouse1", "mouse2", "sniff"), Behaviour("mouse2", "mouse1", "attack")]
    assert told(apply(stream(p), rules, looked)) == [("sniff", 0, 4)]
    assert told(apply(stream(p), rules, ())) == []
    assert len(apply_all([stream(p), stream(p, video="w")], rules, {"w": looked})) == 1  # of v nothing was looked for
    assert told(apply(stream(np.empty((0, 3))), rules)) == []


def test_labs_have_their_own_rules() -> None:
    rules = Rules({"attack": Rule(0.5), "mount": Rule(0.7)}, {"a": {"attack": Rule(0.9)}}, {"b": ("attack",)})
    assert rules.of("a", "attack") == Rule(0.9) and rules.of("a", "mount") == Rule(0.7)
    assert rules.of("unknown", "attack") == Rule(0.5)
    assert rules.of("b", "attack") is None and rules.of("a", "sniff") is None
    p = [[0.8, 0.75, 1.0]]
    assert [told(apply(stream(p, lab=lab), rules)) for lab in "abc"] == [
        [("mount", 0, 1)],
        [("mount", 0, 1)],
        [("attack", 0, 1)],  # 0.8 / 0.5 to 0.75 / 0.7; nobody has a rule for sniff
    ]


def test_rules_are_kept_as_they_are() -> None:
    rules = Rules({"attack": Rule(0.123456789, 0.5, 0.2, 0.1)}, {"a": {"attack": Rule(1e-5)}}, {"b": ("mount",)})
    assert Rules.of_dict(rules.as_dict()) == rules


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (None, "rules: must map names"),
        ({"pooled": {}}, "rules: has pooled; must have"),
        (
            {"pooled": {"attack": {"threshold": 0.5}}, "labs": {}, "silent": {}},
            "attack: must have threshold",
        ),
        ({"pooled": {"attack": 0.5}, "labs": {}, "silent": {}}, "rules.pooled.attack: must map"),
        ({"pooled": {}, "labs": {"a": []}, "silent": {}}, "rules.labs.a: must map"),
        ({"pooled": {}, "labs": {}, "silent": {"a": "attack"}}, "rules.silent.a: must be a list"),
    ],
)
def test_damaged_rules(damage: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Rules.of_dict(damage)


@pytest.mark.parametrize(
    ("name", "value"),
    [("threshold", 0.0), ("threshold", 1.5), ("smooth", -1.0), ("gap", float("nan")), ("least", "1"), ("gap", True)],
)
def test_numbers_that_are_no_rule(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}: "):
        Rule(**{name: value})
    damaged = Rules({"attack": Rule()}).as_dict()
    damaged["pooled"]["attack"][name] = value
    with pytest.raises(UserError, match=rf"rules.pooled.attack.{name}: "):
        Rules.of_dict(damaged)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(p_TK=np.zeros((4, 2))), r"p has shape \(4, 2\); must be \(frames, 3 actions\)"),
        (dict(p_TK=np.full((4, 3), np.nan)), r"must lie in \[0, 1\]"),
        (dict(p_TK=np.full((4, 3), 1.5)), r"must lie in \[0, 1\]"),
        (dict(fps=0.0), "fps 0.0; must be above 0"),
        (dict(actions=("sniff", "sniff", "mount")), "each must be there once"),
        (dict(y_TK=np.zeros((3, 3))), "y must be"),
        (dict(y_TK=np.full((4, 3), 2)), "y must be"),
    ],
)
def test_what_is_no_stream(change: dict[str, Any], message: str) -> None:
    good = dict(video="v", lab="l", agent="mouse1", target="mouse2", actions=ACTIONS, p_TK=np.zeros((4, 3)), fps=30.0)
    Stream(**good)
    with pytest.raises(ValueError, match=message):
        Stream(**good | change)


def test_what_streams_say_of_the_truth() -> None:
    one = stream(np.zeros((4, 3)))
    y = np.array([[1, 0, -1], [1, 0, -1], [0, 1, -1], [1, 1, -1]], np.int8)
    known = Stream(one.video, one.lab, one.agent, one.target, one.actions, one.p_TK, one.fps, y)
    empty = Stream("w", one.lab, one.agent, "self", one.actions, one.p_TK, one.fps, np.zeros((4, 3), np.int8))
    assert told(streams.truth([known])) == [("attack", 0, 2), ("attack", 3, 4), ("mount", 2, 4)]
    assert streams.labeled([known])["v"] == (("mouse1", "mouse2", "attack"), ("mouse1", "mouse2", "mount"))
    assert streams.counted([known, empty]) == [known] and empty.alone and not known.alone
    with pytest.raises(ValueError, match="has no truth"):
        streams.truth([one])
