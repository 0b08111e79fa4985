"""What one training step costs, measured on a real but small batch: arithmetic, memory, time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

from shared_core import microbatch, optim
from shared_core.runtime import Runtime
from shared_core.settings import RunConfig
from shared_core.task import Task

SMALL_BATCH = 8
MOST_SECONDS = 60.0  # measuring stops after this long, once it has a step
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Costs:
    """Costs of a forward and backward pass. Bytes are those kept between the two."""

    flops_per_sample: float  # matrix products, convolutions, attention; a multiply-add counts 2
    bytes_per_sample: float
    fixed_bytes: float  # whatever the batch size, such as the weights' copies in lower precision
    largest_per_sample: float  # of the largest tensor kept
    operations: int  # issued to the device


def measure(task: Task, model: nn.Module, batch: Any, precision: str) -> Costs:
    """Costs of `task.loss` on `batch`, found on pieces of at most eight samples.

    Two sizes of piece tell what grows with the batch from what does not. The model's weights, buffers and gradients
    and the random state are left as they were.
    """
    whole = microbatch.size(batch)
    large = min(whole, SMALL_BATCH)
    small = large // 2 if large >= 4 else large  # never 1: batch normalisation needs two samples
    with _untouched(model):
        kept_small, _, _ = _kept(task, model, _piece(batch, small), precision)
        kept, largest, operations = _kept(task, model, _piece(batch, large), precision)
        flops = _flops(task, model, _piece(batch, large), precision)
    slope = (kept - kept_small) / (large - small) if large > small else kept / large
    return Costs(flops / large, slope, max(0.0, kept - slope * large), largest / large, operations)


def step_seconds(config: RunConfig, task: Task, model: nn.Module, runtime: Runtime, steps: int) -> list[float]:
    """Seconds of each of `steps` optimizer steps on real batches, waiting for data included; one warm-up before them.

    The learning rate is 0, so that the weights stay as they are. Raises torch.OutOfMemoryError where a batch does not
    fit.
    """
    wanted = config.training
    optimizers = optim.build(config.optimizer, model, task.no_decay)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = 0.0
    batches, seconds = _endless(task), list[float]()
    started = time.perf_counter()
    with _untouched(model):
        for _ in range(steps + 1):
            began = time.perf_counter()
            for _ in range(wanted.accumulation):
                for piece, share in microbatch.pieces(next(batches), wanted.micro_batch):
                    (_loss(task, model, piece, runtime.precision) * share / wanted.accumulation).backward()
            if wanted.clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), wanted.clip_norm)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            if runtime.device.type == "cuda":
                torch.cuda.synchronize(runtime.device)
            seconds.append(time.perf_counter() - began)
            if len(seconds) > 1 and time.perf_counter() - started > MOST_SECONDS:
                break
    return seconds[1:]


def _loss(task: Task, model: nn.Module, batch: Any, precision: str) -> torch.Tensor:
    device = next(model.parameters()).device.type
    with torch.autocast(device, _DTYPES.get(precision), enabled=precision in _DTYPES):
        return task.loss(model, batch)[0]


def _flops(task: Task, model: nn.Module, batch: Any, precision: str) -> float:
    # attention is counted as the matrix products it consists of: the fused CPU kernel has no formula in PyTorch
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        _loss(task, model, batch, precision).backward()
    return float(counter.get_total_flops())


def _kept(task: Task, model: nn.Module, batch: Any, precision: str) -> tuple[int, int, int]:
    """(bytes kept for the backward pass, those of the largest tensor, operations issued)."""
    own = {_storage(tensor)[0] for tensor in (*model.parameters(), *model.buffers())}
    # the batch itself stays on the device, whether or not the graph needs it
    kept = dict(_storage(leaf) for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor))
    counter = _Operations()

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        key, size = _storage(tensor)
        if key not in own:
            kept[key] = size
        return tensor

    with counter:
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = _loss(task, model, batch, precision)
        loss.backward()
    return sum(kept.values()), max(kept.values()), counter.count


def _storage(tensor: torch.Tensor) -> tuple[int, int]:
    """Identity and bytes of what a tensor looks at; views of one storage count once."""
    if tensor.layout is not torch.strided:
        return id(tensor), tensor.numel() * tensor.element_size()
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.nbytes()


class _Operations(TorchDispatchMode):
    """Counts what is issued to the device; views cost nothing there."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Training mode inside; buffers, gradients, mode and random state as before afterwards."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    training = model.training
    model.train()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        model.train(training)
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def _piece(batch: Any, limit: int) -> Any:
    """The first `limit` samples, in memory of their own."""
    piece, _ = next(microbatch.pieces(batch, limit))
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, piece)


def _endless(task: Task) -> Iterator[Any]:
    epoch = 0
    while True:
        yield from task.batches.epoch(epoch, 0)
        epoch += 1
