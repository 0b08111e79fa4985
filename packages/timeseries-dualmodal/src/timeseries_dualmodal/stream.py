"""Decisions while seasons go on: a step comes in, and each series has an answer, or not yet.

Shapes: N series, V variables, T steps, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from timeseries_dualmodal.stopping import NOT_YET, Decider
from timeseries_dualmodal.subject import Trained


class Decision(NamedTuple):
    """What is known of N series after a step."""

    answers: tuple[str | None, ...]  # the class of each series that has been decided; None: not yet
    steps_N: NDArray[np.int64]  # after how many steps it was decided; -1: not yet
    p_NK: NDArray[np.float64] | None  # calibrated probabilities now; None where the model is not asked at this step


class Stream:
    """N series of one season, a step at a time. What it decides is what `predict` decides of the whole series."""

    def __init__(self, who: Trained, series: int, forced: bool = True) -> None:
        """`forced`: a series that was never sure is answered after the last step.

        Raises ValueError for a model whose training has not finished.
        """
        if who.decided is None:
            raise ValueError(f"{who.run.path}: has no stopping rule yet; finish its training")
        self.who, self.decided = who, who.decided
        about = who.about
        self._x_NVT = np.full((series, len(about.variables), len(about.times)), np.nan, np.float32)
        self._decider = Decider(self.decided.rule, series, forced)
        self._steps = 0
        self._last = Decision((None,) * series, np.full(series, NOT_YET), None)

    def update(self, step_NV: NDArray[np.float32]) -> Decision:
        """What is decided now that the next step is there: values of every variable, NaN where missing.

        Raises ValueError for other shapes, and after the last step.
        """
        series, variables, steps = self._x_NVT.shape
        if self._steps == steps:
            raise ValueError(f"all {steps} steps are there; a new season needs a new Stream")
        if np.shape(step_NV) != (series, variables):
            raise ValueError(f"step {np.shape(step_NV)}: must be ({series}, {variables})")
        self._x_NVT[:, :, self._steps] = step_NV
        self._steps += 1
        if self._steps not in self.decided.lengths:
            self._last = self._last._replace(p_NK=None)
            return self._last
        index = self.decided.lengths.index(self._steps)
        p_N1K = self.decided.calibrated(self.who.probabilities(self._x_NVT, (self._steps,)), index)
        stop_N, answer_N = self._decider.update(p_N1K[:, 0])
        classes = self.who.about.classes
        answers = tuple(None if k == NOT_YET else classes[k] for k in answer_N)
        steps_N = np.where(stop_N == NOT_YET, NOT_YET, np.asarray(self.decided.lengths)[stop_N])
        self._last = Decision(answers, steps_N, p_N1K[:, 0])
        return self._last
