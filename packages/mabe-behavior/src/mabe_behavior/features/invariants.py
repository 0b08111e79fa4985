"""Sets of columns that do not change when a recording is moved, turned or reflected: `alone` and `pair`.

Both come out of landmarks that nearly every laboratory tracks, in cm and seconds. What has a side (how far to its right
something is, which way an animal turns) is taken without its sign, and parts of both sides by what they have in common,
so that a mouse and its mirror image are one. Whether the agent turns towards the target or away from it has a sign of
its own and is kept.

Shapes: T frames, L landmarks, X is x and y in cm, E is ahead and to the right, S is left and right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.features import chunks, egocentric, kinematics, landmarks, rolling, shape, social
from mabe_behavior.features.columns import Reals, Table
from mabe_behavior.features.kinematics import cross, dot, length
from mabe_behavior.features.landmarks import LANDMARKS, Body
from mabe_behavior.features.rolling import Rolling, odd_frames
from mabe_behavior.tracks import Tracks

Columns = dict[str, NDArray]
JERK = 0.4  # seconds of the fit to a jerk, the longest of all fits
WINDOWS = (0.5, 2.0, 6.0)  # seconds
EXTREMES = 1.0  # seconds
MEANS, ENDS = ("mean", "std"), ("min", "max")
MEMORY = 10.0  # seconds after which a contact counts as long ago


class Animal:
    """One animal's landmarks with their motion, each computed when first asked for."""

    def __init__(self, body: Body, fps: float) -> None:
        self.body = body
        self.fps = fps

    @cached_property
    def velocity_TLX(self) -> Reals:
        return kinematics.velocity(self.body.xy_TLX, self.fps)

    @cached_property
    def acceleration_TX(self) -> Reals:
        return kinematics.acceleration(self.body.at("center"), self.fps)

    @cached_property
    def frame(self) -> egocentric.Frame:
        return egocentric.frame(self.body)

    @cached_property
    def turning_T(self) -> Reals:
        """Of the body's axis, positive clockwise on the screen."""
        unit_TX = self.frame.ahead_TX
        return cross(unit_TX, kinematics.derivative(unit_TX, self.fps))

    def velocity(self, landmark: str) -> Reals:
        return self.velocity_TLX[:, LANDMARKS.index(landmark)]


def now_alone(animal: Animal) -> Columns:
    """What one animal does in each frame."""
    columns = motion(animal, "agent") | posture(animal, "agent") | own_places(animal, "agent")
    return columns | {"agent.seen": animal.body.seen_T}


def course_alone(animal: Animal) -> Columns:
    """The same, and how straight its way is."""
    return now_alone(animal) | straightness(animal, "agent")


def now_pair(one: Animal, other: Animal) -> Columns:
    """What two animals do in each frame."""
    columns: Columns = {}
    for animal, role in ((one, "agent"), (other, "target")):
        columns |= motion(animal, role) | posture(animal, role)
    columns |= apart(one, other) | each_other(one, other) | moving(one, other)
    return columns | contact(columns)


def motion(animal: Animal, role: str) -> Columns:
    """Speeds, accelerations and turns."""
    ahead_TX, center_v = animal.frame.ahead_TX, animal.velocity("center")
    nose_in_body = animal.velocity("nose") - center_v
    speed = length(animal.velocity_TLX)
    found = {f"speed.{landmark}": speed[:, k] for k, landmark in enumerate(LANDMARKS)}
    found |= {
        "speed.ahead": dot(ahead_TX, center_v),
        "speed.sideways": np.abs(cross(ahead_TX, center_v)),
        "acceleration": length(animal.acceleration_TX),
        "acceleration.ahead": dot(animal.acceleration_TX, ahead_TX),
        "jerk": length(kinematics.jerk(animal.body.at("center"), animal.fps, JERK)),
        "turning": np.abs(animal.turning_T),
        "turning.head": np.abs(kinematics.turning(animal.body.head_TX, animal.fps)),
        "turning.path": np.abs(kinematics.curving(center_v, animal.acceleration_TX)),
        "nose.speed.ahead": dot(ahead_TX, nose_in_body),
        "nose.speed.sideways": np.abs(cross(ahead_TX, nose_in_body)),
    }
    return _called(role, found)


def posture(animal: Animal, role: str) -> Columns:
    """Lengths, angles and outline."""
    body = animal.body
    between = dict(zip(shape.pairs(LANDMARKS), shape.distances(body.xy_TLX).T, strict=True))
    front, rear = body.at("neck") - body.at("center"), body.at("center") - body.at("tail")
    (left_ear, right_ear), (left_hip, right_hip) = (sides.swapaxes(0, 1) for sides in (body.ears_TSX, body.hips_TSX))
    outline = landmarks.beside([body.at("nose"), right_ear, right_hip, body.at("tail"), left_hip, left_ear])
    length_T = between["nose", "tail"]
    found = {f"length.{one}.{other}": distance for (one, other), distance in between.items()}
    found |= {
        "width.ears": length(left_ear - right_ear),
        "width.hips": length(left_hip - right_hip),
        "area": shape.area(outline),
        "elongation": shape.elongation(body.parts_TPX),
        "bend": np.abs(shape.angle(rear, front)),
        "bend.head": np.abs(shape.angle(body.axis_TX, body.head_TX)),
        "stretching": kinematics.derivative(length_T, animal.fps),
    }
    return _called(role, found)


