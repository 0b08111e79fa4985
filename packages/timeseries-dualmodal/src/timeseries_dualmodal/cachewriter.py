"""Draws the pictures of the multi-scale cache (`imagecache`), or as PNG files to look at.

Work is done in pieces: some series at one scale. What is finished of an interrupted cache is checked and kept.
``drawing.json`` says, until ``metadata.json`` does, what a folder is about to hold.

Shapes: N series, V variables, T steps, H = W = size.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from shared_core import files, progress
from shared_core.errors import UserError
from timeseries_dualmodal import imagecache, shards
from timeseries_dualmodal.plots import Plots, colours

RECORD = "drawing.json"
PICTURES_PER_SHARD = 2048
PIXELS_AT_A_TIME = 2**23  # of a worker
SAMPLE = 3000  # pictures of each scale that tell how much disk all of them take
BLOCK = 4096  # bytes: what a file system gives to a file is a multiple of it
Kind = Literal["packed", "png"]


@dataclass(frozen=True)
class _Piece:
    """Some series at one scale."""

    scale: int
    number: int
    first: int
    stop: int


def check_scales(scales: Sequence[int], steps: int) -> None:
    """Raises UserError unless the scales ascend from at least 1 to at most the number of steps."""
    if not scales:
        raise UserError("--scales: names none; give lengths such as 3,6,9")
    if list(scales) != sorted(set(scales)):
        raise UserError(f"--scales {','.join(map(str, scales))}: must ascend; sort them, each once")
    if scales[0] < 1:
        raise UserError(f"--scales: {scales[0]} is less than one step; leave it out")
    if scales[-1] > steps:
        raise UserError(f"--scales: {scales[-1]} is beyond the {steps} steps of the series; leave it out")


def estimate(plots: Plots, x_NVT: NDArray[np.float32], scales: Sequence[int], kind: Kind = "packed") -> int:
    """About how many bytes of disk the pictures of all series take, found by drawing some of them."""
    series, variables, _ = x_NVT.shape
    sample = min(series, max(1, SAMPLE // variables))
    rows = np.linspace(0, series - 1, sample).round().astype(int) if series else np.arange(0)
    some = torch.from_numpy(x_NVT[rows])
    total, palette = 0.0, _palettes(1)[0]
    for scale in scales:
        for picture_BVHW in _drawn(plots, some, scale):
            if kind == "png":
                planes = picture_BVHW.reshape(-1, plots.size, plots.size)
                total += sum(-(-len(_png(plane, palette, 64 * "0")) // BLOCK) * BLOCK for plane in planes)
            else:
                end_K, _ = _packed(picture_BVHW)
                total += end_K[-1] + 4 * len(end_K)
    return round(total * series / max(sample, 1))


def write(
    folder: Path,
    plots: Plots,
    x_NVT: NDArray[np.float32],
    scales: Sequence[int],
    fingerprint: str,
    workers: int | None = None,
    limit_bytes: int | None = None,
    kind: Kind = "packed",
    bar: bool = True,
    fitted: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Draw every variable of every series at each scale into `folder`, or what is missing there.

    Scales that the folder already holds of the same pictures stay.

    Args:
        fingerprint: of the prepared set that the series are.
        workers: threads; default: the cores.
        limit_bytes: of the disk that all of them may take.
        kind: packed, which `imagecache.open_cache` reads; or png, ``time_3/sample_0_variate_0.png`` ...
        fitted: as in `imagecache.description`.

    Returns:
        The metadata.

    Raises:
        UserError: unusable scales; more disk is needed than there is or than the limit allows; the folder holds
            pictures that are not ours; the disk is full.
    """
    folder = Path(folder)
    check_scales(scales, x_NVT.shape[2])
    about = {**imagecache.description(plots, fingerprint, fitted), "kind": kind}
    scales = tuple(sorted({*scales, *_held(folder, about)}))
    needed = estimate(plots, x_NVT, scales, kind)
    if limit_bytes is not None and needed > limit_bytes:
        raise UserError(
            f"{folder}: the pictures need about {_amount(needed)}, more than --limit-disk {_amount(limit_bytes)}; "
            "draw fewer scales (--quick, --scales) or raise the limit"
        )
    pieces = _pieces(x_NVT, scales)
    files.require_space(folder, needed - _bytes_there(folder, pieces, kind, x_NVT.shape[1]), "the cache of pictures")
    files.atomic_write(folder / RECORD, json.dumps({**about, "scales": scales}))
    (folder / imagecache.METADATA).unlink(missing_ok=True)
    _tidy(folder, {path for piece in pieces for path in _paths(folder, piece, kind, x_NVT.shape[1])})
    sizes = _finish_all(pieces, _Painter(folder, plots, torch.from_numpy(x_NVT), about), workers, bar)
    metadata = {
        **about,
        "scales": scales,
        "series": x_NVT.shape[0],
        "variables": x_NVT.shape[1],
        "rows_per_shard": _rows_per_shard(x_NVT),
        "pictures": x_NVT.shape[0] * x_NVT.shape[1] * len(scales),
        "bytes": sizes,
        "versions": {name: version(name) for name in ("numba", "numpy", "torch")},
    }
    files.atomic_write(folder / imagecache.METADATA, json.dumps(metadata, indent=1) + "\n")
    (folder / RECORD).unlink()
    return metadata


