"""What is odd about a set of series: lines for the log and for `dataset.json`.

Nothing here is an error, because some data are like that; but each of these has spoilt a result before.

Shapes: N series, V variables, T steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from timeseries_dualmodal.division import copies
from timeseries_dualmodal.series import SeriesSet

FEW_VALUES = 50  # distinct ones: measurements have more, unless they were rounded
ENOUGH = 1_000  # values of a variable, before their variety says anything
MOSTLY = 0.5  # of the series lack a value at a step
LEADING = (3, 6, 9, 12)  # steps whose emptiness is told
WORTH_TELLING = 0.01  # share of the series
UNLIKE = 0.2  # difference of the missing shares of two groups
LARGE_GROUP = 30  # series


def warnings(series: SeriesSet) -> list[str]:
    """A line for everything that a reader of results should know of the data."""
    return [line for check in _CHECKS for line in check(series)]


def _rounded(series: SeriesSet) -> Iterator[str]:
    whole, few = [], []
    for variable, name in enumerate(series.variables):
        values = _present(series.x[:, variable])
        distinct = len(np.unique(values))
        if len(values) and distinct > 2 and (values == np.round(values)).all():
            whole.append(name)
        elif len(values) >= ENOUGH and 1 < distinct < FEW_VALUES:
            few.append(f"{name} ({distinct})")
    if whole:
        yield (
            f"{_names(whole)} hold whole numbers only: if they are reflectances or indices, they were rounded away; "
            "export them again with decimals"
        )
    if few:
        yield f"{_names(few)} have very few distinct values, as after rounding; check how they were exported"


def _constant(series: SeriesSet) -> Iterator[str]:
    if len(series) < 2:
        return
    low, high = np.fmin.reduce(series.x, axis=0), np.fmax.reduce(series.x, axis=0)  # (V, T), NaN where all are missing
    same = low == high
    variables = [name for name, steps in zip(series.variables, same | np.isnan(low), strict=True) if steps.all()]
    if variables:
        yield f"{_names(variables)} do not differ between series at any step, so they say nothing"
    columns = [
        f"{series.variables[variable]} at time {series.times[step]:g}"
        for variable, step in np.argwhere(same)
        if series.variables[variable] not in variables
    ]
    if columns:
        yield f"{len(columns):,} columns are constant: {_names(columns)}"


def _missing_steps(series: SeriesSet) -> Iterator[str]:
    share_T = np.isnan(series.x).mean(axis=(0, 1))
    steps = [f"{time:g} ({share:.0%})" for time, share in zip(series.times, share_T, strict=True) if share > MOSTLY]
    if steps:
        yield f"{len(steps)} of {series.steps} steps are mostly missing, at time {_names(steps)}"


def _without_values(series: SeriesSet) -> Iterator[str]:
    seen_NT = np.logical_or.accumulate(~np.isnan(series.x).all(axis=1), axis=1)
    empty = (~seen_NT[:, -1]).sum()
    if empty:
        yield f"{empty:,} series have no value at all"
    shares = {steps: float((~seen_NT[:, steps - 1]).mean()) for steps in LEADING if steps < series.steps}
    told = [f"{share:.1%} in the first {steps}" for steps, share in shares.items() if share >= WORTH_TELLING]
    if told:
        yield f"series without any value: {', '.join(told)} steps; scores at these lengths are partly guesses"


def _copies(series: SeriesSet) -> Iterator[str]:
    codes = copies(series.x)
    pairs = _pairs(codes)
    if not pairs:
        return
    line = f"{pairs:,} pairs of series are exactly equal"
    if series.y is not None:
        differ = pairs - _pairs(codes * (len(series.classes) + 1) + series.y)
        line += f", {differ:,} of them with different classes" if differ else ""
    yield f"{line}; no two equal ones go to different splits"


def _undated(series: SeriesSet) -> Iterator[str]:
    for first in (0, 1):
        if series.steps > 1 and np.array_equal(series.times, first + np.arange(series.steps)):
            yield (
                f"the data name no dates: times are the step numbers {first} to {series.times[-1]:g}; say when "
                "the steps are with --data.first_time and --data.step_time (days), or in the columns' names"
            )


def _gaps_by_group(series: SeriesSet) -> Iterator[str]:
    missing_N = np.isnan(series.x).mean(axis=(1, 2))
    for name, values in series.groups.items():
        known, which, counts = np.unique(values, return_inverse=True, return_counts=True)
        share = np.bincount(which, missing_N) / counts
        large = np.flatnonzero(counts >= LARGE_GROUP)
        if len(large) < 2 or np.ptp(share[large]) < UNLIKE:
            continue
        most, least = large[np.argmax(share[large])], large[np.argmin(share[large])]
        yield (
            f"missing values depend on {name}: {known[most]} lacks {share[most]:.0%}, {known[least]} "
            f"{share[least]:.0%}; a model can tell {name} by its gaps"
        )


_CHECKS = (_rounded, _constant, _missing_steps, _without_values, _copies, _gaps_by_group, _undated)


def _present(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values[~np.isnan(values)]


def _pairs(codes: NDArray[np.int64]) -> int:
    """Pairs of rows with the same code."""
    _, counts = np.unique(codes, return_counts=True)
    return int((counts * (counts - 1) // 2).sum())


def _names(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
