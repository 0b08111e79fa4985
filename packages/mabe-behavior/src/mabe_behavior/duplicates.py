"""Recordings that are the same video, found by their content, whatever they are called.

CalMS21's videos occur several times in the Kaggle challenge, annotated by other people; some are cut differently. So
frames are compared, not files: of every recording the frames are hashed, and a sixteenth of the hashes, the same in
every recording, is kept. Recordings that have more than a few of these in common show the same mice.

Shapes: T frames.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.tracks import Tracks
from shared_core import splits

KEPT = 16  # one of so many frames
PRECISION = 8  # of a pixel: what a change of file format does to a number
SHARE = 0.1  # of the smaller one's kept frames that two recordings of the same video have in common, at least
_ODD = np.uint64(0x9E3779B97F4A7C15)


def marks(tracks: Tracks) -> NDArray[np.uint64]:
    """Hashes of some frames, those of which the hash ends in zeros; frames without any point have none.

    Animals and parts count in the order of their names, so that another order is the same content.
    """
    animals = sorted(range(len(tracks.animals)), key=lambda place: tracks.animals[place])
    parts = sorted(range(len(tracks.parts)), key=lambda place: tracks.parts[place])
    xy = tracks.xy_TAPX[:, animals][:, :, parts]
    whole = np.where(np.isfinite(xy), np.rint(xy * PRECISION), -1e6).astype(np.int64).reshape(len(xy), -1)
    found = np.zeros(len(whole), np.uint64)
    for column in whole.T:  # Fibonacci hashing, a coordinate at a time; it wraps around on purpose
        found = (found ^ column.view(np.uint64)) * _ODD
        found ^= found >> np.uint64(29)
    kept = (found % np.uint64(KEPT) == 0) & tracks.seen_TAP.any(axis=(1, 2))
    return np.unique(found[kept])


def groups(marked: Sequence[NDArray[np.uint64]]) -> NDArray[np.int64]:
    """(N,) a number for each recording, the same for those of one video: that of the first of them."""
    holders: dict[int, list[int]] = defaultdict(list)
    for number, hashes in enumerate(marked):
        for one in hashes.tolist():
            holders[one].append(number)
    common: dict[tuple[int, int], int] = defaultdict(int)
    for numbers in holders.values():
        for pair in itertools.pairwise(numbers):  # neighbours suffice, since groups are joined
            common[pair] += 1
    found = (pair for pair, n in common.items() if n >= SHARE * min(len(marked[pair[0]]), len(marked[pair[1]])))
    return splits.connected(len(marked), found)
