"""A network that somebody else has trained, as a part of ours.

One that stays as it is, `Frozen`, is no part of what is trained: no optimizer, average or checkpoint holds its weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from shared_core.errors import UserError


@dataclass(frozen=True)
class Pretrained:
    """A network of the Hub, in evaluation mode, on the CPU."""

    key: str  # the setting that names it, for messages
    name: str  # OWNER/NAME@COMMIT
    network: nn.Module
    sha256: str  # of its weights


class _Shared:
    """What holds a network that is never changed: copies of a model have the same one."""

    def __init__(self, network: nn.Module) -> None:
        self.network, self.device = network, torch.device("cpu")

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self


class Frozen(nn.Module):
    """A network without its weights in the state dict: their SHA-256 stands there, and a state dict with another one is
    refused."""

    sha256: torch.Tensor

    def __init__(self, tower: Pretrained) -> None:
        super().__init__()
        self.key, self.name, self.digest = tower.key, tower.name, tower.sha256
        self._shared = _Shared(tower.network.eval().requires_grad_(False))  # in an object, hence no submodule
        self.register_buffer("sha256", torch.frombuffer(bytearray.fromhex(tower.sha256), dtype=torch.uint8))

    def on(self, device: torch.device) -> nn.Module:
        """The network, in evaluation mode; it is moved to where it is used."""
        if self._shared.device != device:
            self._shared.network.to(device)
            self._shared.device = device
        return self._shared.network

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        saved = state_dict.get(f"{prefix}sha256")
        if saved is not None and bytes(saved.cpu().tolist()).hex() != self.digest:
            raise UserError(
                f"{self.key}: the weights of {self.name} are not those that this model was trained with; name the "
                "revision that it was trained with, OWNER/NAME@COMMIT"
            )
        super()._load_from_state_dict(state_dict, prefix, *rest)


def checksum(network: nn.Module) -> str:
    """SHA-256 of all parameters and persistent buffers, whatever their names: those change with the library."""
    tensors = (tensor.detach().cpu().contiguous() for tensor in network.state_dict().values())
    each = [
        hashlib.sha256(
            f"{tensor.dtype}{tuple(tensor.shape)}".encode() + tensor.reshape(-1).view(torch.uint8).numpy().data
        )
        for tensor in tensors
    ]
    return hashlib.sha256("".join(sorted(one.hexdigest() for one in each)).encode()).hexdigest()


def freeze_unused(network: nn.Module, use: Callable[[], torch.Tensor]) -> None:
    """Take what `use` does not go through (a head, the layers after the chosen one) out of training.

    Processes that train together would wait for its gradients.
    """
    with torch.enable_grad():
        use().sum().backward()
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.grad is not None)
    network.zero_grad(set_to_none=True)
