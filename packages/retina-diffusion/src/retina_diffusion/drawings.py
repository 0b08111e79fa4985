"""Photographs, masks and samples as pictures to look at.

Shapes: N images of H x W pixels, M mask channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from retina_diffusion.brightness import bytes_of
from retina_diffusion.channels import CHANNELS

# of each class, 0 to 1: lesions bright, anatomy faint
COLOURS = {
    "MA": (1.0, 0.2, 0.2), "HE": (0.8, 0.0, 0.4), "EX": (1.0, 0.9, 0.1), "SE": (1.0, 1.0, 1.0), "OD": (0.1, 0.7, 1.0),
    "vessel": (0.2, 0.45, 0.2), "FOV": (0.18, 0.18, 0.18),
}  # fmt: skip
GAP = 2  # pixels between pictures
LEAST_SIDE = 96  # pixels of a picture; smaller ones are enlarged


def coloured(mask_NMHW: torch.Tensor, known_NM: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) in [-1, 1]: masks as one picture, rarer classes over more common ones."""
    picture = torch.zeros(len(mask_NMHW), 3, *mask_NMHW.shape[2:])
    for name in ("FOV", "vessel", "OD", "SE", "EX", "HE", "MA"):
        share = (mask_NMHW[:, CHANNELS.index(name)] * known_NM[:, CHANNELS.index(name), None, None])[:, None].float()
        share = share if name in ("FOV", "vessel") else (share * 1.5).clamp(max=1)
        picture = picture * (1 - share) + share * torch.tensor(COLOURS[name]).view(1, 3, 1, 1)
    return picture * 2 - 1


def sheet(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """(height, width, 3) uint8: a contact sheet of rows of images (N, 3, H, W) in [-1, 1]."""
    side = rows[0].shape[-1]
    factor = max(1, -(-LEAST_SIDE // side))
    lines = []
    for row in rows:
        large = row.float().cpu().repeat_interleave(factor, dim=-1).repeat_interleave(factor, dim=-2)
        lines.append(torch.cat([torch.nn.functional.pad(one, (0, GAP, 0, GAP), value=1.0) for one in large], dim=2))
    picture = torch.cat(lines, dim=1)
    return bytes_of(picture).permute(1, 2, 0).contiguous()
