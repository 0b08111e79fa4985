"""Rotary positions in two dimensions, for any size and aspect ratio (Su et al. 2021; Zhuo et al. 2024, "Lumina-Next").

A head's features are pairs; the even pairs turn with the row, the odd ones with the column. Beyond the size that
training saw, the frequencies are lowered: early, where the picture's layout is decided, all alike (linear
interpolation); later the low ones more than the high ones (NTK), which leaves neighbours their distance.

Shapes: B images of H x W tokens, L = H W of them; N heads of D features, which are P = D / 2 pairs.
"""

from __future__ import annotations

import torch

THETA = 10_000.0
WATERSHED = 0.3  # of time: before it linear, after it NTK


def angles(
    height: int,
    width: int,
    dim: int,
    scale: float | torch.Tensor = 1.0,
    time: float = 1.0,
    device: torch.device | None = None,
) -> torch.Tensor:
    """(L, P) angles, rows first.

    Args:
        dim: D.
        scale: side of the image over the side that training saw, at least 1; or (B,), and the angles are (B, L, P).
        time: of the flow; only matters where scale is above 1.

    Raises ValueError where D is no multiple of 4.
    """
    if dim % 4:
        raise ValueError(f"{dim} features of a head: must be a multiple of 4")
    scale_B1 = torch.as_tensor(scale, dtype=torch.float32, device=device).unsqueeze(-1)
    exponent = torch.arange(0, dim, 4, dtype=torch.float32, device=device) / dim
    early = time < WATERSHED
    frequency_BF = THETA ** (-exponent) / scale_B1 if early else (THETA * scale_B1) ** (-exponent)
    row_BHF, column_BWF = (
        torch.arange(n, dtype=torch.float32, device=device)[:, None] * frequency_BF.unsqueeze(-2)
        for n in (height, width)
    )
    across = (*row_BHF.shape[:-2], height, width, dim // 4)
    both = torch.stack((row_BHF.unsqueeze(-2).expand(across), column_BWF.unsqueeze(-3).expand(across)), dim=-1)
    return both.flatten(-2).flatten(-3, -2)


def turns(angles_LP: torch.Tensor) -> torch.Tensor:
    """(L, 1, P, 2) cosine and sine of each angle, the same for all heads; made once and used by every layer."""
    return torch.stack((angles_LP.cos(), angles_LP.sin()), dim=-1).unsqueeze(-3)


def rotate(x_BLND: torch.Tensor, turns_L1P2: torch.Tensor) -> torch.Tensor:
    """Each pair of features turned by its angle, in float32; turns may also be (B, L, 1, P, 2)."""
    pairs = x_BLND.float().unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():  # which cannot fuse complex numbers
        first, second = pairs.unbind(-1)
        cos, sin = turns_L1P2.unbind(-1)
        turned = torch.stack((first * cos - second * sin, first * sin + second * cos), dim=-1)
    else:  # one pass over memory instead of six
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(turns_L1P2))
    return turned.flatten(-2).to(x_BLND.dtype)
