"""Where the parts of animals are, frame by frame.

Shapes: T frames, A animals, P parts; X is x and y, in pixels, y downwards. What was not seen is NaN, never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]
_SAME = 1e-6  # of a frame: places that are no further apart are one, up to rounding


@dataclass(frozen=True)
class Tracks:
    """A recording's positions, at a constant rate; frame k of the video is row k."""

    xy_TAPX: Floats
    animals: tuple[str, ...]  # mouse1, mouse2, ...
    parts: tuple[str, ...]  # names of `parts.PARTS`
    fps: float
    pixels_per_cm: float
    confidence_TAP: Floats | None = None  # 0 to 1; None: the tracker does not say
    width: float | None = None  # of the picture, in pixels
    height: float | None = None

    def __post_init__(self) -> None:
        xy = np.asarray(self.xy_TAPX, np.float32)
        expected = (len(self.animals), len(self.parts), 2)
        if xy.ndim != 4 or xy.shape[1:] != expected:
            raise ValueError(f"tracks: shape {xy.shape}; must be (frames, animals, parts, 2), here (T, {expected})")
        if self.confidence_TAP is not None and np.shape(self.confidence_TAP) != xy.shape[:3]:
            raise ValueError(f"confidence: shape {np.shape(self.confidence_TAP)}; must be {xy.shape[:3]}")
        for name in ("animals", "parts"):
            names = getattr(self, name)
            if len(set(names)) != len(names):
                raise ValueError(f"{name}: {', '.join(names)}; must differ")
        if not self.fps > 0 or not self.pixels_per_cm > 0:
            raise ValueError(f"fps {self.fps}, pixels_per_cm {self.pixels_per_cm}; must be above 0")
        object.__setattr__(self, "xy_TAPX", np.where(np.isfinite(xy).all(axis=-1, keepdims=True), xy, np.nan))

    def __len__(self) -> int:
        return len(self.xy_TAPX)

    @property
    def cm_TAPX(self) -> Floats:
        return self.xy_TAPX / np.float32(self.pixels_per_cm)

    @property
    def seconds(self) -> float:
        return len(self) / self.fps

    @property
    def seen_TAP(self) -> NDArray[np.bool_]:
        return np.isfinite(self.xy_TAPX[..., 0])

    def of_parts(self, parts: Sequence[str]) -> Tracks:
        """With these parts, in this order; those that were not tracked are missing in every frame."""
        shape = (len(self), len(self.animals), len(parts))
        xy, sure = np.full((*shape, 2), np.nan, np.float32), np.full(shape, np.nan, np.float32)
        for place, part in enumerate(parts):
            if part in self.parts:
                there = self.parts.index(part)
                xy[:, :, place] = self.xy_TAPX[:, :, there]
                if self.confidence_TAP is not None:
                    sure[:, :, place] = self.confidence_TAP[:, :, there]
        return replace(
            self,
            xy_TAPX=xy,
            parts=tuple(parts),
            confidence_TAP=None if self.confidence_TAP is None else sure,
        )

    def of_animals(self, animals: Sequence[str]) -> Tracks:
        """Of some animals, in this order. Raises ValueError for one that is not there."""
        if missing := set(animals) - set(self.animals):
            raise ValueError(f"animals: no {', '.join(sorted(missing))}; there are {', '.join(self.animals)}")
        rows = [self.animals.index(animal) for animal in animals]
        sure = None if self.confidence_TAP is None else self.confidence_TAP[:, rows]
        return replace(self, xy_TAPX=self.xy_TAPX[:, rows], animals=tuple(animals), confidence_TAP=sure)

    def where_sure(self, least: float) -> Tracks:
        """Without the points of less confidence; those of which it is not known stay."""
        if self.confidence_TAP is None:
            return self
        return replace(self, xy_TAPX=np.where(self.confidence_TAP[..., None] < least, np.nan, self.xy_TAPX))

    def filled(self, seconds: float) -> Tracks:
        """Gaps of at most so many seconds filled linearly; longer ones, and those at the ends, stay."""
        most = round(seconds * self.fps)
        if most < 1 or not len(self):
            return self
        series_TN = self.xy_TAPX.reshape(len(self), -1)
        before_TN, after_TN = _nearest_seen(series_TN)
        columns = np.arange(series_TN.shape[1])
        gap_TN = after_TN - before_TN
        inside_TN = np.isnan(series_TN) & (before_TN >= 0) & (after_TN < len(self)) & (gap_TN - 1 <= most)
        left, right = np.clip(before_TN, 0, None), np.clip(after_TN, None, len(self) - 1)
        share = (np.arange(len(self))[:, None] - left) / np.maximum(gap_TN, 1)
        between_TN = series_TN[left, columns] * (1 - share) + series_TN[right, columns] * share
        filled_TN = np.where(inside_TN, between_TN, series_TN).astype(np.float32)
        return replace(self, xy_TAPX=filled_TN.reshape(self.xy_TAPX.shape))

    def resampled(self, fps: float) -> Tracks:
        """At another rate, between frames linearly; a point is missing where a neighbour that it lies between is.

        The last frame is the last that falls on or before the recording's last (`places`).
        """
        if fps == self.fps or not len(self):
            return replace(self, fps=fps)
        place_K = places(len(self), self.fps, fps)
        below, share = np.floor(place_K).astype(np.int64), (place_K % 1).astype(np.float32)
        above = np.minimum(below + 1, len(self) - 1)
        return replace(
            self,
            xy_TAPX=_between(self.xy_TAPX, below, above, share),
            confidence_TAP=None if self.confidence_TAP is None else _between(self.confidence_TAP, below, above, share),
            fps=fps,
        )


