"""What can be seen of each half: the degrader may hide a digit under its boxes, and nobody reads an empty half.

Shapes: N pairs, 28x28 pixels per half. Ink is counted in pixels brighter than `BRIGHT`, which noise hardly reaches.
"""

from __future__ import annotations

import numpy as np

from pair_compare_stacking.generator import SIDE

BRIGHT = 60  # of 255
NOTHING, LITTLE = 8, 20  # fewer bright pixels than this: nothing to read, a fragment to guess from
THIN = (NOTHING, LITTLE, 40)  # what pairs with fewer cost is worked out
EDGES = (*THIN, 60, 80)  # of the bins, fixed before any model was looked at


def visible(x: np.ndarray) -> np.ndarray:
    """Bright pixels of the left and the right half: uint8 (N, 28, 56) -> int64 (N, 2)."""
    return (x.reshape(len(x), SIDE, 2, SIDE) > BRIGHT).sum(axis=(1, 3))


def bins(ink: np.ndarray) -> dict[str, np.ndarray]:
    """Which pairs (N,) bool have an emptier half with so much ink; bins without pairs are left out.

    `ink` is what `visible` returns. The emptier half decides, since a comparison needs both.
    """
    least = ink.min(axis=1)
    names = [f"{low} to {high - 1}" for low, high in zip((0, *EDGES), EDGES, strict=False)] + [f"{EDGES[-1]} or more"]
    index = np.searchsorted(EDGES, least, side="right")
    return {name: index == k for k, name in enumerate(names) if (index == k).any()}


def fewer(ink: np.ndarray) -> dict[int, np.ndarray]:
    """Which pairs (N,) bool have an emptier half with fewer bright pixels than each of `THIN`, where there are any."""
    least = ink.min(axis=1)
    return {threshold: least < threshold for threshold in THIN if (least < threshold).any()}


def summary(ink: np.ndarray) -> str:
    """How much of a set cannot be read, in words."""
    return (
        f"{(ink < NOTHING).mean():.1%} of the halves have fewer than {NOTHING} pixels brighter than {BRIGHT}, and "
        f"{(ink.min(axis=1) < LITTLE).mean():.1%} of the pairs contain a half with fewer than {LITTLE}"
    )