def own_places(animal: Animal, role: str) -> Columns:
    """Where an animal's parts are in its own frame."""
    body, frame = animal.body, animal.frame
    places_TLE = frame.places(body.xy_TLX)
    found = {f"ahead.{name}": places_TLE[:, k, 0] for k, name in enumerate(LANDMARKS) if name != "center"}
    found |= {
        f"aside.{name}": np.abs(places_TLE[:, k, 1]) for k, name in enumerate(LANDMARKS) if name in ("nose", "neck")
    }
    for name, side_TSX in (("ears", body.ears_TSX), ("hips", body.hips_TSX)):
        side_TSE = frame.places(side_TSX)
        found[f"ahead.{name}"] = landmarks.middle(side_TSE)[:, 0]
        found[f"tilt.{name}"] = np.abs(side_TSE[:, 0, 0] - side_TSE[:, 1, 0])
        found[f"aside.{name}"] = np.abs(landmarks.middle(side_TSE)[:, 1])
    return _called(role, found)


def straightness(animal: Animal, role: str) -> Columns:
    """Distance made good per distance run, from 0 to 1, and the speed made good, over each window."""
    found: Columns = {}
    velocity = animal.velocity("center")
    known = np.column_stack((velocity, length(velocity)))
    for seconds in WINDOWS:
        mean = rolling.mean(known, animal.fps, seconds)
        net = length(mean[:, :2])
        found[f"speed.net_{seconds:g}s"] = net
        found[f"straightness_{seconds:g}s"] = net / (mean[:, 2] + social.SLOW)
    return _called(role, found)


def apart(one: Animal, other: Animal) -> Columns:
    """Distances between the two, and where each is in the other's frame."""
    a, t = one.body, other.body
    wanted = [("nose", "nose"), ("nose", "neck"), ("nose", "center"), ("nose", "tail"), ("neck", "nose")]
    wanted += [("center", "nose"), ("tail", "nose"), ("neck", "neck"), ("center", "center"), ("tail", "tail")]
    found = {f"distance.{p}.{q}": social.distance(a.at(p), t.at(q)) for p, q in wanted}
    found["distance.closest"] = social.closest(a.parts_TPX, t.parts_TPX)
    found["distance.nose.closest"] = social.closest(a.xy_TLX[:, :1], t.parts_TPX)
    found["distance.closest.nose"] = social.closest(t.xy_TLX[:, :1], a.parts_TPX)
    mean_length = (length(a.axis_TX) + length(t.axis_TX)) / 2
    found["distance.relative"] = found["distance.center.center"] / np.maximum(mean_length, np.float32(1))
    for role, own, seen in (("target", one, other), ("agent", other, one)):
        places_TLE = own.frame.places(seen.body.xy_TLX)
        for k, landmark in enumerate(LANDMARKS):
            found[f"ahead.{role}.{landmark}"] = places_TLE[:, k, 0]
            found[f"aside.{role}.{landmark}"] = np.abs(places_TLE[:, k, 1])
    return _called("pair", found)


def each_other(one: Animal, other: Animal) -> Columns:
    """Who faces whom."""
    a, t = one.body, other.body
    found = {
        "facing.agent": social.facing(a.axis_TX, a.at("center"), t.at("center")),
        "facing.target": social.facing(t.axis_TX, t.at("center"), a.at("center")),
        "facing.agent.head": social.facing(a.head_TX, a.at("nose"), t.at("center")),
        "facing.target.head": social.facing(t.head_TX, t.at("nose"), a.at("center")),
        "facing.agent.head.nose": social.facing(a.head_TX, a.at("nose"), t.at("nose")),
        "facing.agent.head.tail": social.facing(a.head_TX, a.at("nose"), t.at("tail")),
        "parallel": dot(one.frame.ahead_TX, other.frame.ahead_TX),
    }
    return _called("pair", found)


def moving(one: Animal, other: Animal) -> Columns:
    """How the two move with respect to each other."""
    a, t = one.body.at("center"), other.body.at("center")
    a_v, t_v = one.velocity("center"), other.velocity("center")
    nose, nose_v = one.body.at("nose"), one.velocity("nose")
    to_right = one.frame.places(t[:, None])[:, 0, 1]
    found = {
        "approach": social.approach(a_v, t_v, a, t),
        "approach.agent": social.toward(a_v, a, t),
        "approach.target": social.toward(t_v, t, a),
        "approach.nose.nose": social.approach(nose_v, other.velocity("nose"), nose, other.body.at("nose")),
        "approach.nose.tail": social.approach(nose_v, other.velocity("tail"), nose, other.body.at("tail")),
        "acceleration.toward": social.toward(one.acceleration_TX, a, t),
        "speed.relative": length(t_v - a_v),
        "speed.difference": length(a_v) - length(t_v),
        "alignment": social.alignment(a_v, t_v),
        "chase": social.chase(a_v, t_v, a, t),
        "chased": social.chase(t_v, a_v, t, a),
        "turning.toward": one.turning_T * np.sign(to_right),
    }
    return _called("pair", found)


