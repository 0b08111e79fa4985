"""What one training step costs, found on a real but small batch: arithmetic, memory, time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from shared_core import microbatch, optim, progress
from shared_core.runtime import Runtime
from shared_core.settings import RunConfig
from shared_core.tally import Tally, storages
from shared_core.task import Task

SMALL_BATCH = 8
MOST_SECONDS = 8.0  # of whole steps; where they would take longer, fewer are measured, or a part of one
PROBE_SECONDS = 2.0  # of the pieces that tell how long a step takes
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Costs:
    """Costs of a forward and backward pass. Bytes are those kept between the two."""

    flops_per_sample: float  # matrix products, convolutions, attention; a multiply-add counts 2
    bytes_per_sample: float
    fixed_bytes: float  # whatever the batch size, such as the weights' copies in lower precision
    largest_per_sample: float  # of the largest tensor kept
    operations: int  # issued to the device
    peak_per_sample: float = 0.0  # of all that a pass makes, gradients too; 0: not looked for
    peak_fixed: float = 0.0

    def peak(self, samples: int) -> float:
        """Most bytes that a pass over so many samples makes and uses at once."""
        return self.peak_fixed + samples * self.peak_per_sample


@dataclass(frozen=True)
class Pace:
    """Seconds of an optimizer step on this device, waiting for data included."""

    seconds: float
    steps: int  # measured; 0: scaled up from a piece of a batch
    samples: int  # of that piece


def measure(task: Task, model: nn.Module, batch: Any, precision: str, peak: bool = False) -> Costs:
    """Costs of `task.loss` on `batch`, found on pieces of at most eight samples.

    They follow from the shapes, so that what takes long is not computed (`tally`); where a loss fails without, it is,
    and a message says so. Two sizes of piece tell what grows with the batch from what does not. The model's weights,
    buffers and gradients and the random state are left as they were.

    Args:
        peak: also find the peak during the backward pass, for models that compute activations again there.
    """
    try:
        return passes(task, model, batch, precision, compute=False, peak=peak)
    except Exception as error:  # whatever it is: if it is not about the values, computing fails alike
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        progress.message(f"plan: the loss wants real values ({reason}); computing them, which can take minutes")
    return passes(task, model, batch, precision, compute=True, peak=peak)


def passes(task: Task, model: nn.Module, batch: Any, precision: str, compute: bool, peak: bool = False) -> Costs:
    """As `measure`, by passes that do or do not compute."""
    whole = microbatch.size(batch)
    large = min(whole, SMALL_BATCH)
    small = large // 2 if large >= 4 else large  # never 1: batch normalisation needs two samples
    with _untouched(model):
        first = Tally(compute, watch=peak)
        kept_small, loss = _forward(task, model, _piece(batch, small), precision, first)
        if peak:
            with first:
                loss.backward()
            model.zero_grad(set_to_none=True)
        del loss
        tally = Tally(compute, watch=peak)
        kept, loss = _forward(task, model, _piece(batch, large), precision, tally)
        with tally:
            loss.backward()
    bytes_small, bytes_large = sum(kept_small), sum(kept)
    slope = (bytes_large - bytes_small) / (large - small) if large > small else bytes_large / large
    fixed = max(0.0, bytes_large - slope * large)
    rise = (tally.peak - first.peak) / (large - small) if large > small else tally.peak / large
    at_least = max(0.0, tally.peak - rise * large)
    return Costs(tally.flops / large, slope, fixed, max(kept, default=0) / large, tally.operations, rise, at_least)


def pace(config: RunConfig, task: Task, model: nn.Module, runtime: Runtime, steps: int) -> Pace:
    """How fast this device trains: the median of at most `steps` optimizer steps on real batches, after one to warm up.

    Where even one takes too long, what a piece of a batch takes, times the pieces of a step. The learning rate is 0, so
    that the weights stay as they are. Raises torch.OutOfMemoryError where a batch does not fit.
    """
    batches, wanted = _endless(task), config.training
    step = _step(config, task, model, runtime, batches)
    with _untouched(model):
        began = time.perf_counter()
        batch = next(batches)
        data = time.perf_counter() - began
        samples, seconds = _probe(task, model, batch, runtime, wanted.micro_batch)
        expected = (data + seconds) * wanted.accumulation
        if 2 * expected > MOST_SECONDS:
            return Pace(expected, 0, samples)
        started = time.perf_counter()
        step()
        measured: list[float] = []
        while len(measured) < steps and (not measured or time.perf_counter() - started < MOST_SECONDS):
            measured.append(_seconds(step, runtime))
    return Pace(median(measured), len(measured), 0)


def _probe(task: Task, model: nn.Module, batch: Any, runtime: Runtime, limit: int | None) -> tuple[int, float]:
    """(samples of the largest piece of a batch that could be tried in a short time, seconds of a batch).

    On a GPU small pieces take as long as larger ones, so what grows from piece to piece is scaled up, not the whole.
    """
    whole = microbatch.size(batch)
    most, samples, seconds = min(limit or whole, whole), 0, 0.0
    first = partial(_pass, task, model, _piece(batch, min(2, most)), runtime)
    _seconds(first, runtime)  # prepares what later ones find
    started = time.perf_counter()
    while True:
        before, took = samples, seconds
        samples = min(2 * before or 2, most)
        again = partial(_pass, task, model, _piece(batch, samples), runtime)
        seconds = min(_seconds(again, runtime) for _ in range(2))  # the first may load kernels
        if samples == most or time.perf_counter() - started > PROBE_SECONDS / 2:  # the next one takes twice as long
            growth = max(0.0, (seconds - took) / (samples - before))
            return samples, (seconds + growth * (most - samples)) * whole / most


def _pass(task: Task, model: nn.Module, batch: Any, runtime: Runtime) -> None:
    _loss(task, model, batch, runtime.precision).backward()
    model.zero_grad(set_to_none=True)


def _step(
    config: RunConfig, task: Task, model: nn.Module, runtime: Runtime, batches: Iterator[Any]
) -> Callable[[], None]:
    """An optimizer step that changes nothing but takes as long as any."""
    wanted, optimizers = config.training, optim.build(config.optimizer, model, task.no_decay)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = 0.0

    def step() -> None:
        for _ in range(wanted.accumulation):
            for piece, share in microbatch.pieces(next(batches), wanted.micro_batch):
                (_loss(task, model, piece, runtime.precision) * share / wanted.accumulation).backward()
        if wanted.clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), wanted.clip_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step


def _seconds(action: Callable[[], None], runtime: Runtime) -> float:
    began = time.perf_counter()
    action()
    if runtime.device.type == "cuda":
        torch.cuda.synchronize(runtime.device)
    return time.perf_counter() - began


def _loss(task: Task, model: nn.Module, batch: Any, precision: str) -> torch.Tensor:
    device = next(model.parameters()).device.type
    with torch.autocast(device, _DTYPES.get(precision), enabled=precision in _DTYPES):
        return task.loss(model, batch)[0]


def _forward(task: Task, model: nn.Module, batch: Any, precision: str, tally: Tally) -> tuple[list[int], torch.Tensor]:
    """(sizes of what is in memory after the forward pass for the backward pass, loss)."""
    with tally:
        loss = _loss(task, model, batch, precision)
    # the batch stays on the device, whether or not the graph needs it; the loss stays because of this function alone
    kept = {**storages(batch), **tally.alive()}
    for memory in storages(loss):
        kept.pop(memory, None)
    return list(kept.values()), loss


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
