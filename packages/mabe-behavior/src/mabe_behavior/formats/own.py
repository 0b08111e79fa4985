"""One's own recordings: a table, csv, of tracks and annotations that lie in files of their own.

| column          | what                                                                                             |
|-----------------|--------------------------------------------------------------------------------------------------|
| `tracks`        | a tracker's file, relative to the table                                                          |
| `lab`           | whose setup and annotators: thresholds are tuned for each; default: own                          |
| `name`          | of the recording; default: the file's                                                            |
| `format`        | of the tracks; default: auto                                                                     |
| `fps`, `pixels_per_cm`, `identities`, `parts` | as the flags of `predict`                                          |
| `annotations`   | a BENTO file; empty: none, or the columns of a SimBA table that `behaviors` names                |
| `behaviors`     | what annotators looked for: AGENT,TARGET,ACTION;AGENT,TARGET,ACTION; in a SimBA table            |
|                 | COLUMN=AGENT,TARGET,ACTION. Default: what the annotations have                                   |
| `split`         | train or test, for split.kind given                                                              |
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from mabe_behavior.actions import Behaviour, behaviour
from mabe_behavior.bouts import Bouts
from mabe_behavior.formats import bento, simba, textfile, trackers
from mabe_behavior.formats.trackers import Told
from mabe_behavior.recording import Recording
from mabe_behavior.tracks import Tracks
from shared_core.errors import UserError

TABLE = "recordings.csv"
COLUMNS = (
    *("tracks", "lab", "name", "format", "fps", "pixels_per_cm", "identities", "parts"),
    *("annotations", "behaviors", "split"),
)
Row = Mapping[str, str]


def each(path: Path) -> Iterator[Recording]:
    """The recordings of a table, or of the `recordings.csv` of a folder, one after another.

    Raises UserError with the line where a column is unknown, a file is missing or cannot be read, a recording comes
    twice, or annotations go past the tracks' end.
    """
    path = path / TABLE if path.is_dir() else path
    seen: set[str] = set()
    for number, row in _rows(path):
        where = f"{path}: line {number}"
        one = _recording(row, path.parent, where)
        if one.name in seen:
            raise UserError(f"{where}: recording {one.name} comes twice; give it another name")
        seen.add(one.name)
        yield one


def sources(path: Path) -> dict[str, Path]:
    """The table and all files that it names, for a fingerprint."""
    path = path / TABLE if path.is_dir() else path
    found = {"table": path}
    for number, row in _rows(path):
        found |= {f"{number} {name}": path.parent / row[name] for name in ("tracks", "annotations") if row.get(name)}
    return found


def _rows(path: Path) -> list[tuple[int, Row]]:
    with textfile.opened(path, "csv") as stream:
        reader = csv.DictReader(stream)
        header = reader.fieldnames or []
        if "tracks" not in header or (unknown := [name for name in header if name not in COLUMNS]):
            wrong = "no column tracks" if "tracks" not in header else f"an unknown column {unknown[0]!r}"
            raise UserError(f"{path}: has {wrong}; columns are {', '.join(COLUMNS)}")
        found = []
        for row in reader:
            if None in row or None in row.values():
                raise UserError(f"{path}: line {reader.line_num}: has more or fewer cells than the header")
            found.append((reader.line_num, {name: value.strip() for name, value in row.items()}))
    if not found:
        raise UserError(f"{path}: names no recording; give each a line")
    return found


def _recording(row: Row, folder: Path, where: str) -> Recording:
    path = folder / row["tracks"]
    if not row["tracks"] or not path.is_file():
        raise UserError(f"{where}: tracks: {path}: no such file")
    kind = row.get("format") or "auto"
    if kind not in ("auto", *trackers.FORMATS):
        raise UserError(f"{where}: format {kind!r}; must be auto or one of {', '.join(trackers.FORMATS)}")
    if (split := row.get("split") or None) not in (None, "train", "test"):
        raise UserError(f"{where}: split {split!r}; must be train or test, or empty")
    told = Told(
        _number(row, "fps", where),
        _number(row, "pixels_per_cm", where),
        row.get("identities") or None,
        row.get("parts") or None,
        prefix=f"{where}: ",
    )
    tracks = trackers.read(path, kind, told)
    name = row.get("name") or path.stem
    looked_for = _looked_for(row.get("behaviors", ""), f"{where}: behaviors")
    bouts = _bouts(row, path, folder, name, tracks, told, looked_for, where)
    labeled = tuple(dict.fromkeys(looked_for.values())) or tuple(sorted({Behaviour(*line[1:4]) for line in bouts.rows}))
    return Recording(name, row.get("lab") or "own", tracks, bouts, labeled, split)


def _number(row: Row, name: str, where: str) -> float | None:
    text = row.get(name)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UserError(f"{where}: {name} is {text!r}; must be a number above 0")
    return value


def _looked_for(text: str, where: str) -> dict[str, Behaviour]:
    """Column of a SimBA table, or the behaviour's own text -> behaviour."""
    found = {}
    for piece in filter(None, (one.strip() for one in text.split(";"))):
        column, equals, rest = piece.partition("=")
        found[column if equals else piece] = behaviour(rest if equals else piece, where)
    return found


def _bouts(
    row: Row,
    path: Path,
    folder: Path,
    name: str,
    tracks: Tracks,
    told: Told,
    looked_for: Mapping[str, Behaviour],
    where: str,
) -> Bouts:
    if row.get("annotations"):
        found = bento.read(folder / row["annotations"], name, fps=told.fps)
    else:
        columns = {column: one for column, one in looked_for.items() if column != str(one)}
        if not columns:
            return Bouts.of([])
        bouts = simba.read(path, told.camera(path), columns, told.called)[0].bouts
        found = Bouts.of((name, *line[1:]) for line in bouts.rows)
    for _, agent, target, action, _, stop in found.rows:
        if stop > len(tracks):
            raise UserError(f"{where}: {action} of {agent} ends in frame {stop}, past the tracks' {len(tracks)}")
        if missing := {agent, target} - {"self", *tracks.animals}:
            raise UserError(f"{where}: {action} is of {sorted(missing)[0]}, which is not tracked; see identities")
    return found
