"""Whether generated photographs are copies of training photographs.

Each generated photograph is held against every training photograph and its reflections: averaged to 32 pixels, so that
noise, a shift of a pixel or a few lesions do not hide a copy, and less its mean colour, so that other light does not.
Photographs of little contrast lie close to many others, so what counts is how much closer the nearest one is than the
next ones: the distance to the nearest over the median distance to the 20 that follow (after Carlini et al. 2023, USENIX
Security, "Extracting Training Data from Diffusion Models", section 4). Memorised is what lies relatively closer than
all but the first percentile of real photographs do.

Shapes: N generated, T training, (., 3, H, W) in [-1, 1]; D numbers of a small photograph.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from shared_core.intervals import Estimate, wilson

SIDE = 32  # pixels of the small photographs
NEXT = 20  # training photographs after the nearest
RARE = 0.01  # share of real photographs that would count as memorised
REFLECTIONS: tuple[list[int], ...] = ([], [2], [3], [2, 3])  # axes; a training photograph is seen in all of them
# luminance and the two colour differences of ITU-R BT.601
YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


@dataclass(frozen=True)
class Nearest:
    """Of each photograph, the nearest training photograph."""

    ratio: NDArray[np.float64]  # (N,) of its distance to that of the next ones: 0 for a copy, 1 for one among many
    distance: NDArray[np.float64]  # (N,) root mean square over small pixels, luminance and colour differences
    index: NDArray[np.int64]  # (N,) of the training photograph


@dataclass(frozen=True)
class Memorisation:
    share: Estimate  # of the generated photographs that are memorised, with Wilson's interval
    limit: float  # the ratio below which one is
    expected: float  # the share that other real photographs would have
    nearest: Nearest
    closest: NDArray[np.int64]  # generated photographs, the most suspicious first: pairs for a figure
    of_real: Nearest  # what the limit was taken from


def memorisation(
    generated: torch.Tensor, training: torch.Tensor, other: torch.Tensor | None = None, pairs: int = 8
) -> Memorisation:
    """The share of generated photographs that are memorised.

    Args:
        other: real photographs that were not trained on; by default each training photograph is held against the
            others. Duplicates among the real ones make the limit lower and hide copies: take them out first. With
            fewer than a hundred the first percentile is about the smallest, and the share of `expected` is not exact.
        pairs: how many of the closest pairs to name.

    Raises:
        ValueError: no generated photographs, fewer than four of training, or training ones among the others.
    """
    if not len(generated) or len(training) < 4:
        raise ValueError(f"photographs: {len(generated)} generated, {len(training)} of training; need 1 and 4 at least")
    of_real = nearest(training, training, itself=False) if other is None else nearest(other, training)
    limit = float(np.quantile(of_real.ratio, RARE))
    if limit < 1e-6:
        raise ValueError("real photographs: some were trained on, or are there twice; no copy could be told from them")
    found = nearest(generated, training)
    share = wilson(int((found.ratio < limit).sum()), len(generated))
    return Memorisation(share, limit, RARE, found, found.ratio.argsort(kind="stable")[:pairs], of_real)


def nearest(images: torch.Tensor, training: torch.Tensor, itself: bool = True) -> Nearest:
    """The nearest training photograph of each image, in any reflection.

    Args:
        itself: False where the images are the training photographs: each is then held against the others.
    """
    x_ND = _small(images)
    apart_NT = torch.stack([torch.cdist(x_ND, _small(training.flip(axes))) for axes in REFLECTIONS]).amin(dim=0)
    if not itself:
        apart_NT.fill_diagonal_(float("inf"))
    following = min(NEXT, apart_NT.shape[1] - 1 - (not itself))
    closest, index = apart_NT.topk(1 + following, dim=1, largest=False)
    ratio = closest[:, 0] / closest[:, 1:].quantile(0.5, dim=1).clamp(min=1e-12)
    distance = closest[:, 0] / x_ND.shape[1] ** 0.5
    return Nearest(*(found.cpu().numpy() for found in (ratio, distance, index[:, 0])))


def _small(images: torch.Tensor) -> torch.Tensor:
    """Photographs as (N, D), averaged to 32 x 32 pixels without their mean colour; smaller ones keep their size."""
    small = F.interpolate(images.double(), [min(SIDE, side) for side in images.shape[2:]], mode="area")
    small = torch.einsum("cr,nrhw->nchw", torch.tensor(YCC, dtype=small.dtype, device=small.device), small)
    return (small - small.mean(dim=(2, 3), keepdim=True)).flatten(1)
