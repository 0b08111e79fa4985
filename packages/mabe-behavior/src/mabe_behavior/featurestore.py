"""Features of every relation of every recording, computed once and kept beside the prepared set.

A file for each, ``features/KEY/NNNNN.AGENT.TARGET.npy``, (T, F) in half precision, opened as memory that the system
reads when it is looked at. KEY is a hash of everything that they depend on: the set, the settings, the version of their
code, and what was fitted for them.

Shapes: T frames at the common rate, F columns.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.data_config import Features
from mabe_behavior.features import sets
from mabe_behavior.features.pca import PCA
from mabe_behavior.tracks import Tracks
from mabe_behavior.vocabulary import ALONE, PAIR, Relation
from shared_core import files

VERSION = 1  # raise it when the same tracks give other features
MOST = 60_000.0  # what half precision holds
FOLDER = "features"
Halves = NDArray[np.float16]


def seen(tracks: Tracks, wanted: Features) -> Tracks:
    """The tracks as features are computed of: without unsure points, short gaps filled, at the common rate."""
    return tracks.where_sure(wanted.sure).filled(wanted.fill).resampled(wanted.fps)


def compute(tracks: Tracks, relation: Relation, wanted: Features, pca: PCA | None = None) -> Halves:
    """(T, F) of tracks that `seen` made."""
    x_TF = sets.features(tracks, *relation, name_of(relation.kind, wanted), pca).x_TF
    return np.clip(x_TF, -MOST, MOST).astype(np.float16)


def name_of(kind: str, wanted: Features) -> str:
    """Name of the set of features."""
    return wanted.pair if kind == PAIR else ALONE


@dataclass(frozen=True)
class FeatureStore:
    """The folder of one KEY."""

    folder: Path
    wanted: Features
    pca: PCA | None

    @classmethod
    def of(cls, prepared_set: Path, fingerprint: str, wanted: Features, pca: PCA | None = None) -> FeatureStore:
        """For a prepared set of this fingerprint."""
        about = {"version": VERSION, "set": fingerprint, **wanted.model_dump(mode="json", exclude={"workers", "alone"})}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for name, array in sorted(pca.state().items()) if pca is not None else ():
            digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
        return cls(prepared_set / FOLDER / digest.hexdigest()[:16], wanted, pca)

    def path(self, number: int, relation: Relation) -> Path:
        return self.folder / f"{number:05d}.{relation.agent}.{relation.target}.npy"

    def open(self, number: int, relation: Relation, frames: int) -> Halves | None:
        """(T, F), read when looked at; None where it is not there, or damaged."""
        try:
            found = np.load(self.path(number, relation), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return (
            found if found.shape == (frames, width(relation.kind, self.wanted)) and found.dtype == np.float16 else None
        )

    def write(self, number: int, tracks: Tracks, relations: Sequence[Relation]) -> None:
        """Compute and write those of a recording; its tracks as they were prepared."""
        found = seen(tracks, self.wanted)
        for relation in relations:
            with files.atomic_path(self.path(number, relation)) as beside, beside.open("wb") as stream:
                np.save(stream, compute(found, relation, self.wanted, self.pca), allow_pickle=False)

    def fill(self, numbers: Sequence[int], of: Callable[[int], tuple[Tracks, Sequence[Relation]]]) -> Iterator[int]:
        """Write those of several recordings, on all cores; yields how many are done.

        `of`: the tracks and the relations of a recording, asked for when its turn comes: all at once fill a memory.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(self.wanted.workers or os.cpu_count()) as pool:
            for done, _ in enumerate(pool.map(lambda number: self.write(number, *of(number)), numbers), 1):
                yield done


def width(kind: str, wanted: Features) -> int:
    """Columns of the features of a kind."""
    return sets.WIDTHS[name_of(kind, wanted)]


def now(kind: str, wanted: Features) -> int:
    """How many of them, the first ones, are of a frame and not of a window of time."""
    return len(sets.columns(name_of(kind, wanted)).now)
