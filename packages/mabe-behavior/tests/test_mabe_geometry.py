"""Shapes, own frames and relations of bodies that can be worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mabe_behavior.features import egocentric, landmarks, shape, social
from mabe_behavior.features.kinematics import derivative, length
from mabe_behavior.tracks import Tracks

STD7 = ("nose", "ear_left", "ear_right", "neck", "hip_left", "hip_right", "tail_base")
# a mouse that looks up the picture, so that its right is the picture's right; x, y in cm, y downwards
UPWARDS = np.array([[0, -4], [-1, -3], [1, -3], [0, -2], [-1.5, 2], [1.5, 2], [0, 3]], float)


def tracks(xy_TAPX: np.ndarray, parts: tuple[str, ...] = STD7) -> Tracks:
    animals = tuple(f"mouse{k + 1}" for k in range(xy_TAPX.shape[1]))
    return Tracks(10 * xy_TAPX.astype(np.float32), animals, parts, 30.0, 10.0)


def landmarks_of(given_tracks: Tracks) -> landmarks.Body:
    """Of the first animal."""
    return landmarks.bodies(given_tracks, {"mouse1": landmarks.parts_seen(given_tracks, "mouse1")}).of(0)


def test_landmarks_are_parts_or_lie_between_parts() -> None:
    body = landmarks_of(tracks(UPWARDS[None, None]))
    assert body.at("nose")[0] == pytest.approx([0, -4]) and body.at("tail")[0] == pytest.approx([0, 3])
    assert body.at("center")[0] == pytest.approx([0, 2 / 3])  # of neck and hips
    few = landmarks_of(tracks(UPWARDS[None, None, [0, 1, 2, 6]], ("head", "ear_left", "ear_right", "tail_base")))
    assert few.at("nose")[0] == pytest.approx([0, -4])  # the head
    assert few.at("neck")[0] == pytest.approx([0, -3])  # between the ears
    assert few.at("center")[0] == pytest.approx([0, 0])  # between the ears and the tail
    assert np.isnan(few.hips_TSX).all()


def test_what_stands_for_a_landmark_does_not_change_within_a_recording() -> None:
    xy = np.repeat(UPWARDS[None, None], 3, axis=0)
    xy[1, 0, 3] = np.nan  # the neck, for a frame
    body = landmarks_of(tracks(xy))
    assert np.isnan(body.at("neck")[:, 0]).tolist() == [False, True, False]
    xy[:, 0, 3] = np.nan  # for ever
    assert landmarks_of(tracks(xy)).at("neck")[1] == pytest.approx([0, -3])


@settings(deadline=None)  # the first call compiles
@given(st.floats(-np.pi, np.pi), st.floats(-50, 50), st.floats(-50, 50))
def test_places_in_the_own_frame_turn_and_move_along(angle: float, x: float, y: float) -> None:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    body = landmarks_of(tracks((UPWARDS @ turn.T + [x, y])[None, None]))
    points = np.array([[0, -10 + 2 / 3], [3, 2 / 3], [-2, 4 + 2 / 3]]) @ turn.T + [x, y]
    found = egocentric.frame(body).places(points[None])[0]
    assert found == pytest.approx(np.array([[10, 0], [0, 3], [-4, -2]]), abs=1e-4)  # ahead, right, behind to the left


def test_distances_are_named_in_their_order() -> None:
    found = dict(zip(shape.pairs(STD7), (float(x[0]) for x in shape.distances(UPWARDS[None])), strict=True))
    assert found["nose", "tail_base"] == pytest.approx(7) and found["hip_left", "hip_right"] == pytest.approx(3)
    assert len(found) == 21


def test_angles_have_their_sign() -> None:
    right, down = np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])
    assert shape.angle(right, down) == pytest.approx(np.pi / 2)  # clockwise on a screen
    assert shape.angle(down, right) == pytest.approx(-np.pi / 2)
    assert np.abs(shape.angle(right, -right)) == pytest.approx(np.pi)


def test_area_is_that_of_the_polygon() -> None:
    square = np.array([[0, 0], [2, 0], [2, 3], [0, 3]], float)
    both = np.stack((square, square[::-1] + 100))
    assert shape.area(list(both.swapaxes(0, 1))) == pytest.approx([6, 6])
    notched = np.array([[0, 0], [4, 0], [4, 4], [2, 1], [0, 4]], float)
    assert shape.area(list(notched[:, None])) == pytest.approx(16 - 6)


@settings(deadline=None)  # the first call compiles
@given(arrays(np.float64, (6, 2), elements=st.floats(-5, 5)))
def test_spread_is_that_along_principal_axes(points: np.ndarray) -> None:
    expected = np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(points.T, bias=True)), 0))[::-1]
    assert np.concatenate(shape.spread(points[None])) == pytest.approx(expected, abs=1e-6)


def test_elongation_is_one_on_a_line_and_nothing_is_made_of_two_points() -> None:
    line = np.stack((np.arange(5.0), 2 * np.arange(5.0)), axis=-1)
    assert shape.elongation(line[None]) == pytest.approx(1, abs=1e-6)
    assert shape.elongation(np.array([[[0, 0], [2, 0], [2, 2], [0, 2.0]]])) == pytest.approx(0)
    line[2:] = np.nan
    assert np.isnan(shape.elongation(line[None])).all()
    line[2] = [1, 0]
    assert np.isfinite(shape.elongation(line[None])).all()


@settings(deadline=None)  # the first call compiles
@given(
    arrays(np.float64, (3, 4, 2), elements=st.one_of(st.floats(-9, 9), st.just(np.nan))),
    arrays(np.float64, (3, 2, 2), elements=st.floats(-9, 9)),
)
def test_the_closest_is_the_smallest_of_all_distances(one: np.ndarray, other: np.ndarray) -> None:
    every = np.sqrt(((one[:, :, None] - other[:, None]) ** 2).sum(axis=-1)).reshape(3, -1)
    expected = [np.nanmin(row) if np.isfinite(row).any() else np.nan for row in every]
    assert social.closest(one, other).tolist() == pytest.approx(expected, nan_ok=True)


def test_approach_is_the_derivative_of_the_distance() -> None:
    t = np.arange(90) / 30
    one, other = np.stack((t, t**2), -1), np.stack((9 - t, 4 + 0.5 * t), -1)
    one_v, other_v = np.stack((1 + 0 * t, 2 * t), -1), np.stack((-1 + 0 * t, 0.5 + 0 * t), -1)
    expected = -derivative(length(other - one), 30.0)
    assert social.approach(one_v, other_v, one, other) == pytest.approx(expected, abs=0.02)
    parts = social.toward(one_v, one, other) + social.toward(other_v, other, one)
    assert social.approach(one_v, other_v, one, other) == pytest.approx(parts)


def test_chasing_needs_one_that_runs_after_and_one_that_runs_away() -> None:
    a, t = np.array([[0.0, 0.0]]), np.array([[10.0, 0.0]])
    right, left = np.array([[20.0, 3.0]]), np.array([[-20.0, 3.0]])
    assert social.chase(right, right, a, t) == pytest.approx(20)
    assert social.chase(right, left, a, t) == social.chase(left, right, a, t) == social.chase(left, left, a, t) == 0
    assert social.alignment(right, right) > 0.9 and social.alignment(right, -right) < -0.9
    assert social.facing(right * [1, 0], a, t) == pytest.approx(1) and social.facing(
        left * [1, 0], a, t
    ) == pytest.approx(-1)


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.booleans(), min_size=1, max_size=30), st.floats(0.1, 3))
def test_time_since_counts_from_the_last(active: list[bool], most: float) -> None:
    found = social.since(np.array(active), 10.0, most)
    for t, value in enumerate(found):
        before = [k for k in range(t + 1) if active[k]]
        assert value == pytest.approx(min((t - before[-1]) / 10, most) if before else most)


def test_touching_is_not_known_where_the_distance_is_not() -> None:
    assert social.touching([0.5, 1.5, 1.6, np.nan]).tolist() == pytest.approx([1, 1, 0, np.nan], nan_ok=True)
