"""The pixels of a prepared set: safetensors files of some photographs each, read one photograph at a time.

Each file holds ``image.K`` (3, H, W) and ``mask.K`` (M, H, W), uint8, and ``thumbnail`` and ``facts`` of its rows. Its
header says of what set it is, so that an interrupted preparation goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from retina_diffusion import kept
from shared_core import files, tensorfile


@dataclass(frozen=True)
class Framed:
    """A photograph as a network sees it."""

    image: NDArray[np.uint8]  # (3, H, W)
    mask: NDArray[np.uint8]  # (M, H, W) covered shares in 255ths
    thumbnail: NDArray[np.uint8]  # (S, S)
    facts: dict[str, Any]  # what else is known of it, for JSON


def name(number: int) -> str:
    """Of the file with that number."""
    return f"photographs-{number:05d}.safetensors"


def write(path: Path, mark: str, framed: Sequence[Framed]) -> None:
    """Write a file, whole or not at all. Raises UserError where the disk is full."""
    tensors = {f"image.{k}": torch.from_numpy(one.image) for k, one in enumerate(framed)}
    tensors |= {f"mask.{k}": torch.from_numpy(one.mask) for k, one in enumerate(framed)}
    tensors["thumbnail"] = torch.from_numpy(np.stack([one.thumbnail for one in framed]))
    facts = json.dumps([one.facts for one in framed])
    header = {"mark": mark, "facts": facts, "sha256": _sha256({name: x.numpy() for name, x in tensors.items()})}
    with files.atomic_path(path) as temporary:
        tensorfile.write(temporary, tensors, header)


def about(path: Path, mark: str) -> tuple[NDArray[np.uint8], list[dict[str, Any]]] | None:
    """(thumbnails, facts) of a file of the set with this mark; None where it is missing, damaged, or another's."""
    try:
        with safe_open(path, framework="np") as stream:
            header = stream.metadata() or {}
            if header.get("mark") != mark:
                return None
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        if header.get("sha256") != _sha256(tensors):
            return None
        return tensors["thumbnail"], json.loads(header["facts"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def _sha256(tensors: Mapping[str, NDArray[np.uint8]]) -> str:
    """Over all pixels: a file that went bad is made again, not taken over into a set that calls itself whole."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(np.ascontiguousarray(tensors[name]))
    return digest.hexdigest()


class Store:
    """The photographs of a folder's files, by file and place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reader = kept.Reader("run `prepare` again")

    def read(self, number: int, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (3, H, W) and masks (M, H, W), uint8. Raises UserError where the file is missing or damaged."""
        return self._reader.read(self.folder / name(number), f"image.{place}"), self.mask(number, place)

    def mask(self, number: int, place: int) -> torch.Tensor:
        """Masks (M, H, W) alone; raises as `read`."""
        return self._reader.read(self.folder / name(number), f"mask.{place}")
