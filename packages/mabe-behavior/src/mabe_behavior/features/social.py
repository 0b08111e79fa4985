"""Where another animal is and how the two move with respect to each other.

Nothing here changes when both animals are moved, turned or reflected together.

Shapes: T frames, P points of the agent, Q of the target, X is x and y in cm, y downwards.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mabe_behavior.features.columns import Doubles
from mabe_behavior.features.kinematics import dot, length, unit

SLOW = 1.0  # cm/s: directions of motion slower than this are the tracker's noise
CONTACT = 1.5  # cm between the nearest tracked points: bodies, which are wider than their points, touch


def distances(agent_TPX: ArrayLike, target_TQX: ArrayLike) -> Doubles:
    """(T, P, Q) from each point of the one to each of the other."""
    return length(np.asarray(target_TQX, np.float64)[:, None] - np.asarray(agent_TPX, np.float64)[:, :, None])


def closest(agent_TPX: ArrayLike, target_TQX: ArrayLike) -> Doubles:
    """(T,) the smallest distance of those that are seen; missing where none is."""
    found: Doubles = np.full(len(np.asarray(agent_TPX)), np.inf)
    target = np.asarray(target_TQX, np.float64)
    for point_TX in np.moveaxis(np.asarray(agent_TPX, np.float64), 1, 0):  # one by one: no array of T x P x Q x 2
        apart_TQX = target - point_TX[:, None]
        np.fmin(found, np.fmin.reduce(dot(apart_TQX, apart_TQX), axis=1), out=found)
    return np.sqrt(np.where(np.isfinite(found), found, np.nan))


def facing(direction_TX: ArrayLike, from_TX: ArrayLike, to_TX: ArrayLike) -> Doubles:
    """(T,) the cosine between where one points and where the other is: 1 facing it, -1 turned away."""
    apart = np.asarray(to_TX, np.float64) - np.asarray(from_TX, np.float64)
    return dot(unit(direction_TX), unit(apart))


def toward(velocity_TX: ArrayLike, from_TX: ArrayLike, to_TX: ArrayLike) -> Doubles:
    """(T,) the part of a velocity (or acceleration) that points to a place; negative where it leads away."""
    apart = np.asarray(to_TX, np.float64) - np.asarray(from_TX, np.float64)
    return dot(velocity_TX, unit(apart))


def approach(agent_v_TX: ArrayLike, target_v_TX: ArrayLike, agent_TX: ArrayLike, target_TX: ArrayLike) -> Doubles:
    """(T,) how fast the two come closer, in cm/s: the derivative of their distance with its sign turned."""
    relative = np.asarray(agent_v_TX, np.float64) - np.asarray(target_v_TX, np.float64)
    return toward(relative, agent_TX, target_TX)


def alignment(a_TX: ArrayLike, b_TX: ArrayLike, slowest: float = SLOW) -> Doubles:
    """(T,) the cosine between two velocities, which fades to 0 where either is slow."""
    return dot(a_TX, b_TX) / ((length(a_TX) + slowest) * (length(b_TX) + slowest))


def chase(agent_v_TX: ArrayLike, target_v_TX: ArrayLike, agent_TX: ArrayLike, target_TX: ArrayLike) -> Doubles:
    """(T,) in cm/s, at least 0: the agent runs after a target that runs from it.

    The geometric mean of the agent's speed towards the target and the target's speed away from the agent.
    """
    after = toward(agent_v_TX, agent_TX, target_TX)
    away = toward(target_v_TX, agent_TX, target_TX)
    return np.sqrt(np.maximum(after, 0) * np.maximum(away, 0))


def touching(distance_T: ArrayLike, within: float = CONTACT) -> Doubles:
    """(T,) 1 where they are that close, 0 where not, missing where the distance is."""
    distance = np.asarray(distance_T, np.float64)
    return np.where(np.isfinite(distance), distance <= within, np.nan)


def since(active_T: NDArray[np.bool_], fps: float, most: float) -> Doubles:
    """(T,) seconds since it was last so; 0 while it is, and at most `most`, also before the first time."""
    frame = np.arange(len(active_T))
    last = np.maximum.accumulate(np.where(active_T, frame, -np.inf)) if len(frame) else frame
    return np.minimum((frame - last) / fps, most)
