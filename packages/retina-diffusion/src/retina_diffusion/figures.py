"""Figures of an evaluation.

Shapes: N photographs, R images of each mask, M channels, H x W pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from retina_diffusion import drawings
from retina_diffusion.brightness import bytes_of
from retina_diffusion.judged import Real
from retina_diffusion.memorisation import Memorisation
from shared_core import figures

EXAMPLES, IMAGES, PAIRS = 5, 2, 5


def samples(masked: Real, drawn: torch.Tensor, seen: torch.Tensor, each: int, split: str, folder: Path) -> Path:
    """Of some masks with many classes: their photograph, images, and what the segmenter sees in the first of these.

    `drawn`: (N R, 3, H, W) bytes.
    """
    order = sorted(range(len(masked.rows)), key=lambda row: -len(masked.rows[row]["present"]))
    rows = order[: max(1, len(order) // 2)][:: max(1, len(order) // 2 // EXAMPLES)][:EXAMPLES]
    columns = []
    for row in rows:
        known = masked.known[row : row + 1]
        first = row * each
        columns.append(
            [
                ("masks", drawings.coloured(masked.covered[row : row + 1] / 255, known)[0]),
                ("photograph", masked.pixels[row]),
                *((f"image {k + 1}", drawn[first + k]) for k in range(min(IMAGES, each))),
                ("seen in image 1", drawings.coloured(seen[first : first + 1], known)[0]),
            ]
        )
    pictures = [column[line] for line in range(len(columns[0])) for column in columns]
    return figures.image_grid(
        [_picture(image) for _, image in pictures],
        [name for name, _ in pictures],
        folder / f"{split}_samples.png",
        columns=len(rows),
        title=f"Images of masks of {split}",
        caption="Masks: optic disc blue, haemorrhages purple, hard exudates yellow, soft exudates white, "
        "microaneurysms red, vessels green. The photograph is the one that has these masks; the model never saw it.",
    )


def closest(found: Memorisation, drawn: torch.Tensor, training: torch.Tensor, path: Path, of: str) -> Path:
    """The images that are most like a training photograph, above it; both are bytes. `of`: what images these are."""
    rows = [int(row) for row in found.closest[:PAIRS]]
    above = [(f"image: {found.nearest.ratio[row]:.2f}", drawn[row]) for row in rows]
    below = [("nearest", training[int(found.nearest.index[row])]) for row in rows]
    return figures.image_grid(
        [_picture(image) for _, image in above + below],
        [name for name, _ in above + below],
        path,
        columns=len(rows),
        title=f"The images nearest to a training photograph, of {of}",
        caption="Below each the training photograph. The number is the ratio of the distances to it and to the next "
        f"ones: 0 for a copy. Below {found.limit:.2f}, as 1 % of other real photographs are, it counts as memorised.",
    )


def _picture(image: torch.Tensor) -> np.ndarray:
    """(H, W, 3) uint8 of (3, H, W), bytes or in [-1, 1]."""
    return (image if image.dtype == torch.uint8 else bytes_of(image)).permute(1, 2, 0).numpy()
