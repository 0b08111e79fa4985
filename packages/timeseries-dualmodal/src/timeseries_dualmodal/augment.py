"""Changes of training series, before they are drawn and read: picture and numbers change alike.

Shapes: B series, V variables, T steps.
"""

from __future__ import annotations

import torch

from timeseries_dualmodal.model_config import Augment


def augment(x_BVT: torch.Tensor, std_V: torch.Tensor, wanted: Augment) -> torch.Tensor:
    """Changed copies, NaN where missing; random numbers come from PyTorch's own stream.

    Each series keeps at least one of its variables.
    """
    batch, variables, steps = x_BVT.shape
    if wanted.shift:
        x_BVT = _shifted(x_BVT, torch.randint(-wanted.shift, wanted.shift + 1, (batch,)))
    if wanted.noise:
        x_BVT = x_BVT + wanted.noise * std_V[:, None] * torch.randn(x_BVT.shape)
    if wanted.drop_steps:
        rate_B11 = torch.rand(batch, 1, 1) * wanted.drop_steps
        x_BVT = x_BVT.masked_fill(torch.rand(batch, 1, steps) < rate_B11, torch.nan)
    if wanted.drop_variables and variables > 1:
        lost_BV = torch.rand(batch, variables) < wanted.drop_variables
        lost_BV[torch.arange(batch), torch.randint(variables, (batch,))] = False
        x_BVT = x_BVT.masked_fill(lost_BV[..., None], torch.nan)
    return x_BVT


def _shifted(x_BVT: torch.Tensor, by_B: torch.Tensor) -> torch.Tensor:
    """Each series moved to the right by its number of steps; what comes in from outside is missing."""
    steps = x_BVT.shape[-1]
    source_BT = torch.arange(steps) - by_B[:, None]
    moved = x_BVT.gather(2, source_BT.clamp(0, steps - 1)[:, None].expand_as(x_BVT))
    return moved.masked_fill(((source_BT < 0) | (source_BT >= steps))[:, None], torch.nan)
