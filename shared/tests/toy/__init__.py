"""A whole package in one file, small enough to train in a second: what the tests of the core train.

A network with dropout and batch normalisation learns noisy sums from a data set with random augmentation, so that
every source of randomness that a resume must restore is there. `python -m toy train --flags` runs it as a command.
"""

import itertools
import os
import signal
from pathlib import Path

import torch
from torch import nn

from shared_core import checkpoint
from shared_core.batches import LoaderBatches
from shared_core.cli import App
from shared_core.errors import UserError
from shared_core.runtime import Runtime
from shared_core.settings import RunConfig, Section, resumable
from shared_core.task import Task


class Data(Section):
    rows: int = 96
    noise: float = 0.1
    num_workers: int = 0
    fault_in: int | None = resumable(None)  # the process that the next five happen to; None: every one
    stop_at: int | None = resumable(None)  # send ourselves a signal in the middle of that forward pass
    stop_signal: int = resumable(int(signal.SIGKILL))
    stop_at_boundary: int | None = resumable(None)  # be killed at that write of the checkpoints
    nan_at: int | None = resumable(None)  # the loss of this forward pass is not finite
    damaged_at: int | None = resumable(None)  # the data of this forward pass turn out to be damaged
    largest_piece: int | None = None  # a device whose memory holds so many samples


class Config(RunConfig):
    data: Data = Data()


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Sums(torch.utils.data.Dataset):
    def __init__(self, data: Data) -> None:
        self.noise = data.noise
        self.x = torch.randn(data.rows, 6, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        noisy = self.x[row] + self.noise * torch.randn(6)  # augmentation from the global generator
        return {"x": noisy, "y": self.x[row].sum()}


class ToyTask(Task):
    def __init__(self, config: Config, runtime: Runtime) -> None:
        self.data = config.data
        self.model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))
        self.calls = 0
        self.is_faulty = config.data.fault_in in (None, runtime.rank)
        if config.data.stop_at_boundary is not None and self.is_faulty:
            count = itertools.count(1)
            checkpoint._boundary = lambda name: next(count) == config.data.stop_at_boundary and kill()
        self.batches = LoaderBatches(
            Sums(config.data),
            batch_size=config.training.batch_size,
            runtime=runtime,
            seed=config.seed,
            num_workers=config.data.num_workers,
        )

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if self.data.largest_piece and len(batch["x"]) > self.data.largest_piece:
            raise torch.OutOfMemoryError("a pretended device is full")
        error = model(batch["x"]).squeeze(1) - batch["y"]
        loss = error.square().mean()
        self.calls += 1
        if self.is_faulty:
            loss = self.misbehave(loss)
        return loss, {"error": error.abs().mean()}

    def misbehave(self, loss: torch.Tensor) -> torch.Tensor:
        """Do what the configuration wants to go wrong in this forward pass."""
        if self.calls == self.data.stop_at:
            os.kill(os.getpid(), self.data.stop_signal)
        if self.calls == self.data.damaged_at:
            raise UserError("row 3: is damaged; prepare the data anew")
        return loss * torch.nan if self.calls == self.data.nan_at else loss

    def evaluate(self, model: nn.Module, runtime: Runtime) -> dict[str, float]:
        x = Sums(self.data).x
        torch.rand(7)  # a careless evaluation: must not disturb the training
        rows = runtime.share(len(x))
        errors = runtime.gather((model(x[rows]).squeeze(1) - x[rows].sum(dim=1)).square(), len(x))
        return {"val/loss": float(errors.mean())}


def build_task(config: Config, runtime: Runtime) -> ToyTask:
    return ToyTask(config, runtime)


APP = App(
    command="toy",
    package="toy-package",
    module="toy",
    about="a toy",
    config="toy:Config",
    task="toy:build_task",
    headline="loss",
)


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The newest weights of a run, averaged ones too, by name."""
    from shared_core.checkpoint import Checkpoints

    checkpoints = Checkpoints(run / "checkpoints")
    path, _ = checkpoints.find("auto")
    assert path is not None
    state = checkpoints.load(path)
    return {**state.model, **{f"ema.{name}": tensor for name, tensor in (state.ema or {}).items()}}
