"""What a source of series holds, before it is checked.

Shapes: N series, V variables, T steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shared_core.errors import UserError
from shared_core.schema import did_you_mean
from timeseries_dualmodal.data_config import Data
from timeseries_dualmodal.series import Known


@dataclass(frozen=True)
class Raw:
    """N series as a source has them."""

    where: str  # the source, for messages
    x: NDArray[np.float32]  # (N, V, T)
    variables: tuple[str, ...]
    times: NDArray[np.float64] | None  # (T,); None: the source has none
    ids: NDArray[np.str_] | None
    labels: NDArray[np.str_] | None
    place: Callable[[int], str]  # of a series, for messages
    groups: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    whole_labels: bool = False  # whether only whole numbers can be labels


def pick(known: tuple[str, ...], data: Data, like: Known | None, where: str) -> tuple[str, ...]:
    """Names of the variables to keep, out of `known`. Raises UserError for one that is not there, or twice."""
    wanted, reason = (data.variables, "--data.variables") if like is None else (like.variables, "the model")
    refuse_double(wanted, reason)
    for name in wanted:
        if name not in known:
            raise UserError(
                f"{where}: has no variable {name!r}{did_you_mean(name, known)}, which {reason} asks for; it has "
                f"{brief(known)}"
            )
    return tuple(wanted) or known


def refuse_double(names: tuple[str, ...], where: str) -> None:
    """Raise UserError for a name that comes twice."""
    double = [name for name, count in Counter(names).items() if count > 1]
    if double:
        raise UserError(f"{where}: {double[0]!r} is named {names.count(double[0])} times; name each once")


def even_times(steps: int, data: Data, first: float = 0.0, between: float = 1.0) -> NDArray[np.float64]:
    """Times of a source that has none, (T,): as `data` says, else from `first` on."""
    start = first if data.first_time is None else data.first_time
    return start + (between if data.step_time is None else data.step_time) * np.arange(steps, dtype=np.float64)


def brief(names: tuple[str, ...], most: int = 8) -> str:
    """The names, or the first few of them and how many there are."""
    if len(names) <= most:
        return ", ".join(names) or "none"
    return f"{', '.join(names[: most - 1])}, ... ({len(names):,} in all)"
