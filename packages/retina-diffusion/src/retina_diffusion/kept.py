"""Tensors that were computed once and are kept in files: each whole and of what its mark says, or made again."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from shared_core import files, tensorfile
from shared_core.errors import UserError


def write(path: Path, mark: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a file, whole or not at all. Raises UserError where the disk is full."""
    sums = {name: _sum(tensor) for name, tensor in tensors.items()}
    with files.atomic_path(path) as temporary:
        tensorfile.write(temporary, dict(tensors), {"mark": mark, "sums": json.dumps(sums)})


def names(path: Path, mark: str) -> frozenset[str]:
    """The tensors in a file; none where it is not there, damaged, or of another mark. Reads all of it."""
    try:
        with safe_open(path, framework="pt") as stream:
            header = stream.metadata() or {}
            if header.get("mark") != mark:
                return frozenset()
            sums = json.loads(header["sums"])
            if any(_sum(stream.get_tensor(name)) != total for name, total in sums.items()):
                return frozenset()
            return frozenset(sums)
    except (OSError, SafetensorError, AttributeError, KeyError, TypeError, ValueError):
        return frozenset()


def _sum(tensor: torch.Tensor) -> int:
    """CRC-32 of the values."""
    return zlib.crc32(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)


class Reader:
    """Reads single tensors of files, which stay open.

    Args:
        advice: what a user should do about a file that is missing or damaged.
    """

    def __init__(self, advice: str = "start again, and it is computed again") -> None:
        self.advice = advice
        self._open: dict[Path, Any] = {}

    def read(self, path: Path, name: str) -> torch.Tensor:
        """Raises UserError where the file is missing or damaged by now."""
        try:
            if path not in self._open:
                self._open[path] = safe_open(path, framework="pt")
            return self._open[path].get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: is missing or damaged ({error}); {self.advice}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {"advice": self.advice, "_open": {}}  # a loader's worker opens its own
