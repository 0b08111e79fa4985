"""The Kaggle challenge of 2025, "MABe: Social Action Recognition in Mice": a folder as downloaded.

* ``train.csv``, ``test.csv``: a row a video, see `videos`;
* ``train_tracking/LAB/VIDEO.parquet``: rows of (video_frame, mouse_id, bodypart, x, y); what was not seen has no row;
* ``train_annotation/LAB/VIDEO.parquet``: rows of (agent_id, target_id, action, start_frame, stop_frame), stops
  exclusive; who acts alone is its own target.

What is odd in the data and yet usable is noted, never passed over in silence.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mabe_behavior.actions import ACTIONS, SELF, Behaviour
from mabe_behavior.bouts import Bouts
from mabe_behavior.formats import camera, videos
from mabe_behavior.formats.videos import Video
from mabe_behavior.parts import named
from mabe_behavior.recording import Recording
from mabe_behavior.tracks import Tracks, dense
from shared_core import files
from shared_core.errors import UserError

TRACKING = ("video_frame", "mouse_id", "bodypart", "x", "y")
ANNOTATION = ("agent_id", "target_id", "action", "start_frame", "stop_frame")
# (lab, frames per second) of videos whose annotations are known not to fit the tracks in time, or to swap the mice
MISTIMED = {("AdaptableSnail", 25)}
_MOST_EMPTY = 20  # places in the array for each row that there is: beyond it a frame's number is damaged


class Note(NamedTuple):
    """Something odd about a video."""

    video: str
    kind: str  # gaps, outside, tracks, parts, mice, mistimed, quotes, no annotations, not looked for, left out
    text: str

    def __str__(self) -> str:
        return f"video {self.video}: {self.text}"


def read(
    path: Path,
    split: str = "train",
    labs: Collection[str] = (),
    strict: bool = True,
    notes: list[Note] | None = None,
) -> list[Recording]:
    """All videos of a split; see `each`, which holds one at a time."""
    return list(each(path, split, labs, strict, notes))


def each(
    path: Path,
    split: str = "train",
    labs: Collection[str] = (),
    strict: bool = True,
    notes: list[Note] | None = None,
) -> Iterator[Recording]:
    """The videos of a split, one after another, in the table's order.

    Args:
        split: train or test: of which table; the test's videos have no annotations.
        labs: only of these; none: of all.
        strict: refuse what no video should have: a missing tracking file, points outside the picture for the most part,
            annotations past the end, of unknown actions or of mice that were not tracked. False: leave it out, note it.
        notes: gets what is odd.

    Raises UserError where a file is missing or damaged, lacks a column, has unknown parts, or as `strict` says.
    """
    notes = [] if notes is None else notes
    listed = videos.read(path / f"{split}.csv")
    if unknown := set(labs) - {video.lab for video in listed}:
        raise UserError(f"{path}: no lab {sorted(unknown)[0]}; there are {', '.join(sorted({v.lab for v in listed}))}")
    for video in listed:
        if labs and video.lab not in labs:
            continue
        tracking = path / f"{split}_tracking" / video.lab / f"{video.name}.parquet"
        if not tracking.exists() and not strict:
            notes.append(Note(video.name, "left out", f"has no {tracking}; left out"))
            continue
        if video.requoted:
            notes.append(
                Note(video.name, "quotes", "behaviors_labeled has stray quotes; dropped, and what then came twice")
            )
        tracks = _tracks(tracking, video, strict, notes)
        if split == "test":
            yield Recording(video.name, video.lab, tracks, Bouts.of([]), video.labeled, split)
        else:
            bouts = _annotated(path / f"{split}_annotation" / video.lab, video, tracks, strict, notes)
            yield Recording(video.name, video.lab, tracks, bouts, video.labeled)


def _tracks(path: Path, video: Video, strict: bool, notes: list[Note]) -> Tracks:
    table = _table(path, TRACKING, {"video_frame": "integers", "mouse_id": "integers", "x": "numbers", "y": "numbers"})
    if not table.num_rows:
        raise UserError(f"{path}: has no row; a video has some points at least")
    frame_R, mouse_R = (table[name].to_numpy() for name in ("video_frame", "mouse_id"))
    if mouse_R.min() < 1:
        raise UserError(f"{path}: mouse_id {mouse_R.min()}; must be 1 or more")
    mice, place_R = np.unique(mouse_R, return_inverse=True)
    part_R, parts = _parts(table["bodypart"], path, video, notes)
    shape = (int(frame_R.max()) + 1, len(mice), len(parts))
    if np.prod(shape, dtype=float) > _MOST_EMPTY * table.num_rows + 1_000_000:
        raise UserError(f"{path}: frame {frame_R.max()} in a table of {table.num_rows} rows; the file is damaged")
    try:
        xy_R = np.stack([table[name].to_numpy() for name in ("x", "y")], axis=1)
        xy_TAPX = dense(frame_R, place_R, part_R, xy_R, shape)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    c = video.camera
    tracks = Tracks(xy_TAPX, tuple(f"mouse{k}" for k in mice), parts, c.fps, c.pixels_per_cm, None, c.width, c.height)
    _note_tracks(tracks, np.unique(frame_R), video, notes)
    if (fault := camera.fault(tracks)) is not None:
        if strict:
            raise UserError(f"{path}: {fault}{_RELAX}")
        notes.append(Note(video.name, "tracks", fault))
    return tracks


_RELAX = "; --data.strict false leaves such things out"


def _parts(column: pa.ChunkedArray, path: Path, video: Video, notes: list[Note]) -> tuple[np.ndarray, tuple[str, ...]]:
    """(the part of each row, all parts): those of the table of videos first, then what else is tracked."""
    coded = column.combine_chunks().dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    here = [named(str(part), f"{path}: bodypart") for part in coded.dictionary.to_pylist()]
    parts = tuple(dict.fromkeys((*video.parts, *here)))
    for which, text in (
        (set(video.parts) - set(here), "listed in the table of videos, but never tracked"),
        (set(here) - set(video.parts), "tracked, but not listed in the table of videos"),
    ):
        if which:
            notes.append(Note(video.name, "parts", f"{', '.join(sorted(which))}: {text}"))
    return np.array([parts.index(part) for part in here])[coded.indices.to_numpy()], parts


def _note_tracks(tracks: Tracks, frames: np.ndarray, video: Video, notes: list[Note]) -> None:
    if (gaps := len(tracks) - len(frames)) > 0:
        notes.append(Note(video.name, "gaps", f"{gaps} of {len(tracks)} frames have no row; they are missing"))
    if tracks.width is not None and tracks.height is not None:
        xy_NX = tracks.xy_TAPX[tracks.seen_TAP]
        outside = int(((xy_NX < 0) | (xy_NX > [tracks.width, tracks.height])).any(axis=1).sum())
        if outside:
            notes.append(Note(video.name, "outside", f"{outside} of {len(xy_NX)} points lie outside the picture; kept"))
    mouse_of = {name for one in video.labeled for name in (one.agent, one.target)} - {SELF}
    if absent := sorted(mouse_of - set(tracks.animals)):
        notes.append(Note(video.name, "mice", f"{', '.join(absent)} was looked at by annotators, but is not tracked"))
    if (video.lab, round(tracks.fps)) in MISTIMED:
        notes.append(
            Note(video.name, "mistimed", f"{video.lab} at {tracks.fps:g} fps is known for wrong times or swapped mice")
        )


def _annotated(folder: Path, video: Video, tracks: Tracks, strict: bool, notes: list[Note]) -> Bouts:
    """The bouts of a video."""
    path = folder / f"{video.name}.parquet"
    if not path.exists():
        if not video.labeled:
            notes.append(Note(video.name, "no annotations", "has no annotations; kept as unlabelled"))
        elif not folder.is_dir():
            raise UserError(f"{folder}: no such folder, but its videos were looked through; get the annotations")
        else:
            notes.append(Note(video.name, "no annotations", "has no annotation file; taken as: nothing was found"))
        return Bouts.of([])
    table = _table(path, ANNOTATION, {name: "integers" for name in ANNOTATION if name != "action"})
    bouts, wrong = _bouts(table, video, tracks)
    if wrong and strict:
        more = f"; and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(f"{path}: {wrong[0]}{more}{_RELAX}")
    notes += [Note(video.name, "left out", text) for text in wrong]
    if extra := sorted({Behaviour(*row[1:4]) for row in bouts.rows} - set(video.labeled)):
        told = "; ".join(map(str, extra))
        notes.append(Note(video.name, "not looked for", f"annotated, but not in behaviors_labeled: {told}; kept"))
    return bouts


def _bouts(table: pa.Table, video: Video, tracks: Tracks) -> tuple[Bouts, list[str]]:
    """(the bouts, what is wrong with some rows); of those nothing remains but the part before the video's end."""
    rows, wrong, frames = [], [], len(tracks)
    columns = (table[name].to_pylist() for name in ANNOTATION)
    for k, (agent_id, target_id, action, start, stop) in enumerate(zip(*columns, strict=True)):
        agent, target = f"mouse{agent_id}", SELF if target_id == agent_id else f"mouse{target_id}"
        untracked = {agent, target} - {SELF, *tracks.animals}
        told = f"row {k}: {action} of {agent} to {target}, frames {start} to {stop}"
        if action not in ACTIONS:
            wrong.append(f"{told}: the action is unknown")
        elif untracked:
            wrong.append(f"{told}: {sorted(untracked)[0]} is not tracked")
        elif not 0 <= start <= stop:
            wrong.append(f"{told}: must start at 0 or later and not end before it starts")
        elif stop > frames:
            wrong.append(f"{told}: ends past the tracks' {frames} frames")
            if start < frames:
                rows.append((video.name, agent, target, action, start, frames))
        else:
            rows.append((video.name, agent, target, action, start, stop))
    return Bouts.of(rows), wrong


