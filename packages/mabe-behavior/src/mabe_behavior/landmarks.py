"""Places of a body that nearly every laboratory tracks, or that lie between parts it does track.

Laboratories track from four to eighteen parts. What stands for a place is settled for a whole recording, from which
parts it has at all, so that a feature does not jump where one part is missed for a few frames.

Shapes: T frames, L landmarks, X is x and y in cm, y downwards; S is left and right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mabe_behavior.columns import Doubles
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
    cm_TPX = tracks.of_animals([animal]).cm_TAPX[:, 0].astype(np.float64)
    seen = {part: p for p, part in enumerate(tracks.parts) if np.isfinite(cm_TPX[:, p, 0]).any()}

    def one(choices: tuple[tuple[str, ...], ...]) -> Doubles:
        for parts in choices:
            if all(part in seen for part in parts):
                return cm_TPX[:, [seen[part] for part in parts]].mean(axis=1)
        return np.full((len(tracks), 2), np.nan)

    def sides(choices: tuple[tuple[str, str], ...]) -> Doubles:
        pair = next((pair for pair in choices if set(pair) <= set(seen)), choices[0])
        return np.stack([one(((part,),)) for part in pair], axis=1)

    trunk = [p for part, p in seen.items() if not part.startswith(("tail_mid", "tail_tip", "headpiece"))]
    return Body(
        xy_TLX=np.stack([one(_NOSE), one(_NECK), one(_CENTER), one(_TAIL)], axis=1),
        ears_TSX=sides((("ear_left", "ear_right"),)),
        hips_TSX=sides(_HIPS),
        parts_TPX=cm_TPX[:, trunk] if trunk else np.full((len(tracks), 1, 2), np.nan),
    )
