"""One's own recordings by a table, and trackers' files by their content."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from mabe_behavior.actions import Behaviour
from mabe_behavior.bouts import Bouts
from mabe_behavior.data_config import Data
from mabe_behavior.formats import bento, own, trackers
from mabe_behavior.formats.trackers import Told
from mabe_behavior.simulation import labs, simulator
from mabe_behavior.tracks import Tracks
from shared_core.errors import UserError

FPS, SCALE = 30.0, 18.33


def table(path: Path, tracks: Tracks, behaviours: dict[str, np.ndarray] | None = None, called: str = "{part}") -> Path:
    """SimBA's table of all parts, and a column of 0 and 1 for each behaviour."""
    xy = np.nan_to_num(tracks.filled(100.0).xy_TAPX, nan=40.0)
    names = [
        f"{called.format(part=part)}_{a + 1}_{x}"
        for a in range(len(tracks.animals))
        for part in tracks.parts
        for x in "xyp"
    ]
    values = np.concatenate([xy, np.ones((*xy.shape[:3], 1))], axis=-1).reshape(len(xy), -1)
    extra = behaviours or {}
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*names, *extra])
        for t, row in enumerate(values):
            writer.writerow([*(f"{value:.3f}" for value in row), *(int(done[t]) for done in extra.values())])
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two recordings: one annotated by BENTO, one in SimBA's own columns."""
    first, second = (simulator.simulate(labs.lab("resident"), seed, 10.0) for seed in (0, 1))
    table(tmp_path / "one.csv", first.tracks)
    bouts = Bouts.of([("one", "mouse1", "mouse2", "attack", 30, 60), ("one", "mouse1", "self", "rear", 100, 150)])
    bento.write(tmp_path / "one.annot", bouts, FPS, len(first.tracks))
    done = np.zeros(len(second.tracks), bool)
    done[20:50] = True
    table(tmp_path / "two.csv", second.tracks, {"Attacks": done})
    write(tmp_path, [["one.csv", "a", "one.annot", ""], ["two.csv", "b", "", "Attacks=mouse1,mouse2,attack"]])
    return tmp_path


def write(folder: Path, rows: list[list[str]]) -> None:
    with (folder / own.TABLE).open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["tracks", "lab", "annotations", "behaviors", "fps", "pixels_per_cm"])
        writer.writerows([*row, FPS, SCALE] for row in rows)


def test_a_table_names_tracks_and_annotations(folder: Path) -> None:
    first, second = own.each(folder)
    assert (first.name, first.lab, second.name, second.lab) == ("one", "a", "two", "b")
    assert [row[3:] for row in first.bouts.rows] == [("attack", 30, 60), ("rear", 100, 150)]
    assert second.bouts.rows == [("two", "mouse1", "mouse2", "attack", 20, 50)]
    assert second.labeled == (Behaviour("mouse1", "mouse2", "attack"),)
    assert {one.action for one in first.labeled} == {"attack", "rear"}
    assert first.tracks.fps == FPS and first.tracks.animals == ("mouse1", "mouse2")
    assert set(own.sources(folder)) == {"table", "2 tracks", "2 annotations", "3 tracks"}


def test_it_is_a_source(folder: Path) -> None:
    from mabe_behavior import sources

    data = Data(source="files", path=folder)
    assert [one.name for one in sources.each(data)] == ["one", "two"]
    assert [one.name for one in sources.each(data.model_copy(update={"labs": ("b",)}))] == ["two"]
    before = sources.origin(data)
    assert before["2 annotations"] == folder / "one.annot"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([["none.csv", "", "", ""]], "line 2: tracks: .*none.csv: no such file"),
        ([["one.csv", "", "", ""], ["one.csv", "", "", ""]], "line 3: recording one comes twice"),
        ([["one.csv", "", "", "mouse1,attack"]], "line 2: behaviors: 'mouse1,attack'"),
        ([["one.csv", "", "", "Bites=mouse1,mouse2,attack"]], "has no column 'Bites'"),
        ([["one.csv", "", "late.annot", ""]], "ends in frame 400, past the tracks' 300"),
        ([["one.csv", "", "third.annot", ""]], "is of mouse3, which is not tracked"),
        ([], "names no recording"),
    ],
)
def test_a_mistake_is_named_with_its_line(folder: Path, rows: list[list[str]], said: str) -> None:
    late = Bouts.of([("x", "mouse1", "mouse2", "attack", 390, 400)])
    bento.write(folder / "late.annot", late, FPS, 400)
    third = Bouts.of([("x", "mouse1", "mouse3", "attack", 3, 4)])
    bento.write(folder / "third.annot", third, FPS, 300)
    write(folder, rows)
    with pytest.raises(UserError, match=said):
        list(own.each(folder))


def test_unknown_columns_and_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    for text, said in (
        ("track,fps\na.csv,30\n", "no column tracks"),
        ("tracks,rate\na.csv,30\n", "unknown column 'rate'"),
        ("tracks,fps\na.csv\n", "more or fewer cells"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=said):
            list(own.each(path))
    (tmp_path / "a.csv").write_text("x\n")
    for text, said in (
        ("tracks,fps\na.csv,fast\n", "fps is 'fast'"),
        ("tracks,format\na.csv,dlc\n", "format 'dlc'"),
        ("tracks,split\na.csv,val\n", "split 'val'"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=f"line 2: {said}"):
            list(own.each(path))


def test_parts_may_be_renamed_and_left_out(tmp_path: Path) -> None:
    tracks = simulator.simulate(labs.lab("resident"), 0, 5.0).tracks.of_parts(("nose", "tail_base"))
    path = table(tmp_path / "odd.csv", tracks, called="My_{part}")
    with pytest.raises(UserError, match="My_nose"):
        trackers.read(path, "auto", Told(FPS, SCALE))
    found = trackers.read(path, "auto", Told(FPS, SCALE, parts="My_nose=nose,My_tail_base="))
    assert found.parts == ("nose",)
    with pytest.raises(UserError, match="each name once"):
        trackers.read(path, "auto", Told(FPS, SCALE, parts="My_nose"))


def test_what_a_file_does_not_say_must_be_told_and_what_it_says_must_not(tmp_path: Path) -> None:
    tracks = simulator.simulate(labs.lab("resident"), 0, 5.0).tracks
    path = table(tmp_path / "a.csv", tracks)
    assert trackers.recognised(path) == "simba"
    with pytest.raises(UserError, match="give --fps"):
        trackers.read(path, "auto", Told())
    with pytest.raises(UserError, match="--identities: a file of simba says"):
        trackers.read(path, "auto", Told(FPS, SCALE, identities="a=mouse1"))
    with pytest.raises(UserError, match="say its format"):
        trackers.recognised(tmp_path / "a.txt")
