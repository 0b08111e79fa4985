"""Pictures of some prefixes, drawn once and kept: the multi-scale cache.

A folder holds ``time_3/``, ``time_6/``, ... with the pictures of the first 3, 6, ... steps of every series, packed in
files of some series each (`shards`), and ``metadata.json``, which is written last and says what they were drawn from
and how. Each scale can be removed by itself. `cachewriter` writes such a folder.

Shapes: B series, V variables, H = W = size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shared_core import files, progress
from shared_core.errors import UserError
from timeseries_dualmodal import shards
from timeseries_dualmodal.plots import Plots

METADATA = "metadata.json"
FORMAT = 1


def description(plots: Plots, fingerprint: str, fitted: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What pictures depend on, besides their scale; JSON-able.

    Args:
        fingerprint: of the prepared set.
        fitted: what the axes were fitted by, such as the split; to explain other axes with, settings by their keys.
    """
    axes = plots.axes
    return {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "look": {name: getattr(plots, name) for name in ("size", "line_width", "marker", "scaling", "margin", "gaps")},
        "axes": {
            "time": [axes.time_low, axes.time_high],
            "low": np.asarray(axes.low_V, float).tolist(),
            "high": np.asarray(axes.high_V, float).tolist(),
        },
        "times": np.asarray(plots.times_T, float).tolist(),
        "fitted": dict(fitted or {}),
    }


def differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """In what two descriptions differ, in words; nothing where they agree."""
    if there.get("format") != wanted["format"]:
        return ["by another version"]
    found = []
    if there.get("fingerprint") != wanted["fingerprint"]:
        found.append("from another prepared set")
    look = there.get("look", {})
    found += [
        f"with {name} {look.get(name)} instead of {value}"
        for name, value in wanted["look"].items()
        if look.get(name) != value
    ]
    if any(there.get(name) != wanted[name] for name in ("axes", "times")):
        found.append(_other_axes(there.get("fitted", {}), wanted["fitted"]))
    return found


def _other_axes(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """With what they were fitted with, where that is another split, say; else the series themselves are others."""
    changed = [f"{key} {there.get(key)} instead of {value}" for key, value in wanted.items() if there.get(key) != value]
    return f"on axes fitted with {', '.join(changed)}" if changed else "on other axes"


def mark(about: Mapping[str, Any], scale: int, first: int) -> bytes:
    """Names the pictures of one file: SHA-256 of their description, their scale and their first series."""
    parts = [{name: about[name] for name in ("format", "fingerprint", "look", "axes", "times")}, scale, first]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()


def place(folder: Path, scale: int) -> Path:
    """The folder of a scale."""
    return folder / f"time_{scale}"


def shard_path(folder: Path, scale: int, number: int) -> Path:
    """The file of the series from `number` times `rows_per_shard` on."""
    return place(folder, scale) / f"shard_{number:05d}.pics"


def read_metadata(folder: Path) -> dict[str, Any] | None:
    """None where there is none. Raises UserError where it cannot be read."""
    path = folder / METADATA
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise files.explain(error, path) from error
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path}: is damaged; {_again(folder)}")
    return content


def command(folder: Path) -> str:
    """What makes a cache."""
    return f"dualmodal prepare --images --multiscale-cache-dir {folder}"


def _again(folder: Path) -> str:
    return f"draw it again with `{command(folder)}` and the configuration of the training"


