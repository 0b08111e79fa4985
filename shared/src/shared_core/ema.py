"""Exponential moving average of a model's weights, kept on the device."""

from collections.abc import Mapping

import torch

from shared_core import fsdp


class AveragedWeights:
    """`average <- decay * average + (1 - decay) * weights` after every optimizer step, for all that is floating point.

    The decay warms up as ``min(decay, (1 + step) / (10 + step))`` so that the random start is forgotten.

    Args:
        weights: a state dict, whose tensors the steps change in place; they may be sharded.

    Attributes:
        tensors: the averages, by the same names and sharded in the same way.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in weights.items()}
        floats = [name for name, tensor in weights.items() if tensor.is_floating_point()]
        self._averages = [fsdp.local(self.tensors[name]) for name in floats]
        self._sources = [fsdp.local(weights[name]) for name in floats]
        self._rest = [(self.tensors[name], weights[name]) for name in weights if name not in set(floats)]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """`step`: optimizer steps done, including this one."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averages, self._sources, 1 - decay)
        for ours, theirs in self._rest:
            ours.copy_(theirs)
