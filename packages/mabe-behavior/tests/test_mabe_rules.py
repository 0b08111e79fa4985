"""Rules: scenes put up by hand, of which everybody would say the same; and that they hold where they are said to."""

import math
from itertools import groupby
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mabe_behavior.actions import Behaviour
from mabe_behavior.bouts import runs
from mabe_behavior.simulation import bodies, rules
from mabe_behavior.simulation.arenas import Arena
from mabe_behavior.simulation.intentions import Temperament
from mabe_behavior.simulation.motion import RATE, Motion, moved
from mabe_behavior.simulation.rules import Rules

SECONDS = 2.0


def played(*poses: tuple[float, float, float, float], seconds: float = SECONDS, **state: object) -> Motion:
    """Mice of (x, y, heading in degrees, speed in cm/s) that walk straight ahead; `state` holds (A,) of the rest."""
    time = np.arange(round(seconds * RATE)) / RATE
    x, y, heading, speed = np.array(poses, float).T
    heading = np.radians(heading)
    axis = np.stack((np.cos(heading), np.sin(heading)), axis=-1)
    shape = (len(time), len(poses))

    def full(name: str) -> np.ndarray:
        return np.broadcast_to(np.asarray(state.get(name, 0.0), float), shape).copy()

    return Motion(
        np.stack((x, y), axis=-1) + time[:, None, None] * speed[:, None] * axis,
        np.broadcast_to(heading, shape).copy(),
        np.broadcast_to(speed, shape).copy(),
        *(full(name) for name in ("turning", "head", "height", "groom", "curl")),
        np.zeros(shape, np.int8),
    )


def seen(motion: Motion, settings: Rules | None = None) -> set[str]:
    """What happens for more than half of the time, in short: 12 chase, 1 rear."""
    found = rules.labels(motion, settings)
    return {
        f"{one.agent[-1]}{'' if one.target == 'self' else one.target[-1]} {one.action}"
        for one, mask in found.items()
        if mask.mean() > 0.5
    }


FAR = (60.0, 60.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("motion", "expected"),
    [
        (played((0, 0, 0, 0), FAR), set()),
        # one behind the other, running, walking, and the hind one looking away
        (played((0, 0, 0, 25), (14, 0, 0, 25)), {"12 chase", "21 escape", "1 run", "2 run"}),
        (played((0, 0, 0, 9), (14, 0, 0, 9)), {"12 follow"}),
        (played((0, 0, 180, 9), (14, 0, 180, 9)), {"21 follow"}),
        (played((0, 0, 0, 25), (26, 0, 0, 25)), {"1 run", "2 run"}),
        (played((0, 0, 0, 17), (14, 0, 0, 17)), {"12 chase", "21 escape"}),
        (played((0, 0, 0, 2), (14, 0, 0, 2)), set()),
        # nose to nose, to the tail's root, to the flank
        (played((0, 0, 0, 0), (10, 0, 180, 0)), {"12 sniff", "12 sniffface", "21 sniff", "21 sniffface"}),
        (played((0, 0, 0, 0), (9, 0, 0, 0)), {"12 sniff", "12 sniffgenital"}),
        (played((0, 0, 0, 0), (6, -0.5, 90, 0)), {"12 sniff", "12 sniffbody"}),
        (played((0, 0, 0, 0), (12, 0, 0, 0)), set()),
        # over the other's rump; across it is none
        (played((0, 0, 0, 0), (3, 0, 0, 0)), {"12 mount"}),
        (played((0, 0, 80, 0), (3, 0, 0, 0)), set()),
        # coming nearer for as long as there is way to go
        (played((0, 0, 0, 6), (20, 0, 90, 0)), {"12 approach"}),
        (played((0, 0, 180, 6), (20, 0, 90, 0)), set()),
        (played((0, 0, 0, 6), (45, 0, 90, 0)), set()),
        # alone
        (played((0, 0, 0, 0), FAR, height=[1, 0]), {"1 rear"}),
        (played((0, 0, 0, 0), FAR, groom=[0, 1]), {"2 selfgroom"}),
        (played((0, 0, 0, 0), FAR, curl=[-1, 0], seconds=4), {"1 rest"}),
        (played((0, 0, 0, 0), FAR, curl=[-1, 0], seconds=1.5), set()),
        (played((0, 0, 0, 21), FAR), {"1 run"}),
        (played((0, 0, 0, 19), FAR), set()),
    ],
)
def test_a_plain_scene_is_called_what_it_is(motion: Motion, expected: set[str]) -> None:
    assert seen(motion) == expected


def test_who_turns_to_and_fro_at_another_attacks_it() -> None:
    fight = played((0, 0, 0, 0), (7, 0, 90, 0))
    assert not any("attack" in one for one in seen(fight))
    fight.turning_NA[:, 0] = 10 * np.sin(2 * np.pi * 4 * np.arange(len(fight)) / RATE)
    assert "12 attack" in seen(fight) and "21 attack" not in seen(fight)


