"""Files of pairs as a torch data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import Dataset

from pair_compare_stacking import pairfile
from pair_compare_stacking.generator import SIDE


class PairNPZDataset(Dataset[dict[str, Any]]):
    """The pairs of one ``.npz``, checked when it is opened.

    An item holds ``x``: float32 (2, 28, 28) in [0, 1], left and right half (`form` "halves"), or uint8 (28, 56) as
    it lies in the file ("picture"); ``y``: int64 (), where the file has labels; ``id``: str, where it has ids;
    ``digits``: int64 (2,), where the sidecar with the truth lies beside it.

    The whole file is also there as tensors, for evaluation in large batches: `x` uint8 (N, 28, 56), `y` int64 (N,) or
    None, `digits` int64 (N, 2) or None; `ids` is a list or None.

    Raises UserError for every defect that `pairfile.read` knows.
    """

    def __init__(self, path: str | Path, form: Literal["halves", "picture"] = "halves") -> None:
        content = pairfile.read(Path(path))
        self.form = form
        self.x = torch.from_numpy(content.x)
        self.y = None if content.y is None else torch.from_numpy(content.y).long()
        self.ids = None if content.ids is None else [str(name) for name in content.ids]
        self.truth = content.truth
        self.digits = None if content.truth is None else torch.from_numpy(content.truth.digits).long()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Any]:
        picture = self.x[index]
        item: dict[str, Any] = {"x": halves(picture) if self.form == "halves" else picture}
        if self.y is not None:
            item["y"] = self.y[index]
        if self.ids is not None:
            item["id"] = self.ids[index]
        if self.digits is not None:
            item["digits"] = self.digits[index]
        return item


def halves(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 (..., 28, 56) -> float32 (..., 2, 28, 28) in [0, 1]: the left half, then the right one."""
    return torch.stack((pictures[..., :SIDE], pictures[..., SIDE:]), dim=-3).float() / 255
