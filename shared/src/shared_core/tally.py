"""What a pass through a model issues and leaves in memory, with or without computing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry


class Tally(TorchDispatchMode):
    """Counts operations, their floating-point operations, and the memory that they have made.

    Matrix products, convolutions and attention count, a multiply-add as 2; so does attention whatever kernel computes
    it, as the products that it consists of.

    Args:
        compute: False: these same operations are not computed but answer zeros of the right shape, type and layout.
            They are what takes time, so that a pass costs little more than issuing it. Everything else is computed, on
            real tensors: what branches on values, or leaves PyTorch for another library, does so on those zeros.
        watch: also look, after each operation, how much memory is in use (`peak`).
    """

    def __init__(self, compute: bool, watch: bool = False) -> None:
        super().__init__()
        self.compute, self.watch = compute, watch
        self.peak = 0  # most bytes in use at once, of those made under this mode
        self.operations = 0  # issued to the device; views cost nothing there
        self.flops = 0
        self._made: dict[StorageWeakRef, int] = {}
        self._answers: dict[tuple[Any, ...], Any] = {}  # without memory, by what determines them

    def alive(self) -> dict[StorageWeakRef, int]:
        """Bytes of each piece of memory that was made under this mode and is still in use; views share theirs."""
        return {storage: size for storage, size in self._made.items() if not storage.expired()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":  # asks a fake tensor about itself
            return func(*args, **kwargs)
        formula = _FORMULAS.get(func._overloadpacket)
        if formula is None and func._can_decompose():  # as in inference mode, where a whole `linear` arrives
            with self:
                return func.decompose(*args, **kwargs)
        hollow = formula is not None and not self.compute and not func._schema.is_mutable
        out = self._zeros(func, args, kwargs) if hollow else func(*args, **kwargs)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        if not func.is_view:
            self.operations += 1
            self._note(func, (args, kwargs), out)
        return out

    def _note(self, func: Any, inputs: Any, out: Any) -> None:
        """Remember the memory that an operation has made."""
        # what is written in place returns the memory that was given to it
        given = storages(inputs) if func._schema.is_mutable else {}
        self._made |= {key: size for key, size in storages(out).items() if key not in given}
        if self.watch:
            self._made = self.alive()
            self.peak = max(self.peak, sum(self._made.values()))

    def _zeros(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What `func` would return, but zeros."""
        key = (func, *(_layout(leaf) for leaf in tree_leaves((args, kwargs))))
        if key not in self._answers:
            with FakeTensorMode():  # knows layouts, such as channels last, as the meta device does not
                self._answers[key] = func(*tree_map(_empty, args), **tree_map(_empty, kwargs))
        return tree_map(_zero, self._answers[key])


def storages(tree: Any) -> dict[StorageWeakRef, int]:
    """Bytes of each piece of memory that the tensors of a nested structure look at; views share theirs."""
    found = [tensor.untyped_storage() for tensor in _tensors(tree)]
    return {StorageWeakRef(memory): memory.nbytes() for memory in found}


def _tensors(tree: Any) -> list[torch.Tensor]:
    """Those with memory of their own; sparse ones consist of such tensors."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided]


def _layout(leaf: Any) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    return leaf.shape, leaf.stride(), leaf.dtype, leaf.device


def _empty(leaf: Any) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device=leaf.device)


def _zero(leaf: Any) -> Any:
    return _empty(leaf).zero_() if isinstance(leaf, torch.Tensor) else leaf


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: Any, **__: Any) -> int:
    """q kᵀ, and the weights times v; what a mask leaves out counts as well."""
    return 2 * q.shape[:-1].numel() * k.shape[-2] * (q.shape[-1] + v.shape[-1])


def _attention_backward(_: torch.Tensor, *forward: Any, **more: Any) -> int:
    """Two products for each of the forward pass; what a kernel computes once more does not count."""
    return 2 * _attention(*forward, **more)


def _convolution_backward(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, *how: Any, out_val: Any = None
) -> int:
    """As much as the forward pass for each of the two gradients that is wanted (those of input and weights)."""
    *_, transposed, _, _, wanted = how
    places = x if transposed else gradient  # (N, C, ...): where the filters are applied
    products = 2 * len(places) * places.shape[2:].numel() * weight.numel()
    return products * sum(wanted[:2])


def _formulas() -> dict[Any, Callable[..., int]]:
    """PyTorch's, but for two: it knows no fused attention on CPUs, counts what others compute once more, and takes the
    gradient of a grouped convolution's weights for that of an ungrouped one's."""
    found: dict[Any, Callable[..., int]] = {**flop_registry, torch.ops.aten.convolution_backward: _convolution_backward}
    for kernel in ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention"):
        found[getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}")] = _attention
        found[getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}_backward")] = _attention_backward
    return found


_FORMULAS = _formulas()
