"""Bouts: from when to when an agent does something to a target.

Frames are counted from 0 and stops are exclusive, as in the Kaggle challenge of 2025.

Shapes: B bouts, T frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Names = NDArray[np.str_]
Frames = NDArray[np.int64]


@dataclass(frozen=True)
class Bouts:
    """A table of bouts, a column each; all columns are of length B."""

    video: Names
    agent: Names
    target: Names
    action: Names
    start: Frames
    stop: Frames

    def __post_init__(self) -> None:
        for field, kind in zip(fields(self), "UUUUii", strict=True):
            column = np.asarray(getattr(self, field.name))
            if column.ndim != 1 or len(column) != len(self.video):
                raise ValueError(f"bouts: {field.name} has shape {column.shape}; all columns must be of one length")
            object.__setattr__(self, field.name, column.astype(np.int64 if kind == "i" else np.str_))

    def __len__(self) -> int:
        return len(self.start)

    @classmethod
    def of(cls, rows: Iterable[Sequence[object]]) -> Bouts:
        """Of rows (video, agent, target, action, start, stop)."""
        listed = [tuple(row) for row in rows]
        columns = list(zip(*listed, strict=True)) if listed else [[]] * 6
        return cls(*(np.asarray(column) for column in columns))  # type: ignore[arg-type]

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Bouts:
        """Some of them."""
        return Bouts(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def rows(self) -> list[tuple[str, str, str, str, int, int]]:
        """(video, agent, target, action, start, stop) of each."""
        columns = (getattr(self, field.name).tolist() for field in fields(self))
        return list(zip(*columns, strict=True))


def joined(parts: Sequence[Bouts]) -> Bouts:
    """One table of several."""
    if not parts:
        return Bouts.of([])
    return Bouts(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Bouts)))


def runs(active_T: NDArray[np.bool_]) -> tuple[Frames, Frames]:
    """(starts, stops) of where it is True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], active_T.astype(np.int8), [0]))))
    return edges[::2].astype(np.int64), edges[1::2].astype(np.int64)
