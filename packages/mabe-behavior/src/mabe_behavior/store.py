"""Recordings of a prepared set, as files: ``recordings.json``, a row for each, and positions, ``tracks/NNNNN.npz``.

Shapes: T frames, A animals, P parts, X is x and y in pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mabe_behavior import actions
from mabe_behavior.bouts import Bouts
from mabe_behavior.recording import Annotations, Recording
from mabe_behavior.tracks import Tracks
from shared_core import files
from shared_core.errors import UserError

INDEX, TRACKS = "recordings.json", "tracks"
MAX_BYTES = 16 * 2**30  # of one recording, unpacked
Row = dict[str, Any]


def tracks_file(number: int) -> str:
    """Name of the file with the positions of a recording, relative to the set's folder."""
    return f"{TRACKS}/{number:05d}.npz"


def write(folder: Path, number: int, one: Recording) -> Row:
    """Write a recording's positions; returns its row of the index."""
    path = folder / tracks_file(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"xy": one.tracks.xy_TAPX}
    if one.tracks.confidence_TAP is not None:
        arrays["confidence"] = one.tracks.confidence_TAP.astype(np.float16)
    with files.atomic_path(path) as beside, beside.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
    facts = ("animals", "parts", "fps", "pixels_per_cm", "width", "height")
    return {
        "name": one.name,
        "lab": one.lab,
        "split": one.split,
        "animal": one.animal,
        "frames": len(one.tracks),
        **{name: getattr(one.tracks, name) for name in facts},
        "labeled": [str(behaviour) for behaviour in one.labeled],
        "bouts": [row[1:] for row in one.bouts.rows],
    }


def write_index(folder: Path, rows: Sequence[Row]) -> None:
    """Write the rows of all recordings, numbered from 0."""
    files.atomic_write(folder / INDEX, json.dumps(rows, indent=0) + "\n")


def index(folder: Path) -> list[Row]:
    """The rows of a prepared set. Raises UserError where they are missing or damaged."""
    path = folder / INDEX
    try:
        rows = json.loads(path.read_text())
        if not isinstance(rows, list) or any(not isinstance(row, dict) or "name" not in row for row in rows):
            raise ValueError("it holds no recordings")
    except OSError as error:
        raise files.explain(error, path) from error
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); run `prepare` again") from error
    return rows


def read(folder: Path, number: int, row: Mapping[str, Any]) -> Recording:
    """A recording. Raises UserError where its files are missing or damaged."""
    path = folder / tracks_file(number)
    arrays = files.read_npz(path, ["xy"], MAX_BYTES)
    try:
        tracks = Tracks(
            arrays["xy"],
            tuple(row["animals"]),
            tuple(row["parts"]),
            row["fps"],
            row["pixels_per_cm"],
            _confidence(path),
            row["width"],
            row["height"],
        )
        said = annotations(row)
        if len(tracks) != said.frames:
            raise ValueError(f"{len(tracks)} frames instead of {said.frames}")
        return Recording(said.name, said.lab, tracks, said.bouts, said.labeled, row["split"], row["animal"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: {path.name} and {INDEX} do not fit ({error}); run `prepare` again") from error


def annotations(row: Mapping[str, Any]) -> Annotations:
    """What people say of a recording, by its row. Raises UserError for a damaged one."""
    try:
        labeled = tuple(actions.behaviour(text) for text in row["labeled"])
        bouts = Bouts.of((row["name"], *bout) for bout in row["bouts"])
        return Annotations(row["name"], row["lab"], row["frames"], row["fps"], bouts, labeled)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{INDEX}: is damaged ({error}); run `prepare` again") from error


def _confidence(path: Path) -> np.ndarray | None:
    with np.load(path, allow_pickle=False) as archive:
        there = "confidence" in archive.files
    return files.read_npz(path, ["confidence"], MAX_BYTES)["confidence"].astype(np.float32) if there else None
