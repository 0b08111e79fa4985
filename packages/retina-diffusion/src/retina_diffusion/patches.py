"""Images to tokens and back.

Shapes: B images of C channels, H x W pixels; P pixels of a patch's side; L = (H / P) (W / P) tokens.
"""

from __future__ import annotations

import torch


def of_image(x_BCHW: torch.Tensor, patch: int) -> torch.Tensor:
    """(B, L, C P P): channels first within a token, as Lumina's embedder wants them. Or ValueError."""
    batch, channels, height, width = x_BCHW.shape
    if height % patch or width % patch:
        raise ValueError(f"{height} x {width} pixels: sides must be multiples of the patch, {patch}")
    x = x_BCHW.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(batch, (height // patch) * (width // patch), channels * patch * patch)


def to_image(x_BLF: torch.Tensor, height: int, width: int, patch: int) -> torch.Tensor:
    """(B, C, H, W) of tokens whose features end with the channels, as Lumina's last layer gives them."""
    batch, _, features = x_BLF.shape
    channels = features // patch**2
    x = x_BLF.reshape(batch, height // patch, width // patch, patch, patch, channels)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, height, width)
