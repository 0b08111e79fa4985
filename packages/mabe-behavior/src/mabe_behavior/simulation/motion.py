"""How a few mice move for a while: the latent state that pictures and labels are made of.

Shapes: N instants at `RATE`, A animals, X = x and y in cm from the arena's middle, y downwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.simulation.arenas import Arena
from mabe_behavior.simulation.intentions import LASTS, Temperament, begin, decide, wish
from mabe_behavior.simulation.mice import Mouse, part

RATE = 60.0  # instants a second: bodies move smoothly between them
WARM_UP = 120  # instants before the first that counts: nobody starts from a standstill
DECIDES = 6  # instants between two decisions
WISHES = 3  # and between two looks at where the others are
INTENTIONS = tuple(LASTS)
_KEPT = ("x", "y", "heading", "speed", "turning", "head", "height", "groom", "curl")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Motion:
    """The state of each mouse at each instant, without any error of measurement. Angles in radians, see `mice`."""

    xy_NAX: Floats  # of the body's centre
    heading_NA: Floats  # not wrapped
    speed_NA: Floats  # along the heading, cm/s
    turning_NA: Floats  # rad/s
    head_NA: Floats  # angle of the head to the body
    height_NA: Floats  # 0 on all fours to 1 upright
    groom_NA: Floats  # 0 to 1 with the paws at the face
    curl_NA: Floats  # -1 to 1 curled up, to either side
    intention_NA: NDArray[np.int8]  # numbers of `INTENTIONS`: for looking at; labels must not use it

    def __len__(self) -> int:
        return len(self.xy_NAX)


def moved(arena: Arena, temperament: Temperament, mice: int, seconds: float, rng: Random) -> Motion:
    """So many mice in an arena for so many seconds.

    Raises ValueError for less than two or more than three mice, or no time.
    """
    if mice not in (2, 3):
        raise ValueError(f"mice {mice}; must be 2 or 3")
    if not seconds > 0:
        raise ValueError(f"seconds {seconds}; must be above 0")
    crowd = _placed(arena, mice, rng)
    count, dt = math.ceil(seconds * RATE) + 1, 1 / RATE
    rows: list[float] = []
    wanted: list[int] = []
    for step in range(-WARM_UP, count):
        if step % DECIDES == 0:
            for mouse in crowd:
                decide(mouse, crowd, step * dt, temperament, rng)
        if step % WISHES == 0:
            for mouse in crowd:
                wish(mouse, crowd, arena, WISHES * dt, rng)
        for mouse in crowd:
            mouse.move(dt)
        for k, mouse in enumerate(crowd):
            for other in crowd[:k]:
                part(mouse, other)
        for mouse in crowd:
            mouse.stay_inside(arena)
        if step >= 0:
            for mouse in crowd:
                rows += [getattr(mouse, name) for name in _KEPT]
                wanted.append(INTENTIONS.index(mouse.intention))
    state = np.array(rows).reshape(count, mice, len(_KEPT))
    rest = {f"{name}_NA": state[..., k].copy() for k, name in enumerate(_KEPT) if k >= 2}
    return Motion(xy_NAX=state[..., :2].copy(), intention_NA=np.array(wanted, np.int8).reshape(count, mice), **rest)


def _placed(arena: Arena, mice: int, rng: Random) -> list[Mouse]:
    """Mice that stand apart, one in each part of the arena from left to right."""
    crowd = []
    for k in range(mice):
        x = (-0.5 + (k + rng.uniform(0.4, 0.6)) / mice) * (arena.width - 8)
        mouse = Mouse(x, rng.uniform(-0.2, 0.2) * arena.height, rng.uniform(-math.pi, math.pi))
        begin(mouse, "explore", None, -WARM_UP / RATE, Temperament(), rng)
        crowd.append(mouse)
    return crowd
