"""Named columns of numbers, a row a frame.

Shapes: T frames, F columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Reals = NDArray[np.floating[Any]]  # of single or double precision


def reals(x: ArrayLike) -> Reals:
    """As it is, if of single or double precision; in double precision, if not."""
    array = np.asarray(x)
    return array if array.dtype.char in "fd" else array.astype(np.float64)


@dataclass(frozen=True)
class Table:
    """Columns with names that differ; what is not known is NaN."""

    names: tuple[str, ...]
    x_TF: Floats

    def __post_init__(self) -> None:
        x = np.asarray(self.x_TF, np.float32)
        if x.ndim != 2 or x.shape[1] != len(self.names):
            raise ValueError(f"columns: shape {x.shape} for {len(self.names)} names; must be (T, {len(self.names)})")
        if len(set(self.names)) != len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise ValueError(f"columns: names must differ; {', '.join(twice[:5])} occur more than once")
        object.__setattr__(self, "x_TF", x)

    def __len__(self) -> int:
        return len(self.x_TF)

    def column(self, name: str) -> Floats:
        """(T,). Raises ValueError for a name that is not there."""
        return self.take([name]).x_TF[:, 0]

    def take(self, names: Sequence[str]) -> Table:
        """Some columns, in this order. Raises ValueError for a name that is not there."""
        place = {name: f for f, name in enumerate(self.names)}
        if missing := [name for name in names if name not in place]:
            raise ValueError(f"columns: no {', '.join(missing)}; there are {', '.join(self.names[:20])} ...")
        return Table(tuple(names), self.x_TF[:, [place[name] for name in names]])
