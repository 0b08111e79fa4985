"""The training loop, around Accelerate: one for all packages.

config -> task (model, batches, loss, evaluate) -> `train` -> records and checkpoints.

The loop's state is `Progress`: everything a checkpoint needs besides tensors. Two rules make a resumed run equal to an
uninterrupted one: batches are a pure function of the cursor in `Progress`, and evaluation leaves the random state as it
found it.
"""

import contextlib
import functools
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from shared_core import checkpoint, config, microbatch, optim, settings
from shared_core.errors import UserError
from shared_core.learner import Learner
from shared_core.profiling import profiler
from shared_core.progress import Bar
from shared_core.publisher import Publisher
from shared_core.records import Recorder, RunDir
from shared_core.runtime import Runtime
from shared_core.seeds import derive, seed_all
from shared_core.settings import RunConfig
from shared_core.signals import StopSignals
from shared_core.task import Task
from shared_core.window import Window

# fp16 begins at 65536 and halves its scale at each overflow: far below 1 the gradient itself is not finite
SMALLEST_LOSS_SCALE = 1e-3


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


def train(config: RunConfig, task: Task, runtime: Runtime, run: RunDir, publisher: Publisher | None = None) -> Outcome:
    """Train `task` until its epochs are over, patience runs out, or a signal asks to stop.

    `publisher` is offered the checkpoints that it wants.

    Goes on from the checkpoint that `training.resume` selects. Raises UserError for a checkpoint of another
    configuration or topology, a loss that is not finite, memory that does not hold one sample, a full disk.
    """
    return Trainer(config, task, runtime, run, publisher).fit()


