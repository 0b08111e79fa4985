"""Models of one architecture in one call: their layers become batched ones (`torch.func.vmap`).

Each keeps its own tensors: they are stacked for the call and their gradients come apart again, so that optimizers,
averages and checkpoints see nothing of it. The answers are those of a call for each, to numerical tolerance.

Shapes: G models of a group, B pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, vmap


def groups(models: Sequence[nn.Module]) -> list[list[int]]:
    """Places of the models that can share a call: equal in their layers and in the tensors these hold."""
    alike: dict[str, list[int]] = {}
    for place, model in enumerate(models):
        shapes = [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
        alike.setdefault(f"{model}{shapes}{_settings(model)}", []).append(place)
    return list(alike.values())


def call(models: Sequence[nn.Module], x_GB: torch.Tensor) -> Any:
    """What each of G models makes of its batch; statistics of batch normalisation are updated as by calls for each.

    `x_GB` (G, B, ...); the tensors of the result begin with (G, B).
    """
    parameters = _stack([dict(model.named_parameters()) for model in models])
    each = [dict(model.named_buffers()) for model in models]
    buffers = _stack(each)

    def one(own: dict[str, torch.Tensor], kept: dict[str, torch.Tensor], x_B: torch.Tensor) -> Any:
        return functional_call(models[0], (own, kept), (x_B,))

    found = vmap(one, randomness="different")(parameters, buffers, x_GB)
    with torch.no_grad():
        for place, own in enumerate(each):
            for name, buffer in own.items():
                buffer.copy_(buffers[name][place])
    return found


def _stack(each: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([own[name] for own in each]) for name in each[0]}


def _settings(model: nn.Module) -> list[tuple[str, Any]]:
    """What modules know beside tensors and layers, such as which attribute decides a branch."""
    plain = (bool, int, float, str, type(None))
    return [
        (f"{where}.{key}", value)
        for where, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, plain)
    ]
