"""Annotations of BENTO and MARS (`.annot`): text, for each channel each behaviour's bouts, a line each.

BENTO counts frames from 1 and includes the last one; newer files hold the same numbers divided by the frame rate, in
seconds. A decimal point anywhere among the bouts means seconds. Here frames start at 0 and stops are exclusive.

A channel is whatever its annotator meant by it, often an agent and a target: which ones has to be said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mabe_behavior.actions import ALONE, SELF
from mabe_behavior.bouts import Bouts
from mabe_behavior.formats import textfile
from shared_core import files
from shared_core.errors import UserError

HEADER = "Bento annotation file"
FPS = 30.0  # what BENTO takes where a file does not say
PAIR = ("mouse1", "mouse2")


@dataclass
class _Annotations:
    fps: float | None = None
    lines: list[tuple[int, str, str, list[str]]] = field(default_factory=list)  # line, channel, behaviour, cells


def read(
    path: Path,
    video: str | None = None,
    pairs: Mapping[str, tuple[str, str]] | None = None,
    fps: float | None = None,
) -> Bouts:
    """The bouts of a file, by frames of the annotated video.

    Args:
        video: its name; None: the file's.
        pairs: channel -> (agent, target); a channel that it lacks is an error. None: those named
            AGENT_TARGET, as `write` names them, say it, all others are mouse1's to mouse2. What
            a mouse does alone has the target `self`.
        fps: None: the file's, or 30 where it has none, as BENTO does.

    Raises UserError with the line where the file is none of BENTO, or a bout is no pair of frames or times.
    """
    found = _parsed(path)
    rate = fps or found.fps or FPS
    seconds = any("." in cell for _, _, _, cells in found.lines for cell in cells)
    rows = []
    for number, channel, action, cells in found.lines:
        if pairs is not None and channel not in pairs:
            raise UserError(f"{path}: line {number}: channel {channel!r} is none of {', '.join(pairs)}; see pairs")
        agent, target = _pair(channel) if pairs is None else pairs[channel]
        first, last = (_frame(cell, rate, seconds, f"{path}: line {number}") for cell in cells[:2])
        if not 1 <= first <= last:
            raise UserError(
                f"{path}: line {number}: frames {first} to {last}; BENTO's start at 1 and end after they start"
            )
        rows.append((video or path.stem, agent, SELF if action in ALONE else target, action, first - 1, last))
    return Bouts.of(sorted(rows, key=lambda row: (row[4], row[5])))


def write(path: Path, bouts: Bouts, fps: float, frames: int, movie: str = "") -> None:
    """Write the bouts of one video, in seconds, a channel for each agent and target; whole or not at all.

    Raises ValueError for bouts of several videos, without a frame, or beyond the last one.
    """
    if len(set(bouts.video.tolist())) > 1:
        raise ValueError("bouts: are of several videos; write a file for each")
    if len(bouts) and not (bouts.start.min() >= 0 and (bouts.start < bouts.stop).all() and bouts.stop.max() <= frames):
        raise ValueError(f"bouts: must have a frame each, within 0..{frames}")
    by_channel: dict[str, dict[str, list[tuple[int, int]]]] = {}
    for _, agent, target, action, start, stop in bouts.rows:
        by_channel.setdefault(f"{agent}_{target}", {}).setdefault(action, []).append((start, stop))
    actions = sorted({action for of in by_channel.values() for action in of})
    text = [HEADER, f"Movie file(s): {movie}", "", "Stimulus name: ", "Annotation start frame: 1"]
    text += [f"Annotation stop frame: {frames}", f"Annotation framerate: {fps:f}", ""]
    text += ["List of channels:", *by_channel, "", "List of annotations:", *actions, ""]
    for channel, of in by_channel.items():
        text.append(f"{channel}----------")
        for action, spans in of.items():
            text += [f">{action}", "Start\tStop\tDuration"]
            text += [
                f"{(start + 1) / fps:.9f}\t{stop / fps:.9f}\t{(stop - start) / fps:.9f}"
                for start, stop in sorted(spans)
            ]
            text.append("")
        text.append("")
    files.atomic_write(path, "\n".join(text))


def _pair(channel: str) -> tuple[str, str]:
    try:
        return channels([channel])[channel]
    except ValueError:
        return PAIR


def channels(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """(agent, target) of the channels that `write` makes. Raises ValueError for another name."""
    found = {}
    for name in names:
        agent, _, target = name.partition("_")
        if not re.fullmatch(r"mouse\d+_(mouse\d+|self)", name):
            raise ValueError(f"channel: {name!r}; must be AGENT_TARGET, such as mouse1_mouse2")
        found[name] = (agent, target)
    return found


def _parsed(path: Path) -> _Annotations:
    with textfile.opened(path) as stream:
        whole = stream.read()
    if not whole.lower().startswith(HEADER.lower()):
        raise UserError(f"{path}: its first line is {whole.splitlines()[:1]}; must be {HEADER!r}")
    found, channel, action = _Annotations(), None, None
    for number, raw in enumerate(whole.splitlines(), 1):
        line = raw.strip()
        if line.lower().startswith("annotation framerate:"):
            found.fps = _positive(line.partition(":")[2], f"{path}: line {number}")
        elif line.endswith("---"):
            channel, action = line.rstrip("-"), None
        elif channel is None or not line or line.lower().startswith("start"):
            continue
        elif line.startswith(">"):
            action = line[1:].strip()
        elif action is None or len(line.split()) < 2:
            raise UserError(f"{path}: line {number}: {line[:40]!r}; must be a bout (start, stop) below >BEHAVIOUR")
        else:
            found.lines.append((number, channel, action, line.split()[:3]))
    return found


def _positive(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"{where}: framerate {text.strip()!r}; must be a number above 0")
    return value


def _frame(cell: str, fps: float, seconds: bool, where: str) -> int:
    """BENTO's number of a frame, from 1."""
    try:
        return round(float(cell) * fps) if seconds else int(cell)
    except (ValueError, OverflowError):
        raise UserError(f"{where}: {cell!r} is no {'time' if seconds else 'frame'}") from None
