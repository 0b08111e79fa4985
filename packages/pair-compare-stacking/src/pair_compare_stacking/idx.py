"""MNIST's own container: four IDX files, gzipped or not."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared_core.errors import UserError

MAX_BYTES = 2 * 2**30  # unpacked; MNIST's largest has 47 MB


@dataclass(frozen=True)
class Files:
    """Paths of the four files."""

    train_images: Path
    train_labels: Path
    test_images: Path
    test_labels: Path


def find(folder: Path) -> Files | None:
    """The four files in `folder` or where torchvision puts them below it; None where there is none of them.

    Raises UserError where some are there and others are not.
    """
    for place in (folder, folder / "raw", folder / "MNIST" / "raw"):
        wanted = [
            [f"{part}-{what}{separator}idx{ndim}-ubyte{end}" for separator in "-." for end in ("", ".gz")]
            for part in ("train", "t10k")
            for what, ndim in (("images", 3), ("labels", 1))
        ]
        found = [next((place / name for name in names if (place / name).is_file()), None) for names in wanted]
        if not any(found):
            continue
        missing = [names[0] for names, path in zip(wanted, found, strict=True) if path is None]
        if missing:
            raise UserError(f"{place}: {', '.join(missing)} (or .gz) is missing: the four IDX files go together")
        return Files(*(path for path in found if path is not None))
    return None


def read(path: Path, ndim: int) -> np.ndarray:
    """A uint8 array of `ndim` dimensions.

    Raises UserError for anything but a whole IDX file of bytes with that many dimensions.
    """
    data = _bytes(path)
    header = 4 + 4 * ndim
    if len(data) < header or data[:3] != b"\0\0\x08" or data[3] != ndim:
        raise UserError(f"{path}: no IDX file of bytes with {ndim} dimension(s): download it again")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", ndim, 4))
    expected = header + int(np.prod([int(size) for size in shape], dtype=object))
    if len(data) != expected:
        raise UserError(f"{path}: {len(data)} bytes where its header promises {expected}: download it again")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape).copy()


def _bytes(path: Path) -> bytes:
    """The unpacked content; never more of a gzip bomb than `MAX_BYTES`."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            data: bytes = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}): download it again") from error
    if len(data) > MAX_BYTES:
        raise UserError(f"{path}: unpacks to more than {MAX_BYTES // 2**20} MiB, which no source of digits does")
    return data
