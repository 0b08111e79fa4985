"""When a trained model answers: its probabilities, calibrated, and its stopping rule.

Shapes: N series, L lengths, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timeseries_dualmodal import stopping, temperature
from timeseries_dualmodal.decision_config import Decision
from timeseries_dualmodal.stopping import Rule


@dataclass(frozen=True)
class Decided:
    """What was fitted on validation series."""

    temperatures: tuple[float, ...]  # of each of the rule's lengths
    rule: Rule

    @classmethod
    def fit(
        cls, settings: Decision, p_NLK: NDArray[np.float64], y: NDArray[np.int64], lengths: Sequence[int], steps: int
    ) -> Decided:
        """From probabilities as the model gives them, after each length; raises as `stopping.fit`."""
        temperatures = temperature.fit(p_NLK, y)
        return cls(temperatures, stopping.fit(settings, temperature.apply(p_NLK, temperatures), y, lengths, steps))

    @property
    def lengths(self) -> tuple[int, ...]:
        """L."""
        return self.rule.lengths

    def calibrated(self, p_NLK: NDArray[np.float64], first: int = 0) -> NDArray[np.float64]:
        """Probabilities that mean what they say, of the lengths from index `first` on."""
        return temperature.apply(p_NLK, self.temperatures[first : first + p_NLK.shape[1]])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"temperatures": list(self.temperatures), "rule": self.rule.as_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Decided:
        """The inverse of `as_dict`. Raises UserError, KeyError, TypeError or ValueError for anything else."""
        rule = stopping.from_dict(data["rule"])
        temperatures = tuple(float(value) for value in data["temperatures"])
        if len(temperatures) != len(rule.lengths) or not all(0 < value < 1e6 for value in temperatures):
            raise ValueError(f"needs {len(rule.lengths)} positive temperatures")
        return cls(temperatures, rule)
