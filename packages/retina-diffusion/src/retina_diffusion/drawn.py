"""Images that a model draws like real photographs, of their masks and texts.

Shapes: N photographs, R images of each; S x S pixels as they are judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from retina_diffusion import judged, photographs
from retina_diffusion.brightness import bytes_of
from retina_diffusion.photographs import Batch
from retina_diffusion.store import Store
from retina_diffusion.subject import Trained
from shared_core.progress import Bar

Row = dict[str, Any]


@torch.no_grad()
def draw(who: Trained, store: Store, rows: Sequence[Row], each: int, seed: int, size: int, what: str) -> torch.Tensor:
    """(N R, 3, S, S) bytes: R images of the first row of a prepared set, R of the second, ...

    Each is drawn at its photograph's own size, and then fitted into S x S as that is.

    Args:
        seed: of the noise, with the image's number.
        size: S.
        what: for the progress bar.
    """
    wanted, total = who.config.sampling, len(rows) * each
    who.hear(row["text"] for row in rows)
    found = torch.empty(total, 3, size, size, dtype=torch.uint8)
    done = 0
    with Bar(total, who.config.logging.progress, what, unit="images") as bar:
        for same in _of_one_size(rows):
            numbers = [row * each + k for row in same for k in range(each)]
            for start in range(0, len(numbers), wanted.batch_size):
                part = numbers[start : start + wanted.batch_size]
                asked = [_sample(who, store, rows[number // each]) for number in part]
                images = who.draw(who.condition(asked), part, seed, wanted).x_B
                for number, image in zip(part, images, strict=True):
                    found[number] = judged.fitted(bytes_of(image), size)
                done += len(part)
                bar.update(done)
    return found


def _of_one_size(rows: Sequence[Row]) -> list[list[int]]:
    """Their numbers, apart by the photographs' size."""
    found: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(rows):
        found.setdefault(tuple(row["size"]), []).append(number)
    return list(found.values())


def _sample(who: Trained, store: Store, row: Row) -> Batch:
    mask = store.mask(*row["place"])
    image = torch.zeros(3, *mask.shape[1:], dtype=torch.uint8)
    return who.sample(image, mask, photographs.known_of(row), row["text"])
