"""Tables of positions that have a column for each coordinate, as most trackers write them.

Shapes: R rows, C columns, T frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv

from mabe_behavior.formats import textfile
from mabe_behavior.formats.camera import Camera, checked
from mabe_behavior.parts import named
from mabe_behavior.tracks import Tracks
from shared_core import files
from shared_core.errors import UserError

_MISSING = ["", "nan", "NaN", "NA", "None"]
_MOST_GAPS = 20  # frames for each row that there is: beyond it a frame's number is damaged


class Column(NamedTuple):
    """What a column holds."""

    animal: str  # as the file names it
    part: str  # as the file names it
    coordinate: str  # x, y or likelihood


def numbers(path: Path, header_lines: int, names: Sequence[str]) -> NDArray[np.float64]:
    """(R, C) the numbers of a csv file below its header; what is empty is NaN.

    Raises UserError where a row has another number of cells, or a cell is no number.
    """
    unique = [f"{place} {name}" for place, name in enumerate(names)]
    try:
        table = arrow_csv.read_csv(
            path,
            arrow_csv.ReadOptions(skip_rows=header_lines, column_names=unique),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(unique, pa.float64()), null_values=_MISSING
            ),
        )
    except OSError as error:
        raise files.explain(error, path) from error
    except pa.ArrowInvalid as error:
        raise UserError(
            f"{path}: {str(error).splitlines()[0]}; below its header a table must hold numbers only"
        ) from error
    if not table.num_rows:
        raise UserError(f"{path}: has no row below its header")
    return np.stack([column.to_numpy() for column in table.columns], axis=1)


def lines(path: Path, count: int) -> list[str]:
    """A text file's first lines. Raises UserError where it cannot be read, is no text, or has fewer."""
    with textfile.opened(path) as stream:
        found = [line.rstrip("\r\n") for line, _ in zip(stream, range(count), strict=False)]
    if len(found) < count:
        raise UserError(f"{path}: has {len(found)} lines; must have a header of {count} and rows below")
    return found


def part_of(name: str, called: Mapping[str, str], where: str) -> str | None:
    """The known name of a file's part; None where `called` says "" and the part is to be left out.

    Raises UserError for a part that nobody knows and `called` does not have.
    """
    if called.get(name) == "":
        return None
    try:
        return named(called.get(name, name), where)
    except UserError as error:
        raise UserError(f"{error}. Say what it is, {name}=nose, or leave it out, {name}=") from error


def assembled(
    values_RC: NDArray[np.float64],
    columns: Sequence[Column],
    frame_R: NDArray,
    camera: Camera,
    animals: Mapping[str, str],
    called: Mapping[str, str],
    where: str,
) -> Tracks:
    """Tracks of a table.

    Args:
        frame_R: the frame of each row, from 0; frames without a row are missing.
        animals: name in the file -> mouse1, mouse2, ...; an animal that it lacks, or names "", is left out.
        called: name in the file -> a part's name; "" leaves it out. Parts it lacks must be known by their own names.

    Raises UserError for a coordinate without its counterpart, two columns of the same point, unknown parts, frames
    that are no whole numbers or come twice, or what `camera.fault` finds.
    """
    place: dict[tuple[str, str, str], int] = {}
    for at, column in enumerate(columns):
        mouse = animals.get(column.animal)
        if not mouse or (part := part_of(column.part, called, where)) is None:
            continue
        key = (mouse, part, column.coordinate)
        if key in place:
            raise UserError(
                f"{where}: columns {place[key] + 1} and {at + 1} both hold {column.coordinate} of {mouse}'s {part}"
            )
        place[key] = at
    mice = tuple(sorted({mouse for mouse, _, _ in place}, key=lambda mouse: (len(mouse), mouse)))
    parts = tuple(dict.fromkeys(part for _, part, _ in place))
    if not mice:
        raise UserError(f"{where}: has no column of a body part")
    frame_R = _frames(frame_R, where)
    shape = (int(frame_R.max()) + 1, len(mice), len(parts))
    xy_TAPX = np.full((*shape, 2), np.nan, np.float32)
    sure_TAP = np.full(shape, np.nan, np.float32)
    for mouse, part in dict.fromkeys((mouse, part) for mouse, part, _ in place):
        there = (frame_R, mice.index(mouse), parts.index(part))
        for axis, coordinate in enumerate(("x", "y")):
            if (mouse, part, coordinate) not in place:
                raise UserError(f"{where}: has no {coordinate} of {mouse}'s {part}; a point needs x and y")
            xy_TAPX[(*there, axis)] = values_RC[:, place[mouse, part, coordinate]]
        if (at := place.get((mouse, part, "likelihood"))) is not None:
            sure_TAP[there] = values_RC[:, at]
    sure = sure_TAP if any(coordinate == "likelihood" for _, _, coordinate in place) else None
    return checked(
        Tracks(xy_TAPX, mice, parts, camera.fps, camera.pixels_per_cm, sure, camera.width, camera.height), where
    )


def _frames(frame_R: NDArray, where: str) -> NDArray[np.int64]:
    """The frames' numbers. Raises UserError where they are none."""
    if frame_R.dtype.kind not in "iuf" or not np.isfinite(frame_R).all() or (frame_R % 1 != 0).any():
        raise UserError(f"{where}: its first column must hold frame numbers 0, 1, ..., not {frame_R[0]!s:.60}")
    whole = frame_R.astype(np.int64)
    if whole.min() < 0 or len(np.unique(whole)) != len(whole):
        raise UserError(f"{where}: frame numbers must be 0 or more and differ")
    if whole.max() >= _MOST_GAPS * len(whole) + 1000:
        raise UserError(f"{where}: frame number {whole.max()} in a table of {len(whole)} rows; the file is damaged")
    return whole
