"""Who draws: a trained model with what it needs to be asked.

Shapes: B images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from retina_diffusion import model, photographs, precomputed, prepare, pretrained, sampler, saved, train
from retina_diffusion.captions import Vocabulary
from retina_diffusion.captionstore import CaptionStore
from retina_diffusion.config import Config
from retina_diffusion.frozen import Source
from retina_diffusion.latents import Autoencoder
from retina_diffusion.model import Condition, RetinaModel
from retina_diffusion.model_config import Sampling
from retina_diffusion.photographs import Batch, Collate, Encode
from retina_diffusion.solvers import Solved
from shared_core import runs, weights
from shared_core.cli import App
from shared_core.records import RunDir
from shared_core.runs import RunOptions
from shared_core.runtime import Runtime


@dataclass(frozen=True)
class Trained:
    """A model that has been trained, ready to draw."""

    run: RunDir
    checkpoint: str  # its name
    config: Config
    model: RetinaModel
    vocabulary: Vocabulary
    runtime: Runtime
    captions: CaptionStore | None
    encode: Encode
    sources: dict[str, Source] = field(default_factory=dict)

    @property
    def collate(self) -> Collate:
        return Collate(self.config.model.token)

    @cached_property
    def vae(self) -> Autoencoder:
        """Of latents. Raises UserError where it cannot be had."""
        return Autoencoder.load(self.sources[precomputed.VAE], self.config.model, self.runtime.device)

    def hear(self, texts: Iterable[str]) -> None:
        """Be ready for these captions. Raises UserError where that takes a text model that cannot be had."""
        if self.captions is not None:
            source, device = self.sources[precomputed.TEXT], self.runtime.device
            precomputed.hear(self.captions, source, self.config, texts, device, keep=False, bar=False)

    def sample(self, image: torch.Tensor, mask: torch.Tensor, known: torch.Tensor, text: str) -> Batch:
        """What is asked of one image: masks (M, H, W) uint8, which of them are known (M,), and a text (see `hear`).

        `image` (3, H, W) uint8 says the size.
        """
        return {"image": image, "mask": mask, "known": known, **self.encode(text)}

    def condition(self, samples: Sequence[Batch]) -> Condition:
        """Of several images."""
        batch = train.to(self.collate(samples), self.runtime.device)
        return photographs.condition(batch, self.config.model.channels, self.config.model.factor)

    def draw(self, asked: Condition, numbers: Sequence[int], seed: int, wanted: Sampling) -> Solved:
        """(B, 3, H, W) images in [-1, 1], on the CPU, padded as what is asked, and the most evaluations for any.

        An image depends on the seed, its number and what is asked of it, not on the others: those of another size are
        drawn apart, and where the solver chooses its steps, each alone.
        """
        height, width, made = *asked.masks_BMHW.shape[2:], self.config.model
        drawn = torch.full((len(numbers), 3, height * made.factor, width * made.factor), -1.0)
        sizes, most = photographs.sizes(asked.there_BL, len(numbers), made.patch, height, width), 0
        groups = [[k for k, one in enumerate(sizes) if one == size] for size in dict.fromkeys(sizes)]
        for rows in groups if wanted.method != "dopri5" else [[k] for k in range(len(sizes))]:
            size = sizes[rows[0]]
            found = self._of_one_size(asked.of(rows, *size), [numbers[k] for k in rows], seed, wanted)
            drawn[rows, :, : size[0] * made.factor, : size[1] * made.factor] = found.x_B
            most = max(most, found.evaluations)
        return Solved(drawn, most)

    def _of_one_size(self, asked: Condition, numbers: Sequence[int], seed: int, wanted: Sampling) -> Solved:
        height, width, made = *asked.masks_BMHW.shape[2:], self.config.model
        noise = sampler.noise(seed, numbers, (made.values, height, width)).to(self.runtime.device)
        shift = model.shift_of(self.config.flow, made.factor * (height * width) ** 0.5)
        with self.runtime.accelerator.autocast():
            found = sampler.draw(self.model, noise, asked, made, wanted, shift)
        x = found.x_B.float()
        return Solved((self.vae.decode(x) if made.space == "latents" else x).cpu(), found.evaluations)


def find(app: App, config: Config, options: RunOptions, runtime: Runtime) -> Trained:
    """The model that the options mean.

    Raises UserError where there is no such run or checkpoint, or its weights are of another configuration.
    """
    return of_run(runs.locate(app, config, options), config, options.checkpoint, runtime)


def of_run(run: RunDir, config: Config, checkpoint: str, runtime: Runtime) -> Trained:
    """The model that a run of this configuration has come to; raises as `find`."""
    path = runs.checkpoint(run, checkpoint)
    known = saved.vocabulary(run, config)
    made = _loaded(config, len(known.words), path)
    networks = precomputed.sources(config, saved.networks(run))
    captions, encode = precomputed.captions(config, known)
    if captions is not None:
        captions.open(prepare.folder_of(config.paths, config.data), networks[precomputed.TEXT].version)
    return Trained(run, path.name, config, made.to(runtime.device).eval(), known, runtime, captions, encode, networks)


def network(run: RunDir, config: Config, checkpoint: Path) -> RetinaModel:
    """The network of a checkpoint, on the CPU. Raises UserError where its weights are of another configuration."""
    return _loaded(config, len(saved.vocabulary(run, config).words), checkpoint)


def _loaded(config: Config, words: int, checkpoint: Path) -> RetinaModel:
    made = model.build(config.model, config.text, config.token_side, words)
    pretrained.prepare(made.dit, config.model.pretrained)
    weights.load_strictly(made, weights.load_weights(checkpoint), checkpoint)
    return made
