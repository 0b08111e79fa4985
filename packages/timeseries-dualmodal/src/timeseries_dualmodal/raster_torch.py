"""The same pictures as `raster`, to a grey level, on any device of PyTorch.

`strokes` explains the method; here all lines are worked on at once. An outline becomes a flat list of edges, these
become their parts within one column of pixels, and these what they add to one pixel. The additions are of integers, so
that their order, which a GPU does not promise, changes nothing: a picture depends on its own row alone.

Shapes: N pictures, P points of a line, H = W = size; in flat lists K points, E edges, A arcs, C parts of edges, R
additions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

CHUNK_BYTES = 512 * 2**20  # of device memory that pictures may take while they are drawn
BYTES_PER_PIXEL = 40  # of it, with room for lines that fill the picture
_UNIT = float(2**20)  # of the sums: a whole pixel
Tensor = torch.Tensor


class _Edges(NamedTuple):
    """Parts of outlines, all in pixels."""

    row_E: Tensor  # the picture
    begin_E2: Tensor  # x, y
    end_E2: Tensor
    on_E2: Tensor  # a point of the line that the edge is a part of
    slope_E: Tensor


def draw(x_NP: Tensor, y_NP: Tensor, size: int, width: float, marker: float = 0.0) -> Tensor:
    """Lines -> how much of each pixel they cover, uint8 (N, size, size), on the device of the points.

    Arguments, promises and errors are those of `raster.draw`.
    """
    if x_NP.ndim != 2 or x_NP.shape != y_NP.shape:
        raise ValueError(f"points of shapes {(*x_NP.shape,)} and {(*y_NP.shape,)}: must both be (pictures, points)")
    if size < 1 or not width > 0 or not marker >= 0:
        raise ValueError(f"size {size}, width {width}, marker {marker}: must be positive")
    picture_NHW = torch.empty((len(x_NP), size, size), dtype=torch.uint8, device=x_NP.device)
    chunk = max(1, CHUNK_BYTES // (BYTES_PER_PIXEL * size * size))
    for first in range(0, len(x_NP), chunk):
        some = slice(first, first + chunk)
        p_NP2 = torch.stack([x_NP[some], y_NP[some]], 2).float()
        picture_NHW[some] = _draw(p_NP2, size, width / 2, marker / 2)
    return picture_NHW


def _draw(p_NP2: Tensor, size: int, radius: float, dot: float) -> Tensor:
    finite_NP = p_NP2.isfinite().all(2)
    edges = _outlines(p_NP2, finite_NP, radius)
    if dot > 0:
        edges.append(_dots(finite_NP.nonzero()[:, 0], p_NP2[finite_NP], dot))
    parts = _columns(_Edges(*map(torch.cat, zip(*edges, strict=True))), size)
    cells = _cells(*parts, pictures=len(p_NP2), size=size)
    total = cells[:, :size].cumsum(1, dtype=torch.int32).abs_().clamp_(max=int(_UNIT))
    return (total * (255 / _UNIT) + 0.5).to(torch.uint8)


def _outlines(p_NP2: Tensor, finite_NP: Tensor, radius: float) -> list[_Edges]:
    """The outlines of all lines. A line is a run of points of one picture without a gap."""
    again_NP = torch.zeros_like(finite_NP)  # a point where the one before it is
    again_NP[:, 1:] = (p_NP2.diff(dim=1).square().sum(2) == 0) & finite_NP[:, 1:] & finite_NP[:, :-1]
    kept_NP = finite_NP & ~again_NP
    p_K2, row_K, run_K = p_NP2[kept_NP], kept_NP.nonzero()[:, 0], (~finite_NP).cumsum(1)[kept_NP]
    leaves_K = (row_K == row_K.roll(-1)) & (run_K == run_K.roll(-1))  # a segment leads to the next point
    leaves_K[-1:] = False
    arrives_K = leaves_K.roll(1)
    step_K2 = p_K2.roll(-1, 0) - p_K2
    length_K = step_K2.square().sum(1).sqrt()
    u_K2 = step_K2 / length_K[:, None]  # direction of the segment that leaves
    n_K2 = _left(u_K2) * radius
    in_K2 = n_K2.roll(1, 0)  # of the segment that arrives
    left = [p_K2 + n_K2, p_K2 + in_K2]  # where the left side of the leaving segment begins, of the arriving one ends
    right = [p_K2 - n_K2, p_K2 - in_K2]
    edges = [
        *_joins(leaves_K & arrives_K, row_K, p_K2, u_K2, n_K2, length_K, radius, left, right),
        _caps(leaves_K & ~arrives_K, row_K, p_K2, -n_K2, radius),
        _caps(arrives_K & ~leaves_K, row_K, p_K2, in_K2, radius),
    ]
    alone_K = ~leaves_K & ~arrives_K
    edges.append(_dots(row_K[alone_K], p_K2[alone_K], radius))
    s = leaves_K.nonzero()[:, 0]
    slope = u_K2[s, 1] / u_K2[s, 0]
    edges.append(_Edges(row_K[s], left[0][s], left[1][s + 1], p_K2[s] + n_K2[s], slope))
    edges.append(_Edges(row_K[s], right[1][s + 1], right[0][s], p_K2[s] - n_K2[s], slope))
    return edges


def _joins(
    here_K: Tensor,
    row_K: Tensor,
    p_K2: Tensor,
    u_K2: Tensor,
    n_K2: Tensor,
    length_K: Tensor,
    radius: float,
    left: list[Tensor],
    right: list[Tensor],
) -> list[_Edges]:
    """What joins the sides of two segments; moves the ends of `left` and `right` where inner sides cross."""
    k = here_K.nonzero()[:, 0]
    row, p, u, v, end, begin = row_K[k], p_K2[k], u_K2[k - 1], u_K2[k], n_K2[k - 1], n_K2[k]
    cross, dot = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0], (u * v).sum(1)
    turns_left = (cross > 0)[:, None]
    inner = torch.where(turns_left, 1.0, -1.0)
    half = torch.where(dot > 0, cross.abs() / (1 + dot), (1 - dot) / cross.abs())  # tan of half the turn
    back = radius * half
    reach = torch.minimum(length_K[k - 1], length_K[k]).clamp(min=1.01 * radius)
    crossing = (radius * radius + back * back <= reach * reach)[:, None]
    inner_end = torch.where(crossing, p + inner * end - back[:, None] * u, p + inner * end)
    inner_begin = torch.where(crossing, inner_end, p + inner * begin)
    for side, is_inner in ((left, turns_left), (right, ~turns_left)):
        side[0][k] = torch.where(is_inner, inner_begin, side[0][k])
        side[1][k] = torch.where(is_inner, inner_end, side[1][k])
    inside = _chords(
        row, torch.where(turns_left, inner_end, inner_begin), torch.where(turns_left, inner_begin, inner_end)
    )
    step = _arc_step(radius)
    turn = torch.where(dot < math.cos(step), torch.atan2(cross.abs(), dot), 0.0)
    pieces = (turn / step).long() + 1
    outside = _arcs(row, p, torch.where(turns_left, -begin, end), torch.where(turns_left, -end, begin), -turn, pieces)
    return [inside, outside]


def _caps(here_K: Tensor, row_K: Tensor, p_K2: Tensor, from_K2: Tensor, radius: float) -> _Edges:
    """Half circles at some points, each from an offset to the opposite one."""
    row, p, start = row_K[here_K], p_K2[here_K], from_K2[here_K]
    return _arcs(row, p, start, -start, *_same(row, -math.pi, int(math.pi / _arc_step(radius)) + 1))


def _dots(row_K: Tensor, p_K2: Tensor, radius: float) -> _Edges:
    start = torch.zeros_like(p_K2)
    start[:, 0] = radius
    return _arcs(row_K, p_K2, start, start, *_same(row_K, -2 * math.pi, 2 * (int(math.pi / _arc_step(radius)) + 1)))


def _same(row_A: Tensor, turn: float, pieces: int) -> tuple[Tensor, Tensor]:
    return torch.full_like(row_A, turn, dtype=torch.float32), torch.full_like(row_A, pieces)


def _arcs(row_A: Tensor, p_A2: Tensor, start_A2: Tensor, stop_A2: Tensor, turn_A: Tensor, pieces_A: Tensor) -> _Edges:
    """Chords of circles around `p_A2`, from one offset through an angle to another."""
    a, i = _spread(pieces_A)
    side = _left(start_A2)

    def at(i: Tensor) -> Tensor:
        angle = (turn_A[a] / pieces_A[a] * i)[:, None]
        return start_A2[a] * angle.cos() + side[a] * angle.sin()

    stop = torch.where((i + 1 == pieces_A[a])[:, None], stop_A2[a], at(i + 1))
    return _chords(row_A[a], p_A2[a] + at(i), p_A2[a] + stop)


def _chords(row_E: Tensor, begin_E2: Tensor, end_E2: Tensor) -> _Edges:
    step = end_E2 - begin_E2
    return _Edges(row_E, begin_E2, end_E2, begin_E2, step[:, 1] / step[:, 0])


def _columns(edges: _Edges, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Parts of edges within a column of pixels: picture, column, signed width, lower and higher y."""
    forth = (edges.begin_E2[:, 0] <= edges.end_E2[:, 0])[:, None]
    (x0, y0), (x1, y1) = (
        torch.where(forth, a, b).unbind(1) for a, b in ((edges.begin_E2, edges.end_E2), (edges.end_E2, edges.begin_E2))
    )
    low, high = torch.minimum(y0, y1), torch.maximum(y0, y1)
    first, last = x0.clamp(0, size).floor(), x1.clamp(0, size).ceil() - 1
    e, i = _spread(torch.where((x0 < x1) & (x1 > 0) & (x0 < size), last - first + 1, 0).long())
    column = first[e] + i
    on_x, on_y = edges.on_E2[e].unbind(1)

    def height(x: Tensor) -> Tensor:
        return (on_y + edges.slope_E[e] * (x - on_x)).clamp(low[e], high[e])

    y_left = torch.where(x0[e] >= column, y0[e], height(column))
    y_right = torch.where(x1[e] <= column + 1, y1[e], height(column + 1))
    dx = torch.minimum(x1[e], column + 1) - torch.maximum(x0[e], column)
    dx = torch.where(forth[e, 0], -dx, dx)
    return edges.row_E[e], column.long(), dx, torch.minimum(y_left, y_right), torch.maximum(y_left, y_right)


