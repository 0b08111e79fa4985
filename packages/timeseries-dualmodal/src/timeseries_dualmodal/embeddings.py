"""What a frozen vision tower sees in every prefix of every series, computed once and kept.

A folder holds ``embeddings.npy``, float16 (N, L, V, E), one row of which is all that a prefix of a series needs, and
``embeddings.json``, which is written last and says what was seen, by which tower and after which steps. While it is
made, ``embeddings.npy.part`` grows by some series at a time, and ``unfinished.json`` says what it is about to be.

Shapes: N or B series, K prefixes of each, L lengths, V variables, T steps, E features of the tower.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shared_core import files, progress
from shared_core.errors import UserError
from timeseries_dualmodal import imagecache

DATA, MANIFEST, RECORD = "embeddings.npy", "embeddings.json", "unfinished.json"
AT_A_TIME = 4096  # pictures between two writes; a kill loses at most two such blocks
LARGEST = float(np.finfo(np.float16).max)
Embed = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # x (B, V, T), length (B,) -> (B, V, E)


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The embeddings of every series of a prepared set."""

    folder: Path
    lengths: tuple[int, ...]  # ascending
    rows_NLVE: NDArray[np.float16]  # on the disk, read when needed

    def require(self, shortest: int) -> None:
        """Raises UserError where prefixes of so few steps are shorter than all that are there."""
        if shortest < self.lengths[0]:
            raise UserError(
                f"{self.folder}: holds nothing of prefixes of {shortest} steps, the shortest has {self.lengths[0]}; "
                "make it with a smaller scale (--scales), or without --scales for all of them"
            )

    def shown(self, length_BK: torch.Tensor) -> torch.Tensor:
        """The largest lengths that are there and not beyond those asked for, (B, K) on the CPU.

        Raises UserError where one is shorter than all that are there.
        """
        return torch.tensor(self.lengths)[self._index(length_BK)]

    def read(self, row_B: torch.Tensor, length_BK: torch.Tensor) -> torch.Tensor:
        """(B, K, V, E) float32 on the CPU, of the lengths that `shown` gives.

        Args:
            row_B: numbers of series in the prepared set.
        """
        found_BKVE = self.rows_NLVE[row_B.numpy()[:, None], self._index(length_BK).numpy()]
        return torch.from_numpy(np.asarray(found_BKVE, np.float32))

    def _index(self, length_BK: torch.Tensor) -> torch.Tensor:
        self.require(int(length_BK.min()))
        return torch.bucketize(length_BK.contiguous(), torch.tensor(self.lengths), right=True) - 1


