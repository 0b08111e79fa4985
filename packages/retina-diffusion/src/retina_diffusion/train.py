"""The training problem: photographs with masks and captions, NextDiT, the loss of flow matching."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from retina_diffusion import division, drawings, objective, photographs, prepare, pretrained, sampler
from retina_diffusion.captions import SIDES, Vocabulary, words
from retina_diffusion.config import Config
from retina_diffusion.latents import Autoencoder
from retina_diffusion.model import Condition, build, shift_of
from retina_diffusion.objective import Noisy
from retina_diffusion.photographs import Batch, Collate, Photographs
from retina_diffusion.precomputed import VAE, Precomputed
from retina_diffusion.store import Store
from shared_core import manifest, prepared, records, runs
from shared_core.batches import Batches, LoaderBatches
from shared_core.errors import UserError
from shared_core.progress import message
from shared_core.records import RunDir
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
        texts = (rows[index]["text"] for index in parts["train"]) if config.text.encoder == "words" else ()
        known = Vocabulary.of(texts, config.text.tokens)
        return cls(Store(folder), rows, parts, known, prepared.read_manifest(folder)["fingerprint"])

    def part(self, name: str) -> list[dict[str, Any]]:
        return [self.rows[index] for index in self.parts[name]]

    def precomputed(self, config: Config) -> Precomputed:
        """What networks that stay as they are make of it; nothing is computed yet."""
        return Precomputed(config, self.vocabulary, self.store, self.rows, self.fingerprint)


class FlowTask(Task):
    """One network that learns to turn noise into photographs."""

    monitor = "val/loss"

    def __init__(self, config: Config, runtime: Runtime, material: Material | None = None) -> None:
        self.config = config
        self.material = material = material or Material.load(config)
        known = len(material.vocabulary.words)
        self.model = build(config.model, config.text, config.token_side, known)
        self.shift = shift_of(config.flow, config.data.size)
        self.runtime, self.is_ready = runtime, False
        self._vae: Autoencoder | None = None
        self.precomputed = precomputed = material.precomputed(config)
        self.collate = Collate(config.model.token)
        self.val = Photographs(material.store, material.part("val"), precomputed.encode, latents=precomputed.latents)
        self._begin()
        pretrained.prepare(self.model.dit, config.model.pretrained)
        self.batches = self._batches()

    def _begin(self) -> None:
        """Take the weights that a fine-tuning begins with; a run that goes on has its own, which come later."""
        wanted = self.config.model.pretrained
        if wanted.source is None and wanted.tune != "all":
            raise UserError(
                f"model.pretrained.tune: {wanted.tune} leaves all other weights as they are, and these are random "
                "without model.pretrained.source; give it (--from), or tune all"
            )
        if wanted.source is not None and not self.runtime.agree(self.runtime.is_main and goes_on(self.config)):
            message(str(pretrained.load(self.model.dit, wanted)))

    def _batches(self) -> Batches:
        config, material, precomputed = self.config, self.material, self.precomputed
        rows = material.part("train")
        return _Batches(
            self.ready,
            Photographs(material.store, rows, precomputed.encode, config.augment, precomputed.latents),
            batch_size=config.training.batch_size,
            runtime=self.runtime,
            seed=config.seed,
            num_workers=config.data.num_workers,
            collate=self.collate,
            weights=_weights(rows, config.augment.masked_share),
        )

    def ready(self) -> None:
        """Compute what networks that stay as they are make of the photographs and captions, unless it is there."""
        if not self.is_ready:
            ready(self.precomputed, self.runtime, self.config.logging.progress)
            self.is_ready = True

    def warnings(self) -> list[str]:
        """Captions of which training sees less, or other things, than they say."""
        texts = {row["text"] for row in self.material.part("train")}
        cut, sided = sum(map(self._is_cut, texts)), sum(bool(SIDES & set(words(text))) for text in texts)
        found, how = [], "are longer than" if self.config.text.encoder == "words" else "fill all"
        if cut:
            found.append(
                f"text.tokens: {cut} of {len(texts)} captions {how} {self.config.text.tokens}; the rest is not read"
            )
        if sided and self.config.augment.flip:
            found.append(
                f"augment.flip: {sided} of {len(texts)} captions say left or right, which is wrong of mirrored "
                "photographs; use --augment.flip false"
            )
        return found

    def _is_cut(self, text: str) -> bool:
        """Whether a caption is longer than what is read; of a text model's, whether it takes all that is."""
        if self.config.text.encoder == "words":
            return len(words(text)) > self.config.text.tokens
        self.ready()
        return bool(self.precomputed.encode(text)["said"].all())

    def leave_out_missing(self) -> list[str]:
        """A plan computes no latents and no features."""
        self.is_ready = True
        return self.precomputed.pretend()

    def loss(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        x1 = photographs.targets(batch)
        asked = objective.hidden(self._condition(batch), self.config.flow)
        one = objective.noisy(x1, self.config.flow, self.shift)
        found_B = self._errors(model, one, asked, batch)
        return found_B.mean(), {}

    def _condition(self, batch: Batch) -> Condition:
        return photographs.condition(batch, self.config.model.channels, self.config.model.factor)

    def _errors(self, model: nn.Module, one: Noisy, asked: Condition, batch: Batch) -> torch.Tensor:
        there = photographs.there_pixels(batch, self.config.model.patch, *one.x1_BCHW.shape[2:])
        return objective.errors(model, one, asked, self.config.model.prediction, there)

    def evaluate(self, model: nn.Module, runtime: Runtime) -> dict[str, float]:
        """The loss of validation photographs at fixed times and noise, with all that is known of them."""
        self.ready()
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
        x1, asked = photographs.targets(batch), self._condition(batch)
        noise = self._noise("val", rows, x1, asked)
        errors = []
        for k in range(TIMES):
            t_B = torch.full((len(rows),), (k + 0.5) / TIMES, device=x1.device)
            errors.append(self._errors(model, Noisy(x1, noise, t_B), asked, batch))
        return torch.stack(errors, dim=1)

    def _noise(self, name: str, rows: list[int], x1_BCHW: torch.Tensor, asked: Condition) -> torch.Tensor:
        """The same for a photograph, whatever it is padded to."""
        return sampler.padded_noise(derive(self.config.seed, name), rows, self._sizes(x1_BCHW, asked), x1_BCHW)

    def _sizes(self, x_BCHW: torch.Tensor, asked: Condition) -> list[tuple[int, int]]:
        return photographs.sizes(asked.there_BL, len(x_BCHW), self.config.model.patch, *x_BCHW.shape[2:])

    def samples(self, model: nn.Module, runtime: Runtime) -> dict[str, torch.Tensor]:
        """Validation photographs, their masks, and what the model makes of these."""
        rows = sorted(range(len(self.val)), key=lambda row: -len(self.val.rows[row]["masks"]))[:SHOWN]
        batch = to(self.collate([self.val[row] for row in rows]), runtime.device)
        x1, asked = photographs.targets(batch), self._condition(batch)
        noise = self._noise("shown", rows, x1, asked)
        drawn = sampler.draw(model, noise, asked, self.config.model, self.config.sampling, self.shift)
        masks = drawings.coloured(batch["mask"].cpu() / 255, batch["known"].cpu())
        return {"grid": drawings.sheet([self._seen(x1, asked), masks, self._seen(drawn.x_B, asked)])}

    def _seen(self, x_BCHW: torch.Tensor, asked: Condition) -> torch.Tensor:
        """Images on the CPU of what is generated."""
        if self.precomputed.latents is None:
            return x_BCHW.cpu()
        if self._vae is None:
            self._vae = Autoencoder.load(self.precomputed.sources[VAE], self.config.model, x_BCHW.device)
        return self._vae.decode_each(x_BCHW, self._sizes(x_BCHW, asked)).cpu()

    def made_from(self) -> dict[str, dict[str, str]]:
        """The prepared set, the VAE, the text model: a run goes on with the very ones that it began with."""
        networks = {key: source.about for key, source in self.precomputed.sources.items()}
        return {
            "data": {
                "path": str(prepare.folder_of(self.config.paths, self.config.data)),
                "sha256": self.material.fingerprint,
            },
            **networks,
        }

    def no_decay(self, name: str, parameter: nn.Parameter) -> bool:
        """Vectors, and what stands for words and channels."""
        return parameter.ndim < 2 or any(word in name for word in ("embedding", "position", "unknown_MD"))


class _Batches(LoaderBatches):
    """Batches before the first of which something is made ready."""

    def __init__(self, ready: Callable[[], None], dataset: Photographs, **options: Any) -> None:
        super().__init__(dataset, **options)
        self.ready = ready

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        self.ready()
        yield from super().epoch(epoch, start)


def ready(precomputed: Precomputed, runtime: Runtime, bar: bool) -> None:
    """Compute what is not there yet, each process its share.

    Raises UserError as `Precomputed.make`.
    """
    if runtime.world > 1:
        precomputed.make(runtime.device, slice(runtime.rank, None, runtime.world), bar and runtime.is_main)
        runtime.barrier()
    precomputed.make(runtime.device, bar=bar and runtime.is_main)  # where each machine has its own disk, the others too


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


def goes_on(config: Config) -> bool:
    """Whether training goes on from a checkpoint, whose weights replace those that it would begin with."""
    if config.training.resume != "auto":
        return config.training.resume != "never"
    home, name = config.paths.runs / prepare.PACKAGE, config.name or runs.DEFAULT_NAME
    return manifest.newest_good(RunDir(records.choose(home, name, fresh=False)).checkpoints)[0] is not None


def to(batch: Batch, device: torch.device) -> Batch:
    return {name: tensor.to(device) for name, tensor in batch.items()}


def build_task(config: Config, runtime: Runtime) -> FlowTask:
    """The task of a configuration. Raises UserError where its data set is not prepared."""
    return FlowTask(config, runtime)
