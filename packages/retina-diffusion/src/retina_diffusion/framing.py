"""From a photograph as it was taken to one of the size that a network sees, its masks alike.

Shapes: H x W pixels as taken, h x w as wanted; M channels.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from retina_diffusion import masks

DARK = 0.07  # of full brightness: what is darker in all colours lies outside of the field of view
LEAST_FIELD = 0.1  # of the picture: a smaller field of view is none that was found
THUMBNAIL = 128  # pixels of a side, for comparing photographs


def field_of_view(image_HW3: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where the eye is, (H, W): the largest bright piece with its holes; everything where there is none to be seen."""
    bright = ndimage.median_filter(image_HW3.max(axis=2), 5) > 255 * DARK
    pieces, count = ndimage.label(bright)
    if count == 0:
        return np.ones(bright.shape, bool)
    sizes = np.bincount(pieces.ravel())[1:]
    field = ndimage.binary_fill_holes(pieces == 1 + sizes.argmax())
    assert field is not None
    return field if field.mean() > LEAST_FIELD else np.ones(bright.shape, bool)


def square(field_HW: NDArray[np.bool_]) -> tuple[int, int, int]:
    """(top, left, side) of the smallest square around a field of view; it may reach beyond the picture."""
    rows, columns = (np.flatnonzero(field_HW.any(axis=axis)) for axis in (1, 0))
    side = int(max(rows[-1] - rows[0], columns[-1] - columns[0])) + 1
    return (int(rows[0] + rows[-1] + 1 - side) // 2, int(columns[0] + columns[-1] + 1 - side) // 2, side)


def cut(x: NDArray, top: int, left: int, side: int) -> NDArray:
    """A square out of (H, W) or (H, W, C); 0 where it reaches beyond."""
    out = np.zeros((side, side, *x.shape[2:]), x.dtype)
    height, width = x.shape[:2]
    rows, columns = slice(max(0, top), min(height, top + side)), slice(max(0, left), min(width, left + side))
    out[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = x[rows, columns]
    return out


def target(height: int, width: int, size: int, multiple: int) -> tuple[int, int]:
    """(h, w): multiples of a number, with about the area of `size` squared and the picture's aspect ratio."""
    ratio = (height / width) ** 0.5
    return tuple(max(1, round(size * one / multiple)) * multiple for one in (ratio, 1 / ratio))  # type: ignore[return-value]


def resized(image_HW3: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """(3, h, w)."""
    if image_HW3.shape[:2] != (height, width):
        image_HW3 = np.asarray(Image.fromarray(image_HW3).resize((width, height), Image.Resampling.LANCZOS))
    return np.ascontiguousarray(image_HW3.transpose(2, 0, 1))


def covered(mask_MHW: NDArray[np.float32], height: int, width: int) -> NDArray[np.uint8]:
    """(M, h, w): the covered share of each pixel in 255ths; what is covered at all stays above 0."""
    share = 255 * masks.pooled(torch.from_numpy(np.ascontiguousarray(mask_MHW)), height, width)
    share = torch.where(share > 0, share.clamp(min=1), share)
    return share.round().to(torch.uint8).numpy()


def thumbnail(image_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luminance at a small size, (THUMBNAIL, THUMBNAIL), of the whole picture."""
    grey = Image.fromarray(image_HW3).convert("L")
    return np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
