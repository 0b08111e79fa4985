"""Series as line plots: from values to points in pixels, to coverage, to colour.

Shapes: N or B series, V variables, T steps, P points of a line, H = W = size. Nothing here knows of labels or splits: a
picture is a function of the first `length` steps of one variable of one series, and of axes fitted beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from timeseries_dualmodal import raster, raster_torch

TAB20 = (
    "1f77b4", "aec7e8", "ff7f0e", "ffbb78", "2ca02c", "98df8a", "d62728", "ff9896", "9467bd", "c5b0d5",
    "8c564b", "c49c94", "e377c2", "f7b6d2", "7f7f7f", "c7c7c7", "bcbd22", "dbdb8d", "17becf", "9edae5",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Axes:
    """What the sides of the plots stand for."""

    time_low: float
    time_high: float
    low_V: NDArray[np.float32]
    high_V: NDArray[np.float32]

    @classmethod
    def fit(cls, x_NVT: NDArray[np.float32], times_T: NDArray[np.float64], tail: float = 0.005) -> Axes:
        """x over all times; y of each variable from its quantile `tail` to `1 - tail`, missing values (NaN) ignored.

        `x_NVT` must be training series, or a picture would know something of the others. A variable whose quantiles are
        equal spans its extremes; one that never changes has its value in the middle; one without values spans 0 to 1.
        """
        spans = [_span(x_NT[np.isfinite(x_NT)], tail) for x_NT in np.swapaxes(x_NVT, 0, 1)]
        low_V, high_V = np.array(spans, np.float32).reshape(-1, 2).T
        return cls.of(times_T, low_V, high_V)

    @classmethod
    def of(cls, times_T: NDArray[np.float64], low_V: NDArray[np.float32], high_V: NDArray[np.float32]) -> Axes:
        """x over all times, y from given values to given values."""
        time_low, time_high = _apart(float(times_T[0]), float(times_T[-1]))
        return cls(time_low, time_high, low_V, high_V)


def _span(values: NDArray[np.float32], tail: float) -> tuple[float, float]:
    if not len(values):
        return 0.0, 1.0
    low, high = np.quantile(values, [tail, 1 - tail]).astype(np.float32)
    if not low < high:
        low, high = values.min(), values.max()
    return _apart(float(low), float(high))


def _apart(low: float, high: float) -> tuple[float, float]:
    """`low` and `high`, or a span around them where they are equal."""
    if low < high:
        return low, high
    half = max(abs(low), 1.0) / 2
    return low - half, high + half


@dataclass(frozen=True, eq=False)
class Plots:
    """How series are drawn. The fields after `times_T` are explained in `pictures_config.Pictures`."""

    axes: Axes
    times_T: NDArray[np.float64]
    size: int
    line_width: float
    marker: float = 0.0
    scaling: Literal["fixed", "autoscale"] = "fixed"
    margin: float = 0.05
    gaps: Literal["bridge", "break"] = "bridge"

    def points(self, x_BVT: torch.Tensor, length_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the lines go: pixels from the upper left corner, float32 (B, V, P = T) each; NaN: a gap.

        Only steps before `length_B` count. A value outside the axis is drawn at the border of the picture.

        Args:
            x_BVT: float32, NaN: missing. T may be less than the steps of a whole series (but not 0), and no more.
            length_B: integers; 0 gives an empty picture.
        """
        device, steps = x_BVT.device, x_BVT.shape[2]
        times_T = torch.as_tensor(self.times_T[:steps], dtype=torch.float32, device=device)
        shown_BVT = x_BVT.isfinite() & (torch.arange(steps, device=device) < length_B[:, None])[:, None]
        times_BVT = times_T.expand_as(x_BVT)
        if self.scaling == "fixed":
            right_BVT = (times_BVT - self.axes.time_low) / (self.axes.time_high - self.axes.time_low)
            low_V1, high_V1 = (
                torch.as_tensor(side, dtype=torch.float32, device=device)[:, None]
                for side in (self.axes.low_V, self.axes.high_V)
            )
            up_BVT = (x_BVT - low_V1) / (high_V1 - low_V1)
        else:
            right_BVT, up_BVT = _fill(times_BVT, shown_BVT), _fill(x_BVT, shown_BVT)
        inner = self.size * (1 - 2 * self.margin)
        edge = self.size * self.margin
        border = min(max(self.line_width, self.marker) / 2, edge)
        gap = torch.tensor(torch.nan, device=device)
        x_BVP = torch.where(shown_BVT, edge + inner * right_BVT, gap)
        y_BVP = torch.where(shown_BVT, (edge + inner * (1 - up_BVT)).clamp(border, self.size - border), gap)
        if self.gaps == "bridge":
            return _to_front(x_BVP, shown_BVT), _to_front(y_BVP, shown_BVT)
        return x_BVP, y_BVP

    def coverage(self, x_BVT: torch.Tensor, length_B: torch.Tensor, threads: int = 1) -> torch.Tensor:
        """How much of each pixel the line covers, 0..255: uint8 (B, V, size, size), on the device of the values.

        Args:
            x_BVT, length_B: as in `points`.
            threads: on a CPU.
        """
        x_NP, y_NP = (points.flatten(0, 1) for points in self.points(x_BVT, length_B))
        if x_BVT.device.type == "cpu":
            drawn = raster.draw(x_NP.numpy(), y_NP.numpy(), self.size, self.line_width, self.marker, threads)
            picture_NHW = torch.from_numpy(drawn)
        else:
            picture_NHW = raster_torch.draw(x_NP, y_NP, self.size, self.line_width, self.marker)
        return picture_NHW.unflatten(0, x_BVT.shape[:2])


def _fill(values_BVT: torch.Tensor, shown_BVT: torch.Tensor) -> torch.Tensor:
    """The values shown, scaled to 0..1 in each line; 0.5 where they are all equal."""
    low_BV1 = values_BVT.where(shown_BVT, torch.inf).amin(2, keepdim=True)
    high_BV1 = values_BVT.where(shown_BVT, -torch.inf).amax(2, keepdim=True)
    varied_BV1 = high_BV1 > low_BV1
    return torch.where(varied_BV1, (values_BVT - low_BV1) / (high_BV1 - low_BV1), 0.5)


def _to_front(points_BVP: torch.Tensor, shown_BVP: torch.Tensor) -> torch.Tensor:
    """The points that are shown, in their order, then gaps."""
    place_BVP = torch.where(shown_BVP, shown_BVP.cumsum(2) - 1, points_BVP.shape[2])  # one more place, for what is not
    moved = points_BVP.new_full((*points_BVP.shape[:2], points_BVP.shape[2] + 1), torch.nan)
    return moved.scatter_(2, place_BVP, points_BVP)[:, :, :-1]


def colours(count: int) -> torch.Tensor:
    """Red, green, blue in 0..1 of each variable, float32 (V, 3): matplotlib's tab20, again from the start after 20."""
    rgb = [[int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)] for code in TAB20]
    return torch.tensor([rgb[v % len(rgb)] for v in range(count)]).reshape(count, 3)


def paint(coverage_BVHW: torch.Tensor, colours_V3: torch.Tensor) -> torch.Tensor:
    """Coloured lines on white: uint8 coverage -> float32 (B, V, 3, H, W) in 0..1, on the device of the coverage."""
    ink_V311 = (1 - colours_V3.to(coverage_BVHW.device))[:, :, None, None] / 255
    return 1 - coverage_BVHW[:, :, None] * ink_V311
