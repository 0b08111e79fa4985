"""Captions as features of a text model that stays as it is.

Of a decoder (Gemma, Llama, GPT-2) these are the hidden states before its last block, as Lumina-Next takes them (Zhuo et
al. 2024, arXiv:2406.18583): the last block serves the next word. Of an encoder (T5, BERT) they are its last ones.

Shapes: B captions of S tokens, at most N of each; D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from retina_diffusion.frozen import Source
from retina_diffusion.model_config import Text
from shared_core import hub
from shared_core.errors import UserError

AT_A_TIME = 16  # captions


def _loaded(source: Source) -> tuple[Any, dict[str, Any]]:
    """The model, or its encoder alone where it has one, and what was found of its weights."""
    options = {"dtype": torch.float32, "output_loading_info": True}
    try:
        return source.load(hub.model, auto="AutoModelForTextEncoding", **options)
    except UserError as error:
        if not isinstance(error.__cause__, ValueError):  # such as a class that has no encoder of its own
            raise
    return source.load(hub.model, **options)


class TextModel:
    """A text model of `transformers`, in float32, with its tokenizer."""

    def __init__(self, network: nn.Module, tokenizer: Any, tokens: int) -> None:
        """`tokens`: N."""
        whole: Any = network
        if whole.config.is_encoder_decoder:
            whole = whole.get_encoder()
        self.network = getattr(whole, "text_model", whole).eval().requires_grad_(False).float()  # of CLIP, its half
        self.tokenizer, self.tokens = tokenizer, tokens
        self.is_decoder, self.width = self._try()

    @classmethod
    def load(cls, source: Source, wanted: Text, device: torch.device) -> TextModel:
        """The text model of a configuration.

        Raises UserError where it has another width than `text.dim`, or reads fewer tokens than `text.tokens`.
        """
        network, found = _loaded(source)
        if missing := sorted(name for name in found["missing_keys"] if not name.startswith("pooler.")):
            raise UserError(f"{source.key}: {source} lacks {missing[0]} and others; choose another")
        tokenizer = source.load(hub.tokenizer)
        limit = min(
            tokenizer.model_max_length, getattr(network.config, "max_position_embeddings", None) or wanted.tokens
        )
        if limit < wanted.tokens:
            raise UserError(
                f"text.tokens: {wanted.tokens}, but {source} reads at most {limit}; set --text.tokens {limit}"
            )
        network.to(device)
        try:
            made = cls(network, tokenizer, wanted.tokens)
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"{source.key}: {source} reads no text ({reason}); choose a text model") from error
        require(source, wanted, made.width)
        return made

    @torch.no_grad()
    def features(self, captions: Sequence[str]) -> list[torch.Tensor]:
        """(S, D) float32 of each caption, on the CPU; S is its number of tokens, at least 1 and at most N."""
        found = []
        for start in range(0, len(captions), AT_A_TIME):
            tokens = [self._tokens(caption) for caption in captions[start : start + AT_A_TIME]]
            hidden_BSD = self._hidden(tokens).cpu()
            found += [hidden_SD[: len(its)].clone() for hidden_SD, its in zip(hidden_BSD, tokens, strict=True)]
        return found

    def _tokens(self, caption: str) -> list[int]:
        found = self.tokenizer(caption, truncation=True, max_length=self.tokens)["input_ids"]
        return list(found) or [self._nothing]

    @property
    def _nothing(self) -> int:
        """The token of an empty caption, for tokenizers that make none."""
        named = (getattr(self.tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad", "unk"))
        return next((token for token in named if token is not None), 0)

    def _hidden(self, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        """(B, S, D)."""
        found = self._run(tokens)
        return found.hidden_states[-2] if self.is_decoder else found.last_hidden_state

    def _run(self, tokens: Sequence[Sequence[int]]) -> Any:
        """What the network says of captions, padded at the right."""
        device = next(self.network.parameters()).device
        longest = max(map(len, tokens))
        ids_BS, said_BS = torch.zeros(2, len(tokens), longest, dtype=torch.long)
        for row, its in enumerate(tokens):
            ids_BS[row, : len(its)] = torch.tensor(its)
            said_BS[row, : len(its)] = 1
        with torch.autocast(device.type, enabled=False):
            return self.network(
                input_ids=ids_BS.to(device), attention_mask=said_BS.to(device), output_hidden_states=True
            )

    @torch.no_grad()
    def _try(self) -> tuple[bool, int]:
        """Whether no word knows of those behind it, as in a decoder; and D."""
        one, other = self._run([[1, 2, 3, 4], [1, 2, 3, 5]]).last_hidden_state
        change = (one - other)[:3].abs().max()
        return bool(change <= 1e-5 * one.abs().max()), one.shape[-1]


def require(source: Source, wanted: Text, width: int) -> None:
    """Raises UserError where features have another width than the settings say."""
    if width != wanted.dim:
        raise UserError(f"text.dim: {wanted.dim}, but {source} has {width} features; set --text.dim {width}")
