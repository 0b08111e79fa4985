"""Masks of a photograph: one coverage channel per class.

Files come as palettes, grey, RGB(A) or 16 bit, with 0/1 or 0/255; what they mean is where there is something other than
background. A microaneurysm of a few pixels must survive being made smaller, so masks are pooled by area, never sampled.

Shapes: M channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from retina_diffusion import pictures
from retina_diffusion.channels import CHANNELS
from shared_core.errors import UserError


def read(path: Path) -> NDArray[np.float32]:
    """Where the class is: (H, W), 0 or 1; in files that `pictures.write_coverage` wrote, the share of each pixel.

    Raises UserError for a file that is no picture, or one with more than two values, which is no mask of one class.
    """
    with pictures.opened(path) as image:
        values, shares = _values(image, path), pictures.COVERAGE in image.info
    if shares:
        return (values / 255).astype(np.float32)
    if ((values != 0) & (values != values.max())).any():
        found = np.unique(values)
        shown = ", ".join(map(str, found[:5].tolist())) + (", ..." if len(found) > 5 else "")
        raise UserError(
            f"{path}: holds the values {shown}; a mask of one class has 0 and one other (JPEG and "
            "smooth edges blur that): save it as PNG, black and white"
        )
    return (values > 0).astype(np.float32)


def _values(image: Image.Image, path: Path) -> NDArray[Any]:
    """One number per pixel (H, W): palette indices are taken as they are, since colours of a palette say nothing.

    What is transparent is background. Raises UserError for colours that are more than black and one other.
    """
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if image.mode in ("L", "P", "F") or image.mode.startswith("I"):
        return np.asarray(image)
    if image.mode in ("LA", "PA", "La"):
        both = np.asarray(image)
        return np.where(both[:, :, 1] > 0, both[:, :, 0], 0)
    colours = np.asarray(image.convert("RGBA"))
    red, green, blue = (np.where(colours[:, :, 3] > 0, colours[:, :, k], 0) for k in range(3))
    brightest = np.maximum(np.maximum(red, green), blue)
    if (red == green).all() and (green == blue).all():
        return brightest
    number = (red.astype(np.int64) << 16) | (green.astype(np.int64) << 8) | blue
    if ((number != 0) & (number != number.max())).any():
        shown = ", ".join(f"#{one:06x}" for one in np.unique(number)[:4])
        raise UserError(
            f"{path}: holds the colours {shown}, ...; a mask has black and one other, or is grey; for several classes "
            "write a file for each, or grey values 1, 2, ... and --data.mask_values"
        )
    return brightest


def read_labels(path: Path, classes: tuple[str, ...]) -> dict[str, NDArray[np.float32]]:
    """Where each of several classes is: a file whose pixel value k is the k-th of `classes`, and 0 is none of them.

    A file of one class may have any other value than 0. Raises UserError for values that no class has.
    """
    if not classes:
        raise UserError(
            f"{path}: one mask of all classes; say what its values 1, 2, ... are: --data.mask_values MA,HE,EX"
        )
    if len(classes) == 1:
        return {classes[0]: read(path)}
    with pictures.opened(path) as image:
        values = _values(image, path)
    if unknown := sorted(set(np.unique(values).tolist()) - set(range(len(classes) + 1))):
        raise UserError(
            f"{path}: holds the value {unknown[0]}; data.mask_values has {len(classes)} classes, which are 1 to "
            f"{len(classes)}"
        )
    return {name: (values == number).astype(np.float32) for number, name in enumerate(classes, start=1)}


def stacked(masks: Mapping[str, NDArray[np.float32]], size: tuple[int, int]) -> NDArray[np.float32]:
    """One channel per class (M, H, W); what is not given is empty."""
    empty = np.zeros(size, np.float32)
    return np.stack([np.asarray(masks.get(name, empty), np.float32) for name in CHANNELS])


def pooled(mask_MHW: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The share of each new pixel that is covered: (M, height, width), 0 to 1; of the whole it stays the same.

    Pixels that a new one cuts count by how much of them lies in it. (`adaptive_avg_pool2d` counts them whole, and twice
    where two share one.)
    """
    rows, columns = (_overlaps(old, new) for old, new in zip(mask_MHW.shape[1:], (height, width), strict=True))
    return (rows @ mask_MHW.float() @ columns.T).clamp(0, 1)


def _overlaps(old: int, new: int) -> torch.Tensor:
    """(new, old) how much of each new pixel of a line is which old one; rows add up to 1."""
    i, k = torch.arange(new)[:, None], torch.arange(old)  # in units of which all edges are whole numbers
    inside = torch.minimum((i + 1) * old, (k + 1) * new) - torch.maximum(i * old, k * new)
    return inside.clamp(min=0).float() / old


def pooled_batch(mask_BMHW: torch.Tensor, factor: int) -> torch.Tensor:
    """(B, M, H / factor, W / factor) of several."""
    return F.avg_pool2d(mask_BMHW, factor)
