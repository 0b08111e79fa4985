"""How alike two photographs are: PSNR and SSIM; and how unlike those are that one mask yields.

Both compare pixel by pixel, so they say something of pairs only: a photograph and its reconstruction. A generated
photograph is none of the one its mask came from; there they are no measure of quality.

Shapes: N images (N, 3, H, W) in [-1, 1], K images of one mask.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch.nn import functional as F

RANGE = 2.0  # of the values
WINDOW, SIGMA = 11, 1.5  # pixels, as Wang et al. have them
K1, K2 = 0.01, 0.03


def psnr(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The ratio of peak to noise of each pair, in dB: (N,); infinite for equal ones. Raises ValueError as `ssim`."""
    _check(a, b)
    error_N = (a.double() - b.double()).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(RANGE**2 / error_N)


def ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Structural similarity of each pair (Wang et al. 2004, IEEE TIP 13:600): (N,), at most 1.

    Mean over colours and over the places where the Gaussian window lies within the image.

    Raises ValueError for images of other shapes, or smaller than the window.
    """
    _check(a, b)
    if min(a.shape[2:]) < WINDOW:
        raise ValueError(f"image size: {a.shape[2]} x {a.shape[3]}; SSIM needs {WINDOW} pixels at least")
    a, b = a.double() + 1, b.double() + 1  # light begins at 0; variances are differences of large numbers
    mean_a, mean_b = _around(a), _around(b)
    var_a, var_b = _around(a * a) - mean_a**2, _around(b * b) - mean_b**2
    covariance = _around(a * b) - mean_a * mean_b
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    light = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return (light * structure).mean(dim=(1, 2, 3))


class Diversity(NamedTuple):
    """Of images of one mask, the mean over all pairs."""

    dissimilarity: float  # 1 - SSIM
    difference: float  # root mean square, in units of the range [-1, 1]


def diversity(images_K: torch.Tensor) -> Diversity:
    """How much images (K, 3, H, W) of one mask differ: 0 where the generator gives the same one each time.

    Raises ValueError for fewer than two.
    """
    count = len(images_K)
    if count < 2:
        raise ValueError(f"samples per mask: {count}; diversity needs two at least")
    apart, unlike = 0.0, 0.0
    for k in range(1, count):
        one, others = images_K[k : k + 1].expand(k, -1, -1, -1), images_K[:k]
        apart += (one.double() - others.double()).square().mean(dim=(1, 2, 3)).sqrt().sum().item()
        unlike += (1 - ssim(one, others)).sum().item()
    pairs = math.comb(count, 2)
    return Diversity(unlike / pairs, apart / pairs)


def _around(x: torch.Tensor) -> torch.Tensor:
    """Gaussian mean around each place whose window lies within: (N, 3, H - 10, W - 10)."""
    offset = torch.arange(WINDOW, device=x.device, dtype=x.dtype) - WINDOW // 2
    weight = torch.exp(-(offset**2) / (2 * SIGMA**2))
    weight = (weight / weight.sum()).expand(x.shape[1], 1, 1, WINDOW)
    x = F.conv2d(x, weight, groups=x.shape[1])
    return F.conv2d(x, weight.transpose(2, 3), groups=x.shape[1])


def _check(a: torch.Tensor, b: torch.Tensor) -> None:
    if a.shape != b.shape or a.ndim != 4:
        raise ValueError(f"images of shapes {tuple(a.shape)} and {tuple(b.shape)}; must be the same (N, 3, H, W)")
