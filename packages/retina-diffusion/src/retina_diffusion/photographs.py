"""Photographs of a prepared set as batches.

Shapes: B photographs of H x W pixels, M mask channels, C channels of h x w latents, L tokens, S words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.data import Dataset

from retina_diffusion import masks, moves
from retina_diffusion.brightness import light
from retina_diffusion.channels import CHANNELS
from retina_diffusion.latentstore import LatentStore
from retina_diffusion.model import Condition
from retina_diffusion.model_config import Augment
from retina_diffusion.store import Store

Batch = dict[str, torch.Tensor]
Encode = Callable[[str], dict[str, torch.Tensor]]  # a text -> its part of a sample
SHARED = ("silent", "heard")  # the same in all samples
PICTURES = ("image", "latent", "mask")


class Photographs(Dataset[Batch]):
    """Some rows of a prepared set: ``image`` (3, H, W), ``mask`` (M, H, W) uint8, ``known`` (M,), and the caption.

    Those with latents have ``latent`` (C, h, w) float32 in place of the image.
    """

    def __init__(
        self,
        store: Store,
        rows: Sequence[dict[str, Any]],
        encode: Encode,
        augment: Augment | None = None,
        latents: LatentStore | None = None,
    ) -> None:
        self.store, self.rows, self.encode, self.augment, self.latents = store, rows, encode, augment, latents

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        row = self.rows[index]
        seen = self._image(row) if self.latents is None else self._latent(self.latents, row)
        return {**seen, "known": known_of(row), **self.encode(row["text"])}

    def _image(self, row: dict[str, Any]) -> Batch:
        image, mask = self.store.read(*row["place"])
        if self.augment is not None:
            image, mask = moves.changed(image, mask, self.augment)
        return {"image": image, "mask": mask}

    def _latent(self, latents: LatentStore, row: dict[str, Any]) -> Batch:
        mirrored = self.augment is not None and moves.mirrors(self.augment)
        mask = self.store.mask(*row["place"])
        mask = mask.flip(-1) if mirrored else mask
        return {"latent": latents.read(*row["place"], mirrored), "mask": mask}


def known_of(row: dict[str, Any]) -> torch.Tensor:
    """(M,) True for the channels that were looked for in a photograph."""
    return torch.tensor([name in row["known"] for name in CHANNELS])


class Collate:
    """Samples to a batch; images of several sizes are padded, right and bottom, and ``there`` (B, L) says so."""

    def __init__(self, token: int) -> None:
        self.token = token  # pixels of a token's side

    def __call__(self, samples: Sequence[Batch]) -> Batch:
        batch = {name: self._together(name, [sample[name] for sample in samples]) for name in samples[0]}
        sizes, (height, width) = [sample["mask"].shape[-2:] for sample in samples], batch["mask"].shape[-2:]
        if len(set(sizes)) > 1:
            batch["there"] = torch.stack([there(*size, height, width, self.token) for size in sizes])
        return batch

    def _together(self, name: str, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        if name in SHARED:
            return tensors[0][None]
        if name in PICTURES:
            height, width = (max(tensor.shape[axis] for tensor in tensors) for axis in (-2, -1))
            tensors = [_padded(tensor, height, width) for tensor in tensors]
        return torch.stack(list(tensors))


def there(height: int, width: int, padded_height: int, padded_width: int, token: int) -> torch.Tensor:
    """(L,) True for the tokens of an image that has been padded."""
    found = torch.zeros(padded_height // token, padded_width // token, dtype=torch.bool)
    found[: height // token, : width // token] = True
    return found.flatten()


def _padded(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))


def targets(batch: Batch) -> torch.Tensor:
    """What is generated: images (B, 3, H, W) in [-1, 1], or latents (B, C, h, w)."""
    return batch["latent"] if "latent" in batch else light(batch["image"])


def condition(batch: Batch, channels: Sequence[str], reduce: int = 1) -> Condition:
    """What the images of a batch are to show.

    Args:
        channels: which of `CHANNELS` the network sees.
        reduce: masks are pooled by so much, to the size of latents.
    """
    chosen = [CHANNELS.index(name) for name in channels]
    mask_BMHW = batch["mask"][:, chosen].float() / 255
    if reduce > 1:
        mask_BMHW = masks.pooled_batch(mask_BMHW, reduce)
    return Condition(
        mask_BMHW,
        batch["known"][:, chosen],
        words_BS=batch.get("words"),
        features_BSD=batch.get("features"),
        said_BS=batch.get("said"),
        silent_SD=None if "silent" not in batch else batch["silent"][0],
        heard_S=None if "heard" not in batch else batch["heard"][0],
        there_BL=batch.get("there"),
    )


def sizes(there_BL: torch.Tensor | None, batch: int, patch: int, height: int, width: int) -> list[tuple[int, int]]:
    """(h, w) of each of some images that are padded to a common size, in what is generated, as are `patch` and all."""
    if there_BL is None:
        return [(height, width)] * batch
    grid = there_BL.view(batch, height // patch, width // patch)
    return [(int(one[:, 0].sum()) * patch, int(one[0].sum()) * patch) for one in grid]


def there_pixels(batch: Batch, token: int, height: int, width: int) -> torch.Tensor | None:
    """(B, H, W) 1 where there is an image; None where that is everywhere. `token`: of a side, in these pixels."""
    if "there" not in batch:
        return None
    found = batch["there"].view(-1, 1, height // token, width // token).float()
    return F.interpolate(found, (height, width), mode="nearest")[:, 0]
