"""From features per variable to those of a series.

Shapes: N prefixes, V variables, D features.
"""

from __future__ import annotations

import torch
from torch import nn

from timeseries_dualmodal.layers import Block


class Fusion(nn.Module):
    """Attention over the variables, then a weighted mean of them."""

    def __init__(self, inputs: int, variables: int, dim: int, depth: int, heads: int, dropout: float) -> None:
        """`inputs`: features per variable."""
        super().__init__()
        self.enter = nn.Sequential(nn.Linear(inputs, dim), nn.LayerNorm(dim))
        self.variable_VD = nn.Parameter(torch.randn(variables, dim) * 0.02)
        several = variables > 1  # a single variable has nothing to attend to
        self.blocks = nn.ModuleList(Block(dim, heads, dropout) for _ in range(depth if several else 0))
        self.weigh = nn.Linear(dim, 1)
        self.leave = nn.Sequential(nn.LayerNorm(dim), nn.Dropout(dropout))

    def forward(self, x_NVI: torch.Tensor, known_NV: torch.Tensor) -> torch.Tensor:
        """(N, D). `known_NV`: whether anything is known of a variable; where not, it is not looked at.

        Where nothing is known of any, all are: what is left to say then is how common the classes are.
        """
        mask_NV = known_NV | ~known_NV.any(dim=1, keepdim=True)
        x_NVD = self.enter(x_NVI) + self.variable_VD
        for block in self.blocks:
            x_NVD = block(x_NVD, mask_NV)
        weight_NV1 = self.weigh(x_NVD).masked_fill(~mask_NV[..., None], float("-inf")).softmax(dim=1)
        return self.leave((weight_NV1 * x_NVD).sum(dim=1))
