"""Convolutions for what lies near in time, attention for the rest of the window.

A block is a convolution module as in the Conformer (Gulati et al. 2020, arXiv:2005.08100), attention with rotary
positions (Su et al. 2021, "RoFormer", arXiv:2104.09864) and two linear layers, each with a norm before it and added to
what it was given.

Shapes: B windows, T frames, F inputs, D features, N heads of H features, K outputs.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

STEM = 5  # frames
BASE = 10_000.0  # RoFormer's: the slowest pair of features turns once in 2 pi * BASE frames


class ConvTransformer(nn.Module):
    """Windows (B, T, F) -> logits (B, T, K).

    Args:
        inputs: F.
        outputs: K.
        width: D.
        depth: blocks.
        heads: N.
        kernel: frames that a convolution looks at.
        dropout: on what each part of a block adds.

    Raises ValueError for heads that do not divide the width into even parts, an even kernel, or no blocks.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        kernel: int = 15,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth: {depth}; must be at least 1")
        if heads < 1 or width % (2 * heads):
            raise ValueError(f"width, heads: {width}, {heads}; width must be a multiple of twice the heads")
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel: {kernel}; must be odd, so that as many frames lie before as after")
        self.stem = nn.Conv1d(inputs, width, STEM, padding=STEM // 2)
        self.blocks = nn.ModuleList(Block(width, heads, kernel, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)
        self.turning = width // heads

    def forward(self, x_BTF: torch.Tensor) -> torch.Tensor:
        """(B, T, K)."""
        turns = rotations(x_BTF.shape[1], self.turning, x_BTF.device)
        x_BTD = self.stem(x_BTF.transpose(1, 2)).transpose(1, 2)
        for block in self.blocks:
            x_BTD = block(x_BTD, turns)
        return self.head(self.norm(x_BTD))


class Block(nn.Module):
    """A convolution, attention, and two linear layers."""

    def __init__(self, width: int, heads: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.convolution = Convolution(width, kernel)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: torch.Tensor, turns_2TH: torch.Tensor) -> torch.Tensor:
        """(B, T, D). `turns_2TH`: `rotations`."""
        x_BTD = x_BTD + self.dropout(self.convolution(x_BTD))
        x_BTD = x_BTD + self.dropout(self.attention(x_BTD, turns_2TH))
        return x_BTD + self.dropout(self.mlp(x_BTD))


class Convolution(nn.Module):
    """The Conformer's: a gated linear layer, a convolution of each feature by itself, a linear layer.

    A norm over the features of a frame stands where the Conformer has batch normalisation, so that frames that only
    pad a window change nothing about others.
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.norm, self.norm_seen = nn.LayerNorm(width), nn.LayerNorm(width)
        self.gated = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.out = nn.Linear(width, width)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """(B, T, D)."""
        x_BTD = functional.glu(self.gated(self.norm(x_BTD)))
        seen_BTD = self.depthwise(x_BTD.transpose(1, 2)).transpose(1, 2)
        return self.out(functional.silu(self.norm_seen(seen_BTD)))


class Attention(nn.Module):
    """Every frame of the window looks at every other."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x_BTD: torch.Tensor, turns_2TH: torch.Tensor) -> torch.Tensor:
        """(B, T, D). `turns_2TH`: `rotations`."""
        qkv_3BNTH = self.qkv(self.norm(x_BTD)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv_3BNTH.unbind()
        q, k = (rotated(part, turns_2TH).to(v.dtype) for part in (q, k))
        return self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def rotations(frames: int, features: int, device: torch.device) -> torch.Tensor:
    """(2, T, H) cosines and sines of the angles by which `rotated` turns the features of each frame.

    Pair i of H / 2 turns by BASE^(-2 i / H) per frame.
    """
    rate = BASE ** (-torch.arange(0, features, 2, device=device, dtype=torch.float32) / features)
    angle_TH = (torch.arange(frames, device=device, dtype=torch.float32)[:, None] * rate).repeat(1, 2)
    return torch.stack((angle_TH.cos(), angle_TH.sin()))


def rotated(x_BNTH: torch.Tensor, turns_2TH: torch.Tensor) -> torch.Tensor:
    """Features i and i + H / 2 as a point in the plane, turned by the frame's angle.

    A product of two such features depends on how far apart their frames are, not on where they lie.
    """
    cos_TH, sin_TH = turns_2TH
    first, second = x_BNTH.chunk(2, dim=-1)
    return x_BNTH * cos_TH + torch.cat((-second, first), dim=-1) * sin_TH
