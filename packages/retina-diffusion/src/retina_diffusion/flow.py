"""Rectified flow: a straight path from noise to data, and what a network may say about it.

Time runs from 0 (noise) to 1 (data): x_t = t x_1 + (1 - t) x_0 with x_0 normal (Liu et al. 2023, ICLR; Lipman et al.
2023, ICLR). Its velocity is v = x_1 - x_0. diffusers counts the other way and steps along x_0 - x_1: negate v for it.

Shapes: B images of any shape; times t_B.
"""

from __future__ import annotations

import torch

# the velocity of a predicted x is divided by what remains of the path; at its end by no less than this (Li and He 2025,
# "Back to Basics: Let Denoising Generative Models Denoise", arXiv:2511.13720)
REST = 0.05


def at(x0_B: torch.Tensor, x1_B: torch.Tensor, t_B: torch.Tensor) -> torch.Tensor:
    """The point of the path at time t."""
    t_B = like(t_B, x1_B)
    return t_B * x1_B + (1 - t_B) * x0_B


def velocity(x0_B: torch.Tensor, x1_B: torch.Tensor) -> torch.Tensor:
    """Of the path, the same at every time."""
    return x1_B - x0_B


def velocity_of_x(x1_B: torch.Tensor, xt_B: torch.Tensor, t_B: torch.Tensor, rest: float = REST) -> torch.Tensor:
    """The velocity that leads from x_t to a predicted x_1 in the time that remains, at least `rest`."""
    return (x1_B - xt_B) / like(1 - t_B, xt_B).clamp(min=rest)


def x_of_velocity(v_B: torch.Tensor, xt_B: torch.Tensor, t_B: torch.Tensor) -> torch.Tensor:
    """Where a velocity leads from x_t."""
    return xt_B + like(1 - t_B, xt_B) * v_B


def like(t_B: torch.Tensor, x_B: torch.Tensor) -> torch.Tensor:
    """Times with as many axes as the images."""
    return t_B.view(-1, *(1,) * (x_B.dim() - 1)).to(x_B)
