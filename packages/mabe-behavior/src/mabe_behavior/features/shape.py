"""The shape of one body: distances, angles, area and elongation.

Nothing here changes when the animal is moved, turned or reflected, except what says that it has a sign.

Shapes: T frames, P points, Q pairs of points, X is x and y in cm.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from mabe_behavior.features.columns import Doubles
from mabe_behavior.features.kinematics import cross, dot, length


def pairs(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Names of what `distances` are between, in its order."""
    return list(combinations(names, 2))


def distances(xy_TPX: ArrayLike) -> Doubles:
    """(T, Q) between all pairs of points."""
    xy = np.asarray(xy_TPX, np.float64)
    return np.stack([length(xy[:, one] - xy[:, other]) for one, other in combinations(range(xy.shape[1]), 2)]).T


def angle(from_TX: ArrayLike, to_TX: ArrayLike) -> Doubles:
    """(T,) from one direction to another, in radians from -pi to pi, positive clockwise on the screen."""
    return np.arctan2(cross(from_TX, to_TX), dot(from_TX, to_TX))


def area(xy_TPX: ArrayLike) -> Doubles:
    """(T,) in cm², of the polygon through the points in their order (the shoelace formula).

    Points are taken relative to the first, so that the result does not depend on where the polygon lies.
    """
    xy = np.asarray(xy_TPX, np.float64)
    from_first = xy - xy[:, :1]
    return np.abs(cross(from_first, np.roll(from_first, -1, axis=1)).sum(axis=1)) / 2


def spread(xy_TPX: ArrayLike) -> tuple[Doubles, Doubles]:
    """(long, short), each (T,) in cm: standard deviations of the seen points along their principal axes.

    Missing where fewer than three points are seen. The eigenvalues of the 2 x 2 covariance are in closed form: half the
    trace, plus and minus the root of its square less the determinant.
    """
    xy = np.asarray(xy_TPX, np.float64)
    seen = np.isfinite(xy[..., 0])
    count = seen.sum(axis=1)
    known = np.where(seen[..., None], xy, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = known.sum(axis=1) / count[:, None]
        away = np.where(seen[..., None], known - centre[:, None], 0)
        xx, yy = (np.square(away).sum(axis=1) / count[:, None]).T
        xy_ = (away[..., 0] * away[..., 1]).sum(axis=1) / count
    half, root = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy_)
    found = np.sqrt(np.maximum(np.stack((half + root, half - root)), 0))
    found[:, count < 3] = np.nan
    return found[0], found[1]


def elongation(xy_TPX: ArrayLike) -> Doubles:
    """(T,) from 0, for points as wide as long, to 1, for points on a line: 1 - short / long."""
    long, short = spread(xy_TPX)
    return 1 - np.divide(short, long, out=np.full(long.shape, np.nan), where=long > 0)
