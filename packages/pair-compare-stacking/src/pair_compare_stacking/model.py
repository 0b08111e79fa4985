"""The pair model: one tower for both halves, the digit posteriors of each, and their comparison.

Shapes: B pairs, 2 halves, H x W pixels, D features, K = 10 digits (as many as the prior has).
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from pair_compare_stacking.comparison import Comparison
from pair_compare_stacking.tower import Tower


class Prediction(NamedTuple):
    """What the model says about B pairs."""

    logit: torch.Tensor  # (B,) log-odds that the left digit is larger
    digit_logits: torch.Tensor  # (B, 2, 10) of the left and right half


class PairModel(nn.Module):
    """Pairs -> comparison and digits.

    Args:
        prior: (10, 10) joint distribution of (left, right) digits in the training pairs.
        widths: channels per stage of the tower.
        layers: residual blocks per stage.
        feat_dim: features per half.
        hidden: width of each head.
        heads: `comparison.HEADS` that look at the features.
        posteriors: whether the answer starts from what the digit posteriors imply.
        antisymmetric: whether swapping the halves flips the sign exactly.
        dropout: on the features, for all that reads them.
        tower: more about the `Tower`: block, attention, stem_stride, pyramid.
    """

    def __init__(
        self,
        prior: np.ndarray,
        widths: tuple[int, ...] = (48, 96, 192),
        layers: tuple[int, ...] = (2, 2, 2),
        feat_dim: int = 256,
        hidden: int = 128,
        heads: tuple[str, ...] = ("concatenation",),
        posteriors: bool = True,
        antisymmetric: bool = True,
        dropout: float = 0.0,
        **tower: object,
    ) -> None:
        super().__init__()
        self.tower = Tower(widths, layers, feat_dim, **tower).to(memory_format=torch.channels_last)  # type: ignore[arg-type]
        self.dropout = nn.Dropout(dropout)
        self.digit_head = nn.Linear(feat_dim, len(prior))
        self.comparison = Comparison(heads, feat_dim, hidden, prior if posteriors else None, antisymmetric)

    def forward(self, x_B2HW: torch.Tensor) -> Prediction:
        """`x_B2HW`: float in 0..1, left and right half."""
        features = self.tower(x_B2HW.flatten(0, 1).unsqueeze(1))
        z_B2D = self.dropout(features).unflatten(0, (-1, 2))
        digit_logits = self.digit_head(z_B2D)
        return Prediction(self.comparison(z_B2D, digit_logits), digit_logits)
