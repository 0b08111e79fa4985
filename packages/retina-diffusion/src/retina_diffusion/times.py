"""Which times training shows, and which a sampler stops at.

Shapes: B images; K times of a sampler.
"""

from __future__ import annotations

import torch


def shifted(t: torch.Tensor, shift: float) -> torch.Tensor:
    """t moved by s t / (1 + (s - 1) t), towards data by s above 1, towards noise below; 0 and 1 stay.

    Esser et al. 2024 (ICML).
    """
    return shift * t / (1 + (shift - 1) * t)


def for_size(size: float, base: float) -> float:
    """The shift for images of so many pixels along a side, where those of `base` need none.

    The larger an image, the more noise it takes to hide it: base / size, which is sqrt(base pixels / pixels), and never
    above 1 (Esser et al. 2024, with time running from noise to data).
    """
    return min(1.0, base / size)


def uniform(batch: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """Stratified: one time in each of B equal parts of [0, 1), in random order."""
    order_B = torch.randperm(batch, generator=generator)
    return (order_B + torch.rand(batch, generator=generator)) / batch


def logit_normal(
    batch: int, mean: float = 0.0, std: float = 1.0, generator: torch.Generator | None = None
) -> torch.Tensor:
    """The sigmoid of normal numbers, stratified as `uniform`: mostly the middle of the path."""
    u_B = uniform(batch, generator).clamp(1e-6, 1 - 1e-6)
    return (mean + std * torch.special.ndtri(u_B)).sigmoid()


def steps(count: int, shift: float = 1.0) -> torch.Tensor:
    """Times of a sampler with so many steps: (count + 1,) from 0 to 1."""
    if count < 1:
        raise ValueError(f"{count} steps: must be at least 1")
    return shifted(torch.linspace(0, 1, count + 1, dtype=torch.float64), shift)
