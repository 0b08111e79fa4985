"""The training problem: photographs with masks and captions, NextDiT, the loss of flow matching."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from retina_diffusion import division, drawings, objective, photographs, prepare, pretrained, sampler
from retina_diffusion.captions import Vocabulary
from retina_diffusion.config import Config
from retina_diffusion.model import Condition, build, shift_of
from retina_diffusion.objective import Noisy
from retina_diffusion.photographs import Batch, Collate, Photographs
from retina_diffusion.store import Store
from shared_core import prepared
from shared_core.batches import Batches, LoaderBatches
from shared_core.errors import UserError
from shared_core.progress import message
from shared_core.runtime import Runtime
from shared_core.seeds import derive
from shared_core.task import Task

TIMES = 4  # of each validation image
SHOWN = 8  # images of a sample grid
PARTS = ("early", "middle", "late")  # of the way from noise to data


@dataclass(frozen=True)
class Material:
    """The prepared photographs, which of them train, choose and judge, and the words of their captions."""

    store: Store
    rows: list[dict[str, Any]]
    parts: Mapping[str, np.ndarray]  # train, val, test -> rows
    vocabulary: Vocabulary
    fingerprint: str = ""  # of the prepared set

    @classmethod
    def load(cls, config: Config) -> Material:
        """Raises UserError where the set is not prepared, or cannot be divided as the configuration wants."""
        folder = prepare.require(config)
        rows = prepare.load(folder)
        parts = division.divide(rows, config.split, config.data.sample_ratio)
        words = Vocabulary.of((rows[index]["text"] for index in parts["train"]), config.text.tokens)
        return cls(Store(folder), rows, parts, words, prepared.read_manifest(folder)["fingerprint"])

    def part(self, name: str) -> list[dict[str, Any]]:
        return [self.rows[index] for index in self.parts[name]]


class FlowTask(Task):
    """One network that learns to turn noise into photographs."""

    monitor = "val/loss"

    def __init__(self, config: Config, runtime: Runtime, material: Material | None = None) -> None:
        self.config = config
        self.material = material = material or Material.load(config)
        known = len(material.vocabulary.words)
        self.model = build(config.model, config.text, config.token_side, known)
        self.shift = shift_of(config.flow, config.data.size)
        self.token = config.model.patch  # of a side, in what is generated
        self.collate, self.encode = Collate(self.token), encoder(material.vocabulary)
        self._begin()
        pretrained.prepare(self.model.dit, config.model.pretrained)
        self.val = Photographs(material.store, material.part("val"), self.encode)
        self.batches = self._batches(runtime)

    def _begin(self) -> None:
        """Take the weights that a fine-tuning begins with; a run that goes on has its own, which come later."""
        if self.config.model.pretrained.source is not None:
            message(str(pretrained.load(self.model.dit, self.config.model.pretrained)))

    def _batches(self, runtime: Runtime) -> Batches:
        config, rows = self.config, self.material.part("train")
        return LoaderBatches(
            Photographs(self.material.store, rows, self.encode, config.augment),
            batch_size=config.training.batch_size,
            runtime=runtime,
            seed=config.seed,
            num_workers=config.data.num_workers,
            collate=self.collate,
            weights=_weights(rows, config.augment.masked_share),
        )

    def loss(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        x1 = photographs.images(batch)
        asked = objective.hidden(photographs.condition(batch, self.config.model.channels), self.config.flow)
        one = objective.noisy(x1, self.config.flow, self.shift)
        found_B = self._errors(model, one, asked, batch)
        return found_B.mean(), {}

    def _errors(self, model: nn.Module, one: Noisy, asked: Condition, batch: Batch) -> torch.Tensor:
        there = photographs.there_pixels(batch, self.token, *one.x1_BCHW.shape[2:])
        return objective.errors(model, one, asked, self.config.model.prediction, there)

    def evaluate(self, model: nn.Module, runtime: Runtime) -> dict[str, float]:
        """The loss of validation photographs at fixed times and noise, with all that is known of them."""
        rows, size = range(len(self.val))[runtime.share(len(self.val))], self.batches.batch_size
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        found = [self._judged(model, list(part), runtime) for part in parts]
        error_NT = torch.cat(found) if found else torch.zeros(0, TIMES, device=runtime.device)
        error_T = runtime.gather(error_NT, len(self.val)).mean(dim=0)
        late = {
            f"val/loss_{name}": float(error_T[k]) for name, k in zip(PARTS, (0, TIMES // 2, TIMES - 1), strict=True)
        }
        return {"val/loss": float(error_T.mean()), **late}

    def _judged(self, model: nn.Module, rows: list[int], runtime: Runtime) -> torch.Tensor:
        """(N, TIMES) the loss of some validation photographs, the same whoever asks."""
        batch = to(self.collate([self.val[row] for row in rows]), runtime.device)
        x1, asked = photographs.images(batch), photographs.condition(batch, self.config.model.channels)
        noise = sampler.noise(derive(self.config.seed, "val"), rows, tuple(x1.shape[1:])).to(x1)
        errors = []
        for k in range(TIMES):
            t_B = torch.full((len(rows),), (k + 0.5) / TIMES, device=x1.device)
            errors.append(self._errors(model, Noisy(x1, noise, t_B), asked, batch))
        return torch.stack(errors, dim=1)

    def samples(self, model: nn.Module, runtime: Runtime) -> dict[str, torch.Tensor]:
        """Validation photographs, their masks, and what the model makes of these."""
        rows = sorted(range(len(self.val)), key=lambda row: -len(self.val.rows[row]["masks"]))[:SHOWN]
        batch = to(self.collate([self.val[row] for row in rows]), runtime.device)
        x1, asked = photographs.images(batch), photographs.condition(batch, self.config.model.channels)
        noise = sampler.noise(derive(self.config.seed, "shown"), rows, tuple(x1.shape[1:])).to(x1)
        drawn = sampler.draw(model, noise, asked, self.config.model, self.config.sampling, self.shift)
        masks = drawings.coloured(batch["mask"].cpu() / 255, batch["known"].cpu())
        return {"grid": drawings.sheet([x1.cpu(), masks, drawn.x_B.cpu()])}

    def made_from(self) -> dict[str, dict[str, str]]:
        """The prepared set: a run goes on with the very one that it began with."""
        folder = self.config.paths.data / prepare.PACKAGE / self.config.data.folder
        return {"data": {"path": str(folder), "sha256": self.material.fingerprint}}

    def no_decay(self, name: str, parameter: nn.Parameter) -> bool:
        """Vectors, and what stands for words and channels."""
        return parameter.ndim < 2 or any(word in name for word in ("embedding", "position", "unknown_MD"))


def encoder(vocabulary: Vocabulary) -> photographs.Encode:
    """What a caption adds to a sample."""
    return lambda text: {"words": vocabulary.encode(text)}


def _weights(rows: list[dict[str, Any]], share: float | None) -> list[float] | None:
    """How often each photograph is shown, so that those with masks are a share of all that are."""
    if share is None:
        return None
    masked = sum(bool(row["masks"]) for row in rows)
    if masked in (0, len(rows)):
        raise UserError(
            f"augment.masked_share: {masked} of the {len(rows)} training photographs have masks; leave it out"
        )
    return [share / masked if row["masks"] else (1 - share) / (len(rows) - masked) for row in rows]


def to(batch: Batch, device: torch.device) -> Batch:
    return {name: tensor.to(device) for name, tensor in batch.items()}


def build_task(config: Config, runtime: Runtime) -> FlowTask:
    """The task of a configuration. Raises UserError where its data set is not prepared."""
    return FlowTask(config, runtime)
