"""Sets of columns that do not change when a recording is moved, turned or reflected: `alone` and `pair`.

Both come out of landmarks that nearly every laboratory tracks, in cm and seconds. What has a side (how far to its right
something is, which way an animal turns) is taken without its sign, and parts of both sides by what they have in common,
so that a mouse and its mirror image are one. Whether the agent turns towards the target or away from it has a sign of
its own and is kept.

Shapes: T frames, A agent and target, L landmarks, X is x and y in cm, E is ahead and to the right, S is left and right.
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
ROLES = ("agent", "target")
MEMORY = 10.0  # seconds after which a contact counts as long ago


class Animals:
    """Landmarks of one animal or more with their motion, each computed when first asked for, for all at once."""

    def __init__(self, body: Body, fps: float) -> None:
        self.body = body
        self.fps = fps

    @cached_property
    def velocity_TALX(self) -> Reals:
        return kinematics.velocity(self.body.xy_TLX, self.fps)

    @cached_property
    def acceleration_TAX(self) -> Reals:
        return kinematics.acceleration(self.body.at("center"), self.fps)

    @cached_property
    def frame(self) -> egocentric.Frame:
        return egocentric.frame(self.body)

    @cached_property
    def turning_TA(self) -> Reals:
        """Of the body's axis, positive clockwise on the screen."""
        unit_TAX = self.frame.ahead_TX
        return cross(unit_TAX, kinematics.derivative(unit_TAX, self.fps))

    def velocity(self, landmark: str) -> Reals:
        """(T, A, X)."""
        return self.velocity_TALX[:, :, LANDMARKS.index(landmark)]


def now_alone(animals: Animals) -> Columns:
    """What one animal does in each frame."""
    columns = motion(animals) | posture(animals) | own_places(animals) | {"seen": animals.body.seen_T}
    return _by_role(columns, ("agent",))


def course_alone(animals: Animals) -> Columns:
    """The same, and how straight its way is."""
    return now_alone(animals) | _called("agent", straightness(animals))


def now_pair(animals: Animals) -> Columns:
    """What two animals do in each frame."""
    own = _by_role(motion(animals) | posture(animals), ROLES)
    mutual = apart(animals) | each_other(animals) | moving(animals)
    return own | _called("pair", mutual | contact(mutual))


def motion(animals: Animals) -> Columns:
    """(T, A) speeds, accelerations and turns."""
    ahead, center_v = animals.frame.ahead_TX, animals.velocity("center")
    nose_in_body = animals.velocity("nose") - center_v
    speed_TAL = length(animals.velocity_TALX)
    found = {f"speed.{landmark}": speed_TAL[..., k] for k, landmark in enumerate(LANDMARKS)}
    return found | {
        "speed.ahead": dot(ahead, center_v),
        "speed.sideways": np.abs(cross(ahead, center_v)),
        "acceleration": length(animals.acceleration_TAX),
        "acceleration.ahead": dot(animals.acceleration_TAX, ahead),
        "jerk": length(kinematics.jerk(animals.body.at("center"), animals.fps, JERK)),
        "turning": np.abs(animals.turning_TA),
        "turning.head": np.abs(kinematics.turning(animals.body.head_TX, animals.fps)),
        "turning.path": np.abs(kinematics.curving(center_v, animals.acceleration_TAX)),
        "nose.speed.ahead": dot(ahead, nose_in_body),
        "nose.speed.sideways": np.abs(cross(ahead, nose_in_body)),
    }


def posture(animals: Animals) -> Columns:
    """(T, A) lengths, angles and outline."""
    body = animals.body
    between = dict(zip(shape.pairs(LANDMARKS), shape.distances(body.xy_TLX), strict=True))
    front, rear = body.at("neck") - body.at("center"), body.at("center") - body.at("tail")
    left_ear, right_ear = body.ears_TSX[:, :, 0], body.ears_TSX[:, :, 1]
    left_hip, right_hip = body.hips_TSX[:, :, 0], body.hips_TSX[:, :, 1]
    found = {f"length.{one}.{other}": distance for (one, other), distance in between.items()}
    return found | {
        "width.ears": social.distance(left_ear, right_ear),
        "width.hips": social.distance(left_hip, right_hip),
        "area": shape.area([body.at("nose"), right_ear, right_hip, body.at("tail"), left_hip, left_ear]),
        "elongation": shape.elongation(body.parts_TPX),
        "bend": np.abs(shape.angle(rear, front)),
        "bend.head": np.abs(shape.angle(body.axis_TX, body.head_TX)),
        "stretching": kinematics.derivative(between["nose", "tail"], animals.fps),
    }


