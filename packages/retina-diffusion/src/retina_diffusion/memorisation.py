"""Whether generated photographs are copies of training photographs.

Each generated photograph is held against every training photograph, its reflections and its shifts: training moves
photographs (`augment.shift`), so a copy may come out anywhere in that reach. Both are averaged to about 32 pixels, so
that noise or a few lesions do not hide a copy, and freed of mean colour and contrast, so that other light does not.
What is compared is a window of the one and the centre of the other, so that borders have no say.

Photographs of little contrast lie close to many others, so what counts is how much closer the nearest one is than the
next ones: the distance to the nearest over the median distance to the 20 that follow (after Carlini et al. 2023, USENIX
Security, "Extracting Training Data from Diffusion Models", section 4). Memorised is what lies relatively closer than
all but the first percentile of real photographs do, which were searched for in the same way.

Shapes: N generated, T training, (., 3, H, W) in [-1, 1]; S x S pixels of a small photograph, D numbers of a window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional as F

from shared_core.intervals import Estimate, proportion

SIDE = 32  # pixels that are compared, about
REACH = 0.05  # share of a side by which copies are looked for, at least
MOST_REACH = 0.25  # at most: a window must be left
NEXT = 20  # training photographs after the nearest
RARE = 0.01  # share of real photographs that would count as memorised
SAME = 0.02  # a ratio below this is that of the same photograph
REFLECTIONS: tuple[list[int], ...] = ([], [2], [3], [2, 3])  # axes; a training photograph is seen in all of them
# luminance and the two colour differences of ITU-R BT.601
YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


@dataclass(frozen=True)
class Nearest:
    """Of each photograph, the nearest training photograph."""

    ratio: NDArray[np.float64]  # (N,) of its distance to that of the next ones: 0 for a copy, 1 for one among many
    distance: NDArray[np.float64]  # (N,) sqrt(2 - 2 correlation): 0 for a copy, 1.4 for what has nothing in common
    index: NDArray[np.int64]  # (N,) of the training photograph


@dataclass(frozen=True)
class Memorisation:
    share: Estimate  # of the generated photographs that are memorised, with Wilson's interval
    limit: float  # the ratio below which one is
    expected: float  # the share that other real photographs would have
    nearest: Nearest
    closest: NDArray[np.int64]  # generated photographs, the most suspicious first: pairs for a figure


class Memory:
    """Training photographs, and how close to them real photographs lie that were not trained on."""

    def __init__(self, training: torch.Tensor, other: torch.Tensor | None = None, reach: float = 0.0) -> None:
        """
        Args:
            other: real photographs that were not trained on; by default each training photograph is held against the
                others. Duplicates among the real ones make the limit lower and hide copies: take them out first. With
                fewer than a hundred the first percentile is about the smallest, and the share expected is not exact.
            reach: share of a side by which training moved photographs.

        Raises:
            ValueError: fewer than four training photographs, or training ones among the others.
        """
        if len(training) < 4:
            raise ValueError(f"photographs: {len(training)} of training; need 4 at least")
        self.training, self.reach = small(training), reach
        if other is None:
            self.of_real = nearest(self.training, self.training, reach, itself=False)
        else:
            self.of_real = nearest(other, self.training, reach)
        self.limit = float(np.quantile(self.of_real.ratio, RARE))
        if self.limit < SAME:
            raise ValueError(
                "real photographs: some were trained on, or are there twice; no copy could be told from them"
            )

    def judge(
        self, generated: torch.Tensor, groups: ArrayLike | None = None, unit: str = "masks", pairs: int = 8
    ) -> Memorisation:
        """The share of generated photographs that are memorised.

        Args:
            groups: (N,) which of them share a mask (or whatever `unit` names), and so are no independent evidence.
            pairs: how many of the closest pairs to name.

        Raises:
            ValueError: no generated photographs.
        """
        if not len(generated):
            raise ValueError("photographs: 0 generated; need 1 at least")
        found = nearest(generated, self.training, self.reach)
        share = proportion(found.ratio < self.limit, groups, unit)
        return Memorisation(share, self.limit, RARE, found, found.ratio.argsort(kind="stable")[:pairs])


def nearest(images: torch.Tensor, training: torch.Tensor, reach: float = 0.0, itself: bool = True) -> Nearest:
    """The nearest training photograph of each image, in any reflection and moved by up to `reach` of a side.

    Args:
        itself: False where the images are the training photographs: each is then held against the others.
    """
    apart_NT = _apart(small(images), small(training).to(images.device), min(max(reach, REACH), MOST_REACH))
    if not itself:
        apart_NT.fill_diagonal_(float("inf"))
    following = min(NEXT, apart_NT.shape[1] - 1 - (not itself))
    closest, index = apart_NT.topk(1 + following, dim=1, largest=False)
    ratio = closest[:, 0] / closest[:, 1:].quantile(0.5, dim=1).clamp(min=1e-12)
    return Nearest(*(found.cpu().numpy() for found in (ratio, closest[:, 0], index[:, 0])))


def small(images: torch.Tensor) -> torch.Tensor:
    """Photographs (N, 3, S, S) as they are compared, at most 64 pixels large; small ones stay as they are."""
    return F.interpolate(images.float(), [min(2 * SIDE, side) for side in images.shape[2:]], mode="area")


def _apart(images: torch.Tensor, training: torch.Tensor, reach: float) -> torch.Tensor:
    """(N, T) distances of small photographs: the least over reflections and shifts."""
    most = [math.ceil(reach * side) for side in images.shape[2:]]
    centre_RTD = torch.cat([_window(training.flip(axes), most, most) for axes in REFLECTIONS])
    best_NT = images.new_full((len(images), len(training)), -1.0)
    for down in range(2 * most[0] + 1):
        for right in range(2 * most[1] + 1):
            alike = _window(images, [down, right], most) @ centre_RTD.T
            torch.maximum(best_NT, alike.view(len(images), len(REFLECTIONS), -1).amax(dim=1), out=best_NT)
    return (2 - 2 * best_NT.double()).clamp(min=0).sqrt()


def _window(images: torch.Tensor, first: list[int], most: list[int]) -> torch.Tensor:
    """(N, D) a window without its mean colour, of length 1, so that products are correlations.

    Args:
        first: its row and column.
        most: it is by twice as many smaller than the photograph.
    """
    height, width = (side - 2 * reach for side, reach in zip(images.shape[2:], most, strict=True))
    seen = images[:, :, first[0] : first[0] + height, first[1] : first[1] + width]
    seen = F.avg_pool2d(seen, max(1, round(min(images.shape[2:]) / SIDE)))
    seen = torch.einsum("cr,nrhw->nchw", torch.tensor(YCC, dtype=seen.dtype, device=seen.device), seen)
    return F.normalize((seen - seen.mean(dim=(2, 3), keepdim=True)).flatten(1), dim=1)
