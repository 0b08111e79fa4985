"""What a trained model makes of probabilities: networks and trees together, calibrated, and when to answer what.

Shapes: N series, L lengths, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timeseries_dualmodal import stopping, temperature, weighing
from timeseries_dualmodal.decision_config import Decision
from timeseries_dualmodal.stopping import Rule

Floats = NDArray[np.float64]
SHARES = np.linspace(0, 1, 21)
HEAVIEST = 1e12  # of stored weights


@dataclass(frozen=True)
class Decided:
    """What was fitted on validation series."""

    share: float  # of the trees, beside the networks
    temperatures: tuple[float, ...]  # of each of the rule's lengths
    weights_LK: Floats  # of the classes, for the answers that macro-F1 wants
    rule: Rule

    @classmethod
    def fit(
        cls,
        settings: Decision,
        p_NLK: Floats,
        y: NDArray[np.int64],
        lengths: Sequence[int],
        steps: int,
        groups: NDArray[np.str_] | None = None,
        share: float = 0.0,
    ) -> Decided:
        """From probabilities as the model gives them, after each length; raises as `stopping.fit`."""
        temperatures, weights_LK = answering(p_NLK, y)
        rule = stopping.fit(settings, temperature.apply(p_NLK, temperatures), y, lengths, steps, groups)
        return cls(share, temperatures, weights_LK, rule)

    @property
    def lengths(self) -> tuple[int, ...]:
        """L."""
        return self.rule.lengths

    def calibrated(self, p_NLK: Floats, first: int = 0) -> Floats:
        """Probabilities that mean what they say, of the lengths from index `first` on."""
        return temperature.apply(p_NLK, self.temperatures[first : first + p_NLK.shape[1]])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "trees": self.share,
            "temperatures": list(self.temperatures),
            "weights": self.weights_LK.tolist(),
            "rule": self.rule.as_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Decided:
        """The inverse of `as_dict`. Raises UserError, KeyError, TypeError or ValueError for anything else."""
        rule = stopping.from_dict(data["rule"])
        temperatures = tuple(float(value) for value in data["temperatures"])
        if len(temperatures) != len(rule.lengths) or not all(0 < value < 1e6 for value in temperatures):
            raise ValueError(f"needs {len(rule.lengths)} positive temperatures")
        weights_LK = np.array(data["weights"], np.float64)
        if (
            weights_LK.shape != (len(rule.lengths), rule.classes)
            or not ((weights_LK > 0) & (weights_LK < HEAVIEST)).all()
        ):
            raise ValueError(f"needs {len(rule.lengths)} x {rule.classes} positive weights")
        share = float(data["trees"])
        if not 0 <= share <= 1:
            raise ValueError("trees must be a share from 0 to 1")
        return cls(share, temperatures, weights_LK, rule)


def answering(p_NLK: Floats, y: NDArray[np.int64]) -> tuple[tuple[float, ...], Floats]:
    """Temperatures of the lengths, and weights (L, K) for the answers that macro-F1 wants."""
    temperatures = temperature.fit(p_NLK, y)
    return temperatures, weighing.fit(temperature.apply(p_NLK, temperatures))


def share(networks_NLK: Floats, trees_NLK: Floats, y: NDArray[np.int64]) -> float:
    """How much trees should count beside networks, 0 to 1: of `SHARES` the one with the lowest log loss on series that
    neither has learned from, all lengths together."""
    true = np.arange(len(y))[:, None], np.arange(networks_NLK.shape[1]), y[:, None]
    networks_NL, trees_NL = networks_NLK[true], trees_NLK[true]
    losses = [-np.log(np.maximum(mixed(networks_NL, trees_NL, s), temperature.FLOOR)).mean() for s in SHARES]
    return float(SHARES[int(np.argmin(losses))])


def mixed(networks: Floats, trees: Floats, share: float) -> Floats:
    """What both say together: probabilities of one shape."""
    return (1 - share) * networks + share * trees
