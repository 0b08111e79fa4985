"""Blocks that the towers are made of.

Shapes: B sequences, L tokens, D features.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """Pre-norm transformer block: attention, then two linear layers (Xiong et al. 2020, ICML)."""

    def __init__(self, dim: int, heads: int, dropout: float, causal: bool = False, expand: int = 2) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm_attention, self.norm_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, expand * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(expand * dim, dim)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BLD: torch.Tensor, mask_BL: torch.Tensor | None = None) -> torch.Tensor:
        """`mask_BL`: True where a token may be looked at; at least one of each sequence."""
        x_BLD = x_BLD + self.drop(self._attend(self.norm_attention(x_BLD), mask_BL))
        return x_BLD + self.drop(self.mlp(self.norm_mlp(x_BLD)))

    def _attend(self, x_BLD: torch.Tensor, mask_BL: torch.Tensor | None) -> torch.Tensor:
        batch, length, dim = x_BLD.shape
        q, k, v = self.qkv(x_BLD).view(batch, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        # no dropout in here: the fast kernels know none, and drawing its mask took half of a training step
        mask = None if mask_BL is None else mask_BL[:, None, None, :]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal)
        return self.out(attended.transpose(1, 2).reshape(batch, length, dim))


def wave_features(positions_L: torch.Tensor, waves: int) -> torch.Tensor:
    """(L, 2 waves) sines and cosines of positions in [0, 1], from half a period to 2**(waves - 2) periods."""
    angles = positions_L[:, None] * torch.pi * 2.0 ** torch.arange(waves, device=positions_L.device)
    return torch.cat((angles.sin(), angles.cos()), dim=-1).float()
