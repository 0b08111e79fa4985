"""From probabilities to bouts: smooth, choose one action a frame, fill short gaps, drop short bouts.

Where several actions reach their thresholds in a frame, the one with the largest ratio of probability to threshold is
said, so that an action does not win merely because it is common. The usual alternative, (probability - threshold) over
the spread of the probability, does the same with one more fitted number for each action, and one that depends on how
often the action happens, which differs from lab to lab. The ratio in turn leans towards actions with small thresholds;
`tuning` makes up for that with a factor for each action's threshold, chosen by the score of all actions together.

Shapes: T frames, K actions of a stream, R runs of frames with the same action.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mabe_behavior.actions import Behaviour
from mabe_behavior.bouts import Bouts, joined
from mabe_behavior.features.rolling import odd_frames
from mabe_behavior.streams import Stream
from shared_core.errors import UserError

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
NOTHING = -1  # the number of no action


@dataclass(frozen=True)
class Rule:
    """How bouts of one action are made of its probability."""

    threshold: float = 0.5  # the smallest probability that counts
    smooth: float = 0.0  # seconds of a moving mean; 0: none
    gap: float = 0.0  # seconds; between two bouts of the action so short a gap, or a shorter one, is filled
    least: float = 0.0  # seconds; a shorter bout is dropped

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise ValueError(f"{one.name}: {value!r}; must be a number of 0 or more")
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold: {self.threshold}; must be above 0, and 1 at most")


@dataclass(frozen=True)
class Rules:
    """A rule for each action, and for some actions another one in some labs."""

    pooled: Mapping[str, Rule]  # action
    labs: Mapping[str, Mapping[str, Rule]] = field(default_factory=dict)  # lab -> action
    silent: Mapping[str, Collection[str]] = field(default_factory=dict)  # lab -> actions it looks for and never has

    def of(self, lab: str, action: str) -> Rule | None:
        """The lab's rule, else the pooled one, which is also that of an unknown lab; None: not to be said.

        None is what an action gets that nobody had a rule fitted for, and one that a lab looked for and never had: to
        say it puts a 0 into the mean over the lab's actions.
        """
        if action in self.silent.get(lab, ()):
            return None
        return self.labs.get(lab, {}).get(action) or self.pooled.get(action)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "pooled": {action: asdict(rule) for action, rule in self.pooled.items()},
            "labs": {lab: {action: asdict(rule) for action, rule in of.items()} for lab, of in self.labs.items()},
            "silent": {lab: sorted(actions) for lab, actions in self.silent.items()},
        }

    @classmethod
    def of_dict(cls, data: object) -> Rules:
        """What `as_dict` was taken of. Raises UserError for anything else."""
        parts = _mapping(data, "rules")
        if set(parts) != {"pooled", "labs", "silent"}:
            raise UserError(f"rules: has {', '.join(sorted(parts)) or 'nothing'}; must have pooled, labs and silent")
        labs = _mapping(parts["labs"], "rules.labs")
        silent = _mapping(parts["silent"], "rules.silent")
        for lab, actions in silent.items():
            if not isinstance(actions, list) or not all(isinstance(action, str) for action in actions):
                raise UserError(f"rules.silent.{lab}: must be a list of actions")
        return cls(
            _rules(parts["pooled"], "rules.pooled"),
            {lab: _rules(of, f"rules.labs.{lab}") for lab, of in labs.items()},
            {lab: tuple(actions) for lab, actions in silent.items()},
        )


def _mapping(data: object, where: str) -> dict[str, Any]:
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UserError(f"{where}: must map names to values; was it written by this package?")
    return data


def _rules(data: object, where: str) -> dict[str, Rule]:
    found = {}
    for action, values in _mapping(data, where).items():
        if set(_mapping(values, f"{where}.{action}")) != {one.name for one in fields(Rule)}:
            raise UserError(f"{where}.{action}: must have {', '.join(one.name for one in fields(Rule))}")
        try:
            found[action] = Rule(**values)
        except ValueError as error:
            raise UserError(f"{where}.{action}.{error}") from error
    return found


def apply(stream: Stream, rules: Rules, allowed: Collection[Behaviour] | None = None) -> Bouts:
    """The bouts of a stream: at most one action in each frame, and none shorter than its rule's least.

    Args:
        allowed: what is looked for in the video; None: all actions of the stream.

    Gaps are filled where nothing else is said in them; then short bouts are dropped, and the gaps that they leave
    filled in turn, so that a flicker of one action does not split a bout of another.
    """
    rule_K = [
        rules.of(stream.lab, action)
        if allowed is None or Behaviour(stream.agent, stream.target, action) in allowed
        else None
        for action in stream.actions
    ]
    said = [k for k, rule in enumerate(rule_K) if rule is not None]
    chosen = [rule for rule in rule_K if rule is not None]
    if not chosen or not len(stream):
        return Bouts.of([])
    smooth_TK = smoothed(stream.p_TK[:, said], stream.fps, [rule.smooth for rule in chosen])
    action_T = exclusive(smooth_TK / np.array([rule.threshold for rule in chosen]))
    action_T = tidied(action_T, *frames(chosen, stream.fps))
    number_R, start_R, stop_R = spans(action_T)
    done = number_R != NOTHING
    action_R = np.array([stream.actions[k] for k in said])[number_R[done]]
    video, agent, target = (np.full(len(action_R), name) for name in (stream.video, stream.agent, stream.target))
    return Bouts(video, agent, target, action_R, start_R[done], stop_R[done])


def apply_all(
    streams: Iterable[Stream], rules: Rules, allowed: Mapping[str, Collection[Behaviour]] | None = None
) -> Bouts:
    """The bouts of many streams; `allowed` by video, None as for `apply`."""
    looked = {video: frozenset(of) for video, of in allowed.items()} if allowed is not None else None
    return joined([apply(one, rules, None if looked is None else looked.get(one.video, ())) for one in streams])


def smoothed(p_TK: ArrayLike, fps: float, seconds_K: Iterable[float]) -> Doubles:
    """(T, K) moving means over centred windows, each column's of its own seconds; at the ends windows are shorter.

    Windows have the odd number of frames nearest to the seconds (`features.rolling.odd_frames`); 0: as they are.
    """
    found = np.array(p_TK, np.float64)
    widths = np.array([odd_frames(seconds, fps) if seconds else 1 for seconds in seconds_K])
    for width in np.unique(widths[widths > 1]).tolist():
        columns, half, frame_T = np.flatnonzero(widths == width), width // 2, np.arange(len(found))
        sums = np.concatenate((np.zeros((1, len(columns))), np.cumsum(found[:, columns], axis=0)))
        first_T, last_T = np.maximum(frame_T - half, 0), np.minimum(frame_T + half + 1, len(found))
        mean_TK = (sums[last_T] - sums[first_T]) / (last_T - first_T)[:, None]
        found[:, columns] = np.clip(mean_TK, 0, 1)  # differences of sums are off by rounding
    return found


def exclusive(ratio_TK: NDArray[np.floating]) -> Ints:
    """(T,) the action with the largest ratio to its threshold, the first of equals; -1 where none reaches 1."""
    action_T = ratio_TK.argmax(axis=1)
    return np.where(ratio_TK.max(axis=1) >= 1, action_T, NOTHING)


def frames(rules: Iterable[Rule], fps: float) -> tuple[Doubles, Doubles]:
    """(gap, least) of each rule, in frames; the margin is for rounding, where one lasts exactly so long."""
    chosen = list(rules)
    gap_K, least_K = (np.array([getattr(rule, name) for rule in chosen]) * fps for name in ("gap", "least"))
    return gap_K + 1e-6, least_K - 1e-6


def tidied(action_T: Ints, gap_K: Doubles, least_K: Doubles) -> Ints:
    """(T,) numbers of actions, their short gaps filled and their short bouts dropped.

    Only what is free is ever filled, and a free stretch lies between two bouts; so no two actions want the same frame.
    """
    filled_T = _filled(action_T, gap_K)
    number_R, start_R, stop_R = spans(filled_T)
    short_R = (number_R != NOTHING) & (stop_R - start_R < least_K[number_R])
    if not short_R.any():
        return filled_T
    return _filled(np.repeat(np.where(short_R, NOTHING, number_R), stop_R - start_R), gap_K)


def _filled(action_T: Ints, gap_K: Doubles) -> Ints:
    number_R, start_R, stop_R = spans(action_T)
    before_R, after_R = np.roll(number_R, 1), np.roll(number_R, -1)
    free_R = (number_R == NOTHING) & (before_R == after_R) & (stop_R - start_R <= gap_K[before_R])
    free_R[[0, -1]] = False  # nothing lies before the first and after the last
    return np.repeat(np.where(free_R, before_R, number_R), stop_R - start_R)


def spans(action_T: Ints) -> tuple[Ints, Ints, Ints]:
    """(number, start, stop) of each run of equal numbers, of one frame at least in all."""
    start_R = np.flatnonzero(np.append(True, action_T[1:] != action_T[:-1]))
    return action_T[start_R], start_R, np.append(start_R[1:], len(action_T))
