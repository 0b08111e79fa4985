"""Trackers' files: every point where its tool put it, under one name; what was not seen is missing."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mabe_behavior import camera, deeplabcut, jabs, simba, sleap
from mabe_behavior.actions import Behaviour
from mabe_behavior.camera import Camera
from mabe_behavior.tracks import Tracks
from shared_core.errors import UserError

CAMERA = Camera(25.0, 10.0)
RULE = {"B_": "mouse1", "W_": "mouse2"}
RNG = np.random.default_rng(0)


@pytest.fixture
def h5py():
    return pytest.importorskip("h5py", reason="install h5py to read HDF5 files")


@pytest.fixture
def real() -> Path:
    folder = Path(os.environ.get("TEST_DATA_DIR", "")) / "pose-deeplabcut"
    if "TEST_DATA_DIR" not in os.environ or not folder.is_dir():
        pytest.skip("set TEST_DATA_DIR to a folder with pose-deeplabcut to read real trackers' files")
    return folder


# ---- real files


def test_a_real_csv_and_h5_of_the_same_video_agree(real: Path, h5py: object) -> None:
    csv = deeplabcut.read(real / "testDLC_csv_table_multi.csv", CAMERA, RULE)
    h5 = deeplabcut.read(real / "testDLC_h5_table_multi.h5", CAMERA, RULE)
    assert csv.xy_TAPX.shape == (98, 2, 14, 2) and h5.xy_TAPX.shape == (100, 2, 14, 2)
    assert csv.animals == h5.animals == ("mouse1", "mouse2") and csv.parts == h5.parts
    assert np.array_equal(csv.xy_TAPX, h5.xy_TAPX[:98]) and csv.seen_TAP.all()
    lines = (real / "testDLC_csv_table_multi.csv").read_text().splitlines()
    parts, row = lines[1].split(","), [float(cell) for cell in lines[3 + 41].split(",")]
    at = parts.index("W_Left_fhip")
    where = (41, 1, csv.parts.index("shoulder_left"))
    assert csv.xy_TAPX[where] == pytest.approx(row[at : at + 2], rel=1e-6)
    assert csv.confidence_TAP is not None and csv.confidence_TAP[where] == pytest.approx(row[at + 2])


def test_a_real_h5_of_two_individuals(real: Path, h5py: object) -> None:
    path = real / "testDLC_h5_table_madlc.h5"
    found = deeplabcut.read(path, CAMERA)
    assert found.xy_TAPX.shape == (100, 2, 14, 2)
    swapped = deeplabcut.read(path, CAMERA, {"mouse_white_tail": "mouse1", "mouse_black_tail": "mouse2"})
    assert swapped.animals == ("mouse1", "mouse2") and np.array_equal(swapped.xy_TAPX, found.xy_TAPX[:, ::-1])
    alone = deeplabcut.read(path, CAMERA, {"mouse_white_tail": "mouse1", "mouse_black_tail": ""})
    assert np.array_equal(alone.xy_TAPX[:, 0], found.xy_TAPX[:, 1])
    with pytest.raises(UserError, match="say which mouse 'mouse_black_tail' is, or leave it out: mouse_black_tail="):
        deeplabcut.read(path, CAMERA, {"mouse_white_tail": "mouse1"})


def test_a_real_analysis_file_of_sleap(real: Path, h5py: object) -> None:
    found = sleap.read(real / "testDLC_sleap.analysis.h5", CAMERA)
    assert found.xy_TAPX.shape == (101, 1, 14, 2) and found.parts[10:] == (
        *("shoulder_left", "shoulder_right", "hip_left", "hip_right"),
    )
    with h5py.File(real / "testDLC_sleap.analysis.h5") as stream:  # type: ignore[attr-defined]
        assert np.array_equal(stream["tracks"][0, :, 5].T.astype(np.float32), found.xy_TAPX[:, 0, 5], equal_nan=True)
    assert np.nanmax(found.confidence_TAP) <= 1


def test_the_real_mice_are_no_longer_than_mice(real: Path, h5py: object) -> None:
    """Parts under wrong names, or x and y of different parts, would tear the mouse apart: its nose is near its ears."""
    for name, rule in (("testDLC_csv_table_multi.csv", RULE), ("testDLC_h5_table_madlc.h5", None)):
        found = deeplabcut.read(real / name, CAMERA, rule).where_sure(0.9)
        at = {part: found.xy_TAPX[:, :, found.parts.index(part)] for part in ("nose", "ear_left", "tail_base")}
        near, far = (np.linalg.norm(at["nose"] - at[part], axis=-1) for part in ("ear_left", "tail_base"))
        assert np.nanmedian(near) < np.nanmedian(far)


def test_a_real_table_without_a_rule_names_one(real: Path) -> None:
    with pytest.raises(UserError, match="begin with B_ or W_; say which mouse is which: B_=mouse1,W_=mouse2"):
        deeplabcut.read(real / "testDLC_csv_table_multi.csv", CAMERA)


# ---- DeepLabCut, look-alikes


def table(rows: str, individuals: str = "", parts: str = "Nose,Nose,Nose", coords: str = "x,y,likelihood") -> str:
    between = f"individuals,{individuals}\n" if individuals else ""
    scorer = ",".join(["net"] * (parts.count(",") + 1))
    return f"scorer,{scorer}\n{between}bodyparts,{parts}\ncoords,{coords}\n{rows}"


def test_rows_are_frames_by_their_number(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(table("4,1,2,0.5\n1,3,4,\n"))
    found = deeplabcut.read(tmp_path / "a.csv", CAMERA)
    assert found.xy_TAPX[[1, 4], 0, 0].tolist() == [[3, 4], [1, 2]] and np.isnan(found.xy_TAPX[[0, 2, 3]]).all()
    assert found.confidence_TAP is not None and found.confidence_TAP[4, 0, 0] == 0.5


def test_a_csv_of_individuals_with_one_part_of_the_arena(tmp_path: Path) -> None:
    parts = "Nose,Nose,Nose,Nose,corner,corner"
    text = table("0,1,2,3,4,5,6\n", "a,a,b,b,single,single", parts, "x,y,x,y,x,y")
    (tmp_path / "a.csv").write_text(text)
    found = deeplabcut.read(tmp_path / "a.csv", CAMERA, {"a": "mouse2", "b": "mouse1", "single": ""})
    assert found.xy_TAPX[0, :, 0].tolist() == [[3, 4], [1, 2]] and found.confidence_TAP is None
    with pytest.raises(
        UserError, match=r"'corner' is no body part that is known.*corner=nose, or leave it out, corner="
    ):
        deeplabcut.read(tmp_path / "a.csv", CAMERA)
    left = deeplabcut.read(tmp_path / "a.csv", CAMERA, called={"corner": "", "Nose": "head"})
    assert left.animals == ("mouse1", "mouse2") and left.parts == ("head",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (table(""), r"has 3 lines; must have a header of 4"),
        ("frame,x,y\n0,1,2\n1,1,2\n2,1,2\n", "lines begin with frame, 0, 1, 2; a DeepLabCut table's begin with scorer"),
        (table("0,1,2,wing\n"), "conversion error to double: invalid value 'wing'.*must hold numbers only"),
        (table("0,1,2\n"), "Expected 4 columns, got 3"),
        (table("0,,,\n1,,,\n"), "no point is seen in any frame"),
        (table("0,1,2,1\n0,1,2,1\n"), "frame numbers must be 0 or more and differ"),
        (table("0.5,1,2,1\n"), "must hold frame numbers 0, 1, ..., not 0.5"),
        (table("900000,1,2,1\n"), "frame number 900000 in a table of 1 rows; the file is damaged"),
        (table("0,1,2,3\n", parts="wing,wing,wing"), "'wing' is no body part"),
        (table("0,1,2,3\n", coords="x,x,likelihood"), "columns 1 and 2 both hold x of mouse1's nose"),
        (table("0,1,2\n", parts="Nose,Nose", coords="x,likelihood"), "has no y of mouse1's nose"),
        (table("0,1,2,3\n", coords="x,y,z"), "coords has 'z'; must be x, y, likelihood"),
        (table("0,1,2,3\n", parts="Nose,Nose"), "header lines have 3, 3, 4 cells; must agree"),
        (
            table("0,1,2,3,4\n", parts="Nose,Nose,snout,snout", coords="x,y,x,y"),
            "columns 1 and 3 both hold x of mouse1",
        ),
    ],
)
def test_what_is_no_table_of_deeplabcut(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        deeplabcut.read(tmp_path / "a.csv", CAMERA)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("B_", "must be NAME=mouse1,NAME=mouse2"),
        ("B_=mouse1,W_=mouse1", "must give every name another mouse"),
        ("B_=mouse1,B_=mouse2", "each name once"),
        ("B_=black", "must be NAME=mouse1"),
        ("B_=", "every name another mouse"),
    ],
)
def test_rules_of_identity(text: str, message: str) -> None:
    assert deeplabcut.identities("B_=mouse1, W_=mouse2,x=") == {"B_": "mouse1", "W_": "mouse2", "x": ""}
    with pytest.raises(UserError, match=message):
        deeplabcut.identities(text)


def test_a_prefix_that_no_part_has(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(table("0,1,2,3\n", parts="B_Nose,B_Nose,B_Nose"))
    with pytest.raises(UserError, match="there is no 'W_'; there are B_"):
        deeplabcut.read(tmp_path / "a.csv", CAMERA, RULE)
    with pytest.raises(UserError, match="part 'B_Nose' starts with none of W_"):
        deeplabcut.read(tmp_path / "a.csv", CAMERA, {"W_": "mouse1"})


NAMES = [("net", "Nose", coordinate) for coordinate in ("x", "y", "likelihood")]


def as_table(group: object, axes: bytes) -> None:
    rows = np.zeros(2, [("index", "<i8"), ("values_block_0", "<f8", (3,))])
    rows["index"], rows["values_block_0"] = [0, 1], [[1, 2, 0.5], [3, 4, 0.25]]
    group["table"] = rows  # type: ignore[index]
    group.attrs["non_index_axes"] = np.bytes_(axes)  # type: ignore[attr-defined]


def test_an_h5_in_the_format_table(tmp_path: Path, h5py: object) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as stream:  # type: ignore[attr-defined]
        as_table(stream.create_group("df_with_missing"), pickle.dumps([(1, NAMES)], protocol=0))
    found = deeplabcut.read(tmp_path / "a.h5", CAMERA)
    assert found.parts == ("nose",) and found.xy_TAPX[:, 0, 0].tolist() == [[1, 2], [3, 4]]


def test_column_names_that_would_run_a_program(tmp_path: Path, h5py: object) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as stream:  # type: ignore[attr-defined]
        as_table(stream.create_group("df_with_missing"), b"cos\nsystem\n(S'touch /none/there'\ntR.")
    with pytest.raises(UserError, match=r"more than arrays \(it asks for (os|posix)\.system\)"):
        deeplabcut.read(tmp_path / "a.h5", CAMERA)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stream: None, "holds the groups none; must have one of df_with_missing, df, tracks"),
        (lambda stream: [stream.create_group(name) for name in "ab"], "holds the groups a, b; must have one of"),
        (lambda stream: stream.create_group("any"), "has no dataset block0_values; it holds nothing"),
        (
            lambda stream: as_table(stream.create_group("any"), pickle.dumps([1], 0)),
            "does not hold the names of columns",
        ),
        (
            lambda stream: as_table(stream.create_group("any"), pickle.dumps([(1, NAMES[:2])], 0)),
            r"shape \(2, 3\); must",
        ),
    ],
)
def test_what_is_no_h5_of_deeplabcut(tmp_path: Path, h5py: object, change: Callable, message: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as stream:  # type: ignore[attr-defined]
        change(stream)
    with pytest.raises(UserError, match=message):
        deeplabcut.read(tmp_path / "a.h5", CAMERA)


def test_what_is_no_h5_at_all(tmp_path: Path, h5py: object) -> None:
    with pytest.raises(UserError, match="no such file"):
        sleap.read(tmp_path / "a.h5", CAMERA)
    (tmp_path / "a.h5").write_bytes(b"\x89HDF but not really")
    for read in (deeplabcut.read, sleap.read):
        with pytest.raises(UserError, match="is no whole HDF5 file"):
            read(tmp_path / "a.h5", CAMERA)


# ---- SLEAP


def sleap_file(h5py: object, path: Path, **change: object) -> Path:
    xy = np.arange(2 * 2 * 3 * 5, dtype=float).reshape(2, 2, 3, 5) + 1
    xy[1, :, 2, 4] = np.nan
    held = {"tracks": xy, "node_names": [b"nose", b"leftEar", b"led"], "track_names": [b"red", b"blue"], **change}
    with h5py.File(path, "w") as stream:  # type: ignore[attr-defined]
        for name, value in held.items():
            if value is not None:
                stream[name] = value
    return path


def test_sleap_by_track_and_node(tmp_path: Path, h5py: object) -> None:
    path = sleap_file(h5py, tmp_path / "a.h5", point_scores=np.full((2, 3, 5), 1.25))
    found = sleap.read(path, CAMERA, {"blue": "mouse1", "red": "mouse2"}, {"led": "tail_tip"})
    assert found.animals == ("mouse1", "mouse2") and found.parts == ("nose", "ear_left", "tail_tip")
    xy = np.arange(2 * 2 * 3 * 5).reshape(2, 2, 3, 5) + 1  # as the file has it: track, axis, node, frame
    assert found.xy_TAPX[3, 0, 1].tolist() == xy[1, :, 1, 3].tolist()
    assert found.xy_TAPX[0, 1, 2].tolist() == xy[0, :, 2, 0].tolist()
    assert np.isnan(found.xy_TAPX[4, 0, 2]).all() and (~found.seen_TAP).sum() == 1
    assert (found.confidence_TAP == 1).all()
    assert sleap.read(path, CAMERA, {"blue": "", "red": "mouse1"}, {"led": ""}).xy_TAPX.shape == (5, 1, 2, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tracks": np.zeros((5, 3, 2, 2))}, r"tracks of shape \(5, 3, 2, 2\).*reverse order, as MATLAB writes them"),
        ({"tracks": np.zeros((2, 3, 5))}, r"must be \(tracks, x and y, 3 nodes, frames\)"),
        ({"tracks": np.full((2, 2, 3, 5), np.nan)}, "no point is seen in any frame"),
        ({"tracks": None}, "has no dataset tracks; it holds node_names, track_names"),
        ({"node_names": [b"nose", b"snout", b"led"]}, "two of the nodes nose, snout, led are the same part"),
        ({"node_names": [b"nose", b"fin", b"led"]}, "'fin' is no body part"),
        ({"track_names": [b"red"]}, "1 track_names for 2 tracks"),
        ({"point_scores": np.zeros((2, 5, 3))}, r"point_scores of shape \(2, 5, 3\); must be \(2, 3, 5\)"),
    ],
)
def test_what_is_no_analysis_of_sleap(tmp_path: Path, h5py: object, change: dict[str, object], message: str) -> None:
    path = sleap_file(h5py, tmp_path / "a.h5", **change)
    with pytest.raises(UserError, match=message):
        sleap.read(path, CAMERA, called={"led": ""})


# ---- JABS


def jabs_file(h5py: object, path: Path, scale: float | None = 0.08, **change: object) -> Path:
    points = RNG.integers(1, 700, (4, 2, 12, 2)).astype(np.uint16)
    held = {
        "points": points,
        "confidence": np.ones((4, 2, 12), np.float32),
        "instance_embed_id": np.array([[1, 2], [2, 1], [1, 0], [2, 9]], np.uint32),
        "id_mask": np.array([[0, 0], [0, 0], [0, 1], [0, 1]], np.uint8),
        **change,
    }
    with h5py.File(path, "w") as stream:  # type: ignore[attr-defined]
        pose = stream.create_group("poseest")
        for name, value in held.items():
            if value is not None:
                pose[name] = value
        if scale is not None:
            pose.attrs["cm_per_pixel"] = np.float32(scale)
    return path


def test_jabs_has_y_before_x_and_instances_in_no_order(tmp_path: Path, h5py: object) -> None:
    points = RNG.integers(1, 700, (4, 2, 12, 2)).astype(np.uint16)
    sure = np.ones((4, 2, 12), np.float32)
    sure[0, 0, 3] = 0
    found = jabs.read(jabs_file(h5py, tmp_path / "a.h5", points=points, confidence=sure))
    y_and_x = points.astype(np.float32)
    assert found.fps == 30 and found.pixels_per_cm == pytest.approx(12.5) and len(found.animals) == 2
    for frame, instance, mouse in ((0, 1, 1), (1, 0, 1), (1, 1, 0), (2, 0, 0), (3, 0, 1)):
        assert np.array_equal(found.xy_TAPX[frame, mouse, :, 1], y_and_x[frame, instance, :, 0])
        assert np.array_equal(found.xy_TAPX[frame, mouse, :, 0], y_and_x[frame, instance, :, 1])
    assert np.isnan(found.xy_TAPX[2, 1]).all() and np.isnan(found.xy_TAPX[3, 0]).all()
    assert np.isnan(found.xy_TAPX[0, 0, 3]).all() and found.seen_TAP.sum() == 6 * 12 - 1


def test_jabs_of_one_mouse_and_of_pieces_of_tracks(tmp_path: Path, h5py: object) -> None:
    points = RNG.integers(1, 700, (4, 12, 2)).astype(np.uint16)
    none = {"instance_embed_id": None, "id_mask": None}
    one = jabs_file(h5py, tmp_path / "v2.h5", points=points, confidence=np.ones((4, 12)), **none)
    assert np.array_equal(jabs.read(one).xy_TAPX[:, 0], points[..., ::-1])
    track = np.array([[7, 3], [3, 7], [7, 0], [7, 0]])
    given = {**none, "instance_track_id": track, "instance_count": np.array([2, 2, 1, 1], np.uint8)}
    found = jabs.read(jabs_file(h5py, tmp_path / "v3.h5", **given))
    assert found.seen_TAP[:, :, 0].tolist() == [[True, True], [True, True], [False, True], [False, True]]
    given["instance_track_id"] = np.array([[7, 3], [3, 7], [8, 0], [9, 0]])
    with pytest.raises(UserError, match="has 4 pieces of tracks for 2 mice; link them first"):
        jabs.read(jabs_file(h5py, tmp_path / "pieces.h5", **given))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": None}, "has no cm_per_pixel; give pixels_per_cm"),
        ({"points": np.ones((4, 2, 2, 12))}, r"points of shape \(4, 2, 2, 12\)"),
        ({"confidence": np.ones((4, 2))}, r"confidence \(4, 2\)"),
        ({"confidence": np.zeros((4, 2, 12))}, "no point is seen in any frame"),
        ({"instance_embed_id": None, "id_mask": None}, "does not say which mouse is which"),
        ({"instance_embed_id": np.ones((4, 2), int)}, "two instances of a frame are the same mouse"),
        ({"id_mask": np.zeros((3, 2))}, r"identities of shape \(4, 2\), \(3, 2\); must be \(4, 2\)"),
        ({"points": None}, "has no dataset points"),
    ],
)
def test_what_is_no_pose_of_jabs(tmp_path: Path, h5py: object, change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        jabs.read(jabs_file(h5py, tmp_path / "a.h5", **change))  # type: ignore[arg-type]


def test_swapped_axes_of_jabs_leave_the_picture(tmp_path: Path, h5py: object) -> None:
    """A writer that had put x first: in a picture of 800 x 400 the points would lie below it."""
    x_and_y = np.stack([RNG.uniform(1, 799, (4, 2, 12)), RNG.uniform(1, 399, (4, 2, 12))], axis=-1)
    path = jabs_file(h5py, tmp_path / "a.h5", points=x_and_y[..., ::-1].astype(np.uint16))
    assert jabs.read(path, width=800, height=400).width == 800
    path = jabs_file(h5py, tmp_path / "b.h5", points=x_and_y.astype(np.uint16))
    with pytest.raises(UserError, match="100% when x and y change places; swap the axes"):
        jabs.read(path, width=800, height=400)


# ---- SimBA

SIMBA = ("Ear_left", "Ear_right", "Nose", "Center", "Lat_left", "Lat_right", "Tail_base", "Tail_end")


def simba_file(path: Path, values: np.ndarray, attack: str = "0110", more: str = "") -> Path:
    names = [f"{part}_{k}_{c}" for k in (1, 2) for part in SIMBA for c in "xyp"]
    text = "," + ",".join([*names, "Sum_Movement_1_x", "Attack"]) + more + "\n"
    for frame, row in enumerate(values):
        text += ",".join([str(frame), *(f"{value:.3f}" for value in row), "17.5", attack[frame]]) + "\n"
    path.write_text(text)
    return path


def test_simba_with_a_labelled_behaviour(tmp_path: Path) -> None:
    values = RNG.uniform(1, 500, (4, 48))
    values[2, 6:9] = 0  # the first animal's nose was not seen
    path = simba_file(tmp_path / "cage.csv", values)
    attack = Behaviour("mouse1", "mouse2", "attack")
    (found,) = simba.read(path, CAMERA, {"Attack": attack})
    assert found.name == "cage" and found.labeled == (attack,)
    assert found.bouts.rows == [("cage", "mouse1", "mouse2", "attack", 1, 3)]
    tracks = found.tracks
    assert tracks.xy_TAPX.shape == (4, 2, 8, 2) and tracks.parts[2:6] == (
        "nose",
        "body_center",
        "lateral_left",
        "lateral_right",
    )
    assert tracks.xy_TAPX[1, 1, 7] == pytest.approx(values[1, 45:47], abs=1e-3)
    assert np.argwhere(~tracks.seen_TAP).tolist() == [[2, 0, 2]]
    assert simba.read(path, CAMERA)[0].labeled == ()


def test_what_is_no_table_of_simba(tmp_path: Path) -> None:
    values, attack = RNG.uniform(1, 500, (4, 48)), Behaviour("mouse1", "mouse2", "attack")
    with pytest.raises(UserError, match="column 'Attack' holds 7; must be 0 or 1"):
        simba.read(simba_file(tmp_path / "a.csv", values, "0170"), CAMERA, {"Attack": attack})
    with pytest.raises(UserError, match=r"has no column 'Mount'; the last are .*Attack"):
        simba.read(simba_file(tmp_path / "a.csv", values), CAMERA, {"Mount": attack})
    with pytest.raises(UserError, match="Expected 52 columns, got 51"):
        simba.read(simba_file(tmp_path / "a.csv", values, more=",late"), CAMERA)
    (tmp_path / "a.csv").write_text(table("0,1,2,3\n"))
    with pytest.raises(UserError, match=r"has no columns such as Nose_1_x.*this is DeepLabCut's"):
        simba.read(tmp_path / "a.csv", CAMERA)


# ---- what all have in common


def within(x: tuple[float, float], y: tuple[float, float]) -> Tracks:
    xy = np.stack([RNG.uniform(*x, (50, 1, 1)), RNG.uniform(*y, (50, 1, 1))], axis=-1)
    return Tracks(xy.astype(np.float32), ("mouse1",), ("nose",), 30.0, 10.0, None, 1024, 570)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ((0, 570), (0, 1024), "change places; swap the axes"),
        ((0, 4000), (0, 2200), "only [0-9]+% of the points lie in the picture of 1024 x 570 pixels; check its size"),
        ((0, 1), (0, 1), "all points lie within 0..1.*must be pixels"),
        ((0, 1024), (0, 570), None),
        ((-9, 1030), (-9, 575), None),  # a few beyond the border are usual
    ],
)
def test_points_lie_in_the_picture(x: tuple[float, float], y: tuple[float, float], message: str | None) -> None:
    if message is None:
        assert len(camera.checked(within(x, y), "a")) == 50
    else:
        with pytest.raises(UserError, match=message):
            camera.checked(within(x, y), "a")


@pytest.mark.parametrize("change", [{"fps": 0.0}, {"pixels_per_cm": float("nan")}, {"width": -1.0}])
def test_what_is_no_camera(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(change))}: .*; must be above 0"):
        Camera(**{"fps": 30.0, "pixels_per_cm": 10.0, **change})
