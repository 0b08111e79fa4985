"""Pictures of bouts: mice look like mice whatever is tracked of them, and stand where they were."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mabe_behavior import outlines, scenes
from mabe_behavior.formats import deeplabcut
from mabe_behavior.formats.camera import Camera
from mabe_behavior.outlines import Bodies
from mabe_behavior.recording import Recording
from mabe_behavior.simulation import labs, simulator
from mabe_behavior.simulation.bodies import PLACES, TAIL
from mabe_behavior.tracks import Tracks
from shared_core import figures

pytestmark = pytest.mark.filterwarnings("error::UserWarning")
CM = 20.0
ALL = {**PLACES, **{part: (PLACES["tail_base"][0] - behind, 0.0) for part, behind in TAIL.items()}}


def straight(
    parts: tuple[str, ...], frames: int = 3, angle: float = 0.0, at: tuple[float, float] = (200, 150)
) -> Tracks:
    """A mouse that stands still and looks along an angle, its middle at a place."""
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    xy_PX = np.array([ALL[part] for part in parts]) @ turn * CM + at
    return Tracks(np.tile(xy_PX, (frames, 1, 1, 1)).astype(np.float32), ("mouse1",), parts, 10.0, CM)


def area(outline_NX: np.ndarray) -> float:
    x, y = outline_NX.T.astype(float)
    return abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2


# ---- outlines


@pytest.mark.parametrize("name", [lab.name for lab in labs.LABS])
def test_every_labs_parts_make_a_mouse(name: str) -> None:
    bodies = Bodies.of(straight(labs.lab(name).camera.parts), 0, 3)
    length = (PLACES["nose"][0] - PLACES["tail_base"][0]) * CM
    assert bodies.length == pytest.approx(length, rel=1e-4)
    found = bodies.outline(1, 0)
    assert found is not None and 0.18 < area(found) / length**2 < 0.32
    low, high = found.min(axis=0), found.max(axis=0)
    assert high[0] - low[0] == pytest.approx(length, rel=0.06)
    assert (low + high)[1] / 2 == pytest.approx(150, abs=1)  # as wide to the left as to the right
    assert 0.25 < (high - low)[1] / length < 0.5


@given(st.floats(-3, 3), st.floats(-500, 500), st.sampled_from([lab.camera.parts for lab in labs.LABS]))
@settings(max_examples=40, deadline=None)
def test_an_outline_turns_and_moves_with_the_mouse(angle: float, x: float, parts: tuple[str, ...]) -> None:
    base, moved = straight(parts, at=(0, 0)), straight(parts, angle=angle, at=(x, -x))
    one, other = Bodies.of(base, 0, 3).outline(0, 0), Bodies.of(moved, 0, 3).outline(0, 0)
    assert one is not None and other is not None
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    assert other == pytest.approx(one @ turn + np.array([x, -x]), abs=0.05)


def test_what_was_not_tracked_is_not_invented() -> None:
    whole = straight(("nose", "ear_left", "ear_right", "body_center", "tail_base"))
    xy = whole.xy_TAPX.copy()
    xy[:, 0, 0] = np.nan  # no nose in any frame
    headless = Bodies.of(replace(whole, xy_TAPX=xy), 0, 3)
    found = headless.outline(0, 0)
    assert found is not None and found[:, 0].max() == pytest.approx(200 + 3.0 * CM, abs=6)
    assert headless.length == pytest.approx(8.2 * CM, rel=0.03)
    xy[:, 0, :4] = np.nan
    alone = Bodies.of(replace(whole, xy_TAPX=xy), 0, 3)
    assert alone.outline(0, 0) is None and alone.length == outlines.USUAL * CM
    assert alone.centre(0, 0) == pytest.approx([200 - 3.6 * CM, 150])


def test_points_that_lie_anywhere_make_no_body() -> None:
    one = straight(("nose", "body_center", "tail_base", "tail_tip"), frames=9)
    xy = one.xy_TAPX.copy()
    xy[4, 0, 0] += 900.0
    xy[4, 0, 3] -= 900.0
    bodies = Bodies.of(replace(one, xy_TAPX=xy), 0, 9)
    assert bodies.outline(3, 0) is not None and bodies.outline(4, 0) is None
    assert np.isfinite(bodies.tail_TAKX[3, 0, -1]).all() and np.isnan(bodies.tail_TAKX[4, 0, -1]).all()


# ---- strips and animations


@pytest.fixture(scope="module")
def recording() -> Recording:
    return simulator.simulate(labs.lab("openfield"), 3, 30.0)


def count(picture: Image.Image, colour: str) -> int:
    """Pixels of a solid colour, as edges and tails have it."""
    rgb = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return int((np.abs(np.asarray(picture.convert("RGB")).astype(int) - rgb) <= 12).all(axis=-1).sum())


def test_a_strip_shows_agent_and_target(recording: Recording, tmp_path: Path) -> None:
    path = scenes.strip(recording.tracks, ("v", "mouse2", "mouse1", "chase", 100, 150), tmp_path / "strip.png")
    said = figures.describe(path)
    assert (said.width, said.height) == (780, 510) and said.title == "chase: mouse2 → mouse1"
    assert "4.00 to 6.00 seconds into the video" in said.caption
    with Image.open(path) as picture:
        assert count(picture, scenes.AGENT) > 300 and count(picture, scenes.TARGET) > 300


def test_who_does_something_alone_has_no_target(recording: Recording, tmp_path: Path) -> None:
    path = scenes.strip(recording.tracks, ("v", "mouse2", "self", "rear", 100, 103), tmp_path / "strip.png")
    assert figures.describe(path).title == "rear: mouse2"
    with Image.open(path) as picture:
        assert count(picture, scenes.AGENT) > 300 and count(picture, scenes.TARGET) == 0


@pytest.mark.parametrize("frames", [1, 3, 9])
def test_a_recording_of_a_few_frames_will_do(frames: int, tmp_path: Path) -> None:
    tracks = straight(labs.lab("kinds").camera.parts, frames)
    path = scenes.strip(tracks, ("v", "mouse1", "self", "rest", 0, frames), tmp_path / "strip.png")
    assert figures.describe(path).width == 780
    scenes.animation(tracks, ("v", "mouse1", "self", "rest", 0, frames), tmp_path / "a.gif")


def test_an_animation_lasts_as_long_as_it_is_slow(recording: Recording, tmp_path: Path) -> None:
    bout = ("v", "mouse1", "mouse2", "mount", 100, 130)
    path = scenes.animation(recording.tracks, bout, tmp_path / "a.gif")
    with Image.open(path) as gif:
        assert gif.format == "GIF" and gif.size == (340, 370) and gif.info["loop"] == 0
        seconds = gif.n_frames * gif.info["duration"] / 1000
        first = np.asarray(gif.convert("RGB")).astype(int)
        gif.seek(gif.n_frames // 2)
        assert count(gif, scenes.AGENT) > 100
        assert (np.abs(np.asarray(gif.convert("RGB")) - first).sum(axis=-1) > 60).sum() > 200  # something moved
    assert seconds == pytest.approx(scenes.SLOWER * (30 / 25 + 2 * scenes.AROUND), rel=0.1)
    assert path.stat().st_size < 400_000
    real = scenes.animation(recording.tracks, bout, tmp_path / "b.gif", slower=1.0)
    with Image.open(real) as gif:
        assert gif.n_frames * gif.info["duration"] / 1000 == pytest.approx(30 / 25 + 2 * scenes.AROUND, rel=0.1)


@pytest.mark.parametrize(
    ("bout", "message"),
    [
        (("v", "mouse1", "mouse2", "sniff", 10, 10), "frames 10 to 10; must be some of the 750"),
        (("v", "mouse1", "mouse2", "sniff", 740, 760), "frames 740 to 760"),
        (("v", "mouse1", "mouse4", "sniff", 10, 20), "no mouse4 in the tracks of mouse1, mouse2"),
    ],
)
def test_a_bout_that_is_not_there_is_refused(
    recording: Recording, tmp_path: Path, bout: scenes.Row, message: str
) -> None:
    for draw, name in ((scenes.strip, "a.png"), (scenes.animation, "a.gif")):
        with pytest.raises(ValueError, match=message):
            draw(recording.tracks, bout, tmp_path / name)
        assert not (tmp_path / name).exists()


def test_mice_that_nobody_saw_are_refused(recording: Recording, tmp_path: Path) -> None:
    unseen = replace(recording.tracks, xy_TAPX=np.full_like(recording.tracks.xy_TAPX, np.nan))
    for draw, name in ((scenes.strip, "a.png"), (scenes.animation, "a.gif")):
        with pytest.raises(ValueError, match="none of its mice is seen"):
            draw(unseen, ("v", "mouse1", "mouse2", "sniff", 10, 20), tmp_path / name)
    with pytest.raises(ValueError, match="slower 0; must be above 0"):
        scenes.animation(recording.tracks, ("v", "mouse1", "mouse2", "sniff", 10, 20), tmp_path / "a.gif", slower=0)


def test_real_tracks(tmp_path: Path) -> None:
    folder = Path(os.environ.get("TEST_DATA_DIR", "")) / "pose-deeplabcut"
    if "TEST_DATA_DIR" not in os.environ or not folder.is_dir():
        pytest.skip("set TEST_DATA_DIR to a folder with pose-deeplabcut to draw real tracks")
    rule = {"B_": "mouse1", "W_": "mouse2"}
    tracks = deeplabcut.read(folder / "testDLC_csv_table_multi.csv", Camera(25.0, 10.0), rule)
    bodies = Bodies.of(tracks, 0, len(tracks))
    found = [bodies.outline(frame, animal) for frame in range(len(tracks)) for animal in (0, 1)]
    areas = [area(one) / bodies.length**2 for one in found if one is not None]
    assert len(areas) == len(found) and 0.1 < min(areas) <= max(areas) < 0.5
    path = scenes.strip(tracks, ("v", "mouse1", "mouse2", "sniff", 20, 60), tmp_path / "strip.png")
    with Image.open(path) as picture:
        assert count(picture, scenes.AGENT) > 300 and count(picture, scenes.TARGET) > 300
