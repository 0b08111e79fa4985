"""Photographs that are in a data set more than once, under other names: a split between them would leak.

Shapes: N photographs; S x S thumbnails of their luminance.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared_core import splits

ALIKE = 0.999  # correlation of thumbnails; in IDRiD the next best pair has 0.995
AT_ONCE = 2_048


class Pair(NamedTuple):
    """Two rows that show the same."""

    first: int
    second: int
    correlation: float


def pairs(thumbnail_NSS: NDArray[np.uint8], alike: float = ALIKE) -> list[Pair]:
    """All pairs whose thumbnails correlate at least so much. Thumbnails without any contrast are like no other."""
    x = thumbnail_NSS.reshape(len(thumbnail_NSS), -1).astype(np.float32)
    x -= x.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    x /= np.where(norm > 0, norm, np.inf)
    found = []
    for start in range(0, len(x), AT_ONCE):
        close = x[start : start + AT_ONCE] @ x[start:].T
        for row, column in zip(*np.nonzero(close >= alike), strict=True):
            if column > row:
                found.append(Pair(int(start + row), int(start + column), float(close[row, column])))
    return found


def groups(count: int, found: list[Pair]) -> NDArray[np.int64]:
    """(N,) the same number for all rows that pairs connect."""
    return splits.connected(count, ((pair.first, pair.second) for pair in found))
