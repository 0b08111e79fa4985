"""Photographs as features, for the distances between sets of them.

Which network looks decides what is seen. `of_segmenter` needs no weights from anywhere: it is the fitted segmenter
that also measures mask fidelity. `of_model` is a pretrained vision model. Distances compare runs that were judged by
the same network, and are NOT comparable with the FID and KID of papers, which use Inception v3. Any other network is
given as a function of images, (N, 3, H, W) in [-1, 1], to features (N, F).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from retina_diffusion.frozen import Source
from retina_diffusion.segmenter import Segmenter
from shared_core import hub
from shared_core.errors import UserError

Features = Callable[[torch.Tensor], torch.Tensor]
SEGMENTER, KEY = "segmenter", "evaluation.features"
PREPROCESSOR = "preprocessor_config.json"
SIDE = 224  # pixels, where a model says none


def of_segmenter(segmenter: Segmenter) -> Features:
    """Mean and spread over the photograph of the segmenter's deepest level. Not comparable with Inception's."""
    return segmenter.features


def load(source: Source, device: torch.device) -> Features:
    """A vision model of `transformers`, from the Hub or a folder (`of_model`).

    Raises UserError where it cannot be loaded, or sees no images.
    """
    network = source.load(hub.model, dtype=torch.float32).to(device)
    mean, std = _light(source)
    found = of_model(network, mean, std)
    try:
        shape = tuple(found(torch.zeros(2, 3, 64, 64, device=device)).shape)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{source.key}: {source} sees no images ({reason}); choose a vision model") from error
    if len(shape) != 2 or shape[0] != 2:
        raise UserError(f"{source.key}: {source} gives {shape} for two images, not (2, features); choose another")
    return found


def of_model(network: Any, mean: list[float], std: list[float]) -> Features:
    """The pooled output of a vision model, or the mean over its places or tokens where it has none.

    Args:
        network: with a `config` that may have `image_size`.
        mean, std: (3,) of the light in 0..1 that it was trained with.
    """
    network = network.eval().requires_grad_(False)
    side = getattr(network.config, "image_size", None) or SIDE
    size = [side, side] if isinstance(side, int) else list(side)

    def look(images: torch.Tensor) -> torch.Tensor:
        light = F.interpolate((images.float() + 1) / 2, size, mode="bilinear", antialias=True)
        offset, scale = (torch.tensor(values, device=light.device)[:, None, None] for values in (mean, std))
        said = network(pixel_values=(light - offset) / scale)
        pooled = getattr(said, "pooler_output", None)
        if pooled is not None:
            return pooled.flatten(1)
        last = said.last_hidden_state
        return last.mean(dim=1) if last.ndim == 3 else last.mean(dim=(2, 3))

    return look


def _light(source: Source) -> tuple[list[float], list[float]]:
    """Mean and standard deviation that the model's own preprocessing says; 1/2 where it says none."""
    if hub.is_folder(source.name):
        folder = Path(source.name).expanduser()
    else:
        folder = hub.snapshot(source.name, source.version, patterns=(PREPROCESSOR,))
    path = folder / PREPROCESSOR
    try:
        said = json.loads(path.read_text()) if path.is_file() else {}
        found = [[float(x) for x in said.get(key) or [0.5] * 3] for key in ("image_mean", "image_std")]
    except (AttributeError, OSError, TypeError, ValueError) as error:
        raise UserError(f"{source.key}: {path} is damaged ({error}); choose another model") from error
    if [len(one) for one in found] != [3, 3] or min(found[1]) <= 0:
        raise UserError(f"{source.key}: {path} is not for images of three colours; choose another model")
    return found[0], found[1]
