"""The sets `v4` and `pair` as one writes them with NumPy, SciPy and pandas: what ours are compared with.

Arrays keep the order of the recording, frames first and x beside y; lengths are `np.linalg.norm`, derivatives
`scipy.signal.savgol_filter`, and moving statistics `DataFrame.rolling` over all columns of a kind at once. It shares no
code with the package, and takes seven parts only. Near the ends of a recording its derivatives differ, as SciPy cannot
fit windows with missing values there.

Shapes: T frames, P parts, X is x and y.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas
from scipy.signal import savgol_filter

PARTS = ("nose", "ear_left", "ear_right", "neck", "hip_left", "hip_right", "tail_base")
PLACES = ("nose", "neck", "center", "tail")
Columns = dict[str, np.ndarray]


def frames_of(seconds: float, fps: float) -> int:
    """The odd number next to it; of two as near, the smaller."""
    below = int(np.floor(seconds * fps))
    return below if below % 2 else (below + 1 if seconds * fps > below else below - 1)


def derived(x: np.ndarray, fps: float, order: int, seconds: float = 0.25) -> np.ndarray:
    width = max(frames_of(seconds, fps), 2 * ((order + 2) // 2) + 1)
    return savgol_filter(x, width, order + 1, deriv=order, delta=1 / fps, axis=0, mode="nearest")


def norm(x: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x, axis=-1)


def direction(x: np.ndarray) -> np.ndarray:
    return x / norm(x)[..., None]


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=-1)


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def places(xy_TPX: np.ndarray) -> Columns:
    """Landmarks by name; the centre is that of neck and hips."""
    part = {name: xy_TPX[:, p] for p, name in enumerate(PARTS)}
    middle = (part["neck"] + part["hip_left"] + part["hip_right"]) / 3
    return part | {"center": middle, "tail": part["tail_base"], "ears": (part["ear_left"] + part["ear_right"]) / 2}


def outline(xy_TPX: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Area and elongation of the body."""
    around = xy_TPX[
        :, [PARTS.index(p) for p in ("nose", "ear_right", "hip_right", "tail_base", "hip_left", "ear_left")]
    ]
    area = np.abs(cross(around, np.roll(around, -1, axis=1)).sum(axis=1)) / 2
    away = xy_TPX - np.nanmean(xy_TPX, axis=1, keepdims=True)
    xx, yy = np.nanmean(away**2, axis=1).T
    xy = np.nanmean(away[..., 0] * away[..., 1], axis=1)
    half, root = (xx + yy) / 2, np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    elongation = 1 - np.sqrt(np.maximum(half - root, 0) / (half + root))
    elongation[np.isfinite(xy_TPX[..., 0]).sum(axis=1) < 3] = np.nan
    return area, elongation


def one_animal(xy_TPX: np.ndarray, fps: float, role: str) -> tuple[Columns, Columns]:
    """Its columns; and landmarks, axes and velocities for those of both."""
    at = places(xy_TPX)
    axis, head = at["neck"] - at["tail"], at["nose"] - at["ears"]
    ahead = direction(axis)
    v = {name: derived(at[name], fps, 1) for name in PLACES}
    acceleration = derived(at["center"], fps, 2)
    head_unit, nose_v = direction(head), v["nose"] - v["center"]
    area, elongation = outline(xy_TPX)
    turning = cross(ahead, derived(ahead, fps, 1))
    front, rear = at["neck"] - at["center"], at["center"] - at["tail"]
    found = {f"speed.{name}": norm(v[name]) for name in PLACES}
    found |= {f"length.{a}.{b}": norm(at[a] - at[b]) for a, b in combinations(PLACES, 2)}
    found |= {
        "speed.ahead": dot(ahead, v["center"]),
        "speed.sideways": np.abs(cross(ahead, v["center"])),
        "acceleration": norm(acceleration),
        "acceleration.ahead": dot(acceleration, ahead),
        "jerk": norm(derived(at["center"], fps, 3, 0.4)),
        "turning": np.abs(turning),
        "turning.head": np.abs(cross(head_unit, derived(head_unit, fps, 1))),
        "turning.path": np.abs(cross(v["center"], acceleration) / (norm(v["center"]) ** 2 + 1)),
        "nose.speed.ahead": dot(ahead, nose_v),
        "nose.speed.sideways": np.abs(cross(ahead, nose_v)),
        "width.ears": norm(at["ear_left"] - at["ear_right"]),
        "width.hips": norm(at["hip_left"] - at["hip_right"]),
        "area": area,
        "elongation": elongation,
        "bend": np.abs(np.arctan2(cross(rear, front), dot(rear, front))),
        "bend.head": np.abs(np.arctan2(cross(axis, head), dot(axis, head))),
        "stretching": derived(found["length.nose.tail"], fps, 1),
    }
    more = {"axis": axis, "head": head, "ahead": ahead, "acceleration": acceleration, "turning": turning}
    return {f"{role}.{name}": x for name, x in found.items()}, at | more | {f"v.{name}": v[name] for name in PLACES}


