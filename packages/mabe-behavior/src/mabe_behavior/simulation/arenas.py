"""The floor that mice walk on, in cm, with its middle at (0, 0)."""

from __future__ import annotations

import math
from dataclasses import dataclass

NEAR = 4.0  # cm from a wall, where a mouse stops to walk towards it
SHAPES = ("rectangular", "circular")


@dataclass(frozen=True)
class Arena:
    """A box, or a tub as wide as it is high."""

    width: float
    height: float
    shape: str = "rectangular"

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"shape {self.shape!r}; must be one of {', '.join(SHAPES)}")
        if min(self.width, self.height) < 20:
            raise ValueError(f"width {self.width}, height {self.height}; must be 20 cm or more, for two mice")
        if self.shape == "circular" and self.width != self.height:
            raise ValueError(f"width {self.width}, height {self.height}; a circular arena's must be equal")

    def outside(self, x: float, y: float, margin: float) -> tuple[float, float]:
        """How far (cm, to the right and down) a point must be moved to lie at least `margin` from the walls."""
        if self.shape == "circular":
            r = math.hypot(x, y)
            most = self.width / 2 - margin
            return (0.0, 0.0) if r <= most else (x * (most / r - 1), y * (most / r - 1))
        right, down = self.width / 2 - margin, self.height / 2 - margin
        return min(max(x, -right), right) - x, min(max(y, -down), down) - y

    def along(self, x: float, y: float, heading: float, ahead: float) -> float:
        """The heading (radians) nearest to the wanted one that does not meet a wall within so many cm."""
        dx, dy = math.cos(heading), math.sin(heading)
        back_x, back_y = self.outside(x + ahead * dx, y + ahead * dy, NEAR)
        if back_x == 0 and back_y == 0:
            return heading
        if self.shape == "circular":
            r = math.hypot(back_x, back_y)
            nx, ny = back_x / r, back_y / r
            inwards = dx * nx + dy * ny
            if inwards >= 0:
                return heading
            dx, dy = dx + (0.1 - inwards) * nx, dy + (0.1 - inwards) * ny
        else:
            across, down = back_x * dx < 0, back_y * dy < 0
            if across and down:  # a corner: on along the wall that is met
                steep = abs(dy) > abs(dx)
                dx, dy = (math.copysign(1.0 if steep else 0.1, back_x), math.copysign(0.1 if steep else 1.0, back_y))
            elif across:
                dx = math.copysign(0.1, back_x)
            elif down:
                dy = math.copysign(0.1, back_y)
        return math.atan2(dy, dx)
