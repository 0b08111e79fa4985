"""The model: captions are encoded, NextDiT says what a noisy image shows.

Shapes: B images of C channels, H x W pixels or latents, M mask channels; L tokens; S tokens of a caption of D features.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from retina_diffusion import times
from retina_diffusion.captions import NULL, WordEncoder
from retina_diffusion.model_config import Flow, Model, Text
from retina_diffusion.nextdit import NextDiT, Shape


@dataclasses.dataclass(frozen=True)
class Condition:
    """What images are to show."""

    masks_BMHW: torch.Tensor  # coverage, 0 to 1
    known_BM: torch.Tensor  # True where a channel was looked for
    words_BS: torch.Tensor | None = None  # of the learned encoder
    features_BSD: torch.Tensor | None = None  # of a frozen one
    said_BS: torch.Tensor | None = None  # beside features: True where there is a token
    silent_SD: torch.Tensor | None = None  # beside features: those of no caption
    heard_S: torch.Tensor | None = None  # beside `silent_SD`: True where there is a token
    there_BL: torch.Tensor | None = None  # tokens of images that are padded to a common size

    def without_masks(self, hidden_B: torch.Tensor | None = None) -> Condition:
        """Nothing is known of the masks, of all images or of some."""
        known_BM = torch.zeros_like(self.known_BM) if hidden_B is None else self.known_BM & ~hidden_B[:, None]
        return dataclasses.replace(self, known_BM=known_BM)

    def without_text(self, hidden_B: torch.Tensor | None = None) -> Condition:
        """Nothing is said, of all images or of some."""
        hidden_B = torch.ones_like(self.known_BM[:, 0]) if hidden_B is None else hidden_B
        if self.words_BS is not None:
            return dataclasses.replace(self, words_BS=torch.where(hidden_B[:, None], NULL, self.words_BS))
        assert self.features_BSD is not None and self.silent_SD is not None
        assert self.said_BS is not None and self.heard_S is not None
        return dataclasses.replace(
            self,
            features_BSD=torch.where(hidden_B[:, None, None], self.silent_SD, self.features_BSD),
            said_BS=torch.where(hidden_B[:, None], self.heard_S, self.said_BS),
        )

    def of(self, rows: list[int], height: int, width: int) -> Condition:
        """Of some images, which are all of this size: without what they were padded by."""
        shared = ("silent_SD", "heard_S", "there_BL")
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        taken = {name: value[rows] for name, value in fields.items() if value is not None and name not in shared}
        taken["masks_BMHW"] = taken["masks_BMHW"][..., :height, :width]
        return dataclasses.replace(self, **taken, there_BL=None)


class RetinaModel(nn.Module):
    """NextDiT with the encoder of its captions."""

    def __init__(self, shape: Shape, words: WordEncoder | None) -> None:
        super().__init__()
        self.dit = NextDiT(shape)
        self.words = words

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the blocks' activations in the backward pass."""
        self.dit.gradient_checkpointing_enable()

    def forward(self, x_BCHW: torch.Tensor, t_B: torch.Tensor, asked: Condition, time: float = 1.0) -> torch.Tensor:
        """(B, C, H, W) what the network says of noisy images at their times: the image, or the velocity.

        Args:
            time: of the flow, where all are at the same; only matters for images larger than those of training.
        """
        if self.words is None:
            assert asked.features_BSD is not None
            features_BSD, said_BS = asked.features_BSD, asked.said_BS
        else:
            assert asked.words_BS is not None
            features_BSD, said_BS = self.words(asked.words_BS), None
        return self.dit(
            x_BCHW, t_B, features_BSD, said_BS, asked.masks_BMHW, asked.known_BM, there_BL=asked.there_BL, time=time
        )


def build(model: Model, text: Text, token_side: int, vocabulary: int) -> RetinaModel:
    """A model of a configuration, with its first weights.

    Args:
        token_side: tokens along a side of the images that training shows.
        vocabulary: number of words that the encoder knows.
    """
    words = WordEncoder(vocabulary, text.tokens, text.dim, text.depth) if text.encoder == "words" else None
    return RetinaModel(shape_of(model, text, token_side), words)


def shape_of(model: Model, text: Text, token_side: int) -> Shape:
    """The shape of a configuration's network."""
    return Shape(
        dim=model.dim,
        layers=model.depth,
        heads=model.heads,
        kv_heads=model.kv_heads or model.heads,
        patch=model.patch,
        caption_dim=text.dim,
        channels=model.values,
        masks=len(model.channels),
        learn_sigma=model.learn_sigma,
        qk_norm=model.qk_norm,
        multiple_of=model.multiple_of,
        bottleneck=model.bottleneck,
        trained_side=token_side if token_side > 1 else None,
        flash=model.use_flash_attn,
    )


def shift_of(flow: Flow, size: float) -> float:
    """How far times are moved, for images of so many pixels along a side."""
    return times.for_size(size, flow.base_size) if flow.shift is None else flow.shift
