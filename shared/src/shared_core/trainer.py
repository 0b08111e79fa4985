"""The training loop, around Accelerate: one for all packages.

config -> task (model, batches, loss, evaluate) -> `train` -> records and checkpoints.

The loop's state is `Progress`: everything a checkpoint needs besides tensors. Two rules make a resumed run equal to an
uninterrupted one: batches are a pure function of the cursor in `Progress`, and evaluation leaves the random state as it
found it.
"""

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from shared_core import checkpoint, config, microbatch, optim
from shared_core.ema import AveragedModel
from shared_core.errors import UserError
from shared_core.guard import BufferGuard
from shared_core.profiling import profiler
from shared_core.progress import Bar
from shared_core.records import Recorder, RunDir
from shared_core.runtime import Runtime
from shared_core.seeds import derive, seed_all
from shared_core.settings import RunConfig
from shared_core.signals import StopSignals
from shared_core.task import Task
from shared_core.window import Window


@dataclass
class Progress:
    """Where the run is. `epoch` and `batches_done` are the cursor into the training data."""

    epoch: int = 0
    batches_done: int = 0
    step: int = 0  # optimizer steps, counting skipped ones
    samples: int = 0
    skipped_steps: int = 0
    best: dict[str, float] = field(default_factory=dict)  # the metrics of the best evaluation
    best_step: int = 0
    waited: int = 0  # evaluations since the best
    micro_batch: int | None = None
    finished: bool = False


@dataclass(frozen=True)
class Outcome:
    """How `train` ended."""

    state: Literal["finished", "preempted"]
    step: int
    best: dict[str, float]


def train(config: RunConfig, task: Task, runtime: Runtime, run: RunDir) -> Outcome:
    """Train `task` until its epochs are over, patience runs out, or a signal asks to stop.

    Goes on from the checkpoint that `training.resume` selects. Raises UserError for a checkpoint of another
    configuration or topology, a loss that is not finite, memory that does not hold one sample, a full disk.
    """
    return Trainer(config, task, runtime, run).fit()


