"""Changes to training photographs that move whole pixels, so that nothing is blurred; masks move along.

Shapes: H x W pixels, M mask channels.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from retina_diffusion.model_config import Augment


def mirrors(wanted: Augment) -> bool:
    """Whether a photograph is to be mirrored left and right, by the global random state."""
    return wanted.flip and bool(torch.rand(()) < 0.5)


def changed(image: torch.Tensor, mask: torch.Tensor, wanted: Augment) -> tuple[torch.Tensor, torch.Tensor]:
    """A photograph (3, H, W) and its masks (M, H, W), changed alike, by the global random state."""
    both = torch.cat((image, mask))
    if mirrors(wanted):
        both = both.flip(-1)
    if wanted.upside_down and torch.rand(()) < 0.5:
        both = both.flip(-2)
    if wanted.shift:
        most = [max(1, round(wanted.shift * side)) for side in both.shape[1:]]
        down, right = (int(torch.randint(-n, n + 1, ())) for n in most)
        both = F.pad(both, (right, -right, down, -down))
    return both[:3].contiguous(), both[3:].contiguous()
