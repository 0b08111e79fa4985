"""Sources of series: CSV, Parquet, `.npz`, the Hub, and the generated sample, as one checked `SeriesSet`.

Shapes: N series, V variables, T steps.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shared_core.errors import UserError
from timeseries_dualmodal import layouts, npzfile, phenology
from timeseries_dualmodal.classes import encode
from timeseries_dualmodal.data_config import Data
from timeseries_dualmodal.raw import Raw, brief, even_times, pick
from timeseries_dualmodal.series import Known, SeriesSet

if TYPE_CHECKING:
    from timeseries_dualmodal.table import Table

FORMS = "a .csv, .parquet or .npz file, hub:OWNER/NAME, or sample"
SUFFIXES = (".csv", ".tsv", ".parquet", ".npz")


def read(data: Data, *, labelled: bool = True, like: Known | None = None) -> SeriesSet:
    """The series that `data` describes.

    Args:
        labelled: False reads files without labels, and ignores those that are there.
        like: what a trained model knows. Its variables are looked for, and its classes and times taken over; series
            may have fewer steps than it knows, but no other ones.

    Raises:
        UserError: the source is missing or damaged, does not fit its layout or the model, or holds what cannot be
            learnt from: one line that says what is wrong, where, and what to do.
    """
    raw = _raw(data, labelled, like)
    if raw.x.size == 0:
        raise UserError(f"{raw.where}: has no rows; give a file with series in it")
    if like is None:
        x_NVT, times = raw.x, even_times(raw.x.shape[2], data) if raw.times is None else raw.times
    else:
        x_NVT, times = _on_the_axis(raw, like)
    _check_finite(raw, x_NVT, times)
    series = SeriesSet(x_NVT, None, _ids(raw), raw.variables, (), times, raw.groups)
    if labelled:
        series = _with_classes(series, raw, data, like)
    if like is None:
        _check_variables(series, raw.where)
    return series


def _raw(data: Data, labelled: bool, like: Known | None) -> Raw:
    if data.source == "sample":
        return _sample(data, labelled, like)
    path = None if data.source.startswith("hub:") else find(data.source)
    if path is not None and path.suffix.lower() == ".npz":
        return npzfile.read(path, data, labelled, like)
    return _tabular(_table(path, data.source), data, labelled, like)


def _table(path: Path | None, source: str) -> Table:
    """The table in a file, or on the Hub where there is no path."""
    from shared_core import hub
    from timeseries_dualmodal import table  # pyarrow, which the sample and .npz do without

    if path is None:
        return table.from_hub(*hub.parse(source.removeprefix("hub:")))
    return table.from_parquet(path) if path.suffix.lower() == ".parquet" else table.from_csv(path)


def find(source: str) -> Path:
    """The file that `source` names. Raises UserError where it is missing, or of no known form."""
    path = Path(source).expanduser()
    if not path.exists():
        on_the_hub = re.fullmatch(r"[\w.\-]+/[\w.\-]+", source) and path.suffix.lower() not in SUFFIXES
        hint = f"hub:{source} if a data set on the Hub is meant" if on_the_hub else FORMS
        raise UserError(f"{path}: no such file (--data.source); give {hint}")
    if path.is_dir() or path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: is no source of series (--data.source); give {FORMS}")
    return path


def _sample(data: Data, labelled: bool, like: Known | None) -> Raw:
    made = phenology.generate(data.sample_size, data.sample_seed)
    assert made.y is not None
    names = data.groups or tuple(made.groups)
    for name in names:
        if name not in made.groups and labelled and like is None:
            raise UserError(f"--data.groups: the sample has no column {name!r}; it has {', '.join(made.groups)}")
    chosen = pick(made.variables, data, like, "sample")
    x_NVT = made.x[:, [made.variables.index(name) for name in chosen]]
    labels = np.array(made.classes)[made.y]
    groups = {name: made.groups[name] for name in names if name in made.groups}
    return Raw("sample", x_NVT, chosen, made.times, made.ids, labels, lambda row: f"row {row + 1}", groups)


def _tabular(table: Table, data: Data, labelled: bool, like: Known | None) -> Raw:
    if len(table) == 0:
        raise UserError(f"{table.where}: has no rows; give a file with series in it")
    grid = layouts.read(table, data, labelled, like)
    roles, rows = grid.roles, grid.rows
    chosen = pick(grid.variables, data, like, table.where)
    return Raw(
        table.where,
        grid.x[:, [grid.variables.index(name) for name in chosen]],
        chosen,
        grid.times,
        None if roles.id is None else table.texts(roles.id)[rows],
        None if roles.label is None or not labelled else table.texts(roles.label)[rows],
        lambda row: table.place(int(rows[row])),
        {name: table.texts(place)[rows] for name, place in roles.groups.items()},
        whole_labels=grid.by_position,
    )


def _on_the_axis(raw: Raw, like: Known) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The values at the first of the model's times, as many of these as the source reaches."""
    n, v, steps = raw.x.shape
    if raw.times is None:
        if steps > len(like.times):
            raise UserError(
                f"{raw.where}: has {steps} steps where the model knows {len(like.times)}; leave the rest out"
            )
        return raw.x, like.times[:steps]
    strange = np.setdiff1d(raw.times, like.times)
    if len(strange):
        known = brief(tuple(f"{time:g}" for time in like.times))
        raise UserError(f"{raw.where}: the model knows no time {strange[0]:g}, only {known}; leave the step out")
    places = np.searchsorted(like.times, raw.times)
    x_NVT = np.full((n, v, places[-1] + 1), np.nan, np.float32)
    x_NVT[:, :, places] = raw.x
    return x_NVT, like.times[: places[-1] + 1]


