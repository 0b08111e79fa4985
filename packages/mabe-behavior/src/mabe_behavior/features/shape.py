"""The shape of one body: distances, angles, area and elongation.

Nothing here changes when the animal is moved, turned or reflected, except what says that it has a sign.

Shapes: T frames, P points, Q pairs of points, X is x and y in cm.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from mabe_behavior.features import plane
from mabe_behavior.features.columns import Reals
from mabe_behavior.features.compiled import HALF, NAN, ONE, ZERO, compiled
from mabe_behavior.features.kinematics import coordinates, cross, dot

THREE = np.float32(3)  # points at least have a long and a short axis


def pairs(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Names of what `distances` are between, in its order."""
    return list(combinations(names, 2))


def distances(xy_TPX: ArrayLike) -> Reals:
    """(T, Q) between all pairs of points."""
    x_TP, y_TP = coordinates(xy_TPX)
    all_pairs = list(combinations(range(x_TP.shape[1]), 2))
    found_QT = np.empty((len(all_pairs), len(x_TP)), x_TP.dtype)
    for q, (one, other) in enumerate(all_pairs):
        plane.distance(x_TP[:, one], y_TP[:, one], x_TP[:, other], y_TP[:, other], out=found_QT[q])
    return found_QT.T


def angle(from_TX: ArrayLike, to_TX: ArrayLike) -> Reals:
    """(T,) from one direction to another, in radians from -pi to pi, positive clockwise on the screen."""
    return np.arctan2(cross(from_TX, to_TX), dot(from_TX, to_TX))


def area(xy_TPX: ArrayLike) -> Reals:
    """(T,) in cm², of the polygon through the points in their order: of the triangles of the first with two neighbours.

    Triangles on the other side count the other way, so that the polygon need not be convex (the shoelace formula).
    """
    x_TP, y_TP = coordinates(xy_TPX)
    corners = list(zip(x_TP.T, y_TP.T, strict=True))
    return np.abs(sum(plane.triangle(*corners[0], *corners[p], *corners[p + 1]) for p in range(1, len(corners) - 1)))


@np.errstate(invalid="ignore")
def spread(xy_TPX: ArrayLike) -> tuple[Reals, Reals]:
    """(long, short), each (T,) in cm: standard deviations of the seen points along their principal axes.

    Missing where fewer than three points are seen. The eigenvalues of the 2 x 2 covariance are in closed form: half the
    trace, plus and minus the root of its square less the determinant.
    """
    x_PT, y_PT = (np.ascontiguousarray(x_TP.T) for x_TP in coordinates(xy_TPX))
    sums_4T = np.zeros((4, x_PT.shape[1]), x_PT.dtype)
    _squares(x_PT, y_PT, sums_4T)
    return _along_axis(*sums_4T, ONE), _along_axis(*sums_4T, -ONE)


@np.errstate(invalid="ignore")
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
    count_T = sums_4T[0]
    centre_2T = np.zeros_like(sums_4T[:2])
    for p in range(len(x_PT)):
        for t in range(len(count_T)):
            count_T[t] += ZERO if math.isnan(x_PT[p, t]) else ONE
        _add_seen(x_PT[p], centre_2T[0])
        _add_seen(y_PT[p], centre_2T[1])
    for t in range(len(count_T)):
        centre_2T[0, t] /= count_T[t]  # of none it is missing, and is not asked for
        centre_2T[1, t] /= count_T[t]
    for p in range(len(x_PT)):
        _add_product(x_PT[p], centre_2T[0], x_PT[p], centre_2T[0], sums_4T[1])
        _add_product(y_PT[p], centre_2T[1], y_PT[p], centre_2T[1], sums_4T[2])
        _add_product(x_PT[p], centre_2T[0], y_PT[p], centre_2T[1], sums_4T[3])


@compiled
def _add_seen(x_T: Reals, sum_T: Reals) -> None:
    for t in range(len(x_T)):
        sum_T[t] += ZERO if math.isnan(x_T[t]) else x_T[t]


@compiled
def _add_product(x_T: Reals, from_x_T: Reals, y_T: Reals, from_y_T: Reals, sum_T: Reals) -> None:
    for t in range(len(x_T)):
        product = (x_T[t] - from_x_T[t]) * (y_T[t] - from_y_T[t])
        sum_T[t] += ZERO if math.isnan(product) else product
