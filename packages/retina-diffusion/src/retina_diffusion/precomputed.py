"""What networks that stay as they are make of a prepared set, once: latents of its photographs, features of its
captions. Both are kept beside it; the networks are freed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from retina_diffusion import latents, textmodel
from retina_diffusion.captions import Vocabulary
from retina_diffusion.captionstore import CaptionStore
from retina_diffusion.config import Config
from retina_diffusion.frozen import Source
from retina_diffusion.latents import Autoencoder
from retina_diffusion.latentstore import LatentStore
from retina_diffusion.photographs import Encode
from retina_diffusion.store import Store
from retina_diffusion.textmodel import TextModel
from shared_core import progress

VAE, TEXT = "model.vae", "text.model"


def sources(config: Config, before: Mapping[str, Mapping[str, str]] | None = None) -> dict[str, Source]:
    """The networks that a configuration needs, by their settings.

    Args:
        before: what a run notes of them (`frozen.Source.about`), for its model.

    Raises UserError as `frozen.Source.of`.
    """
    before, found = before or {}, {}
    if config.model.space == "latents":
        found[VAE] = Source.of(VAE, config.model.vae, before.get(VAE))
    if config.text.model is not None:
        found[TEXT] = Source.of(TEXT, config.text.model, before.get(TEXT))
    return found


def captions(config: Config, vocabulary: Vocabulary) -> tuple[CaptionStore | None, Encode]:
    """Where features of captions are, if they have any, and what a caption adds to a sample."""
    if config.text.encoder == "hub":
        found = CaptionStore(config.text.tokens, config.text.dim)
        return found, found
    return None, partial(_words, vocabulary)


def _words(vocabulary: Vocabulary, text: str) -> dict[str, torch.Tensor]:
    return {"words": vocabulary.encode(text)}


class Precomputed:
    """The latents and features that training with a prepared set needs."""

    def __init__(
        self, config: Config, vocabulary: Vocabulary, store: Store, rows: Sequence[dict[str, Any]], fingerprint: str
    ) -> None:
        """`fingerprint`: of the prepared set, whose photographs are `store` and `rows`. Computes nothing yet."""
        self.config, self.store, self.rows, self.fingerprint = config, store, rows, fingerprint
        self.latents = LatentStore() if config.model.space == "latents" else None
        self.captions, self.encode = captions(config, vocabulary)
        self._sources: dict[str, Source] | None = None

    @property
    def sources(self) -> dict[str, Source]:
        """The networks that these come from."""
        if self._sources is None:
            self._sources = sources(self.config)
        return self._sources

    def make(self, device: torch.device, share: slice = slice(None), bar: bool = True) -> None:
        """Compute what is not there yet, or damaged.

        Args:
            share: of the files and captions, whose processes look for theirs.

        Raises UserError where a network cannot be had or is not as the settings say, or the disk is full.
        """
        if self.latents is not None:
            source = self.sources[VAE]
            self.latents.open(self.store.folder, self.fingerprint, source.version)
            if which := self.latents.missing(self.rows, self.config.augment.flip, share):
                progress.message(f"{self.latents.folder}: computing latents with {source}")
                vae = Autoencoder.load(source, self.config.model, device)
                self.latents.make(which, vae, self.store, self.rows, device, bar)
            if share == slice(None):
                self._check(self.latents, source)
        if self.captions is not None:
            source = self.sources[TEXT]
            self.captions.open(self.store.folder, source.version)
            hear(self.captions, source, self.config, self._texts(), device, share=share, bar=bar)

    def _check(self, found: LatentStore, source: Source) -> None:
        """Of latents that were there already, the VAE was not asked how many channels they have."""
        row = self.rows[0]
        channels, height, _ = found.read(*row["place"]).shape
        latents.require(source, self.config.model, channels, row["size"][0] // height)

    def pretend(self) -> list[str]:
        """Do without, for a plan; what it should say about that."""
        said = []
        if self.latents is not None:
            model, kinds = self.config.model, 2 if self.config.augment.flip else 1
            self.latents.pretend(self.rows, model.values, model.factor)
            places = sum(row["size"][0] * row["size"][1] // model.factor**2 for row in self.rows)
            size = 4 * kinds * model.values * places / 2**20
            said.append(
                f"before training, {model.vae} computes the latents of {len(self.rows):,} photographs once; they are "
                f"kept, {size:,.1f} MiB"
            )
        if self.captions is not None:
            text, many = self.config.text, len(set(self._texts()))
            self.captions.pretend()
            said.append(
                f"before training, {text.model} computes the features of {many:,} captions once; they are kept, at "
                f"most {4 * many * text.tokens * text.dim / 2**20:,.1f} MiB"
            )
        return said

    def _texts(self) -> Iterable[str]:
        return (row["text"] for row in self.rows)


def hear(
    captions: CaptionStore,
    source: Source,
    config: Config,
    texts: Iterable[str],
    device: torch.device,
    *,
    keep: bool = True,
    share: slice = slice(None),
    bar: bool = True,
) -> None:
    """Compute the features of those captions that have none yet; `keep` and `share` are those of `CaptionStore`."""
    if missing := captions.missing(texts, share):
        progress.message(f"computing the features of {len(missing):,} captions with {source}")
        captions.make(missing, TextModel.load(source, config.text, device), keep, bar)
    if share == slice(None):
        textmodel.require(source, config.text, captions.width)
