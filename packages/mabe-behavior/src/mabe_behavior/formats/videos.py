"""The table of videos of the Kaggle challenge of 2025 (`train.csv`, `test.csv`): where each was filmed, and how."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mabe_behavior.actions import ACTIONS, Behaviour, labeled
from mabe_behavior.formats import textfile
from mabe_behavior.formats.camera import Camera
from mabe_behavior.parts import named
from shared_core.errors import UserError

COLUMNS = (
    *("lab_id", "video_id"),
    *(f"mouse{k}_{what}" for k in range(1, 5) for what in ("strain", "color", "sex", "id", "age", "condition")),
    *("frames_per_second", "video_duration_sec", "pix_per_cm_approx", "video_width_pix", "video_height_pix"),
    *("arena_width_cm", "arena_height_cm", "arena_shape", "arena_type"),
    *("body_parts_tracked", "behaviors_labeled", "tracking_method"),
)
_NEEDED = (
    *("lab_id", "video_id", "frames_per_second", "pix_per_cm_approx", "video_width_pix", "video_height_pix"),
    *("body_parts_tracked", "behaviors_labeled"),
)


@dataclass(frozen=True)
class Video:
    """A row of the table."""

    lab: str
    name: str
    camera: Camera
    parts: tuple[str, ...]
    labeled: tuple[Behaviour, ...]  # none: nobody annotated it
    row: Mapping[str, str]  # all cells as they stand: strains, ages, the arena, ...

    @property
    def requoted(self) -> bool:
        """Whether entries of `behaviors_labeled` have stray quotes."""
        return "'" in self.row["behaviors_labeled"]


def read(path: Path) -> list[Video]:
    """The videos of a table.

    Raises UserError with the line where a column is missing, a video comes twice, a number is none, or a list of parts
    or behaviours cannot be read.
    """
    with textfile.opened(path, "csv") as stream:
        reader = csv.DictReader(stream)
        header = tuple(reader.fieldnames or ())
        if missing := [name for name in _NEEDED if name not in header]:
            raise UserError(f"{path}: has no column {', '.join(missing)}; must be a table of the challenge's videos")
        found = [_video(row, f"{path}: line {reader.line_num}") for row in reader]
    seen: set[str] = set()
    for video in found:
        if video.name in seen:
            raise UserError(f"{path}: has video {video.name} twice; keep one row")
        seen.add(video.name)
    return found


def _video(row: Mapping[str, str | None], where: str) -> Video:
    if None in row or None in row.values():
        raise UserError(f"{where}: has more or fewer cells than the header")
    cells = {name: (value or "").strip() for name, value in row.items()}
    for name in ("lab_id", "video_id"):
        if not cells[name] or any(mark in cells[name] for mark in "/\\\0") or cells[name] in (".", ".."):
            raise UserError(f"{where}: {name} is {cells[name]!r}; must be a name that a file can have")
    where = f"{where}: video {cells['video_id']}"
    looked_for = labeled(cells["behaviors_labeled"], f"{where}: behaviors_labeled")
    if unknown := [str(one) for one in looked_for if one.action not in ACTIONS]:
        raise UserError(f"{where}: behaviors_labeled has {unknown[0]!r}, an action that the challenge does not have")
    camera = Camera(
        _number(cells, "frames_per_second", where),
        _number(cells, "pix_per_cm_approx", where),
        *(_number(cells, name, where) if cells[name] else None for name in ("video_width_pix", "video_height_pix")),
    )
    return Video(
        cells["lab_id"], cells["video_id"], camera, _parts(cells["body_parts_tracked"], where), looked_for, cells
    )


def _number(cells: Mapping[str, str], name: str, where: str) -> float:
    try:
        value = float(cells[name])
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"{where}: {name} is {cells[name]!r}; must be a number above 0")
    return value


def _parts(text: str, where: str) -> tuple[str, ...]:
    try:
        names = json.loads(text) if text else []
    except ValueError as error:
        raise UserError(f"{where}: body_parts_tracked is not JSON ({error})") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f'{where}: body_parts_tracked is {text[:40]}; must be a list such as ["nose", "tail_base"]')
    return tuple(dict.fromkeys(named(name, f"{where}: body_parts_tracked") for name in names))
