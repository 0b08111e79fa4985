"""The last step of tuning: all actions compete for frames, and a factor for each action's thresholds settles who wins.

Thresholds that are best for each action alone are not so together: an action that is said takes frames from others. The
factors are common to all labs, so that few numbers are fitted, and chosen one after another by the score of all.

Shapes: N frames of several streams one after another, with a wall of one frame behind each; K actions of a lab.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.postprocessing import NOTHING, Rule, Rules, frames, smoothed, tidied
from mabe_behavior.streams import UNKNOWN, Stream

FACTORS = (0.5, 0.7, 0.85, 1.2, 1.4, 2.0)
LEAST_GAIN = 0.003  # of the score; below, a factor stays
Ints = NDArray[np.int64]


def settled(counted: Sequence[Stream], rules: Rules, passes: int) -> Rules:
    """Rules with thresholds multiplied by each action's factor, by coordinate ascent in the score.

    Args:
        counted: streams with truth, of videos with a true bout.
        rules: with one for every action that is there.
        passes: over all actions, at most; fewer where one changes nothing.
    """
    groups = _groups(counted, rules)
    best, total = _score(groups), dict.fromkeys(rules.pooled, 1.0)
    for _ in range(passes):
        changed = False
        for action in rules.pooled:
            trials = {}
            for factor in FACTORS:
                if factor * total[action] * _largest(rules, action) <= 1:
                    trials[factor] = _score(groups, action, factor)
            factor = max(trials, key=lambda one: trials[one], default=1.0)
            if trials and trials[factor] > best + LEAST_GAIN:
                best, changed = trials[factor], True
                total[action] *= factor
                for group in groups:
                    group.take(action, factor)
        if not changed:
            break
    pooled, labs = _scaled(rules.pooled, total), {lab: _scaled(of, total) for lab, of in rules.labs.items()}
    return Rules(pooled, labs, rules.silent)


def _largest(rules: Rules, action: str) -> float:
    of_labs = (of[action].threshold for of in rules.labs.values() if action in of)
    return max(rules.pooled[action].threshold, *of_labs, 0.0)


def _scaled(of: Mapping[str, Rule], factors: Mapping[str, float]) -> dict[str, Rule]:
    return {action: replace(rule, threshold=rule.threshold * factors[action]) for action, rule in of.items()}


@dataclass
class _Group:
    """Streams of a lab with the same actions and frame rate."""

    lab: str
    actions: list[str]
    ratio_KN: NDArray[np.float32]  # probability to threshold; 0 in walls
    y_KN: NDArray[np.int8]
    wall_N: NDArray[np.bool_]
    gap_K: NDArray[np.float64]  # in frames, with one more for walls
    least_K: NDArray[np.float64]
    there_K: Ints = field(init=False)  # frames
    said_2K: Ints = field(init=False)  # frames said: wrongly, rightly

    def __post_init__(self) -> None:
        self.there_K = (self.y_KN == 1).sum(axis=1)
        number_N = self.ratio_KN.argmax(axis=0)
        self.said_2K = self._counted(number_N, self.ratio_KN.max(axis=0))

    def tried(self, action: str, factor: float) -> Ints:
        """(2, K) frames said, wrongly and rightly, with an action's thresholds multiplied."""
        k = self.actions.index(action)
        number_N, ratio_N = self._others(k)
        mine_N = self.ratio_KN[k] / np.float32(factor)
        wins_N = (mine_N > ratio_N) | ((mine_N == ratio_N) & (k < number_N))
        return self._counted(np.where(wins_N, k, number_N), np.maximum(mine_N, ratio_N))

    def take(self, action: str, factor: float) -> None:
        """Multiply an action's thresholds for good."""
        if action in self.actions:
            self.said_2K = self.tried(action, factor)
            self.ratio_KN[self.actions.index(action)] /= np.float32(factor)
            self._of = -1

    _of: int = field(init=False, default=-1)  # whose opponents are kept
    _kept: tuple[Ints, NDArray[np.float32]] = field(init=False)

    def _others(self, k: int) -> tuple[Ints, NDArray[np.float32]]:
        """(number, ratio), each (N,), of the best action but k."""
        if self._of != k:
            mine_N, self.ratio_KN[k] = self.ratio_KN[k].copy(), -1
            self._kept = self.ratio_KN.argmax(axis=0), self.ratio_KN.max(axis=0)
            self.ratio_KN[k] = mine_N
            self._of = k
        return self._kept

    def _counted(self, number_N: Ints, ratio_N: NDArray[np.float32]) -> Ints:
        chosen_N = np.where(ratio_N >= 1, number_N, NOTHING)
        chosen_N[self.wall_N] = len(self.actions)
        chosen_N = tidied(chosen_N, self.gap_K, self.least_K)
        frame_M = np.flatnonzero((chosen_N != NOTHING) & ~self.wall_N)
        said_M = chosen_N[frame_M]
        truth_M = self.y_KN[said_M, frame_M]
        return np.stack([np.bincount(said_M[truth_M == state], minlength=len(self.actions)) for state in (0, 1)])


