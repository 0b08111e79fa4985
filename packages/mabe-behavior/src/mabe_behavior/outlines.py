"""What a mouse looks like from above, out of whatever parts a laboratory tracks.

A spine is fitted to the places that are known, and the body is as wide along it as mice are. What was not tracked is
not invented: without a nose the body begins at the ears.

Shapes: T frames, A animals, S places along the spine, K parts of the tail, E ears, N points of an outline; X is x and
y in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.tracks import Tracks

Floats = NDArray[np.float32]

# share of the way from the nose to the root of the tail -> the parts, or pairs of parts, whose middle lies there
PLACES: dict[float, tuple[str, ...]] = {
    0.0: ("nose",),
    0.2: ("head", "ear"),
    0.33: ("neck", "shoulder"),
    0.42: ("spine_1",),
    0.55: ("body_center", "lateral"),
    0.8: ("spine_2", "hip"),
    1.0: ("tail_base",),
}
TAIL = ("tail_base", "tail_middle_1", "tail_midpoint", "tail_middle_2", "tail_tip")
EARS = ("ear_left", "ear_right")
# half the width of a body at such a share, as a share of the body's length
WIDTH = ((0.0, 0.03), (0.06, 0.07), (0.2, 0.11), (0.33, 0.12), (0.6, 0.19), (0.8, 0.18), (0.94, 0.09), (1.0, 0.03))
FILLED = 0.5  # seconds: shorter gaps are filled
USUAL = 8.0  # cm from the nose to the root of the tail, where it is not known
STRETCHED = 1.8  # times its length: a longer body, or a tail further away, is none, but points that lie anywhere
SAMPLED = 2000  # frames that a recording's median length is taken of, at most


@dataclass(frozen=True)
class Bodies:
    """The mice of a recording, ready to be drawn; what is not known is NaN."""

    spine_TASX: Floats
    tail_TAKX: Floats
    ears_TAEX: Floats
    length: float  # pixels from the nose to the root of the tail, the median

    @classmethod
    def of(cls, tracks: Tracks, first: int, stop: int) -> Bodies:
        """Of some frames of a recording, with their short gaps filled; frame 0 is then `first`."""
        some = tracks.xy_TAPX[:: max(1, len(tracks) // SAMPLED)]
        length = _length(_spine(replace(tracks, xy_TAPX=some, confidence_TAP=None)), USUAL * tracks.pixels_per_cm)
        given = replace(tracks, xy_TAPX=tracks.xy_TAPX[first:stop], confidence_TAP=None).filled(FILLED)
        tail_TAKX, ears_TAEX = (given.of_parts(names).xy_TAPX for names in (TAIL, EARS))
        far_TAK = np.linalg.norm(tail_TAKX - tail_TAKX[:, :, :1], axis=-1) > STRETCHED * length
        return cls(_spine(given), np.where(far_TAK[..., None], np.nan, tail_TAKX), ears_TAEX, length)

    def centre(self, frame: int | slice, animal: int) -> Floats:
        """(X,) or (T, X) the mean of what is known of the spine."""
        return _mean(self.spine_TASX[frame, animal], axis=-2)

    def outline(self, frame: int, animal: int) -> Floats | None:
        """(N, X) around the body; None where less than two places are known, or they are too far apart to be one's."""
        spine_SX = self.spine_TASX[frame, animal]
        known = np.isfinite(spine_SX[:, 0])
        if known.sum() < 2:
            return None
        share = np.array(list(PLACES))[known]
        if np.linalg.norm(np.diff(spine_SX[known], axis=0), axis=1).sum() > STRETCHED * self.length:
            return None
        along = np.linspace(share[0], share[-1], 24)
        degree = min(3, len(share) - 1)  # not through all places: trackers put them a little beside the spine
        fitted_DX = np.polynomial.polynomial.polyfit(share, spine_SX[known], degree, w=np.where(share % 1 == 0, 2, 1))
        middle_NX = np.polynomial.polynomial.polyval(along, fitted_DX).T
        ahead_NX = np.polynomial.polynomial.polyval(along, np.polynomial.polynomial.polyder(fitted_DX)).T
        ahead_NX /= np.maximum(np.linalg.norm(ahead_NX, axis=1, keepdims=True), 1e-9)
        half = self.length * np.interp(along, *np.transpose(WIDTH))
        aside_NX = half[:, None] * np.stack((-ahead_NX[:, 1], ahead_NX[:, 0]), axis=1)
        return np.concatenate((middle_NX + aside_NX, (middle_NX - aside_NX)[::-1])).astype(np.float32)


def _spine(tracks: Tracks) -> Floats:
    """(T, A, S, X)."""
    return np.stack([_middle(tracks, names) for names in PLACES.values()], axis=2)


def _middle(tracks: Tracks, names: tuple[str, ...]) -> Floats:
    """(T, A, X) the mean of parts; of a pair's two sides, both or none."""
    found = []
    for name in names:
        if f"{name}_left" in tracks.parts:
            found.append(tracks.of_parts((f"{name}_left", f"{name}_right")).xy_TAPX.mean(axis=2))
        else:
            found.append(tracks.of_parts((name,)).xy_TAPX[:, :, 0])
    return _mean(np.stack(found, axis=2), axis=2)


def _length(spine_TASX: Floats, usual: float) -> float:
    """The median over frames and mice of the distance between the known ends of the spine, made whole."""
    share_S = np.array(list(PLACES))
    known_TAS = np.isfinite(spine_TASX[..., 0])
    first_TA, last_TA = known_TAS.argmax(axis=2), len(PLACES) - 1 - known_TAS[..., ::-1].argmax(axis=2)
    part_TA = share_S[last_TA] - share_S[first_TA]
    most = np.where(known_TAS.any(axis=2), part_TA, 0)
    if not most.max(initial=0) > 0:
        return usual
    ends = [np.take_along_axis(spine_TASX, at[..., None, None], axis=2)[:, :, 0] for at in (first_TA, last_TA)]
    chosen_TA = most == most.max()
    return float(np.median(np.linalg.norm(ends[1] - ends[0], axis=-1)[chosen_TA] / part_TA[chosen_TA]))


def _mean(x: Floats, axis: int) -> Floats:
    """Of the known points (..., X) along an axis; NaN where there is none."""
    known = np.isfinite(x)
    with np.errstate(invalid="ignore"):
        found: Floats = (np.where(known, x, 0).sum(axis=axis) / known.sum(axis=axis)).astype(np.float32)
    return found
