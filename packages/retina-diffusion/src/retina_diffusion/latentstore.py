"""The latents of a prepared set, computed once and kept beside its photographs.

``latents-NAME/latents-K.safetensors`` holds those of the K-th file of photographs, by their places in it, and
``mirrored-K`` those of the mirrored photographs, which mirroring latents would not give. NAME stands for the VAE.

Shapes: C channels, h x w places.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from retina_diffusion import kept, store
from retina_diffusion.brightness import light
from retina_diffusion.latents import Autoencoder
from retina_diffusion.store import Store
from shared_core import progress

AT_A_TIME = 64  # photographs of one size that are read before they are encoded
Photographs = list[tuple[int, torch.Tensor]]  # places and images


class LatentStore:
    """Latents by file and place of the photograph."""

    def __init__(self) -> None:
        self.mark, self.folder = "", Path()
        self._pretended: dict[tuple[int, int], tuple[int, int, int]] | None = None
        self._reader = kept.Reader()

    def open(self, folder: Path, photographs: str, network: str) -> None:
        """Take those of a prepared set with this fingerprint, by the VAE of that version."""
        self.mark = f"{photographs} {network}"
        self.folder = folder / f"latents-{hashlib.sha256(network.encode()).hexdigest()[:12]}"

    def pretend(self, rows: Sequence[dict[str, Any]], channels: int, factor: int) -> None:
        """Let latents be noise, for plans: nothing is computed for them."""
        self._pretended = {
            (row["place"][0], row["place"][1]): (channels, row["size"][0] // factor, row["size"][1] // factor)
            for row in rows
        }

    def read(self, number: int, place: int, mirrored: bool = False) -> torch.Tensor:
        """(C, h, w). Raises UserError where the file is missing or damaged."""
        if self._pretended is not None:
            return torch.randn(self._pretended[number, place])
        return self._reader.read(self._path(number, mirrored), str(place))

    def missing(
        self, rows: Sequence[dict[str, Any]], mirrored: bool, share: slice = slice(None)
    ) -> list[tuple[int, bool]]:
        """The files, (number, whether mirrored), that rows need and that are not there, or damaged.

        Args:
            mirrored: whether these are needed as well.
            share: of all of them, whose processes look for theirs.
        """
        places = _places(rows)
        wanted = [(number, kind) for number in places for kind in ((False, True) if mirrored else (False,))]
        return [
            (number, kind)
            for number, kind in wanted[share]
            if not kept.names(self._path(number, kind), self.mark) >= set(map(str, places[number]))
        ]

    def make(
        self,
        which: Sequence[tuple[int, bool]],
        vae: Autoencoder,
        photographs: Store,
        rows: Sequence[dict[str, Any]],
        device: torch.device,
        bar: bool = True,
    ) -> None:
        """Compute some files (as `missing` names them); each is there when it is whole.

        Raises UserError where photographs are damaged or the disk is full.
        """
        places = _places(rows)
        total, done = sum(len(places[number]) for number, _ in which), 0
        with progress.Bar(total, bar, "latents", unit="photographs") as shown:
            for number, mirrored in which:
                found: dict[str, torch.Tensor] = {}
                for some in _of_one_size(photographs, number, places[number]):
                    images = light(torch.stack([image for _, image in some]).to(device))
                    latents = vae.encode(images.flip(-1) if mirrored else images).cpu()
                    found |= {str(place): latent for (place, _), latent in zip(some, latents, strict=True)}
                    done += len(some)
                    shown.update(done)
                kept.write(self._path(number, mirrored), self.mark, found)

    def _path(self, number: int, mirrored: bool) -> Path:
        name = store.name(number)
        return self.folder / name.replace("photographs", "mirrored" if mirrored else "latents")


def _places(rows: Sequence[dict[str, Any]]) -> dict[int, list[int]]:
    """File -> places in it."""
    found: dict[int, list[int]] = {}
    for row in rows:
        number, place = row["place"]
        found.setdefault(number, []).append(place)
    return found


def _of_one_size(photographs: Store, number: int, places: Sequence[int]) -> Iterator[Photographs]:
    """(place, image) of one size, some at a time."""
    some: Photographs = []
    for place in places:
        image, _ = photographs.read(number, place)
        if some and (len(some) == AT_A_TIME or some[0][1].shape != image.shape):
            yield some
            some = []
        some.append((place, image))
    if some:
        yield some