class Trainer:
    """One run. `fit` is the whole story; the methods below it are in the order in which they happen."""

    def __init__(
        self, config: RunConfig, task: Task, runtime: Runtime, run: RunDir, publisher: Publisher | None = None
    ) -> None:
        self.config, self.task, self.runtime, self.run = config, task, runtime, run
        wanted = config.training
        self.steps_per_epoch = task.batches.steps_per_epoch(wanted.accumulation)
        self.total_steps = wanted.total_steps(self.steps_per_epoch)
        self.learner = Learner(config, task, runtime, self.total_steps)
        self.progress = Progress(micro_batch=wanted.micro_batch)
        self.checkpoints = checkpoint.Checkpoints(
            run.checkpoints, wanted.keep_checkpoints, runtime.rank, runtime.world, runtime.barrier
        )
        self.recorder = Recorder(run, config.logging, enabled=runtime.is_main)
        self.publisher = publisher or Publisher(settings.Hub(), run)  # one that is asked for nothing
        self.publisher.in_use = self.checkpoints.in_use
        self.publisher.say = functools.partial(self.recorder.message, warning=True)
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
        state = self.checkpoints.load(path, self.learner.target())
        self.learner.load(state)
        self.progress = Progress(**state.extra["progress"])
        # one that was stopped after its last step still lacks the evaluation there
        self.progress.finished = self.progress.finished and (self._is_over() or self._out_of_patience())
        self.recorder.truncate(state.extra["metrics_offset"])
        assert state.rng is not None  # as many processes wrote it
        checkpoint.set_rng_state(state.rng)
        whole_epochs = None if self.progress.batches_done else self.progress.epoch
        self.publisher.resume(self.checkpoints.best(), path, whole_epochs)
        self.recorder.message(f"resumed from {path.name} (epoch {self.progress.epoch}, step {self.progress.step})")
        if self.progress.finished:
            self.recorder.message(
                f"nothing is left to train: {self.progress.step:,} steps are done and {self.total_steps:,} wanted; "
                "more epochs, steps or patience would go on"
            )

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
        sharded = ", sharded" if self.learner.sharded else ""
        parameters = sum(p.numel() for p in self.learner.parameters)
        self.recorder.message(
            f"{self.run.path.name}: {parameters:,} parameters{sharded}, {self.runtime.precision} on "
            f"{self.runtime.world} x {self.runtime.device.type}; effective batch {effective} ({batches.batch_size} x "
            f"{wanted.accumulation} x {self.runtime.world}); {wanted.total_epochs(self.steps_per_epoch)} epochs x "
            f"{self.steps_per_epoch} steps{self._cut()}"
        )
        if self.config.runtime.fsdp and not self.learner.sharded:
            self.recorder.message("runtime.fsdp: there is one process, so nothing is split", warning=True)
        for warning in [*self.task.warnings(), *optim.warnings(self.config.scheduler, self.total_steps)]:
            self.recorder.message(warning, warning=True)

    def _dry_run(self) -> None:
        """One forward and backward pass that changes nothing; finds the largest piece of a batch that fits."""
        if not self.config.training.dry_run or self.progress.finished:
            return
        before = checkpoint.rng_state()
        batch = next(iter(self.task.batches.epoch(self.progress.epoch)))
        limit, whole = self.progress.micro_batch, microbatch.size(batch)
        while True:
            began = time.perf_counter()
            fits = self.learner.fits(batch, limit)
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
        checkpoint.set_rng_state(before)
        self.progress.micro_batch = limit
        (slowest,) = self.runtime.reduce_max([seconds])
        self.poll_every = 1 if self.runtime.world == 1 else min(100, max(1, round(1.0 / slowest)))

    # ---- the loop

    def _epoch(self) -> Literal["done", "preempted"]:
        """The rest of the epoch that the cursor points into, with its evaluations and checkpoints."""
        progress = self.progress
        self.learner.model.train()
        self.window.restart()
        for group in self._groups_of_batches():
            self._step(group)
            self.profile_step()
            progress.batches_done += len(group)
            if progress.step % self.config.logging.every == 0:
                self._log()
            self.bar.update(progress.step)
            if self._is_evaluated_within():
                self._conclude(epoch_ended=False)
                if progress.finished:
                    return "done"
                self.learner.model.train()
                self.window.restart()
            if progress.step % self.poll_every == 0:
                stop, save = self._agree()
                if stop:
                    return "preempted"
                if save:
                    self._save()
        if self._done_in_epoch() >= self.steps_per_epoch:
            progress.epoch, progress.batches_done = progress.epoch + 1, 0
        self._conclude(epoch_ended=progress.batches_done == 0)
        return "preempted" if not progress.finished and self._agree()[0] else "done"

    def _done_in_epoch(self) -> int:
        """Optimizer steps since the epoch began."""
        return self.progress.batches_done // self.config.training.accumulation

    def _is_evaluated_within(self) -> bool:
        """Whether an evaluation is due that neither the end of the epoch nor that of the training brings."""
        every, step = self.config.training.eval_steps, self.progress.step
        within = self._done_in_epoch() < self.steps_per_epoch and step < self.total_steps
        return every is not None and step % every == 0 and within

    def _conclude(self, epoch_ended: bool) -> None:
        """The evaluation, the checkpoint and the publication that are due after a step."""
        wanted, progress = self.config.training, self.progress
        self._log()
        last = self._is_over()
        if wanted.eval_steps is not None:
            evaluate = save = progress.step % wanted.eval_steps == 0
        else:
            evaluate, save = (progress.epoch % every == 0 for every in (wanted.eval_every, wanted.checkpoint_every))
        is_best = (evaluate or last) and self._evaluate()
        progress.finished = last or self._out_of_patience()
        for_good = bool(epoch_ended and wanted.keep_every_epochs and progress.epoch % wanted.keep_every_epochs == 0)
        to_publish = self.publisher.is_due(progress.epoch if epoch_ended else None, is_best)
        if is_best or progress.finished or for_good or to_publish or save:
            saved = self._save(best=is_best, keep_for_good=for_good)
            if to_publish and not (progress.finished and is_best):  # that one is published with the report
                self.publisher.offer(saved)

    def _groups_of_batches(self) -> Iterator[list[Any]]:
        """The batches of each remaining optimizer step of this epoch."""
        progress, accumulation = self.progress, self.config.training.accumulation
        batches = iter(self.task.batches.epoch(progress.epoch, progress.batches_done))
        left = self.steps_per_epoch - self._done_in_epoch()
        for _ in range(min(left, self.total_steps - progress.step)):
            began = time.perf_counter()
            group = [next(batches) for _ in range(accumulation)]
            self.window.waited(time.perf_counter() - began)
            yield group

    def _step(self, group: list[Any]) -> None:
        logs, bad = self.learner.step(group, self.progress.step, self.progress.micro_batch)
        samples = self.runtime.world * sum(microbatch.size(batch) for batch in group)
        self.progress.step += 1
        self.progress.samples += samples
        self.window.add(logs, bad, samples)

    def _log(self) -> None:
        values, bad = self.window.read()
        if not values:
            return
        progress = self.progress
        progress.skipped_steps += bad
        values["lr"] = self.learner.optimizers[0].param_groups[0]["lr"]
        if self.runtime.device.type == "cuda":
            values["gpu_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
            with contextlib.suppress(ModuleNotFoundError, RuntimeError):  # needs NVIDIA's management library
                values["gpu_use"] = torch.cuda.utilization() / 100
        if progress.skipped_steps:
            values["skipped_steps"] = progress.skipped_steps
        if (scale := self.learner.loss_scale()) is not None:
            values["loss_scale"] = scale
        self._record({f"train/{name}": value for name, value in values.items()})
        self.publisher.poll()
        if scale is None and progress.skipped_steps > self.config.training.max_skipped_steps:
            raise UserError(
                f"the gradient was not finite in {progress.skipped_steps} of {progress.step} steps (the weights are "
                "untouched by them); lower --lr, look at the data, or allow some with --training.max_skipped_steps"
            )
        if scale is not None and scale < SMALLEST_LOSS_SCALE:
            raise UserError(
                f"the gradient is not finite at step {progress.step}, however small fp16's loss scale ({scale:.1g}); "
                "lower --lr, look at the data, or compute with --runtime.precision bf16 or fp32"
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
        with self.learner.evaluation_model() as model:
            metrics = self.task.evaluate(model, self.runtime)
            if self.runtime.is_main:
                self.recorder.pictures(self.progress.step, self.task.samples(model, self.runtime))
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
        self.learner.schedule.on_evaluation(value)
        if is_best:
            self.progress.best, self.progress.best_step, self.progress.waited = metrics, self.progress.step, 0
        else:
            self.progress.waited += 1
        return is_best

    def _is_over(self) -> bool:
        """Whether all epochs, or all steps that there are to be, are done."""
        epochs = self.config.training.epochs
        return self.progress.step >= self.total_steps or (epochs is not None and self.progress.epoch >= epochs)

    def _cut(self) -> str:
        """What the banner says of an end within an epoch."""
        return f", {self.total_steps:,} in all" if self.total_steps % self.steps_per_epoch else ""

    def _out_of_patience(self) -> bool:
        patience = self.config.training.patience
        return patience is not None and self.progress.waited >= patience

    def _save(self, best: bool = False, keep_for_good: bool = False) -> Path:
        """Write a checkpoint; what was logged up to here belongs to it."""
        self._log()
        state = self.learner.state()
        state.rng = checkpoint.rng_state()
        state.extra |= {"progress": asdict(self.progress), "metrics_offset": self.recorder.offset()}
        saved = self.checkpoints.save(
            self.progress.step,
            state,
            config_digest=config.digest(self.config),
            topology=self.runtime.describe(),
            best=best,
            keep_for_good=keep_for_good,
        )
        self._saved_at, self._saved = time.monotonic(), asdict(self.progress)
        return saved