@dataclass
class ImageCache:
    """The pictures of every series of a prepared set, at some lengths of the prefix."""

    folder: Path
    about: dict[str, Any]  # metadata.json
    scales: tuple[int, ...]  # those that are there, ascending
    _open: dict[tuple[int, int], shards.Shard] = field(default_factory=dict, repr=False)

    @property
    def largest(self) -> int:
        """The largest scale; a longer prefix has no picture here that shows all of it."""
        return self.scales[-1]

    def read_into(self, picture_NVHW: torch.Tensor, place_B: torch.Tensor, rows_B: torch.Tensor, scale: int) -> None:
        """Write the pictures of some series, as `Plots.coverage` draws them, into `picture_NVHW[place_B]`.

        Args:
            picture_NVHW: uint8, contiguous, on the CPU.
            rows_B: numbers of series in the prepared set.

        Raises:
            ValueError: there is no such series or scale.
            UserError: a file is damaged, or was removed by now.
        """
        rows, place, variables = rows_B.numpy(), place_B.numpy(), self.about["variables"]
        if rows.size and not (rows.min() >= 0 and rows.max() < self.about["series"]):
            raise ValueError(f"series outside 0..{self.about['series'] - 1}")
        if scale not in self.scales:
            raise ValueError(f"scale {scale}: the cache has {', '.join(map(str, self.scales))}")
        number_B, within_B = np.divmod(rows, self.about["rows_per_shard"])
        planes = picture_NVHW.view(-1, *picture_NVHW.shape[2:]).numpy()
        for number in np.unique(number_B).tolist():
            some = np.flatnonzero(number_B == number)
            index, places = (
                (first[some, None] * variables + np.arange(variables)).ravel() for first in (within_B, place)
            )
            _unpack(self._shard(scale, number), index, places, planes)

    def _shard(self, scale: int, number: int) -> shards.Shard:
        if (scale, number) not in self._open:
            first = number * self.about["rows_per_shard"]
            path = shard_path(self.folder, scale, number)
            self._open[scale, number] = shards.open_(path, mark(self.about, scale, first))
        return self._open[scale, number]


def _unpack(
    shard: shards.Shard, index_K: NDArray[np.int64], place_K: NDArray[np.int64], picture_NHW: NDArray[np.uint8]
) -> None:
    from timeseries_dualmodal import coding  # takes a second

    if not coding.unpack(shard.data, shard.begin_K[index_K], shard.end_K[index_K], place_K, picture_NHW):
        raise shards.damaged(shard.path, "is damaged")


def open_cache(folder: Path, fingerprint: str, plots: Plots, fitted: Mapping[str, Any] | None = None) -> ImageCache:
    """The cache in `folder`, if it holds the pictures that `plots` would draw of the set with this fingerprint.

    A scale whose folder was removed is left out, with a message. `fitted` is as in `description`.

    Raises:
        UserError: the folder is missing, unfinished, of another set, drawn differently, or of PNG files; a file of it
            is missing or truncated; no scale is left.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder of pictures; make it with `{command(folder)}`")
    about = read_metadata(folder)
    if about is None:
        raise UserError(f"{folder}: holds no finished cache of pictures ({METADATA} is missing); {_again(folder)}")
    reasons = differences(about, description(plots, fingerprint, fitted))
    if reasons:
        raise UserError(f"{folder}: the pictures were drawn {', '.join(reasons)}; {_again(folder)}")
    if not about.keys() >= {"scales", "kind", "series", "rows_per_shard"}:
        raise UserError(f"{folder / METADATA}: is damaged; {_again(folder)}")
    if about["kind"] != "packed":
        raise UserError(f"{folder}: holds PNG files, which are to be looked at; {_again(folder)}")
    scales = tuple(scale for scale in about["scales"] if place(folder, scale).is_dir())
    removed = [f"time_{scale}" for scale in about["scales"] if scale not in scales]
    if not scales:
        raise UserError(f"{folder}: all its scales were removed ({', '.join(removed)}); {_again(folder)}")
    if removed:
        left = ", ".join(map(str, scales))
        progress.message(f"{folder}: goes on without {', '.join(removed)}, which was removed; scales left: {left}")
    for scale in scales:
        for number, first in enumerate(range(0, about["series"], about["rows_per_shard"])):
            path = shard_path(folder, scale, number)
            if not path.is_file():
                raise UserError(f"{path}: no such file; {_again(folder)}")
            shards.check(path, mark(about, scale, first))
    return ImageCache(folder, about, scales)
