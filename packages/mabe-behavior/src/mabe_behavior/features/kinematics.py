"""Motion: velocity, acceleration, jerk, speed and turning of points, from positions at a constant rate.

Derivatives are those of a polynomial that is fitted by least squares to the frames around each frame (Savitzky and
Golay 1964, "Smoothing and differentiation of data by simplified least squares procedures"). Its degree is one more than
the order of the derivative, so that the velocity of a uniform acceleration is exact, and over three frames it is the
central difference. The first and last frames take theirs from the fit to the first and last whole window. A missing
point is missing for every window that sees it, and for no other.

Positions are in cm and time in seconds, y points downwards; a positive turn is clockwise as seen on the screen.

Shapes: T frames, N any further axes, X the two coordinates.
"""

from __future__ import annotations

from functools import lru_cache
from math import factorial

import numpy as np
from numpy.typing import ArrayLike

from mabe_behavior.features import fits, plane
from mabe_behavior.features.columns import Doubles, Reals, reals
from mabe_behavior.features.rolling import odd_frames

SECONDS = 0.25  # of the fit: 7 frames at 30 fps
SLOW = 1.0  # cm/s: directions of motion slower than this are the tracker's noise


def derivative(x_TN: ArrayLike, fps: float, order: int = 1, seconds: float = SECONDS) -> Reals:
    """The derivative of this order along the first axis, per second to that power.

    The fit takes at least `order` + 2 frames where there are as many, and a polynomial of a lower degree where not; a
    recording of no more frames than the order has no derivatives.

    Raises ValueError for an order below 1.
    """
    if order < 1:
        raise ValueError(f"order: {order}; must be at least 1")
    x = np.asfortranarray(reals(x_TN))  # the frames of each series side by side
    kernel_WW = _kernel(seconds, fps, order, len(x), x.dtype.char)
    if kernel_WW is None:
        return np.full(x.shape, np.nan, x.dtype)
    found = np.empty_like(x)
    fits.applied(kernel_WW, x.T.reshape(-1, len(x)), found.T.reshape(-1, len(x)))
    return found


def reach(seconds: float, fps: float, order: int) -> int:
    """How many frames before and after its own a derivative of this order looks at."""
    return max(odd_frames(seconds, fps) // 2, (order + 2) // 2)


def velocity(xy_TNX: ArrayLike, fps: float) -> Reals:
    """In cm/s."""
    return derivative(xy_TNX, fps, 1)


def acceleration(xy_TNX: ArrayLike, fps: float) -> Reals:
    """In cm/s²."""
    return derivative(xy_TNX, fps, 2)


def jerk(xy_TNX: ArrayLike, fps: float, seconds: float) -> Reals:
    """In cm/s³."""
    return derivative(xy_TNX, fps, 3, seconds)


def speed(xy_TNX: ArrayLike, fps: float) -> Reals:
    """In cm/s, (T, N)."""
    return length(velocity(xy_TNX, fps))


def turning(direction_TNX: ArrayLike, fps: float) -> Reals:
    """How fast an axis turns, in radians per second: its unit vector, crossed with that vector's derivative.

    No angle is unwrapped, so one missing frame does not spoil those after it.
    """
    unit_TNX = unit(direction_TNX)
    return cross(unit_TNX, derivative(unit_TNX, fps, 1))


def curving(velocity_TNX: ArrayLike, acceleration_TNX: ArrayLike) -> Reals:
    """How fast the direction of motion turns, in radians per second: (v x a) / |v|².

    Below the speed `SLOW` it fades to 0.
    """
    return _curving(*coordinates(velocity_TNX), *coordinates(acceleration_TNX), np.float32(SLOW))


def coordinates(vector_NX: ArrayLike) -> tuple[Reals, Reals]:
    """x and y, along the last axis."""
    x = reals(vector_NX)
    return x[..., 0], x[..., 1]


def length(vector_NX: ArrayLike) -> Reals:
    """Euclidean, along the last axis."""
    return plane.length(*coordinates(vector_NX))


def unit(vector_NX: ArrayLike) -> Reals:
    """Of length 1; missing for a vector of length 0."""
    x = reals(vector_NX)
    return plane.ratio(x, length(x)[..., None])


def dot(a_NX: ArrayLike, b_NX: ArrayLike) -> Reals:
    return plane.dot(*coordinates(a_NX), *coordinates(b_NX))


def cross(a_NX: ArrayLike, b_NX: ArrayLike) -> Reals:
    """Positive where b lies clockwise of a on the screen."""
    return plane.cross(*coordinates(a_NX), *coordinates(b_NX))


@plane.elementwise
def _curving(vx: float, vy: float, ax: float, ay: float, slowest: float) -> float:
    return (vx * ay - vy * ax) / (vx * vx + vy * vy + slowest * slowest)


@lru_cache(maxsize=64)
def _kernel(seconds: float, fps: float, order: int, frames: int, dtype: str) -> Reals | None:
    """(W, W) for a series of so many frames; None where they are too few."""
    width = min(2 * reach(seconds, fps, order) + 1, frames - 1 + frames % 2)
    if width <= order:
        return None
    return (_kernels(width, min(order + 1, width - 1), order) * fps**order).astype(dtype)


def _kernels(width: int, degree: int, order: int) -> Doubles:
    """(W, W) row k: weights of a window's frames for the derivative at its k-th; the unit of time is a frame."""
    offset_WW = np.arange(width)[None, :] - np.arange(width)[:, None]
    fits = [np.linalg.pinv(np.vander(offsets, degree + 1, increasing=True))[order] for offsets in offset_WW * 1.0]
    return np.stack(fits) * factorial(order)