class Recalled:
    """Eyes that look up what the tower saw (`sight.Eyes`), at the largest length not beyond the one asked for."""

    def __init__(self, embeddings: Embeddings, row_N: torch.Tensor) -> None:
        """`row_N`: where each series is in the set of the embeddings; `see` is asked for indices into it."""
        self.embeddings, self.row_N = embeddings, row_N

    def see(
        self, x_BVT: torch.Tensor, length_BK: torch.Tensor, row_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The lengths (B, K) that are shown, and (B, K, V, E) in place of pictures, on the series' device."""
        shown_BK = self.embeddings.shown(length_BK.cpu())
        found_BKVE = self.embeddings.read(self.row_N[row_B.cpu()], shown_BK)
        return shown_BK.to(x_BVT.device), found_BKVE.to(x_BVT.device)


def write(
    folder: Path,
    about: Mapping[str, Any],
    x_NVT: NDArray[np.float32],
    lengths: Sequence[int],
    embed: Embed,
    features: int,
    bar: bool = True,
) -> None:
    """Compute the embeddings of all series, or go on where that was interrupted; nothing where they are there.

    Args:
        about: what they depend on: `imagecache.description` of the pictures, and what the tower is under `tower`.
        lengths: after how many steps; ascending, the last one all steps.
        embed: of some series; values that float16 cannot hold become its largest.
        features: E.

    Raises:
        UserError: the disk is full or the folder is not writable.
    """
    folder = Path(folder)
    shape = (len(x_NVT), len(lengths), x_NVT.shape[1], features)
    wanted = json.loads(json.dumps({**about, "lengths": list(lengths), "shape": shape}))
    if _read(folder / MANIFEST) == wanted and _is_whole(folder, shape):
        progress.message(f"{folder}: up to date")
        return
    part, record = folder / f"{DATA}.part", folder / RECORD
    try:
        resumed = _read(record) == wanted and part.is_file()
        folder.mkdir(parents=True, exist_ok=True)
        if not resumed:
            for path in (folder / MANIFEST, folder / DATA, part):
                path.unlink(missing_ok=True)
        there = part.stat().st_size if resumed else 0
        files.require_space(folder, _bytes(shape) - there, "the embeddings")
        files.atomic_write(record, json.dumps(wanted))
        with part.open("r+b" if resumed else "w+b") as stream:
            _fill(stream, shape, x_NVT, lengths, embed, bar)
        os.replace(part, folder / DATA)
        files.atomic_write(folder / MANIFEST, json.dumps(wanted, indent=1) + "\n")
        record.unlink()
    except OSError as error:
        raise files.explain(error, folder) from error


def _fill(
    stream: Any, shape: tuple[int, ...], x_NVT: NDArray[np.float32], lengths: Sequence[int], embed: Embed, bar: bool
) -> None:
    """Write the header, and the series that the file lacks."""
    header = _header(shape)
    per_series = int(np.prod(shape[1:])) * 2
    block = max(1, AT_A_TIME // (shape[1] * shape[2]))
    done = max(0, (stream.seek(0, os.SEEK_END) - len(header)) // (per_series * block) - 1) * block
    stream.seek(0)
    stream.write(header)
    # the last block may have its size already and not its content, after a power failure: it is made again
    stream.truncate(len(header) + done * per_series)
    stream.seek(0, os.SEEK_END)
    pictures = shape[1] * shape[2]
    with progress.Bar(shape[0] * pictures, bar, "embedding", unit="pictures", start=done * pictures) as line:
        for first in range(done, shape[0], block):
            x_BVT = torch.from_numpy(x_NVT[first : first + block])
            each = [embed(x_BVT, torch.full((len(x_BVT),), length)) for length in lengths]
            found_BLVE = torch.stack([one.float().cpu().clamp(-LARGEST, LARGEST) for one in each], dim=1)
            stream.write(found_BLVE.numpy().astype("<f2").tobytes())
            stream.flush()
            os.fsync(stream.fileno())
            line.update((first + len(x_BVT)) * pictures)


def open_embeddings(folder: Path, about: Mapping[str, Any]) -> Embeddings:
    """The embeddings in `folder`, if they are those that are described.

    Raises:
        UserError: the folder is missing, unfinished or truncated, or holds those of another set, tower or look.
    """
    folder = Path(folder)
    again = (
        f"make it with `dualmodal prepare --embeddings --embeddings-dir {folder}` and the configuration of the training"
    )
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder of embeddings; {again}")
    there = _read(folder / MANIFEST)
    if there is None:
        raise UserError(f"{folder}: holds no finished embeddings ({MANIFEST} is missing or damaged); {again}")
    wanted = json.loads(json.dumps(dict(about)))
    reasons = imagecache.differences(there, wanted)
    reasons += [
        f"with {name} {there.get('tower', {}).get(name)} instead of {value}"
        for name, value in wanted["tower"].items()
        if there.get("tower", {}).get(name) != value
    ]
    if reasons:
        raise UserError(f"{folder}: the embeddings were made {', '.join(reasons)}; {again}")
    shape = tuple(there["shape"])
    if not _is_whole(folder, shape):
        raise UserError(f"{folder / DATA}: is missing or truncated; {again}")
    rows_NLVE = np.memmap(folder / DATA, "<f2", "r", offset=len(_header(shape)), shape=shape)
    return Embeddings(folder, tuple(there["lengths"]), rows_NLVE)


def _header(shape: tuple[int, ...]) -> bytes:
    """Of an `.npy` file."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f2", "fortran_order": False, "shape": tuple(shape)})
    return stream.getvalue()


def _bytes(shape: tuple[int, ...]) -> int:
    return len(_header(shape)) + 2 * int(np.prod(shape))


def _is_whole(folder: Path, shape: tuple[int, ...]) -> bool:
    path = folder / DATA
    return path.is_file() and path.stat().st_size == _bytes(shape)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