def both_animals(xy_TAPX: np.ndarray, one: Columns, other: Columns) -> Columns:
    """What two animals are to each other."""
    wanted = [("nose", "nose"), ("nose", "neck"), ("nose", "center"), ("nose", "tail"), ("neck", "nose")]
    wanted += [("center", "nose"), ("tail", "nose"), ("neck", "neck"), ("center", "center"), ("tail", "tail")]
    found = {f"distance.{a}.{b}": norm(one[a] - other[b]) for a, b in wanted}
    to_every = {
        "closest": norm(xy_TAPX[:, 0, :, None] - xy_TAPX[:, 1, None]).reshape(len(xy_TAPX), -1),
        "nose.closest": norm(one["nose"][:, None] - xy_TAPX[:, 1]),
        "closest.nose": norm(other["nose"][:, None] - xy_TAPX[:, 0]),
    }
    found |= {f"distance.{name}": np.fmin.reduce(distances, axis=1) for name, distances in to_every.items()}
    size = (norm(one["axis"]) + norm(other["axis"])) / 2
    found["distance.relative"] = found["distance.center.center"] / np.maximum(size, 1)
    for role, own, seen in (("target", one, other), ("agent", other, one)):
        for name in PLACES:
            found[f"ahead.{role}.{name}"] = dot(own["ahead"], seen[name] - own["center"])
            found[f"aside.{role}.{name}"] = np.abs(cross(own["ahead"], seen[name] - own["center"]))
    return found | facing(one, other) | moving(one, other)


def facing(one: Columns, other: Columns) -> Columns:
    def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return dot(direction(a), direction(b))

    return {
        "facing.agent": cosine(one["axis"], other["center"] - one["center"]),
        "facing.target": cosine(other["axis"], one["center"] - other["center"]),
        "facing.agent.head": cosine(one["head"], other["center"] - one["nose"]),
        "facing.target.head": cosine(other["head"], one["center"] - other["nose"]),
        "facing.agent.head.nose": cosine(one["head"], other["nose"] - one["nose"]),
        "facing.agent.head.tail": cosine(one["head"], other["tail"] - one["nose"]),
        "parallel": cosine(one["axis"], other["axis"]),
    }


