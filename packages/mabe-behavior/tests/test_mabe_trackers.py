"""Other trackers' files: every point where its tool put it, under one name; what was not seen is missing."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mabe_behavior.actions import Behaviour
from mabe_behavior.formats import calms21, camera, deeplabcut, jabs, simba, sleap
from mabe_behavior.formats.camera import Camera
from mabe_behavior.tracks import Tracks
from shared_core.errors import UserError

CAMERA = Camera(25.0, 10.0)
RNG = np.random.default_rng(0)


@pytest.fixture
def h5py() -> Any:
    return pytest.importorskip("h5py", reason="install h5py to read HDF5 files")


@pytest.fixture
def real() -> Path:
    folder = Path(os.environ.get("TEST_DATA_DIR", "")) / "pose-deeplabcut"
    if "TEST_DATA_DIR" not in os.environ or not folder.is_dir():
        pytest.skip("set TEST_DATA_DIR to a folder with pose-deeplabcut to read real trackers' files")
    return folder


def test_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"a\.h5: needs h5py to be read; install it"):
        sleap.read(tmp_path / "a.h5", CAMERA)


def test_what_is_no_h5_at_all(tmp_path: Path, h5py: Any) -> None:
    with pytest.raises(UserError, match="no such file"):
        sleap.read(tmp_path / "a.h5", CAMERA)
    (tmp_path / "a.h5").write_bytes(b"\x89HDF but not really")
    for read in (deeplabcut.read, sleap.read):
        with pytest.raises(UserError, match="is no whole HDF5 file"):
            read(tmp_path / "a.h5", CAMERA)


# ---- SLEAP


def test_a_real_analysis_file_of_sleap(real: Path, h5py: Any) -> None:
    found = sleap.read(real / "testDLC_sleap.analysis.h5", CAMERA)
    assert found.xy_TAPX.shape == (101, 1, 14, 2) and found.parts[10:] == (
        *("shoulder_left", "shoulder_right", "hip_left", "hip_right"),
    )
    with h5py.File(real / "testDLC_sleap.analysis.h5") as stream:
        assert np.array_equal(stream["tracks"][0, :, 5].T.astype(np.float32), found.xy_TAPX[:, 0, 5], equal_nan=True)
    assert np.nanmax(found.confidence_TAP) <= 1


def sleap_file(h5py: Any, path: Path, **change: object) -> Path:
    xy = np.arange(2 * 2 * 3 * 5, dtype=float).reshape(2, 2, 3, 5) + 1
    xy[1, :, 2, 4] = np.nan
    held = {"tracks": xy, "node_names": [b"nose", b"leftEar", b"led"], "track_names": [b"red", b"blue"], **change}
    with h5py.File(path, "w") as stream:
        for name, value in held.items():
            if value is not None:
                stream[name] = value
    return path


def test_sleap_by_track_and_node(tmp_path: Path, h5py: Any) -> None:
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
def test_what_is_no_analysis_of_sleap(tmp_path: Path, h5py: Any, change: dict[str, object], message: str) -> None:
    path = sleap_file(h5py, tmp_path / "a.h5", **change)
    with pytest.raises(UserError, match=message):
        sleap.read(path, CAMERA, called={"led": ""})


# ---- JABS


def jabs_file(h5py: Any, path: Path, scale: float | None = 0.08, **change: object) -> Path:
    points = RNG.integers(1, 700, (4, 2, 12, 2)).astype(np.uint16)
    held = {
        "points": points,
        "confidence": np.ones((4, 2, 12), np.float32),
        "instance_embed_id": np.array([[1, 2], [2, 1], [1, 0], [2, 9]], np.uint32),
        "id_mask": np.array([[0, 0], [0, 0], [0, 1], [0, 1]], np.uint8),
        **change,
    }
    with h5py.File(path, "w") as stream:
        pose = stream.create_group("poseest")
        for name, value in held.items():
            if value is not None:
                pose[name] = value
        if scale is not None:
            pose.attrs["cm_per_pixel"] = np.float32(scale)
    return path


def test_jabs_has_y_before_x_and_instances_in_no_order(tmp_path: Path, h5py: Any) -> None:
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


def test_jabs_of_one_mouse_and_of_pieces_of_tracks(tmp_path: Path, h5py: Any) -> None:
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
def test_what_is_no_pose_of_jabs(tmp_path: Path, h5py: Any, change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        jabs.read(jabs_file(h5py, tmp_path / "a.h5", **change))  # type: ignore[arg-type]


def test_swapped_axes_of_jabs_leave_the_picture(tmp_path: Path, h5py: Any) -> None:
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


def test_simba_rows_are_frames_by_their_number(tmp_path: Path) -> None:
    path = simba_file(tmp_path / "cage.csv", RNG.uniform(1, 500, (4, 48)))
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *(f"{frame}{row[1:]}" for frame, row in zip((0, 3, 4, 7), rows, strict=True))]))
    (found,) = simba.read(path, CAMERA, {"Attack": Behaviour("mouse1", "mouse2", "attack")})
    assert [row[4:] for row in found.bouts.rows] == [(3, 5)]
    assert found.tracks.seen_TAP.all(axis=(1, 2)).nonzero()[0].tolist() == [0, 3, 4, 7]


def test_what_is_no_table_of_simba(tmp_path: Path) -> None:
    values, attack = RNG.uniform(1, 500, (4, 48)), Behaviour("mouse1", "mouse2", "attack")
    with pytest.raises(UserError, match="column 'Attack' holds 7; must be 0 or 1"):
        simba.read(simba_file(tmp_path / "a.csv", values, "0170"), CAMERA, {"Attack": attack})
    with pytest.raises(UserError, match=r"has no column 'Mount'; the last are .*Attack"):
        simba.read(simba_file(tmp_path / "a.csv", values), CAMERA, {"Mount": attack})
    with pytest.raises(UserError, match="Expected 52 columns, got 51"):
        simba.read(simba_file(tmp_path / "a.csv", values, more=",late"), CAMERA)
    (tmp_path / "a.csv").write_text("scorer,net,net\nbodyparts,Nose,Nose\ncoords,x,y\n0,1,2\n")
    with pytest.raises(UserError, match=r"has no columns such as Nose_1_x.*this is DeepLabCut's"):
        simba.read(tmp_path / "a.csv", CAMERA)


# ---- what all have in common


def within(x: tuple[float, float], y: tuple[float, float]) -> Tracks:
    xy = np.stack([RNG.uniform(*x, (50, 1, 1)), RNG.uniform(*y, (50, 1, 1))], axis=-1)
    return Tracks(xy.astype(np.float32), ("mouse1",), ("nose",), 30.0, 10.0, None, 1024, 570)


def test_a_few_points_beyond_the_border_are_no_swap() -> None:
    """Of a mouse that stays where both orders of axes fit, one point in fifty too low says nothing."""
    tracks = within((0, 560), (0, 560))
    tracks.xy_TAPX[7, 0, 0] = (300, 575)
    assert camera.fault(tracks) is None


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


def test_swapped_axes_of_calms21_leave_the_picture(tmp_path: Path) -> None:
    x, y = RNG.uniform(0, 1024, (50, 2, 7)), RNG.uniform(0, 570, (50, 2, 7))
    for axes, message in (
        ((x, y), None),
        ((y, x), "swap the axes"),
        ((x * np.nan, y), "no point is seen in any frame"),
    ):
        held = {"annotator-id_0": {"task1/train/mouse001": {"keypoints": np.stack(axes, axis=2).tolist()}}}
        (tmp_path / "calms21_task1_train.json").write_text(json.dumps(held))
        if message is None:
            assert calms21.read(tmp_path)[0].tracks.xy_TAPX[3, 1, 2] == pytest.approx([x[3, 1, 2], y[3, 1, 2]])
        else:
            with pytest.raises(UserError, match=f"mouse001: .*{message}"):
                calms21.read(tmp_path)
