"""What networks learn from: windows of features with labels, of both kinds side by side.

A sample is a window of each kind, of different places: what one does to another, and what one does alone. A share of
the windows lies around a bout, whose action is drawn first, so that rare actions are seen as often as common ones. A
shifted window takes its labels along: it is the same recording, cut elsewhere. The predecessor shifted features only,
and where it shifted to the left it wrote the beginning over the end.

Shapes: B windows, L frames, F columns, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from mabe_behavior.bouts import runs

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Piece:
    """A relation of a recording, from which windows are cut."""

    x_TF: NDArray[np.float16]  # may lie on the disk
    y_TK: NDArray[np.int8]  # 1 yes, 0 no, -1 nobody looked
    lab: int  # number of the laboratory
    fold: int

    def window(self, start: int, length: int) -> tuple[NDArray[np.float16], NDArray[np.int8]]:
        """Frames from `start` on; what lies outside the recording is missing, and nobody looked there."""
        first = min(max(start, 0), len(self.x_TF))
        stop = max(min(start + length, len(self.x_TF)), first)
        x, y = self.x_TF[first:stop], self.y_TK[first:stop]
        if stop - first == length:
            return x, y
        x_LF = np.full((length, x.shape[1]), np.nan, np.float16)
        y_LK = np.full((length, y.shape[1]), -1, np.int8)
        if stop > first:
            x_LF[first - start : stop - start], y_LK[first - start : stop - start] = x, y
        return x_LF, y_LK


class Cutter:
    """The windows of one kind."""

    def __init__(self, pieces: Sequence[Piece], length: int, jitter: int, balance: float) -> None:
        self.pieces, self.length, self.jitter, self.balance = pieces, length, jitter, balance
        self.grid = [(p, start) for p, one in enumerate(pieces) for start in range(0, len(one.x_TF), length)]
        self.bouts = _bouts(pieces)  # of each class that has any: (piece, start, stop) of its bouts

    def __len__(self) -> int:
        """Windows side by side."""
        return len(self.grid)

    def cut(self, rows: Sequence[int]) -> Batch:
        """A window for each number of the grid; random numbers from PyTorch's stream."""
        # all at once: one by one they take longer than all the rest
        chance_B5 = torch.rand(len(rows), 5, dtype=torch.float64).tolist()
        found = [self._one(*self._place(row, chances)) for row, chances in zip(rows, chance_B5, strict=True)]
        x, y, lab, fold = zip(*found, strict=True)
        return {
            "x": torch.from_numpy(np.stack(x)),
            "y": torch.from_numpy(np.stack(y)),
            "lab": torch.tensor(lab),
            "fold": torch.tensor(fold),
        }

    def _place(self, row: int, chances: Sequence[float]) -> tuple[int, int]:
        """(piece, first frame) by five numbers from 0 to below 1."""
        around, of_class, of_bout, within, before = chances
        if self.bouts and around < self.balance:
            bouts = self.bouts[int(of_class * len(self.bouts))]
            piece, start, stop = bouts[int(of_bout * len(bouts))]
            return piece, start + int(within * (stop - start)) - int(before * self.length)
        piece, start = self.grid[row % len(self.grid)]
        return piece, start + int(before * (2 * self.jitter + 1)) - self.jitter

    def _one(self, number: int, start: int) -> tuple[NDArray, NDArray, int, int]:
        piece = self.pieces[number]
        # within the recording, where it is long enough
        start = min(max(start, 0), max(len(piece.x_TF) - self.length, 0))
        return (*piece.window(start, self.length), piece.lab, piece.fold)


class Windows(Dataset[Batch]):
    """Windows of all kinds; fetched a batch at a time."""

    def __init__(self, cutters: Mapping[str, Cutter], share: float) -> None:
        self.cutters = cutters
        # a kind with fewer windows shows them more often
        self.count = max(1, round(share * max(len(one) for one in cutters.values())))

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, rows: list[int]) -> Batch:
        """``KIND.x`` (B, L, F) in half precision, ``KIND.y`` (B, L, K), ``KIND.lab`` and ``KIND.fold`` (B,)."""
        return {f"{kind}.{name}": part for kind, one in self.cutters.items() for name, part in one.cut(rows).items()}


def _bouts(pieces: Sequence[Piece]) -> list[list[tuple[int, int, int]]]:
    """Piece, start and stop of the bouts of each class that has any."""
    classes = pieces[0].y_TK.shape[1] if pieces else 0
    found = [
        [
            (p, start, stop)
            for p, one in enumerate(pieces)
            for start, stop in zip(*(side.tolist() for side in runs(one.y_TK[:, k] == 1)), strict=True)
        ]
        for k in range(classes)
    ]
    return [bouts for bouts in found if bouts]