def contact(columns: Columns) -> Columns:
    """Touch, and of which kind, out of the distances of `apart`."""
    touches = {"contact": "closest", "contact.nose": "nose.closest"}
    touches |= {"contact.nose.nose": "nose.nose", "contact.nose.tail": "nose.tail"}
    found = {name: social.touching(columns[f"pair.distance.{distance}"]) for name, distance in touches.items()}
    return _called("pair", found)


# what is followed over time: columns of either animal, and of a pair
LASTING_ALONE = tuple(
    f"agent.{name}"
    for name in (
        *("speed.center", "speed.nose", "speed.ahead", "acceleration", "turning", "turning.head", "nose.speed.ahead"),
        *("nose.speed.sideways", "length.nose.tail", "length.nose.center", "elongation", "bend", "bend.head"),
        "stretching",
    )
)
EXTREME_PAIR = (
    *("pair.distance.closest", "pair.distance.nose.nose", "pair.distance.nose.tail", "pair.distance.tail.nose"),
    *("pair.facing.agent", "pair.facing.target", "pair.parallel", "pair.approach", "pair.approach.agent", "pair.chase"),
)
LASTING_PAIR = (
    *(f"{role}.{name}" for role in ("agent", "target") for name in ("speed.center", "turning", "elongation", "bend")),
    *("pair.contact", "pair.contact.nose", *EXTREME_PAIR),
)


SINCE = {"pair.since.contact": "pair.contact", "pair.since.contact.nose": "pair.contact.nose"}


@dataclass(frozen=True)
class Recipe:
    """What a set is made of, from left to right."""

    animals: int
    columns_of: Callable[..., Columns]  # frame by frame
    since: Mapping[str, str] = field(default_factory=dict)  # times since a column of 0 and 1 was 1
    lasting: tuple[str, ...] = ()  # columns of which there are means and deviations over every window
    extreme: tuple[str, ...] = ()  # and extremes over one

    @cached_property
    def now(self) -> tuple[str, ...]:
        """Names of the columns that are made frame by frame: those of a recording without frames."""
        nothing = landmarks.body(Tracks(np.empty((0, 1, 1, 2)), ("mouse1",), ("nose",), 30.0, 1.0), "mouse1")
        return tuple(self.columns_of(*(Animal(nothing, 30.0) for _ in range(self.animals))))

    @property
    def names(self) -> tuple[str, ...]:
        """Of all columns."""
        means, extremes = rolling.names(self.lasting, WINDOWS, MEANS), rolling.names(self.extreme, [EXTREMES], ENDS)
        return (*self.now, *self.since, *means, *extremes)

    def plan(self, fps: float) -> chunks.Plan:
        statistics = [
            Rolling(
                tuple(odd_frames(one, fps) for one in seconds), wanted, tuple(self.now.index(name) for name in columns)
            )
            for columns, seconds, wanted in ((self.lasting, WINDOWS, MEANS), (self.extreme, (EXTREMES,), ENDS))
            if columns
        ]
        return chunks.Plan(len(self.now), len(self.since), statistics, kinematics.reach(JERK, fps, 3))


ALONE_NOW, PAIR_NOW = Recipe(1, now_alone), Recipe(2, now_pair)
ALONE = Recipe(1, course_alone, {}, LASTING_ALONE, LASTING_ALONE)
PAIR = Recipe(2, now_pair, SINCE, LASTING_PAIR, EXTREME_PAIR)


def table(tracks: Tracks, animals: Sequence[str], recipe: Recipe, threads: int = 1) -> Table:
    """(T, F) of the agent, or of the agent and the target.

    Raises ValueError for an animal that is not in the tracks.
    """
    seen = {name: landmarks.parts_seen(tracks, name) for name in animals}
    origin = landmarks.center_of(tracks)

    def made_of(rows: slice) -> list[NDArray]:
        bodies = [landmarks.body(tracks, name, rows, seen[name], origin) for name in animals]
        return list(recipe.columns_of(*(Animal(body, tracks.fps) for body in bodies)).values())

    x_TF = chunks.made(recipe.plan(tracks.fps), made_of, len(tracks), threads)
    for name, active in recipe.since.items():  # which looks back further than a chunk's margin
        active_T = x_TF[:, recipe.now.index(active)] == 1
        x_TF[:, recipe.names.index(name)] = social.since(active_T, tracks.fps, MEMORY)
    return Table(recipe.names, x_TF)


def _called(role: str, columns: Columns) -> Columns:
    return {f"{role}.{name}": column for name, column in columns.items()}
