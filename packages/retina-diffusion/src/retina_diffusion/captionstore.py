"""The features of captions, computed once and kept beside a prepared set.

``captions-NAME/captions-HASH.safetensors`` holds those of some captions, each under the SHA-256 of its text. NAME
stands for the text model and how many tokens it reads.

Shapes: S tokens of a caption, at most N; D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch.nn import functional as F

from retina_diffusion import kept
from retina_diffusion.textmodel import TextModel
from shared_core import progress

PER_FILE = 64  # captions
Sample = dict[str, torch.Tensor]


class CaptionStore:
    """What a caption adds to a sample: ``features`` (N, D) and ``said`` (N,), and ``silent``, ``heard`` of none."""

    def __init__(self, tokens: int, dim: int) -> None:
        """`tokens`: N."""
        self.tokens, self.dim = tokens, dim
        self.folder: Path | None = None
        self.mark, self._pretends = "", False
        self._files: dict[str, Path] = {}
        self._here: dict[str, torch.Tensor] = {}
        self._reader = kept.Reader()
        self._silent: tuple[torch.Tensor, torch.Tensor] | None = None

    def open(self, folder: Path, network: str) -> None:
        """Find what is kept in a prepared set's folder, by the text model of that version."""
        self.mark = f"{network} {self.tokens} tokens"
        self.folder = folder / f"captions-{hashlib.sha256(self.mark.encode()).hexdigest()[:12]}"
        self._files = {
            name: path for path in sorted(self.folder.glob("captions-*")) for name in kept.names(path, self.mark)
        }

    def missing(self, texts: Iterable[str], share: slice = slice(None)) -> list[str]:
        """Those of some captions, and of the empty one, whose features are not there; each once, sorted.

        Args:
            share: of all of them, whose processes look for theirs.
        """
        there = self._files.keys() | self._here.keys()
        return [text for text in sorted({"", *texts})[share] if _key(text) not in there]

    def make(self, texts: Sequence[str], model: TextModel, keep: bool = True, bar: bool = True) -> None:
        """Compute the features of some captions.

        Args:
            keep: in files, each of which is there when it is whole; else in memory.

        Raises UserError where the disk is full.
        """
        with progress.Bar(len(texts), bar, "captions", unit="captions") as shown:
            for start in range(0, len(texts), PER_FILE):
                some = texts[start : start + PER_FILE]
                found = dict(zip(map(_key, some), model.features(some), strict=True))
                if keep and self.folder is not None:
                    path = self.folder / f"captions-{_key(''.join(found))[:16]}.safetensors"
                    kept.write(path, self.mark, found)
                    self._files |= dict.fromkeys(found, path)
                else:
                    self._here |= found
                shown.update(start + len(some))

    @property
    def width(self) -> int:
        """D, of what was computed. Raises ValueError where that is nothing."""
        return self._of("")[0].shape[1]

    def pretend(self) -> None:
        """Let all captions be the same, for plans: nothing is computed for them."""
        self._pretends = True

    def __call__(self, text: str) -> Sample:
        """Raises ValueError for a caption that was not computed, UserError where its file is damaged."""
        features_ND, said_N = self._of(text)
        if self._silent is None:
            self._silent = self._of("")
        return {"features": features_ND, "said": said_N, "silent": self._silent[0], "heard": self._silent[1]}

    def _of(self, text: str) -> tuple[torch.Tensor, torch.Tensor]:
        key = _key(text)
        if self._pretends:
            found_SD = torch.zeros(self.tokens, self.dim)
        elif key in self._here:
            found_SD = self._here[key]
        elif key in self._files:
            found_SD = self._reader.read(self._files[key], key)
        else:
            raise ValueError(f"the features of {text!r} were not computed")
        return F.pad(found_SD, (0, 0, 0, self.tokens - len(found_SD))), torch.arange(self.tokens) < len(found_SD)


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
