"""A blend of two models' probabilities, the network's and the trees': a weighted mean of their log-odds.

That is the logarithmic opinion pool of two experts (Genest and Zidek 1986, Statistical Science 1:114) for an action
that is there or not. Pairs and animals alone have weights of their own, as their models are others.

Shapes: T frames, K actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mabe_behavior import streams, thresholds
from mabe_behavior.postprocessing import smoothed
from mabe_behavior.streams import Stream
from mabe_behavior.thresholds import Histograms
from shared_core.errors import UserError

Floats = NDArray[np.float32]
FLOOR = 1e-6  # probabilities are kept this far from 0 and 1 where their log-odds are taken
GRID = tuple(float(w) for w in np.linspace(0, 1, 21).round(2))
SMOOTH = 0.5  # seconds, before F is taken: trees judge frames one by one, and smoothing helps them more


@dataclass(frozen=True)
class Weights:
    """The network's share, from 0 (trees only) to 1 (network only)."""

    pair: float = 0.5
    alone: float = 0.5

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"{one.name}: {value!r}; must be a number from 0 to 1")

    def of(self, stream: Stream) -> float:
        return self.alone if stream.alone else self.pair

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def of_dict(cls, data: object) -> Weights:
        """What `as_dict` was taken of. Raises UserError for anything else."""
        if not isinstance(data, dict) or set(data) != {"pair", "alone"}:
            raise UserError("weights: must have pair and alone; was it written by this package?")
        try:
            return cls(**data)
        except ValueError as error:
            raise UserError(f"weights.{error}") from error


def blend(network: NDArray[Any], trees: NDArray[Any], weight: float) -> Floats:
    """Probabilities of both, in any shape; with a weight of 1 the network's and with 0 the trees', exactly.

    Raises ValueError for other shapes or a weight outside 0..1.
    """
    ours, theirs = np.asarray(network, np.float32), np.asarray(trees, np.float32)
    if ours.shape != theirs.shape:
        raise ValueError(f"blend: the network's probabilities have shape {ours.shape}, the trees' {theirs.shape}")
    if not 0 <= weight <= 1:
        raise ValueError(f"weight: {weight}; must lie in 0..1")
    if weight in (0, 1):
        return (ours if weight else theirs).copy()
    return _probability(weight * _log_odds(ours) + (1 - weight) * _log_odds(theirs))


def blend_all(network: Sequence[Stream], trees: Sequence[Stream], weights: Weights) -> list[Stream]:
    """Streams of both, in the network's order. Raises ValueError as `fit` does."""
    return [ours.said(blend(ours.p_TK, theirs.p_TK, weights.of(ours))) for ours, theirs in _matched(network, trees)]


def fit(network: Sequence[Stream], trees: Sequence[Stream]) -> Weights:
    """The weights of `GRID` that are best on out-of-fold predictions, of models that saw none of these videos.

    Best is the score's mean over labs and actions of F, each action with its best threshold and lightly smoothed.

    Args:
        network, trees: the same streams with truth, in any order.

    Of weights as good the one nearest to 1/2 is taken; a kind without any true bout gets 1/2.

    Raises ValueError for streams without truth, or other streams in one than the other.
    """
    videos = {one.video for one in streams.counted(network)}
    both = [(ours, theirs) for ours, theirs in _matched(network, trees) if ours.video in videos]
    ordered = sorted(GRID, key=lambda weight: abs(weight - 0.5))
    found = {}
    for kind in ("pair", "alone"):
        mine = [pair for pair in both if pair[0].alone == (kind == "alone")]
        if any((ours.truth_TK == 1).any() for ours, _ in mine):
            found[kind] = ordered[int(np.argmax(_scores(mine, ordered)))]
    return Weights(**found)


def _matched(network: Sequence[Stream], trees: Sequence[Stream]) -> list[tuple[Stream, Stream]]:
    theirs = {(one.video, one.agent, one.target): one for one in trees}
    keys = [(one.video, one.agent, one.target) for one in network]
    if len(theirs) != len(trees) or len(set(keys)) != len(keys) or set(keys) != set(theirs):
        raise ValueError("streams: the network's and the trees' must be of the same videos and pairs, each once")
    found = [(one, theirs[key]) for one, key in zip(network, keys, strict=True)]
    for ours, other in found:
        if ours.actions != other.actions or len(ours) != len(other):
            raise ValueError(f"{ours}: the network and the trees must have the same actions and frames")
    return found


def _scores(both: Sequence[tuple[Stream, Stream]], grid: Sequence[float]) -> list[float]:
    histograms = [Histograms() for _ in grid]
    for ours, theirs in both:
        seconds = [SMOOTH] * len(ours.actions)
        for weight, one in zip(grid, histograms, strict=True):
            one.add(ours, smoothed(blend(ours.p_TK, theirs.p_TK, weight), ours.fps, seconds))
    return [thresholds.score(one) for one in histograms]


def _log_odds(p: Floats) -> NDArray[np.float64]:
    bounded = np.clip(p.astype(np.float64), FLOOR, 1 - FLOOR)
    return np.log(bounded / (1 - bounded))


def _probability(logit: NDArray[np.float64]) -> Floats:
    return (0.5 + 0.5 * np.tanh(0.5 * logit)).astype(np.float32)  # neither overflows nor loses the symmetry about 1/2
