"""Pretrained networks from the Hub, made into towers of the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from shared_core import files, hub, progress
from shared_core.errors import UserError
from timeseries_dualmodal.hublanguage import HubLanguage
from timeseries_dualmodal.hubvision import HubVision, Pixels
from timeseries_dualmodal.model_config import Model
from timeseries_dualmodal.pretrained import Pretrained, checksum

PROCESSORS = ("preprocessor_config.json", "processor_config.json")  # of pictures alone, or of pictures and text


class Towers:
    """The networks that a configuration names, fetched once however many members use them."""

    def __init__(self, wanted: Model, size: int) -> None:
        """`size`: pixels of a picture's side.

        Raises UserError as `hub.model`, and where a vision model does not say what it expects of pictures.
        """
        self.wanted, self.size = wanted, size
        self._vision: tuple[Pretrained, Pixels] | None = None
        self._language: Pretrained | None = None
        if wanted.sees and wanted.vision.is_pretrained:
            key = "model.vision.tower"
            found = _fetch(key, wanted.vision.tower, "vision_model")
            pixels = _pixels(key, found.name)
            self._vision = found, pixels
            if pixels.size not in (None, size):
                progress.message(f"pictures.size: {found.name} was trained on {pixels.size} pixels; these are {size}")
        if wanted.reads and wanted.language.is_pretrained:
            self._language = _fetch("model.language.tower", wanted.language.tower, "text_model")

    def sight(self, variables: int) -> HubVision | None:
        """What sees the pictures; None: a tower that is trained from scratch."""
        if self._vision is None:
            return None
        network, pixels = self._vision
        return HubVision(network, pixels, variables, self.size, self.wanted.vision)

    def words(self, variables: int, steps: int) -> HubLanguage | None:
        """What reads series of as many steps; None: a tower that is trained from scratch."""
        return None if self._language is None else HubLanguage(self._language, variables, steps, self.wanted.language)


def _fetch(key: str, tower: str, half: str) -> Pretrained:
    """A network; of one for pictures and text (CLIP), the half that is meant."""
    name, revision = hub.parse(tower)
    commit = hub.commit(name, revision)
    try:
        whole: nn.Module = hub.model(name, commit, dtype="float32")
    except (OSError, ValueError) as error:  # the library's way to refuse what is no model of its own in safetensors
        reason = str(error).partition("\n")[0].partition(" Please ")[0]
        raise UserError(
            f"{key}: {name}@{commit} cannot be loaded ({reason}); choose another revision or model"
        ) from error
    network = getattr(whole, half, whole)
    return Pretrained(key, f"{name}@{commit}", network.eval(), checksum(network))


def _pixels(key: str, pinned: str) -> Pixels:
    name, commit = hub.parse(pinned)
    folder = hub.snapshot(name, commit, patterns=PROCESSORS)
    path = next((folder / file for file in PROCESSORS if (folder / file).is_file()), None)
    if path is None:
        raise UserError(
            f"{key}: {pinned} does not say how its pictures are normalised ({PROCESSORS[0]}); choose another"
        )
    try:
        about = json.loads(path.read_text())
        about = about.get("image_processor", about)
        if not about.get("do_normalize", True):
            return Pixels((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), _side(about))
        mean, std = (tuple(float(x) for x in about[name]) for name in ("image_mean", "image_std"))
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError("image_mean and image_std are not of three colours")
    except OSError as error:
        raise files.explain(error, path) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{key}: {path.name} of {pinned} is not understood ({error}); choose another model") from error
    return Pixels(mean, std, _side(about))


def _side(about: Mapping[str, Any]) -> int | None:
    """Pixels of a picture's side: what is cut out of it, or else what it is resized to."""
    for name in ("crop_size", "size"):
        said = about.get(name)
        if name == "crop_size" and not about.get("do_center_crop", True):
            continue
        side = said.get("height", said.get("shortest_edge")) if isinstance(said, dict) else said
        if isinstance(side, int):
            return side
    return None
