"""Measures by frame and bout against scikit-learn and plain restatements, and the interval of the official score."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score

from mabe_behavior import measures, metric
from mabe_behavior.actions import Behaviour
from mabe_behavior.bouts import Bouts
from mabe_behavior.measures import Found
from mabe_behavior.streams import Stream, truth

ATTACK, SNIFF = Behaviour("mouse1", "mouse2", "attack"), Behaviour("mouse1", "mouse2", "sniff")
LOOKED = (ATTACK, SNIFF)


def bouts(*rows: tuple[str, str, int, int]) -> Bouts:
    """Of (video, action, start, stop), of mouse1 to mouse2."""
    return Bouts.of([(video, "mouse1", "mouse2", action, start, stop) for video, action, start, stop in rows])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.9]), min_size=4, max_size=4)),
        min_size=1,
        max_size=40,
    )
)
def test_calms21_as_scikit_learn(rows: list[tuple[int, list[float]]]) -> None:
    y_T, p_TC = np.array([y for y, _ in rows]), np.array([p for _, p in rows])
    found = measures.calms21(y_T, p_TC)
    f1 = f1_score(y_T, p_TC.argmax(axis=1), labels=[0, 1, 2], average=None, zero_division=0)
    assert list(found.f1.values()) == pytest.approx(list(f1))
    ap = [average_precision_score(y_T == k, p_TC[:, k]) if (y_T == k).any() else 0.0 for k in range(3)]
    assert list(found.ap.values()) == pytest.approx(ap)
    assert (found.mean_f1, found.mean_ap) == (pytest.approx(np.mean(f1)), pytest.approx(np.mean(ap)))
    assert list(found.f1) == ["attack", "investigation", "mount"]


def test_calms21_with_classes_that_were_said() -> None:
    y_T, p_TC = np.array([0, 1, 2, 3]), np.full((4, 4), 0.25)
    assert measures.calms21(y_T, p_TC, y_T).mean_f1 == 1.0
    assert measures.calms21(y_T, p_TC, np.full(4, 3)).mean_f1 == 0.0  # who always says "other"
    with pytest.raises(ValueError, match="must be"):
        measures.calms21(y_T, p_TC[:, :3])
    with pytest.raises(ValueError, match="classes must lie"):
        measures.calms21([0, 4], np.full((2, 4), 0.25))


def test_frames_of_labs_are_added() -> None:
    true, said = bouts(("1", "attack", 0, 10), ("2", "attack", 0, 30)), bouts(("1", "attack", 5, 20))
    score = metric.score(true, said, {"1": "a", "2": "b"}, {"1": LOOKED, "2": LOOKED})
    assert measures.frames(score) == {"attack": metric.Counts(5, 35, 10)}


def stretches(rows: Any) -> list[tuple[int, int]]:
    """Runs of the frames of (start, length)."""
    frames = sorted({t for start, length in rows for t in range(start, start + length)})
    cut = [0, *(k + 1 for k, (t, after) in enumerate(pairwise(frames)) if after > t + 1), len(frames)]
    return [(frames[a], frames[b - 1] + 1) for a, b in pairwise(cut) if a < b]


def largest(edges: set[tuple[int, int]]) -> int:
    """The size of a largest matching, by trying."""
    if not edges:
        return 0
    i, j = min(edges)
    without = largest(edges - {(i, j)})
    return max(without, 1 + largest({(a, b) for a, b in edges if a != i and b != j}))


intervals = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)), max_size=5)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(intervals, intervals), min_size=1, max_size=2))
def test_bouts_as_plain_sets(videos: Any) -> None:
    true, said = (
        bouts(*((str(v), "attack", start, start + length) for v, of in enumerate(videos) for start, length in of[side]))
        for side in (0, 1)
    )
    expected = np.zeros(5, int)
    for of in videos:
        one, other = ([set(range(*stretch)) for stretch in stretches(side)] for side in of)
        edges = {
            (i, j) for i, a in enumerate(one) for j, b in enumerate(other) if a & b and 2 * len(a & b) >= len(a | b)
        }
        all_true, all_said = (set().union(*sets) for sets in (one, other))
        hit = sum(2 * len(a & all_said) >= len(a) for a in one)
        right = sum(2 * len(b & all_true) >= len(b) for b in other)
        expected += [len(one), len(other), largest(edges), hit, right]
    found = measures.found(true, said, {str(v): LOOKED for v in range(len(videos))})
    assert found.get("attack", Found(0, 0, 0, 0, 0)) == Found(*expected.tolist())


def test_bouts_of_other_keys_are_not_matched() -> None:
    true = bouts(("1", "attack", 0, 10), ("1", "sniff", 20, 30), ("2", "attack", 0, 10))
    said = bouts(("1", "sniff", 0, 10), ("1", "attack", 20, 30), ("3", "attack", 0, 10), ("2", "attack", 0, 4))
    found = measures.found(true, said, {"1": LOOKED, "2": LOOKED, "3": [SNIFF]})  # attack: not looked for in 3
    assert found == {"attack": Found(2, 2, 0, 0, 1), "sniff": Found(1, 1, 0, 0, 0)}
    one = found["attack"]
    assert (one.f1, one.hit_share, one.right_share) == (0.0, 0.0, 0.5)


def stream(
    y_TK: Any, video: str = "1", target: str = "mouse2", actions: tuple[str, ...] = ("attack", "sniff")
) -> Stream:
    y = np.array(y_TK, np.int8)
    return Stream(video, "lab", "mouse1", target, actions, np.zeros(y.shape, np.float32), 30.0, y)


def test_confusion_counts_each_frame_that_could_be_known_once() -> None:
    y_TK = [[1, 0], [0, 1], [1, 1], [1, 1], [0, 0], [0, 0], [-1, 0], [-1, 0], [-1, -1], [1, 1]]
    said = bouts(("1", "sniff", 0, 3), ("1", "attack", 3, 5), ("1", "attack", 6, 7), ("1", "attack", 8, 9))
    found = measures.confusion([stream(y_TK), stream([[1], [0]], "1", "self", ("rear",))], said)
    assert found.actions == ("attack", "rear", "sniff", "none")
    # frames: attack said sniff; sniff; both, said sniff; both, said attack; none said attack; none; attack not looked
    # for, but said; none; nobody looked; both, said none: the first by name. Alone: rear said none, and none
    expected = {("attack", "sniff"): 1, ("sniff", "sniff"): 2, ("attack", "attack"): 1, ("none", "attack"): 1}
    expected |= {("none", "none"): 3, ("attack", "none"): 1, ("rear", "none"): 1}
    table = {
        (true, said): int(found.frames_NN[i, j])
        for i, true in enumerate(found.actions)
        for j, said in enumerate(found.actions)
        if found.frames_NN[i, j]
    }
    assert table == expected
    with pytest.raises(ValueError, match="is not of this stream"):
        measures.confusion([stream([[1, 0]])], said)


def simulated(videos: int, labs: int, seed: int = 0) -> tuple[Bouts, Bouts, dict[str, str], dict[str, Any]]:
    """Truth, and a prediction that misses, moves and makes up bouts, each video to its own degree."""
    rng, true, said = np.random.default_rng(seed), [], []
    for v in range(videos):
        skill = rng.random()
        for at in range(0, 2000, 100):
            action = ("attack", "sniff")[rng.integers(2)]
            start = at + 20 + int(rng.integers(30))
            true.append((str(v), action, start, start + 30))
            if rng.random() < 0.4 + 0.6 * skill:
                moved = start + int(np.clip(rng.normal(0, 15 * (1 - skill)), -20, 20))
                said.append((str(v), action, moved, moved + 30))
    lab_of = {str(v): f"lab{v % labs}" for v in range(videos)}
    return bouts(*true), bouts(*said), lab_of, dict.fromkeys(lab_of, LOOKED)


def test_the_interval_is_of_the_official_score() -> None:
    given_bouts = simulated(30, 3)
    found = measures.interval(*given_bouts, resamples=500)
    assert found.value == metric.score(*given_bouts).value and found.low < found.value < found.high and found.n == 30
    assert found.method == "bootstrap 95 % over 30 recordings within 3 labs"
    assert found == measures.interval(*given_bouts, resamples=500)


def test_resamples_are_scores_of_drawn_videos() -> None:
    """Every drawn set of videos scored by the metric itself, each copy under a name of its own."""
    true, said, lab_of, looked = simulated(12, 2, seed=3)
    rng, values = np.random.default_rng(0), []
    for _ in range(400):
        names = [
            name for lab in ("lab0", "lab1") for name in rng.choice([v for v in sorted(lab_of) if lab_of[v] == lab], 6)
        ]
        rows: Any = ([], [])
        for k, name in enumerate(names):
            for side, table in zip(rows, (true, said), strict=True):
                side += [(f"{k}", *row[1:]) for row in table.rows if row[0] == name]
        drawn_labs = {f"{k}": lab_of[name] for k, name in enumerate(names)}
        drawn = metric.score(Bouts.of(rows[0]), Bouts.of(rows[1]), drawn_labs, dict.fromkeys(drawn_labs, LOOKED))
        values.append(drawn.value)
    low, high = np.quantile(values, [0.025, 0.975])
    found = measures.interval(true, said, lab_of, looked, resamples=4000)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))
    assert high - low > 0.1


def test_an_action_of_few_videos_counts_only_where_it_is_drawn() -> None:
    """Two videos of a lab; only one has a sniff, which nobody finds: 1 without it, else (1 + 0) / 2."""
    true = bouts(("1", "attack", 0, 10), ("2", "attack", 0, 10), ("2", "sniff", 20, 30))
    said = bouts(("1", "attack", 0, 10), ("2", "attack", 0, 10))
    found = measures.interval(true, said, {"1": "a", "2": "a"}, {"1": LOOKED, "2": LOOKED}, resamples=200)
    assert (found.value, found.low, found.high) == (0.5, 0.5, 1.0)


def test_videos_of_a_recording_are_drawn_together() -> None:
    true, said, lab_of, looked = simulated(20, 1)
    copies = [table.rows + [(f"{row[0]}b", *row[1:]) for row in table.rows] for table in (true, said)]
    lab_of |= {f"{video}b": lab for video, lab in lab_of.items()}
    twice = (*(Bouts.of(rows) for rows in copies), lab_of, dict.fromkeys(lab_of, LOOKED))
    recording_of = {video: video.rstrip("b") for video in lab_of}
    single = measures.interval(true, said, lab_of, looked, resamples=2000)
    together = measures.interval(*twice, resamples=2000, recording_of=recording_of)
    apart = measures.interval(*twice, resamples=2000)
    assert "over 20 recordings" in together.method and together.n == 40
    assert together.high - together.low == pytest.approx(single.high - single.low, rel=0.1)
    assert apart.high - apart.low < 0.85 * (together.high - together.low)


def test_a_single_recording_of_a_lab_has_no_width() -> None:
    found = measures.interval(*simulated(1, 1))
    assert found.low == found.value == found.high
    with pytest.raises(ValueError, match="resamples: 0"):
        measures.interval(*simulated(1, 1), resamples=0)


def test_a_difference_is_over_the_same_draws() -> None:
    """Of itself nothing; of what is worse everywhere it is above 0, although the intervals of both overlap."""
    true, said, lab_of, looked = simulated(16, 2)
    none = measures.difference(true, said, said, lab_of, looked, resamples=300)
    assert (none.value, none.low, none.high) == (0, 0, 0)
    worse = Bouts(said.video, said.agent, said.target, said.action, said.start, np.maximum(said.stop - 2, said.start))
    gap = measures.difference(true, said, worse, lab_of, looked, resamples=300)
    one, other = (measures.interval(true, it, lab_of, looked, resamples=300) for it in (said, worse))
    assert gap.value == pytest.approx(one.value - other.value)
    assert gap.high - gap.low < min(one.high - one.low, other.high - other.low)
    back = measures.difference(true, worse, said, lab_of, looked, resamples=300)
    assert (back.value, back.low, back.high) == pytest.approx((-gap.value, -gap.high, -gap.low))


def test_truth_of_streams_scores_1() -> None:
    given_stream = stream([[1, 0], [1, 1], [0, 0]])
    true = truth([given_stream])
    found = measures.found(true, true, {"1": LOOKED})
    assert all(one.f1 == one.hit_share == one.right_share == 1.0 for one in found.values())
