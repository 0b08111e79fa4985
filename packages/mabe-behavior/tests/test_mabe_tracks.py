"""Positions: what is missing stays missing, at any rate, whatever parts are called."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mabe_behavior import parts, tracks
from mabe_behavior.tracks import Tracks
from shared_core.errors import UserError


def made(xy: np.ndarray, fps: float = 30.0, **more: object) -> Tracks:
    animals = tuple(f"mouse{k + 1}" for k in range(xy.shape[1]))
    return Tracks(xy, animals, parts.PARTS[: xy.shape[2]], fps, 10.0, **more)  # type: ignore[arg-type]


def line(frames: int) -> np.ndarray:
    """One point that moves one pixel a frame to the right and two down."""
    return np.stack((np.arange(frames), 2 * np.arange(frames)), axis=-1).astype(np.float32)[:, None, None]


RATES = st.sampled_from([10.0, 24.99, 25.0, 30.0, 45.0, 60.0, 120.0])


@given(st.integers(2, 400), RATES, RATES, st.floats(-9, 9), st.floats(-9, 9))
def test_a_steady_motion_is_the_same_in_every_frame_at_any_rate(
    frames: int, fps: float, wanted: float, x: float, y: float
) -> None:
    """Also in the first and the last one."""
    way = np.arange(frames)[:, None, None, None] / fps * np.array([x, y])
    found = made(way.astype(np.float32), fps).resampled(wanted)
    seconds = np.arange(len(found)) / wanted
    assert found.xy_TAPX[:, 0, 0] == pytest.approx(seconds[:, None] * [x, y], abs=1e-3)
    assert np.isfinite(found.xy_TAPX).all() and found.fps == wanted
    # as many frames as fit between the first and the last
    assert seconds[-1] <= (frames - 1) / fps + 1e-6 < seconds[-1] + 1 / wanted + 2e-6


def test_frames_that_are_met_exactly_need_no_neighbour() -> None:
    xy = line(301)
    xy[:, 0, 0, 0] = np.where(np.arange(301) % 5 == 0, xy[:, 0, 0, 0], np.nan)
    found = made(xy, 25.0).resampled(30.0).xy_TAPX[:, 0, 0, 0]
    assert np.isfinite(found).nonzero()[0].tolist() == list(range(0, 361, 6))


def back(frames: int, fps: float, wanted: float) -> np.ndarray:
    """(frames,) for each frame of the video the common one that is nearest."""
    place_T = np.arange(frames) * (wanted / fps)
    return np.minimum(np.rint(place_T).astype(np.int64), len(tracks.places(frames, fps, wanted)) - 1)


@given(st.integers(0, 400), RATES, RATES, st.integers(0, 2**32 - 1))
def test_labels_come_back_as_they_were(frames: int, fps: float, wanted: float, seed: int) -> None:
    """Every one when the common rate is higher, but where the recording ends; and each frame has one at any rate."""
    label_T = np.random.default_rng(seed).integers(0, 3, frames)
    common_K = label_T[tracks.nearest(frames, fps, wanted)]
    assert len(common_K) == len(tracks.places(frames, fps, wanted))
    back_T = common_K[back(frames, fps, wanted)]
    assert len(back_T) == frames
    if wanted >= fps:
        assert np.array_equal(back_T[:-1], label_T[:-1])
    apart_T = np.abs(tracks.nearest(frames, fps, wanted)[back(frames, fps, wanted)] - np.arange(frames))
    inside_T = np.arange(frames) <= tracks.places(frames, fps, wanted).max(initial=0)
    assert (apart_T[inside_T] <= 0.5 * max(1, fps / wanted) + 0.5).all()
    assert (apart_T < fps / wanted + 1).all()


def test_a_point_between_missing_ones_is_missing() -> None:
    xy = line(9)
    xy[4] = np.nan
    assert np.isnan(made(xy).resampled(60.0).xy_TAPX[:, 0, 0, 0]).nonzero()[0].tolist() == [7, 8, 9]
    assert np.isnan(made(xy).resampled(15.0).xy_TAPX[:, 0, 0, 0]).nonzero()[0].tolist() == [2]


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(1, 5))
def test_gaps_are_filled_by_their_length(seen: list[bool], most: int) -> None:
    xy = line(len(seen))
    xy[~np.array(seen)] = np.nan
    found = np.isfinite(made(xy, 10.0).filled(most / 10).xy_TAPX[:, 0, 0, 0]).tolist()
    for start, stop in zip(*__import__("mabe_behavior.bouts", fromlist=["runs"]).runs(~np.array(seen)), strict=True):
        inside = start > 0 and stop < len(seen) and stop - start <= most
        assert found[start:stop] == [inside] * (stop - start)
    filled = made(xy, 10.0).filled(most / 10).xy_TAPX[found, 0, 0]
    assert filled == pytest.approx(line(len(seen))[found, 0, 0], abs=1e-4)


def test_half_a_point_is_none() -> None:
    xy = line(3)
    xy[1, 0, 0, 1] = np.nan
    assert np.isnan(made(xy).xy_TAPX[1]).all() and made(xy).seen_TAP[:, 0, 0].tolist() == [True, False, True]


def test_parts_that_were_not_tracked_are_missing() -> None:
    xy = np.random.default_rng(0).normal(size=(5, 2, 3, 2)).astype(np.float32)
    found = made(xy).of_parts(("neck", "tail_tip", "nose"))  # of nose, head, neck
    assert np.array_equal(found.xy_TAPX[:, :, 0], xy[:, :, 2]) and np.array_equal(found.xy_TAPX[:, :, 2], xy[:, :, 0])
    assert np.isnan(found.xy_TAPX[:, :, 1]).all()


def test_rows_become_frames_by_their_number() -> None:
    found = tracks.dense([0, 3], [0, 0], [1, 1], [[1, 2], [3, 4]], (5, 1, 2))
    assert found[3, 0, 1].tolist() == [3, 4] and np.isnan(found[[1, 2, 4]]).all() and np.isnan(found[:, :, 0]).all()
    with pytest.raises(ValueError, match="two of the same frame"):
        tracks.dense([0, 0], [0, 0], [1, 1], [[1, 2], [3, 4]], (5, 1, 2))
    with pytest.raises(ValueError, match=r"frame: 0 to 7; must lie in 0\.\.4"):
        tracks.dense([0, 7], [0, 0], [1, 1], [[1, 2], [3, 4]], (5, 1, 2))


@pytest.mark.parametrize(
    ("called", "name"),
    [
        *[("Nose", "nose"), ("Left_ear", "ear_left"), ("left_hip", "hip_left"), ("Center", "body_center")],
        *[
            ("Tail_end", "tail_tip"),
            ("Lat_right", "lateral_right"),
            ("earLeft", "ear_left"),
            ("tail base", "tail_base"),
        ],
        *[
            ("Left_fhip", "shoulder_left"),
            ("left_forepaw", "forepaw_left"),
            ("headpiece_topfrontleft", "headpiece_topfrontleft"),
        ],
        *[("Tail_1", "tail_middle_1"), ("tail_middle", "tail_midpoint"), ("center_back", "body_center")],
    ],
)
def test_names_of_parts(called: str, name: str) -> None:
    assert parts.named(called) == name


def test_a_part_that_no_mouse_has() -> None:
    with pytest.raises(UserError, match="'wing' is no body part"):
        parts.named("wing")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xy_TAPX": np.zeros((5, 2, 3))}, r"shape \(5, 2, 3\); must be \(frames, animals, parts, 2\)"),
        ({"parts": ("nose", "nose")}, "parts: nose, nose; must differ"),
        ({"fps": 0.0}, "must be above 0"),
        ({"confidence_TAP": np.zeros((4, 1, 2))}, r"confidence: shape \(4, 1, 2\); must be \(5, 1, 2\)"),
    ],
)
def test_what_are_no_tracks(change: dict[str, object], message: str) -> None:
    given_ = {"xy_TAPX": np.zeros((5, 1, 2, 2)), "animals": ("mouse1",), "parts": ("nose", "neck"), "fps": 30.0}
    with pytest.raises(ValueError, match=message):
        Tracks(**{**given_, "pixels_per_cm": 1.0, **change})  # type: ignore[arg-type]