def _groups(counted: Sequence[Stream], rules: Rules) -> list[_Group]:
    members: dict[tuple[str, tuple[str, ...], float], list[Stream]] = {}
    for stream in counted:
        members.setdefault((stream.lab, stream.actions, stream.fps), []).append(stream)
    found = []
    for (lab, actions, fps), mine in members.items():
        looked_K = np.any([(one.truth_TK != UNKNOWN).any(axis=0) for one in mine], axis=0)
        said = [k for k, one in enumerate(actions) if looked_K[k] and rules.of(lab, one) is not None]
        if said:
            found.append(_group(lab, [actions[k] for k in said], fps, mine, rules))
    return found


def _group(lab: str, actions: list[str], fps: float, mine: list[Stream], rules: Rules) -> _Group:
    chosen = [rule for action in actions if (rule := rules.of(lab, action)) is not None]
    columns = [mine[0].actions.index(action) for action in actions]
    ratios, truths = [], []
    for stream in mine:
        y_TK = stream.truth_TK[:, columns]
        smooth_TK = smoothed(stream.p_TK[:, columns], fps, [rule.smooth for rule in chosen])
        ratio_TK = smooth_TK / np.array([rule.threshold for rule in chosen])
        ratio_TK[:, ~(y_TK != UNKNOWN).any(axis=0)] = 0  # not looked for in this video, so not said
        ratios.append(np.pad(ratio_TK.T.astype(np.float32), ((0, 0), (0, 1))))
        truths.append(np.pad(y_TK.T, ((0, 0), (0, 1)), constant_values=UNKNOWN))
    wall_N = np.zeros(sum(ratio.shape[1] for ratio in ratios), bool)
    wall_N[np.cumsum([ratio.shape[1] for ratio in ratios]) - 1] = True
    gap_K, least_K = frames([*chosen, Rule()], fps)
    return _Group(lab, actions, np.concatenate(ratios, 1), np.concatenate(truths, 1), wall_N, gap_K, least_K)


def _score(groups: Sequence[_Group], action: str = "", factor: float = 1.0) -> float:
    """The score with an action's thresholds multiplied: the mean over labs of the mean of F over their actions."""
    cells: dict[str, dict[str, NDArray[np.int64]]] = {}
    for group in groups:
        said_2K = group.tried(action, factor) if action in group.actions else group.said_2K
        for k, name in enumerate(group.actions):
            count = np.array([said_2K[0, k], said_2K[1, k], group.there_K[k]])
            of = cells.setdefault(group.lab, {})
            of[name] = of.get(name, 0) + count
    labs = []
    for of in cells.values():
        # an action that is neither said nor there does not count
        values = [2 * hit / (wrong + hit + there) for wrong, hit, there in of.values() if wrong + hit + there]
        labs.append(np.mean(values) if values else 0.0)
    return float(np.mean(labs))