def test_labs_may_draw_the_line_elsewhere() -> None:
    slowly = played((0, 0, 0, 12), (14, 0, 0, 12))
    assert seen(slowly) == {"12 follow"}
    assert seen(slowly, Rules(chasing=10.0)) == {"12 chase", "21 escape"}


def test_what_is_short_is_none() -> None:
    for seconds, expected in ((0.25, set()), (0.4, {"12 chase", "21 escape", "1 run", "2 run"})):
        assert seen(played((0, 0, 0, 25), (14, 0, 0, 25), seconds=seconds)) == expected


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 6), st.integers(0, 6))
def test_lasting_is_closing_then_dropping(active: list[bool], least: int, bridge: int) -> None:
    pieces = [(one, len(list(group))) for one, group in groupby(active)]
    inner = range(1, len(pieces) - 1)
    closed = [one or (k in inner and length < bridge) for k, (one, length) in enumerate(pieces) for _ in range(length)]
    expected = []
    for one, group in groupby(closed):
        length = len(list(group))
        expected += [one and length >= least] * length
    assert rules.lasting(np.array(active), least / RATE, bridge / RATE).tolist() == expected


@pytest.fixture(scope="module")
def simulated() -> list[Motion]:
    eager = Temperament(meeting={"sniff face": 1, "attack": 1, "mount": 1, "chase": 2}, sociable=0.6)
    return [moved(Arena(45, 35), eager, 2, 60, Random(seed)) for seed in range(3)]


def test_one_action_at_a_time_and_none_too_short(simulated: list[Motion]) -> None:
    for motion in simulated:
        found = rules.labels(motion)
        for agent, target in (("mouse1", "mouse2"), ("mouse2", "mouse1"), ("mouse1", "self"), ("mouse2", "self")):
            names = [one for one in found if (one.agent, one.target) == (agent, target)]
            kinds = [one for one in names if one.action in rules.SNIFFS[1:]]
            assert np.sum([found[one] for one in names if one not in kinds], axis=0).max() <= 1
            assert np.sum([found[one] for one in kinds], axis=0).max() <= 1 if kinds else target == "self"
            for one in kinds:
                assert not (found[one] & ~found[Behaviour(agent, target, "sniff")]).any()
            for one in names:
                starts, stops = runs(found[one])
                assert not len(starts) or (stops - starts).min() >= Rules().least * RATE - 1e-9, one


def test_what_is_said_of_frames_can_be_measured_there(simulated: list[Motion]) -> None:
    """Distances and speeds worked out anew, point by point, where a rule is said to hold; short gaps are bridged."""
    held: dict[str, list[bool]] = {"chase": [], "sniff": [], "mount": [], "escape": []}
    for motion in simulated:
        nose, tail = (bodies.positions(motion, [part])[:, :, 0] for part in ("nose", "tail_base"))
        for one, mask in rules.labels(motion).items():
            if one.action not in held:
                continue
            a, b = int(one.agent[-1]) - 1, int(one.target[-1]) - 1
            for n in np.flatnonzero(mask)[::7].tolist():
                first, last = max(n - 6, 0), min(n + 6, len(motion) - 1)
                way = [math.dist(motion.xy_NAX[first, k], motion.xy_NAX[last, k]) for k in (a, b)]
                speed = [one_way / (last - first) * RATE for one_way in way]
                to_other = motion.xy_NAX[n, b] - motion.xy_NAX[n, a]
                bearing = math.atan2(to_other[1], to_other[0]) - motion.heading_NA[n, a]
                line = [tail[n, b] + share * (nose[n, b] - tail[n, b]) for share in np.linspace(0, 1, 30)]
                touch = min(math.dist(nose[n, a], point) for point in line)
                held[one.action].append(
                    {
                        "chase": min(speed) > 14 and touch < 11 and math.cos(bearing) > 0.65,
                        "escape": speed[0] > 14 and math.cos(bearing) < -0.25,
                        "sniff": touch < 3.2 and speed[0] < 12,
                        "mount": math.hypot(*to_other) < 6 and max(speed) < 13,
                    }[one.action]
                )
    for action, held_there in held.items():
        assert len(held_there) > 15 and np.mean(held_there) > 0.9, action


def test_labels_do_not_ask_what_a_mouse_wants(simulated: list[Motion]) -> None:
    motion = simulated[0]
    blind = Motion(**{**vars(motion), "intention_NA": np.zeros_like(motion.intention_NA)})
    first, second = rules.labels(motion), rules.labels(blind)
    assert all(np.array_equal(first[one], second[one]) for one in first)
    assert first[Behaviour("mouse1", "mouse2", "sniff")].any()