class Trainer:
    """One run. `fit` is the whole story; the methods below it are in the order in which they happen."""

    def __init__(self, config: RunConfig, task: Task, runtime: Runtime, run: RunDir) -> None:
        self.config, self.task, self.runtime, self.run = config, task, runtime, run
        self.accelerator = runtime.accelerator
        wanted = config.training
        self.steps_per_epoch = task.batches.batches_per_epoch // wanted.accumulation
        if self.steps_per_epoch == 0:
            raise UserError(
                f"training.accumulation: {wanted.accumulation} is more than the {task.batches.batches_per_epoch} "
                "batches of an epoch; lower it or the batch size"
            )
        self.total_steps = wanted.epochs * self.steps_per_epoch
        model = self._prepare_model(task.model.to(runtime.device))
        self.optimizers = optim.build(config.optimizer, model, task.no_decay)
        self.schedule = optim.Schedule(config.scheduler, self.total_steps)
        self.model, *self.prepared = self.accelerator.prepare(model, *self.optimizers)
        # after `prepare`, which may give the model other tensors
        plain = self.accelerator.unwrap_model(self.model)
        self.averaged = AveragedModel(plain, wanted.ema_decay) if wanted.ema_decay else None
        self.buffers = BufferGuard(plain) if wanted.max_skipped_steps else None
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.progress = Progress(micro_batch=wanted.micro_batch)
        self.checkpoints = checkpoint.Checkpoints(
            run.checkpoints, wanted.keep_checkpoints, runtime.rank, runtime.world, runtime.barrier
        )
        self.recorder = Recorder(run, config.logging, enabled=runtime.is_main)
        self.window = Window()
        self.signals = StopSignals()
        self.poll_every = 1  # steps between agreements of the processes on signals and timed checkpoints

    def fit(self) -> Outcome:
        with self.signals, contextlib.closing(self.recorder), contextlib.ExitStack() as stack:
            self._restore()
            self._banner()
            self._dry_run()
            shown = self.config.logging.progress and self.runtime.is_main
            self.profile_step = stack.enter_context(
                profiler(self.run.path / "profile", self.config.logging.profile and self.runtime.is_main)
            )
            self.bar = stack.enter_context(Bar(self.total_steps, shown, "train", start=self.progress.step))
            self._saved_at, self._saved = time.monotonic(), asdict(self.progress)
            try:
                while not self.progress.finished:
                    if self._epoch() == "preempted":
                        if asdict(self.progress) != self._saved:
                            self._save()
                        return Outcome("preempted", self.progress.step, self.progress.best)
            except RuntimeError as error:
                if not microbatch.is_out_of_memory(error):
                    raise
                half = max(1, (self.progress.micro_batch or self.task.batches.batch_size) // 2)
                raise UserError(
                    f"out of memory at step {self.progress.step}: use --training.micro_batch {half}"
                ) from error
        return Outcome("finished", self.progress.step, self.progress.best)

    # ---- before the first step

    def _prepare_model(self, model: nn.Module) -> nn.Module:
        wanted = self.config.runtime
        if wanted.gradient_checkpointing:
            enable = getattr(model, "gradient_checkpointing_enable", None)
            if enable is None:
                name = type(model).__name__
                raise UserError(f"runtime.gradient_checkpointing: {name} does not support it; set it to false")
            enable()
        if wanted.compile:
            model.compile()
        return model

    def _restore(self) -> None:
        """Go on from a checkpoint, if there is one to go on from; otherwise start the random streams."""
        wanted = self.config.training.resume
        # one process looks, so that all go on from the same
        path, skipped = self.runtime.agree(self.checkpoints.find(wanted) if self.runtime.is_main else (None, []))
        for line in skipped:
            self.recorder.message(line, warning=True)
        if path is None:
            seed_all(derive(self.config.seed, "train", self.runtime.rank))
            self.recorder.truncate(0)
            return
        self._refuse_other_topology(path)
        state = self.checkpoints.load(path)
        self.accelerator.unwrap_model(self.model).load_state_dict(state.model, strict=True)
        if self.averaged and state.ema is not None:
            self.averaged.model.load_state_dict(state.ema, strict=True)
        for optimizer, saved in zip(self.optimizers, state.optimizers, strict=True):
            optimizer.load_state_dict(saved)
        self.schedule.load_state_dict(state.extra["schedule"])
        self.progress = Progress(**state.extra["progress"])
        self.progress.finished = self.progress.epoch >= self.config.training.epochs or self._out_of_patience()
        if self.accelerator.scaler is not None and "scaler" in state.extra:
            self.accelerator.scaler.load_state_dict(state.extra["scaler"])
        self.recorder.truncate(state.extra["metrics_offset"])
        assert state.rng is not None  # as many processes wrote it
        checkpoint.set_rng_state(state.rng)
        self.recorder.message(f"resumed from {path.name} (epoch {self.progress.epoch}, step {self.progress.step})")

    def _refuse_other_topology(self, path: Any) -> None:
        manifest = checkpoint.read_manifest(path)
        before, now = manifest["topology"]["processes"], self.runtime.world
        if before != now:
            raise UserError(
                f"{path}: written by {before} processes, this run has {now}; the position in the data does not carry "
                f"over: start {before} processes, or train anew with --resume never"
            )

    def _banner(self) -> None:
        wanted, batches = self.config.training, self.task.batches
        effective = batches.batch_size * wanted.accumulation * self.runtime.world
        parameters = sum(p.numel() for p in self.parameters)
        self.recorder.message(
            f"{self.run.path.name}: {parameters:,} parameters, {self.runtime.precision} on {self.runtime.world} x "
            f"{self.runtime.device.type}; effective batch {effective} ({batches.batch_size} x {wanted.accumulation} x "
            f"{self.runtime.world}); {wanted.epochs} epochs x {self.steps_per_epoch} steps"
        )

    def _dry_run(self) -> None:
        """One forward and backward pass that changes nothing; finds the largest piece of a batch that fits."""
        if not self.config.training.dry_run or self.progress.finished:
            return
        before = checkpoint.rng_state()
        batch = next(iter(self.task.batches.epoch(self.progress.epoch)))
        buffers = [(b, b.clone()) for b in self.model.buffers()]
        limit, whole = self.progress.micro_batch, microbatch.size(batch)
        while True:
            began = time.perf_counter()
            fits = self._try_piece(batch, limit)
            seconds = time.perf_counter() - began
            if self.runtime.reduce_max([0.0 if fits else 1.0])[0] == 0.0:
                break
            limit = (limit or whole) // 2
            if limit == 0 or not self.task.splittable:
                raise UserError(
                    "training.batch_size: the device has no memory for one piece of a batch; use a smaller model or "
                    "input, --runtime.gradient_checkpointing true, or a device with more memory"
                )
            self.recorder.message(f"out of memory: batches are split into pieces of {limit}", warning=True)
        with torch.no_grad():
            for buffer, saved in buffers:
                buffer.copy_(saved)
        checkpoint.set_rng_state(before)
        self.progress.micro_batch = limit
        (slowest,) = self.runtime.reduce_max([seconds])
        self.poll_every = 1 if self.runtime.world == 1 else min(100, max(1, round(1.0 / slowest)))

    def _try_piece(self, batch: Any, limit: int | None) -> bool:
        """Whether forward and backward fit; no process waits for another here, so that all can fail differently."""
        try:
            piece, _ = next(microbatch.pieces(batch, limit))
            with self.accelerator.no_sync(self.model):
                loss, _ = self.task.loss(self.model, piece)
                self.accelerator.backward(loss)
        except RuntimeError as error:
            if not microbatch.is_out_of_memory(error):
                raise
            return False
        finally:
            self._zero_grad()
            if self.runtime.device.type == "cuda":
                torch.cuda.empty_cache()
        return True

    # ---- the loop

    def _epoch(self) -> Literal["done", "preempted"]:
        """The rest of the epoch that the cursor points into, its evaluation and its checkpoint."""
        wanted, progress = self.config.training, self.progress
        self.model.train()
        self.window.restart()
        for group in self._groups_of_batches():
            self._step(group)
            self.profile_step()
            progress.batches_done += len(group)
            if progress.step % self.config.logging.every == 0:
                self._log()
            self.bar.update(progress.step)
            if progress.step % self.poll_every == 0:
                stop, save = self._agree()
                if stop:
                    return "preempted"
                if save:
                    self._save()
        self._log()
        progress.epoch, progress.batches_done = progress.epoch + 1, 0
        last = progress.epoch >= wanted.epochs
        is_best = (progress.epoch % wanted.eval_every == 0 or last) and self._evaluate()
        progress.finished = last or self._out_of_patience()
        for_good = bool(wanted.keep_every_epochs and progress.epoch % wanted.keep_every_epochs == 0)
        if is_best or progress.finished or for_good or progress.epoch % wanted.checkpoint_every == 0:
            self._save(best=is_best, keep_for_good=for_good)
        return "preempted" if not progress.finished and self._agree()[0] else "done"

    def _groups_of_batches(self) -> Iterator[list[Any]]:
        """The batches of each remaining optimizer step of this epoch."""
        progress, accumulation = self.progress, self.config.training.accumulation
        batches = iter(self.task.batches.epoch(progress.epoch, progress.batches_done))
        for _ in range(self.steps_per_epoch - progress.batches_done // accumulation):
            began = time.perf_counter()
            group = [next(batches) for _ in range(accumulation)]
            self.window.waited(time.perf_counter() - began)
            yield group

    def _step(self, group: list[Any]) -> None:
        """One optimizer step over the batches of `group`; skipped on the device where a gradient is not finite."""
        self.schedule.apply(self.optimizers, self.progress.step)
        work = [
            (piece, share / len(group))
            for batch in group
            for piece, share in microbatch.pieces(batch, self.progress.micro_batch)
        ]
        logs: dict[str, torch.Tensor] = {}
        if self.buffers:
            self.buffers.remember()
        for i, (piece, share) in enumerate(work):
            is_last = i == len(work) - 1
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(self.model):
                loss, values = self.task.loss(self.model, piece)
                self.accelerator.backward(loss if share == 1.0 else loss * share)
            for name, value in {"loss": loss, **values}.items():
                part = value.detach() if share == 1.0 else value.detach() * share
                logs[name] = logs[name] + part if name in logs else part
        norm = self._clip()
        bad = (~torch.isfinite(norm)).float()
        if self.buffers:
            self.buffers.undo(bad)
        for optimizer in self.prepared:
            if self.accelerator.scaler is None:
                optimizer.optimizer.found_inf = bad
                optimizer.optimizer.step()  # Accelerate's own step looks for a package on disk, 0.2 ms each time
            else:  # fp16's scaler skips by itself, as a part of finding its scale
                optimizer.step()
        if self.accelerator.scaler is not None:
            bad = torch.zeros_like(bad)
        self._zero_grad()
        self.progress.step += 1
        samples = self.runtime.world * sum(microbatch.size(batch) for batch in group)
        self.progress.samples += samples
        if self.averaged:
            self.averaged.update(self.progress.step)
        self.window.add({**logs, "grad_norm": norm}, bad, samples)

    def _clip(self) -> torch.Tensor:
        """Global gradient norm before clipping, the same on every process."""
        limit = self.config.training.clip_norm
        return self.accelerator.clip_grad_norm_(self.parameters, math.inf if limit is None else limit)

    def _zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _log(self) -> None:
        values, bad = self.window.read()
        if not values:
            return
        progress = self.progress
        progress.skipped_steps += bad
        values["lr"] = self.optimizers[0].param_groups[0]["lr"]
        if self.runtime.device.type == "cuda":
            values["gpu_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
            with contextlib.suppress(ModuleNotFoundError, RuntimeError):  # needs NVIDIA's management library
                values["gpu_use"] = torch.cuda.utilization() / 100
        if progress.skipped_steps:
            values["skipped_steps"] = progress.skipped_steps
        self._record({f"train/{name}": value for name, value in values.items()})
        if progress.skipped_steps > self.config.training.max_skipped_steps:
            raise UserError(
                f"the gradient was not finite in {progress.skipped_steps} of {progress.step} steps (the weights are "
                "untouched by them); lower --lr, look at the data, or allow some with --training.max_skipped_steps"
            )

    def _record(self, values: dict[str, float]) -> None:
        epoch = round(self.progress.step / self.steps_per_epoch, 4)
        self.recorder.log(self.progress.step, {"epoch": epoch, **values})
        shown = ("train/loss", self.task.monitor)
        self.bar.update(self.progress.step, **{name: values[name] for name in shown if name in values})

    def _agree(self) -> tuple[bool, bool]:
        """Whether any process was told to stop, and whether the main one finds a checkpoint due."""
        minutes = self.config.training.checkpoint_minutes
        due = minutes is not None and time.monotonic() - self._saved_at > 60 * minutes
        if self.runtime.world == 1:
            return self.signals.requested, due
        stop, save = self.runtime.reduce_max([float(self.signals.requested), float(due and self.runtime.is_main)])
        return stop > 0, save > 0

    # ---- evaluation and checkpoints

    def _evaluate(self) -> bool:
        """Evaluate, record, update best and the counters; whether this is the best so far."""
        before = checkpoint.rng_state()
        # not the wrapped model: processes may need different numbers of forward passes
        model = self.averaged.model if self.averaged else self.accelerator.unwrap_model(self.model)
        self.runtime.broadcast(model)
        model.eval()
        with torch.no_grad(), self.accelerator.autocast():
            metrics = self.task.evaluate(model, self.runtime)
        self.model.train()
        checkpoint.set_rng_state(before)
        self._record(metrics)
        if self.task.monitor not in metrics:
            raise UserError(f"{self.task.monitor}: no such metric; the evaluation gives {', '.join(sorted(metrics))}")
        sign = 1 if self.task.maximize else -1
        value = sign * metrics[self.task.monitor]
        if not math.isfinite(value):
            what = f"{self.task.monitor} is {metrics[self.task.monitor]} at step {self.progress.step}"
            self.recorder.message(f"{what}: it counts as no progress", warning=True)
        best = sign * self.progress.best.get(self.task.monitor, -sign * math.inf)
        is_best = math.isfinite(value) and value > best
        self.schedule.on_evaluation(value)
        if is_best:
            self.progress.best, self.progress.best_step, self.progress.waited = metrics, self.progress.step, 0
        else:
            self.progress.waited += 1
        return is_best

    def _out_of_patience(self) -> bool:
        patience = self.config.training.patience
        return patience is not None and self.progress.waited >= patience

    def _save(self, best: bool = False, keep_for_good: bool = False) -> None:
        """Write a checkpoint; what was logged up to here belongs to it."""
        self._log()
        state = checkpoint.State(
            model=self.accelerator.unwrap_model(self.model).state_dict(),
            ema=self.averaged.model.state_dict() if self.averaged else None,
            optimizers=[optimizer.state_dict() for optimizer in self.optimizers],
            rng=checkpoint.rng_state(),
            extra={
                "progress": asdict(self.progress),
                "schedule": self.schedule.state_dict(),
                "metrics_offset": self.recorder.offset(),
                **({"scaler": self.accelerator.scaler.state_dict()} if self.accelerator.scaler else {}),
            },
        )
        self.checkpoints.save(
            self.progress.step,
            state,
            config_digest=config.digest(self.config),
            topology=self.runtime.describe(),
            best=best,
            keep_for_good=keep_for_good,
        )
        self._saved_at, self._saved = time.monotonic(), asdict(self.progress)
