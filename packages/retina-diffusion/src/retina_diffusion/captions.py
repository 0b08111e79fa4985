"""Captions as numbers: a vocabulary of the training captions' words, and an encoder that is learned with the network.

Shapes: B captions, S tokens, D features.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from retina_diffusion.model_config import HEAD

PAD, UNKNOWN, NULL = range(3)  # behind the end; a word that training never saw; no caption
SPECIAL = 3
SIDES = {"left", "right", "dexter", "sinister"}
WORD = re.compile(r"[^\W_]+(?:[-'][^\W_]+)*")


def words(text: str) -> list[str]:
    """The words of a text, in lower case and without punctuation."""
    return WORD.findall(text.lower())


@dataclass(frozen=True)
class Vocabulary:
    """The words that a model knows, and how many tokens it reads."""

    words: tuple[str, ...]
    tokens: int

    @classmethod
    def of(cls, texts: Iterable[str], tokens: int) -> Vocabulary:
        """All words of some texts, sorted."""
        return cls(tuple(sorted({word for text in texts for word in words(text)[:tokens]})), tokens)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Of the words."""
        return {word: index for index, word in enumerate(self.words, start=SPECIAL)}

    def unknown(self, text: str) -> list[str]:
        """The words of a text that training never saw, which say nothing to the model."""
        return [word for word in words(text)[: self.tokens] if word not in self.numbers]

    def encode(self, text: str) -> torch.Tensor:
        """(S,) int64; a text without words is `NULL` throughout."""
        found = [self.numbers.get(word, UNKNOWN) for word in words(text)[: self.tokens]]
        if not found:
            return torch.full((self.tokens,), NULL)
        return torch.tensor(found + [PAD] * (self.tokens - len(found)))


class WordEncoder(nn.Module):
    """Words to features, small enough to be learned from some hundred captions.

    There is no mask: behind a caption's end stands a token of its own, so that attention stays on its fast path.
    """

    def __init__(self, vocabulary: int, tokens: int, dim: int, depth: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SPECIAL + vocabulary, dim)
        self.position = nn.Parameter(torch.randn(tokens, dim) * 0.02)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dim, max(1, dim // HEAD), 4 * dim, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        nn.init.normal_(self.embedding.weight, std=0.02)
        with torch.no_grad():
            self.embedding.weight[UNKNOWN].zero_()  # says nothing, for training never shows it

    def forward(self, words_BS: torch.Tensor) -> torch.Tensor:
        """(B, S, D)."""
        x_BSD = self.embedding(words_BS) + self.position
        for block in self.blocks:
            x_BSD = block(x_BSD)
        return self.norm(x_BSD)
