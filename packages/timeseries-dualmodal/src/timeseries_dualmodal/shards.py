"""One file of packed pictures: some series, all their variables, one scale.

The file holds 8 bytes that name the format, a mark (32 bytes) of what the pictures are of, the number of pictures K
(uint32), the length of their data (uint64), the CRC-32 of all that follows, where each picture ends in the data (K
times uint32), and the data (`coding`). All numbers are little-endian.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from shared_core import files
from shared_core.errors import UserError

_HEADER = struct.Struct("<8s32sIQI")
_MAGIC = b"DMPICS01"


@dataclass(frozen=True)
class Shard:
    """An opened file."""

    path: Path
    data: NDArray[np.uint8]  # mapped, not read
    begin_K: NDArray[np.int64]
    end_K: NDArray[np.int64]
    bytes: int  # of the file


def write(path: Path, mark: bytes, end_K: NDArray[np.int64], data: bytes) -> int:
    """Write a whole file, or none; returns its bytes. Raises UserError where the disk is full."""
    ends = end_K.astype("<u4").tobytes()
    checksum = zlib.crc32(data, zlib.crc32(ends))
    content = _HEADER.pack(_MAGIC, mark, len(end_K), len(data), checksum) + ends + data
    files.atomic_write(path, content)
    return len(content)


def check(path: Path, mark: bytes) -> int:
    """Look at a file's header and size only; returns its bytes. Raises UserError where they are wrong."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEADER.size)
        size = path.stat().st_size
    except OSError as error:
        raise files.explain(error, path) from error
    if len(head) < _HEADER.size or head[:8] != _MAGIC:
        raise damaged(path, "is truncated" if _MAGIC.startswith(head[:8]) else "is no file of pictures")
    _, there, count, length, _ = _HEADER.unpack(head)
    if there != mark:
        raise damaged(path, "holds pictures of something else")
    promised = _HEADER.size + 4 * count + length
    if size != promised:
        raise damaged(path, f"is truncated: {size:,} bytes where its header promises {promised:,}")
    return size


def open_(path: Path, mark: bytes) -> Shard:
    """Map a file, every byte of which is checked. Raises UserError where it is damaged."""
    size = check(path, mark)
    try:
        # NumPy's map would keep the file open, and a large cache has more files than a process may have open
        content = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
    except RuntimeError as error:
        raise damaged(path, f"cannot be read ({str(error).splitlines()[0]})") from error
    _, _, count, _, checksum = _HEADER.unpack(content[: _HEADER.size].tobytes())
    rest = content[_HEADER.size :]
    if zlib.crc32(rest.data) != checksum:
        raise damaged(path, "is damaged: its checksum has changed")
    end_K = rest[: 4 * count].view("<u4").astype(np.int64)
    return Shard(path, rest[4 * count :], np.concatenate([[0], end_K[:-1]]), end_K, size)


def damaged(path: Path, what: str) -> UserError:
    """The line for a file that cannot be used."""
    return UserError(f"{path}: {what}; run `dualmodal prepare --images` again, which redraws what is damaged")