def _table(path: Path, columns: tuple[str, ...], kinds: dict[str, str]) -> pa.Table:
    """Columns of a Parquet file. Raises UserError where one is missing, of another kind, or has empty cells."""
    try:
        with pq.ParquetFile(path) as stream:
            names = stream.schema_arrow.names
            if missing := [name for name in columns if name not in names]:
                raise UserError(f"{path}: has no column {', '.join(missing)}; it has {', '.join(names)}")
            table = stream.read(list(columns))
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise files.explain(error, path) from error
        raise UserError(f"{path}: is no whole Parquet file ({str(error).splitlines()[0][:80]})") from error
    for name in columns:
        kind, type_ = kinds.get(name, "texts"), table.schema.field(name).type
        if pa.types.is_dictionary(type_):
            type_ = type_.value_type
        right = {
            "integers": pa.types.is_integer(type_),
            "numbers": pa.types.is_floating(type_) or pa.types.is_integer(type_),
            "texts": pa.types.is_string(type_) or pa.types.is_large_string(type_),
        }[kind]
        if not right:
            raise UserError(f"{path}: column {name} holds {type_}; must be {kind}")
        if kind != "numbers" and table[name].null_count:
            raise UserError(f"{path}: column {name} has {table[name].null_count} empty cells")
    return table
