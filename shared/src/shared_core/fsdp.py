"""Fully sharded data parallelism (PyTorch's FSDP2): weights, gradients and optimizer states split over processes.

Each process holds 1 / world of every parameter; a block's parameters are put together for its forward and backward
pass only (Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054; Zhao et al. 2023, https://arxiv.org/abs/2304.11277).
The imports are local: `torch.distributed.tensor` takes a second, and only sharded runs need it.
"""

import warnings
from collections.abc import Iterator

import torch
from torch import nn


def shard(model: nn.Module, device: torch.device, world: int) -> None:
    """Split the parameters of `model` in place. One block at a time is ever whole, so that is what memory must hold."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # it warns of models that change an output in place, which ours do not
    warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (world,))
    for parameter in model.parameters():  # FSDP2 takes no other layout, such as channels last
        parameter.data = parameter.data.contiguous()
    for block in blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)  # what no block holds


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The units of sharding: members of the outermost `ModuleList`s and `Sequential`s that have parameters."""
    if not isinstance(module, nn.ModuleList | nn.Sequential):
        for child in module.children():
            yield from blocks(child)
        return
    for member in module:
        if isinstance(member, nn.ModuleList):  # has no forward pass of its own
            yield from blocks(member)
        elif any(True for _ in member.parameters()):
            yield member


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor; of a sharded one a copy, for which all processes must call this together."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that this process holds, sharing its memory."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def together(part: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The whole tensor of which every process gives its part, split as `like` is; all call this together."""
    if not hasattr(like, "device_mesh"):
        return part
    from torch.distributed.tensor import DTensor

    assert isinstance(like, DTensor)
    split = DTensor.from_local(part, like.device_mesh, like.placements, shape=like.shape, stride=like.stride())
    return split.full_tensor()


def local_part(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The part of a whole tensor that corresponds to this process's part of `like`."""
    if not hasattr(like, "device_mesh"):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None).to_local()