def _cells(
    row_C: Tensor, column_C: Tensor, dx_C: Tensor, low_C: Tensor, high_C: Tensor, pictures: int, size: int
) -> Tensor:
    """What each pixel covers more than the one above it: int32 (N, size + 1, size), in `_UNIT`s of a pixel."""
    low_C = low_C.nan_to_num()  # coordinates so large that they overflow
    high_C = torch.maximum(high_C.nan_to_num(), low_C)
    first_C, last_C = low_C.floor().clamp(-1, size), high_C.floor().clamp(-1, size)
    begin_C = first_C.clamp(min=0)
    c, i = _spread(((last_C + 1).clamp(max=size) - begin_C).long() + 1)
    first, last, dx, low, high, j = first_C[c], last_C[c], dx_C[c], low_C[c], high_C[c], begin_C[c] + i
    per_row = dx / (high - low)

    def covered(j: Tensor) -> Tensor:
        """Of the pixel in row j, by what lies below the part of an edge."""
        value = per_row * (j + 0.5 - low)
        value = torch.where(j == first, 0.5 * per_row * (first + 1 - low).square(), value)
        value = torch.where(j == last, dx - 0.5 * per_row * (high - last).square(), value)
        value = torch.where((j == first) & (j == last), dx * (j + 1 - 0.5 * (low + high)), value)
        return torch.where(j > last, dx, value)

    def units(j: Tensor) -> Tensor:
        return (covered(j) * _UNIT).round().int()

    more = units(j) - torch.where(i == 0, 0, units(j - 1))
    cells = torch.zeros(pictures * (size + 1) * size, dtype=torch.int32, device=dx_C.device)
    cells.index_add_(0, (row_C[c] * (size + 1) + j.long()) * size + column_C[c], more)
    return cells.view(pictures, size + 1, size)


def _left(u_E2: Tensor) -> Tensor:
    """(x, y) -> (-y, x)."""
    return torch.stack([-u_E2[:, 1], u_E2[:, 0]], 1)


def _arc_step(radius: float) -> float:
    """Angle of the longest chord: its middle is about 1/8 pixel from the circle, as in Agg."""
    return 2 * math.acos(radius / (radius + 0.125))


def _spread(count_E: Tensor) -> tuple[Tensor, Tensor]:
    """Counts -> for each of as many things: whose it is, and which one of its (0, 1, ...); `[2, 1]` -> 001, 010."""
    index = torch.arange(len(count_E), device=count_E.device).repeat_interleave(count_E)
    return index, torch.arange(len(index), device=count_E.device) - (count_E.cumsum(0) - count_E)[index]
