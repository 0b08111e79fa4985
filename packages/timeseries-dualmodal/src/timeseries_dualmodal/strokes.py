"""The compiled part of `raster`: the outline of a stroked line, and the area of every pixel inside it.

Numba takes long to import, so `raster` imports this module when it first draws. One picture at a time, one thread.

A closed outline covers the pixel in column c and row j with the sum, over its edges, of the area between the edge and
the lower side of the pixel, counted positive where the edge runs to the left and negative where it runs to the right.
From one pixel to the next below, that sum only changes where an edge passes. So each edge adds to the few `cells` that
it passes, and running sums down the columns give the picture (the idea of FreeType's and Agg's scan converters).

All coordinates are in pixels, y downwards, float32; pixel (row j, column c) is the square [c, c+1) x [j, j+1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

ZERO, HALF, ONE, WHITE = np.float32(0.0), np.float32(0.5), np.float32(1.0), np.float32(255.0)
_OPTIONS = {"nogil": True, "fastmath": {"contract", "nsz"}, "error_model": "numpy", "forceinline": True}
SPARE = 2  # rows of `cells` below the picture, for what edges in its last row add further down
Floats = NDArray[np.float32]


def compiled(function: Callable[..., Any]) -> Any:
    """Machine code, kept on the disk for the next process where a folder can be written."""
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # Numba found no such folder: a read-only container without NUMBA_CACHE_DIR
        return njit(**_OPTIONS)(function)


@compiled
def _clamp(value: float, low: float, high: float) -> float:
    """NaN becomes `low`, so that no index is ever made of it."""
    value = value if value > low else low
    return value if value < high else high


@compiled
def _add_rows(cells: Floats, c: int, dx: float, low: float, high: float) -> None:
    """The part of an edge inside column `c`: `dx` wide (signed), running between the heights `low` <= `high`."""
    if low >= 0 and high < cells.shape[0] - SPARE:
        first, last = np.uint32(low), np.uint32(high)
        if last - first <= 1:  # most parts; no branch for one row or two, which the processor could not predict
            border = np.float32(first) + ONE
            half_per_row = HALF * dx / (high - low)
            into, rest = border - low, high - border
            top = dx * (border - HALF * (low + high)) if first == last else half_per_row * into * into
            bottom = ZERO if first == last else half_per_row * rest * rest
            cells[first, c] += top
            cells[first + np.uint32(1), c] += dx - top - bottom
            cells[first + np.uint32(2), c] += bottom
            return
    _add_many_rows(cells, c, dx, low, high)


@compiled
def _add_many_rows(cells: Floats, c: int, dx: float, low: float, high: float) -> None:
    """As `_add_rows`, for parts that pass more than two rows, or run above or below the picture."""
    height = cells.shape[0] - SPARE
    if not high > 0:
        cells[0, c] += dx
        return
    if not low < height:
        return
    first, last = math.floor(max(low, -ONE)), math.floor(min(high, np.float32(height)))
    per_row = dx / (high - low)
    above = ZERO  # what the row above covers
    if first >= 0:
        into = np.float32(first + 1) - low
        above = HALF * per_row * into * into
        cells[first, c] += above
    start = max(first + 1, 0)
    if start < last:
        cells[start, c] += per_row * (np.float32(start) + HALF - low) - above
        for j in range(start + 1, last):
            cells[j, c] += per_row
        above = per_row * (np.float32(last) - HALF - low)
    if last < height:
        rest = high - np.float32(last)
        bottom = HALF * per_row * rest * rest
        cells[last, c] += dx - bottom - above
        cells[last + 1, c] += bottom


@compiled
def _add_edge(
    cells: Floats, x0: float, y0: float, x1: float, y1: float, on_x: float, on_y: float, slope: float
) -> None:
    """An edge from (x0, y0) to (x1, y1), a part of the line through (on_x, on_y).

    Heights inside it are taken from that line: they do not change by a bit with where the edge ends.
    """
    width = np.float32(cells.shape[1])
    sign = -ONE
    if x0 > x1:
        x0, y0, x1, y1, sign = x1, y1, x0, y0, ONE
    if not (x0 < x1 and x1 > 0 and x0 < width):  # also where one is not a number
        return
    low, high = min(y0, y1), max(y0, y1)
    if x0 < 0:
        x0, y0 = ZERO, _clamp(on_y - slope * on_x, low, high)
    if x1 > width:
        x1, y1 = width, _clamp(on_y + slope * (width - on_x), low, high)
    last = math.ceil(x1) - 1
    for c in range(int(x0), last):
        border = np.float32(c + 1)
        y = _clamp(on_y + slope * (border - on_x), low, high)
        _add_rows(cells, c, sign * (border - x0), min(y0, y), max(y0, y))
        x0, y0 = border, y
    _add_rows(cells, last, sign * (x1 - x0), min(y0, y1), max(y0, y1))


@compiled
def _add_chord(cells: Floats, x0: float, y0: float, x1: float, y1: float) -> None:
    _add_edge(cells, x0, y0, x1, y1, x0, y0, (y1 - y0) / (x1 - x0))


@compiled
def _add_arc(
    cells: Floats, x: float, y: float, dx: float, dy: float, turn: float, pieces: int, end_x: float, end_y: float
) -> None:
    """Chords of the circle around (x, y), through the angle `turn` from (x + dx, y + dy) to (x + end_x, y + end_y)."""
    if pieces > 1:
        cos, sin = np.float32(math.cos(turn / pieces)), np.float32(math.sin(turn / pieces))
        for _ in range(pieces - 1):
            next_x, next_y = dx * cos - dy * sin, dx * sin + dy * cos
            _add_chord(cells, x + dx, y + dy, x + next_x, y + next_y)
            dx, dy = next_x, next_y
    _add_chord(cells, x + dx, y + dy, x + end_x, y + end_y)


@compiled
def _add_dot(cells: Floats, x: float, y: float, radius: float, step: float) -> None:
    """A circle around (x, y), of chords of about the angle `step`."""
    pieces = 2 * (int(math.pi / step) + 1)
    _add_arc(cells, x, y, radius, ZERO, np.float32(-2 * math.pi), pieces, radius, ZERO)


@compiled
def _join(
    cells: Floats,
    x: float,
    y: float,
    ux: float,
    uy: float,
    vx: float,
    vy: float,
    shorter: float,
    radius: float,
    step: float,
) -> tuple[float, float, float, float, float, float, float, float]:
    """Where two segments of directions u and v meet in (x, y): adds what joins their sides.

    The outer sides are joined by an arc. The inner ones end where they cross or, where the shorter segment is too short
    for that, are joined by a chord inside the line (as in Agg).

    Returns the ends of the first segment's left and right side, then the beginnings of the second one's.
    """
    cross, dot = ux * vy - uy * vx, ux * vx + uy * vy
    inner = ONE if cross > 0 else -ONE  # the left side, (-uy, ux) from the line, or the right one
    end_x, end_y, begin_x, begin_y = -uy * radius, ux * radius, -vy * radius, vx * radius
    half = abs(cross) / (ONE + dot) if dot > 0 else (ONE - dot) / abs(cross)  # tan of half the turn
    back = radius * half
    inner_end_x, inner_end_y = x + inner * end_x, y + inner * end_y
    inner_begin_x, inner_begin_y = x + inner * begin_x, y + inner * begin_y
    reach = max(shorter, np.float32(1.01) * radius)
    if radius * radius + back * back <= reach * reach:
        inner_end_x, inner_end_y = inner_end_x - back * ux, inner_end_y - back * uy
        inner_begin_x, inner_begin_y = inner_end_x, inner_end_y
    elif inner > 0:
        _add_chord(cells, inner_end_x, inner_end_y, inner_begin_x, inner_begin_y)
    else:
        _add_chord(cells, inner_begin_x, inner_begin_y, inner_end_x, inner_end_y)
    turn = ZERO
    if dot < math.cos(step):
        turn = np.float32(math.atan2(abs(cross), dot))
    pieces = int(turn / step) + 1
    if inner > 0:
        _add_arc(cells, x, y, -begin_x, -begin_y, -turn, pieces, -end_x, -end_y)
        return (
            inner_end_x, inner_end_y, x - end_x, y - end_y, inner_begin_x, inner_begin_y, x - begin_x, y - begin_y,
        )  # fmt: skip
    _add_arc(cells, x, y, end_x, end_y, -turn, pieces, begin_x, begin_y)
    return x + end_x, y + end_y, inner_end_x, inner_end_y, x + begin_x, y + begin_y, inner_begin_x, inner_begin_y


@compiled
def _distinct(line: Floats, x_P: Floats, y_P: Floats, first: int) -> tuple[int, int]:
    """Copies points from `first` up to the next gap into `line`, but none that repeats the one before it.

    The rows of `line` are x, y, and the direction (two numbers) and length of the segment from there on.
    Returns how many points were copied, and the index of the gap.
    """
    count, i = 0, first
    while i < len(x_P) and math.isfinite(x_P[i]) and math.isfinite(y_P[i]):
        x, y = x_P[i], y_P[i]
        i += 1
        if count:
            dx, dy = x - line[0, count - 1], y - line[1, count - 1]
            length = math.sqrt(dx * dx + dy * dy)
            if length == 0:
                continue
            line[2, count - 1], line[3, count - 1], line[4, count - 1] = dx / length, dy / length, length
        line[0, count], line[1, count] = x, y
        count += 1
    return count, i


@compiled
def _add_line(cells: Floats, line: Floats, count: int, radius: float, step: float) -> None:
    """The outline of one line without gaps: both sides of each segment, the joins, and a round cap at each end."""
    if count == 1:
        _add_dot(cells, line[0, 0], line[1, 0], radius, step)
        return
    half_turn, cap = np.float32(-math.pi), int(math.pi / step) + 1
    nx, ny = -line[3, 0] * radius, line[2, 0] * radius
    x, y = line[0, 0], line[1, 0]
    left_x, left_y, right_x, right_y = x + nx, y + ny, x - nx, y - ny
    _add_arc(cells, x, y, -nx, -ny, half_turn, cap, nx, ny)
    for i in range(count - 1):
        ux, uy = line[2, i], line[3, i]
        nx, ny, slope = -uy * radius, ux * radius, uy / ux
        on_left_x, on_left_y, on_right_x, on_right_y = x + nx, y + ny, x - nx, y - ny
        x, y = line[0, i + 1], line[1, i + 1]
        if i + 2 < count:
            shorter = min(line[4, i], line[4, i + 1])
            ends = _join(cells, x, y, ux, uy, line[2, i + 1], line[3, i + 1], shorter, radius, step)
        else:
            ends = (x + nx, y + ny, x - nx, y - ny, x, y, x, y)
            _add_arc(cells, x, y, nx, ny, half_turn, cap, -nx, -ny)
        _add_edge(cells, left_x, left_y, ends[0], ends[1], on_left_x, on_left_y, slope)
        _add_edge(cells, ends[2], ends[3], right_x, right_y, on_right_x, on_right_y, slope)
        left_x, left_y, right_x, right_y = ends[4], ends[5], ends[6], ends[7]


@compiled
def _sum_up(cells: Floats, sums: Floats, box: tuple[int, int, int, int], picture: NDArray[np.uint8]) -> None:
    """Running sums down the columns of a box (top, bottom, left, right) -> grey levels; leaves `cells` empty."""
    top, bottom, left, right = box
    picture[:top, :] = 0
    sums[:] = 0
    for j in range(top, bottom):
        picture[j, :left] = 0
        more, levels = cells[j, left:right], picture[j, left:right]
        for c in range(len(more)):
            total = sums[c] + more[c]
            sums[c] = total
            more[c] = 0
            levels[c] = np.uint8(min(abs(total), ONE) * WHITE + HALF)
        picture[j, right:] = 0
    cells[bottom : bottom + SPARE, left:right] = 0
    picture[bottom:, :] = 0


@compiled
def _box(x_P: Floats, y_P: Floats, reach: float, height: int, width: int) -> tuple[int, int, int, int]:
    """The part of the picture (top, bottom, left, right) that lies within `reach` of the finite points' rectangle."""
    low_x, high_x, low_y, high_y = np.float32(width), -ONE, np.float32(height), -ONE
    for i in range(len(x_P)):
        if math.isfinite(x_P[i]) and math.isfinite(y_P[i]):
            low_x, high_x = min(low_x, x_P[i]), max(high_x, x_P[i])
            low_y, high_y = min(low_y, y_P[i]), max(high_y, y_P[i])
    top, left = _clamp(low_y - reach, 0, height), _clamp(low_x - reach, 0, width)
    bottom, right = _clamp(high_y + reach, 0, height), _clamp(high_x + reach, 0, width)
    return int(top), math.ceil(bottom), int(left), math.ceil(right)


