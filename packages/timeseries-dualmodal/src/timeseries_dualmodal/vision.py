"""What sees pictures: small towers that are trained from scratch, on coverage planes of one channel.

Shapes: N pictures, H x W pixels, D features.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from timeseries_dualmodal.layers import Block


class SmallCNN(nn.Module):
    """Convolutions of stride 2, then the means over a coarse grid of the picture, 4 x 4 at most.

    Normalised per picture (GroupNorm), so that a picture's features depend on nothing else in the batch.
    """

    channels = 1  # of the pictures it takes

    def __init__(self, size: int, dim: int, channels: Sequence[int], dropout: float) -> None:
        super().__init__()
        widths = [self.channels, *channels]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.GroupNorm(4, after), nn.GELU())
            for before, after in itertools.pairwise(widths)
        )
        # where a line runs matters, so that rows and columns keep their place
        side = max(1, size // 2 ** len(channels))
        self.grid = min(4, side)
        self.project = nn.Sequential(
            nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels[-1] * self.grid**2, dim), nn.LayerNorm(dim)
        )

    def forward(self, x_N1HW: torch.Tensor) -> torch.Tensor:
        """(N, D)."""
        for stage in self.stages:
            x_N1HW = stage(x_N1HW)
        return self.project(F.adaptive_avg_pool2d(x_N1HW, self.grid))


class SmallViT(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2021, ICLR), averaged over its patches."""

    channels = 1

    def __init__(self, size: int, patch: int, dim: int, depth: int, heads: int, dropout: float) -> None:
        super().__init__()
        if size % patch:
            raise ValueError(f"model.vision.patch: {patch} does not divide pictures.size {size}")
        self.embed = nn.Conv2d(self.channels, dim, patch, patch)
        self.position_LD = nn.Parameter(torch.randn((size // patch) ** 2, dim) * 0.02)
        self.blocks = nn.ModuleList(Block(dim, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x_N1HW: torch.Tensor) -> torch.Tensor:
        """(N, D)."""
        x_NLD = self.embed(x_N1HW).flatten(2).transpose(1, 2) + self.position_LD
        for block in self.blocks:
            x_NLD = block(x_NLD)
        return self.norm(x_NLD.mean(dim=1))
