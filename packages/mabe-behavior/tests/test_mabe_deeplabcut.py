"""DeepLabCut's tables: every point where its network put it, under one name, of the mouse that a rule says."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mabe_behavior.formats import deeplabcut
from mabe_behavior.formats.camera import Camera
from shared_core.errors import UserError

CAMERA = Camera(25.0, 10.0)
RULE = {"B_": "mouse1", "W_": "mouse2"}


@pytest.fixture
def h5py() -> Any:
    return pytest.importorskip("h5py", reason="install h5py to read HDF5 files")


@pytest.fixture
def real() -> Path:
    folder = Path(os.environ.get("TEST_DATA_DIR", "")) / "pose-deeplabcut"
    if "TEST_DATA_DIR" not in os.environ or not folder.is_dir():
        pytest.skip("set TEST_DATA_DIR to a folder with pose-deeplabcut to read real trackers' files")
    return folder


# ---- real files


def test_a_real_csv_and_h5_of_the_same_video_agree(real: Path, h5py: Any) -> None:
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


def test_a_real_h5_of_two_individuals(real: Path, h5py: Any) -> None:
    path = real / "testDLC_h5_table_madlc.h5"
    found = deeplabcut.read(path, CAMERA)
    assert found.xy_TAPX.shape == (100, 2, 14, 2)
    swapped = deeplabcut.read(path, CAMERA, {"mouse_white_tail": "mouse1", "mouse_black_tail": "mouse2"})
    assert swapped.animals == ("mouse1", "mouse2") and np.array_equal(swapped.xy_TAPX, found.xy_TAPX[:, ::-1])
    alone = deeplabcut.read(path, CAMERA, {"mouse_white_tail": "mouse1", "mouse_black_tail": ""})
    assert np.array_equal(alone.xy_TAPX[:, 0], found.xy_TAPX[:, 1])
    with pytest.raises(UserError, match="say which mouse 'mouse_black_tail' is, or leave it out: mouse_black_tail="):
        deeplabcut.read(path, CAMERA, {"mouse_white_tail": "mouse1"})


def test_the_real_mice_are_no_longer_than_mice(real: Path, h5py: Any) -> None:
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
    assert deeplabcut.identity_rule("B_=mouse1, W_=mouse2,x=") == {"B_": "mouse1", "W_": "mouse2", "x": ""}
    with pytest.raises(UserError, match=message):
        deeplabcut.identity_rule(text)


def test_the_longest_prefix_counts(tmp_path: Path) -> None:
    text = table("0,1,2,3,4\n", parts="B_Nose,B_Nose,B_W_Nose,B_W_Nose", coords="x,y,x,y")
    (tmp_path / "a.csv").write_text(text)
    found = deeplabcut.read(tmp_path / "a.csv", CAMERA, {"B_": "mouse2", "B_W_": "mouse1"})
    assert found.xy_TAPX[0, :, 0].tolist() == [[3, 4], [1, 2]]


def test_a_prefix_that_no_part_has(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(table("0,1,2,3\n", parts="B_Nose,B_Nose,B_Nose"))
    with pytest.raises(UserError, match="there is no 'W_'; there are B_"):
        deeplabcut.read(tmp_path / "a.csv", CAMERA, RULE)
    with pytest.raises(UserError, match="part 'B_Nose' starts with none of W_"):
        deeplabcut.read(tmp_path / "a.csv", CAMERA, {"W_": "mouse1"})


NAMES = [("net", "Nose", coordinate) for coordinate in ("x", "y", "likelihood")]


def as_table(group: Any, axes: bytes) -> None:
    rows = np.zeros(2, [("index", "<i8"), ("values_block_0", "<f8", (3,))])
    rows["index"], rows["values_block_0"] = [0, 1], [[1, 2, 0.5], [3, 4, 0.25]]
    group["table"] = rows
    group.attrs["non_index_axes"] = np.bytes_(axes)


def test_an_h5_in_the_format_table(tmp_path: Path, h5py: Any) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as stream:
        as_table(stream.create_group("df_with_missing"), pickle.dumps([(1, NAMES)], protocol=0))
    found = deeplabcut.read(tmp_path / "a.h5", CAMERA)
    assert found.parts == ("nose",) and found.xy_TAPX[:, 0, 0].tolist() == [[1, 2], [3, 4]]


def test_column_names_that_would_run_a_program(tmp_path: Path, h5py: Any) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as stream:
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
def test_what_is_no_h5_of_deeplabcut(tmp_path: Path, h5py: Any, change: Callable, message: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as stream:
        change(stream)
    with pytest.raises(UserError, match=message):
        deeplabcut.read(tmp_path / "a.h5", CAMERA)
