"""What learns: model, optimizers, learning rate and averaged weights. It knows of steps, not of epochs or files."""

import contextlib
import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from shared_core import checkpoint, fsdp, microbatch, optim
from shared_core.ema import AveragedWeights
from shared_core.errors import UserError
from shared_core.guard import BufferGuard
from shared_core.runtime import Runtime
from shared_core.settings import RunConfig
from shared_core.task import Task


class Learner:
    """One model in training, on this process's device, copied or sharded over the processes.

    Raises UserError where the model cannot do what the configuration asks of it.
    """

    def __init__(self, config: RunConfig, task: Task, runtime: Runtime, total_steps: int) -> None:
        self.config, self.task, self.runtime = config, task, runtime
        self.accelerator = runtime.accelerator
        self.sharded = config.runtime.fsdp and runtime.world > 1
        twin = copy.deepcopy(task.model).to("meta").eval()  # takes no memory until it borrows the weights
        self.evaluated = self.accelerator.prepare_model(twin, device_placement=False, evaluation_mode=True)
        self.model = self._prepare(task.model.to(runtime.device))
        self.averaged: AveragedWeights | None = None
        plain = self._plain()
        if config.training.ema_decay:
            self.averaged = AveragedWeights(plain.state_dict(), config.training.ema_decay)
        skips = config.training.max_skipped_steps or self.accelerator.scaler
        self.guard = BufferGuard(plain) if skips else None
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.clipped_together = [[p for p in part.parameters() if p.requires_grad] for part in task.independent(plain)]
        self.schedule = optim.Schedule(config.scheduler, total_steps)

    def _prepare(self, model: nn.Module) -> nn.Module:
        """The model as it is called in training; makes the optimizers on the way, which must know its final tensors."""
        config = self.config
        if config.runtime.gradient_checkpointing:
            use_gradient_checkpointing(model)
        if config.runtime.compile:
            model.compile()
        if self.sharded:
            self.runtime.broadcast(model.state_dict().values())  # the parts must be of one model
            fsdp.shard(model, self.runtime.device, self.runtime.world)
        self.optimizers = optim.build(config.optimizer, model, self.task.no_decay)
        for optimizer in self.optimizers:  # Accelerate divides the gradients of those it knows by fp16's scale
            self.accelerator.prepare_optimizer(optimizer)
        # "evaluation" means to Accelerate: mixed precision, but no copies that are kept equal
        return self.accelerator.prepare_model(model, evaluation_mode=self.sharded)

    def _plain(self) -> nn.Module:
        """The model without the wrapper that keeps the processes' copies equal."""
        return self.accelerator.unwrap_model(self.model)

    # ---- a step

    def step(
        self, batches: list[Any], step: int, micro_batch: int | None
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """One optimizer step over `batches`, skipped on the device where a gradient is not finite.

        Args:
            step: how many steps were done before.
            micro_batch: most samples of one forward pass.

        Returns:
            Scalars to log, and () 1 where the step was skipped, both on the device.
        """
        self.schedule.apply(self.optimizers, step)
        work = [
            (piece, share / len(batches)) for batch in batches for piece, share in microbatch.pieces(batch, micro_batch)
        ]
        logs: dict[str, torch.Tensor] = {}
        if self.guard:
            self.guard.remember()
        for i, (piece, share) in enumerate(work):
            is_last = i == len(work) - 1
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(self.model):
                loss, values = self.task.loss(self.model, piece)
                self.accelerator.backward(loss if share == 1.0 else loss * share)
            for name, value in {"loss": loss, **values}.items():
                part = value.detach() if share == 1.0 else value.detach() * share
                logs[name] = logs[name] + part if name in logs else part
        norm = self._clip()
        bad = self._apply(norm)
        self.zero_grad()
        if self.sharded:  # statistics of one process's batches; copies of a model have this done by their wrapper
            self.runtime.broadcast(self.model.buffers())
        if self.averaged:
            self.averaged.update(step + 1)
        return {**logs, "grad_norm": norm}, bad

    def _clip(self) -> torch.Tensor:
        """Clip the gradient, of each independent part by its own norm; the norm of all before, the same everywhere."""
        limit = self.config.training.clip_norm or math.inf
        if len(self.clipped_together) == 1:
            return fsdp.whole(self.accelerator.clip_grad_norm_(self.parameters, limit))
        self.accelerator.unscale_gradients()  # once: Accelerate's clipping would divide by fp16's scale each time
        norms = [fsdp.whole(nn.utils.clip_grad_norm_(part, limit)) for part in self.clipped_together]
        return torch.stack(norms).norm()

    def _apply(self, norm: torch.Tensor) -> torch.Tensor:
        """Step the optimizers, all or none: not where `norm` is not finite. Returns whether it is not, as () 0 or 1."""
        bad = (~torch.isfinite(norm)).float()
        if self.guard:
            self.guard.undo(bad)
        # not Accelerate's step: it looks for a package on disk, 0.2 ms each time, and moves fp16's scale per optimizer
        for optimizer in self.optimizers:
            optimizer.found_inf = bad  # type: ignore[attr-defined]
            optimizer.step()
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.update()
        return bad

    def loss_scale(self) -> float | None:
        """What fp16 multiplies losses by, found by skipping steps; None in other precisions. Waits for the device."""
        return None if self.accelerator.scaler is None else float(self.accelerator.scaler.get_scale())

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def fits(self, batch: Any, micro_batch: int | None) -> bool:
        """Whether forward and backward of one piece of `batch` fit the memory; weights and statistics stay as they are.

        Copies of a model do not wait for each other here, so that each can fail on its own.

        Raises:
            UserError: memory ran out for a sharded model, whose other processes wait in vain.
        """
        buffers = [(b, b.clone()) for b in self.model.buffers()]
        try:
            piece, _ = next(microbatch.pieces(batch, micro_batch))
            with self.accelerator.no_sync(self.model):
                loss, _ = self.task.loss(self.model, piece)
                self.accelerator.backward(loss)
        except RuntimeError as error:
            if not microbatch.is_out_of_memory(error):
                raise
            if self.sharded:
                half = max(1, microbatch.size(piece) // 2)
                raise UserError(f"out of memory: use --training.micro_batch {half}") from error
            return False
        finally:
            self.zero_grad()
            with torch.no_grad():
                for buffer, saved in buffers:
                    buffer.copy_(saved)
            if self.runtime.device.type == "cuda":
                torch.cuda.empty_cache()
        return True

    # ---- evaluation and checkpoints

    @contextlib.contextmanager
    def evaluation_model(self) -> Iterator[nn.Module]:
        """The model to evaluate, whole on every process and equal on all: averaged weights where there are any.

        It is a model of its own, since processes may need different numbers of forward passes, which a wrapped or
        sharded one would wait for.
        """
        plain = self._plain()
        weights = self.averaged.tensors if self.averaged else plain.state_dict()
        with torch.no_grad(), self.accelerator.autocast():
            self.evaluated.load_state_dict({name: fsdp.whole(t.detach()) for name, t in weights.items()}, assign=True)
            _take_buffers(self.evaluated, plain, set(weights))
            self.runtime.broadcast(self.evaluated.buffers())  # batch statistics differ between processes
            yield self.evaluated
        self.evaluated.to("meta")

    def state(self) -> checkpoint.State:
        """All that learning has changed, as the live tensors."""
        scaler = self.accelerator.scaler
        return checkpoint.State(
            model=self._plain().state_dict(),
            ema=self.averaged.tensors if self.averaged else None,
            optimizers=[optimizer.state_dict() for optimizer in self.optimizers],
            extra={"schedule": self.schedule.state_dict(), **({"scaler": scaler.state_dict()} if scaler else {})},
        )

    def target(self) -> checkpoint.State | None:
        """What a sharded checkpoint is read into; None where the model is not sharded."""
        if not self.sharded:
            return None
        from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

        for optimizer in self.optimizers:  # makes the states of one that has not stepped yet
            get_optimizer_state_dict(self._plain(), optimizer)
        return self.state()

    @torch.no_grad()
    def load(self, state: checkpoint.State) -> None:
        self._plain().load_state_dict(state.model, strict=True)
        if self.averaged and state.ema is not None:
            for name, tensor in self.averaged.tensors.items():
                tensor.copy_(state.ema[name])
        for optimizer, saved in zip(self.optimizers, state.optimizers, strict=True):
            optimizer.load_state_dict(saved)
        self.schedule.load_state_dict(state.extra["schedule"])
        if self.accelerator.scaler is not None and "scaler" in state.extra:
            self.accelerator.scaler.load_state_dict(state.extra["scaler"])


def use_gradient_checkpointing(model: nn.Module) -> None:
    """Let `model` recompute activations instead of storing them. Raises UserError where it does not support that."""
    enable = getattr(model, "gradient_checkpointing_enable", None)
    if enable is None:
        raise UserError(f"runtime.gradient_checkpointing: {type(model).__name__} does not support it; set it to false")
    enable()


def _take_buffers(model: nn.Module, source: nn.Module, loaded: set[str]) -> None:
    """Point `model` at the buffers of `source` that are in no state dict (tables that a model computes)."""
    for name, buffer in source.named_buffers():
        if name not in loaded:
            where, _, last = name.rpartition(".")
            model.get_submodule(where)._buffers[last] = buffer
