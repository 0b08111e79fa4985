"""Statistics of moving windows: mean, standard deviation, smallest, largest and change.

A window is centred on its frame, has an odd number of frames and ends where the recording does. Missing values take no
part; a window without any value has no statistics. The time they take hardly depends on the window.

Shapes: T frames, F columns, W windows, S statistics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mabe_behavior.features import windows
from mabe_behavior.features.columns import Floats

STATISTICS = windows.STATISTICS
_CHUNK = 4096  # frames that are turned into columns at once


def odd_frames(seconds: float, fps: float) -> int:
    """The odd number of frames, at least 1, that comes nearest to lasting so long; of two as near, the smaller."""
    if not seconds > 0 or not fps > 0:
        raise ValueError(f"seconds {seconds}, fps {fps}; must be above 0")
    return 2 * max(0, math.ceil(seconds * fps / 2 - 1 - 1e-9)) + 1


@dataclass(frozen=True)
class Rolling:
    """Which statistics are taken, over which windows, of which columns: by window, statistic and column.

    Raises ValueError for an even window or an unknown statistic.
    """

    frames: tuple[int, ...]
    statistics: tuple[str, ...]
    columns: tuple[int, ...]

    def __post_init__(self) -> None:
        for width in self.frames:
            if width < 1 or width % 2 == 0:
                raise ValueError(f"frames: {width}; must be odd and at least 1")
        if unknown := set(self.statistics) - set(STATISTICS):
            raise ValueError(f"statistics: {', '.join(sorted(unknown))}; must be among {', '.join(STATISTICS)}")

    @property
    def width(self) -> int:
        """How many columns it makes."""
        return len(self.frames) * len(self.statistics) * len(self.columns)

    @property
    def margin(self) -> int:
        """How many frames before and after a frame it looks at."""
        return max(self.frames) // 2

    def write(self, x_CN: Floats, margin: int, table_TF: Floats, rows: slice, place: int) -> None:
        """Into these rows of a table, from column `place` on, out of columns that begin `margin` frames before them."""
        kinds = [STATISTICS.index(statistic) for statistic in self.statistics]
        windows.statistics(
            x_CN,
            margin - self.margin,
            *(np.array(numbers, np.int64) for numbers in (self.columns, [width // 2 for width in self.frames], kinds)),
            table_TF,
            rows.start,
            rows.stop,
            place,
        )


def rolling(x_TF: ArrayLike, frames: Sequence[int], statistics: Sequence[str] = ("mean", "std")) -> Floats:
    """Statistics of every column over windows of so many frames, (T, W, S, F).

    `std` divides by the number of values, so that of a single one is 0; `change` is the mean of the window's frames
    after its centre less that of the frames before it, missing where either side has no value.

    Raises ValueError for an even window or an unknown statistic.
    """
    x_TF = np.ascontiguousarray(x_TF, np.float32)
    if x_TF.ndim != 2:
        raise ValueError(f"x: shape {x_TF.shape}; must be (frames, columns)")
    every = Rolling(tuple(frames), tuple(statistics), tuple(range(x_TF.shape[1])))
    found_TF = np.empty((len(x_TF), every.width), np.float32)
    x_CN = np.empty((x_TF.shape[1], _CHUNK + 2 * every.margin), np.float32)
    for start in range(0, len(x_TF), _CHUNK):
        windows.read(x_TF, start - every.margin, x_CN)
        every.write(x_CN, every.margin, found_TF, slice(start, min(start + _CHUNK, len(x_TF))), 0)
    return found_TF.reshape(len(x_TF), len(frames), len(statistics), x_TF.shape[1])


def names(columns: Sequence[str], seconds: Sequence[float], statistics: Sequence[str]) -> tuple[str, ...]:
    """Of the statistics of columns, in the order in which they come."""
    return tuple(f"{name}.{which}_{one:g}s" for one in seconds for which in statistics for name in columns)


def mean(x_TF: ArrayLike, fps: float, seconds: float) -> Floats:
    """(T, F) moving means."""
    return rolling(x_TF, [odd_frames(seconds, fps)], ["mean"])[:, 0, 0]