def _check_finite(raw: Raw, x_NVT: NDArray[np.float32], times: NDArray[np.float64]) -> None:
    wrong = np.argwhere(np.isinf(x_NVT))
    if len(wrong):
        row, variable, step = wrong[0].tolist()
        more = f" ({len(wrong):,} such values in all)" if len(wrong) > 1 else ""
        raise UserError(
            f"{raw.where}: {raw.place(row)}: {raw.variables[variable]} at time {times[step]:g} is infinite{more}; put "
            "a number there, or nothing"
        )


def _check_variables(series: SeriesSet, where: str) -> None:
    empty = np.isnan(series.x).all(axis=(0, 2))
    if empty.any():
        names = [name for name, missing in zip(series.variables, empty, strict=True) if missing]
        raise UserError(
            f"{where}: variable {', '.join(names)} has no value in any series; fill it, or leave it out with "
            "--data.variables"
        )


def _ids(raw: Raw) -> NDArray[np.str_]:
    """Names of the series; row numbers where they have none."""
    if raw.ids is None:
        return np.array([str(row) for row in range(len(raw.x))])
    names, first, counts = np.unique(raw.ids, return_index=True, return_counts=True)
    if (names == "").any():
        raise UserError(f"{raw.where}: {raw.place(int(first[0]))} has no id; add it, or name another --data.id")
    if (counts > 1).any():
        name = names[int(np.argmax(counts > 1))]
        one, two = np.flatnonzero(raw.ids == name)[:2].tolist()
        raise UserError(
            f"{raw.where}: {raw.place(one)} and {raw.place(two)} have the same id {str(name)!r} "
            f"({(counts > 1).sum():,} ids occur more than once); rename or remove them, or name another --data.id"
        )
    return raw.ids


def _with_classes(series: SeriesSet, raw: Raw, data: Data, like: Known | None) -> SeriesSet:
    if raw.labels is None:
        raise UserError(f"{raw.where}: has no labels (column label or class); name their column with --data.label")
    y, classes = encode(raw.labels, data, like, raw.where, raw.place, raw.whole_labels)
    kept = np.flatnonzero(y >= 0)
    if len(kept) == 0:
        raise UserError(f"{raw.where}: no series is left; check --data.classes and --data.drop_classes")
    return replace(series, y=y, classes=classes).take(kept)
