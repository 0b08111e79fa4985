"""Where a mouse's parts are, given the state of its body: all named parts around a bending spine, as seen from above.

The spine is an arc through the body's centre. An upright mouse is foreshortened over its hind feet; a grooming one is
hunched, with its paws at the nose; a resting one lies curled up; a tail follows where its root was.

Shapes: N instants at `motion.RATE`, A animals, P parts, X = x and y in cm, y downwards.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from mabe_behavior.parts import HEADPIECE
from mabe_behavior.simulation.mice import NECK, NOSE, RUMP
from mabe_behavior.simulation.motion import RATE, Motion

Floats = NDArray[np.float64]

# place of each part: cm along the spine from the centre, forwards; cm across it, to the mouse's right
PLACES: dict[str, tuple[float, float]] = {
    "nose": (NOSE, 0.0),
    "head": (3.4, 0.0),
    "neck": (NECK, 0.0),
    "spine_1": (1.2, 0.0),
    "body_center": (0.0, 0.0),
    "spine_2": (-1.8, 0.0),
    "tail_base": (RUMP, 0.0),
} | {
    f"{part}_{side}": (along, across * sign)
    for side, sign in (("left", -1), ("right", 1))
    for part, along, across in (
        ("ear", 3.0, 0.8),
        ("shoulder", 1.6, 1.0),
        ("lateral", 0.0, 1.4),
        ("hip", -2.3, 1.3),
        ("forepaw", 2.0, 1.0),
        ("hindpaw", -2.5, 1.5),
    )
}
PLACES |= {
    name: (3.2 + (0.3 if "front" in name else -0.3), (0.3 if name.endswith("right") else -0.3)) for name in HEADPIECE
}
TAIL = {"tail_middle_1": 2.0, "tail_midpoint": 4.0, "tail_middle_2": 5.5, "tail_tip": 8.0}  # cm behind the root
STRIDE, STEP = 6.0, 0.7  # cm walked between two steps of a paw; how far it swings
GROOMING = 5.0  # strokes of the paws a second
SIZES = (0.9, 1.1)  # of the smallest and the largest mouse


def positions(motion: Motion, parts: Sequence[str], size_A: Sequence[float] | None = None) -> Floats:
    """(N, A, P, X) where the parts are.

    Args:
        size_A: how large each mouse is; by default 1.

    Raises ValueError for a part that mice do not have.
    """
    size = np.ones(motion.xy_NAX.shape[1]) if size_A is None else np.asarray(size_A, np.float64)
    if unknown := set(parts) - set(PLACES) - set(TAIL):
        raise ValueError(f"parts: no {', '.join(sorted(unknown))}; must be of {', '.join((*PLACES, *TAIL))}")
    offset = {part: _offset(motion, part) for part in dict.fromkeys((*(set(parts) - set(TAIL)), "tail_base"))}
    tails = {part: _tail(motion, part, *offset["tail_base"]) for part in parts if part in TAIL}
    cos, sin = np.cos(motion.heading_NA), np.sin(motion.heading_NA)
    found = np.empty((*motion.xy_NAX.shape[:2], len(parts), 2))
    for place, part in enumerate(parts):
        along, across = tails[part] if part in TAIL else offset[part]
        found[:, :, place, 0] = motion.xy_NAX[..., 0] + size * (along * cos - across * sin)
        found[:, :, place, 1] = motion.xy_NAX[..., 1] + size * (along * sin + across * cos)
    return found


def _offset(motion: Motion, part: str) -> tuple[Floats, Floats]:
    """(N, A) twice: cm ahead of the centre and to its right, of a part that is no tail's, in a mouse of size 1."""
    along, across = PLACES[part]
    u, v = _stepping(motion, part, along, across)
    if part in ("nose", "head") or part.startswith(("ear", "headpiece")):
        # the head turns around the neck
        cos, sin = np.cos(motion.head_NA), np.sin(motion.head_NA)
        u, v = NECK + (u - NECK) * cos - v * sin, (u - NECK) * sin + v * cos
    short = 1 - 0.25 * motion.groom_NA - 0.1 * np.abs(motion.curl_NA)
    u = u * short
    feet = PLACES["hindpaw_left"][0]  # an upright body stands on these
    u = np.where(u > feet, feet + (u - feet) * (1 - 0.6 * motion.height_NA), u)
    return _bent(u, v, _bend(motion))


def _bend(motion: Motion) -> Floats:
    """(N, A) by how many radians the spine turns from its centre to the nose: into a turn, and curled up at rest."""
    turning = _smooth(motion.turning_NA, 0.08)
    return np.clip(0.12 * turning, -0.7, 0.7) + 0.9 * motion.curl_NA


def _bent(u: Floats, v: Floats, bend: Floats) -> tuple[Floats, Floats]:
    """A point of the straight body, u ahead and v to the right, where the spine is an arc of `bend` per `NOSE` cm."""
    curvature = np.where(np.abs(bend) < 1e-9, 1e-9, bend) / NOSE
    turned = curvature * u
    return np.sin(turned) / curvature - v * np.sin(turned), (1 - np.cos(turned)) / curvature + v * np.cos(turned)


def _stepping(motion: Motion, part: str, along: float, across: float) -> tuple[Floats, Floats]:
    """Paws swing while a mouse walks, left front with right hind, and stroke the nose while it grooms."""
    u, v = np.full(motion.speed_NA.shape, along), np.full(motion.speed_NA.shape, across)
    if "paw" not in part:
        return u, v
    walked = np.cumsum(motion.speed_NA, axis=0) / RATE
    swing = np.sin(2 * np.pi * walked / STRIDE + (0 if part in ("forepaw_left", "hindpaw_right") else np.pi))
    u = u + STEP * swing * np.clip(np.abs(motion.speed_NA) / 6, 0, 1)
    if part.startswith("fore"):
        seconds = (np.arange(len(motion)) / RATE)[:, None]
        groom = motion.groom_NA * (0.8 + 0.2 * np.sin(2 * np.pi * GROOMING * seconds))
        u, v = u + groom * (NOSE - 0.6 - u), v * (1 - 0.6 * groom)
    return u, v


def _tail(motion: Motion, part: str, root_u: Floats, root_v: Floats) -> tuple[Floats, Floats]:
    """A tail's part lies behind its root in the direction that the body had a little while ago."""
    behind = TAIL[part]
    lag = _smooth(motion.heading_NA, 0.05 * behind) - motion.heading_NA - 0.6 * _bend(motion)
    return root_u - behind * np.cos(lag), root_v - behind * np.sin(lag)


def _smooth(x_NA: Floats, seconds: float) -> Floats:
    """An exponential mean over the past."""
    keep = np.exp(-1 / (RATE * seconds))
    found: Floats = lfilter([1 - keep], [1, -keep], x_NA, axis=0, zi=keep * x_NA[:1])[0]
    return found
