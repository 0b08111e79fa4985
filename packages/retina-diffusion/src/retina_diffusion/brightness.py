"""Pictures as bytes, which files and memory hold, and as numbers in [-1, 1], which networks see."""

from __future__ import annotations

import torch


def light(pixels: torch.Tensor) -> torch.Tensor:
    """In [-1, 1], of bytes."""
    return pixels.float() / 127.5 - 1


def bytes_of(image: torch.Tensor) -> torch.Tensor:
    """The inverse of `light`, rounded; on the CPU."""
    return ((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()
