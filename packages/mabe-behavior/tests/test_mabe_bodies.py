"""Bodies of simulated mice: where parts are, how they move, and that nobody walks through walls or through others."""

import math
import re
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mabe_behavior.parts import PARTS
from mabe_behavior.simulation import bodies, mice
from mabe_behavior.simulation.arenas import Arena
from mabe_behavior.simulation.intentions import Temperament
from mabe_behavior.simulation.motion import INTENTIONS, RATE, Motion, moved


def standing(heading: float = 0.0, frames: int = 4, animals: int = 1, **state: float) -> Motion:
    """Mice that stand at (0, 0)."""
    names = ("speed", "turning", "head", "height", "groom", "curl")
    rest = {f"{name}_NA": np.full((frames, animals), float(state.get(name, 0.0))) for name in names}
    return Motion(
        np.zeros((frames, animals, 2)),
        np.full((frames, animals), heading),
        intention_NA=np.zeros((frames, animals), np.int8),
        **rest,
    )


@pytest.fixture(scope="module")
def motions() -> list[tuple[Arena, Motion]]:
    kinds = ((Arena(40, 30), 2), (Arena(40, 40, "circular"), 2), (Arena(60, 45), 3))
    return [(arena, moved(arena, Temperament(), count, 40, Random(seed))) for seed, (arena, count) in enumerate(kinds)]


def at(motion: Motion, part: str) -> np.ndarray:
    return bodies.positions(motion, [part])[-1, 0, 0]


def test_a_mouse_that_looks_to_the_right_has_its_left_ear_above() -> None:
    still = standing()
    assert at(still, "nose") == pytest.approx([4.6, 0], abs=1e-6)
    assert at(still, "tail_base") == pytest.approx([-3.6, 0], abs=1e-6)
    assert at(still, "ear_left")[1] < 0 < at(still, "ear_right")[1]  # y points downwards
    assert at(still, "tail_tip") == pytest.approx([-11.6, 0], abs=1e-6)
    downwards = standing(math.pi / 2)
    assert at(downwards, "nose") == pytest.approx([0, 4.6], abs=1e-6) and at(downwards, "hip_left")[0] > 0


def test_every_part_has_a_place_of_its_own() -> None:
    found = bodies.positions(standing(), PARTS)[0, 0]
    apart = np.linalg.norm(found[:, None] - found[None], axis=-1)[~np.eye(len(PARTS), dtype=bool)]
    # two headpieces, a lower and an upper one, look the same from above
    assert (apart < 1e-9).sum() == 8 and np.isfinite(found).all()
    with pytest.raises(ValueError, match="no wing"):
        bodies.positions(standing(), ["nose", "wing"])


def test_an_upright_or_grooming_mouse_is_short_and_a_resting_one_bent() -> None:
    def length(motion: Motion) -> float:
        return float(np.linalg.norm(at(motion, "nose") - at(motion, "tail_base")))

    assert length(standing()) == pytest.approx(8.2)
    assert length(standing(height=1)) < 5.5 and length(standing(groom=1)) < 7 and length(standing(curl=1)) < 7.5
    paw = np.linalg.norm(at(standing(groom=1), "forepaw_left") - at(standing(groom=1), "nose"))
    assert paw < 1.5 < np.linalg.norm(at(standing(), "forepaw_left") - at(standing(), "nose"))
    assert at(standing(curl=1), "nose")[1] > 1 and at(standing(curl=-1), "nose")[1] < -1


def test_a_larger_mouse_is_larger() -> None:
    small, large = (bodies.positions(standing(), PARTS, [size])[0, 0] for size in (0.9, 1.1))
    assert large == pytest.approx(small * 1.1 / 0.9)


