"""Coordinates in an animal's own frame: how far ahead of it, and how far to its side.

The origin is the animal's centre, and ahead is where its body points, from the base of its tail to its neck. To the
side is positive on its right as seen from above (y points downwards), so a reflection of the picture turns that sign
and nothing else.

Shapes: T frames, N points, X is x and y in the picture, E is ahead and to the right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mabe_behavior.features import plane
from mabe_behavior.features.columns import Reals, reals
from mabe_behavior.features.kinematics import coordinates, unit
from mabe_behavior.features.landmarks import Body


@dataclass(frozen=True)
class Frame:
    """Where an animal is and where it points; or with one axis more, after the first, several animals."""

    origin_TX: Reals
    ahead_TX: Reals  # of length 1

    def places(self, xy_TNX: ArrayLike) -> Reals:
        """(T, N, E) of points in the picture."""
        return self.vectors(reals(xy_TNX) - self.origin_TX[..., None, :])

    def vectors(self, vector_TNX: ArrayLike) -> Reals:
        """(T, N, E) of what has no place, such as a velocity."""
        (ahead_x, ahead_y), (x, y) = coordinates(self.ahead_TX[..., None, :]), coordinates(vector_TNX)
        found_TNE = np.empty((2, *x.shape[::-1]), np.result_type(x, ahead_x)).T
        plane.dot(ahead_x, ahead_y, x, y, out=found_TNE[..., 0])
        plane.cross(ahead_x, ahead_y, x, y, out=found_TNE[..., 1])
        return found_TNE


def frame(body: Body) -> Frame:
    """An animal's own frame."""
    return Frame(body.at("center"), unit(body.axis_TX))
