"""Tables made a few thousand frames at a time, as much as the processor's cache holds, by one thread or several.

What a column says of a frame may depend on the frames around it: a chunk is made with a margin on either side, and only
what lies between is kept, so that a table does not depend on where it was cut.

Shapes: T frames of the recording, F columns of the table, C of them made frame by frame, N frames of a chunk with its
margins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.features import windows
from mabe_behavior.features.columns import Floats
from mabe_behavior.features.rolling import Rolling

CHUNK = 8192  # frames
Rows = Callable[[slice], Sequence[NDArray]]


@dataclass(frozen=True)
class Plan:
    """What a table is made of, from left to right."""

    columns: int  # made frame by frame
    room: int = 0  # left for the caller to fill
    statistics: Sequence[Rolling] = ()  # of the columns made frame by frame
    reach: int = 0  # how many frames before and after its own a column made frame by frame looks at

    @property
    def width(self) -> int:
        return self.columns + self.room + sum(one.width for one in self.statistics)

    @property
    def margin(self) -> int:
        return 2 * self.reach + 1 + max((one.margin for one in self.statistics), default=0)


def made(plan: Plan, made_of: Rows, frames: int, threads: int = 1) -> Floats:
    """(T, F).

    Args:
        plan: the columns.
        made_of: gives the columns of some frames, each (N,); what it says of the first and last `reach` of them is
            only looked at where the recording begins and ends.
        frames: of the recording.
        threads: among which chunks are shared. Much of the work lets other threads run, but not all of it.

    Raises ValueError for fewer threads than one.
    """
    if threads < 1:
        raise ValueError(f"threads: {threads}; must be at least 1")
    table_TF = np.empty((frames, plan.width), np.float32)
    starts = range(0, frames, CHUNK)
    if threads == 1 or len(starts) < 2:
        _fill(plan, made_of, table_TF, starts)
    else:
        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(_fill, plan, made_of, table_TF, starts[k::threads]) for k in range(threads)]:
                done.result()
    return table_TF


def _fill(plan: Plan, made_of: Rows, table_TF: Floats, starts: range) -> None:
    """The chunks that begin at these frames."""
    frames = len(table_TF)
    x_CN = np.empty((plan.columns, min(CHUNK, frames) + 2 * plan.margin), np.float32)
    for start in starts:
        stop = min(start + CHUNK, frames)
        _put(made_of, start - plan.margin, stop + plan.margin, frames, x_CN)
        windows.write(x_CN, plan.margin, table_TF, start, stop, 0)
        place = plan.columns + plan.room
        for one in plan.statistics:
            one.write(x_CN, plan.margin, table_TF, slice(start, stop), place)
            place += one.width


def _put(made_of: Rows, start: int, stop: int, frames: int, x_CN: Floats) -> None:
    """Columns from `start` to `stop`; what lies outside the recording is missing."""
    rows = slice(max(start, 0), min(stop, frames))
    for column, x_N in zip(made_of(rows), x_CN, strict=True):
        x_N[rows.start - start : rows.stop - start] = column
    x_CN[:, : rows.start - start] = np.nan
    x_CN[:, rows.stop - start :] = np.nan
