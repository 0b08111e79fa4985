"""Which series train, choose and judge, and whether one of these knows another.

Series that are exactly equal, gaps included, are never in two splits: a random split keeps them together, and a split
by group leaves the copies out that would otherwise teach or choose what another split judges.

Shapes: N series, V variables, T steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from shared_core import splits
from shared_core.errors import UserError
from shared_core.schema import did_you_mean
from timeseries_dualmodal.data_config import Split
from timeseries_dualmodal.series import SeriesSet

Rows = NDArray[np.int64]
PARTS = ("train", "val", "test")


def divide(series: SeriesSet, split: Split) -> dict[str, Rows]:
    """Rows of the splits train, val and test, each ascending; the same arguments give the same splits.

    Raises:
        UserError: a column or value of `split` is unknown, a split would be empty, or training lacks a class.
        ValueError: the series are unlabelled.
    """
    if series.y is None:
        raise ValueError("an unlabelled set cannot be divided: predict it as a whole")
    twins = copies(series.x)
    column = _column(series, split)
    everything = np.arange(len(series))
    if split.hold_out:
        chosen = _held_out(series, split.hold_out)
        rest, test = everything[~chosen], everything[chosen]
    else:
        rest, test = _two(series.y, column, twins, everything, split.test, split.seed)
    train, val = _two(series.y, column, twins, rest, split.val, split.seed)
    val = val[~np.isin(twins[val], twins[test])]
    train = train[~np.isin(twins[train], twins[np.concatenate([val, test])])]
    parts = dict(zip(PARTS, (train, val, test), strict=True))
    _check(series, parts)
    return parts


def sources(series: SeriesSet, split: Split) -> NDArray[np.str_] | None:
    """The group of each series (N,) where the split keeps groups together; they are then what intervals are over."""
    if split.kind != "grouped":
        return None
    assert split.by is not None  # the set could not have been divided
    return series.groups[split.by]


def leaks(series: SeriesSet, parts: Mapping[str, Rows]) -> list[str]:
    """Lines on what a reader of results should know of these splits.

    A group (a field, say) that occurs in two splits; copies that were left out; classes that a split does not judge.
    """
    lines = _shared(series, parts)
    left_out = len(series) - sum(len(rows) for rows in parts.values())
    if left_out:
        lines.append(f"{left_out:,} series are left out of train and val: exact copies of them are in val or test")
    twins = copies(series.x)
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        both = np.isin(twins[parts[second]], twins[parts[first]]).sum()
        if both:
            lines.append(f"{both:,} series of {second} have an exact copy in {first}")
    for name in ("val", "test"):
        present = np.unique(series.y[parts[name]]) if series.y is not None else range(len(series.classes))
        absent = [label for code, label in enumerate(series.classes) if code not in present]
        if absent:
            lines.append(f"{name} has no series of class {', '.join(absent)}, so its macro-F1 says nothing about it")
    return lines


def copies(x_NVT: NDArray[np.float32]) -> Rows:
    """A number for each series, (N,); series that are equal value for value, gaps included, share it.

    Series without any value are no copies of each other: there is nothing to know them by.
    """
    rows = np.where(np.isnan(x_NVT), np.float32(np.nan), x_NVT + np.float32(0)).reshape(len(x_NVT), -1)  # -0.0 is 0.0
    content = np.ascontiguousarray(rows, np.float32).view(np.dtype((np.void, rows.shape[1] * 4))).ravel()
    _, codes = np.unique(content, return_inverse=True)
    empty = np.isnan(rows).all(axis=1)
    return np.where(empty, codes.max(initial=0) + 1 + np.arange(len(rows)), codes)


def _column(series: SeriesSet, split: Split) -> NDArray[np.str_] | None:
    """The column that kind grouped goes by."""
    if split.kind == "random":
        return None
    if split.by is None:
        known = ", ".join(series.groups) or "none: name some with --data.groups"
        raise UserError(f"split.by: kind grouped needs the column to go by; there are {known}")
    return _group(series, split.by, "split.by")


def _group(series: SeriesSet, name: str, key: str) -> NDArray[np.str_]:
    if name not in series.groups:
        known = f"there are {', '.join(series.groups)}" if series.groups else "there are none"
        raise UserError(
            f"{key}: {name!r} is no group column of the data{did_you_mean(name, series.groups)}; {known}; "
            "add it to --data.groups and prepare again"
        )
    return series.groups[name]


def _held_out(series: SeriesSet, hold_out: tuple[str, ...]) -> NDArray[np.bool_]:
    """Which series have any of the values COLUMN=VALUE, (N,)."""
    chosen = np.zeros(len(series), bool)
    for entry in hold_out:
        name, equals, value = entry.partition("=")
        if not equals:
            raise UserError(f"split.hold_out: {entry!r} is not of the form COLUMN=VALUE; write region=north, say")
        values = _group(series, name, "split.hold_out")
        if value not in values:
            known = sorted({str(one) for one in values})
            shown = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
            raise UserError(f"split.hold_out: no {name} is {value!r}{did_you_mean(value, known)}; there are {shown}")
        chosen |= values == value
    if chosen.all():
        raise UserError(f"split.hold_out: {', '.join(hold_out)} is every series, which leaves none to train on")
    return chosen


def _two(
    y: Rows, column: NDArray[np.str_] | None, twins: Rows, rows: Rows, share: float, seed: int
) -> tuple[Rows, Rows]:
    """`rows` in two, the second with `share` of them: by group, or stratified by class with copies kept together."""
    shares = {"first": 1 - share, "second": share}
    if column is not None:
        parts = splits.grouped(column[rows], shares, seed, y[rows])
        return rows[parts["first"]], rows[parts["second"]]
    _, first, twin = np.unique(twins[rows], return_index=True, return_inverse=True)
    parts = splits.stratified(y[rows[first]], shares, seed)
    second = np.isin(twin, parts["second"])
    return rows[~second], rows[second]


def _check(series: SeriesSet, parts: Mapping[str, Rows]) -> None:
    """Refuse splits that nothing can be learnt from, chosen by or judged by."""
    assert series.y is not None
    for name, rows in parts.items():
        if len(rows) == 0:
            raise UserError(
                f"split: {name} would have none of the {len(series):,} series; change --split.test, --split.val or "
                "--split.hold_out, or give more data"
            )
    present = np.unique(series.y[parts["train"]])
    absent = [label for code, label in enumerate(series.classes) if code not in present]
    if absent:
        raise UserError(
            f"split: training has no series of class {', '.join(absent)}; leave it out (--data.drop_classes "
            f"{','.join(absent)}) or divide otherwise (--split.seed, --split.hold_out)"
        )


def _shared(series: SeriesSet, parts: Mapping[str, Rows]) -> list[str]:
    """Lines on the values of group columns that are in training and in another split."""
    lines, nothing_new = [], []
    for name, values in series.groups.items():
        found = {part: set(values[rows].tolist()) for part, rows in parts.items()}
        if found["test"] <= found["train"]:
            nothing_new.append(name)
            continue
        both = {part: len(found["train"] & found[part]) for part in ("val", "test")}
        if both["test"]:
            lines.append(
                f"{both['test']:,} values of {name} are in train and test ({both['val']:,} in train and val): where "
                f"each is a place, a model may know it again; then use --split.kind grouped --split.by {name}"
            )
    if nothing_new:
        lines.append(
            f"every {' and '.join(nothing_new)} of the test split is in train too, so results say nothing about new "
            "ones; see --split.hold_out and --split.kind grouped"
        )
    return lines
