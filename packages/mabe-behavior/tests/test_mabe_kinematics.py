"""Motion of points whose motion is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mabe_behavior.features import kinematics
from mabe_behavior.features.kinematics import cross, length


def times(fps: float, seconds: float = 4.0) -> np.ndarray:
    return np.arange(round(fps * seconds)) / fps


def circle(t: np.ndarray, radius: float, turns: float) -> np.ndarray:
    """(T, 2) clockwise on a screen whose y points downwards."""
    angle = 2 * np.pi * turns * t
    return 40 + radius * np.stack((np.cos(angle), np.sin(angle)), axis=-1)


@pytest.mark.parametrize("order", [1, 2, 3])
@settings(deadline=None)  # the first call compiles
@given(st.lists(st.floats(-5, 5), min_size=5, max_size=5), st.sampled_from([10.0, 25.0, 30.0, 120.0]))
def test_a_derivative_of_a_polynomial_of_one_degree_more_is_exact(order: int, coefficients: list[float], fps: float):
    path = np.polynomial.Polynomial(coefficients[: order + 2])
    t = times(fps)
    found = kinematics.derivative(path(t), fps, order)
    assert found == pytest.approx(path.deriv(order)(t), abs=1e-5 * (1 + fps**order / 1e3))


def test_over_three_frames_the_velocity_is_the_central_difference() -> None:
    x = np.random.default_rng(0).normal(size=20)
    found = kinematics.derivative(x, 10.0, 1, seconds=0.3)
    assert found[1:-1] == pytest.approx(10 * (x[2:] - x[:-2]) / 2)
    assert found[0] == pytest.approx(10 * (-1.5 * x[0] + 2 * x[1] - 0.5 * x[2]))


@pytest.mark.parametrize("fps", [30.0, 60.0, 120.0])
@pytest.mark.parametrize(("radius", "turns"), [(5.0, 0.4), (12.0, 0.1), (2.0, 1.0)])
def test_a_point_on_a_circle_moves_as_it_must(fps: float, radius: float, turns: float) -> None:
    xy, rate = circle(times(fps), radius, turns), 2 * np.pi * turns
    inner = slice(round(fps), -round(fps))
    v, a = kinematics.velocity(xy, fps), kinematics.acceleration(xy, fps)
    assert kinematics.speed(xy, fps)[inner] == pytest.approx(radius * rate, rel=0.06)
    assert length(a)[inner] == pytest.approx(radius * rate**2, rel=0.06)
    assert length(kinematics.jerk(xy, fps, kinematics.SECONDS))[inner] == pytest.approx(radius * rate**3, rel=0.1)
    fast = (radius * rate) ** 2 / ((radius * rate) ** 2 + kinematics.SLOW**2)
    assert kinematics.curving(v, a)[inner] == pytest.approx(fast * rate, rel=0.06)
    assert kinematics.turning(xy - 40, fps)[inner] == pytest.approx(rate, rel=0.06)
    assert (cross(xy - 40, v)[inner] > 0).all()  # clockwise on the screen
    ahead = np.unwrap(np.arctan2(v[inner, 1], v[inner, 0]))
    assert np.diff(ahead) * fps == pytest.approx(rate, rel=1e-3)


def test_an_axis_that_turns_across_half_a_turn_has_no_jump() -> None:
    angle = np.linspace(np.pi - 0.5, np.pi + 0.5, 61)  # from one side of -x to the other in two seconds
    axis = np.stack((np.cos(angle), np.sin(angle)), axis=-1) * np.linspace(3, 5, 61)[:, None]
    assert kinematics.turning(axis, 30.0) == pytest.approx(0.5, rel=1e-2)


@settings(deadline=None)  # the first call compiles
@given(st.integers(0, 39), st.integers(1, 3), st.integers(1, 4))
def test_a_missing_point_is_missing_where_its_window_is(frame: int, order: int, columns: int) -> None:
    x = np.random.default_rng(1).normal(size=(40, columns))
    whole = kinematics.derivative(x, 30.0, order)
    x[frame, 0] = np.nan
    found = kinematics.derivative(x, 30.0, order)
    width = 7  # a quarter of a second
    centre = np.clip(np.arange(40), width // 2, 39 - width // 2)
    touched = np.abs(centre - frame) <= width // 2
    assert np.isnan(found[touched, 0]).all()
    assert np.array_equal(found[~touched, 0], whole[~touched, 0])
    assert np.array_equal(found[:, 1:], whole[:, 1:])


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_too_short_a_recording_has_no_derivatives(frames: int) -> None:
    assert np.isnan(kinematics.derivative(np.zeros((frames, 2)), 30.0)).all()
    assert kinematics.derivative(np.arange(3.0), 30.0) == pytest.approx(30.0)


def test_what_stands_still_has_no_direction() -> None:
    assert np.isnan(kinematics.unit(np.zeros((2, 2)))).all()
    assert kinematics.curving(np.zeros((1, 2)), np.ones((1, 2))) == pytest.approx(0)


def test_orders_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="order: 0; must be at least 1"):
        kinematics.derivative(np.zeros(5), 30.0, 0)
