"""What segmenters see that learned from photographs which the generator never saw.

The segmenter that judges a run learned from the same photographs as the generator, so that images which repeat these
are easy for it. Here the photographs that judge are halved: a segmenter learns from either half, and looks at the
photographs of the other one and at the images that were drawn of their masks.

Shapes: P photographs with masks, N = P R images, R of each; M channels, S x S pixels.
"""

from __future__ import annotations

import numpy as np
import torch

from retina_diffusion import judged, segmenter
from retina_diffusion.judged import Real
from shared_core.seeds import derive


def seen(
    masked: Real, images: torch.Tensor, seed: int, steps: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities of images (N, M, S, S) and of photographs (P, M, S, S), each by the segmenter of the other half.

    Args:
        images: (N, 3, S, S) bytes, those of one mask together.
        steps: of each segmenter's training.
    """
    each, generator = len(images) // len(masked.rows), np.random.default_rng(derive(seed, "halves"))
    halves = np.array_split(generator.permutation(len(masked.rows)), 2)
    of_images = torch.empty(len(images), *masked.covered.shape[1:])
    of_real = torch.empty(masked.covered.shape)
    for learned, looked in (halves, halves[::-1]):
        part = masked.take(learned)
        judge = segmenter.fit(part.image.to(device), part.mask.to(device), part.known.to(device), seed, steps).eval()
        rows = (looked[:, None] * each + np.arange(each)).flatten()
        of_images[rows] = judged.each(judge.probabilities, images[rows], device)
        of_real[looked] = judged.each(judge.probabilities, masked.pixels[looked], device)
    return of_images, of_real