def own_places(animals: Animals) -> Columns:
    """(T, A) where an animal's parts are in its own frame."""
    body, frame = animals.body, animals.frame
    places_TALE = frame.places(body.xy_TLX)
    place = {name: places_TALE[:, :, k] for k, name in enumerate(LANDMARKS)}
    found = {f"ahead.{name}": place[name][..., 0] for name in LANDMARKS if name != "center"}
    found |= {f"aside.{name}": np.abs(place[name][..., 1]) for name in ("nose", "neck")}
    for name, side_TASX in (("ears", body.ears_TSX), ("hips", body.hips_TSX)):
        side_TASE = frame.places(side_TASX)
        middle_TAE = landmarks.middle(side_TASE)
        found[f"ahead.{name}"] = middle_TAE[..., 0]
        found[f"tilt.{name}"] = np.abs(side_TASE[:, :, 0, 0] - side_TASE[:, :, 1, 0])
        found[f"aside.{name}"] = np.abs(middle_TAE[..., 1])
    return found


def straightness(animals: Animals) -> Columns:
    """(T,) of one animal: distance made good per distance run, from 0 to 1, and the speed made good, over windows."""
    found: Columns = {}
    velocity = animals.velocity("center")[:, 0]
    known = np.column_stack((velocity, length(velocity)))
    for seconds in WINDOWS:
        mean = rolling.mean(known, animals.fps, seconds)
        net = length(mean[:, :2])
        found[f"speed.net_{seconds:g}s"] = net
        found[f"straightness_{seconds:g}s"] = net / (mean[:, 2] + kinematics.SLOW)
    return found


def apart(animals: Animals) -> Columns:
    """(T,) distances between the two, and where each is in the other's frame."""
    both, a, t = animals.body, animals.body.of(0), animals.body.of(1)
    wanted = [("nose", "nose"), ("nose", "neck"), ("nose", "center"), ("nose", "tail"), ("neck", "nose")]
    wanted += [("center", "nose"), ("tail", "nose"), ("neck", "neck"), ("center", "center"), ("tail", "tail")]
    found = {f"distance.{p}.{q}": social.distance(a.at(p), t.at(q)) for p, q in wanted}
    found["distance.closest"] = social.closest(a.parts_TPX, t.parts_TPX)
    found["distance.nose.closest"] = social.closest(a.xy_TLX[:, :1], t.parts_TPX)
    found["distance.closest.nose"] = social.closest(t.xy_TLX[:, :1], a.parts_TPX)
    length_TA = length(both.axis_TX)
    mean_length = np.maximum((length_TA[:, 0] + length_TA[:, 1]) / 2, np.float32(1))
    found["distance.relative"] = found["distance.center.center"] / mean_length
    places_TALE = animals.frame.places(_other(both.xy_TLX))
    aside_TAL = np.abs(places_TALE[..., 1])
    for own, seen in enumerate(("target", "agent")):
        for k, landmark in enumerate(LANDMARKS):
            found[f"ahead.{seen}.{landmark}"] = places_TALE[:, own, k, 0]
            found[f"aside.{seen}.{landmark}"] = aside_TAL[:, own, k]
    return found


def each_other(animals: Animals) -> Columns:
    """(T,) who faces whom."""
    both, a, t = animals.body, animals.body.of(0), animals.body.of(1)
    body_TA = social.facing(both.axis_TX, both.at("center"), _other(both.at("center")))
    head_TA = social.facing(both.head_TX, both.at("nose"), _other(both.at("center")))
    return {
        "facing.agent": body_TA[:, 0],
        "facing.target": body_TA[:, 1],
        "facing.agent.head": head_TA[:, 0],
        "facing.target.head": head_TA[:, 1],
        "facing.agent.head.nose": social.facing(both.head_TX[:, 0], a.at("nose"), t.at("nose")),
        "facing.agent.head.tail": social.facing(both.head_TX[:, 0], a.at("nose"), t.at("tail")),
        "parallel": dot(animals.frame.ahead_TX[:, 0], animals.frame.ahead_TX[:, 1]),
    }


