"""What a model knows of its series, besides weights: enough to rebuild it and to read new files for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared_core.errors import UserError
from timeseries_dualmodal.series import SeriesSet


@dataclass(frozen=True)
class Description:
    """Names and times of the series that a model was made for."""

    variables: tuple[str, ...]
    classes: tuple[str, ...]
    times: NDArray[np.float64]  # (T,)
    also: tuple[str, ...] = ()  # values of the second target that training asks for
    data: str = ""  # fingerprint of the prepared set that it learned from

    @classmethod
    def of(cls, train: SeriesSet, also: str | None, data: str = "") -> Description:
        """Of training series. Raises UserError where they have no column `also`."""
        values = () if also is None else column(train, also)[0]
        return cls(train.variables, train.classes, train.times, values, data)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "variables": list(self.variables),
            "classes": list(self.classes),
            "times": [float(time) for time in self.times],
            "also": list(self.also),
            "data": self.data,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Description:
        """The inverse of `as_dict`. Raises KeyError, TypeError or ValueError for anything else."""
        names = (tuple(str(name) for name in data[key]) for key in ("variables", "classes", "also"))
        variables, classes, also = names
        times = np.array([float(time) for time in data["times"]])
        if not (variables and classes and len(times)):
            raise ValueError("variables, classes and times must not be empty")
        return cls(variables, classes, times, also, str(data["data"]))


def column(series: SeriesSet, name: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The values of a group column, and the index of each series' (N,). Raises UserError where there is none."""
    if name not in series.groups:
        known = ", ".join(series.groups) or "none"
        raise UserError(f"loss.also: {name} is no column of data.groups ({known}); add it there and prepare again")
    values, codes = np.unique(series.groups[name], return_inverse=True)
    return tuple(str(value) for value in values), codes.astype(np.int64)
