"""Tables for whoever goes on with a spreadsheet or R: bouts, and a value for each frame; csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.actions import Behaviour
from mabe_behavior.bouts import Bouts
from shared_core import files

BOUTS = ("video", "agent", "target", "action", "start_frame", "stop_frame", "start_s", "stop_s", "duration_s")


def write_bouts(path: Path, bouts: Bouts, fps: Mapping[str, float]) -> None:
    """A row a bout, in frames and in seconds, by the frame rate of its video; whole or not at all.

    Raises ValueError for a video without a rate.
    """
    if missing := sorted(set(bouts.video.tolist()) - set(fps)):
        raise ValueError(f"fps: none for video {missing[0]}; give one for each")
    rows = (
        (*row, *(f"{frames / fps[row[0]]:.6g}" for frames in (row[4], row[5], row[5] - row[4]))) for row in bouts.rows
    )
    _write(path, BOUTS, rows)


def write_frames(path: Path, values: Mapping[Behaviour, NDArray], fps: float) -> None:
    """A row a frame of one video, a column a behaviour: `mouse1 mouse2 sniff`; whole or not at all.

    Args:
        values: (T,) for each behaviour: whether it is done (written as 0 or 1), or how probable it is.

    Raises ValueError where they differ in length.
    """
    columns = [np.asarray(one) for one in values.values()]
    if len({column.shape for column in columns}) != 1 or columns[0].ndim != 1:
        raise ValueError(f"values: shapes {[column.shape for column in columns]}; must be of one length, (T,)")
    texts = [[_text(value) for value in column.tolist()] for column in columns]
    rows = ((k, f"{k / fps:.6g}", *row) for k, row in enumerate(zip(*texts, strict=True)))
    _write(path, ("frame", "seconds", *(" ".join(one) for one in values)), rows)


def _text(value: float) -> str:
    return str(int(value)) if isinstance(value, bool | int) else f"{value:.4g}"


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    files.atomic_write(path, text.getvalue())
