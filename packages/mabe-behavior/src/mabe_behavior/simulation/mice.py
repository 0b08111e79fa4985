"""A mouse's body as a moving thing: it turns and speeds up with inertia, is stopped by walls and by other mice.

Lengths in cm, angles in radians: 0 to the right, growing clockwise as seen, since y points downwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from mabe_behavior.simulation.arenas import Arena

NOSE, NECK, RUMP = 4.6, 2.2, -3.6  # places of nose, neck and tail base along the body, from its centre
DISCS = (-2.4, 0.0, 2.4)  # the body is as hard as three discs, at these places along it,
RADIUS = 1.3  # of this radius
GIVES = 0.4  # cm that a mouse is pushed aside in a step: who overlaps parts soon, not at once
QUICKEST, HARDEST = 150.0, 300.0  # cm/s^2: of speeding up, of braking
SLACK = 0.06  # seconds until a wanted speed is nearly reached
SHAKES = 4.0  # times a second, about, that a fighting mouse throws itself to and fro
TURN = 1.2  # radians: a larger turn is not begun faster


@dataclass(slots=True)
class Wish:
    """Where to a mouse tends at present."""

    speed: float = 0.0  # cm/s, negative: backwards
    heading: float = 0.0
    head: float = 0.0  # angle of the head to the body
    height: float = 0.0  # 0 on all fours, 1 upright
    groom: float = 0.0  # 0 not, 1 with the paws at the face
    curl: float = 0.0  # 0 straight, 1 curled up
    nimble: float = 8.0  # rad/s: how fast it can follow a turn
    shake: float = 0.0  # radians by which the whole body is thrown to and fro
    grip: tuple[float, float] | None = None  # where its centre is drawn to, when it holds another


@dataclass(slots=True)
class Mouse:
    """One mouse: its body, its intention and whom that is about."""

    x: float
    y: float
    heading: float
    speed: float = 0.0
    turning: float = 0.0  # rad/s
    head: float = 0.0
    height: float = 0.0
    groom: float = 0.0
    curl: float = 0.0
    course: float = 0.0  # where it walks to when it wanders,
    drift: float = 0.0  # and how that changes, rad/s
    pace: float = 0.0  # cm/s of the present bout
    side: float = 1.0  # to which it curls up: -1 or 1
    phase: float = 0.0  # of shaking
    intention: str = "pause"
    other: Mouse | None = None
    until: float = 0.0  # seconds: when it tires of it at the latest
    wish: Wish = field(default_factory=Wish)

    def at(self, along: float) -> tuple[float, float]:
        """A place along its straight body."""
        return self.x + along * math.cos(self.heading), self.y + along * math.sin(self.heading)

    @property
    def nose(self) -> tuple[float, float]:
        x, y = self.at(NECK)
        looks = self.heading + self.head
        return x + (NOSE - NECK) * math.cos(looks), y + (NOSE - NECK) * math.sin(looks)

    def far(self, other: Mouse) -> float:
        """Between their centres."""
        return math.hypot(other.x - self.x, other.y - self.y)

    def towards(self, x: float, y: float) -> float:
        return math.atan2(y - self.y, x - self.x)

    def move(self, dt: float) -> None:
        """A step of second-order motion: towards the wish, as fast as a mouse can."""
        wish = self.wish
        self.phase += 2 * math.pi * (SHAKES + 0.4 * self.drift) * dt
        # critically damped, by an implicit step: w' = nimble^2 * error - 2 nimble w
        error = angle(wish.heading + wish.shake * math.sin(self.phase) - self.heading)
        pull = wish.nimble**2 * min(max(error, -TURN), TURN)
        self.turning = (self.turning + dt * pull) / (1 + 2 * dt * wish.nimble)
        self.heading += dt * self.turning
        # who has to turn far walks slowly
        speed = wish.speed * max(0.15, math.cos(min(abs(error), 1.4))) if not wish.shake else wish.speed
        change = (speed - self.speed) / SLACK
        self.speed += dt * min(max(change, -HARDEST), QUICKEST)
        self.x += dt * self.speed * math.cos(self.heading)
        self.y += dt * self.speed * math.sin(self.heading)
        if wish.grip is not None:
            dx, dy = wish.grip[0] - self.x, wish.grip[1] - self.y
            share = min(6 * dt, 12 * dt / max(math.hypot(dx, dy), 1e-9))
            self.x, self.y = self.x + share * dx, self.y + share * dy
        self.head += dt * 9 * (wish.head - self.head)
        self.height += dt * 6 * (wish.height - self.height)
        self.groom += dt * 6 * (wish.groom - self.groom)
        self.curl += dt * 2 * (wish.curl - self.curl)

    def stay_inside(self, arena: Arena) -> None:
        for along, margin in ((RUMP, 0.5), (0.0, 2.0), (NOSE, 0.3)):
            dx, dy = arena.outside(*self.at(along), margin)
            self.x, self.y = self.x + dx, self.y + dy


def part(one: Mouse, two: Mouse) -> None:
    """Push two mice apart where their discs overlap; a mouse that holds another lies on it."""
    if one.wish.grip is not None or two.wish.grip is not None or one.far(two) > 2 * (RADIUS + DISCS[-1]):
        return
    for a in DISCS:
        for b in DISCS:
            (ax, ay), (bx, by) = one.at(a), two.at(b)
            dx, dy = bx - ax, by - ay
            r = math.hypot(dx, dy) or 1e-6
            if (deep := 2 * RADIUS - r) > 0:
                push = min(deep / 2, GIVES) / r
                one.x, one.y = one.x - push * dx, one.y - push * dy
                two.x, two.y = two.x + push * dx, two.y + push * dy


def angle(radians: float) -> float:
    """The same angle in -pi..pi."""
    return (radians + math.pi) % (2 * math.pi) - math.pi
