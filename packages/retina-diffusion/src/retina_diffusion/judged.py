"""What an evaluation looks at: real photographs, and the images that the model draws of their masks and texts.

Shapes: N photographs or images, M channels, H x W pixels, R images of each mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from retina_diffusion import photographs
from retina_diffusion.store import Store


@dataclass(frozen=True)
class Real:
    """Photographs of one size."""

    rows: list[dict[str, Any]]
    image: torch.Tensor  # (N, 3, H, W) in [-1, 1]
    mask: torch.Tensor  # (N, M, H, W) covered shares
    known: torch.Tensor  # (N, M)

    @classmethod
    def load(cls, store: Store, rows: Sequence[dict[str, Any]], size: int) -> Real:
        """Photographs of a prepared set; those of other aspect ratios are squeezed into squares."""
        images, masks = [], []
        for row in rows:
            image, mask = store.read(*row["place"])
            images.append(_square(image.float() / 127.5 - 1, size))
            masks.append(_square(mask.float() / 255, size))
        known = torch.stack([photographs.known_of(row) for row in rows])
        return cls(list(rows), torch.stack(images), torch.stack(masks), known)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Real:
        index = torch.as_tensor(np.asarray(rows), dtype=torch.long)
        return Real([self.rows[int(i)] for i in index], self.image[index], self.mask[index], self.known[index])

    @property
    def masked(self) -> NDArray[np.int64]:
        """Rows of the photographs with masks."""
        return np.flatnonzero([bool(row["masks"]) for row in self.rows])

    @property
    def graded(self) -> NDArray[np.int64]:
        """Rows of the photographs with a grade."""
        return np.flatnonzero([row["grade"] is not None for row in self.rows])

    @property
    def grades(self) -> torch.Tensor:
        """(N,), for photographs that all have one."""
        return torch.tensor([row["grade"] for row in self.rows])


def _square(x: torch.Tensor, size: int) -> torch.Tensor:
    if x.shape[-2:] == (size, size):
        return x
    return torch.nn.functional.interpolate(x[None], (size, size), mode="area")[0]