def _amount(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.3g} MB"


# What is there already


def _held(folder: Path, about: dict[str, Any]) -> tuple[int, ...]:
    """The scales of the same pictures that a folder holds, finished or not. Raises UserError where it is another's."""
    known = _read_record(folder)
    if known is None:
        with contextlib.suppress(UserError):  # damaged, hence not current
            known = imagecache.read_metadata(folder)
        if known is None and not (folder / imagecache.METADATA).exists():
            strangers = sorted(path.name for path in folder.glob("time_*")) if folder.is_dir() else []
            if strangers:
                raise UserError(f"{folder}: holds {strangers[0]}, which `prepare` did not draw; choose another folder")
            return ()
    reasons = ["its metadata is damaged"] if known is None else imagecache.differences(known, about)
    if known is not None and known.get("kind") != about["kind"]:
        reasons.append(f"as {known.get('kind')}")
    if known is None or reasons:
        progress.message(f"{folder}: draws again what was drawn {', '.join(reasons)}")
        return ()
    return tuple(scale for scale in known["scales"] if imagecache.place(folder, scale).is_dir())


def _read_record(folder: Path) -> dict[str, Any] | None:
    try:
        content = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _tidy(folder: Path, wanted: set[Path]) -> None:
    """Remove pictures that are no part of the cache, and what a kill left in the middle of a write."""
    for pattern in ("shard_*.pics", "sample_*_variate_*.png", ".shard_*.tmp-*", ".sample_*.tmp"):
        for path in folder.glob(f"time_*/{pattern}"):
            if path not in wanted:
                path.unlink()
    for path in folder.glob("time_*"):
        with contextlib.suppress(OSError):  # something else is in it
            path.rmdir()


# Pieces of work


