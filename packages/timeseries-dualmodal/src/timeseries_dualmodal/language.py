"""What reads numbers: causal transformers over a token per step.

A token holds the last values until its step, so that every prefix of a series, down to one step, has an answer, and one
pass over a series gives the answers of all its prefixes. The attention is causal: what comes after a step changes
nothing that is said about it.

Shapes: B series, K prefixes, V variables, T steps, P steps in a token, D features.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from timeseries_dualmodal.layers import Block, wave_features

WAVES = 8


class Steps(nn.Module):
    """A causal transformer over tokens, one per step of a regular or irregular time axis."""

    def __init__(self, inputs: int, dim: int, depth: int, heads: int, dropout: float, times_T: torch.Tensor) -> None:
        """`inputs`: numbers in a token; `times_T`: ascending, in any unit."""
        super().__init__()
        span = float(times_T[-1] - times_T[0]) or 1.0
        self.register_buffer("waves_TW", wave_features((times_T - times_T[0]) / span, WAVES), persistent=False)
        self.embed = nn.Linear(inputs, dim)
        self.when = nn.Linear(2 * WAVES, dim)
        self.blocks = nn.ModuleList(Block(dim, heads, dropout, causal=True) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens_BTI: torch.Tensor, extra_BD: torch.Tensor | None = None) -> torch.Tensor:
        """(B, T, D): what is known after each step. `extra_BD` is added to every token."""
        x_BTD = self.embed(tokens_BTI) + self.when(self.waves_TW[: tokens_BTI.shape[1]])
        if extra_BD is not None:
            x_BTD = x_BTD + extra_BD[:, None]
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return self.norm(x_BTD)


class PatchLanguage(nn.Module):
    """Reads each variable by itself, with the same weights: a series per variable, as the predecessor's text tower."""

    def __init__(
        self, variables: int, times_T: torch.Tensor, patch: int, dim: int, depth: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.patch, self.dim = patch, dim
        self.steps = Steps(2 * patch, dim, depth, heads, dropout, times_T)
        self.variable_VD = nn.Parameter(torch.randn(variables, dim) * 0.02)

    def forward(self, z_BVT: torch.Tensor, known_BVT: torch.Tensor, length_BK: torch.Tensor) -> torch.Tensor:
        """(B, K, V, D). Values are normalised, 0 where not known."""
        batch, variables, length = z_BVT.shape
        tokens = windows(torch.stack((z_BVT, known_BVT.to(z_BVT)), dim=-1).flatten(0, 1), self.patch)
        extra = self.variable_VD.repeat(batch, 1)
        x_BVTD = self.steps(tokens, extra).view(batch, variables, length, self.dim)
        return at_lengths(x_BVTD.transpose(1, 2), length_BK)


class Numeric(nn.Module):
    """Reads all variables of a step together; its features count as those of a single variable."""

    def __init__(
        self, variables: int, times_T: torch.Tensor, patch: int, dim: int, depth: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.patch, self.dim = patch, dim
        self.steps = Steps(2 * patch * variables, dim, depth, heads, dropout, times_T)

    def forward(self, z_BVT: torch.Tensor, known_BVT: torch.Tensor, length_BK: torch.Tensor) -> torch.Tensor:
        """(B, K, 1, D). Values are normalised, 0 where not known."""
        pairs_BTI = torch.cat((z_BVT, known_BVT.to(z_BVT)), dim=1).transpose(1, 2)
        x_BTD = self.steps(windows(pairs_BTI, self.patch))
        return at_lengths(x_BTD[:, :, None], length_BK)


def windows(x_BTI: torch.Tensor, patch: int) -> torch.Tensor:
    """(B, T, I * P): at each step the last P steps until then, zeros before the first."""
    return F.pad(x_BTI, (0, 0, patch - 1, 0)).unfold(1, patch, 1).flatten(2)


def at_lengths(x_BTVD: torch.Tensor, length_BK: torch.Tensor) -> torch.Tensor:
    """(B, K, V, D): what stands at the last step of each prefix."""
    rows = torch.arange(len(x_BTVD), device=x_BTVD.device)[:, None]
    return x_BTVD[rows, length_BK - 1]
