"""How a recording was filmed: what a tracker's file does not say and its reader has to be told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mabe_behavior.tracks import Tracks
from shared_core.errors import UserError

# Of the seen points: fewer than this inside the picture, and at least that many once x and y change places
_INSIDE, _INSIDE_SWAPPED = 0.9, 0.99
_LEAST_INSIDE = 0.5


@dataclass(frozen=True)
class Camera:
    """Frames per second, pixels per centimetre, and the picture's size in pixels (None: not known)."""

    fps: float
    pixels_per_cm: float
    width: float | None = None
    height: float | None = None

    def __post_init__(self) -> None:
        for name in ("fps", "pixels_per_cm", "width", "height"):
            value = getattr(self, name)
            if value is not None and not 0 < value < np.inf:
                raise ValueError(f"{name}: {value}; must be above 0")


def fault(tracks: Tracks) -> str | None:
    """What is wrong with tracks as a whole, in words; None for nothing.

    They may hold no point at all, be no pixels, lie outside the picture, or lie inside only once x and y change
    places: then whoever wrote them has swapped the axes. The picture's size must be known for the last two; a square
    one hides a swap.
    """
    xy_NX = tracks.xy_TAPX[tracks.seen_TAP]
    if not len(xy_NX):
        return "no point is seen in any frame"
    if np.abs(xy_NX).max() <= 1:
        return "all points lie within 0..1, as shares of a picture's size do; must be pixels"
    if tracks.width is None or tracks.height is None:
        return None
    size = np.array([tracks.width, tracks.height], np.float32)
    inside, swapped = (float(np.mean(((xy >= 0) & (xy <= size)).all(axis=1))) for xy in (xy_NX, xy_NX[:, ::-1]))
    picture = f"the picture of {tracks.width:g} x {tracks.height:g} pixels"
    if inside < _INSIDE and swapped >= _INSIDE_SWAPPED:
        return f"{inside:.0%} of the points lie in {picture}, {swapped:.0%} when x and y change places; swap the axes"
    if inside < _LEAST_INSIDE:
        return f"only {inside:.0%} of the points lie in {picture}; check its size, and that points are in pixels"
    return None


def checked(tracks: Tracks, where: str) -> Tracks:
    """The tracks. Raises UserError for what `fault` finds."""
    if (found := fault(tracks)) is not None:
        raise UserError(f"{where}: {found}")
    return tracks
