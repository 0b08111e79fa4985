"""What our trainer adds to a step, against a hand-written Accelerate loop, Lightning and the Hugging Face Trainer.

    pip install 'shared-core[bench]'
    python shared/benchmarks/trainer_overhead.py

Everybody trains the same network from the same weights on the same batches, which lie ready in memory, with fused
AdamW, the norm of the gradient clipped at 1, a cosine learning rate that changes at every step, and a log every 20
steps; nobody draws a progress bar, evaluates or writes a checkpoint while the clock runs. That the work is the same is
checked: all must end with the weights of the hand-written loop.

The clock sits in the network and is read at the beginning of two forward passes, so that it sees whole steps and no
set-up. The contenders run in turn, in short blocks, with a new order in every round; a ratio compares blocks of one
round. CPU time is the number to look at where other programs share the machine. The hand-written loop runs twice in
each round: how far its second row is from 1 is what the ratios of the others are worth. A last row is the same loop
without Accelerate.
"""

import argparse
import json
import logging
import math
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from shared_core import checkpoint, records, trainer
from shared_core.batches import Batches
from shared_core.measured import load, processor, spread
from shared_core.runtime import Runtime
from shared_core.settings import RunConfig
from shared_core.task import Task

try:
    import lightning
    import transformers
    from lightning.pytorch.loggers import CSVLogger
except ImportError as error:
    sys.exit(f"{error.name}: not installed; the peers come with pip install 'shared-core[bench]'")

LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM, LOG_EVERY = 1e-4, 5e-4, 1.0, 20
FEATURES, CLASSES, BLOCKS, ROWS = 64, 10, 4, 64  # the network's input, output and depth; rows of a batch
WARM_UP = 20  # steps of each block before the clock runs

Batch = dict[str, torch.Tensor]
Contender = Callable[[nn.Module, list[Batch], Path], None]


class Clock:
    """Wall and CPU seconds between the beginnings of forward passes `first` and `first + steps`."""

    def __init__(self, first: int, steps: int) -> None:
        self.passes, self.first, self.last = 0, first, first + steps
        self.wall = self.cpu = 0.0

    def tick(self) -> None:
        if self.passes == self.first:
            self.wall, self.cpu = -time.perf_counter(), -time.process_time()
        elif self.passes == self.last:
            self.wall, self.cpu = self.wall + time.perf_counter(), self.cpu + time.process_time()
        self.passes += 1


class Network(nn.Module):
    """A residual perceptron that returns its loss, the form the Hugging Face Trainer asks for."""

    def __init__(self, width: int, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.stem, self.head = nn.Linear(FEATURES, width), nn.Linear(width, CLASSES)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
            for _ in range(BLOCKS)
        )

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Batch:
        self.clock.tick()
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return {"loss": nn.functional.cross_entropy(self.head(x), y)}


def make_batches(count: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8, ROWS, FEATURES, generator=generator)
    y = torch.randint(CLASSES, (8, ROWS), generator=generator)
    return [{"x": x[k % 8], "y": y[k % 8]} for k in range(count)]


def make_optimizer(model: nn.Module, steps: int) -> tuple[torch.optim.AdamW, LambdaLR]:
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)
    return optimizer, LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(1, step / steps))))


# ---- the contenders: each trains `model` on `batches`, one step per batch, and may write into `folder`


def by_hand(model: nn.Module, batches: list[Batch], folder: Path) -> None:
    """Accelerate as its guide shows it, and no more."""
    AcceleratorState._reset_state(reset_partial_state=False)
    accelerator = Accelerator(cpu=True)
    prepared = accelerator.prepare(model, *make_optimizer(model, len(batches)))
    loop(prepared, accelerator.backward, accelerator.clip_grad_norm_, batches, folder)


def without_accelerate(model: nn.Module, batches: list[Batch], folder: Path) -> None:
    """The same loop on one device, with nothing but PyTorch: the floor."""
    prepared = (model, *make_optimizer(model, len(batches)))
    loop(prepared, torch.Tensor.backward, nn.utils.clip_grad_norm_, batches, folder)


