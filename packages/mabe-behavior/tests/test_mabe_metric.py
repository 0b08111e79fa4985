"""The official score: the values of the official code, and a plain restatement with sets of frames."""

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mabe_behavior import metric
from mabe_behavior.actions import Behaviour, behaviour, labeled
from mabe_behavior.bouts import Bouts, runs
from shared_core.errors import UserError

LABELED = labeled('["mouse1,mouse2,attack", "mouse1,mouse2,sniff", "mouse1,self,rear"]')
Row = tuple[str, str, str, str, int, int]


def row(video: str, start: int, stop: int, what: str = "mouse1,mouse2,attack") -> Row:
    return (video, *behaviour(what), start, stop)


def score(truth: list[Row], predicted: list[Row], labs: dict[str, str] | None = None) -> float:
    videos = {one[0] for one in truth}
    lab_of = labs or dict.fromkeys(videos, "lab")
    return metric.score(Bouts.of(truth), Bouts.of(predicted), lab_of, dict.fromkeys(videos, LABELED)).value


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        ([row("1", 0, 10), row("2", 0, 90)], [row("1", 0, 10)], 0.1818181818),  # frames are pooled over videos
        ([row("1", 0, 10)], [row("1", 0, 10), row("1", 0, 10, "mouse2,mouse1,attack")], 1.0),  # nobody looked for it
        ([row("1", 0, 10)], [row("1", 0, 10), row("1", 20, 30, "mouse1,self,rear")], 0.5),  # looked for, never there
        ([row("1", 0, 10)], [row("1", 5, 5)], 0.0),
        ([row("1", 0, 10)], [row("1", 0, 10), row("1", 50, 50, "mouse1,mouse2,sniff")], 0.5),  # an action of no frame
        ([row("1", 0, 10)], [row("1", 0, 10), row("1", 2, 8)], 1.0),  # the same said twice
        ([row("1", 0, 10)], [row("1", 0, 10), row("9", 0, 10)], 1.0),  # a video without truth
        ([row("1", 0, 10)], [row("1", 0, 10), row("1", 5, 9, "mouse1,self,rear")], 0.5),  # self is another target
        ([row("1", 0, 10), row("1", 5, 20)], [row("1", 0, 20)], 1.0),  # bouts of the truth are united
        ([row("1", 0, 10, "mouse2,mouse1,attack")], [row("1", 0, 10)], 0.0),  # the truth is not filtered
    ],
)
def test_rules(truth: list[Row], predicted: list[Row], expected: float) -> None:
    assert score(truth, predicted) == pytest.approx(expected, abs=1e-10)


def test_frames_may_be_any_numbers() -> None:
    far = 4 * 10**18  # of two keys more than 64 bits
    truth = [row("1", 0, 10), row("1", 0, 10, "mouse1,mouse2,sniff"), row("1", far, far + 10, "mouse1,self,rear")]
    predicted = [row("1", 5, 10), row("1", far + 5, far + 15, "mouse1,self,rear"), row("9", -far, 5)]
    assert score(truth, predicted) == pytest.approx((10 / 15 + 0 + 1 / 2) / 3)


def test_ids_are_names() -> None:
    assert score([row("1", 0, 10)], [("1", "1", "2", "attack", 0, 10)]) == 0.0


