"""How the two small networks are trained that measure photographs: the segmenter and the grader."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

WARM_UP = 20  # steps


def descend(
    model: nn.Module, objective: Callable[[], torch.Tensor], steps: int, lr: float, weight_decay: float
) -> None:
    """AdamW with a warm-up and half a cosine; `objective` draws a batch and gives its loss. The same on every run.

    Raises ValueError for no steps.
    """
    if steps < 1:
        raise ValueError(f"steps: {steps}; must be one at least")
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * step / steps)) / 2
    )
    model.train()
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        for _ in range(steps):
            optimizer.zero_grad()
            objective().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    model.eval()
