"""The verb `prepare`: recordings of a source -> a prepared set.

A prepared set is a folder with the recordings (`store`) and ``dataset.json``, which is written last and says what the
set was made from, how many recordings, frames and bouts there are of each laboratory, and which recordings show the
same video. Which of them train and judge is not in it: `division.divide` gives the same parts again. Beside these lie
the features that a configuration wants (`featurestore`).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mabe_behavior import division, duplicates, sources, store
from mabe_behavior.data_config import Data, Split
from mabe_behavior.store import Row
from shared_core import files, prepared, progress
from shared_core.errors import UserError

if TYPE_CHECKING:
    from mabe_behavior.config import Config, PrepareOptions
    from shared_core.cli import App
    from shared_core.settings import Paths

PACKAGE = "mabe-behavior"
READER = 1  # raise it when the same source and settings give another set
SHOWN = 5  # recordings of the same video that are named


def run(app: App, config: Config, options: PrepareOptions | None) -> int:
    """Prepare the set that the data section describes."""
    data = config.data.sample() if options is not None and options.sample else config.data
    prepare(data, config.split, folder_of(config.paths, data), bar=config.logging.progress)
    return 0


def prepare(data: Data, split: Split, folder: Path, bar: bool = True) -> dict[str, Any]:
    """Write the set into `folder`, unless it is there; returns its manifest.

    Raises UserError where a recording cannot be used, or the disk is full; the set that was there then stays.
    """
    origin = sources.origin(data)
    mark = prepared.fingerprint(origin, settings(data))
    if prepared.is_current(folder, mark):
        progress.message(f"{folder}: up to date")
        return prepared.read_manifest(folder)
    _announce(folder, origin, data)
    with files.atomic_dir(folder) as beside:  # features of the old set go with it
        rows = _written(data, beside, bar)
        counts = describe(rows, split)
        names = [store.INDEX, *(store.tracks_file(number) for number in range(len(rows)))]
        prepared.write_manifest(beside, mark, origin, settings(data), counts, names)
    _tell(folder, counts)
    return prepared.read_manifest(folder)


def settings(data: Data) -> dict[str, Any]:
    """What the set depends on, besides the content of its source."""
    unused = {"name", "path"}
    unused |= {"strict"} if data.source == "sample" else {"sample_videos", "sample_seconds", "sample_seed"}
    return {"reader": READER, **data.model_dump(mode="json", exclude=unused)}


def require(config: Config) -> Path:
    """The folder of the configuration's prepared set. Raises UserError where it is not there, or has other settings."""
    return prepared.require(folder_of(config.paths, config.data), settings(config.data))


def folder_of(paths: Paths, data: Data) -> Path:
    """Where the prepared set of a data section lies."""
    return paths.data / PACKAGE / data.folder


def describe(rows: list[Row], split: Split) -> dict[str, Any]:
    """Counts of recordings, frames, seconds and bouts per laboratory, and what is odd: for ``dataset.json``."""
    labs: dict[str, dict[str, Any]] = {}
    for row in rows:
        of = labs.setdefault(row["lab"], {"recordings": 0, "frames": 0, "seconds": 0.0, "bouts": Counter()})
        of["recordings"] += 1
        of["frames"] += row["frames"]
        of["seconds"] = round(of["seconds"] + row["frames"] / row["fps"], 2)
        of["bouts"].update(bout[2] for bout in row["bouts"])
    try:
        parts = division.divide(rows, split)
        sizes: dict[str, Any] = {"train": len(parts.train), "test": len(parts.test)}
    except UserError as error:  # another split, or predictions alone: the set is good all the same
        sizes = {"none": str(error)}
    same = Counter(row["video"] for row in rows)
    return {
        "recordings": len(rows),
        "labs": labs,
        "split": split.model_dump(mode="json"),
        "splits": sizes,
        "same video": [[row["name"] for row in rows if row["video"] == video] for video, n in same.items() if n > 1],
        "without annotations": sum(not row["labeled"] for row in rows),
    }


def _written(data: Data, folder: Path, bar: bool) -> list[Row]:
    """All recordings into the folder, with the number of the first that shows the same video: their rows."""
    rows, marks = [], []
    with progress.Bar(None, bar, "prepare") as shown:
        for number, one in enumerate(sources.each(data)):
            if number == 0:
                files.require_space(folder, one.tracks.xy_TAPX.nbytes, "a recording")
            rows.append(store.write(folder, number, one))
            marks.append(duplicates.marks(one.tracks))
            shown.update(number + 1)
    if not rows:
        raise UserError("data: the source has no recording; correct --data or --data.labs")
    for row, video in zip(rows, duplicates.groups(marks).tolist(), strict=True):
        row["video"] = video
    store.write_index(folder, rows)
    return rows


def _announce(folder: Path, origin: dict[str, Path | str], data: Data) -> None:
    """Say what makes a set that is there stale. Raises UserError where it is another source's."""
    if not (folder / prepared.NAME).exists():
        return
    try:
        there = prepared.read_manifest(folder)["settings"].get("source")
        reasons = prepared.changes(folder, origin, settings(data))
    except UserError:
        there, reasons = data.source, [f"{prepared.NAME} is damaged"]
    if there != data.source:
        raise UserError(f"{folder}: holds a set of {there}; give this one another --data.name, or delete the folder")
    progress.message(f"{folder}: stale, preparing it again: {'; '.join(reasons) or 'its files have changed'}")


def _tell(folder: Path, counts: dict[str, Any]) -> None:
    for names in counts["same video"][:SHOWN]:
        progress.message(f"{folder}: note: the same video: {', '.join(names)}; they stay in one part")
    if counts["without annotations"]:
        progress.message(f"{folder}: note: {counts['without annotations']} recordings without annotations")
    hours = sum(lab["seconds"] for lab in counts["labs"].values()) / 3600
    bouts = sum(sum(lab["bouts"].values()) for lab in counts["labs"].values())
    sizes = counts["splits"]
    parts = sizes.get("none") or ", ".join(f"{name} {count:,}" for name, count in sizes.items())
    progress.message(
        f"{folder}: {counts['recordings']:,} recordings of {len(counts['labs'])} laborator"
        f"{'ies' if len(counts['labs']) > 1 else 'y'}, {hours:.1f} hours, "
        f"{bouts:,} bouts; {parts}"
    )
