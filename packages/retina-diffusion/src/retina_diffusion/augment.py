"""Random changes of photographs that leave what they show as it is: reflections, turns, and the light of the camera.

Drawn on the CPU, so that a seed means the same on every device. Shapes: B images (B, 3, H, W) in [-1, 1].
"""

from __future__ import annotations

import torch

GAIN = 0.1  # standard deviation of the logarithm: of all colours together, and of each


def photographs(images: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Turned, mirrored, and in another light."""
    return light(reflected((images,), draw)[0], draw)


def reflected(tensors: tuple[torch.Tensor, ...], draw: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Tensors (B, ., H, W), images and their masks, turned and mirrored alike: square ones in all eight ways."""
    height, width = tensors[0].shape[2:]
    changes = [lambda x: x.flip(2), lambda x: x.flip(3)]
    if height == width:
        changes.append(lambda x: x.transpose(2, 3))
    for change in changes:
        which = (torch.rand(len(tensors[0]), generator=draw) < 0.5).to(tensors[0].device)[:, None, None, None]
        tensors = tuple(torch.where(which, change(x), x) for x in tensors)
    return tensors


def light(images: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Brighter or darker, and of another tint; black stays black."""
    together = torch.randn(len(images), 1, 1, 1, generator=draw)
    each = torch.randn(len(images), images.shape[1], 1, 1, generator=draw)
    return (images + 1) * torch.exp(GAIN * (together + each)).to(images) - 1
