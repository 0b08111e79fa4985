"""The shape of one body: distances, angles, area and elongation.

Nothing here changes when the animal is moved, turned or reflected, except what says that it has a sign.

Shapes: T frames, P points, X is x and y in cm. There may be one axis more after the first, of animals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import ArrayLike

from mabe_behavior.features import plane
from mabe_behavior.features.columns import Reals
from mabe_behavior.features.compiled import BLOCK, HALF, NAN, ONE, ZERO, compiled
from mabe_behavior.features.kinematics import coordinates, cross, dot

THREE = np.float32(3)  # points at least have a long and a short axis


def pairs(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Names of what `distances` are between, in its order."""
    return list(combinations(names, 2))


def distances(xy_TPX: ArrayLike) -> list[Reals]:
    """(T,) each, between all pairs of points."""
    x, y = coordinates(xy_TPX)
    every = combinations(range(x.shape[-1]), 2)
    return [plane.distance(x[..., one], y[..., one], x[..., other], y[..., other]) for one, other in every]


def angle(from_TX: ArrayLike, to_TX: ArrayLike) -> Reals:
    """(T,) from one direction to another, in radians from -pi to pi, positive clockwise on the screen."""
    return np.arctan2(cross(from_TX, to_TX), dot(from_TX, to_TX))


def area(corners: Sequence[ArrayLike]) -> Reals:
    """(T,) in cm², of the polygon through points (T, X): of the triangles of the first with each two neighbours.

    Triangles on the other side count the other way, so that the polygon need not be convex (the shoelace formula).
    """
    first, *others = (coordinates(corner) for corner in corners)
    return np.abs(sum(plane.triangle(*first, *one, *next_) for one, next_ in pairwise(others)))


def spread(xy_TPX: ArrayLike) -> tuple[Reals, Reals]:
    """(long, short), each (T,) in cm: standard deviations of the seen points along their principal axes.

    Missing where fewer than three points are seen. The eigenvalues of the 2 x 2 covariance are in closed form: half the
    trace, plus and minus the root of its square less the determinant.
    """
    x_PT, y_PT = (np.ascontiguousarray(x_TP.T) for x_TP in coordinates(xy_TPX))
    points, frames = len(x_PT), x_PT.shape[1:]  # of several animals, one after the other
    sums_4T = np.zeros((4, math.prod(frames)), x_PT.dtype)
    _squares(x_PT.reshape(points, -1), y_PT.reshape(points, -1), sums_4T)
    long, short = (_along_axis(*sums_4T, sign).reshape(frames).T for sign in (ONE, -ONE))
    return long, short


def elongation(xy_TPX: ArrayLike) -> Reals:
    """(T,) from 0, for points as wide as long, to 1, for points on a line: 1 - short / long."""
    long, short = spread(xy_TPX)
    return ONE - plane.ratio(short, long)


@plane.elementwise
def _along_axis(count: float, xx: float, yy: float, xy: float, sign: float) -> float:
    """The standard deviation along the longer axis, for the sign 1, or the shorter one, for -1."""
    half = (xx - yy) * HALF
    square = ((xx + yy) * HALF + sign * math.sqrt(half * half + xy * xy)) / max(count, THREE)
    return math.sqrt(max(square, ZERO)) if count >= THREE else NAN


@compiled
def _squares(x_PT: Reals, y_PT: Reals, sums_4T: Reals) -> None:
    """How many points are seen, and the sums of their squares and products xx, yy and xy about their centre."""
    for start in range(0, sums_4T.shape[1], BLOCK):
        rows = slice(start, min(start + BLOCK, sums_4T.shape[1]))
        count_T, xx_T, yy_T, xy_T = sums_4T[0, rows], sums_4T[1, rows], sums_4T[2, rows], sums_4T[3, rows]
        x_T, y_T = np.zeros_like(xx_T), np.zeros_like(yy_T)
        for p in range(len(x_PT)):
            _count(x_PT[p, rows], count_T)
            _add_seen(x_PT[p, rows], x_T)
            _add_seen(y_PT[p, rows], y_T)
        _divide(x_T, count_T)
        _divide(y_T, count_T)
        for p in range(len(x_PT)):
            _add_product(x_PT[p, rows], x_T, x_PT[p, rows], x_T, xx_T)
            _add_product(y_PT[p, rows], y_T, y_PT[p, rows], y_T, yy_T)
            _add_product(x_PT[p, rows], x_T, y_PT[p, rows], y_T, xy_T)


@compiled
def _count(x_T: Reals, count_T: Reals) -> None:
    for t in range(len(x_T)):
        count_T[t] += ZERO if math.isnan(x_T[t]) else ONE


@compiled
def _add_seen(x_T: Reals, sum_T: Reals) -> None:
    for t in range(len(x_T)):
        sum_T[t] += ZERO if math.isnan(x_T[t]) else x_T[t]


@compiled
def _divide(sum_T: Reals, count_T: Reals) -> None:
    for t in range(len(sum_T)):
        sum_T[t] /= count_T[t]  # of none it is missing, and is not asked for


@compiled
def _add_product(x_T: Reals, from_x_T: Reals, y_T: Reals, from_y_T: Reals, sum_T: Reals) -> None:
    for t in range(len(x_T)):
        product = (x_T[t] - from_x_T[t]) * (y_T[t] - from_y_T[t])
        sum_T[t] += ZERO if math.isnan(product) else product
