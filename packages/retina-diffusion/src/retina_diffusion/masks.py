"""Masks of a photograph: one coverage channel per class.

Files come as palettes, grey, RGB(A) or 16 bit, with 0/1 or 0/255; what they mean is where there is something other than
background. A microaneurysm of a few pixels must survive being made smaller, so masks are pooled by area, never sampled.

Shapes: M channels, H x W pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from retina_diffusion import pictures
from shared_core.errors import UserError

CHANNELS = ("MA", "HE", "EX", "SE", "OD", "vessel", "FOV")
WORDS = {
    "MA": "microaneurysms",
    "HE": "haemorrhages",
    "EX": "hard exudates",
    "SE": "soft exudates",
    "OD": "optic disc",
    "vessel": "vessels",
    "FOV": "field of view",
}


def read(path: Path) -> NDArray[np.bool_]:
    """Where the class is: (H, W).

    Raises UserError for a file that is no picture, or one with more than two values, which is no mask of one class.
    """
    with pictures.opened(path) as image:
        values = _values(image)
    found = np.unique(values)
    if len(found) > 2 or (len(found) == 2 and found[0] != 0):
        shown = ", ".join(map(str, found[:5].tolist())) + (", ..." if len(found) > 5 else "")
        raise UserError(f"{path}: holds the values {shown}; a mask of one class has 0 and one other")
    return values > 0


def _values(image: Image.Image) -> NDArray[np.int64]:
    """One number per pixel (H, W): palette indices are taken as they are, since colours of a palette say nothing."""
    if image.mode in ("RGB", "RGBA", "CMYK"):
        colours = np.asarray(image.convert("RGBA"), np.int64)[:, :, :3]  # the fourth is how opaque it is
        return colours.max(axis=2)
    if image.mode in ("LA", "PA", "La"):
        return np.asarray(image, np.int64)[:, :, 0]
    return np.asarray(image).astype(np.int64)


def pooled(mask_MHW: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The share of each new pixel that is covered: (M, height, width), 0 to 1. What is covered in all stays the same."""
    return F.interpolate(mask_MHW[None].float(), (height, width), mode="area")[0]
