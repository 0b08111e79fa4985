"""Prepared sets, duplicates, and which recordings train and judge."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mabe_behavior import division, duplicates, prepare, store
from mabe_behavior.data_config import Data, Split
from mabe_behavior.recording import Recording
from mabe_behavior.simulation import labs, simulator
from shared_core import prepared
from shared_core.errors import UserError

SAMPLE = Data(sample_videos=3, sample_seconds=6, labs=("resident", "slow", "three"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("set")
    prepare.prepare(SAMPLE, Split(folds=2), found, bar=False)
    return found


def recordings(folder: Path) -> list[Recording]:
    return [store.read(folder, number, row) for number, row in enumerate(store.index(folder))]


def test_a_sample_is_what_the_simulator_makes(folder: Path) -> None:
    made = [
        simulator.simulate(lab, number, 6.0)
        for lab in labs.LABS
        if lab.name in SAMPLE.labs
        for number in range(SAMPLE.sample_videos)
    ]
    found = recordings(folder)
    assert [one.name for one in found] == [one.name for one in made]
    for one, other in zip(found, made, strict=True):
        assert np.array_equal(one.tracks.xy_TAPX, other.tracks.xy_TAPX, equal_nan=True)
        assert one.bouts.rows == other.bouts.rows
        assert one.labeled == other.labeled
        assert (one.tracks.fps, one.tracks.parts, one.lab) == (other.tracks.fps, other.tracks.parts, other.lab)
        assert (one.tracks.confidence_TAP is None) == (other.tracks.confidence_TAP is None)


def test_preparing_again_does_nothing_and_another_seed_everything(folder: Path, tmp_path: Path, capsys) -> None:
    before = (folder / prepared.NAME).stat().st_mtime_ns
    prepare.prepare(SAMPLE, Split(folds=2), folder, bar=False)
    assert (folder / prepared.NAME).stat().st_mtime_ns == before
    assert "up to date" in capsys.readouterr().err
    one = prepare.prepare(SAMPLE, Split(folds=2), tmp_path / "a", bar=False)
    other = SAMPLE.model_copy(update={"sample_seed": 1, "sample_videos": 2})
    prepare.prepare(other, Split(folds=2, test=0.5), tmp_path / "a", bar=False)
    assert "sample_seed: 0 -> 1" in capsys.readouterr().err
    assert prepared.read_manifest(tmp_path / "a")["fingerprint"] != one["fingerprint"]
    assert len(list((tmp_path / "a" / store.TRACKS).iterdir())) == 6  # the nine of before are gone


def test_a_damaged_file_is_named(folder: Path, tmp_path: Path) -> None:
    rows = store.index(folder)
    (tmp_path / store.TRACKS).mkdir()
    (tmp_path / store.tracks_file(0)).write_bytes((folder / store.tracks_file(0)).read_bytes()[:200])
    with pytest.raises(UserError, match=r"00000\.npz"):
        store.read(tmp_path, 0, rows[0])
    (tmp_path / store.INDEX).write_text("{}")
    with pytest.raises(UserError, match="prepare"):
        store.index(tmp_path)


def test_counts_are_those_of_the_recordings(folder: Path) -> None:
    counts = prepared.read_manifest(folder)["counts"]
    found = recordings(folder)
    assert counts["recordings"] == len(found) == 9
    for name, of in counts["labs"].items():
        mine = [one for one in found if one.lab == name]
        assert of["recordings"] == len(mine)
        assert of["frames"] == sum(len(one.tracks) for one in mine)
        assert sum(of["bouts"].values()) == sum(len(one.bouts) for one in mine)


def test_an_unknown_lab_and_a_missing_download_get_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no nowhere.*resident"):
        prepare.prepare(SAMPLE.model_copy(update={"labs": ("nowhere",)}), Split(), tmp_path / "a", bar=False)
    with pytest.raises(UserError, match="--data"):
        prepare.prepare(Data(source="kaggle"), Split(), tmp_path / "b", bar=False)
    with pytest.raises(UserError, match="no such"):
        prepare.prepare(Data(source="calms21", path=tmp_path / "none"), Split(), tmp_path / "c", bar=False)


def test_the_same_video_is_found_whatever_it_is_called() -> None:
    """Cut differently, with mice and parts in another order, rounded to a hundredth of a pixel."""
    one, other = (simulator.simulate(labs.lab("resident"), seed, 30.0) for seed in (0, 1))
    tracks = one.tracks
    cut = replace(tracks, xy_TAPX=np.round(tracks.xy_TAPX[200:800], 2))
    turned = tracks.of_animals(tracks.animals[::-1]).of_parts(tracks.parts[::-1])
    marks = [duplicates.marks(it) for it in (tracks, other.tracks, cut, turned)]
    assert min(map(len, marks)) > 10
    assert duplicates.groups(marks).tolist() == [0, 1, 0, 0]


def test_a_still_picture_is_not_the_same_video() -> None:
    """A few frames in common, such as of a mouse that does not move before both videos begin, are not enough."""
    one, other = (simulator.simulate(labs.lab("resident"), seed, 30.0).tracks for seed in (0, 1))
    xy = other.xy_TAPX.copy()
    xy[:45] = one.xy_TAPX[:45]
    marks = [duplicates.marks(one), duplicates.marks(replace(other, xy_TAPX=xy))]
    assert duplicates.groups(marks).tolist() == [0, 1]


def rows(count: int = 12, labs_: int = 3, **more: object) -> list[dict]:
    made = [
        {"name": str(n), "lab": f"lab{n % labs_}", "video": n, "animal": None, "split": None, "labeled": ["a"]}
        for n in range(count)
    ]
    return [{**row, **more} for row in made]


def test_parts_share_nothing_and_every_lab_is_in_both() -> None:
    given = rows(30)
    for n in range(0, 30, 6):  # pairs of recordings of the same video, across laboratories
        given[n + 1]["video"] = n
    given[4]["animal"] = given[7]["animal"] = "mouse9"  # of the same laboratory
    found = division.divide(given, Split(test=0.3))
    train, test = set(found.train.tolist()), set(found.test.tolist())
    assert not train & test and len(train | test) == 30
    assert {given[n]["lab"] for n in train} == {given[n]["lab"] for n in test} == {"lab0", "lab1", "lab2"}
    fold_of = dict(zip(found.train.tolist(), found.fold.tolist(), strict=True))
    assert set(fold_of.values()) == {0, 1, 2} and found.folds == 3
    for first, second in [(n, n + 1) for n in range(0, 30, 6)] + [(4, 7)]:
        assert (first in test) == (second in test)
        assert fold_of.get(first) == fold_of.get(second)
    again = division.divide(given, Split(test=0.3))
    assert np.array_equal(again.test, found.test) and np.array_equal(again.fold, found.fold)


def test_a_held_out_lab_teaches_nothing_not_even_by_a_copy() -> None:
    given = rows(12)
    given[3]["video"] = given[1]["video"]  # lab0 annotated a video of lab1
    found = division.divide(given, Split(kind="lab", test_labs=("lab1",)))
    assert {given[n]["lab"] for n in found.test.tolist()} == {"lab1"}
    assert 3 not in found.train and 3 not in found.test
    by_lab = division.divide(given, Split(kind="lab", test_labs=("lab1",), folds=2, folds_by="lab"))
    labs_of = [{given[n]["lab"] for n in by_lab.train[by_lab.fold == fold].tolist()} for fold in range(2)]
    assert labs_of[0].isdisjoint(labs_of[1])


def test_a_given_split_is_the_sources() -> None:
    given = rows(9)
    for n in (2, 5):
        given[n]["split"] = "test"
    assert division.divide(given, Split(kind="given")).test.tolist() == [2, 5]


@pytest.mark.parametrize(
    ("given", "split", "said"),
    [
        (rows(4, labeled=[]), Split(), "no recording has annotations"),
        (rows(9), Split(kind="given"), "names no recording of a test"),
        (rows(9), Split(kind="lab", test_labs=("lab7",)), "no lab7; there are lab0"),
        (rows(9), Split(kind="lab", test_labs=("lab0", "lab1", "lab2")), "0 recordings train"),
        (rows(9), Split(kind="lab", test_labs=("lab0",), folds=3, folds_by="lab"), "only 2 laboratories"),
        (rows(9, video=1), Split(), "all recordings are of one video"),
    ],
)
def test_what_cannot_be_divided_gets_one_line(given: list[dict], split: Split, said: str) -> None:
    with pytest.raises(UserError, match=said):
        division.divide(given, split)


def test_recordings_without_annotations_are_in_no_part() -> None:
    given = rows(12)
    given[0]["labeled"] = []
    found = division.divide(given, Split())
    assert 0 not in [*found.train.tolist(), *found.test.tolist()]


def test_a_set_without_any_annotation_is_prepared_for_predictions(tmp_path: Path) -> None:
    counts = prepare.describe([{**row, "frames": 10, "fps": 5.0, "bouts": []} for row in rows(3, labeled=[])], Split())
    assert "no recording has annotations" in counts["splits"]["none"] and counts["without annotations"] == 3
    assert json.dumps(counts)


def test_a_failed_prepare_leaves_the_set_that_is_there(tmp_path: Path) -> None:
    """A typing error in a path must not cost hours."""
    folder = tmp_path / "set"
    prepare.prepare(SAMPLE, Split(folds=2), folder, bar=False)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="no nowhere"):
        prepare.prepare(SAMPLE.model_copy(update={"labs": ("resident", "nowhere")}), Split(), folder, bar=False)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_a_split_that_does_not_fit_is_noted_and_the_set_stays(tmp_path: Path, capsys) -> None:
    few = SAMPLE.model_copy(update={"sample_videos": 1, "labs": ("resident",)})
    counts = prepare.prepare(few, Split(folds=2), tmp_path / "set", bar=False)["counts"]
    assert "all recordings are of one video" in counts["splits"]["none"]
    assert "all recordings are of one video" in capsys.readouterr().err
