"""Training batches: prefixes of series, drawn by the curriculum, each seen and read at the same length.

Shapes: B series, K prefixes of each, V variables, T steps, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Dataset

from shared_core.batches import Batches
from timeseries_dualmodal import curriculum
from timeseries_dualmodal.augment import augment
from timeseries_dualmodal.model_config import Augment, Curriculum
from timeseries_dualmodal.sight import Eyes

Batch = dict[str, torch.Tensor]


class Prefixes(Dataset[Batch]):
    """Series with the lengths that they are cut to; fetched a batch at a time, random numbers from PyTorch's stream."""

    def __init__(
        self, x_NVT: torch.Tensor, targets: Batch, std_V: torch.Tensor, wanted: Curriculum, changes: Augment
    ) -> None:
        """`targets`: y (N,), and more columns (N,) that come along."""
        self.x, self.targets, self.std, self.curriculum, self.changes = x_NVT, targets, std_V, wanted, changes
        self.stage = curriculum.stage_of(wanted, 0)

    def set_epoch(self, epoch: int) -> None:
        """The curriculum goes by epochs."""
        self.stage = curriculum.stage_of(self.curriculum, epoch)

    def __len__(self) -> int:
        return len(self.x)

    def __getitems__(self, rows: list[int]) -> Batch:
        """x (B, V, T), NaN where missing, length (B, K), row (B,), and the targets (B,)."""
        x_BVT = augment(self.x[rows], self.std, self.changes)
        length_BK = curriculum.draw(self.stage, self.x.shape[2], len(rows), self.curriculum.prefixes)
        targets = {name: column[rows] for name, column in self.targets.items()}
        return {"x": x_BVT, "length": length_BK, "row": torch.tensor(rows), **targets}


class Seen(Batches):
    """Batches of `Prefixes` with the pictures of each prefix, drawn or read on the device of the run."""

    def __init__(self, source: Batches, eyes: Eyes) -> None:
        self.source, self.eyes = source, eyes
        self.batches_per_epoch, self.batch_size = source.batches_per_epoch, source.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """`seen`, as `Eyes.see` gives it; `length` is that of the pictures, also where they come from a cache."""
        for batch in self.source.epoch(epoch, start):
            length, seen = self.eyes.see(batch["x"], batch["length"], batch["row"])
            yield {**batch, "length": length, "seen": seen}


def as_it_is(batch: Any) -> Any:
    """Collates what was fetched as a whole batch."""
    return batch
