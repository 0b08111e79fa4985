"""The verb `prepare`: a source of series -> a prepared set.

A prepared set is a folder with ``series.npz`` and ``dataset.json``, which is written last and says what the set was
made from, how many series there are of each class, split and group, and what is odd about them. ``series.npz`` holds x
(float32, NaN where a value is missing), y, ids, variables, times, classes, and group_COLUMN for every group column. The
splits are not in it: `division.divide` gives the same ones again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared_core import files, prepared, progress
from shared_core.errors import UserError
from timeseries_dualmodal import checks, division, npzfile, readers
from timeseries_dualmodal.data_config import Data, Split
from timeseries_dualmodal.series import SeriesSet

if TYPE_CHECKING:
    from shared_core.cli import App
    from timeseries_dualmodal.config import Config, PrepareOptions

PACKAGE = "timeseries-dualmodal"
READER = 1  # raise it when the same source and settings give another set
SERIES = "series.npz"
MAX_BYTES = 64 * 2**30  # unpacked


def run(app: App, config: Config, options: PrepareOptions | None) -> int:
    """Prepare the set that the data section describes, and draw its pictures where they are asked for."""
    data = config.data.sample() if options is not None and options.sample else config.data
    prepare(data, config.split, config.paths.data / PACKAGE / data.folder)
    if options is not None and options.images:
        from timeseries_dualmodal import picturesets  # torch takes seconds to import

        picturesets.draw(config.model_copy(update={"data": data}), options)
    if options is not None and options.embeddings:
        from timeseries_dualmodal import train

        train.embed(config.model_copy(update={"data": data}), options.scales)
    return 0


def prepare(data: Data, split: Split, folder: Path) -> dict[str, Any]:
    """Write the set into `folder`, unless it is there; returns its manifest.

    Raises:
        UserError: the source cannot be used or divided (`readers.read`, `division.divide`), or the disk is full.
    """
    source, origin = _origin(data)
    mark = prepared.fingerprint(origin, settings(data))
    there = _still_good(folder, mark)
    if there is None:
        _announce(folder, origin, data)
    elif prepared.read_manifest(folder)["counts"]["split"] == split.model_dump(mode="json"):
        progress.message(f"{folder}: up to date")
        return prepared.read_manifest(folder)
    series = readers.read(data.model_copy(update={"source": source})) if there is None else there
    counts = describe(series, split)
    if there is None:
        files.require_space(folder, series.x.nbytes, "the data set")
        (folder / prepared.NAME).unlink(missing_ok=True)
        write(folder / SERIES, series)
    prepared.write_manifest(folder, mark, origin, settings(data), counts, [SERIES])
    _tell(folder, series, counts)
    return prepared.read_manifest(folder)


def settings(data: Data) -> dict[str, Any]:
    """What the set depends on, besides the content of its source."""
    unused = {"name"} if data.source == "sample" else {"name", "sample_size", "sample_seed"}
    return {"reader": READER, **data.model_dump(mode="json", exclude=unused)}


def require(config: Config) -> Path:
    """The folder of the configuration's prepared set.

    Raises UserError where it is not there, was prepared with other settings, or from a file that has changed since; a
    file that is gone, and the Hub, are not looked at.
    """
    folder = prepared.require(config.paths.data / PACKAGE / config.data.folder, settings(config.data))
    source = Path(config.data.source).expanduser()
    if source.is_file() and (changed := prepared.changes(folder, {"series": source}, settings(config.data))):
        raise UserError(
            f"{folder}: {source} has changed since it was prepared ({'; '.join(changed)}); run `prepare` again"
        )
    return folder


def describe(series: SeriesSet, split: Split) -> dict[str, Any]:
    """Counts per class, split and group, and what is odd about the set: for ``dataset.json``.

    Raises UserError where the set cannot be divided.
    """
    assert series.y is not None
    parts = division.divide(series, split)
    per_class = {
        name: {label: int((series.y[rows] == code).sum()) for code, label in enumerate(series.classes)}
        for name, rows in {"all": np.arange(len(series)), **parts}.items()
    }
    groups = {}
    for name, values in series.groups.items():
        known, counts = np.unique(values, return_counts=True)
        groups[name] = dict(zip(known.tolist(), counts.tolist(), strict=True)) if len(known) <= 50 else len(known)
    return {
        "series": len(series),
        "variables": len(series.variables),
        "steps": series.steps,
        "missing": round(float(np.isnan(series.x).mean()), 4),
        "classes": per_class,
        "groups": groups,  # series of each value, or the number of values where they are many
        "split": split.model_dump(mode="json"),
        "splits": {name: len(rows) for name, rows in parts.items()},
        "warnings": checks.warnings(series) + division.leaks(series, parts),
    }


def write(path: Path, series: SeriesSet) -> None:
    """Write a labelled set, whole or not at all; the bytes depend on its content alone."""
    assert series.y is not None
    arrays = {
        "x": series.x,
        "y": series.y,
        "ids": series.ids,
        "variables": np.array(series.variables),
        "times": series.times,
        "classes": np.array(series.classes),
        **{f"group_{name}": values for name, values in series.groups.items()},
    }
    with files.atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def load(folder: Path) -> SeriesSet:
    """The series of a prepared set.

    Raises UserError where the set is not there or is damaged.
    """
    path = folder / SERIES
    prepared.read_manifest(folder)
    keys = npzfile.names(path)
    arrays = files.read_npz(path, keys, MAX_BYTES)
    groups = {key.removeprefix("group_"): arrays[key] for key in keys if key.startswith("group_")}
    try:
        x, y, ids, variables, times, classes = (
            arrays[key] for key in ("x", "y", "ids", "variables", "times", "classes")
        )
        n, v, t = x.shape
        whole = (
            x.dtype == np.float32
            and not np.isinf(x).any()
            and y.dtype == np.int64
            and (len(y) == 0 or 0 <= y.min() <= y.max() < len(classes))
            and times.dtype == np.float64
            and all(array.dtype.kind == "U" for array in (ids, variables, classes, *groups.values()))
            and all(array.shape == (n,) for array in (y, ids, *groups.values()))
            and (variables.shape, times.shape, classes.ndim) == ((v,), (t,), 1)
        )
    except (KeyError, ValueError):
        whole = False
    if not whole:
        raise UserError(f"{path}: is no prepared set of this version, or damaged; run `prepare` again")
    return SeriesSet(x, y, ids, tuple(variables.tolist()), tuple(classes.tolist()), times, groups)


def _origin(data: Data) -> tuple[str, dict[str, Path | str]]:
    """The source with its revision, and what the set is made from: a file, a generator, or a commit on the Hub."""
    if data.source == "sample":
        return data.source, {"series": "generator"}
    if not data.source.startswith("hub:"):
        return data.source, {"series": readers.find(data.source)}
    from shared_core import hub

    name, revision = hub.parse(data.source.removeprefix("hub:"))
    pinned = f"hub:{name}@{hub.commit(name, revision, 'dataset')}"
    return pinned, {"series": pinned}


def _still_good(folder: Path, mark: str) -> SeriesSet | None:
    """The series in `folder`, where they are those that are asked for."""
    try:
        return load(folder) if prepared.is_current(folder, mark) else None
    except UserError:  # damaged without a change of size
        return None


def _announce(folder: Path, origin: dict[str, Path | str], data: Data) -> None:
    """Say what makes a set that is there stale."""
    if not (folder / prepared.NAME).exists():
        return
    try:
        reasons = prepared.changes(folder, origin, settings(data))
    except UserError:
        reasons = [f"{prepared.NAME} is damaged"]
    progress.message(f"{folder}: stale, preparing it again: {'; '.join(reasons) or f'{SERIES} is damaged'}")


def _tell(folder: Path, series: SeriesSet, counts: dict[str, Any]) -> None:
    for line in counts["warnings"]:
        progress.message(f"{folder}: note: {line}")
    parts = ", ".join(f"{name} {count:,}" for name, count in counts["splits"].items())
    progress.message(
        f"{folder}: {len(series):,} series of {len(series.variables)} variables and {series.steps} steps, "
        f"{len(series.classes)} classes; {parts}"
    )
