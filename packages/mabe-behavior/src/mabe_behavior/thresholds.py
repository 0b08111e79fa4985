"""F at every threshold at once, by histograms of probabilities: one look at each frame, however many thresholds.

A cell is an action in a lab. Thresholds are (k / 256)^2 for k = 1..256, closer together near 0, where those of rare
actions lie. Counts are of frames and pooled over a lab's videos, agents and targets, as in `metric`; frames in which
nobody looked for the action take no part.

Shapes: T frames, K actions, B + 1 = 257 bins, B thresholds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.streams import UNKNOWN, Stream

Doubles = NDArray[np.float64]
Cell = tuple[str, str]  # lab, action
BINS = 256
THRESHOLDS_B = (np.arange(1, BINS + 1) / BINS) ** 2
NEARLY = 0.01  # of F
_AWAY_B = np.abs(np.log(THRESHOLDS_B) - np.log1p(-np.minimum(THRESHOLDS_B, 1 - 1e-9)))  # log-odds from 1/2


class Histograms:
    """Of each cell's probabilities, by whether the action is there."""

    def __init__(self) -> None:
        self.count: dict[Cell, Doubles] = {}  # (2, B + 1): frames without the action, with it

    def add(self, stream: Stream, p_TK: NDArray[np.floating]) -> None:
        """Count a stream's frames, with these probabilities instead of its own. Raises ValueError without truth."""
        count_K2B = counted(p_TK, stream.truth_TK)
        for action, count_2B in zip(stream.actions, count_K2B, strict=True):
            if count_2B.any():
                self.count[stream.lab, action] = self.count.get((stream.lab, action), 0) + count_2B

    def having(self, action: str) -> list[str]:
        """The labs that have the action, sorted."""
        return sorted(lab for (lab, name), count in self.count.items() if name == action and count[1].any())

    @property
    def actions(self) -> list[str]:
        """Those that some lab has, sorted."""
        return sorted({action for (_, action), count in self.count.items() if count[1].any()})

    def silent(self) -> dict[str, tuple[str, ...]]:
        """lab -> what it looked for and never had."""
        found: dict[str, list[str]] = {}
        for (lab, action), count in sorted(self.count.items()):
            if not count[1].any():
                found.setdefault(lab, []).append(action)
        return {lab: tuple(actions) for lab, actions in found.items()}

    def pooled_B(self, action: str) -> Doubles:
        """(B,) F of an action that some lab has, at each threshold: the mean over those labs."""
        return np.mean([f_B(self.count[lab, action]) for lab in self.having(action)], axis=0)


def counted(p_TK: NDArray[np.floating], y_TK: NDArray[np.int8]) -> Doubles:
    """(K, 2, B + 1) frames by action, truth and bin."""
    actions = p_TK.shape[1]
    bin_TK = (BINS * np.sqrt(p_TK)).astype(np.int64)
    known_TK = y_TK != UNKNOWN
    code_TK = (2 * np.arange(actions) + y_TK) * (BINS + 1) + bin_TK
    counts = np.bincount(code_TK[known_TK], minlength=actions * 2 * (BINS + 1))
    return counts.reshape(actions, 2, BINS + 1).astype(np.float64)


def f_B(count_2B: Doubles) -> Doubles:
    """(B,) F at each threshold: twice the hits over the frames that are said plus those that are there; 0 for 0/0."""
    said_2B = count_2B[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    there = count_2B[1].sum()
    return 2 * said_2B[1] / np.maximum(said_2B.sum(axis=0) + there, 1)


def best(value_B: Doubles) -> tuple[float, float]:
    """(threshold, largest value): of the thresholds that are worth nearly as much, the one nearest to 1/2.

    The curve is of few bouts and flat where it is high: the very best threshold is often far out by chance, and then
    worse on the next recordings.
    """
    near = np.flatnonzero(value_B >= value_B.max() - NEARLY)
    return float(THRESHOLDS_B[near[_AWAY_B[near].argmin()]]), float(value_B.max())


def score(histograms: Histograms) -> float:
    """What `metric.score` would be with one best threshold for each action in all labs, were actions not exclusive.

    Raises ValueError where no lab has any action.
    """
    labs: dict[str, list[float]] = {}
    for action in histograms.actions:
        at = int(np.searchsorted(THRESHOLDS_B, best(histograms.pooled_B(action))[0]))
        for lab in histograms.having(action):
            labs.setdefault(lab, []).append(float(f_B(histograms.count[lab, action])[at]))
    if not labs:
        raise ValueError("streams: no action is ever there; give annotated videos with bouts")
    return float(np.mean([np.mean(values) for values in labs.values()]))