def moving(one: Columns, other: Columns) -> Columns:
    def approach(a: str, b: str) -> np.ndarray:
        return dot(one[f"v.{a}"] - other[f"v.{b}"], direction(other[b] - one[a]))

    a_v, t_v, way = one["v.center"], other["v.center"], direction(other["center"] - one["center"])
    a_after, t_away = dot(a_v, way), dot(t_v, way)
    return {
        "approach": approach("center", "center"),
        "approach.agent": a_after,
        "approach.target": -t_away,
        "approach.nose.nose": approach("nose", "nose"),
        "approach.nose.tail": approach("nose", "tail"),
        "acceleration.toward": dot(one["acceleration"], way),
        "speed.relative": norm(t_v - a_v),
        "speed.difference": norm(a_v) - norm(t_v),
        "alignment": dot(a_v, t_v) / ((norm(a_v) + 1) * (norm(t_v) + 1)),
        "chase": np.sqrt(np.maximum(a_after, 0) * np.maximum(t_away, 0)),
        "chased": np.sqrt(np.maximum(-t_away, 0) * np.maximum(-a_after, 0)),
        "turning.toward": one["turning"] * np.sign(cross(one["ahead"], other["center"] - one["center"])),
    }


def contact(found: Columns, fps: float) -> Columns:
    made = {}
    for name, distance in (("", "closest"), (".nose", "nose.closest"), (".nose.nose",) * 2, (".nose.tail",) * 2):
        x = found[f"distance.{distance.strip('.')}"]
        made[f"contact{name}"] = np.where(np.isnan(x), np.nan, x <= 1.5)
    for name in ("contact", "contact.nose"):
        frame = np.arange(len(made[name]))
        last = pandas.Series(np.where(made[name] == 1, frame, np.nan)).ffill().fillna(-np.inf).to_numpy()
        made[f"since.{name}"] = np.minimum((frame - last) / fps, 10)
    return made


def statistics(frame: pandas.DataFrame, fps: float, windows: dict[float, tuple[str, ...]]) -> pandas.DataFrame:
    """Moving statistics of all columns, centred, of what is not missing; `change` is after less before."""
    found = []
    for seconds, wanted in windows.items():
        width = frames_of(seconds, fps)
        rolled = frame.rolling(width, center=True, min_periods=1)
        for statistic in wanted:
            if statistic == "std":
                made = rolled.std(ddof=0)
            elif statistic == "change":
                before = frame.rolling(width // 2, min_periods=1).mean().shift(1)
                made = frame[::-1].rolling(width // 2, min_periods=1).mean()[::-1].shift(-1) - before
            else:
                made = getattr(rolled, statistic)()
            found.append(made.add_suffix(f".{statistic}_{seconds:g}s"))
    return pandas.concat(found, axis=1)


def now(cm_TAPX: np.ndarray, fps: float) -> pandas.DataFrame:
    """The columns of `pair` that are of a frame, and times since a contact."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a mean of nothing
        agent, one = one_animal(cm_TAPX[:, 0], fps, "agent")
        target, other = one_animal(cm_TAPX[:, 1], fps, "target")
        mutual = both_animals(cm_TAPX, one, other)
        mutual |= contact(mutual, fps)
    return pandas.DataFrame(agent | target | {f"pair.{name}": x for name, x in mutual.items()})


def pair(cm_TAPX: np.ndarray, fps: float, lasting: Sequence[str], extreme: Sequence[str]) -> pandas.DataFrame:
    """Of positions in cm of agent and target; `lasting` and `extreme` name the columns with moving statistics."""
    frame = now(cm_TAPX, fps)
    means = statistics(frame[list(lasting)], fps, dict.fromkeys((0.5, 2.0, 6.0), ("mean", "std")))
    extremes = statistics(frame[list(extreme)], fps, {1.0: ("min", "max")})
    return pandas.concat((frame, means, extremes), axis=1)


def v4(cm_TAPX: np.ndarray, fps: float, mean_F: np.ndarray, directions_KF: np.ndarray) -> pandas.DataFrame:
    """With components of a PCA that was fitted before."""
    frame = pandas.DataFrame(cm_TAPX.reshape(len(cm_TAPX), -1)).add_prefix("xy")
    components = pandas.DataFrame((frame - mean_F).fillna(0).to_numpy() @ directions_KF.T).add_prefix("component")
    course = statistics(frame, fps, {1.0: ("mean", "std", "change")})
    return pandas.concat((frame, components, course), axis=1)
