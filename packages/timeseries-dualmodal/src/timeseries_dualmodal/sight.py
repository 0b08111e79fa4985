"""Where a model's pictures come from: drawn when they are needed, or read from a cache.

Shapes: B series, K prefixes of each, V variables, T steps, H x W pixels.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch

from shared_core.errors import UserError
from timeseries_dualmodal.imagecache import ImageCache
from timeseries_dualmodal.plots import Plots


class Eyes(Protocol):
    """Shows prefixes of series as pictures, or as what a frozen tower makes of them (`embeddings.Recalled`)."""

    def see(
        self, x_BVT: torch.Tensor, length_BK: torch.Tensor, row_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The lengths (B, K) that are shown, and their pictures (B, K, V, H, W) uint8, on the series' device."""


class Live:
    """Draws every picture when it is needed, at exactly the length that was asked for."""

    def __init__(self, plots: Plots) -> None:
        self.plots = plots

    def see(
        self, x_BVT: torch.Tensor, length_BK: torch.Tensor, row_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return length_BK, draw(self.plots, x_BVT, length_BK)


class Cached:
    """Reads pictures from a cache, at the largest scale not beyond each length, and says so.

    A prefix that is shorter than every scale is drawn; one that is longer than every scale is drawn or refused.
    """

    def __init__(
        self, cache: ImageCache, row_N: torch.Tensor, live: Live, beyond: Literal["render", "refuse"] = "render"
    ) -> None:
        """`row_N`: where each series is in the set that the cache is of; `see` is asked for indices into it."""
        self.cache, self.row_N, self.live, self.beyond = cache, row_N, live, beyond
        self.scale_S = torch.tensor(cache.scales)

    def require(self, longest: int) -> None:
        """Raises UserError where prefixes of so many steps would have to be refused."""
        if self.beyond == "refuse" and longest > self.cache.largest:
            raise UserError(
                f"pictures.beyond: prefixes of {longest} steps are beyond the largest scale, {self.cache.largest}, of "
                f"{self.cache.folder}; draw more scales (--scales, --full), or set --pictures.beyond render"
            )

    def see(
        self, x_BVT: torch.Tensor, length_BK: torch.Tensor, row_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        asked_BK, row_B, device = length_BK.cpu().contiguous(), row_B.cpu(), x_BVT.device
        self.require(int(asked_BK.max()))
        index_BK = torch.bucketize(asked_BK, self.scale_S, right=True) - 1  # -1: shorter than every scale
        there_BK = (index_BK >= 0) & (asked_BK <= self.cache.largest)
        shown_BK = torch.where(there_BK, self.scale_S[index_BK.clamp(min=0)], asked_BK)
        size, prefixes = self.live.plots.size, asked_BK.shape[1]
        picture_NVHW = torch.empty(asked_BK.numel(), x_BVT.shape[1], size, size, dtype=torch.uint8)  # N = B K
        for scale in shown_BK[there_BK].unique().tolist():
            place_M = (there_BK & (shown_BK == scale)).flatten().nonzero()[:, 0]
            self.cache.read_into(picture_NVHW, place_M, self.row_N[row_B[place_M // prefixes]], scale)
        picture_NVHW = picture_NVHW.to(device)
        place_M = (~there_BK).flatten().nonzero()[:, 0]
        if len(place_M):
            length_M, series_M = shown_BK.flatten()[place_M].to(device), (place_M // prefixes).to(device)
            picture_NVHW[place_M.to(device)] = self.live.plots.coverage(x_BVT[series_M], length_M)
        return shown_BK.to(device), picture_NVHW.view(*asked_BK.shape, *picture_NVHW.shape[1:])


def draw(plots: Plots, x_BVT: torch.Tensor, length_BK: torch.Tensor) -> torch.Tensor:
    """Pictures (B, K, V, H, W) uint8 of the prefixes of each series."""
    batch, prefixes = length_BK.shape
    x_NVT = x_BVT.repeat_interleave(prefixes, dim=0)
    return plots.coverage(x_NVT, length_BK.flatten()).unflatten(0, (batch, prefixes))
