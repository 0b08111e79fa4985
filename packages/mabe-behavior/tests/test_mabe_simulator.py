"""Simulated recordings: labs differ by what labs do, the oracle's score is known, and what is asked can be seen."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mabe_behavior import metric
from mabe_behavior.actions import ALONE, SELF, TOGETHER, Behaviour
from mabe_behavior.bouts import Bouts, joined
from mabe_behavior.recording import Recording
from mabe_behavior.simulation import labs, simulator
from mabe_behavior.simulation.annotators import Annotator, exact
from mabe_behavior.simulation.filming import Filming, at
from mabe_behavior.simulation.labs import LABS, Lab
from mabe_behavior.simulation.rules import ALONE as RULED_ALONE
from mabe_behavior.simulation.rules import PRECEDENCE

VIDEOS, SECONDS = 8, 60.0
CLEAN = {"noise": 0.0, "bias": 0.0, "wild": 0.0, "lost": 0.0, "hidden": 0.0, "dropped": 0.0}


@dataclass(frozen=True)
class Everything:
    recordings: list[Recording]
    oracle: list[Bouts]

    def of(self, lab: Lab) -> list[Recording]:
        return [one for one in self.recordings if one.lab == lab.name]


@pytest.fixture(scope="module")
def everything() -> Everything:
    scenes = [simulator.scene(lab, seed, SECONDS) for lab in LABS for seed in range(VIDEOS)]
    return Everything([simulator.recorded(one) for one in scenes], [exact(one.name, one.truth) for one in scenes])


def test_the_oracle_is_good_but_not_perfect(everything: Everything) -> None:
    found = metric.score(
        joined([one.bouts for one in everything.recordings]),
        joined(everything.oracle),
        {one.name: one.lab for one in everything.recordings},
        {one.name: one.labeled for one in everything.recordings},
    )
    assert 0.85 < found.value < 0.95
    assert all(0.85 < value < 0.97 for value in found.labs.values())
    # every lab has all that it looks for
    assert {lab: set(of) for lab, of in found.counts.items()} == {lab.name: set(lab.actions) for lab in LABS}
    assert min(value for of in found.actions.values() for value in of.values()) > 0.7


def test_every_action_occurs(everything: Everything) -> None:
    for lab in LABS:
        bouts = joined([one.bouts for one in everything.of(lab)])
        assert all((bouts.action == action).sum() >= 5 for action in lab.actions), lab.name


def test_actions_are_as_rare_as_real_ones(everything: Everything) -> None:
    for lab in LABS:
        recordings = everything.of(lab)
        for action in lab.actions:
            said = [one.annotations for one in recordings]
            shares = [one.truth_T(be).mean() for one in said for be in one.labeled if be.action == action]
            assert 0.005 < np.mean(shares) < 0.3, (lab.name, action)
        idle = [
            1 - np.any([one.annotations.truth_T(be) for be in one.labeled if be.agent == "mouse1"], axis=0).mean()
            for one in recordings
        ]
        assert 0.3 < np.mean(idle) < 0.85, lab.name


def test_labs_look_for_what_people_look_for() -> None:
    assert set(PRECEDENCE) <= set(TOGETHER) and set(RULED_ALONE) <= set(ALONE)
    assert len({lab.name for lab in LABS}) == len(LABS) >= 6
    for lab in LABS:
        assert 3 <= len(lab.actions) <= 9
        assert {one.action for one in lab.labeled} == set(lab.actions)
        assert all((one.target == SELF) == (one.action in ALONE) and one.agent != one.target for one in lab.labeled)
        # whoever leaves this lab out still learns each of its actions elsewhere
        assert set(lab.actions) <= {action for other in LABS if other is not lab for action in other.actions}
    assert {lab.mice for lab in LABS} == {2, 3} and {lab.camera.fps for lab in LABS} >= {10, 30, 120}
    assert [one.agent for one in labs.lab("resident").labeled] == ["mouse1"] * 4
    with pytest.raises(ValueError, match="'nowhere'; must be one of resident"):
        labs.lab("nowhere")


def test_the_same_seed_is_the_same_video() -> None:
    lab = labs.lab("openfield")
    one, again, other = (simulator.simulate(lab, seed, 8.0) for seed in (3, 3, 4))
    assert np.array_equal(one.tracks.xy_TAPX, again.tracks.xy_TAPX, equal_nan=True)
    assert one.bouts.rows == again.bouts.rows and one.name == again.name != other.name
    assert not np.array_equal(one.tracks.xy_TAPX, other.tracks.xy_TAPX, equal_nan=True)
    elsewhere = simulator.simulate(replace(lab, name="elsewhere"), 3, 8.0)
    assert not np.array_equal(one.tracks.xy_TAPX, elsewhere.tracks.xy_TAPX, equal_nan=True)


def test_errors_change_neither_what_mice_do_nor_the_oracle() -> None:
    of = simulator.scene(labs.lab("three"), 1, 20.0)
    one, other = (simulator.recorded(replace(of, seed=seed)) for seed in (1, 2))
    assert exact(of.name, of.truth).rows == simulator.oracle(of.lab, 1, 20.0).rows
    both = one.tracks.seen_TAP & other.tracks.seen_TAP
    moved = np.linalg.norm(one.tracks.cm_TAPX[both] - other.tracks.cm_TAPX[both], axis=-1)
    assert 0.05 < np.median(moved) < 0.6 and not np.array_equal(one.tracks.seen_TAP, other.tracks.seen_TAP)
    assert [row[1:] for row in one.bouts.rows] != [row[1:] for row in other.bouts.rows]


def test_another_camera_films_the_same_mice() -> None:
    base = labs.lab("resident")
    clean = replace(base, camera=replace(base.camera, **CLEAN))
    slow = simulator.simulate(clean, 5, 10.0)
    fast = simulator.simulate(replace(clean, camera=replace(clean.camera, fps=60.0)), 5, 10.0)
    assert fast.tracks.xy_TAPX[::2] == pytest.approx(slow.tracks.xy_TAPX, abs=1e-3)
    finest = simulator.simulate(replace(clean, camera=replace(clean.camera, fps=120.0)), 5, 10.0)
    assert finest.tracks.xy_TAPX[::4] == pytest.approx(slow.tracks.xy_TAPX, abs=0.05)
    odd = simulator.simulate(replace(clean, camera=replace(clean.camera, fps=24.99)), 5, 10.0)
    assert odd.tracks.xy_TAPX[5:-5] == pytest.approx(
        finest.tracks.resampled(24.99).xy_TAPX[5 : len(odd.tracks) - 5], abs=1
    )
    near = simulator.simulate(replace(clean, camera=replace(clean.camera, pixels_per_cm=40.0)), 5, 10.0)
    assert near.tracks.cm_TAPX == pytest.approx(slow.tracks.cm_TAPX, abs=1e-4)
    few = simulator.simulate(replace(clean, camera=replace(clean.camera, parts=("tail_base", "nose"))), 5, 10.0)
    assert few.tracks.xy_TAPX == pytest.approx(slow.tracks.of_parts(("tail_base", "nose")).xy_TAPX, abs=1e-4)
    assert slow.tracks.width == pytest.approx(44 * 18.33) and np.isfinite(slow.tracks.xy_TAPX).all()


def test_the_truth_of_a_lab_with_another_rate_is_the_same_in_seconds() -> None:
    base = labs.lab("slow")
    slow = simulator.scene(base, 2, 60.0).truth
    fast = simulator.scene(replace(base, camera=replace(base.camera, fps=60.0)), 2, 60.0).truth
    assert all(np.array_equal(slow[one], fast[one][::6]) for one in base.labeled)
    assert sum(mask.sum() for mask in slow.values()) > 50


@pytest.mark.parametrize(
    ("action", "evidence", "larger"),
    [
        ("rear", "length", False),
        ("selfgroom", "length", False),
        ("mount", "apart", False),
        ("sniff", "touch", False),
        ("attack", "turning", True),
        ("chase", "slower", True),
        ("escape", "speed", True),
        ("run", "speed", True),
        ("rest", "speed", False),
    ],
)
def test_what_is_marked_can_be_seen_in_the_tracks(
    everything: Everything, action: str, evidence: str, larger: bool
) -> None:
    """One plain measure of the published tracks tells the marked frames from the others, wherever they are marked."""
    for lab in LABS:
        if action not in lab.actions:
            continue
        yes: list[np.ndarray] = []
        no: list[np.ndarray] = []
        for one in everything.of(lab)[:4]:
            for be in one.labeled:
                if be.action == action:
                    value, truth = _measured(one, be)[evidence], one.annotations.truth_T(be)
                    yes.append(value[truth & np.isfinite(value)])
                    no.append(value[~truth & np.isfinite(value)])
        positive, negative = np.concatenate(yes), np.sort(np.concatenate(no))
        if len(positive) < 20:
            continue
        below = np.searchsorted(negative, positive).mean() / len(negative)  # the area under the curve
        assert (below if larger else 1 - below) > 0.85, (lab.name, below)


def _measured(one: Recording, be: Behaviour) -> dict[str, np.ndarray]:
    """(T,) plain measures in cm and cm/s, NaN where a point is missing."""
    tracks = one.tracks.filled(0.5)
    part = {name: tracks.cm_TAPX[:, :, k] for k, name in enumerate(tracks.parts)}
    a = tracks.animals.index(be.agent)
    b = a if be.target == SELF else tracks.animals.index(be.target)
    centre = (part["ear_left"] + part["ear_right"] + 2 * part["tail_base"]) / 4
    frames = max(1, round(0.2 * tracks.fps))
    speed = np.full(centre.shape[:2], np.nan)
    speed[frames:-frames] = (
        np.linalg.norm(centre[2 * frames :] - centre[: -2 * frames], axis=-1) / 2 / frames * tracks.fps
    )
    axis = part["nose"] - part["tail_base"]
    change = np.abs(np.angle(np.exp(1j * np.diff(np.arctan2(axis[:, a, 1], axis[:, a, 0]), prepend=0)))) * tracks.fps
    around = max(1, round(0.4 * tracks.fps))
    share = np.linspace(0, 1, 7)[:, None, None]
    line = part["tail_base"][:, b] * (1 - share) + part["nose"][:, b] * share
    return {
        "length": np.linalg.norm(part["nose"] - part["tail_base"], axis=-1)[:, a],
        "turning": np.convolve(change, np.ones(around) / around, "same"),
        "apart": np.linalg.norm(centre[:, a] - centre[:, b], axis=-1),
        "touch": np.linalg.norm(line - part["nose"][:, a], axis=-1).min(axis=0),
        "speed": speed[:, a],
        "slower": np.minimum(speed[:, a], speed[:, b]),
    }


def test_a_camera_is_off_and_blind_as_often_as_it_says() -> None:
    camera = Filming(
        30.0, 20.0, ("nose", "tail_base"), noise=0.1, bias=0.0, wild=0.0, lost=0.1, hidden=0.5, dropped=0.05
    )
    arena, rng = labs.lab("resident").arena, np.random.default_rng(0)
    apart = np.zeros((6001, 2, 2, 2)) + np.array([-10.0, 10.0])[:, None, None]
    tracks = camera.seen(apart, 100.0, arena, rng)
    assert len(tracks) == 3000
    gone = (~tracks.seen_TAP).all(axis=(1, 2)).mean()
    assert gone == pytest.approx(0.05, abs=0.015)
    assert 1 - tracks.seen_TAP.mean() == pytest.approx(1 - 0.95 * 0.9, abs=0.03)
    there = tracks.cm_TAPX - np.array([arena.width / 2 + 3, arena.height / 2 + 3]) - apart[::2][:3000]
    assert np.nanstd(there) == pytest.approx(0.1, abs=0.01) and abs(np.nanmean(there)) < 0.01
    close = camera.seen(np.zeros_like(apart), 100.0, arena, rng)
    assert close.seen_TAP.mean() == pytest.approx(0.95 * 0.9 * 0.5, abs=0.03)
    sure = replace(camera, sure=True, wild=0.02, lost=0.02, dropped=0.0)
    found = sure.seen(apart, 100.0, arena, rng)
    assert found.confidence_TAP is not None and (found.confidence_TAP[~found.seen_TAP] == 0).all()
    off = np.linalg.norm(found.cm_TAPX - np.array([22.0, 15.5]) - apart[::2][:3000], axis=-1)
    wild = np.where(found.seen_TAP, off, 0) > 2
    assert 0.005 < wild.mean() < 0.03 and found.confidence_TAP[wild].max() < 0.6 < np.median(found.confidence_TAP)


@pytest.mark.parametrize("rate", [10.0, 24.99, 60.0, 120.0])
def test_between_instants_bodies_move_smoothly(rate: float) -> None:
    instants = np.arange(601) / 60
    found = at(np.sin(2 * np.pi * instants), np.arange(int(10 * rate)) * 60 / rate)
    expected = np.sin(2 * np.pi * np.arange(int(10 * rate)) / rate)
    assert found[20:-20] == pytest.approx(expected[20:-20], abs=1e-3)


BEHAVIOUR = Behaviour("mouse1", "mouse2", "sniff")


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 5), st.floats(0, 1), st.floats(0, 0.5))
def test_an_annotator_marks_possible_bouts(active: list[bool], seed: int, border: float, joined_s: float) -> None:
    person = Annotator(border=border, overlooked=0.1, joined=joined_s)
    found = person.marked("v", {BEHAVIOUR: np.array(active, bool)}, 10.0, np.random.default_rng(seed))
    assert (found.start < found.stop).all() and (found.start >= 0).all() and (found.stop <= len(active)).all()
    assert (found.start[1:] >= found.stop[:-1]).all()
    careful = Annotator(border=0.0, late=0.0, overlooked=0.0, joined=0.0)
    same = careful.marked("v", {BEHAVIOUR: np.array(active, bool)}, 10.0, np.random.default_rng(seed))
    assert same.rows == exact("v", {BEHAVIOUR: np.array(active, bool)}).rows


def test_an_annotator_is_as_wrong_as_said() -> None:
    long = np.tile(np.repeat([False, True], 300), 500)  # bouts of 3 seconds at 100 Hz
    person = Annotator(border=0.12, late=0.05, overlooked=0.2, joined=0.0)
    found = person.marked("v", {BEHAVIOUR: long}, 100.0, np.random.default_rng(1))
    truth = exact("v", {BEHAVIOUR: long})
    assert len(found) == len(truth) == 500
    for off in ((found.start - truth.start) / 100, (found.stop - truth.stop)[:-1] / 100):
        assert np.mean(off) == pytest.approx(0.05, abs=0.02) and np.std(off) == pytest.approx(0.12, abs=0.015)
    short = np.tile(np.repeat([False, True], [280, 20]), 500)
    seen = len(person.marked("v", {BEHAVIOUR: short}, 100.0, np.random.default_rng(1)))
    assert seen / 500 == pytest.approx(1 - np.exp(-1), abs=0.07)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Annotator(border=-1),
        lambda: Filming(5, 10.0, ("nose",)),
        lambda: Filming(30, 0.0, ("nose",)),
        lambda: Filming(30, 10.0, ("nose",), lost=1.0),
        lambda: replace(LABS[0], actions=("fly",)),
        lambda: replace(LABS[0], actions=("sniff", "sniffface")),
        lambda: replace(LABS[0], actions=()),
        lambda: simulator.simulate(replace(LABS[0], mice=1), 0, 5.0),
        lambda: simulator.simulate(LABS[0], 0, 0.0),
        lambda: simulator.simulate(replace(LABS[0], camera=replace(LABS[0].camera, parts=("wing",))), 0, 1.0),
    ],
)
def test_a_setting_out_of_its_range_is_named(wrong: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        wrong()  # type: ignore[operator]