def loop(prepared: Any, backward: Callable, clip: Callable, batches: list[Batch], folder: Path) -> None:
    """The hand-written loop. Logs mean loss and gradient norm, the learning rate and the speed to a file."""
    model, optimizer, scheduler = prepared
    model.train()
    with (folder / "log.jsonl").open("w") as log:
        loss_sum, norm_sum, began = torch.zeros(()), torch.zeros(()), time.perf_counter()
        for step, batch in enumerate(batches, start=1):
            loss = model(**batch)["loss"]
            backward(loss)
            norm = clip(model.parameters(), CLIP_NORM)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            loss_sum += loss.detach()
            norm_sum += norm
            if step % LOG_EVERY == 0:
                seconds = time.perf_counter() - began
                row = {"step": step, "loss": loss_sum.item() / LOG_EVERY, "grad_norm": norm_sum.item() / LOG_EVERY}
                row |= {"lr": scheduler.get_last_lr()[0], "samples_per_s": LOG_EVERY * ROWS / seconds}
                log.write(json.dumps(row) + "\n")
                log.flush()
                loss_sum, norm_sum, began = torch.zeros(()), torch.zeros(()), time.perf_counter()


class ReadyBatches(Batches):
    """A list, as our trainer and (by `len` and `iter`) the peers ask for their data."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches, self.batches_per_epoch, self.batch_size = batches, len(batches), ROWS

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        return iter(self.batches[start:])


class OurTask(Task):
    def __init__(self, model: nn.Module, batches: list[Batch]) -> None:
        self.model, self.batches = model, ReadyBatches(batches)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, Batch]:
        return model(**batch)["loss"], {}

    def evaluate(self, model: nn.Module, runtime: Runtime) -> dict[str, float]:
        return {self.monitor: 0.0}


def ours(model: nn.Module, batches: list[Batch], folder: Path) -> None:
    """`shared_core.trainer`, logging to metrics.jsonl; its one evaluation and checkpoint come after the clock."""
    config = RunConfig.model_validate(
        {
            "training": {"epochs": 1, "batch_size": ROWS, "clip_norm": CLIP_NORM, "resume": "never", "dry_run": False},
            "optimizer": {"lr": LEARNING_RATE, "weight_decay": WEIGHT_DECAY},
            "runtime": {"device": "cpu", "precision": "fp32", "threads": 1},
            "logging": {"tracker": "none", "progress": False, "every": LOG_EVERY},
        }
    )
    runtime = Runtime.start(config.runtime, config.seed)
    run = records.RunDir.open(folder, "benchmark", "run", "never")
    try:
        trainer.train(config, OurTask(model, batches), runtime, run)
    finally:
        run.close()


class OurLightningModule(lightning.LightningModule):
    def __init__(self, model: nn.Module, steps: int) -> None:
        super().__init__()
        self.model, self.steps = model, steps

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        loss = self.model(**batch)["loss"]
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer, scheduler = make_optimizer(self.model, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def with_lightning(model: nn.Module, batches: list[Batch], folder: Path) -> None:
    """`lightning.Trainer`, logging the loss (no gradient norm, no speed) to its CSV file."""
    lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        logger=CSVLogger(folder),
        log_every_n_steps=LOG_EVERY,
        gradient_clip_val=CLIP_NORM,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(OurLightningModule(model, len(batches)), train_dataloaders=ReadyBatches(batches))


class ReadyTrainer(transformers.Trainer):
    """Takes its batches as they are."""

    def get_train_dataloader(self) -> Any:
        return ReadyBatches(self.train_dataset)


def with_transformers(model: nn.Module, batches: list[Batch], folder: Path) -> None:
    """`transformers.Trainer`, logging loss, gradient norm and learning rate to its history in memory."""
    AcceleratorState._reset_state(reset_partial_state=False)
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=ROWS,
        max_grad_norm=CLIP_NORM,
        logging_steps=LOG_EVERY,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    contender = ReadyTrainer(model, arguments, train_dataset=batches, optimizers=make_optimizer(model, len(batches)))
    contender.remove_callback(transformers.PrinterCallback)
    contender.train()


CONTENDERS: dict[str, Contender] = {
    "hand-written": by_hand,
    "ours": ours,
    "Lightning": with_lightning,
    "HF Trainer": with_transformers,
    "hand-written again": by_hand,
    "PyTorch alone": without_accelerate,
}


# ---- measuring


@dataclass(frozen=True)
class Block:
    """One contender, once: seconds per step, and the weights it ended with."""

    wall: float
    cpu: float
    weights: torch.Tensor


def measure(contender: Contender, width: int, steps: int) -> Block:
    torch.manual_seed(0)
    clock = Clock(WARM_UP, steps)
    model = Network(width, clock)
    with tempfile.TemporaryDirectory() as folder:
        contender(model, make_batches(WARM_UP + steps + 1), Path(folder))  # the last one stops the clock
    assert clock.passes == WARM_UP + steps + 1, f"{clock.passes} forward passes"
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    return Block(clock.wall / steps, clock.cpu / steps, weights)


def find_width(milliseconds: float) -> int:
    """The width, a multiple of 8, at which a step of the hand-written loop takes about so much CPU time."""
    low, high = 8, 4096
    while high - low > 8:
        middle = (low + high) // 16 * 8
        seconds = min(measure(by_hand, middle, 20).cpu for _ in range(3))
        low, high = (middle, high) if seconds * 1000 < milliseconds else (low, middle)
    return high


def race(width: int, steps: int, rounds: int) -> dict[str, list[Block]]:
    """`rounds` blocks of each; every round starts with another contender."""
    names, blocks = list(CONTENDERS), {name: list[Block]() for name in CONTENDERS}
    for k in range(rounds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            block = measure(CONTENDERS[name], width, steps)
            expected = blocks["hand-written"][0].weights if blocks["hand-written"] else block.weights
            torch.testing.assert_close(block.weights, expected, atol=1e-6, rtol=1e-5, msg=f"{name}: other weights")
            blocks[name].append(block)
        print(f"round {k + 1} of {rounds}", file=sys.stderr)
    return blocks


def table(blocks: dict[str, list[Block]]) -> str:
    lines = [
        "| | CPU ms/step | wall ms/step | over hand-written, µs CPU | ratio, CPU (min..max) | ratio, wall (min..max) |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    base = blocks["hand-written"]
    for name, own in blocks.items():
        cpu, wall = (1000 * statistics.median(getattr(b, kind) for b in own) for kind in ("cpu", "wall"))
        extra = 1e6 * statistics.median(b.cpu - a.cpu for a, b in zip(base, own, strict=True))
        ratios = f"{ratio(base, own, 'cpu')} | {ratio(base, own, 'wall')}"
        lines.append(f"| {name} | {cpu:.3f} | {wall:.3f} | {extra:+.0f} | {ratios} |")
    return "\n".join(lines)


def ratio(base: list[Block], own: list[Block], kind: str) -> str:
    """Median and spread of the ratios within the rounds."""
    ratios = [getattr(b, kind) / getattr(a, kind) for a, b in zip(base, own, strict=True)]
    return spread(ratios, ".3f")


def time_of_a_save(width: int, times: int = 9) -> str:
    """Our checkpoint (synced, hashed, renamed, rotated) beside `torch.save` of the same, which promises nothing."""
    model = Network(width, Clock(0, 0))
    optimizer, _ = make_optimizer(model, 1)
    model(**make_batches(1)[0])["loss"].backward()
    optimizer.step()
    ours_ms, plain_ms = [], []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = checkpoint.Checkpoints(Path(folder) / "ours")
        for step in range(1, times + 1):
            optimizers, rng = [optimizer.state_dict()], checkpoint.rng_state()
            state = checkpoint.State(model.state_dict(), optimizers=optimizers, rng=rng)
            began = time.perf_counter()
            path = checkpoints.save(step, state, config_digest="", topology={"processes": 1})
            ours_ms.append(1000 * (time.perf_counter() - began))
            began = time.perf_counter()
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, Path(folder) / "plain.pt")
            plain_ms.append(1000 * (time.perf_counter() - began))
        megabytes = sum(file.stat().st_size for file in path.rglob("*")) / 1e6
    return (
        f"a checkpoint of {megabytes:.1f} MB, wall, n={times}: ours {spread(ours_ms, '.0f')} ms; "
        f"torch.save, neither synced nor verified, {spread(plain_ms, '.0f')} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--milliseconds", type=float, default=5.0, help="CPU time of a hand-written step to aim at")
    parser.add_argument("--width", type=int, help="width of the network, instead of searching for one")
    parser.add_argument("--steps", type=int, default=200, help="steps of a block on the clock, a multiple of 20")
    parser.add_argument("--rounds", type=int, default=24, help="blocks of each contender")
    options = parser.parse_args()
    if options.steps % LOG_EVERY:
        parser.error(f"--steps: must be a multiple of {LOG_EVERY}, so that all write the same number of log rows")
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    width = options.width or find_width(options.milliseconds)
    before = load()
    blocks = race(width, options.steps, options.rounds)
    names = ("torch", "accelerate", "lightning", "transformers")
    parameters = blocks["hand-written"][0].weights.numel()
    print(", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)]))
    print(f"{processor()}, {os.cpu_count()} cores, 1 thread used; load {before} before, {load()} after")
    print(f"width {width}, {parameters:,} parameters, batch {ROWS}; {options.rounds} rounds of {options.steps} steps\n")
    print(table(blocks), end="\n\n")
    print(time_of_a_save(width))


if __name__ == "__main__":
    main()
