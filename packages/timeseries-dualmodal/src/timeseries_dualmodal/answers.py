"""What a trained model says after each of several lengths: one way for validation, tests, files and streams.

Shapes: N series, L lengths, V variables, T steps, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from timeseries_dualmodal.sight import Eyes

ROWS = 256  # series in one call of a model that reads only
PICTURES = 2048  # pictures in one call of a model that sees


@torch.no_grad()
def logits(
    model: nn.Module,
    x_NVT: torch.Tensor,
    lengths: Sequence[int],
    eyes: Eyes | None,
    device: torch.device,
    first: int = 0,
) -> torch.Tensor:
    """(N, L, C) on the CPU.

    Args:
        model: in evaluation mode.
        eyes: None for a model that only reads.
        first: number of the first series among those that the eyes know, where they look series up.
    """
    if not len(x_NVT):
        raise ValueError("no series to answer")
    length_L = torch.as_tensor(lengths, device=device)
    found = []
    for x_BVT in x_NVT.split(_rows(x_NVT, lengths, eyes)):
        x_BVT = x_BVT.to(device)
        parts = []
        for length_l in length_L.split(_lengths(x_NVT, lengths, eyes)):
            length_Bl = length_l.expand(len(x_BVT), len(length_l))
            seen = None
            if eyes is not None:
                length_Bl, seen = eyes.see(x_BVT, length_Bl, torch.arange(first, first + len(x_BVT)))
            parts.append(model(x_BVT, length_Bl, seen).logits_BKC.float().cpu())
        found.append(torch.cat(parts, dim=1))
        first += len(x_BVT)
    return torch.cat(found)


def _rows(x_NVT: torch.Tensor, lengths: Sequence[int], eyes: Eyes | None) -> int:
    if eyes is None:
        return ROWS
    return max(1, min(ROWS, PICTURES // (x_NVT.shape[1] * min(len(lengths), 8))))


def _lengths(x_NVT: torch.Tensor, lengths: Sequence[int], eyes: Eyes | None) -> int:
    if eyes is None:
        return len(lengths)
    return max(1, min(len(lengths), PICTURES // (x_NVT.shape[1] * _rows(x_NVT, lengths, eyes))))
