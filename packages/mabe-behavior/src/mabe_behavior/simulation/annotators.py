"""How people mark what they see: borders a little off, short bouts overlooked, short interruptions not noticed.

Shapes: T frames, B bouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.actions import Behaviour
from mabe_behavior.bouts import Bouts, runs

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Annotator:
    """A person's habits, in seconds."""

    border: float = 0.12  # standard deviation of where a bout begins and ends
    late: float = 0.04  # by how much they react late, on average
    overlooked: float = 0.15  # of bouts as long as this a share of 1/e is missed, of longer ones less
    joined: float = 0.25  # a shorter interruption is not noticed

    def __post_init__(self) -> None:
        for name in ("border", "overlooked", "joined"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} {getattr(self, name)}; must be 0 or more")

    def marked(self, video: str, truth: Mapping[Behaviour, Mask], fps: float, rng: np.random.Generator) -> Bouts:
        """What this person writes down of what is the case; every bout is of one frame at least, and within the video.

        Args:
            truth: of each behaviour (T,) where it is done, in the frames of the video.
        """
        rows = []
        for one, active_T in truth.items():
            starts, stops = self._bouts(active_T, fps, rng)
            rows += [(video, *one, start, stop) for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
        return Bouts.of(sorted(rows, key=lambda row: (row[4], row[5], row[1:4])))

    def _bouts(self, active_T: Mask, fps: float, rng: np.random.Generator) -> tuple[Ints, Ints]:
        starts, stops = _close(*runs(active_T), self.joined * fps)
        seen = rng.random(len(starts)) >= np.exp(-(stops - starts) / fps / max(self.overlooked, 1e-9))
        starts, stops = starts[seen], stops[seen]
        # nobody is off by more than half a bout
        most = np.maximum(stops - starts, 1) / 2
        off_B2 = (self.late + self.border * rng.standard_normal((len(starts), 2))) * fps
        off_B2 = np.clip(off_B2, -most[:, None], most[:, None])
        off_B2 = np.rint(off_B2).astype(np.int64)
        starts = np.clip(starts + off_B2[:, 0], 0, max(len(active_T) - 1, 0))
        stops = np.clip(np.maximum(stops + off_B2[:, 1], starts + 1), 1, len(active_T))
        # two bouts of the same behaviour that came to overlap are one
        return _close(starts, stops, 1)


def exact(video: str, truth: Mapping[Behaviour, Mask]) -> Bouts:
    """The bouts as they are."""
    rows = [
        (video, *one, start, stop)
        for one, active_T in truth.items()
        for start, stop in zip(*(side.tolist() for side in runs(active_T)), strict=True)
    ]
    return Bouts.of(sorted(rows, key=lambda row: (row[4], row[5], row[1:4])))


def _close(starts: Ints, stops: Ints, least: float) -> tuple[Ints, Ints]:
    """Bouts less than `least` frames apart become one."""
    if not len(starts):
        return starts, stops
    stops = np.maximum.accumulate(stops)
    apart = starts[1:] - stops[:-1] >= least
    return starts[np.append(True, apart)], stops[np.append(apart, True)]
