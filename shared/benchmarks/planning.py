"""How long `plan` takes to find a model's FLOPs and memory by counting, beside computing the same passes.

    python shared/benchmarks/planning.py [--repeats 3]

The model is a convolutional network at full resolution (28 x 28), as one plans it on a CPU before it trains on a GPU.
CPUs without such units emulate bf16. Both ways give the same numbers, which the script checks; they take turns.
"""

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from shared_core import costs
from shared_core.measured import load, processor, spread
from shared_core.task import Task

WIDTHS = (64, 128, 256)


class Convolutions(Task):
    """Two convolutions for each width, batch norm before each."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        before = 1
        for width in WIDTHS:
            for stride in (2 if before > 1 else 1, 1):
                layers += [nn.BatchNorm2d(before), nn.ReLU(), nn.Conv2d(before, width, 3, stride, 1, bias=False)]
                before = width
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 1))
        self.model = nn.Sequential(*layers, head).to(memory_format=torch.channels_last)

    def loss(self, model: nn.Module, batch: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return model(batch["x"]).float().square().mean(), {}

    def evaluate(self, model: nn.Module, runtime: Any) -> dict[str, float]:
        return {}


def timed(task: Task, batch: Any, precision: str, compute: bool) -> tuple[costs.Costs, float, float]:
    """(costs, wall seconds, CPU seconds)."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = costs.passes(task, task.model, batch, precision, compute)
    return found, time.perf_counter() - wall, time.process_time() - cpu


def rows(repeats: int) -> Iterator[str]:
    task, batch = Convolutions(), {"x": torch.randn(costs.SMALL_BATCH, 1, 28, 28)}
    timed(task, batch, "fp32", compute=False)  # imports what counting needs, once
    for precision in ("fp32", "bf16"):
        seconds: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        for _ in range(repeats):
            (counted, *one), (computed, *other) = (timed(task, batch, precision, how) for how in (False, True))
            assert counted == computed
            seconds[False].append((one[0], one[1]))
            seconds[True].append((other[0], other[1]))
        for column, clock in enumerate(("wall", "CPU")):
            counting, computing = ([pair[column] for pair in seconds[how]] for how in (False, True))
            ratio = statistics.median(a / b for a, b in zip(counting, computing, strict=True))
            yield f"| {precision}, {clock} | {spread(counting, '.3f')} | {spread(computing, '.3f')} | {ratio:.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="How long a plan takes by counting and by computing.")
    parser.add_argument("--repeats", type=int, default=3)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{processor()}, {os.cpu_count()} cores, 1 thread, load {load()}, n = {wanted.repeats}\n")
    print("| precision, clock | counting, s (min..max) | computing, s (min..max) | ratio |\n|---|---|---|---|")
    for row in rows(wanted.repeats):
        print(row, flush=True)


if __name__ == "__main__":
    main()