@given(st.floats(-3, 3), st.floats(-20, 20), st.integers(0, 99))
def test_a_mouse_turned_shifted_or_mirrored_has_its_parts_so(turn: float, shift: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = {name: rng.normal(size=(9, 2)) for name in ("heading", "speed", "turning", "head", "curl")}
    x |= {name: rng.random((9, 2)) for name in ("height", "groom")}
    state = {f"{name}_NA": value for name, value in x.items()}
    here = Motion(rng.normal(size=(9, 2, 2)), intention_NA=np.zeros((9, 2), np.int8), **state)
    cos, sin = math.cos(turn), math.sin(turn)
    rotation = np.array([[cos, sin], [-sin, cos]])
    there = replace(here, xy_NAX=here.xy_NAX @ rotation + shift, heading_NA=here.heading_NA + turn)
    expected = bodies.positions(here, PARTS) @ rotation + shift
    assert bodies.positions(there, PARTS) == pytest.approx(expected, abs=1e-6)
    flipped = replace(
        here,
        xy_NAX=here.xy_NAX * [1, -1],
        **{f"{name}_NA": -getattr(here, f"{name}_NA") for name in ("heading", "turning", "head", "curl")},
    )
    # what a mirror makes of the left side is the right side; of paws in step, paws out of step
    same = [k for k, part in enumerate(PARTS) if "paw" not in part]
    other = {"left": "right", "right": "left"}
    mirror = [PARTS.index(re.sub(r"left$|right$", lambda side: other[side.group()], PARTS[k])) for k in same]
    assert bodies.positions(flipped, PARTS)[:, :, same] == pytest.approx(
        bodies.positions(here, PARTS)[:, :, mirror] * [1, -1], abs=1e-6
    )


def test_mice_move_like_mice(motions: list[tuple[Arena, Motion]]) -> None:
    for _, motion in motions:
        velocity = np.linalg.norm(np.diff(motion.xy_NAX, axis=0), axis=-1) * RATE
        assert np.percentile(velocity, 99) < 50 and velocity.max() < 90  # cm/s
        assert np.percentile(velocity, 99) > 15 and (velocity < 1).mean() > 0.1  # they run, and they sit
        # only who fights turns by more than 600 degrees a second
        turning, wants = np.abs(motion.turning_NA), np.array(INTENTIONS)[motion.intention_NA]
        assert np.percentile(turning[wants != "attack"], 99.5) < math.radians(600)
        assert turning.max() < math.radians(1200)
        assert np.abs(np.diff(motion.speed_NA, axis=0)).max() * RATE <= mice.HARDEST + 1e-6
        assert np.abs(np.diff(motion.turning_NA, axis=0)).max() * RATE < 900  # rad/s^2: inertia


def test_mice_stay_within_the_walls(motions: list[tuple[Arena, Motion]]) -> None:
    for arena, motion in motions:
        for part, margin in (("body_center", 1.5), ("tail_base", -0.5), ("nose", -1.5)):
            found = bodies.positions(motion, [part]).reshape(-1, 2)
            out = [math.hypot(*arena.outside(*point, margin)) for point in found[::3].tolist()]
            assert max(out) == pytest.approx(0, abs=1e-6), part


def test_mice_do_not_stand_in_each_other(motions: list[tuple[Arena, Motion]]) -> None:
    met = 0
    for _, motion in motions:
        wants = np.array(INTENTIONS)[motion.intention_NA]
        along = np.array(mice.DISCS)[:, None]
        axis = np.stack((np.cos(motion.heading_NA), np.sin(motion.heading_NA)), -1)
        discs = motion.xy_NAX[:, :, None] + along * axis[:, :, None]
        for a in range(motion.xy_NAX.shape[1]):
            for b in range(a):
                apart = np.linalg.norm(discs[:, a, :, None] - discs[:, b, None], axis=-1).min(axis=(1, 2))
                gap = apart - 2 * mice.RADIUS
                # a mouse lies on the one it mounts, and takes a moment to get off
                mounts = np.convolve((wants == "mount").any(axis=1), np.ones(60), "full")[: len(motion)] > 0
                # bodies are soft, by half a centimetre for a moment
                assert np.percentile(gap[~mounts], 0.5) > -0.5 and gap[~mounts].min() > -1.6
                met += int((gap < 0.5).sum())
    assert met > 500  # they do meet


PLACES = st.floats(-40, 40)


@given(st.sampled_from([Arena(30, 20), Arena(25, 25, "circular")]), PLACES, PLACES, st.floats(-4, 4))
def test_walls_send_back_inside(arena: Arena, x: float, y: float, heading: float) -> None:
    dx, dy = arena.outside(x, y, 2.0)
    assert arena.outside(x + dx, y + dy, 2.0) == pytest.approx((0, 0), abs=1e-9)
    if (dx, dy) == (0, 0):
        turned = arena.along(x, y, heading, 3.0)
        ahead = (x + 3 * math.cos(heading), y + 3 * math.sin(heading))
        if arena.outside(*ahead, 4.0) == (0, 0):
            assert turned == heading
        else:
            after = (x + 3 * math.cos(turned), y + 3 * math.sin(turned))
            assert math.hypot(*arena.outside(*after, 0.0)) <= math.hypot(*arena.outside(*ahead, 0.0)) + 1e-9


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Arena(10, 30),
        lambda: Arena(30, 40, "circular"),
        lambda: Arena(30, 40, "round"),
        lambda: Temperament(alone={"fly": 1}),
        lambda: Temperament(meeting={"attack": 0}),
        lambda: Temperament(alone={"chase": 1}),
        lambda: Temperament(flees=1.5),
        lambda: moved(Arena(30, 30), Temperament(), 4, 1.0, Random(0)),
        lambda: moved(Arena(30, 30), Temperament(), 2, 0.0, Random(0)),
    ],
)
def test_a_setting_out_of_its_range_is_named(wrong: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        wrong()  # type: ignore[operator]