def test_labs_count_alike() -> None:
    truth = [row("1", 0, 10), row("2", 0, 1000)]
    assert score(truth, [row("1", 0, 10)], {"1": "a", "2": "b"}) == 0.5


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        ([], [row("1", 0, 10)], "solution: is empty"),
        ([row("1", 0, 10)], [], "submission: is empty"),
        ([row("1", 10, 0)], [row("1", 0, 10)], "solution: attack of mouse1 to mouse2 in video 1, frames 10 to 0"),
        ([row("1", 0, 10)], [row("9", 10, 0)], "submission: attack .* ends before it starts"),  # also of unknown videos
        (
            [row("1", 0, 10)],
            [row("1", 0, 10), row("1", 9, 20, "mouse1,mouse2,sniff")],
            "submission: video 1 has attack and sniff of mouse1 to mouse2 in frame 9; one action at a time",
        ),
    ],
)
def test_what_is_no_submission(truth: list[Row], predicted: list[Row], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(truth, predicted)


def naive(truth: list[Row], predicted: list[Row], lab_of: dict[str, str], looked: Any) -> float:
    """The rules once more, with sets of frames."""
    frames: dict[str, dict[Any, set[int]]] = {"truth": defaultdict(set), "predicted": defaultdict(set)}
    for video, agent, target, action, start, stop in truth:
        frames["truth"][video, agent, target, action].update(range(start, stop))
    taken: dict[Any, set[int]] = defaultdict(set)
    for video, agent, target, action, start, stop in predicted:
        if video not in {one[0] for one in truth} or Behaviour(agent, target, action) not in looked[video]:
            continue
        key, pair = (video, agent, target, action), (video, agent, target)
        new = set(range(start, stop)) - frames["predicted"][key]
        if new & taken[pair]:
            raise ValueError("Multiple predictions")
        taken[pair] |= new
        frames["predicted"][key] |= new
    counts: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0, 0]))
    for key in {*frames["truth"], *frames["predicted"]}:
        there, said = frames["truth"].get(key, set()), frames["predicted"].get(key, set())
        one = counts[lab_of[key[0]]][key[3]]
        for k, count in enumerate((len(there & said), len(there - said), len(said - there))):
            one[k] += count
    labs = []
    for of_lab in counts.values():
        labs.append(np.mean([2 * tp / (2 * tp + fn + fp) if tp + fn + fp else 0.0 for tp, fn, fp in of_lab.values()]))
    return float(np.mean(labs))


WHAT = ("mouse1,mouse2,attack", "mouse1,mouse2,sniff", "mouse1,self,rear", "mouse2,mouse1,attack")
bout = st.builds(
    lambda video, start, length, what: row(video, start, start + length, what),
    st.sampled_from("1234"),
    st.integers(0, 30),
    st.integers(0, 12),
    st.sampled_from(WHAT),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(bout, min_size=1, max_size=12), st.lists(bout, min_size=1, max_size=12))
def test_as_with_sets_of_frames(truth: list[Row], predicted: list[Row]) -> None:
    lab_of, looked = {"1": "a", "2": "a", "3": "b", "4": "b"}, dict.fromkeys("1234", LABELED)
    try:
        expected = naive(truth, predicted, lab_of, looked)
    except ValueError:
        with pytest.raises(ValueError, match="one action at a time"):
            metric.score(Bouts.of(truth), Bouts.of(predicted), lab_of, looked)
        return
    assert metric.score(Bouts.of(truth), Bouts.of(predicted), lab_of, looked).value == pytest.approx(expected)


@given(st.lists(st.booleans(), max_size=30))
def test_runs_are_where_it_is_true(active: list[bool]) -> None:
    found = np.zeros(len(active), bool)
    starts, stops = runs(np.array(active, bool))
    for start, stop in zip(starts, stops, strict=True):
        assert not found[start:stop].any() and start < stop
        found[start:stop] = True
    assert found.tolist() == active and not set(starts) & set(stops)


@pytest.mark.parametrize(
    "entry", ["'mouse1','mouse2','sniff'", "mouse1','mouse2','sniff'", "mouse1, mouse2, sniff", "mouse1,mouse2,sniff"]
)
def test_stray_quotes_are_dropped(entry: str) -> None:
    assert labeled(f'["{entry}", "mouse1,mouse2,sniff"]') == (Behaviour("mouse1", "mouse2", "sniff"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mouse1,mouse2,sniff", "is not JSON"),
        ('{"a": 1}', "must be a list such as"),
        ('["mouse1,sniff"]', "must be AGENT,TARGET,ACTION"),
        ('["mouse1,rat,sniff"]', "has 'rat'; must be mouse1, mouse2"),
    ],
)
def test_what_is_no_list_of_behaviours(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        labeled(text)


def test_nobody_looked_for_anything() -> None:
    assert labeled("") == labeled(None) == ()