def _rows_per_shard(x_NVT: NDArray[np.float32]) -> int:
    return max(1, PICTURES_PER_SHARD // x_NVT.shape[1])


def _pieces(x_NVT: NDArray[np.float32], scales: Sequence[int]) -> list[_Piece]:
    rows, series = _rows_per_shard(x_NVT), len(x_NVT)
    return [
        _Piece(scale, number, first, min(first + rows, series))
        for scale in scales
        for number, first in enumerate(range(0, series, rows))
    ]


def _paths(folder: Path, piece: _Piece, kind: Kind, variables: int) -> list[Path]:
    if kind == "packed":
        return [imagecache.shard_path(folder, piece.scale, piece.number)]
    home = imagecache.place(folder, piece.scale)
    return [home / f"sample_{i}_variate_{v}.png" for i in range(piece.first, piece.stop) for v in range(variables)]


def _bytes_there(folder: Path, pieces: list[_Piece], kind: Kind, variables: int) -> int:
    paths = (path for piece in pieces for path in _paths(folder, piece, kind, variables))
    return sum(path.stat().st_size for path in paths if path.is_file())


def _finish_all(pieces: list[_Piece], painter: _Painter, workers: int | None, bar: bool) -> dict[str, int]:
    """Bytes by scale, once all pieces are there."""
    sizes: dict[str, int] = {}
    total = sum(piece.stop - piece.first for piece in pieces) * painter.x_NVT.shape[1]
    with (
        progress.Bar(total, bar, "drawing", unit="pictures") as line,
        ThreadPoolExecutor(workers or os.cpu_count()) as pool,
    ):
        done, futures = 0, {pool.submit(painter.finish, piece): piece for piece in pieces}
        try:
            for future in as_completed(futures):
                piece = futures[future]
                sizes[str(piece.scale)] = sizes.get(str(piece.scale), 0) + future.result()
                done += (piece.stop - piece.first) * painter.x_NVT.shape[1]
                line.update(done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {str(scale): sizes[str(scale)] for scale in sorted(map(int, sizes))}


@dataclass(frozen=True)
class _Painter:
    """Finishes pieces, from several threads at once."""

    folder: Path
    plots: Plots
    x_NVT: torch.Tensor
    about: dict[str, Any]

    def finish(self, piece: _Piece) -> int:
        """Draw a piece unless it is there and whole; returns its bytes."""
        return self._pack(piece) if self.about["kind"] == "packed" else self._png(piece)

    def _pack(self, piece: _Piece) -> int:
        path = imagecache.shard_path(self.folder, piece.scale, piece.number)
        mark = imagecache.mark(self.about, piece.scale, piece.first)
        with contextlib.suppress(UserError):
            return shards.open_(path, mark).bytes
        ends, data, before = [], [], 0
        for picture_BVHW in _drawn(self.plots, self.x_NVT[piece.first : piece.stop], piece.scale):
            end_K, some = _packed(picture_BVHW)
            ends.append(end_K + before)
            data.append(some)
            before += len(some)
        return shards.write(path, mark, np.concatenate(ends), b"".join(data))

    def _png(self, piece: _Piece) -> int:
        variables, palette = self.x_NVT.shape[1], _palettes(self.x_NVT.shape[1])
        paths = _paths(self.folder, piece, "png", variables)
        mark = imagecache.mark(self.about, piece.scale, piece.first).hex()
        if all(_is_whole(path, mark) for path in paths):
            return sum(path.stat().st_size for path in paths)
        drawn = _drawn(self.plots, self.x_NVT[piece.first : piece.stop], piece.scale)
        planes = (plane for picture_BVHW in drawn for plane in picture_BVHW.reshape(-1, *picture_BVHW.shape[2:]))
        total = 0
        for index, (path, plane) in enumerate(zip(paths, planes, strict=True)):
            png = _png(plane, palette[index % variables], mark)
            _write_quickly(path, png)
            total += len(png)
        return total


def _drawn(plots: Plots, x_NVT: torch.Tensor, scale: int) -> Iterator[NDArray[np.uint8]]:
    """The pictures of some series at one scale, (B, V, H, W) at a time."""
    some = max(1, PIXELS_AT_A_TIME // (x_NVT.shape[1] * plots.size**2))
    for x_BVT in x_NVT[:, :, :scale].split(some):
        yield plots.coverage(x_BVT, torch.full((len(x_BVT),), scale)).numpy()


def _packed(picture_BVHW: NDArray[np.uint8]) -> tuple[NDArray[np.int64], bytes]:
    """Where each picture ends, and all of them in few bytes."""
    from timeseries_dualmodal import coding  # takes a second

    planes = picture_BVHW.reshape(-1, *picture_BVHW.shape[2:])
    data = np.empty(coding.MOST_PER_PIXEL * planes.size + coding.MOST_BESIDES, np.uint8)
    end_K = coding.pack(planes, data)
    return end_K, data[: end_K[-1]].tobytes()


# PNG


def _palettes(variables: int) -> list[bytes]:
    """The colours of 0..255 levels of ink, white to the colour of the variable: red, green, blue of each."""
    ink = np.arange(256)[:, None] / 255
    return [np.rint(255 * (1 - ink * (1 - colour))).astype(np.uint8).tobytes() for colour in colours(variables).numpy()]


def _png(plane: NDArray[np.uint8], palette: bytes, mark: str) -> bytes:
    picture, content, text = Image.fromarray(plane), io.BytesIO(), PngImagePlugin.PngInfo()
    picture.putpalette(palette)
    text.add_text("mark", mark)
    picture.save(content, "PNG", pnginfo=text)
    return content.getvalue()


def _is_whole(path: Path, mark: str) -> bool:
    try:
        with Image.open(path) as picture:
            picture.verify()
            return picture.info.get("mark") == mark
    except (OSError, SyntaxError, ValueError):
        return False


def _write_quickly(path: Path, content: bytes) -> None:
    """Whole or not at all for whoever kills the process; half a million files cannot wait for the disk one by one.

    After a power failure, `_is_whole` tells.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        files.remove(temporary)
        raise files.explain(error, path) from error
