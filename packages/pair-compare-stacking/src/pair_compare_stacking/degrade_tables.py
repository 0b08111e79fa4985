"""Constant tables of the batched degrader: resize and blur matrices, line rasters.

Each table holds what Pillow computes for one setting, so that the degrader reproduces Pillow's arithmetic with
matrix products and look-ups. Pillow's own C sources are the reference (libImaging's Resample, BoxBlur and Draw).
"""

from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageDraw

from pair_compare_stacking.generator import CANVAS, SIDE

SMALLEST, LARGEST = 16, 40  # sides to which a resized digit is clamped


def as_rounded(weights: np.ndarray, integers: np.ndarray, unit: int) -> np.ndarray:
    """Weights for float32 whose products, rounded by torch.round, fall as Pillow's with weights `integers / unit`.

    Pillow rounds half up, and exact ties are common; there the integers' rounding error decides the direction.
    Float32 cannot hold that error, so it is enlarged until it can: ties fall as in Pillow and nothing else changes.
    Where the integers are exact, a last factor makes torch.round, which rounds half to even, round up.
    """
    error = integers / unit - weights
    return (weights + error * (2e-5 / max(np.abs(error).max(), 2e-9))) * (1 + 3e-7)


def resize_matrix(size: int) -> np.ndarray:
    """Weights (size, 28) of Pillow's bilinear resize from 28 to `size` pixels: a triangle, widened when shrinking."""
    scale = SIDE / size
    support = max(scale, 1.0)
    centers = (np.arange(size) + 0.5) * scale
    distance = (np.arange(SIDE) + 0.5)[None, :] - centers[:, None]
    weights = np.maximum(1 - np.abs(distance) / support, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    return as_rounded(weights, np.floor(weights * 2**22 + 0.5), 2**22)


@lru_cache(maxsize=8)
def canvas_matrices(device: torch.device) -> torch.Tensor:
    """Float (25, 36, 28): entry `size - 16` resizes 28 pixels to `size` and centres them on 36, cropping to 36."""
    matrices = np.zeros((LARGEST - SMALLEST + 1, CANVAS, SIDE))
    for size in range(SMALLEST, LARGEST + 1):
        offset = (CANVAS - size) // 2
        rows = slice(max(-offset, 0), max(-offset, 0) + min(size, CANVAS))
        matrices[size - SMALLEST, max(offset, 0) : max(offset, 0) + min(size, CANVAS)] = resize_matrix(size)[rows]
    return torch.tensor(matrices, dtype=torch.float32, device=device)


@lru_cache(maxsize=8)
def window_basis(device: torch.device) -> torch.Tensor:
    """Float (3, 784): column, row and 1 of every pixel of a 28x28 window; an affine map times this maps the window."""
    pixel = torch.arange(SIDE, dtype=torch.float32)
    return torch.stack([pixel.repeat(SIDE), pixel.repeat_interleave(SIDE), torch.ones(SIDE**2)]).to(device)


def box_radius(sigma: float, number: type = float) -> float:
    """Radius of the box whose threefold blur is Pillow's Gaussian blur, computed in precision `number`.

    Gwosdek et al., "Theoretical Foundations of Gaussian Convolution by Extended Box Filtering" (2011), (7), (11), (14).
    """
    variance = number(sigma * sigma / 3)
    whole = np.floor((number(np.sqrt(12.0 * float(variance) + 1.0)) - 1) / 2)
    part = number((2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2)))
    return number(whole + part)


@lru_cache(maxsize=32)
def box_blur_matrix(sigma: float, device: torch.device) -> torch.Tensor:
    """Float (28, 28): one of the three box passes of `GaussianBlur(sigma)` along a line, edges repeated.

    For boxes of radius below 1 (sigma below 1.4), which spread a pixel to its two neighbours only.
    """
    radius, radius32 = box_radius(sigma), box_radius(sigma, np.float32)
    if not 0 < radius < 1:
        raise ValueError(f"sigma {sigma}: its box has radius {radius:.2f}, which must lie between 0 and 1")
    centre_integer = int(np.float32(2**24) / (2 * radius32 + np.float32(1)))
    integers = np.array([(2**24 - centre_integer) // 2, centre_integer])
    side, centre = as_rounded(np.array([radius, 1]) / (2 * radius + 1), integers, 2**24)
    matrix = np.zeros((SIDE, SIDE))
    for i in range(SIDE):
        for j, weight in ((i - 1, side), (i, centre), (i + 1, side)):
            matrix[i, min(max(j, 0), SIDE - 1)] += weight
    return torch.tensor(matrix, dtype=torch.float32, device=device)


LINE_ORIGIN = 30  # where the first endpoint lies on the raster of a line; leaves room for 27 pixels and the width
LINE_RASTER = 2 * LINE_ORIGIN + 1


@lru_cache(maxsize=8)
def line_rasters(widest: int, device: torch.device) -> torch.Tensor:
    """Int64 (widest, 55, 55, 61): Pillow's line of width w from the origin to (dx, dy), one bit per pixel.

    Indexed [w - 1, dy + 27, dx + 27]; element r, bit c says that pixel (c - 30, r - 30), relative to the first
    endpoint, belongs to the line. A line keeps its shape when it is moved by whole pixels, so this covers all lines.
    """
    reach = range(1 - SIDE, SIDE)
    bits = 1 << np.arange(LINE_RASTER, dtype=np.int64)
    table = np.zeros((widest, len(reach), len(reach), LINE_RASTER), dtype=np.int64)
    for width in range(1, widest + 1):
        for dy in reach:
            for dx in reach:
                raster = Image.new("L", (LINE_RASTER, LINE_RASTER), 0)
                ends = (LINE_ORIGIN, LINE_ORIGIN, LINE_ORIGIN + dx, LINE_ORIGIN + dy)
                ImageDraw.Draw(raster).line(ends, fill=1, width=width)
                table[width - 1, dy + SIDE - 1, dx + SIDE - 1] = np.asarray(raster) @ bits
    return torch.tensor(table, device=device)
