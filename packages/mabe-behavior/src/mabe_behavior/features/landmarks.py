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

import numpy as np

from mabe_behavior.features.columns import Doubles
from mabe_behavior.tracks import Tracks

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

    xy_TLX: Doubles  # in the order of LANDMARKS
    ears_TSX: Doubles
    hips_TSX: Doubles
    parts_TPX: Doubles  # whatever is tracked of the trunk and head: no tail beyond its base
    seen_T: Doubles  # the share of all tracked parts that is seen

    def __len__(self) -> int:
        return len(self.xy_TLX)

    def at(self, landmark: str) -> Doubles:
        """(T, 2) of one landmark."""
        return self.xy_TLX[:, LANDMARKS.index(landmark)]

    @property
    def axis_TX(self) -> Doubles:
        """From the base of the tail to the neck: where the body points."""
        return self.at("neck") - self.at("tail")

    @property
    def head_TX(self) -> Doubles:
        """From between the ears to the nose: where the head points."""
        return self.at("nose") - self.ears_TSX.mean(axis=1)


def body(tracks: Tracks, animal: str) -> Body:
    """The landmarks of an animal.

    Raises ValueError for an animal that is not in the tracks.
    """
    xy_TPX = tracks.xy_TAPX[:, place(tracks, animal)]
    cm_TPX = np.asarray(xy_TPX, np.float64, order="F") / tracks.pixels_per_cm
    seen = {part: p for p, part in enumerate(tracks.parts) if np.isfinite(cm_TPX[:, p, 0]).any()}

    def one(choices: tuple[tuple[str, ...], ...]) -> Doubles:
        for parts in choices:
            if all(part in seen for part in parts):
                return sum(cm_TPX[:, seen[part]] for part in parts) / len(parts)
        return np.full((len(tracks), 2), np.nan, order="F")

    def sides(choices: tuple[tuple[str, str], ...]) -> Doubles:
        pair = next((pair for pair in choices if set(pair) <= set(seen)), choices[0])
        return np.stack([one(((part,),)) for part in pair], axis=1)

    trunk = [p for part, p in seen.items() if not part.startswith(("tail_mid", "tail_tip", "headpiece"))]
    return Body(
        xy_TLX=beside([one(_NOSE), one(_NECK), one(_CENTER), one(_TAIL)]),
        ears_TSX=sides((("ear_left", "ear_right"),)),
        hips_TSX=sides(_HIPS),
        parts_TPX=beside([cm_TPX[:, p] for p in trunk] or [one(())]),
        seen_T=np.isfinite(cm_TPX[..., 0]).mean(axis=1),
    )


def place(tracks: Tracks, animal: str) -> int:
    """Which of the tracks' animals it is. Raises ValueError for one that is not there."""
    if animal not in tracks.animals:
        raise ValueError(f"animals: no {animal}; there are {', '.join(tracks.animals)}")
    return tracks.animals.index(animal)


def beside(points: Sequence[Doubles]) -> Doubles:
    """(T, L, X) of points (T, X), in Fortran's order."""
    return np.stack([point.T for point in points], axis=1).T
