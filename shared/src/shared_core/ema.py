"""Exponential moving average of a model's weights, kept on the device."""

import copy

import torch
from torch import nn


class AveragedModel:
    """`average <- decay * average + (1 - decay) * model` after every optimizer step, for parameters and float buffers.

    The decay warms up as ``min(decay, (1 + step) / (10 + step))`` so that the random start is forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        ours, theirs = self.model.state_dict(), model.state_dict()
        floats = [name for name, tensor in ours.items() if tensor.is_floating_point()]
        self._averages, self._sources = [ours[name] for name in floats], [theirs[name] for name in floats]
        self._rest = [(ours[name], theirs[name]) for name in ours if name not in set(floats)]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """`step`: optimizer steps done, including this one."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averages, self._sources, 1 - decay)
        for ours, theirs in self._rest:
            ours.copy_(theirs)
