"""The cache of pictures of a prepared set: `prepare --images` draws it, training reads it.

Its pictures are drawn as training draws them, on axes fitted to the training series of the configuration's split. They
are of all series of the set, so training says where its own are.

Shapes: N series, V variables, T steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shared_core import prepared
from shared_core.errors import UserError
from shared_core.plan import quantity
from shared_core.progress import message
from timeseries_dualmodal import cachewriter, curriculum, division, imagecache, prepare
from timeseries_dualmodal.config import Config, PrepareOptions
from timeseries_dualmodal.pictures_config import FULL, QUICK, SCALES
from timeseries_dualmodal.plots import Axes, Plots
from timeseries_dualmodal.sight import Cached, Live

FOLDER = "pictures"  # in that of the set, unless the configuration names another


def draw(config: Config, options: PrepareOptions) -> Path:
    """Draw the pictures that the options name of the configuration's prepared set; returns their folder.

    Raises UserError as `prepare.require` and `cachewriter.write`.
    """
    home = prepare.require(config)
    series = prepare.load(home)
    folder = config.pictures.cache or home / FOLDER
    train = series.take(division.divide(series, config.split)["train"])
    plots = Plots(Axes.fit(train.x, train.times, config.pictures.tail), train.times, **config.pictures.look)
    metadata = cachewriter.write(
        folder,
        plots,
        series.x,
        scales(options, series.steps),
        _fingerprint(home),
        workers=options.workers,
        limit_bytes=options.limit_disk,
        kind=options.format,
        bar=config.logging.progress,
        fitted=_fitted(config),
    )
    size, drawn = config.pictures.size, ", ".join(map(str, metadata["scales"]))
    message(
        f"{folder}: {metadata['pictures']:,} pictures of {size} x {size} pixels, after {drawn} steps; "
        f"{quantity(sum(metadata['bytes'].values()), 'B')}"
    )
    return folder


def scales(options: PrepareOptions, steps: int) -> tuple[int, ...]:
    """The scales that the options name; the named sets without what is beyond a series of so many steps."""
    if options.scales:
        return options.scales
    if options.full:
        return (*(scale for scale in FULL if scale < steps), steps)
    return tuple(scale for scale in (QUICK if options.quick else SCALES) if scale <= steps) or (steps,)


def eyes(config: Config, live: Live, row_N: NDArray[np.int64]) -> Live | Cached:
    """What shows pictures to training: `live`, or the cache that the configuration names.

    Args:
        live: draws the pictures of this configuration.
        row_N: the rows of the training series in the prepared set.

    Raises:
        UserError: the cache cannot be used (`imagecache.open_cache`), or does not have what training would ask for.
    """
    folder = config.pictures.cache
    if folder is None:
        return live
    _refuse_changes(config)
    cache = imagecache.open_cache(folder, _fingerprint(prepare.require(config)), live.plots, _fitted(config))
    cached = Cached(cache, torch.from_numpy(row_N), live, config.pictures.beyond)
    steps, wanted = len(live.plots.times_T), config.curriculum
    stages = [curriculum.stage_of(wanted, epoch) for epoch in range(config.training.epochs)]
    cached.require(max(curriculum.bounds(stage, steps)[1] for stage in stages))
    return cached


def plan_note(plots: Plots, x_NVT: NDArray[np.float32]) -> str:
    """What a cache of these series at the default scales would take."""
    default = scales(PrepareOptions(images=True), x_NVT.shape[2])
    needed = quantity(cachewriter.estimate(plots, x_NVT, default), "B")
    after = ", ".join(map(str, default))
    return f"pictures are drawn when needed; cached after {after} steps (`prepare --images`) they would take {needed}"


def _fingerprint(home: Path) -> str:
    return str(prepared.read_manifest(home)["fingerprint"])


def _fitted(config: Config) -> dict[str, Any]:
    """The settings that choose the training series and fit the axes to them, by their keys."""
    split = {f"split.{name}": value for name, value in config.split.model_dump(mode="json").items()}
    return {**split, "pictures.tail": config.pictures.tail}


def _refuse_changes(config: Config) -> None:
    """Augmented series would be read as they are augmented and seen as they were drawn."""
    changed = [name for name, value in config.augment.model_dump().items() if value]
    if changed:
        named = ", ".join(f"augment.{name}" for name in changed)
        off = " ".join(f"--augment.{name} 0" for name in changed)
        raise UserError(
            f"pictures.cache: {named} would not reach pictures from a cache; set {off}, or leave out "
            "--multiscale-cache-dir"
        )
