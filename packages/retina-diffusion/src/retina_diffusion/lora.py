"""Fine-tuning a few of a NextDiT's parameters: low-rank adapters (Hu et al. 2021, "LoRA"), or what masks need alone.

A linear layer W becomes W + (alpha / R) up down, where up starts at 0, so that nothing changes at first. The adapters
are parameters `down` and `up` beside the layer's `weight`, which keeps its name: a state dict of plain tensors. `merge`
makes plain layers of them again, whose answers are the same.

Shapes: I features into a layer, O out of it, R the rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from retina_diffusion.layers import Attention, FeedForward
from retina_diffusion.nextdit import NextDiT

Which = Literal["all", "new", "lora"]


class LowRank(nn.Linear):
    """A linear layer without bias, and its adapter."""

    def __init__(self, of: nn.Linear, rank: int, alpha: float) -> None:
        with torch.device("meta"):  # the weight is the other layer's
            super().__init__(of.in_features, of.out_features, bias=False)
        self.weight, self.factor = of.weight, alpha / rank
        self.down = nn.Parameter(of.weight.new_empty(rank, of.in_features).normal_(std=of.in_features**-0.5))
        self.up = nn.Parameter(of.weight.new_zeros(of.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., O) of (..., I)."""
        return F.linear(x, self.weight) + F.linear(F.linear(x, self.down), self.up) * self.factor

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The plain layer that answers the same."""
        with torch.device("meta"):
            plain = nn.Linear(self.in_features, self.out_features, bias=False)
        plain.weight = nn.Parameter(self.weight + self.factor * self.up @ self.down)
        return plain


def add(model: NextDiT, rank: int, alpha: float) -> None:
    """Adapters for the linear layers of attention and feed-forward; all else is frozen but what masks need (`freeze`).

    Raises ValueError where the rank is no use, or there are adapters already.
    """
    if not 0 < rank < model.shape.dim:
        raise ValueError(f"rank: {rank}; must be at least 1 and below the network's dim, {model.shape.dim}")
    if _has_adapters(model):
        raise ValueError("the network has adapters already; merge them first")
    for parent, name, layer in list(_linear(model)):
        setattr(parent, name, LowRank(layer, rank, alpha))
    freeze(model, "lora")


def merge(model: NextDiT) -> None:
    """Fold the adapters into the layers' weights: the same answers by a network without, of which everything trains."""
    for parent, name, layer in list(_linear(model)):
        if isinstance(layer, LowRank):
            setattr(parent, name, layer.merged())
    freeze(model, "all")


def freeze(model: NextDiT, which: Which) -> None:
    """Choose what trains.

    Args:
        which: `all`; `new`: what masks need, the embedding of patches and `unknown_MD`; `lora`: that and the adapters.

    Raises ValueError where adapters are to train and there are none.
    """
    if which == "lora" and not _has_adapters(model):
        raise ValueError("lora: the network has no adapters; add them first")
    for name, weight in model.named_parameters():
        new = name == "unknown_MD" or name.startswith("x_embedder.")
        adapter = name.endswith((".down", ".up"))
        weight.requires_grad_(which == "all" or new or (which == "lora" and adapter))


def _has_adapters(model: NextDiT) -> bool:
    return any(isinstance(layer, LowRank) for _, _, layer in _linear(model))


def _linear(model: NextDiT) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """The layers that adapters are for: where, by what name, and which."""
    for module in model.modules():
        if isinstance(module, Attention | FeedForward):
            for name, layer in module.named_children():
                if isinstance(layer, nn.Linear):
                    yield module, name, layer
