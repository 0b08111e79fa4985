"""The network: each variable is seen as a line plot and read as numbers, and the variables are fused.

It answers from any prefix of at least one step, and nothing after a prefix reaches its answer.

Shapes: B series, K prefixes of each, V variables, T steps, H x W pixels, D features, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from timeseries_dualmodal import language, vision
from timeseries_dualmodal.fusion import Fusion
from timeseries_dualmodal.hubvision import HubVision
from timeseries_dualmodal.model_config import Model

OUTLIER = 20.0  # standard deviations that a value may lie from the mean; beyond, it counts as so far


class Answer(NamedTuple):
    """What the network says about each prefix."""

    logits_BKC: torch.Tensor
    sight_BKVD: torch.Tensor | None = None  # features of the pictures and
    words_BKVD: torch.Tensor | None = None  # of the numbers, where both are there and training compares them
    log_temperature: torch.Tensor | None = None  # of their comparison
    sight_logits_BKC: torch.Tensor | None = None  # what each would say alone
    words_logits_BKC: torch.Tensor | None = None
    also_BKA: torch.Tensor | None = None  # logits of the second target


class Scale(nn.Module):
    """What was fitted on training series: mean and deviation of each variable, and the axes of its pictures."""

    mean_V: torch.Tensor
    std_V: torch.Tensor
    low_V: torch.Tensor
    high_V: torch.Tensor

    def __init__(self, variables: int) -> None:
        super().__init__()
        for name, value in (("mean_V", 0.0), ("std_V", 1.0), ("low_V", 0.0), ("high_V", 1.0)):
            self.register_buffer(name, torch.full((variables,), value))

    def forward(self, x_BVT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised values, 0 where missing, and which are known (bool); both (B, V, T)."""
        known_BVT = ~x_BVT.isnan()
        # bounded, or a broken value to come could turn attention's 0 x value into NaN
        z_BVT = ((x_BVT - self.mean_V[:, None]) / self.std_V[:, None]).clamp(-OUTLIER, OUTLIER)
        return torch.where(known_BVT, z_BVT, 0.0), known_BVT


class Align(nn.Module):
    """Puts the features of pictures and numbers into one space, where training compares them."""

    def __init__(self, sight: int, words: int) -> None:
        super().__init__()
        shared = min(sight, words)
        self.sight, self.words = nn.Linear(sight, shared), nn.Linear(words, shared)
        self.log_temperature = nn.Parameter(torch.tensor(0.07).log())  # where CLIP's starts

    def forward(self, sight_BKVD: torch.Tensor, words_BKVD: torch.Tensor) -> dict[str, torch.Tensor]:
        """Fields of `Answer`."""
        return {
            "sight_BKVD": self.sight(sight_BKVD),
            "words_BKVD": self.words(words_BKVD),
            "log_temperature": self.log_temperature,
        }


