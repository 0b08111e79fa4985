"""Rotary positions in two dimensions, for any size and aspect ratio (Su et al. 2021; Zhuo et al. 2024, "Lumina-Next").

A head's features are pairs; the even pairs turn with the row, the odd ones with the column. Beyond the size that
training saw, the frequencies are lowered: early, where the picture's layout is decided, all alike (linear
interpolation); later the low ones more than the high ones (NTK), which leaves neighbours their distance.

Shapes: H x W tokens, L = H W of them, D features of a head.
"""

from __future__ import annotations

import torch

THETA = 10_000.0
WATERSHED = 0.3  # of time: before it linear, after it NTK


def angles(height: int, width: int, dim: int, scale: float = 1.0, time: float = 1.0) -> torch.Tensor:
    """(L, D / 2) angles, rows first.

    Args:
        scale: side of the image over the side that training saw, at least 1.
        time: of the flow; only matters where scale is above 1.

    Raises ValueError where D is no multiple of 4.
    """
    if dim % 4:
        raise ValueError(f"{dim} features of a head: must be a multiple of 4")
    linear = scale if time < WATERSHED else 1.0
    theta = THETA if time < WATERSHED else THETA * scale
    frequency_D = theta ** -(torch.arange(0, dim, 4, dtype=torch.float64) / dim) / linear
    row_HD, column_WD = (torch.arange(n, dtype=torch.float64)[:, None] * frequency_D for n in (height, width))
    both = torch.stack((row_HD[:, None].expand(-1, width, -1), column_WD[None].expand(height, -1, -1)), dim=-1)
    return both.reshape(height * width, dim // 2).float()


def rotate(x_BLND: torch.Tensor, angles_LD: torch.Tensor) -> torch.Tensor:
    """Each pair of features turned by its angle; N heads. Angles may also be (B, L, D / 2)."""
    cos, sin = angles_LD.cos().unsqueeze(-2), angles_LD.sin().unsqueeze(-2)
    x = x_BLND.float()
    first, second = x[..., 0::2], x[..., 1::2]
    return torch.stack((first * cos - second * sin, first * sin + second * cos), dim=-1).flatten(-2).to(x_BLND)
