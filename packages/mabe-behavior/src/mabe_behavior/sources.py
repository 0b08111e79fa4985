"""Where recordings come from: the simulator, or a download."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mabe_behavior.data_config import Data
from mabe_behavior.formats import own
from mabe_behavior.recording import Recording
from shared_core import progress
from shared_core.errors import UserError

SIMULATOR = 1  # raise it when the simulator makes other videos of the same seed


def origin(data: Data) -> dict[str, Path | str]:
    """What the set is made from, by name: files and folders, or the simulator's version."""
    if data.source == "sample":
        return {"simulator": str(SIMULATOR)}
    path = _path(data)
    if data.source == "kaggle":
        found = [path / name for name in ("train.csv", "train_tracking", "train_annotation")]
        return {one.name: one for one in found if one.exists() or one.suffix}
    if data.source == "files":
        return dict(own.sources(path))
    return {"download": path}


def each(data: Data) -> Iterator[Recording]:
    """The recordings, one at a time, which is what most memories can hold.

    Raises UserError where a file is missing, damaged or of another format, or a laboratory is unknown.
    """
    if data.source == "sample":
        yield from _simulated(data)
    elif data.source == "kaggle":
        yield from _kaggle(data)
    elif data.source == "files":
        yield from (one for one in own.each(_path(data)) if not data.labs or one.lab in data.labs)
    else:
        yield from _whole(data)


def _simulated(data: Data) -> Iterator[Recording]:
    from mabe_behavior.simulation import labs, simulator

    names = [lab.name for lab in labs.LABS]
    if unknown := [name for name in data.labs if name not in names]:
        raise UserError(f"data.labs: no {unknown[0]}; the sample has {', '.join(names)}")
    for lab in labs.LABS:
        if data.labs and lab.name not in data.labs:
            continue
        for number in range(data.sample_videos):
            yield simulator.simulate(lab, data.sample_seed * 10_000 + number, data.sample_seconds)


def _kaggle(data: Data) -> Iterator[Recording]:
    from mabe_behavior.formats import kaggle

    notes: list[kaggle.Note] = []
    for one in kaggle.each(_path(data), "train", data.labs, data.strict, notes):
        if one.labeled:  # MABe22's seven thousand clips have no annotations
            yield one
    kinds: dict[str, list[kaggle.Note]] = {}
    for note in notes:
        kinds.setdefault(note.kind, []).append(note)
    for kind, found in kinds.items():
        progress.message(f"note: {kind}: {len(found)} videos, such as {found[0]}")


def _whole(data: Data) -> Iterator[Recording]:
    from mabe_behavior.formats import calms21, mabe22

    found = calms21.read(_path(data)) if data.source == "calms21" else mabe22.read(_path(data))
    labs = {one.lab for one in found}
    if unknown := [name for name in data.labs if name not in labs]:
        raise UserError(f"data.labs: no {unknown[0]}; there are {', '.join(sorted(labs))}")
    yield from (one for one in found if not data.labs or one.lab in data.labs)


def _path(data: Data) -> Path:
    if data.path is None:
        raise UserError(f"data.path: the source {data.source} is a download; say where it lies, --data PATH")
    path = data.path.expanduser()
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; --data says where the download lies")
    return path