def moving(animals: Animals) -> Columns:
    """(T,) how the two move with respect to each other."""
    place, v = animals.body.at("center"), animals.velocity("center")
    nose, tail = animals.body.at("nose"), animals.body.at("tail")
    nose_v, tail_v = animals.velocity("nose"), animals.velocity("tail")
    toward_TA, chase_TA = social.toward(v, place, _other(place)), social.chase(v, _other(v), place, _other(place))
    speed_TA = length(v)
    to_right = cross(animals.frame.ahead_TX[:, 0], place[:, 1] - place[:, 0])
    return {
        "approach": toward_TA[:, 0] + toward_TA[:, 1],
        "approach.agent": toward_TA[:, 0],
        "approach.target": toward_TA[:, 1],
        "approach.nose.nose": social.approach(nose_v[:, 0], nose_v[:, 1], nose[:, 0], nose[:, 1]),
        "approach.nose.tail": social.approach(nose_v[:, 0], tail_v[:, 1], nose[:, 0], tail[:, 1]),
        "acceleration.toward": social.toward(animals.acceleration_TAX[:, 0], place[:, 0], place[:, 1]),
        "speed.relative": social.distance(v[:, 0], v[:, 1]),
        "speed.difference": speed_TA[:, 0] - speed_TA[:, 1],
        "alignment": social.alignment(v[:, 0], v[:, 1]),
        "chase": chase_TA[:, 0],
        "chased": chase_TA[:, 1],
        "turning.toward": animals.turning_TA[:, 0] * np.sign(to_right),
    }


def contact(columns: Columns) -> Columns:
    """Touch, and of which kind, out of the distances of `apart`."""
    touches = {"contact": "closest", "contact.nose": "nose.closest"}
    touches |= {"contact.nose.nose": "nose.nose", "contact.nose.tail": "nose.tail"}
    found = {name: social.touching(columns[f"distance.{distance}"]) for name, distance in touches.items()}
    return found


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
    columns_of: Callable[[Animals], Columns]  # frame by frame
    since: Mapping[str, str] = field(default_factory=dict)  # times since a column of 0 and 1 was 1
    lasting: tuple[str, ...] = ()  # columns of which there are means and deviations over every window
    extreme: tuple[str, ...] = ()  # and extremes over one

    @cached_property
    def now(self) -> tuple[str, ...]:
        """Names of the columns that are made frame by frame: those of a recording without frames."""
        names = ROLES[: self.animals]
        nothing = Tracks(np.empty((0, len(names), 1, 2)), names, ("nose",), 30.0, 1.0)
        return tuple(self.columns_of(Animals(landmarks.bodies(nothing, dict.fromkeys(names, ())), 30.0)))

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
        return list(recipe.columns_of(Animals(landmarks.bodies(tracks, seen, rows, origin), tracks.fps)).values())

    x_TF = chunks.made(recipe.plan(tracks.fps), made_of, len(tracks), threads)
    for name, active in recipe.since.items():  # which looks back further than a chunk's margin
        active_T = x_TF[:, recipe.now.index(active)] == 1
        x_TF[:, recipe.names.index(name)] = social.since(active_T, tracks.fps, MEMORY)
    return Table(recipe.names, x_TF)


def _by_role(columns: Columns, roles: Sequence[str]) -> Columns:
    """(T,) each, of (T, A)."""
    return {f"{role}.{name}": x_TA[:, a] for a, role in enumerate(roles) for name, x_TA in columns.items()}


def _called(role: str, columns: Columns) -> Columns:
    return {f"{role}.{name}": column for name, column in columns.items()}


def _other(x_TA: Reals) -> Reals:
    """Of the target for the agent, and of the agent for the target."""
    return x_TA[:, ::-1]
