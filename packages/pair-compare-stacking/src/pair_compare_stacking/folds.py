"""Folds of the source images behind train.npz, for stacking out of fold: data that no generator can add to.

A base model is trained on all rows, and once more for every fold k without each row in which a half shows an image of
fold k. Stackers are fitted on rows whose two halves lie in one fold, answered by the models trained without that fold.
Rows with halves in two folds j and k are of no use: the models without k have seen the image of fold j in other rows,
those without j the image of fold k, and models without both would be as many as there are pairs of folds. With K folds,
about 1/K of the rows are left to fit on, and each model without a fold learns from about (1 - 1/K)^2 of them.

What is fitted to models that saw fewer rows is then used with those that saw all, which answer somewhat better.

Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from pair_compare_stacking.config import Config, Stacking
from pair_compare_stacking.pairs import PairNPZDataset
from shared_core import splits
from shared_core.batches import Batches
from shared_core.errors import UserError
from shared_core.seeds import derive

FEWEST = 20  # rows of a fold that stackers are judged on
BY_ROW = (
    "train.npz: without the truth beside it, folds are of rows: a source image that occurs in several is in several "
    "folds, and stacking then favours models that know their training images by heart"
)


@dataclass(frozen=True)
class Folds:
    """How rows are divided."""

    fold_N2: np.ndarray  # fold of each half's image, or of the row where the images are unknown
    sources_N2: np.ndarray | None  # ids of the images, where they are known

    def without(self, fold: int) -> np.ndarray:
        """Rows, ascending, in which no half is of a fold."""
        return np.flatnonzero((self.fold_N2 != fold).all(axis=1))

    def within(self) -> np.ndarray:
        """Rows, ascending, with both halves of one fold."""
        return np.flatnonzero(self.fold_N2[:, 0] == self.fold_N2[:, 1])

    def shown(self, without: int | None) -> np.ndarray:
        """Ids of the images of all rows, or those of rows without a fold; empty where they are unknown."""
        if self.sources_N2 is None:
            return np.empty((0, 2), str)
        return self.sources_N2 if without is None else self.sources_N2[self.without(without)]


def divide(wanted: Stacking, pairs: PairNPZDataset) -> Folds:
    """The same folds for the same file, number of folds and seed; digits are divided alike.

    Raises UserError where a fold has too few rows.
    """
    shares = {str(fold): 1 / wanted.folds for fold in range(wanted.folds)}
    if pairs.truth is None:
        assert pairs.y is not None  # a training file has labels: `pairfile`
        labels, sources, image_N2 = pairs.y.numpy(), None, np.repeat(np.arange(len(pairs))[:, None], 2, axis=1)
    else:
        sources = pairs.truth.sources
        _, first, image = np.unique(sources, return_index=True, return_inverse=True)
        labels, image_N2 = pairs.truth.digits.ravel()[first], image.reshape(sources.shape)
    fold_of = np.empty(len(labels), np.int64)
    for fold, members in splits.stratified(labels, shares, derive(wanted.seed, "folds") % 2**31).items():
        fold_of[members] = int(fold)
    found = Folds(fold_of[image_N2], sources)
    counts = np.bincount(found.fold_N2[found.within(), 0], minlength=wanted.folds)
    if counts.min() < FEWEST:
        raise UserError(
            f"stacking.folds: {wanted.folds} folds leave {counts.min()} of the {len(pairs)} pairs of train.npz within "
            f"fold {counts.argmin()}, {FEWEST} are the fewest; lower it or take more pairs"
        )
    return found


def warnings(config: Config, train: PairNPZDataset | None) -> list[str]:
    """What is doubtful about the folds of a training file."""
    asked = config.stacking.protocol == "out_of_fold" or config.stream.fold is not None
    return [BY_ROW] if asked and train is not None and train.truth is None else []


class Recut(Batches):
    """A source of batches, pass after pass through its rows, cut into epochs of another number of batches."""

    def __init__(self, source: Batches, batches_per_epoch: int) -> None:
        self.source, self.batches_per_epoch, self.batch_size = source, batches_per_epoch, source.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        first, end = epoch * self.batches_per_epoch + start, (epoch + 1) * self.batches_per_epoch
        while first < end:
            whole, skipped = divmod(first, self.source.batches_per_epoch)
            count = min(end - first, self.source.batches_per_epoch - skipped)
            yield from islice(self.source.epoch(whole, skipped), count)
            first += count