def places(frames: int, fps: float, wanted: float) -> NDArray[np.float64]:
    """(K,) the frames, whole or not, that those of another rate fall on: from the first to, at most, the last.

    Beyond the last frame nothing is known: to repeat it would make what moves stand still.
    """
    if not frames:
        return np.empty(0)
    count = int((frames - 1) * wanted / fps + _SAME) + 1
    place_K = np.arange(count) * fps / wanted
    whole_K = np.rint(place_K)
    return np.where(np.abs(place_K - whole_K) < _SAME, whole_K, place_K)


def nearest(frames: int, fps: float, wanted: float) -> NDArray[np.int64]:
    """(K,) the frame next to each of those of another rate: for labels."""
    return np.rint(places(frames, fps, wanted)).astype(np.int64)


def dense(frame: ArrayLike, animal: ArrayLike, part: ArrayLike, xy: ArrayLike, shape: tuple[int, int, int]) -> Floats:
    """(T, A, P, 2) of rows (frame, animal, part, x and y), numbered from 0; what no row has is missing.

    Raises ValueError for two rows of the same point, or numbers outside the shape.
    """
    index = tuple(np.asarray(column, np.int64) for column in (frame, animal, part))
    for name, column, most in zip(("frame", "animal", "part"), index, shape, strict=True):
        if column.size and (column.min() < 0 or column.max() >= most):
            raise ValueError(f"{name}: {int(column.min())} to {int(column.max())}; must lie in 0..{most - 1}")
    flat = np.ravel_multi_index(index, shape)
    if len(np.unique(flat)) != len(flat):
        raise ValueError("rows: two of the same frame, animal and part")
    found = np.full((*shape, 2), np.nan, np.float32)
    found.reshape(-1, 2)[flat] = np.asarray(xy, np.float32)
    return found


def _between(x_T: Floats, below: NDArray[np.int64], above: NDArray[np.int64], share_K: Floats) -> Floats:
    share = share_K.reshape(-1, *[1] * (x_T.ndim - 1))
    upper = np.where(share > 0, x_T[above], 0)  # a frame that is met exactly needs no neighbour
    found: Floats = (np.where(share < 1, x_T[below], 0) * (1 - share) + upper * share).astype(np.float32)
    return found


def _nearest_seen(series_TN: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The last row with a value at or before each row, -1 for none; and the first at or after it, T for none."""
    frames, seen = np.arange(len(series_TN))[:, None], ~np.isnan(series_TN)
    before = np.maximum.accumulate(np.where(seen, frames, -1), axis=0)
    after = np.minimum.accumulate(np.where(seen, frames, len(series_TN))[::-1], axis=0)[::-1]
    return before, after
