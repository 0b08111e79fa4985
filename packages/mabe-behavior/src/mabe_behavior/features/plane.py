"""Vectors in the plane, given by their coordinates: what the features are made of, compiled.

x points to the right and y downwards, as in a picture.
"""

from __future__ import annotations

import math

from mabe_behavior.features.compiled import HALF, NAN, elementwise


@elementwise
def dot(ax: float, ay: float, bx: float, by: float) -> float:
    return ax * bx + ay * by


@elementwise
def cross(ax: float, ay: float, bx: float, by: float) -> float:
    """Positive where b lies clockwise of a on the screen."""
    return ax * by - ay * bx


@elementwise
def length(x: float, y: float) -> float:
    return math.sqrt(x * x + y * y)


@elementwise
def distance(ax: float, ay: float, bx: float, by: float) -> float:
    return math.sqrt((bx - ax) * (bx - ax) + (by - ay) * (by - ay))


@elementwise
def ratio(x: float, size: float) -> float:
    """Missing where the size is 0."""
    return x / (size if size != 0 else NAN)


@elementwise
def triangle(ax: float, ay: float, bx: float, by: float, cx: float, cy: float) -> float:
    """Its area, positive where the three points are clockwise on the screen."""
    return ((bx - ax) * (cy - ay) - (by - ay) * (cx - ax)) * HALF
