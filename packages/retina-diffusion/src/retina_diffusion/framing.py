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
    red, green, blue = image_HW3[:, :, 0], image_HW3[:, :, 1], image_HW3[:, :, 2]
    bright = _most_of_5x5(np.maximum(np.maximum(red, green), blue) > 255 * DARK)
    pieces, count = ndimage.label(bright)
    if count == 0:
        return np.ones(bright.shape, bool)
    sizes = np.bincount(pieces.ravel())[1:]
    field = ndimage.binary_fill_holes(pieces == 1 + sizes.argmax())
    assert field is not None
    return field if field.mean() > LEAST_FIELD else np.ones(bright.shape, bool)


def disc(height: int, width: int) -> NDArray[np.bool_]:
    """Where the eye is in a usual photograph (H, W): a disc as wide as the longer side, cut off at the others."""
    rows, columns = (np.arange(side) - (side - 1) / 2 for side in (height, width))
    return rows[:, None] ** 2 + columns**2 <= (max(height, width) / 2) ** 2


def _most_of_5x5(x_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether most of the pixels around are True: what is above a threshold in a median-filtered picture."""
    rows = ndimage.correlate1d(x_HW.astype(np.uint8), np.ones(5), axis=0)
    return ndimage.correlate1d(rows, np.ones(5), axis=1) > 12


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


def cut_masks(mask_MHW: NDArray[np.float32], top: int, left: int, side: int) -> NDArray[np.float32]:
    """The same square out of each channel."""
    return np.stack([cut(mask, top, left, side) for mask in mask_MHW])


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
    out = np.zeros((len(mask_MHW), height, width), np.uint8)
    there = np.flatnonzero(mask_MHW.any(axis=(1, 2)))  # most channels of most photographs are empty
    if len(there):
        share = 255 * masks.pooled(torch.from_numpy(mask_MHW[there]), height, width)
        out[there] = torch.where(share > 0, share.clamp(min=1), share).round().to(torch.uint8).numpy()
    return out


def thumbnail(image_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luminance at a small size, (THUMBNAIL, THUMBNAIL), of the whole picture."""
    grey = Image.fromarray(image_HW3).convert("L")
    return np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
