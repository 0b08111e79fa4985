"""The score of the Kaggle challenge "MABe: Social Action Recognition in Mice" (2025), exactly, by intervals.

Of every lab and action F1 over frames, pooled over all videos, agents and targets; of every lab the mean over its
actions; the mean over labs. What follows from the rules is kept, also where it surprises:

* predictions of a video without any true bout are dropped;
* predictions that the video's annotators did not look for are dropped; the truth is not;
* an action that was predicted where looked for, even over no frame, counts in its lab's mean, if only as 0;
* a frame may have one predicted action of an agent to a target; `self` is a target of its own.

Shapes: B bouts of truth and prediction together, K keys: video, agent, target and action.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.actions import Behaviour
from mabe_behavior.bouts import Bouts, joined

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """Frames of an action in a lab."""

    hit: int
    missed: int
    invented: int

    @property
    def f1(self) -> float:
        """0 where there is no frame at all."""
        return 2 * self.hit / max(2 * self.hit + self.missed + self.invented, 1)

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.hit + other.hit, self.missed + other.missed, self.invented + other.invented)


NO_FRAMES = Counts(0, 0, 0)


@dataclass(frozen=True)
class Score:
    """The score with what it is the mean of."""

    counts: Mapping[str, Mapping[str, Counts]]  # lab -> action

    @property
    def actions(self) -> dict[str, dict[str, float]]:
        """lab -> action -> F1."""
        return {lab: {name: one.f1 for name, one in of.items()} for lab, of in self.counts.items()}

    @property
    def labs(self) -> dict[str, float]:
        """lab -> the mean over its actions."""
        return {lab: float(np.mean(list(of.values()))) for lab, of in self.actions.items()}

    @property
    def value(self) -> float:
        return float(np.mean(list(self.labs.values())))


def score(
    truth: Bouts,
    predicted: Bouts,
    lab_of: Mapping[str, str],
    labeled: Mapping[str, Collection[Behaviour]],
) -> Score:
    """The score of predictions.

    Args:
        lab_of: the lab of each video of the truth.
        labeled: what was looked for in each of these videos.

    Raises:
        ValueError: no bout in truth or prediction, a bout that ends before it starts, or two actions of an agent to
            one target in the same frame.
    """
    for name, table in (("solution", truth), ("submission", predicted)):
        if not len(table):
            raise ValueError(f"{name}: is empty")
        if (wrong := np.flatnonzero(table.start > table.stop)).size:
            raise ValueError(f"{name}: {_told(table, wrong[0])} ends before it starts")
    both = joined([truth, predicted])
    is_true_B = np.arange(len(both)) < len(truth)
    pair_B = _coded(both.video, both.agent, both.target)
    key_B = _coded(pair_B, both.action)
    row_B = np.flatnonzero(is_true_B | _counted(both, key_B, frozenset(truth.video.tolist()), labeled))
    _, place_K, key_B = np.unique(key_B[row_B], return_index=True, return_inverse=True)
    first_K = row_B[place_K]  # the first row of each key
    sweep = _Sweep(key_B, both.start[row_B], both.stop[row_B], is_true_B[row_B])
    _refuse_two_at_once(sweep, pair_B[first_K], first_K, both)
    lab_K = [lab_of[video] for video in both.video[first_K].tolist()]
    found: dict[str, dict[str, Counts]] = {}
    for k, (lab, action) in enumerate(zip(lab_K, both.action[first_K].tolist(), strict=True)):
        more = Counts(int(sweep.hit_K[k]), int(sweep.missed_K[k]), int(sweep.invented_K[k]))
        of_lab = found.setdefault(lab, {})
        of_lab[action] = of_lab.get(action, NO_FRAMES) + more
    return Score(found)


def _counted(
    bouts: Bouts, key_B: Ints, videos: Collection[str], labeled: Mapping[str, Collection[Behaviour]]
) -> NDArray[np.bool_]:
    """Which bouts would count as predictions: of a video of the truth, and looked for in it."""
    looked_for = {(video, *one) for video in videos for one in labeled.get(video, ())}
    _, first_K, key_B = np.unique(key_B, return_index=True, return_inverse=True)
    counted_K = [row[:4] in looked_for for row in bouts.take(first_K).rows]
    return np.array(counted_K, bool)[key_B]


def _coded(*columns: NDArray[np.str_] | Ints) -> Ints:
    """A number for each row's combination, the same for the same."""
    code = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        # texts are slow to sort; rows of a video mostly stand together, and one of each such stretch will do
        first = np.flatnonzero(np.append(True, column[1:] != column[:-1]))
        values, inverse = np.unique(column[first], return_inverse=True)
        code = code * len(values) + np.repeat(inverse, np.diff(first, append=len(column)))
    return code


class _Sweep:
    """All keys' frames from left to right: between two borders of a key's bouts nothing changes."""

    def __init__(self, key_B: Ints, start_B: Ints, stop_B: Ints, is_true_B: NDArray[np.bool_]) -> None:
        place = np.concatenate((start_B, stop_B))
        key = np.tile(key_B, 2)
        change = np.repeat([1, -1], len(key_B))
        order = _order(key, place)
        self.key, self.place, change = key[order], place[order], change[order]
        is_true = np.tile(is_true_B, 2)[order]
        # the changes of a key add up to 0, so that sums may run on from key to key
        self.true, self.found = (np.cumsum(np.where(side, change, 0)) > 0 for side in (is_true, ~is_true))
        keys = int(key_B.max()) + 1
        length = np.append(np.diff(self.place), 0)
        length[np.append(np.diff(self.key) != 0, True)] = 0
        self.length = length
        self.hit_K, self.missed_K, self.invented_K = (
            np.bincount(self.key, length * which, keys).astype(np.int64)
            for which in (self.true & self.found, self.true & ~self.found, ~self.true & self.found)
        )


def _order(key: Ints, place: Ints) -> Ints:
    """By key, then by place; what comes first of one place does not matter, as no frame lies between."""
    first, last = int(place.min()), int(place.max())
    span = last - first + 1
    if (int(key.max()) + 1) * span >= 2**63:  # a submission may name any frame
        return np.lexsort((place, key))
    return np.argsort(key * span + (place - first))  # one number a row sorts seven times as fast


def _refuse_two_at_once(sweep: _Sweep, pair_K: Ints, first_K: Ints, both: Bouts) -> None:
    """Raises ValueError where a pair has two predicted actions in a frame."""
    pieces = np.flatnonzero(sweep.found & (sweep.length > 0))
    pair, start = pair_K[sweep.key[pieces]], sweep.place[pieces]
    order = np.lexsort((start, pair))
    pair, start, pieces = pair[order], start[order], pieces[order]
    stop = start + sweep.length[pieces]
    # pieces of one key do not overlap; so if any two of a pair do, two neighbours do
    if (wrong := np.flatnonzero((pair[1:] == pair[:-1]) & (start[1:] < stop[:-1]))).size:
        k = int(wrong[0])
        one, other = (first_K[sweep.key[pieces[row]]] for row in (k, k + 1))
        raise ValueError(
            f"submission: video {both.video[one]} has {both.action[one]} and {both.action[other]} of {both.agent[one]} "
            f"to {both.target[one]} in frame {start[k + 1]}; one action at a time"
        )


def _told(table: Bouts, row: int) -> str:
    video, agent, target, action, start, stop = table.take(np.array([row])).rows[0]
    return f"{action} of {agent} to {target} in video {video}, frames {start} to {stop},"
