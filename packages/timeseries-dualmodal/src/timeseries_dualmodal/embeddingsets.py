"""The embeddings of a prepared set: `prepare --embeddings` makes them with the configuration's frozen tower, training
and its validation read them.

Shapes: N series, V variables, T steps, E features of the tower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shared_core import prepared
from shared_core.errors import UserError
from shared_core.plan import quantity
from shared_core.progress import message
from timeseries_dualmodal import cachewriter, curriculum, embeddings, imagecache, prepare
from timeseries_dualmodal.config import Config
from timeseries_dualmodal.embeddings import Recalled
from timeseries_dualmodal.hubvision import HubVision
from timeseries_dualmodal.members import Members
from timeseries_dualmodal.plots import Plots
from timeseries_dualmodal.sight import Live

FOLDER = "embeddings"  # in that of the set, unless the configuration names another


def make(
    config: Config,
    model: Members,
    live: Live,
    x_NVT: NDArray[np.float32],
    scales: Sequence[int],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Path:
    """Compute the embeddings of the configuration's prepared set, or go on with them; returns their folder.

    Args:
        live: draws the pictures of this configuration.
        x_NVT: all series of the set.
        scales: after how many steps; (): after each. The whole series is always among them.
        autocast: makes the context in which training computes.

    Raises:
        UserError: the configuration has no frozen tower of the Hub, unusable scales, or as `embeddings.write`.
    """
    vision, plots = _tower(model).to(device).eval(), live.plots
    steps = x_NVT.shape[2]
    lengths = scales or tuple(range(1, steps + 1))
    cachewriter.check_scales(lengths, steps)
    lengths = tuple(sorted({*lengths, steps}))
    home = prepare.require(config)
    folder = config.pictures.embeddings or home / FOLDER

    @torch.no_grad()
    def embed(x_BVT: torch.Tensor, length_B: torch.Tensor) -> torch.Tensor:
        with autocast():
            return vision.embed(plots.coverage(x_BVT.to(device), length_B.to(device)))

    about = describe(config, vision, plots)
    embeddings.write(folder, about, x_NVT, lengths, embed, vision.features, config.logging.progress)
    size = quantity((folder / embeddings.DATA).stat().st_size, "B")
    message(f"{folder}: embeddings of {len(x_NVT):,} series after {len(lengths)} lengths, by {vision.name}; {size}")
    return folder


def eyes(config: Config, model: Members, live: Live, row_N: NDArray[np.int64]) -> Live | Recalled:
    """What shows some series of the prepared set: `live`, or the embeddings that the configuration names.

    Args:
        row_N: their rows in the set.

    Raises:
        UserError: the configuration's folder holds none of this set, tower and look, none of the shortest prefixes
            that training asks for, or not all the lengths that validation reports.
    """
    if config.pictures.embeddings is None:
        return live
    about = describe(config, _tower(model), live.plots)
    found = embeddings.open_embeddings(config.pictures.embeddings, about)
    steps, stages = len(live.plots.times_T), config.curriculum.stages
    found.require(min(curriculum.bounds(stage, steps)[0] for stage in stages))
    if absent := sorted(set(config.evaluation.reported(steps)) - set(found.lengths)):
        raise UserError(
            f"{config.pictures.embeddings}: holds nothing after {', '.join(map(str, absent))} steps, which validation "
            "reports; make it without --scales, or set evaluation.lengths"
        )
    return Recalled(found, torch.from_numpy(row_N))


def _tower(model: Members) -> HubVision:
    """The same in all members."""
    tower = model.members[0].sight
    if not isinstance(tower, HubVision) or tower.frozen is None:
        raise UserError(
            "--embeddings: only a frozen model of the Hub has them; set model.vision.tower OWNER/NAME@REVISION"
        )
    return tower


def describe(config: Config, vision: HubVision, plots: Plots) -> dict[str, Any]:
    """What embeddings depend on."""
    fingerprint = str(prepared.read_manifest(prepare.require(config))["fingerprint"])
    tower = {"model.vision.tower": vision.name, "weights": vision.digest, "model.vision.layer": vision.layer}
    return {**imagecache.description(plots, fingerprint), "tower": tower}
