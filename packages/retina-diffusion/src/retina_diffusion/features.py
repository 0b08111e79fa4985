"""Photographs as features, for the distances between sets of them.

Which network looks decides what is seen. `of_segmenter` needs no weights from anywhere: it is the fitted segmenter
that also measures mask fidelity. Its distances compare runs that share that segmenter, and are NOT comparable with the
FID and KID of papers, which use Inception v3. Any other network is given as a function of images, (N, 3, H, W) in
[-1, 1], to features (N, F).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from retina_diffusion.segmenter import Segmenter

Features = Callable[[torch.Tensor], torch.Tensor]


def of_segmenter(segmenter: Segmenter) -> Features:
    """Mean and spread over the photograph of the segmenter's deepest level. Not comparable with Inception's."""
    return segmenter.features


@torch.no_grad()
def extract(features: Features, images: torch.Tensor, batch: int = 64) -> NDArray[np.float64]:
    """The features (N, F) of images, a batch at a time.

    Raises ValueError where the network does not give one row per image.
    """
    found = []
    for part in images.split(batch):
        rows = features(part)
        if rows.ndim != 2 or len(rows) != len(part):
            raise ValueError(f"features: {tuple(rows.shape)} for {len(part)} images; the network must give (N, F)")
        found.append(rows.double().cpu())
    return torch.cat(found).numpy()
