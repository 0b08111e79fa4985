"""The Kaggle challenge's submission: csv, a row a bout.

The score refuses some files as a whole and passes over some rows in silence; `check` finds both, with their lines.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mabe_behavior.actions import ACTIONS, SELF, Behaviour
from mabe_behavior.bouts import Bouts
from mabe_behavior.formats import textfile
from shared_core import files
from shared_core.errors import UserError

HEADER = ("row_id", "video_id", "agent_id", "target_id", "action", "start_frame", "stop_frame")
_MOUSE, _WHOLE = re.compile(r"mouse[1-9]\d*"), re.compile(r"-?[0-9]{1,18}")


class Problem(NamedTuple):
    """What is wrong with a submission."""

    line: int  # of the file; the header is 1
    text: str
    fatal: bool  # whether the score refuses all of it; else the row counts for nothing, or against you

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}"


def write(path: Path, bouts: Bouts) -> None:
    """Write bouts, in their order; whole or not at all.

    Raises ValueError for what the score refuses: no bout, one without a frame or before frame 0, two actions of an
    agent to one target at once.
    """
    if not len(bouts):
        raise ValueError("submission: has no bout, which the score refuses; predict at least one")
    lines = {k + 2: row for k, row in enumerate(bouts.rows)}
    for row in lines.values():
        if not 0 <= row[4] < row[5]:
            raise ValueError(
                f"submission: {row[3]} of {row[1]} to {row[2]} in video {row[0]}, frames {row[4]} to {row[5]}"
            )
    if found := _overlaps(lines):
        raise ValueError(f"submission: {found[0].text}")
    made = io.StringIO(newline="")
    writer = csv.writer(made, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows((k, *row) for k, row in enumerate(lines.values()))
    files.atomic_write(path, made.getvalue())


def read(path: Path) -> Bouts:
    """The bouts of a submission. Raises UserError for a file that is none, with its first malformed line."""
    parsed = _parsed(path)
    if parsed.problems:
        raise UserError(f"{path}: {parsed.problems[0]}")
    return Bouts.of(parsed.rows.values())


def check(
    path: Path,
    labeled: Mapping[str, Collection[Behaviour]] | None = None,
    frames: Mapping[str, int] | None = None,
) -> list[Problem]:
    """All that is wrong with a submission, by line; nothing: it is valid, and every row counts.

    Args:
        labeled: what was looked for in each video that is asked for; None: not known.
        frames: of each video; None: not known.

    Raises UserError where the file cannot be read at all.
    """
    parsed = _parsed(path)
    found = parsed.problems
    counted = {}
    for line, row in parsed.rows.items():
        texts = _of_row(row, labeled, frames)
        found += [Problem(line, text, False) for text in texts]
        if row[4] > row[5]:
            found.append(Problem(line, f"stop_frame {row[5]} lies before start_frame {row[4]}", True))
        elif labeled is None or Behaviour(*row[1:4]) in labeled.get(row[0], ()):
            counted[line] = row
    found += _overlaps(counted)
    return sorted(found)


Row = tuple[str, str, str, str, int, int]  # video, agent, target, action, start, stop


def _of_row(
    row: Row, labeled: Mapping[str, Collection[Behaviour]] | None, frames: Mapping[str, int] | None
) -> list[str]:
    """Why a row counts for nothing, or against you."""
    video, agent, target, action, start, stop = row
    found = []
    if not _MOUSE.fullmatch(agent) or not (target == SELF or _MOUSE.fullmatch(target)):
        found.append(f"agent {agent!r}, target {target!r}; must be mouse1, mouse2, ..., and a target may be self")
    elif target == agent:
        found.append(f"the target is the agent, {agent}; must be {SELF}")
    elif action not in ACTIONS:
        found.append(f"action {action!r} is none of the challenge's {len(ACTIONS)}")
    elif labeled is not None and video not in labeled:
        found.append(f"video {video} is not asked for; the row is not counted")
    elif labeled is not None and Behaviour(agent, target, action) not in labeled[video]:
        found.append(f"{agent},{target},{action} was not looked for in video {video}; the row is not counted")
    if start == stop:
        found.append(f"has no frame ({start} to {stop}), and yet counts as an action that was predicted")
    if start < 0:
        found.append(f"start_frame {start}; must be 0 or more")
    if frames is not None and stop > frames.get(video, stop):
        found.append(f"stop_frame {stop} lies past the {frames[video]} frames of video {video}")
    return found


def _overlaps(lines: Mapping[int, Row]) -> list[Problem]:
    """The rows during which another action of the same agent to the same target goes on that started no later."""
    found = []
    latest: dict[tuple[str, str, str], dict[str, tuple[int, int]]] = {}  # pair -> action -> (stop, its line)
    for line, (video, agent, target, action, start, stop) in sorted(
        lines.items(), key=lambda item: (item[1][4], item[0])
    ):
        if start == stop:
            continue
        open_ = latest.setdefault((video, agent, target), {})
        for other, (until, at) in open_.items():
            if other != action and until > start:
                text = f"{action} and {other} (line {at}) of {agent} to {target} in video {video} both in frame {start}"
                found.append(Problem(line, text, True))
                break
        if stop > open_.get(action, (-1, 0))[0]:
            open_[action] = (stop, line)
    return found


@dataclass
class _Parsed:
    rows: dict[int, Row] = field(default_factory=dict)  # by line
    problems: list[Problem] = field(default_factory=list)


def _parsed(path: Path) -> _Parsed:
    with textfile.opened(path, encoding="utf-8") as stream:
        whole = stream.read()
    found, ids = _Parsed(), {}
    reader = csv.reader(io.StringIO(whole, newline=""))
    header = next(reader, [])
    if missing := [name for name in HEADER if name not in header]:
        mark = "; a byte-order mark precedes the header" if whole.startswith("\ufeff") else ""
        found.problems.append(
            Problem(1, f"has no column {', '.join(missing)}; must have {','.join(HEADER)}{mark}", True)
        )
        return found
    place = [header.index(name) for name in HEADER]
    try:
        for cells in reader:
            line = reader.line_num
            if not cells:
                continue
            if len(cells) != len(header):
                found.problems.append(Problem(line, f"has {len(cells)} cells; must be {len(header)}", True))
                continue
            row_id, video, agent, target, action, start, stop = (cells[k] for k in place)
            if row_id in ids:
                found.problems.append(Problem(line, f"row_id {row_id!r} is also that of line {ids[row_id]}", True))
            ids.setdefault(row_id, line)
            if _WHOLE.fullmatch(start) and _WHOLE.fullmatch(stop):
                found.rows[line] = (video, agent, target, action, int(start), int(stop))
            else:
                found.problems.append(Problem(line, f"frames {start!r} to {stop!r}; must be whole numbers", True))
    except csv.Error as error:
        found.problems.append(Problem(reader.line_num, f"is no csv ({error})", True))
    if not found.rows and not found.problems:
        found.problems.append(Problem(1, "has no row below the header, which the score refuses", True))
    return found
