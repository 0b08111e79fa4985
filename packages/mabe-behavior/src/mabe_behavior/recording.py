"""A recording: where the animals are, what they do, and what was looked for.

Shapes: T frames.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.actions import Behaviour
from mabe_behavior.bouts import Bouts, runs
from mabe_behavior.tracks import Tracks

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Annotations:
    """What people say of a video, without its tracks."""

    name: str
    lab: str
    frames: int
    fps: float
    bouts: Bouts  # of this video
    labeled: tuple[Behaviour, ...]  # what they looked for; what is not among them is not known to be absent

    def truth_T(self, behaviour: Behaviour) -> NDArray[np.bool_]:
        """(T,) where it is done."""
        found = np.zeros(self.frames, bool)
        mine = (
            (self.bouts.agent == behaviour.agent)
            & (self.bouts.target == behaviour.target)
            & (self.bouts.action == behaviour.action)
        )
        for start, stop in zip(self.bouts.start[mine], self.bouts.stop[mine], strict=True):
            found[start:stop] = True
        return found


@dataclass(frozen=True)
class Recording:
    """One video with its annotations."""

    name: str  # unique in a data set
    lab: str
    tracks: Tracks
    bouts: Bouts  # of this video
    labeled: tuple[Behaviour, ...] = ()  # what annotators looked for; what is not among them is not known to be absent
    split: str | None = None  # train, val or test, where the source says so
    animal: str | None = None  # whose recordings must not be parted between splits

    @property
    def annotations(self) -> Annotations:
        tracks = self.tracks
        return Annotations(self.name, self.lab, len(tracks), tracks.fps, self.bouts, self.labeled)


def file_name(video: str) -> str:
    """A part of a file's name for a video, whose own name may hold slashes, as CalMS21's do."""
    return re.sub(r"[^\w.\-]", "_", video)


def of_classes(video: str, class_T: Ints, names: Mapping[int, str], agent: str, target: str) -> Bouts:
    """Bouts of one class a frame, such as CalMS21 has; classes without a name are no behaviour."""
    rows = []
    for number, action in names.items():
        for start, stop in zip(*runs(class_T == number), strict=True):
            rows.append((video, agent, target, action, int(start), int(stop)))
    return Bouts.of(sorted(rows, key=lambda row: row[4]))