class DualModel(nn.Module):
    """Towers for sight and for numbers, per variable, and what fuses them."""

    def __init__(
        self,
        wanted: Model,
        variables: int,
        classes: int,
        times_T: torch.Tensor,
        size: int,
        aligned: bool = True,
        branched: bool = True,
        also: int = 0,
        words: nn.Module | None = None,
        sight: nn.Module | None = None,
    ) -> None:
        """What training does not use is not made.

        Args:
            size: pixels of a picture's side.
            aligned: training compares pictures with numbers.
            branched: training asks each of them what it would say alone.
            also: values of a second target that training asks for; 0: there is none.
            words, sight: towers that are pretrained (`hublanguage`, `hubvision`); default: made here.
        """
        super().__init__()
        self.kind = wanted.type
        self.scale = Scale(variables)
        self.words = (words or _words(wanted, variables, times_T)) if wanted.reads else None
        self.sight = (sight or _sight(wanted, size)) if wanted.sees else None
        seen = 1 if wanted.type == "numeric" else variables
        width = (wanted.language.dim if wanted.reads else 0) + (wanted.vision.dim if wanted.sees else 0)

        def fusion(inputs: int) -> Fusion:
            return Fusion(inputs, seen, wanted.dim, wanted.fusion_depth, wanted.fusion_heads, wanted.dropout)

        self.fusion, self.classify = fusion(width), nn.Linear(wanted.dim, classes)
        self.tell_also = nn.Linear(wanted.dim, also) if also else None
        both = wanted.type == "dual_modal"
        self.align = Align(wanted.vision.dim, wanted.language.dim) if both and aligned else None
        self.alone = None
        if both and branched:
            inputs = {"sight": wanted.vision.dim, "words": wanted.language.dim}
            self.alone = nn.ModuleDict(
                {name: nn.ModuleList([fusion(dim), nn.Linear(wanted.dim, classes)]) for name, dim in inputs.items()}
            )

    def forward(self, x_BVT: torch.Tensor, length_BK: torch.Tensor, seen: torch.Tensor | None = None) -> Answer:
        """What to say after `length_BK` steps of each series.

        Args:
            x_BVT: values in their own units, NaN where missing.
            length_BK: steps of each prefix, 1 to T.
            seen: for models that see, of each prefix: coverage of the line plots, uint8 (B, K, V, H, W), or what a
                frozen tower makes of them, floating point (B, K, V, E).
        """
        batch, prefixes = length_BK.shape
        z_BVT, known_BVT = self.scale(x_BVT)
        known_NV = language.at_lengths(known_BVT.cumsum(dim=2).transpose(1, 2)[..., None], length_BK)
        known_NV = known_NV.reshape(batch * prefixes, -1) > 0
        words = sight = None
        if self.words is not None:
            words = self.words(z_BVT, known_BVT, length_BK)
        if self.sight is not None:
            if seen is None:
                raise ValueError(f"a {self.kind} model needs pictures")
            sight = self._see(seen)
        if self.kind == "numeric":
            known_NV = known_NV.any(dim=1, keepdim=True)
        both_BKVD = torch.cat([features for features in (words, sight) if features is not None], dim=-1)

        def fused(fusion: nn.Module, x_BKVD: torch.Tensor) -> torch.Tensor:
            return fusion(x_BKVD.flatten(0, 1), known_NV).view(batch, prefixes, -1)

        fused_BKD = fused(self.fusion, both_BKVD)
        answer = Answer(self.classify(fused_BKD))
        if not self.training:
            return answer
        if self.tell_also is not None:
            answer = answer._replace(also_BKA=self.tell_also(fused_BKD))
        if self.align is not None:
            answer = answer._replace(**self.align(sight, words))
        if self.alone is not None:
            answer = answer._replace(
                **{
                    f"{name}_logits_BKC": self.alone[name][1](fused(self.alone[name][0], features))
                    for name, features in (("sight", sight), ("words", words))
                }
            )
        return answer

    def _see(self, seen: torch.Tensor) -> torch.Tensor:
        """(B, K, V, D) of pictures or embeddings."""
        assert self.sight is not None
        if isinstance(self.sight, HubVision):
            return self.sight(seen.flatten(0, 1)).unflatten(0, seen.shape[:2])
        planes_N1HW = seen.flatten(0, 2)[:, None].to(self.scale.mean_V.dtype) / 255
        return self.sight(planes_N1HW).view(*seen.shape[:3], -1)


def _words(wanted: Model, variables: int, times_T: torch.Tensor) -> nn.Module:
    settings = wanted.language
    tower = language.Numeric if wanted.type == "numeric" else language.PatchLanguage
    return tower(variables, times_T, settings.patch, settings.dim, settings.depth, settings.heads, settings.dropout)


def _sight(wanted: Model, size: int) -> nn.Module:
    settings = wanted.vision
    if settings.tower == "small_vit":
        return vision.SmallViT(size, settings.patch, settings.dim, settings.depth, settings.heads, settings.dropout)
    return vision.SmallCNN(size, settings.dim, settings.channels, settings.dropout)
