"""Motion: velocity, acceleration, jerk, speed, heading and turning of points, from positions at a constant rate.

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
from scipy import ndimage

from mabe_behavior.features.columns import Doubles
from mabe_behavior.features.rolling import odd_frames

SECONDS = 0.25  # of the fit: 7 frames at 30 fps


def derivative(x_TN: ArrayLike, fps: float, order: int = 1, seconds: float = SECONDS) -> Doubles:
    """The derivative of this order along the first axis, per second to that power.

    The fit takes at least `order` + 2 frames where there are as many, and a polynomial of a lower degree where not; a
    recording of no more frames than the order has no derivatives.

    Raises ValueError for an order below 1.
    """
    if order < 1:
        raise ValueError(f"order: {order}; must be at least 1")
    x = np.asarray(x_TN, np.float64)
    degree = order + 1
    width = min(max(odd_frames(seconds, fps), 2 * ((degree + 1) // 2) + 1), len(x) - 1 + len(x) % 2)
    if width <= order:
        return np.full(x.shape, np.nan)
    kernel_WW = _kernels(width, min(degree, width - 1), order) * fps**order
    half = width // 2
    found = np.empty_like(x)
    ndimage.correlate1d(x, kernel_WW[half], axis=0, output=found, mode="nearest")
    found[:half] = _applied(kernel_WW[:half], x[:width])
    found[len(x) - half :] = _applied(kernel_WW[half + 1 :], x[len(x) - width :])
    return found


def velocity(xy_TNX: ArrayLike, fps: float, seconds: float = SECONDS) -> Doubles:
    """In cm/s."""
    return derivative(xy_TNX, fps, 1, seconds)


def acceleration(xy_TNX: ArrayLike, fps: float, seconds: float = SECONDS) -> Doubles:
    """In cm/s²."""
    return derivative(xy_TNX, fps, 2, seconds)


def jerk(xy_TNX: ArrayLike, fps: float, seconds: float = SECONDS) -> Doubles:
    """In cm/s³."""
    return derivative(xy_TNX, fps, 3, seconds)


def speed(xy_TNX: ArrayLike, fps: float, seconds: float = SECONDS) -> Doubles:
    """In cm/s, (T, N)."""
    return length(velocity(xy_TNX, fps, seconds))


def heading(direction_TNX: ArrayLike) -> Doubles:
    """The angle of a velocity or an axis, in radians from -pi to pi: 0 to the right, a quarter turn downwards."""
    x = np.asarray(direction_TNX, np.float64)
    return np.arctan2(x[..., 1], x[..., 0])


def turning(direction_TNX: ArrayLike, fps: float, seconds: float = SECONDS) -> Doubles:
    """How fast an axis turns, in radians per second: its unit vector, crossed with that vector's derivative.

    No angle is unwrapped, so one missing frame does not spoil those after it.
    """
    unit_TNX = unit(direction_TNX)
    return cross(unit_TNX, derivative(unit_TNX, fps, 1, seconds))


def curving(velocity_TNX: ArrayLike, acceleration_TNX: ArrayLike, slowest: float = 1.0) -> Doubles:
    """How fast the direction of motion turns, in radians per second: (v x a) / |v|².

    Below the speed `slowest`, in cm/s, where the direction is that of the tracker's noise, it fades to 0.
    """
    v = np.asarray(velocity_TNX, np.float64)
    return cross(v, acceleration_TNX) / (dot(v, v) + slowest**2)


def length(vector_NX: ArrayLike) -> Doubles:
    """Euclidean, along the last axis."""
    x = np.asarray(vector_NX, np.float64)
    return np.sqrt(dot(x, x))


def unit(vector_NX: ArrayLike) -> Doubles:
    """Of length 1; missing for a vector of length 0."""
    x = np.asarray(vector_NX, np.float64)
    size = length(x)[..., None]
    return np.divide(x, size, out=np.full_like(x, np.nan), where=size > 0)


def dot(a_NX: ArrayLike, b_NX: ArrayLike) -> Doubles:
    a, b = np.asarray(a_NX, np.float64), np.asarray(b_NX, np.float64)
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1]


def cross(a_NX: ArrayLike, b_NX: ArrayLike) -> Doubles:
    """Positive where b lies clockwise of a on the screen."""
    a, b = np.asarray(a_NX, np.float64), np.asarray(b_NX, np.float64)
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


@lru_cache(maxsize=64)
def _kernels(width: int, degree: int, order: int) -> Doubles:
    """(W, W) row k: weights of a window's frames for the derivative at its k-th; the unit of time is a frame."""
    offset_WW = np.arange(width)[None, :] - np.arange(width)[:, None]
    fits = [np.linalg.pinv(np.vander(offsets, degree + 1, increasing=True))[order] for offsets in offset_WW * 1.0]
    return np.stack(fits) * factorial(order)


def _applied(kernel_KW: Doubles, x_WN: Doubles) -> Doubles:
    return np.einsum("kw,w...->k...", kernel_KW, x_WN)
