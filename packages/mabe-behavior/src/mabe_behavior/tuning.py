"""Rules that get the best official score out of probabilities.

Give OUT-OF-FOLD predictions only: those of models that saw neither the video nor another recording of the same animals.
On predictions of videos that a model learned from, thresholds come out too high and everything looks too good; nothing
here can find that out. Give all streams of a video, those of animals alone too: a video without any true bout does not
count, as in `metric`.

In turn: for each action the smoothing and threshold with the best F, then the gap and the shortest bout; for labs with
enough bouts thresholds of their own; at last, with all actions competing for frames, a factor for each action's
thresholds.

Shapes: T frames, K actions, R runs of frames, G runs joined over short gaps, N frames of several streams one after
another.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mabe_behavior import contest, postprocessing, streams, thresholds
from mabe_behavior.bouts import Bouts, joined, runs
from mabe_behavior.postprocessing import Rule, Rules, smoothed
from mabe_behavior.streams import Stream
from mabe_behavior.thresholds import Histograms

SMOOTHS = (0.0, 0.2, 0.5, 1.0, 1.5, 2.5)  # seconds
GAPS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
LEASTS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.5)
BOUTS = 10  # true ones that a lab must have of an action for a threshold of its own, and at which it has half the say
MARGIN = 0.02  # of F that more filling and dropping must bring
Ints = NDArray[np.int64]


def fit(
    given: Sequence[Stream],
    per_lab: bool = True,
    passes: int = 2,
    smooths: Sequence[float] = SMOOTHS,
    gaps: Sequence[float] = GAPS,
    leasts: Sequence[float] = LEASTS,
) -> Rules:
    """Rules for out-of-fold predictions (see the module's text).

    Those for all labs together maximise the mean over labs of F, as the score has it and as an unknown lab asks for.

    Args:
        given: with truth.
        per_lab: whether labs with enough bouts get thresholds of their own.
        passes: over the factors of thresholds, at most; 0: none.
        smooths, gaps, leasts: seconds to choose from. Of smoothings as good the shortest is taken, of gaps and leasts
            nearly as good too.

    Raises:
        ValueError: no stream with a true bout, a stream without truth, nothing to choose from.
    """
    for name, choices in (("smooths", smooths), ("gaps", gaps), ("leasts", leasts)):
        if not len(choices):
            raise ValueError(f"{name}: is empty; must have at least 0.0")
    counted = streams.counted(given)
    if not counted:
        raise ValueError("streams: no video has a true bout; give annotated ones")
    of_smooth = {seconds: _histograms(counted, seconds) for seconds in sorted(smooths)}
    first = next(iter(of_smooth.values()))
    pooled = {}
    for action in first.actions:
        found = {s: thresholds.best(one.pooled_B(action)) for s, one in of_smooth.items()}
        smooth = max(found, key=lambda s: found[s][1])  # the first of equals
        rule = Rule(found[smooth][0], smooth)
        pooled[action] = _Runs.of(counted, action, rule).cleaned(rule, gaps, leasts)
    labs = _of_labs(counted, pooled, of_smooth) if per_lab else {}
    rules = Rules(pooled, labs, first.silent())
    return contest.settled(counted, rules, passes)


def _histograms(counted: Sequence[Stream], seconds: float) -> Histograms:
    found = Histograms()
    for stream in counted:
        found.add(stream, smoothed(stream.p_TK, stream.fps, [seconds] * len(stream.actions)))
    return found


def _of_labs(
    counted: Sequence[Stream], pooled: Mapping[str, Rule], of_smooth: Mapping[float, Histograms]
) -> dict[str, dict[str, Rule]]:
    """Rules with thresholds of labs' own, drawn towards the pooled ones.

    In log-odds, with weights n of the lab's and `BOUTS` of the pooled threshold for n bouts, as if the pooled one had
    been found on so many.
    """
    found: dict[str, dict[str, Rule]] = {}
    for (lab, action), n in sorted(_bouts(counted).items()):
        if n < BOUTS:
            continue
        rule = pooled[action]
        own, _ = thresholds.best(thresholds.f_B(of_smooth[rule.smooth].count[lab, action]))
        logit = (n * _logit(own) + BOUTS * _logit(rule.threshold)) / (n + BOUTS)
        found.setdefault(lab, {})[action] = replace(rule, threshold=1 / (1 + math.exp(-logit)))
    return found


def _logit(p: float) -> float:
    p = min(max(p, 1e-6), 1 - 1e-6)
    return math.log(p / (1 - p))


def _bouts(counted: Sequence[Stream]) -> dict[tuple[str, str], int]:
    """True bouts by lab and action."""
    found: dict[tuple[str, str], int] = {}
    for stream in counted:
        for k, action in enumerate(stream.actions):
            cell = stream.lab, action
            found[cell] = found.get(cell, 0) + len(runs(stream.truth_TK[:, k] == 1)[0])
    return found


@dataclass(frozen=True)
class _Runs:
    """Where an action's probability reaches its threshold, in all streams one after another."""

    labs: list[str]  # that have the action
    there_L: NDArray[np.float64]  # frames in each of them
    lab_R: Ints  # of each run
    joins_R: NDArray[np.bool_]  # whether the run before is of the same stream
    start_R: Ints  # in its stream
    stop_R: Ints
    fps_R: NDArray[np.float64]
    right_R2: Ints  # true frames before the run's start and before its stop, through all streams
    wrong_R2: Ints  # the same of frames that are known not to be

    @classmethod
    def of(cls, counted: Sequence[Stream], action: str, rule: Rule) -> _Runs:
        mine = [one for one in counted if action in one.actions]
        labs = sorted({one.lab for one in mine if (one.truth_TK[:, one.actions.index(action)] == 1).any()})
        there, parts, before_2 = np.zeros(len(labs)), [], np.zeros(2, np.int64)
        for stream in (one for one in mine if one.lab in labs):
            k, lab = stream.actions.index(action), labs.index(stream.lab)
            y_T, p_T = stream.truth_TK[:, k], smoothed(stream.p_TK[:, [k]], stream.fps, [rule.smooth])[:, 0]
            start, stop = runs(p_T >= rule.threshold)
            sums_2T = np.stack([np.append(0, np.cumsum(y_T == state)) for state in (1, 0)]) + before_2[:, None]
            before_2 = sums_2T[:, -1]
            there[lab] += (y_T == 1).sum()
            n = len(start)
            borders = (np.stack((sums_T[start], sums_T[stop]), axis=1) for sums_T in sums_2T)
            parts.append((np.full(n, lab), np.arange(n) > 0, start, stop, np.full(n, stream.fps), *borders))
        return cls(labs, there, *(np.concatenate(column) for column in zip(*parts, strict=True)))

    def cleaned(self, rule: Rule, gaps: Sequence[float], leasts: Sequence[float]) -> Rule:
        """The rule with the least cleaning whose F lies within `MARGIN` of the best."""
        choices = sorted(((gap, least) for gap in gaps for least in leasts), key=lambda one: (sum(one), one))
        f_of = {(gap, least): self._f(gap, least) for gap, least in choices}
        gap, least = next(one for one in choices if f_of[one] >= max(f_of.values()) - MARGIN)
        return replace(rule, gap=gap, least=least)

    def _f(self, gap: float, least: float) -> float:
        if not len(self.start_R):
            return 0.0
        apart_R = self.start_R - np.append(0, self.stop_R[:-1])
        first_G = np.flatnonzero(~(self.joins_R & (apart_R <= gap * self.fps_R + 1e-6)))
        last_G = np.append(first_G[1:], len(self.start_R)) - 1
        kept_G = self.stop_R[last_G] - self.start_R[first_G] >= least * self.fps_R[first_G] - 1e-6
        first_G, last_G = first_G[kept_G], last_G[kept_G]
        right_L, wrong_L = (
            np.bincount(self.lab_R[first_G], sums[last_G, 1] - sums[first_G, 0], len(self.labs))
            for sums in (self.right_R2, self.wrong_R2)
        )
        return float(np.mean(2 * right_L / (right_L + wrong_L + self.there_L)))


def plain(actions: Collection[str]) -> Rules:
    """What one does without tuning: the largest probability that reaches 0.5."""
    return Rules(dict.fromkeys(actions, Rule()))


def crossfitted(given: Sequence[Stream], part_of: Mapping[str, str], **options: object) -> Bouts:
    """Bouts of each part by rules that were fitted to the others, so that their score is not that of tuning itself.

    Args:
        part_of: the part of each video: its fold, or its lab, which shows what an unknown lab would get.
        options: as of `fit`.

    Raises ValueError as `fit` does, also where the others have no true bout.
    """
    found = []
    for part in sorted({part_of[one.video] for one in given}):
        rules = fit([one for one in given if part_of[one.video] != part], **options)  # type: ignore[arg-type]
        mine = [one for one in given if part_of[one.video] == part]
        found.append(postprocessing.apply_all(mine, rules, streams.labeled(mine)))
    return joined(found)
