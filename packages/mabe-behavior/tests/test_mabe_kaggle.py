"""The Kaggle challenge's folder, by look-alikes: nothing odd passes unnoticed, and nothing is moved."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mabe_behavior.actions import Behaviour
from mabe_behavior.formats import kaggle, videos
from shared_core.errors import UserError

RNG = np.random.default_rng(0)
PARTS = ["nose", "ear_left", "tail_base"]
T = 20
SNIFF, REAR = Behaviour("mouse1", "mouse2", "sniff"), Behaviour("mouse2", "self", "rear")


def cells(**change: str) -> dict[str, str]:
    return {
        **dict.fromkeys(videos.COLUMNS, ""),
        **{"lab_id": "Lab", "video_id": "7", "frames_per_second": "30.0", "pix_per_cm_approx": "16.5"},
        **{"video_width_pix": "800", "video_height_pix": "400", "mouse1_id": "10.0"},
        "body_parts_tracked": json.dumps(PARTS),
        "behaviors_labeled": json.dumps(["mouse1,mouse2,sniff", "mouse2,self,rear"]),
        **change,
    }


def listed(path: Path, *rows: dict[str, str], columns: tuple[str, ...] = videos.COLUMNS) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def tracking(**change: Any) -> dict[str, list]:
    rows = [(t, mouse, part) for t in range(T) for mouse in (1, 2) for part in PARTS]
    frame, mouse, part = (list(column) for column in zip(*rows, strict=True))
    x, y = RNG.uniform(0, 800, len(rows)).tolist(), RNG.uniform(0, 400, len(rows)).tolist()
    return {**{"video_frame": frame, "mouse_id": mouse, "bodypart": part, "x": x, "y": y}, **change}


def annotation(*rows: tuple[int, int, str, int, int]) -> dict[str, list]:
    columns = zip(*rows, strict=True) if rows else [[]] * 5
    return {name: list(column) for name, column in zip(kaggle.ANNOTATION, columns, strict=True)}


def parquet(path: Path, columns: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


GOOD = annotation((1, 2, "sniff", 3, 9), (2, 2, "rear", 0, 4), (1, 2, "sniff", 15, T))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    listed(tmp_path / "train.csv", cells())
    parquet(tmp_path / "train_tracking/Lab/7.parquet", tracking())
    parquet(tmp_path / "train_annotation/Lab/7.parquet", GOOD)
    return tmp_path


def kinds(notes: list[kaggle.Note]) -> list[str]:
    return [note.kind for note in notes]


def test_a_video_as_it_should_be(folder: Path) -> None:
    held = tracking()
    order = RNG.permutation(len(held["x"]))  # rows may come in any order
    parquet(folder / "train_tracking/Lab/7.parquet", {k: np.array(column)[order] for k, column in held.items()})
    notes: list[kaggle.Note] = []
    (found,) = kaggle.read(folder, notes=notes)
    assert notes == [] and (found.name, found.lab, found.split) == ("7", "Lab", None)
    tracks = found.tracks
    assert (tracks.fps, tracks.pixels_per_cm, tracks.width, tracks.height) == (30.0, 16.5, 800.0, 400.0)
    assert tracks.animals == ("mouse1", "mouse2") and tracks.parts == tuple(PARTS) and len(tracks) == T
    for k in range(0, len(held["x"]), 17):
        place = (held["video_frame"][k], held["mouse_id"][k] - 1, PARTS.index(held["bodypart"][k]))
        assert tracks.xy_TAPX[place] == pytest.approx([held["x"][k], held["y"][k]], rel=1e-6)
    assert found.labeled == (SNIFF, REAR)
    assert found.bouts.rows == [
        ("7", "mouse1", "mouse2", "sniff", 3, 9),
        ("7", "mouse2", "self", "rear", 0, 4),
        ("7", "mouse1", "mouse2", "sniff", 15, T),
    ]


def test_parts_in_a_dictionary_and_many_row_groups(folder: Path) -> None:
    held = tracking()
    parquet(folder / "train_tracking/Lab/7.parquet", held)
    (plain,) = kaggle.read(folder)
    coded = pa.table({**held, "bodypart": pa.array(held["bodypart"]).dictionary_encode()})
    pq.write_table(coded, folder / "train_tracking/Lab/7.parquet", row_group_size=11)
    (found,) = kaggle.read(folder)
    assert np.array_equal(found.tracks.xy_TAPX, plain.tracks.xy_TAPX)


def test_missing_frames_and_points_stay_missing_and_labels_do_not_move(folder: Path) -> None:
    held = tracking()
    keep = [k for k, t in enumerate(held["video_frame"]) if t not in (4, 5) and k != 60]
    parquet(folder / "train_tracking/Lab/7.parquet", {name: [column[k] for k in keep] for name, column in held.items()})
    notes: list[kaggle.Note] = []
    (found,) = kaggle.read(folder, notes=notes)
    assert len(found.tracks) == T and np.isnan(found.tracks.xy_TAPX[[4, 5]]).all()
    assert (~found.tracks.seen_TAP).sum() == 2 * 2 * 3 + 1 and found.bouts.rows[0][4:] == (3, 9)
    assert kinds(notes) == ["gaps"] and str(notes[0]) == "video 7: 2 of 20 frames have no row; they are missing"


def test_what_is_odd_is_noted(folder: Path) -> None:
    rows = [
        cells(),
        cells(video_id="8", behaviors_labeled=""),
        cells(video_id="9"),
        cells(
            video_id="10",
            lab_id="AdaptableSnail",
            frames_per_second="25.0",
            behaviors_labeled="""["mouse1','mouse2','attack'", "mouse1,mouse2,attack", "mouse3,mouse1,chase"]""",
            body_parts_tracked='["nose", "ear_left", "ear_right"]',
        ),
    ]
    listed(folder / "train.csv", *rows)
    held = tracking()
    held["x"][0], held["y"][5] = -3.0, 401.0
    for name in ("Lab/8", "Lab/9", "AdaptableSnail/10"):
        parquet(folder / f"train_tracking/{name}.parquet", held)
    parquet(folder / "train_annotation/AdaptableSnail/10.parquet", annotation((2, 1, "sniff", 0, 5)))
    notes: list[kaggle.Note] = []
    found = {one.name: one for one in kaggle.read(folder, notes=notes)}
    assert list(found) == ["7", "8", "9", "10"]
    assert found["8"].labeled == () and len(found["8"].bouts) == 0  # nobody looked
    assert found["9"].labeled == (SNIFF, REAR) and len(found["9"].bouts) == 0  # looked, and found nothing
    assert found["10"].labeled == (Behaviour("mouse1", "mouse2", "attack"), Behaviour("mouse3", "mouse1", "chase"))
    assert found["10"].tracks.parts == ("nose", "ear_left", "ear_right", "tail_base")
    assert not found["10"].tracks.seen_TAP[:, :, 2].any() and len(found["10"].bouts) == 1
    by_video = {name: sorted(note.kind for note in notes if note.video == name) for name in found}
    assert by_video == {
        "7": [],
        "8": ["no annotations", "outside"],
        "9": ["no annotations", "outside"],
        "10": ["mice", "mistimed", "not looked for", "outside", "parts", "parts", "quotes"],
    }
    assert "2 of 120 points lie outside the picture" in next(note.text for note in notes if note.kind == "outside")
    assert [one.name for one in kaggle.read(folder, labs=["AdaptableSnail"])] == ["10"]


@pytest.mark.parametrize(
    "texts",
    [
        ["'mouse1','mouse2','sniff'"],
        ["mouse1','mouse2','sniff'"],
        ["'mouse1','mouse2','sniff'", "mouse1,mouse2,sniff"],
    ],
)
def test_all_real_kinds_of_stray_quotes(folder: Path, texts: list[str]) -> None:
    listed(folder / "train.csv", cells(behaviors_labeled=json.dumps(texts)))
    notes: list[kaggle.Note] = []
    (found,) = kaggle.read(folder, notes=notes)
    assert found.labeled == (SNIFF,) and "quotes" in kinds(notes)


@pytest.mark.parametrize(
    ("rows", "strict_message", "left"),
    [
        (
            [(1, 2, "sniff", 3, T + 5)],
            "sniff of mouse1 to mouse2, frames 3 to 25: ends past the tracks' 20 frames",
            [(3, T)],
        ),
        ([(1, 2, "sniff", T, T + 5)], "ends past the tracks' 20 frames", []),
        ([(1, 2, "dance", 3, 5)], "dance of mouse1 to mouse2, frames 3 to 5: the action is unknown", []),
        ([(1, 3, "sniff", 3, 5)], "mouse3 is not tracked", []),
        ([(1, 2, "sniff", 5, 3)], "must start at 0 or later and not end before it starts", []),
        ([(1, 2, "sniff", -1, 3)], "must start at 0 or later", []),
        (
            [(1, 2, "dance", 0, 1), (1, 2, "sniff", 0, 1), (1, 9, "sniff", 0, 1)],
            "unknown; and 1 more; --data.strict",
            [(0, 1)],
        ),
    ],
)
def test_annotations_that_cannot_be(folder: Path, rows: list, strict_message: str, left: list) -> None:
    parquet(folder / "train_annotation/Lab/7.parquet", annotation(*rows))
    with pytest.raises(UserError, match=strict_message) as caught:
        kaggle.read(folder)
    assert "--data.strict false" in str(caught.value) and "\n" not in str(caught.value)
    notes: list[kaggle.Note] = []
    (found,) = kaggle.read(folder, strict=False, notes=notes)
    assert [row[4:] for row in found.bouts.rows] == left and "left out" in kinds(notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bodypart": None}, "has no column bodypart; it has video_frame, mouse_id, x, y"),
        ({"bodypart": ["wing"] * 120}, "'wing' is no body part"),
        ({"bodypart": [None] * 60 + ["nose"] * 60}, "column bodypart has 60 empty cells"),
        ({"mouse_id": ["mouse1"] * 120}, "column mouse_id holds string; must be integers"),
        ({"mouse_id": [0] * 120}, "mouse_id 0; must be 1 or more"),
        ({"x": ["1"] * 120}, "column x holds string; must be numbers"),
        ({"video_frame": [0] * 120}, "two of the same frame, animal and part"),
        ({"video_frame": [-1, *range(119)]}, "frame: -1 to"),
        ({"video_frame": [*range(119), 10**9]}, "frame 1000000000 in a table of 120 rows; the file is damaged"),
        ({"x": [float("nan")] * 120}, "no point is seen in any frame"),
        ({name: [] for name in ("video_frame", "mouse_id", "bodypart", "x", "y")}, "(has no row|holds null)"),
    ],
)
def test_tracks_that_cannot_be(folder: Path, change: dict[str, Any], message: str) -> None:
    held = {name: column for name, column in tracking(**change).items() if column is not None}
    parquet(folder / "train_tracking/Lab/7.parquet", held)
    with pytest.raises(UserError, match=message):
        kaggle.read(folder)


def test_swapped_axes_leave_the_picture(folder: Path) -> None:
    held = tracking()
    parquet(folder / "train_tracking/Lab/7.parquet", {**held, "x": held["y"], "y": held["x"]})
    with pytest.raises(UserError, match="100% when x and y change places; swap the axes"):
        kaggle.read(folder)
    notes: list[kaggle.Note] = []
    assert len(kaggle.read(folder, strict=False, notes=notes)) == 1 and kinds(notes) == ["outside", "tracks"]


def test_files_that_are_missing_or_damaged(folder: Path) -> None:
    (folder / "train_annotation/Lab/7.parquet").unlink()
    (folder / "train_annotation/Lab").rmdir()
    with pytest.raises(UserError, match="Lab: no such folder, but its videos were looked through"):
        kaggle.read(folder)
    parquet(folder / "train_annotation/Lab/7.parquet", {"agent_id": [1], "target_id": [2], "action": ["sniff"]})
    with pytest.raises(UserError, match="has no column start_frame, stop_frame"):
        kaggle.read(folder)
    (folder / "train_tracking/Lab/7.parquet").write_bytes(b"PAR1 and then nothing of it")
    with pytest.raises(UserError, match="is no whole Parquet file"):
        kaggle.read(folder)
    parquet(folder / "train_tracking/Lab/7.parquet", tracking())
    data = bytearray((folder / "train_tracking/Lab/7.parquet").read_bytes())
    data[4:200] = b"\xff" * 196  # whole at its ends, damaged within
    (folder / "train_tracking/Lab/7.parquet").write_bytes(data)
    with pytest.raises(UserError, match="is no whole Parquet file") as caught:
        kaggle.read(folder)
    assert "\n" not in str(caught.value)
    (folder / "train_tracking/Lab/7.parquet").unlink()
    with pytest.raises(UserError, match="no such file"):
        kaggle.read(folder)
    notes: list[kaggle.Note] = []
    assert kaggle.read(folder, strict=False, notes=notes) == [] and kinds(notes) == ["left out"]
    with pytest.raises(UserError, match="no lab Nobody; there are Lab"):
        kaggle.read(folder, labs=["Nobody"])
    (folder / "train.csv").unlink()
    with pytest.raises(UserError, match=r"train\.csv: no such file"):
        kaggle.read(folder)


def test_the_videos_of_the_test(folder: Path) -> None:
    listed(folder / "test.csv", cells(video_id="99"))
    parquet(folder / "test_tracking/Lab/99.parquet", tracking())
    (found,) = kaggle.read(folder, "test")
    assert (found.name, found.split, found.labeled, len(found.bouts)) == ("99", "test", (SNIFF, REAR), 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames_per_second": "fast"}, "line 2: video 7: frames_per_second is 'fast'; must be a number above 0"),
        ({"pix_per_cm_approx": ""}, "pix_per_cm_approx is ''"),
        ({"behaviors_labeled": "mouse1,mouse2,sniff"}, "video 7: behaviors_labeled: is not JSON"),
        ({"behaviors_labeled": '["mouse1,sniff"]'}, "must be AGENT,TARGET,ACTION"),
        ({"behaviors_labeled": '["1,2,sniff"]'}, "must be mouse1, mouse2"),
        (
            {"behaviors_labeled": '["mouse1,mouse2,dance"]'},
            "has 'mouse1,mouse2,dance', an action that the challenge does not",
        ),
        ({"body_parts_tracked": '["wing"]'}, "body_parts_tracked: 'wing' is no body part"),
        ({"body_parts_tracked": "nose"}, "body_parts_tracked is not JSON"),
        ({"video_id": "../7"}, "video_id is '../7'; must be a name that a file can have"),
        ({"lab_id": ""}, "lab_id is ''"),
    ],
)
def test_a_row_that_cannot_be(tmp_path: Path, change: dict[str, str], message: str) -> None:
    listed(tmp_path / "train.csv", cells(**change))
    with pytest.raises(UserError, match=message):
        videos.read(tmp_path / "train.csv")


def test_a_table_that_cannot_be(tmp_path: Path) -> None:
    assert len(videos.COLUMNS) == 38 and videos.COLUMNS[36:] == ("behaviors_labeled", "tracking_method")
    listed(tmp_path / "a.csv", cells(), columns=tuple(name for name in videos.COLUMNS if name != "lab_id"))
    with pytest.raises(UserError, match="has no column lab_id"):
        videos.read(tmp_path / "a.csv")
    listed(tmp_path / "a.csv", cells(), cells())
    with pytest.raises(UserError, match="has video 7 twice"):
        videos.read(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open("a") as stream:
        stream.write("Lab,8\n")
    with pytest.raises(UserError, match="line 4: has more or fewer cells than the header"):
        videos.read(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match="is no csv"):
        videos.read(tmp_path / "a.csv")
