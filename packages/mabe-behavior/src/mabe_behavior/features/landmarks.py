"""Places of a body that nearly every laboratory tracks, or that lie between parts it does track.

Laboratories track from four to eighteen parts. What stands for a place is settled for a whole recording, from which
parts it has at all, so that a feature does not jump where one part is missed for a few frames.

Arrays are in Fortran's order: each coordinate of each point is in one piece of memory, frame after frame. What is
computed of them keeps that order, and is faster for it.

Shapes: T frames, L landmarks, P parts, X is x and y in cm, y downwards; S is left and right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mabe_behavior.features import windows
from mabe_behavior.features.columns import Floats
from mabe_behavior.tracks import Tracks

ALL = slice(None)
ORIGIN = np.zeros(2, np.float32)
LANDMARKS = ("nose", "neck", "center", "tail")
# What stands for each, the first that was tracked: the mean of these parts.
_NOSE = (("nose",), ("head",))
_NECK = (("neck",), ("ear_left", "ear_right"), ("head",))
_CENTER = (
    ("body_center",),
    ("lateral_left", "lateral_right"),
    ("neck", "hip_left", "hip_right"),
    ("ear_left", "ear_right", "tail_base", "tail_base"),
    ("neck", "tail_base"),
    ("nose", "tail_base"),
)
_TAIL = (("tail_base",), ("hip_left", "hip_right"))
_HIPS = (("hip_left", "hip_right"), ("lateral_left", "lateral_right"))


@dataclass(frozen=True)
class Body:
    """One animal's landmarks; those that nothing stands for are missing."""

    xy_TLX: Floats  # in the order of LANDMARKS
    ears_TSX: Floats
    hips_TSX: Floats
    parts_TPX: Floats  # whatever is tracked of the trunk and head: no tail beyond its base
    every_TP: Floats  # x of all tracked parts

    def __len__(self) -> int:
        return len(self.xy_TLX)

    def at(self, landmark: str) -> Floats:
        """(T, 2) of one landmark."""
        return self.xy_TLX[:, LANDMARKS.index(landmark)]

    @cached_property
    def axis_TX(self) -> Floats:
        """From the base of the tail to the neck: where the body points."""
        return self.at("neck") - self.at("tail")

    @cached_property
    def head_TX(self) -> Floats:
        """From between the ears to the nose: where the head points."""
        return self.at("nose") - middle(self.ears_TSX)

    @property
    def seen_T(self) -> Floats:
        """The share of all tracked parts that is seen."""
        return sum(np.isfinite(x_T).astype(np.float32) for x_T in self.every_TP.T) / np.float32(self.every_TP.shape[1])


def body(
    tracks: Tracks, animal: str, rows: slice = ALL, seen: Sequence[str] | None = None, origin: Floats = ORIGIN
) -> Body:
    """The landmarks of an animal.

    Args:
        tracks: of the recording.
        animal: one of them.
        rows: which frames.
        seen: the parts that are seen in any of the recording's frames, if they are already known.
        origin: from where places are counted, in pixels.

    Raises ValueError for an animal that is not in the tracks.
    """
    there = {part: tracks.parts.index(part) for part in (parts_seen(tracks, animal) if seen is None else seen)}
    xy_TPX = tracks.xy_TAPX[rows, place(tracks, animal)]
    cm_TPX = windows.series(xy_TPX, origin, np.float32(tracks.pixels_per_cm)).T

    def one(choices: tuple[tuple[str, ...], ...]) -> Floats:
        for parts in choices:
            if all(part in there for part in parts):
                points = [cm_TPX[:, there[part]] for part in parts]
                return points[0] if len(points) == 1 else sum(points[1:], points[0]) / np.float32(len(points))
        return np.full((len(cm_TPX), 2), np.nan, np.float32, order="F")

    def sides(choices: tuple[tuple[str, str], ...]) -> Floats:
        pair = next((pair for pair in choices if set(pair) <= set(there)), choices[0])
        return beside([one(((part,),)) for part in pair])

    trunk = [p for part, p in there.items() if not part.startswith(("tail_mid", "tail_tip", "headpiece"))]
    return Body(
        xy_TLX=beside([one(_NOSE), one(_NECK), one(_CENTER), one(_TAIL)]),
        ears_TSX=sides((("ear_left", "ear_right"),)),
        hips_TSX=sides(_HIPS),
        parts_TPX=beside([cm_TPX[:, p] for p in trunk] or [one(())]),
        every_TP=cm_TPX[..., 0],
    )


def parts_seen(tracks: Tracks, animal: str) -> list[str]:
    """Which parts of an animal are seen in any frame. Raises ValueError for an animal that is not in the tracks."""
    x_TP = tracks.xy_TAPX[:, place(tracks, animal), :, 0]
    return [part for p, part in enumerate(tracks.parts) if _any_finite(x_TP[:, p])]


def center_of(tracks: Tracks) -> Floats:
    """(X,) in pixels but at a whole number of cm, about the middle of where animals are seen.

    Counted from there, places are smaller numbers, of which single precision keeps more digits.
    """
    some_NX = tracks.xy_TAPX[:: max(1, len(tracks) // 100)].reshape(-1, 2)
    seen_NX = some_NX[np.isfinite(some_NX[:, 0])]
    unit = np.float32(tracks.pixels_per_cm)
    return np.rint(np.median(seen_NX, axis=0) / unit) * unit if len(seen_NX) else ORIGIN


def _any_finite(x_T: Floats) -> bool:
    """Mostly a few frames suffice to tell."""
    return bool(np.isfinite(x_T[:1000]).any() or np.isfinite(x_T).any())


def place(tracks: Tracks, animal: str) -> int:
    """Which of the tracks' animals it is. Raises ValueError for one that is not there."""
    if animal not in tracks.animals:
        raise ValueError(f"animals: no {animal}; there are {', '.join(tracks.animals)}")
    return tracks.animals.index(animal)


def middle(side_TSX: Floats) -> Floats:
    """(T, X) between left and right."""
    return (side_TSX[:, 0] + side_TSX[:, 1]) / np.float32(2)


def beside(points: Sequence[Floats]) -> Floats:
    """(T, L, X) of points (T, X), in Fortran's order."""
    return np.stack([point.T for point in points], axis=1).T
