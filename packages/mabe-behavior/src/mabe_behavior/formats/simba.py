"""SimBA's tables (csv): a row a frame, columns `PART_K_x`, `PART_K_y`, `PART_K_p` of animal K, then features, then in
labelled files a column of 0 and 1 for each behaviour.

Who does a behaviour, and to whom, SimBA does not know: it has to be said.

Shapes: R rows, C columns, T frames.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mabe_behavior.actions import Behaviour
from mabe_behavior.bouts import Bouts, runs
from mabe_behavior.formats import tracktable
from mabe_behavior.formats.camera import Camera
from mabe_behavior.formats.tracktable import Column
from mabe_behavior.recording import Recording
from shared_core.errors import UserError

_POINT = re.compile(r"(.+)_(\d+)_([xyp])")
_COORDINATES = {"x": "x", "y": "y", "p": "likelihood"}


def read(
    path: Path,
    camera: Camera,
    behaviours: Mapping[str, Behaviour] | None = None,
    called: Mapping[str, str] | None = None,
) -> list[Recording]:
    """The one recording of a table, named as the file.

    Args:
        behaviours: column -> what it says; these were looked for. Columns of features are not read.
        called: name in the table -> a part's name; "" leaves it out.

    Raises UserError where the table has no points, or a behaviour's column is not there or holds other than 0 and 1.
    """
    where, behaviours = str(path), behaviours or {}
    header = [name.strip() for name in next(csv.reader(tracktable.lines(path, 1)))]
    if missing := [name for name in behaviours if name not in header]:
        raise UserError(f"{where}: has no column {missing[0]!r}; the last are {', '.join(header[-5:])}")
    points, places = _points(header, where)
    values_RC = tracktable.numbers(path, 1, header)
    frame_R = values_RC[:, 0] if header[0] == "" else np.arange(len(values_RC))
    xyp_RC = values_RC[:, places]
    _hide_unseen(xyp_RC, points)
    animals = {column.animal: f"mouse{column.animal}" for column in points}
    tracks = tracktable.assembled(xyp_RC, points, frame_R, camera, animals, called or {}, where)
    rows = []
    for name, behaviour in behaviours.items():
        done_R = values_RC[:, header.index(name)]
        if not np.isin(done_R, (0, 1)).all():
            raise UserError(f"{where}: column {name!r} holds {done_R[~np.isin(done_R, (0, 1))][0]:g}; must be 0 or 1")
        done_T = np.zeros(len(tracks), bool)
        done_T[frame_R.astype(np.int64)] = done_R == 1
        rows += [(path.stem, *behaviour, int(start), int(stop)) for start, stop in zip(*runs(done_T), strict=True)]
    return [Recording(path.stem, "simba", tracks, Bouts.of(rows), tuple(dict.fromkeys(behaviours.values())))]


def _points(header: list[str], where: str) -> tuple[list[Column], list[int]]:
    """The columns of points, and where they are. A feature may be named like one coordinate, but not like three."""
    found = {place: match for place, name in enumerate(header) if (match := _POINT.fullmatch(name))}
    of_point = [
        {match[3] for match in found.values() if match.group(1, 2) == one.group(1, 2)} for one in found.values()
    ]
    whole = {place: match for (place, match), has in zip(found.items(), of_point, strict=True) if {"x", "y"} <= has}
    if not whole:
        hint = "; this is DeepLabCut's" if header[0] == "scorer" else ""
        raise UserError(f"{where}: has no columns such as Nose_1_x, Nose_1_y, Nose_1_p{hint}")
    points = [Column(match[2], match[1], _COORDINATES[match[3]]) for match in whole.values()]
    return points, list(whole)


def _hide_unseen(xyp_RC: np.ndarray, points: list[Column]) -> None:
    """SimBA writes 0, 0 and no certainty for what was not seen: missing is NaN here."""
    place = {column: k for k, column in enumerate(points)}
    for animal, part in {(column.animal, column.part) for column in points}:
        xy = [place[Column(animal, part, axis)] for axis in ("x", "y")]
        sure = place.get(Column(animal, part, "likelihood"))
        unseen_R = (xyp_RC[:, xy] == 0).all(axis=1)
        if sure is not None:
            unseen_R &= xyp_RC[:, sure] == 0
        xyp_RC[np.ix_(unseen_R, xy)] = np.nan
