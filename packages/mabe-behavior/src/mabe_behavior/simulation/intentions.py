"""What a simulated mouse wants, and how it goes about it: a semi-Markov chain that the other mice's doings interrupt.

Nobody annotates intentions: `rules` says what is seen of them. A mouse that wants to attack and is outrun attacks
nobody.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from mabe_behavior.simulation.arenas import Arena
from mabe_behavior.simulation.mice import NOSE, RUMP, Mouse, Wish, angle

LASTS = {  # seconds: at least, and how much more on average
    "pause": (0.3, 0.8),
    "explore": (1.0, 2.0),
    "dash": (0.6, 0.5),
    "rest": (5.0, 6.0),
    "rear": (0.8, 1.0),
    "selfgroom": (1.5, 2.5),
    "approach": (3.0, 1.0),
    "sniff face": (0.5, 0.9),
    "sniff body": (0.5, 0.9),
    "sniff rump": (0.6, 1.2),
    "follow": (1.5, 1.5),
    "chase": (1.5, 1.5),
    "attack": (1.0, 1.2),
    "mount": (3.0, 3.0),
    "escape": (1.0, 1.0),
    "defend": (0.8, 0.8),
    "bear": (2.0, 3.0),  # to be mounted
}
SOLITARY = ("pause", "explore", "dash", "rest", "rear", "selfgroom")  # the others are about another mouse
PACES = {"explore": (5.0, 14.0), "dash": (26.0, 36.0), "approach": (9.0, 18.0), "escape": (26.0, 38.0)}  # cm/s
SNIFFS = {"sniff face": NOSE + 0.8, "sniff body": 0.0, "sniff rump": RUMP - 0.4}  # the place along the other's body
LOST = 22.0  # cm: who is so far away is not chased any more
Weights = Mapping[str, float]


@dataclass(frozen=True)
class Temperament:
    """How often the mice of a lab do what; weights need not add up to 1."""

    alone: Weights = field(
        default_factory=lambda: {"explore": 5, "pause": 3, "dash": 0.6, "rest": 0.7, "rear": 1.5, "selfgroom": 0.8}
    )
    meeting: Weights = field(  # when another is reached
        default_factory=lambda: {
            "sniff face": 3,
            "sniff body": 3,
            "sniff rump": 3,
            "attack": 1.5,
            "mount": 1,
            "chase": 1,
        }
    )
    sociable: float = 0.4  # the probability to go to another next
    pursues: float = 0.6  # to run after another that leaves
    flees: float = 0.5  # from an attack; otherwise it defends itself

    def __post_init__(self) -> None:
        together = tuple(name for name in LASTS if name not in SOLITARY)
        for name, known in (("alone", SOLITARY), ("meeting", together)):
            weights: Weights = getattr(self, name)
            if unknown := set(weights) - set(known):
                raise ValueError(f"{name}: no intention {', '.join(sorted(unknown))}; must be of {', '.join(known)}")
            if not weights or min(weights.values()) < 0 or not sum(weights.values()) > 0:
                raise ValueError(f"{name}: {dict(weights)}; weights must be 0 or more, and one above 0")
        for name in ("sociable", "pursues", "flees"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)}; must be a probability, 0 to 1")


def begin(mouse: Mouse, intention: str, other: Mouse | None, now: float, temperament: Temperament, rng: Random) -> None:
    """Want something else from now on; whom it is about may react, and want something else too."""
    least, more = LASTS[intention]
    mouse.intention, mouse.other = intention, other
    mouse.until = now + least + min(rng.expovariate(1 / more), 4 * more)
    low, high = PACES.get(intention, (0.0, 0.0))
    mouse.pace = rng.uniform(low, high)
    mouse.course, mouse.drift, mouse.side = mouse.heading, 0.0, rng.choice((-1.0, 1.0))
    if other is None or (answer := _answer(intention, other, temperament, rng)) is None:
        return
    begin(other, answer, mouse if answer in ("escape", "defend", "bear") else None, now, temperament, rng)


def _answer(intention: str, other: Mouse, temperament: Temperament, rng: Random) -> str | None:
    """What the other does about it; None: what it did anyway."""
    if intention == "attack" and other.intention != "attack":
        return "escape" if rng.random() < temperament.flees else "defend"
    if intention == "chase":
        return "escape"
    if intention == "mount":
        return "bear" if rng.random() < 0.8 else "escape"
    if intention.startswith("sniff") and other.intention in ("explore", "pause", "rear", "approach"):
        return rng.choices(("pause", "explore", None), (5, 3, 2))[0]
    return None


def decide(mouse: Mouse, crowd: Sequence[Mouse], now: float, temperament: Temperament, rng: Random) -> None:
    """Go on, or begin what follows."""
    other, what = mouse.other, mouse.intention
    following = _interrupted(mouse, other, temperament, rng) if other is not None else None
    if following is not None:
        begin(mouse, following, None if following in SOLITARY else other, now, temperament, rng)
    elif now >= mouse.until:
        others = [one for one in crowd if one is not mouse]
        if what != "approach" and rng.random() < temperament.sociable:
            nearer = [1 / (4 + mouse.far(one)) for one in others]
            begin(mouse, "approach", rng.choices(others, nearer)[0], now, temperament, rng)
        else:
            begin(mouse, _drawn(temperament.alone, rng), None, now, temperament, rng)


def _interrupted(mouse: Mouse, other: Mouse, temperament: Temperament, rng: Random) -> str | None:
    """What follows at once because of where the other is now; None: nothing."""
    what, far = mouse.intention, mouse.far(other)
    if what == "approach" and far < 8.5 and _nearest(mouse.nose, other) < 2.0:
        return _drawn(temperament.meeting, rng)
    if what.startswith("sniff") and far > 9.0 and other.speed > 4:
        if rng.random() > temperament.pursues:
            return "explore"
        return "chase" if other.speed > 16 or rng.random() < 0.35 else "follow"
    if what == "attack" and far > 11.0:
        return "chase" if rng.random() < temperament.pursues else "pause"
    if what in ("chase", "follow") and far > LOST:
        return "explore"
    if what == "chase" and far < 7.0 and other.speed < 6:
        return "attack" if rng.random() < 0.5 * temperament.meeting.get("attack", 0) else "sniff rump"
    if what == "mount" and (far > 9.0 or other.intention == "escape"):
        return "pause"
    if what == "bear" and (other.intention != "mount" or other.other is not mouse):
        return "explore"
    if what == "defend" and other.intention != "attack":
        return "pause"
    if what == "escape" and far > LOST:
        return "pause"
    return None


def wish(mouse: Mouse, crowd: Sequence[Mouse], arena: Arena, dt: float, rng: Random) -> None:
    """Set what the body tends to, from the intention and from where the others are."""
    what, other = mouse.intention, mouse.other
    mouse.drift += -mouse.drift * dt / 0.6 + rng.gauss(0.0, 2.2) * math.sqrt(dt)
    found = Wish(heading=mouse.course, head=0.25 * mouse.drift)
    if what in ("explore", "dash"):
        mouse.course += dt * mouse.drift * (0.3 if what == "dash" else 1.0)
        slowest, quickest = PACES[what]
        mouse.pace = min(max(mouse.pace + rng.gauss(0.0, 3.0) * math.sqrt(dt), slowest), quickest)
        found.heading, found.speed = mouse.course, mouse.pace
    elif what == "rest":
        found.curl, found.head = mouse.side, 0.0
    elif what == "rear":
        found.height = 1.0
    elif what == "selfgroom":
        found.groom = 1.0
    elif other is not None:
        _about(mouse, other, found)
    if mouse.speed > 12:
        _look_out(mouse, crowd, found)
    if found.speed > 3 and found.grip is None:
        found.heading = arena.along(mouse.x, mouse.y, found.heading, 2.0 + 0.12 * mouse.speed)
        if what in ("explore", "dash"):
            mouse.course = found.heading
    mouse.wish = found


def _look_out(mouse: Mouse, crowd: Sequence[Mouse], found: Wish) -> None:
    """Who runs does not run into one that it is not after: it brakes and turns to the other side."""
    ahead = mouse.at(NOSE + 0.15 * mouse.speed)
    for other in crowd:
        if other is mouse or (other is mouse.other and mouse.intention != "escape"):
            continue
        if min(_nearest(ahead, other), _nearest(mouse.nose, other)) < 2.5:
            aside = angle(mouse.towards(other.x, other.y) - mouse.heading)
            found.heading, found.speed = mouse.heading - math.copysign(1.0, aside), min(found.speed, 8.0)


def _about(mouse: Mouse, other: Mouse, found: Wish) -> None:
    """The wishes that another mouse is part of."""
    what, bearing = mouse.intention, mouse.towards(other.x, other.y)
    if what in ("approach", "attack", "defend", "chase", "follow"):
        found.heading, found.head = bearing, min(max(angle(bearing - mouse.heading), -0.7), 0.7)
    if what == "approach":
        found.speed = mouse.pace if mouse.far(other) > 10 else min(mouse.pace, 9.0)
    elif what in SNIFFS:
        _sniff(mouse, other, found)
    elif what in ("chase", "follow"):
        x, y = other.at(RUMP)
        found.heading = mouse.towards(x, y)
        gap = math.hypot(x - mouse.x, y - mouse.y) - NOSE
        most, nimble = (42.0, 14.0) if what == "chase" else (14.0, 8.0)
        found.speed, found.nimble = min(max(other.speed + 4 * (gap - 2.0), 0.0), most), nimble
    elif what == "attack":
        near = mouse.far(other) < 7.5
        found.speed, found.nimble, found.shake = (7.0, 26.0, 0.9) if near else (32.0, 16.0, 0.0)
    elif what == "defend":
        found.speed, found.nimble, found.shake, found.height = -1.0, 14.0, 0.25, 0.3
    elif what == "escape":
        found.heading, found.speed, found.nimble = bearing + math.pi, mouse.pace, 14.0
    elif what == "mount":
        _mount(mouse, other, found)
    elif what == "bear":
        found.heading, found.head = mouse.course, 0.0


def _sniff(mouse: Mouse, other: Mouse, found: Wish) -> None:
    x, y = other.at(SNIFFS[mouse.intention])
    nose_x, nose_y = mouse.nose
    found.heading = mouse.towards(x, y)
    found.head = min(max(angle(found.heading - mouse.heading), -0.8), 0.8)
    ahead = (x - nose_x) * math.cos(mouse.heading) + (y - nose_y) * math.sin(mouse.heading)
    carried = other.speed * math.cos(other.heading - mouse.heading)
    found.speed = min(max(5 * ahead + min(carried, 6.0), -6.0), 12.0)


def _mount(mouse: Mouse, other: Mouse, found: Wish) -> None:
    x, y = other.at(-2.4)
    found.heading, found.nimble = other.heading, 7.0
    if math.hypot(x - mouse.x, y - mouse.y) > 4.5 or abs(angle(other.heading - mouse.heading)) > 1.3:
        behind_x, behind_y = other.at(-6.0)
        found.heading = mouse.towards(behind_x, behind_y)
        if math.hypot(behind_x - mouse.x, behind_y - mouse.y) < 2.5:
            found.heading = other.heading
        found.speed = 9.0
        return
    found.grip, found.speed = (x, y), 0.0


def _nearest(point: tuple[float, float], other: Mouse) -> float:
    """From a point to another's straight body."""
    c, s = math.cos(other.heading), math.sin(other.heading)
    dx, dy = point[0] - other.x, point[1] - other.y
    along = min(max(dx * c + dy * s, RUMP), NOSE)
    return math.hypot(dx - along * c, dy - along * s)


def _drawn(weights: Weights, rng: Random) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]
