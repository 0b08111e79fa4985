"""What an evaluation looks at: real photographs, and the images that the model draws of their masks and texts.

All are kept as bytes at the size that they are judged at (`evaluation.size`), and become light a part at a time.
Photographs of other aspect ratios are fitted into the square with black around them, real and generated ones alike.

Shapes: N photographs or images, M channels, S x S pixels as judged, R images of each mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from retina_diffusion import photographs
from retina_diffusion.brightness import light
from retina_diffusion.store import Store

AT_A_TIME = 64


@dataclass(frozen=True)
class Real:
    """Photographs of one size."""

    rows: list[dict[str, Any]]
    pixels: torch.Tensor  # (N, 3, S, S) uint8
    covered: torch.Tensor  # (N, M, S, S) uint8, in 255ths
    known: torch.Tensor  # (N, M)

    @classmethod
    def load(cls, store: Store, rows: Sequence[dict[str, Any]], size: int) -> Real:
        """Photographs of a prepared set, read one at a time."""
        pixels = torch.empty(len(rows), 3, size, size, dtype=torch.uint8)
        covered, known = [], []
        for number, row in enumerate(rows):
            image, mask = store.read(*row["place"])
            pixels[number] = fitted(image, size)
            covered.append(fitted(mask, size))
            known.append(photographs.known_of(row))
        return cls(list(rows), pixels, torch.stack(covered), torch.stack(known))

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Real:
        index = torch.as_tensor(np.asarray(rows), dtype=torch.long)
        return Real([self.rows[int(i)] for i in index], self.pixels[index], self.covered[index], self.known[index])

    @property
    def image(self) -> torch.Tensor:
        """(N, 3, S, S) in [-1, 1]."""
        return light(self.pixels)

    @property
    def mask(self) -> torch.Tensor:
        """(N, M, S, S) covered shares."""
        return self.covered.float() / 255

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


@torch.no_grad()
def each(look: Callable[[torch.Tensor], torch.Tensor], pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
    """What a function of images (., 3, S, S) in [-1, 1] makes of all, a part at a time; on the CPU."""
    return torch.cat([look(light(part.to(device))).cpu() for part in pixels.split(AT_A_TIME)])


def fitted(x: torch.Tensor, size: int) -> torch.Tensor:
    """(., H, W) bytes as (., size, size): the longer side fills it, the rest stays 0."""
    if x.shape[-2:] == (size, size):
        return x
    height, width = (max(1, round(size * side / max(x.shape[-2:]))) for side in x.shape[-2:])
    scaled = F.interpolate(x[None].float(), (height, width), mode="area")[0].round().to(torch.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    return F.pad(scaled, (left, size - width - left, top, size - height - top))
