"""BENTO's annotations: its frames count from 1 and include the last."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mabe_behavior.bouts import Bouts
from mabe_behavior.formats import bento
from shared_core.errors import UserError

HEAD = """Bento annotation file
Movie file(s):
cage.seq

Stimulus name:
Annotation start frame: 1
Annotation stop frame: 500
Annotation framerate: 25

List of channels:
Ch1

List of annotations:
attack
rear

Ch1----------
"""


def written(path: Path, bouts: str, head: str = HEAD) -> Path:
    path.write_text(head + bouts)
    return path


def test_frames_and_seconds_are_the_same_numbers(tmp_path: Path) -> None:
    frames = ">attack\nStart\tStop\tDuration\n1\t10\t10\n25\t25\t1\n\n>rear\nStart\tStop\tDuration\n50\t75\t26\n"
    seconds = (
        ">attack\nStart\t Stop\t Duration \n0.04\t0.4\t0.4\n1\t1\t0.04\n\n>rear\nStart Stop Duration\n2\t3\t1.04\n"
    )
    expected = [
        ("cage", "mouse1", "mouse2", "attack", 0, 10),
        ("cage", "mouse1", "mouse2", "attack", 24, 25),
        ("cage", "mouse1", "self", "rear", 49, 75),
    ]
    for text in (frames, seconds):
        assert bento.read(written(tmp_path / "cage.annot", text)).rows == expected
    assert bento.read(tmp_path / "cage.annot", fps=50.0).rows[1][4:] == (49, 50)  # the same times, of a faster film


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from([("mouse1", "mouse2"), ("mouse2", "mouse1"), ("mouse2", "self")]),
            st.sampled_from(["attack", "sniff"]),
            st.integers(0, 400_000),
            st.integers(1, 5_000),
        ),
        max_size=12,
        unique=True,
    ),
    st.sampled_from([10.0, 24.99, 30.0, 60.01, 120.0]),
)
def test_what_is_written_is_read(tmp_path: Path, made: list, fps: float) -> None:
    rows = [("a", *pair, action, start, start + length) for pair, action, start, length in made]
    bento.write(tmp_path / "a.annot", Bouts.of(rows), fps, 405_000)
    pairs = bento.channels([f"{one}_{other}" for one, other in {row[1:3] for row in rows}])
    assert sorted(bento.read(tmp_path / "a.annot", pairs=pairs).rows) == sorted(rows)


def test_the_text_is_what_bento_expects(tmp_path: Path) -> None:
    bento.write(tmp_path / "a.annot", Bouts.of([("a", "mouse1", "mouse2", "attack", 0, 30)]), 30.0, 90, "a.mp4")
    lines = (tmp_path / "a.annot").read_text().splitlines()
    assert lines[0] == "Bento annotation file" and lines[1] == "Movie file(s): a.mp4"
    at = lines.index("mouse1_mouse2----------")
    assert lines[at + 1 : at + 3] == [">attack", "Start\tStop\tDuration"]
    assert [float(cell) for cell in lines[at + 3].split("\t")] == pytest.approx([1 / 30, 1.0, 1.0])


@pytest.mark.parametrize(
    ("head", "bouts", "message"),
    [
        ("Caltech Behavior Annotator\n", "", "first line is .*must be 'Bento annotation file'"),
        (HEAD, ">attack\nStart Stop Duration\n5 4 0\n", "line 20: frames 5 to 4; BENTO's start at 1"),
        (HEAD, ">attack\nStart Stop Duration\n0 4 5\n", "line 20: frames 0 to 4"),
        (HEAD, ">attack\nStart Stop Duration\nfive 4 0\n", "line 20: 'five' is no frame"),
        (HEAD, ">attack\nStart Stop Duration\n1.0 inf 0\n", "line 20: 'inf' is no time"),
        (HEAD, "3 4 2\n", "line 18: '3 4 2'; must be a bout"),
        (HEAD, ">attack\nStart Stop Duration\n7\n", "line 20: '7'; must be a bout"),
        (HEAD.replace("framerate: 25", "framerate: fast"), "", "line 8: framerate 'fast'; must be a number above 0"),
    ],
)
def test_what_are_no_annotations(tmp_path: Path, head: str, bouts: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        bento.read(written(tmp_path / "a.annot", bouts, head))


def test_a_channel_that_nobody_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.annot", ">attack\nStart Stop Duration\n1 4 4\n")
    assert bento.read(path, "v", {"Ch1": ("mouse2", "mouse1")}).rows == [("v", "mouse2", "mouse1", "attack", 0, 4)]
    with pytest.raises(UserError, match="line 20: channel 'Ch1' is none of other"):
        bento.read(path, pairs={"other": ("mouse1", "mouse2")})
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is no text file"):
        bento.read(path)


def test_bouts_that_cannot_be_written(tmp_path: Path) -> None:
    row = ("a", "mouse1", "mouse2", "attack")
    for rows, message in (
        ([(*row, 0, 5), ("b", *row[1:], 0, 5)], "of several videos"),
        ([(*row, 5, 5)], "must have a frame each"),
        ([(*row, 5, 11)], r"within 0\.\.10"),
    ):
        with pytest.raises(ValueError, match=message):
            bento.write(tmp_path / "a.annot", Bouts.of(rows), 30.0, 10)
    assert not (tmp_path / "a.annot").exists()
    with pytest.raises(ValueError, match="must be AGENT_TARGET"):
        bento.channels(["Ch1"])
    assert np.array_equal(bento.channels(["mouse2_self"])["mouse2_self"], ("mouse2", "self"))
