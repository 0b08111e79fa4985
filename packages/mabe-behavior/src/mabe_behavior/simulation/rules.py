"""What mice do, as rules about the noiseless state with thresholds in cm, seconds and degrees.

A rule never asks for an intention: each behaviour shows in where the bodies are and how they move. Of an agent to a
target the first rule in `PRECEDENCE` that holds wins, so that there is one action at a time. In short:

=============  =======================================================================================================
attack         nearly in contact (1.5 times `contact`), the other ahead, while turning to and fro quickly
mount          the chest over the other's rump, facing the same way, its centre behind the other's, both slow
chase          within `trail` behind the other and facing it, both faster than `chasing`
follow         the same, both faster than `walking`
escape         faster than `chasing`, away from another that is behind and whose nose is within `reach`
sniff          the nose in contact with the other's body, slow, and neither mouse turning to and fro;
 sniffface,     in half a second's mean it is nearest to the other's nose,
 sniffgenital,  nearest to the root of its tail,
 sniffbody      or further than 1.3 times `contact` from both
approach       within `reach` of another that hardly moves and not yet in contact, facing it and coming nearer
rear           upright
selfgroom      paws at the face, in place
run            faster than `running`
rest           curled up and still, for `resting` seconds
=============  =======================================================================================================

Shapes: N instants at `motion.RATE`, A animals, X = x and y in cm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from mabe_behavior.actions import SELF, Behaviour
from mabe_behavior.bouts import runs
from mabe_behavior.simulation.bodies import positions
from mabe_behavior.simulation.motion import RATE, Motion

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

SNIFFS = ("sniff", "sniffface", "sniffgenital", "sniffbody")
PRECEDENCE = ("attack", "mount", "chase", "follow", "escape", *SNIFFS, "approach")
ALONE = ("rear", "selfgroom", "run", "rest")
SPINE = ("nose", "neck", "body_center", "tail_base")


@dataclass(frozen=True)
class Rules:
    """The thresholds; laboratories differ in them."""

    contact: float = 2.0  # cm from a nose to the other's spine that count as touching; half a mouse is 1.3 wide
    sniffing: float = 11.0  # cm/s: who sniffs is slower
    turning: float = 4.5  # rad/s, root mean square over `WINDOW`: who fights turns so fast
    mounting: float = 3.2  # cm from the chest to the other's rump
    running: float = 20.0  # cm/s
    chasing: float = 15.0  # cm/s, of both
    trail: float = 10.0  # cm from the nose to the other's body, at most, of who chases or follows
    walking: float = 4.0  # cm/s, of both: who follows is faster
    nearing: float = 5.0  # cm/s: who approaches gets nearer so fast
    reach: float = 15.0  # cm from the nose to the other's body: who is further away does not approach or escape yet
    facing: float = 45.0  # degrees between the body's axis and where the other is
    upright: float = 0.5  # of the height
    still: float = 1.0  # cm/s
    curled: float = 0.3  # of the curl
    least: float = 0.3  # seconds that a behaviour lasts, `mount`, `follow`, `selfgroom` twice as long
    resting: float = 2.0  # seconds
    bridge: float = 0.2  # seconds: a shorter interruption is none


WINDOW = 0.4  # seconds of the mean of a speed of turning
_LONGER = {"mount": 2.0, "follow": 2.0, "selfgroom": 2.0}  # times `Rules.least`


def labels(motion: Motion, rules: Rules | None = None, size_A: Sequence[float] | None = None) -> dict[Behaviour, Mask]:
    """(N,) of each behaviour: every ordered pair's, and each mouse's alone.

    `sniff` holds where one of its kinds does, and where none lasts long enough.

    Args:
        size_A: how large each mouse is, as in `bodies.positions`.
    """
    rules = rules or Rules()
    animals = motion.xy_NAX.shape[1]
    spine_NAPX = positions(motion, SPINE, size_A)
    found: dict[Behaviour, Mask] = {}
    for agent in range(animals):
        for action, mask in _alone(motion, agent, rules).items():
            found[Behaviour(f"mouse{agent + 1}", SELF, action)] = mask
        for target in range(animals):
            if target != agent:
                for action, mask in _together(motion, spine_NAPX, agent, target, rules).items():
                    found[Behaviour(f"mouse{agent + 1}", f"mouse{target + 1}", action)] = mask
    return found


def lasting(active_N: Mask, least: float, bridge: float) -> Mask:
    """Interruptions shorter than `bridge` seconds closed, then what is shorter than `least` dropped."""
    found = active_N.copy()
    starts, stops = runs(active_N)
    for stop, start in zip(stops[:-1], starts[1:], strict=True):
        if start - stop < bridge * RATE:
            found[stop:start] = True
    for start, stop in zip(*runs(found), strict=True):
        if stop - start < least * RATE:
            found[start:stop] = False
    return found


def _alone(motion: Motion, a: int, rules: Rules) -> dict[str, Mask]:
    speed = _mean(np.abs(motion.speed_NA[:, a]), 0.2)
    groom, height = motion.groom_NA[:, a] > 0.5, motion.height_NA[:, a] > rules.upright
    seen = {
        "rear": height,
        "selfgroom": groom & (speed < 3 * rules.still),
        "run": speed > rules.running,
        "rest": (speed < rules.still) & (np.abs(motion.curl_NA[:, a]) > rules.curled) & ~groom & ~height,
    }
    return _exclusive(seen, ALONE, rules)


def _together(motion: Motion, spine_NAPX: Floats, a: int, b: int, rules: Rules) -> dict[str, Mask]:
    """What `a` does to `b`."""
    one, two = Pair.of(motion, spine_NAPX, a, b), Pair.of(motion, spine_NAPX, b, a)
    near = one.gap < rules.contact
    slower = np.minimum(one.speed, two.speed)
    trailing = (one.gap < rules.trail) & (one.aside < rules.facing) & (two.aside > 90)
    # who is at the nose of a fighting mouse, or fights itself, does not sniff
    calm = np.maximum(one.turning, two.turning) < rules.turning
    seen = {
        "attack": (one.gap < 1.5 * rules.contact) & (one.aside < 90) & (one.turning > rules.turning),
        "mount": (one.chest_to_rump < rules.mounting)
        & (one.across < rules.facing)
        & (one.behind > 1.0)
        & (np.maximum(one.speed, two.speed) < 12),
        "chase": trailing & (slower > rules.chasing),
        "follow": trailing & (slower > rules.walking),
        "escape": (two.gap < rules.reach) & (one.aside > 110) & (one.speed > rules.chasing) & (one.leaving > 3),
        "sniff": near & (one.speed < rules.sniffing) & calm,
        "approach": (one.gap < rules.reach)
        & ~near
        & (one.aside < rules.facing)
        & (one.nearing > rules.nearing)
        & (two.speed < 8),
    }
    found = _exclusive(seen, [name for name in PRECEDENCE if name in seen], rules)
    return found | _kinds(found["sniff"], one, rules)


def _kinds(sniff_N: Mask, one: Pair, rules: Rules) -> dict[str, Mask]:
    """What is sniffing, divided by what is sniffed. A nose wanders: where it is over half a second counts."""
    neither = np.full(len(sniff_N), 1.3 * rules.contact)
    nearest = np.argmin((_mean(one.to_nose, 0.5), _mean(one.to_rump, 0.5), neither), axis=0)
    found = _exclusive({name: sniff_N & (nearest == k) for k, name in enumerate(SNIFFS[1:])}, SNIFFS[1:], rules)
    return {name: lasting(mask & sniff_N, rules.least, 0.0) for name, mask in found.items()}


def _exclusive(seen: dict[str, Mask], order: Sequence[str], rules: Rules) -> dict[str, Mask]:
    """Each lasts long enough, and none at the time of an earlier one."""
    free = np.ones_like(seen[order[0]])
    found = {}
    for name in order:
        least = rules.resting if name == "rest" else rules.least * _LONGER.get(name, 1.0)
        mask = lasting(lasting(seen[name], least, rules.bridge) & free, least, 0.0)
        found[name] = mask
        free = free & ~mask
    return found


@dataclass(frozen=True)
class Pair:
    """What one mouse is to another, (N,) each. Distances in cm, speeds in cm/s, angles in degrees."""

    speed: Floats  # of the one, over 0.2 seconds
    turning: Floats  # rad/s, root mean square over `WINDOW`
    gap: Floats  # from its nose to the nearest point of the other's spine
    to_nose: Floats  # from its nose to the other's,
    to_rump: Floats  # and to the root of the other's tail
    chest_to_rump: Floats  # from between its neck and centre to between the other's centre and tail
    aside: Floats  # between its axis and where the other's centre is: 0 ahead, 180 behind
    across: Floats  # between the two axes
    behind: Floats  # cm that its centre lies behind the other's, along the other's axis
    nearing: Floats  # its own velocity towards the other's centre
    leaving: Floats  # its own velocity away from it

    @classmethod
    def of(cls, motion: Motion, spine_NAPX: Floats, a: int, b: int) -> Pair:
        nose, _, centre, _ = (spine_NAPX[:, a, place] for place in range(4))
        other_nose, _, other, other_rump = (spine_NAPX[:, b, place] for place in range(4))
        axis, other_axis = _unit(motion.heading_NA[:, a]), _unit(motion.heading_NA[:, b])
        towards = other - centre
        towards /= np.maximum(np.linalg.norm(towards, axis=-1, keepdims=True), 1e-9)
        velocity = _mean(np.gradient(motion.xy_NAX[:, a], 1 / RATE, axis=0), 0.2)
        chest, rump = centre + 1.2 * axis, (other + other_rump) / 2
        return cls(
            speed=np.linalg.norm(velocity, axis=-1),
            turning=np.sqrt(np.maximum(_mean(motion.turning_NA[:, a] ** 2, WINDOW), 0)),
            gap=_to_line(nose, spine_NAPX[:, b]),
            to_nose=np.linalg.norm(other_nose - nose, axis=-1),
            to_rump=np.linalg.norm(other_rump - nose, axis=-1),
            chest_to_rump=np.linalg.norm(chest - rump, axis=-1),
            aside=_between(axis, towards),
            across=_between(axis, other_axis),
            behind=((other - centre) * other_axis).sum(axis=-1),
            nearing=(velocity * towards).sum(axis=-1),
            leaving=-(velocity * towards).sum(axis=-1),
        )


def _to_line(point_NX: Floats, line_NPX: Floats) -> Floats:
    """(N,) from a point to a line through P points."""
    start, step = line_NPX[:, :-1], np.diff(line_NPX, axis=1)
    length = np.maximum((step**2).sum(axis=-1), 1e-12)
    share = np.clip(((point_NX[:, None] - start) * step).sum(axis=-1) / length, 0, 1)
    return np.linalg.norm(start + share[..., None] * step - point_NX[:, None], axis=-1).min(axis=1)


def _unit(radians_N: Floats) -> Floats:
    return np.stack((np.cos(radians_N), np.sin(radians_N)), axis=-1)


def _between(one_NX: Floats, two_NX: Floats) -> Floats:
    """Degrees between unit vectors."""
    return np.degrees(np.arccos(np.clip((one_NX * two_NX).sum(axis=-1), -1, 1)))


def _mean(x_N: Floats, seconds: float) -> Floats:
    """Over a window around each instant."""
    found: Floats = uniform_filter1d(x_N, 2 * round(seconds * RATE / 2) + 1, axis=0, mode="nearest")
    return found
