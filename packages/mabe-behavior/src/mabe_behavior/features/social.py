"""Where another animal is and how the two move with respect to each other.

Nothing here changes when both animals are moved, turned or reflected together.

Shapes: T frames, P points of the agent, Q of the target, X is x and y in cm, y downwards.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mabe_behavior.features import plane
from mabe_behavior.features.columns import Doubles, Reals
from mabe_behavior.features.compiled import BLOCK, HALF, NAN, compiled
from mabe_behavior.features.kinematics import SLOW, coordinates

CONTACT = 1.5  # cm between the nearest tracked points: bodies, which are wider than their points, touch


def distance(from_TX: ArrayLike, to_TX: ArrayLike) -> Reals:
    """(T,) between two points."""
    return plane.distance(*coordinates(from_TX), *coordinates(to_TX))


def closest(agent_TPX: ArrayLike, target_TQX: ArrayLike) -> Reals:
    """(T,) the smallest distance of those that are seen; missing where none is."""
    points = [np.ascontiguousarray(x_TP.T) for xy_TPX in (agent_TPX, target_TQX) for x_TP in coordinates(xy_TPX)]
    found: Reals = np.full(points[0].shape[1], np.inf, np.result_type(*points))
    _closest(*points, found)
    return found


def facing(direction_TX: ArrayLike, from_TX: ArrayLike, to_TX: ArrayLike) -> Reals:
    """(T,) the cosine between where one points and where the other is: 1 facing it, -1 turned away."""
    return _facing(*coordinates(direction_TX), *coordinates(from_TX), *coordinates(to_TX))


def toward(velocity_TX: ArrayLike, from_TX: ArrayLike, to_TX: ArrayLike) -> Reals:
    """(T,) the part of a velocity (or acceleration) that points to a place; negative where it leads away."""
    return _toward(*coordinates(velocity_TX), *coordinates(from_TX), *coordinates(to_TX))


def approach(agent_v_TX: ArrayLike, target_v_TX: ArrayLike, agent_TX: ArrayLike, target_TX: ArrayLike) -> Reals:
    """(T,) how fast the two come closer, in cm/s: the derivative of their distance with its sign turned."""
    (ax, ay), (tx, ty) = coordinates(agent_v_TX), coordinates(target_v_TX)
    return _toward(ax - tx, ay - ty, *coordinates(agent_TX), *coordinates(target_TX))


def alignment(a_TX: ArrayLike, b_TX: ArrayLike) -> Reals:
    """(T,) the cosine between two velocities, which fades to 0 where either is slow."""
    return _alignment(*coordinates(a_TX), *coordinates(b_TX), np.float32(SLOW))


def chase(agent_v_TX: ArrayLike, target_v_TX: ArrayLike, agent_TX: ArrayLike, target_TX: ArrayLike) -> Reals:
    """(T,) in cm/s, at least 0: the agent runs after a target that runs from it.

    The geometric mean of the agent's speed towards the target and the target's speed away from the agent.
    """
    return _chase(*(x for vector in (agent_v_TX, target_v_TX, agent_TX, target_TX) for x in coordinates(vector)))


def touching(distance_T: ArrayLike) -> Reals:
    """(T,) 1 where they are that close, 0 where not, missing where the distance is."""
    distance = np.asarray(distance_T)
    return np.where(np.isnan(distance), NAN, distance <= np.float32(CONTACT))


def since(active_T: NDArray[np.bool_], fps: float, most: float) -> Doubles:
    """(T,) seconds since it was last so; 0 while it is, and at most `most`, also before the first time."""
    frame = np.arange(len(active_T))
    last = np.maximum.accumulate(np.where(active_T, frame, -np.inf)) if len(frame) else frame
    return np.minimum((frame - last) / fps, most)


@plane.elementwise
def _toward(vx: float, vy: float, ax: float, ay: float, bx: float, by: float) -> float:
    x, y = bx - ax, by - ay
    size = math.sqrt(x * x + y * y)
    return (vx * x + vy * y) / (size if size != 0 else NAN)


@plane.elementwise
def _chase(avx: float, avy: float, tvx: float, tvy: float, ax: float, ay: float, tx: float, ty: float) -> float:
    x, y = tx - ax, ty - ay
    size = math.sqrt(x * x + y * y)
    after, away = avx * x + avy * y, tvx * x + tvy * y
    after, away = (after + abs(after)) * HALF, (away + abs(away)) * HALF  # at least 0, or missing
    return math.sqrt(after * away) / (size if size != 0 else NAN)


@plane.elementwise
def _facing(vx: float, vy: float, ax: float, ay: float, bx: float, by: float) -> float:
    x, y = bx - ax, by - ay
    size = math.sqrt(vx * vx + vy * vy) * math.sqrt(x * x + y * y)
    return (vx * x + vy * y) / (size if size != 0 else NAN)


@plane.elementwise
def _alignment(ax: float, ay: float, bx: float, by: float, slowest: float) -> float:
    return (ax * bx + ay * by) / ((math.sqrt(ax * ax + ay * ay) + slowest) * (math.sqrt(bx * bx + by * by) + slowest))


@compiled
def _closest(ax_PT: Reals, ay_PT: Reals, tx_QT: Reals, ty_QT: Reals, found_T: Reals) -> None:
    for start in range(0, len(found_T), BLOCK):
        rows = slice(start, min(start + BLOCK, len(found_T)))
        for p in range(len(ax_PT)):
            for q in range(len(tx_QT)):
                _closer(ax_PT[p, rows], ay_PT[p, rows], tx_QT[q, rows], ty_QT[q, rows], found_T[rows])
    for t in range(len(found_T)):
        found_T[t] = math.sqrt(found_T[t]) if found_T[t] < np.inf else NAN


@compiled
def _closer(ax_T: Reals, ay_T: Reals, tx_T: Reals, ty_T: Reals, found_T: Reals) -> None:
    for t in range(len(found_T)):
        x, y = tx_T[t] - ax_T[t], ty_T[t] - ay_T[t]
        square = x * x + y * y
        found_T[t] = square if square < found_T[t] else found_T[t]  # not where it is missing
