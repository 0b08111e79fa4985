"""Places of a body that nearly every laboratory tracks, or that lie between parts it does track.

Laboratories track from four to eighteen parts. What stands for a place is settled for a whole recording, from which
parts it has at all, so that a feature does not jump where one part is missed for a few frames.

Arrays are in Fortran's order: each coordinate of each point is in one piece of memory, frame after frame. What is
computed of them keeps that order, and is faster for it.

Shapes: T frames, A animals, L landmarks, P parts, X is x and y in cm, y downwards; S is left and right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from mabe_behavior.features import windows
from mabe_behavior.features.columns import Floats
from mabe_behavior.tracks import Tracks

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
_EARS = (("ear_left", "ear_right"),)
_HIPS = (("hip_left", "hip_right"), ("lateral_left", "lateral_right"))


@dataclass(frozen=True)
class Body:
    """Landmarks of one animal, or with one axis more, after the first, of several; unknown ones are missing."""

    xy_TLX: Floats  # in the order of LANDMARKS
    ears_TSX: Floats
    hips_TSX: Floats
    parts_TPX: Floats  # whatever is tracked of the trunk and head: no tail beyond its base
    every_TP: Floats  # x of all tracked parts

    def __len__(self) -> int:
        return len(self.xy_TLX)

    def at(self, landmark: str) -> Floats:
        """(T, 2) of one landmark."""
        return self.xy_TLX[..., LANDMARKS.index(landmark), :]

    def of(self, animal: int) -> Body:
        """One of several."""
        return Body(*(getattr(self, one.name)[:, animal] for one in fields(self)))

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
        parts = self.every_TP.shape[-1]
        return sum(np.isfinite(self.every_TP[..., p]).astype(np.float32) for p in range(parts)) / np.float32(parts)


def bodies(
    tracks: Tracks, seen: Mapping[str, Sequence[str]], rows: slice = slice(None), origin: Floats = ORIGIN
) -> Body:
    """Those of several animals.

    Args:
        tracks: of the recording.
        seen: by animal, the parts that are seen in any of the recording's frames.
        rows: which frames.
        origin: from where places are counted, in pixels.

    Raises ValueError for an animal that is not in the tracks.
    """
    which_A = np.array([place(tracks, animal) for animal in seen])
    unit = np.float32(tracks.pixels_per_cm)
    cm_TAPX = windows.series(tracks.xy_TAPX[rows], which_A, origin, unit).T
    trunk = [p for p, part in enumerate(tracks.parts) if not part.startswith(("tail_mid", "tail_tip", "headpiece"))]
    xy_TALX, ears_TASX, hips_TASX = (
        np.full((2, points, *cm_TAPX.shape[1::-1]), np.nan, np.float32).T for points in (len(LANDMARKS), 2, 2)
    )
    for a, parts in enumerate(seen.values()):
        for k, choices in enumerate((_NOSE, _NECK, _CENTER, _TAIL)):
            _put(cm_TAPX[:, a], tracks.parts, parts, choices, xy_TALX[:, a, k])
        for pairs, side_TSX in ((_EARS, ears_TASX[:, a]), (_HIPS, hips_TASX[:, a])):
            for k, part in enumerate(next((pair for pair in pairs if set(pair) <= set(parts)), pairs[0])):
                _put(cm_TAPX[:, a], tracks.parts, parts, ((part,),), side_TSX[:, k])
    parts_TAPX = cm_TAPX if len(trunk) == len(tracks.parts) else cm_TAPX.T[:, trunk].T
    return Body(xy_TALX, ears_TASX, hips_TASX, parts_TAPX, cm_TAPX[..., 0])


def _put(
    cm_TPX: Floats, names: Sequence[str], seen: Sequence[str], choices: Sequence[Sequence[str]], out_TX: Floats
) -> None:
    """The mean of the parts of the first choice whose parts are all seen, if there is one."""
    chosen = next((choice for choice in choices if set(choice) <= set(seen)), ())
    if chosen:
        points = [cm_TPX[:, names.index(part)] for part in chosen]
        out_TX[:] = points[0] if len(points) == 1 else sum(points[1:], points[0]) / np.float32(len(points))


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
    return (side_TSX[..., 0, :] + side_TSX[..., 1, :]) * np.float32(0.5)
