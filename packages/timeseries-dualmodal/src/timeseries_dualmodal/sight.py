"""Where a model's pictures come from: drawn when they are needed, or read from a cache.

Shapes: B series, K prefixes of each, V variables, T steps, H x W pixels.
"""

from __future__ import annotations

from typing import Protocol

import torch

from timeseries_dualmodal.plots import Plots


class Eyes(Protocol):
    """Shows prefixes of series as pictures."""

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


def draw(plots: Plots, x_BVT: torch.Tensor, length_BK: torch.Tensor) -> torch.Tensor:
    """Pictures (B, K, V, H, W) uint8 of the prefixes of each series."""
    batch, prefixes = length_BK.shape
    x_NVT = x_BVT.repeat_interleave(prefixes, dim=0)
    return plots.coverage(x_NVT, length_BK.flatten()).unflatten(0, (batch, prefixes))
