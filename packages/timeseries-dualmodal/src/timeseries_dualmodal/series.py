"""A set of multivariate time series, in memory.

Shapes: N series, V variables, T steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Known(Protocol):
    """What a trained model knows of its data: a `SeriesSet`, or whatever else describes one."""

    @property
    def variables(self) -> tuple[str, ...]: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def times(self) -> NDArray[np.float64]: ...


def forward_filled(x_NVT: NDArray[np.float32]) -> NDArray[np.float64]:
    """Gaps take the last value before them; leading ones stay."""
    step_NVT = np.where(np.isnan(x_NVT), 0, np.arange(x_NVT.shape[2]))
    last_NVT = np.maximum.accumulate(step_NVT, axis=2)  # the newest step with a value; 0 where there is none yet
    return np.take_along_axis(x_NVT, last_NVT, axis=2).astype(np.float64)


@dataclass(frozen=True)
class SeriesSet:
    """N series of the same V variables at the same T times; a shorter series ends in missing values."""

    x: NDArray[np.float32]  # (N, V, T), NaN where a value is missing; no other value is not finite
    y: NDArray[np.int64] | None  # (N,) index into `classes`; None: unlabelled
    ids: NDArray[np.str_]  # (N,) unique
    variables: tuple[str, ...]  # V names
    classes: tuple[str, ...]  # K names; () of an unlabelled set
    times: NDArray[np.float64]  # (T,) ascending: days (of the year, or since the first step), or step numbers
    groups: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)  # column (region, year) -> (N,)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def steps(self) -> int:
        """T."""
        return self.x.shape[2]

    def take(self, rows: NDArray[np.int64]) -> SeriesSet:
        """The series of some rows, in their order."""
        return replace(
            self,
            x=self.x[rows],
            y=None if self.y is None else self.y[rows],
            ids=self.ids[rows],
            groups={name: values[rows] for name, values in self.groups.items()},
        )
