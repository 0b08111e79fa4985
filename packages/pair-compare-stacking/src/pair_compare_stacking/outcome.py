"""What was answered to the pairs of a labelled split, beside the truth.

Shapes: N pairs, 28x28 pixels per half.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from pair_compare_stacking import ink
from pair_compare_stacking.model import Prediction
from pair_compare_stacking.pairs import PairNPZDataset
from pair_compare_stacking.stacking import UNIT
from shared_core import metrics
from shared_core.errors import UserError
from shared_core.metrics import Estimate

EVERY = slice(None)  # row


@dataclass(frozen=True)
class Outcome:
    """Answers and truth. Intervals allow for pairs that share a source image, wherever the images are known."""

    split: str
    prediction: Prediction
    x: np.ndarray  # (N, 28, 56) uint8
    y: np.ndarray  # (N,) 1 where the left digit is larger
    digits: np.ndarray | None = None  # (N, 2)
    sources: np.ndarray | None = None  # (N, 2) ids of the source images

    @classmethod
    def of(cls, split: str, pairs: PairNPZDataset, prediction: Prediction) -> Outcome:
        """Raises UserError where the pairs have neither labels nor the truth beside them."""
        digits = None if pairs.digits is None else pairs.digits.numpy()
        sources = None if pairs.truth is None else pairs.truth.sources
        return cls(split, prediction, pairs.x.numpy(), labels(pairs, split), digits, sources)

    @cached_property
    def p(self) -> np.ndarray:
        """(N,) probability that the left digit is larger."""
        return torch.sigmoid(self.prediction.logit.double()).numpy()

    @cached_property
    def right(self) -> np.ndarray:
        """(N,) whether the answer is."""
        return (self.p >= 0.5) == (self.y == 1)

    @cached_property
    def confidence(self) -> np.ndarray:
        """(N,) from 0, a coin's, to 1/2."""
        return np.abs(self.p - 0.5)

    @cached_property
    def ink(self) -> np.ndarray:
        """(N, 2) `ink.visible`."""
        return ink.visible(self.x)

    @cached_property
    def distance(self) -> np.ndarray | None:
        """(N,) |a - b|, where the digits are known."""
        return None if self.digits is None else np.abs(self.digits[:, 0] - self.digits[:, 1])

    def accuracy(self, rows: np.ndarray | slice = EVERY) -> Estimate:
        """On some of the pairs, or on all of them."""
        return self.share(self.right, rows)

    def share(self, hits: np.ndarray, rows: np.ndarray | slice = EVERY) -> Estimate:
        """Of the pairs for which `hits` (N,) is true among some, or among all of them."""
        return metrics.proportion(hits[rows], None if self.sources is None else self.sources[rows], UNIT)

    def less(self, other_right: np.ndarray) -> Estimate:
        """Accuracy less that of other answers to the same pairs, of which (N,) are right."""
        return metrics.paired_difference(other_right, self.right, self.sources, UNIT)


def labels(pairs: PairNPZDataset, name: str) -> np.ndarray:
    """(N,) 0 or 1, from the file or from the truth beside it (the public test's file itself has none)."""
    if pairs.y is not None:
        return pairs.y.numpy()
    if pairs.digits is None:
        raise UserError(f"{name}.npz: has no labels, and the truth beside it is missing; prepare it again")
    return (pairs.digits[:, 0] > pairs.digits[:, 1]).long().numpy()