@compiled
def _arc_step(radius: float) -> float:
    """Angle of the longest chord: its middle is about 1/8 pixel from the circle, as in Agg."""
    return np.float32(2 * math.acos(radius / (radius + np.float32(0.125))))


@compiled
def draw(x_NP: Floats, y_NP: Floats, radius: float, dot: float, picture_NHW: NDArray[np.uint8]) -> None:
    """Fills `picture_NHW`; see `raster.draw`. `radius` and `dot` are half the width of the line and of the markers."""
    pictures, height, width = picture_NHW.shape
    points = x_NP.shape[1]
    cells = np.zeros((height + SPARE, width), np.float32)
    sums, line = np.empty(width, np.float32), np.empty((5, points), np.float32)
    line_radius, dot_radius = np.float32(radius), np.float32(dot)
    line_step, dot_step = _arc_step(line_radius), _arc_step(dot_radius)
    reach = max(line_radius, dot_radius) + HALF  # with room for rounding
    for n in range(pictures):
        x_P, y_P = x_NP[n], y_NP[n]
        i = 0
        while i < points:
            count, i = _distinct(line, x_P, y_P, i)
            if count:
                _add_line(cells, line, count, line_radius, line_step)
            i += 1
        if dot_radius > 0:
            for i in range(points):
                if math.isfinite(x_P[i]) and math.isfinite(y_P[i]):
                    _add_dot(cells, x_P[i], y_P[i], dot_radius, dot_step)
        _sum_up(cells, sums, _box(x_P, y_P, reach, height, width), picture_NHW[n])
