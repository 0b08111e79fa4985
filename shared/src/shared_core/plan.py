"""What a run will cost, before it does: arithmetic, memory, disk and time."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from shared_core import gpus
from shared_core.progress import duration

if TYPE_CHECKING:
    from torch import nn

    from shared_core.costs import Costs, Pace
    from shared_core.runtime import Runtime
    from shared_core.settings import RunConfig
    from shared_core.task import Task


ROOM = 0.9  # share of a device's memory that a plan may fill


@dataclass(frozen=True)
class Plan:
    """The costs of one run. Bytes are per device; FLOP count a multiply-add as 2."""

    name: str
    device: str
    precision: str
    parameters: int
    trainable: int
    flops_per_sample: float  # forward and backward
    batch: str  # how the effective batch is made up
    epochs: int
    steps: int  # optimizer steps
    samples: int
    memory: dict[str, float]  # bytes: weights, gradients, optimizer, averaged weights, activations, workspace
    memory_available: float | None
    disk_bytes: float
    checkpoint_bytes: float
    step_seconds: float | None
    measured: bool  # whether `step_seconds` was measured on `device`
    notes: list[str] = field(default_factory=list)

    @property
    def peak_memory_bytes(self) -> float:
        return sum(self.memory.values())

    @property
    def room(self) -> float:
        """Bytes that a plan may fill of the memory, which it may be wrong by a tenth about; endless where not known."""
        return math.inf if self.memory_available is None else ROOM * self.memory_available

    @property
    def seconds(self) -> float | None:
        """Training time, without evaluations and checkpoints."""
        return None if self.step_seconds is None else self.step_seconds * self.steps

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "peak_memory_bytes": self.peak_memory_bytes, "seconds": self.seconds}

    def render(self) -> str:
        """A table to read."""
        total = self.flops_per_sample * self.samples
        memory = quantity(self.peak_memory_bytes, "B")
        if self.memory_available:
            memory += f" of {quantity(self.memory_available, 'B')}"
        how = "measured" if self.measured else "estimated"
        rows = [
            ("device", f"{self.device}, {self.precision}"),
            ("parameters", f"{self.parameters:,}" + _unless(self.trainable, self.parameters, " ({:,} trainable)")),
            ("arithmetic", f"{quantity(self.flops_per_sample, 'FLOP')} per sample, {quantity(total, 'FLOP')} in all"),
            ("batch", self.batch),
            ("steps", f"{self.steps:,} ({self.samples:,} samples)"),
            ("memory, peak", f"{memory} (estimated)"),
            *((f"  {name}", quantity(size, "B")) for name, size in self.memory.items() if size),
            ("disk", f"{quantity(self.disk_bytes, 'B')} ({quantity(self.checkpoint_bytes, 'B')} per checkpoint)"),
        ]
        if self.step_seconds is None or self.seconds is None:
            rows.append(("time", "not known: measure with --steps 5, or name a GPU with --gpu"))
        else:
            pace = f"{_short(self.seconds / self.epochs)} per epoch, {_short(self.step_seconds)} per step, {how}"
            rows.append(("time", f"{duration(self.seconds)} of training ({pace})"))
        width = max(len(name) for name, _ in rows) + 2
        lines = [f"plan of {self.name}", *(f"  {name:<{width}}{value}" for name, value in rows)]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def plan(config: RunConfig, task: Task, runtime: Runtime, steps: int = 5, gpu: str | None = None) -> Plan:
    """Plan the run that `config` describes.

    Arithmetic and memory are counted on a few samples and scaled up. Time is measured on the device that is here, over
    at most `steps` optimizer steps on full batches (`costs.pace`); for a named GPU it comes from its data sheet.

    Args:
        gpu: name of a GPU in `gpus.GPUS`.

    Raises:
        UserError: no such GPU, a precision it has not, or the model lacks gradient checkpointing although it is asked
            for.
    """
    import torch

    from shared_core import costs, microbatch, optim
    from shared_core.learner import use_gradient_checkpointing

    named = gpus.find(gpu) if gpu else None
    precision = _precision(config, runtime, named)
    unplanned = task.leave_out_missing()
    steps_per_epoch = task.batches.steps_per_epoch(config.training.accumulation)
    total_steps, epochs = (f(steps_per_epoch) for f in (config.training.total_steps, config.training.total_epochs))
    model = task.model
    if any(tensor.device != runtime.device for tensor in model.parameters()):  # fake tensors cannot be moved
        model = model.to(runtime.device)
    if config.runtime.gradient_checkpointing:
        use_gradient_checkpointing(model)
    again = config.runtime.gradient_checkpointing
    measured = costs.measure(task, model, next(iter(task.batches.epoch(0, 0))), precision, peak=again)
    memory, checkpoint = _bytes(config, task, model, measured)
    if config.runtime.fsdp and runtime.world > 1:
        memory = _sharded(memory, model, runtime.world)
    training, notes = config.training, [*unplanned, *_notes(config, runtime.world), *task.plan_notes()]
    notes += optim.warnings(config.scheduler, total_steps)
    effective = task.batches.batch_size * training.accumulation * runtime.world

    device, available, seconds, here = _describe(runtime), None, None, False
    if named is None and steps > 0:
        try:
            pace = costs.pace(config, task, model, runtime, steps)
            seconds, here = pace.seconds, pace.steps > 0
            notes.append(_measured(pace))
        except RuntimeError as error:
            if not microbatch.is_out_of_memory(error):
                raise
            notes.append("a batch does not fit this device at once; training would split it into pieces")
    if runtime.device.type == "cuda" and named is None:
        available = float(torch.cuda.get_device_properties(runtime.device).total_memory)
        memory["CUDA context"] = gpus.CONTEXT_BYTES
    if named is not None:
        device, available = f"{runtime.world} x {named.name} (not here)", named.memory
        memory["CUDA context"] = gpus.CONTEXT_BYTES
        seconds, how = _roofline(named, config, measured, memory, precision)
        notes += how
    if available is not None and sum(memory.values()) > ROOM * available:
        notes.append(_too_large(memory, ROOM * available, _micro_batch(config)))
    return Plan(
        name=config.name or "default",
        device=device,
        precision=precision,
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        flops_per_sample=measured.flops_per_sample,
        batch=f"{effective} = {task.batches.batch_size} x {training.accumulation} passes x {runtime.world} processes",
        epochs=epochs,
        steps=total_steps,
        samples=total_steps * effective,
        memory=memory,
        memory_available=available,
        disk_bytes=checkpoint * _checkpoints(config, epochs),
        checkpoint_bytes=checkpoint,
        step_seconds=seconds,
        measured=here,
        notes=notes,
    )


def quantity(value: float, unit: str) -> str:
    """`quantity(1.5e9, "B") == "1.5 GB"`, in powers of 1000."""
    for power, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def _short(seconds: float) -> str:
    if seconds >= 60:
        return duration(seconds)
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def _precision(config: RunConfig, runtime: Runtime, named: gpus.Gpu | None) -> gpus.Precision:
    """The precision that the run would have on the planned device."""
    if named is None:
        return runtime.precision  # type: ignore[return-value]
    wanted = config.runtime.precision
    if wanted == "auto":
        return "bf16" if named.bf16 else "fp32"
    named.peak(wanted)  # refuses what the GPU has not
    return wanted


def _micro_batch(config: RunConfig) -> int:
    return min(config.training.micro_batch or config.training.batch_size, config.training.batch_size)


def _bytes(config: RunConfig, task: Task, model: nn.Module, measured: Costs) -> tuple[dict[str, float], float]:
    """(memory by purpose on one device, size of a checkpoint)."""
    from shared_core import optim
    from shared_core.tally import storages

    trainable = [p for p in model.parameters() if p.requires_grad]
    weights = float(sum(storages(model.state_dict()).values()))  # tied ones once
    gradients = _size(trainable)
    # AdamW keeps two moments per weight, Muon one
    states = sum(
        (1 if isinstance(optimizer, optim.Muon) else 2) * _size(p for g in optimizer.param_groups for p in g["params"])
        for optimizer in optim.build(config.optimizer, model, task.no_decay)
    )
    averaged = weights if config.training.ema_decay else 0.0
    samples = _micro_batch(config)
    activations = measured.fixed_bytes + samples * measured.bytes_per_sample
    # while the backward pass works on the largest tensor, its gradient and one more of its size are there; what is
    # computed again there may be more
    workspace = max(2 * samples * measured.largest_per_sample, measured.peak(samples) - activations - gradients)
    memory = {
        "weights": weights,
        "gradients": gradients,
        "optimizer": states,
        "averaged weights": averaged,
        "activations": activations,
        "workspace": workspace,
    }
    return memory, weights + averaged + states


def _sharded(memory: dict[str, float], model: nn.Module, world: int) -> dict[str, float]:
    """The same where FSDP splits what belongs to the weights over `world` processes."""
    from shared_core import fsdp

    split = {name: memory[name] / world for name in ("weights", "gradients", "optimizer", "averaged weights")}
    inner = [_size(block.parameters()) for block in fsdp.blocks(model)]
    # a block whole, with its gradient, while the next one is fetched; the root holds what no block does, all the time
    largest = max(inner, default=0.0)
    root = _size(model.parameters()) - sum(inner)
    return {**memory, **split, "whole blocks": 3 * largest + 2 * root}


def _size(tensors: Any) -> float:
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))


def _checkpoints(config: RunConfig, epochs: int) -> int:
    """Most checkpoints on the disk at once: the kept ones, the best one, and the one being written."""
    training = config.training
    for_good = epochs // training.keep_every_epochs if training.keep_every_epochs else 0
    return training.keep_checkpoints + 2 + for_good


def _roofline(
    gpu: gpus.Gpu, config: RunConfig, measured: Costs, memory: dict[str, float], precision: gpus.Precision
) -> tuple[float, list[str]]:
    """(seconds per optimizer step, what they rest on): the slowest of arithmetic, memory traffic and issuing."""
    training, pieces = config.training, -(-config.training.batch_size // _micro_batch(config))
    samples, passes = training.batch_size * training.accumulation, pieces * training.accumulation
    arithmetic = samples * measured.flops_per_sample / (gpu.peak(precision) * gpus.COMPUTE_UTILISATION)
    # activations are written and read forward, read and their gradients written and read backward; the optimizer reads
    # weights, gradients and its states and writes all but the gradients
    traffic = 5 * samples * measured.bytes_per_sample
    traffic += 2 * (memory["weights"] + memory["optimizer"]) + memory["gradients"] + 2 * memory["averaged weights"]
    transfer = traffic / (gpu.bandwidth * gpus.BANDWIDTH_UTILISATION)
    issuing = 0.0 if config.runtime.compile else passes * measured.operations * gpus.SECONDS_PER_OPERATION
    parts = {"arithmetic": arithmetic, "memory traffic": transfer, "issuing operations": issuing}
    slowest = max(parts, key=lambda name: parts[name])
    return parts[slowest], [
        f"time: estimated from the data sheet and limited by {slowest}; assumes {gpus.COMPUTE_UTILISATION:.0%} of "
        f"{quantity(gpu.peak(precision), 'FLOP/s')}, {gpus.BANDWIDTH_UTILISATION:.0%} of "
        f"{quantity(gpu.bandwidth, 'B/s')}, {gpus.SECONDS_PER_OPERATION * 1e6:g} µs per operation, and data that is "
        "never waited for"
    ]


def _measured(pace: Pace) -> str:
    if pace.steps:
        return f"time: median of {pace.steps} step{'s' if pace.steps > 1 else ''} here, with the wait for data"
    return f"time: scaled up from a piece of {pace.samples} samples here; measuring whole steps would take longer"


def _too_large(memory: dict[str, float], room: float, samples: int) -> str:
    """A note that says what would fit into so many bytes."""
    growing = (memory["activations"] + memory["workspace"]) / samples
    left = room - (sum(memory.values()) - growing * samples)
    if left < growing:
        return (
            "does not fit: weights and optimizer alone fill the memory, of which a tenth is kept free; use a smaller "
            "model, or split it with --runtime.fsdp true and more --processes"
        )
    fits = int(left / growing)
    return f"does not fit at once; --training.micro_batch {fits} would (the effective batch stays the same)"


def _notes(config: RunConfig, world: int) -> list[str]:
    notes = ["evaluations and checkpoints take time besides"]
    if world > 1:
        notes.append("what the processes tell each other takes time besides: gradients, and weights under FSDP")
    if config.runtime.fsdp and world > 1:
        notes.append("an evaluation puts the whole weights on every device, without gradients and optimizer")
    return notes


def _describe(runtime: Runtime) -> str:
    about = runtime.describe()
    return f"{runtime.world} x {about['device']}" + (
        f" with {about['threads']} threads" if runtime.device.type == "cpu" else ""
    )


def _unless(value: int, other: int, form: str) -> str:
    return "" if value == other else form.format(value)
