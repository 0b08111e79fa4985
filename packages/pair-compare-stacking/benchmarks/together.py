"""Time of training several models: together in one process, in turn or batched, against one after the other.

    python packages/pair-compare-stacking/benchmarks/together.py [--config ten] [--stage 2] [--steps 20] [--repeats 3]

Both run the trainer's own steps: stream of pairs, forward, backward, clipping, optimizer, averaged weights. Evaluation,
checkpoints and starting the process, of which training alone does one for each model, are left out. The two take turns,
and the ratio is taken within each turn. The pairs are made of scikit-learn's digits at the preset's severity, which
costs the same.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pair_compare_stacking import prepare, train
from pair_compare_stacking.__main__ import APP
from pair_compare_stacking.config import Config
from shared_core import measured
from shared_core.errors import UserError
from shared_core.learner import Learner
from shared_core.measured import spread
from shared_core.runtime import Runtime

FEW = {"n_train": 64, "n_val": 64, "n_test_public": 64, "n_test_disjoint": 0}
WARM_UP = 2  # steps
ALONE = "one after the other"


class Training:
    """A run without its files: its learner, and its batches from the first on."""

    def __init__(self, config: Config, runtime: Runtime, steps: int) -> None:
        task = train.build_task(config, runtime)
        self.learner, self.step = Learner(config, task, runtime, steps), 0
        self.device, self.precision = runtime.device, runtime.precision
        self.learner.model.train()
        self.batches = self._endless(task)

    def _endless(self, task: Any) -> Iterator[Any]:
        epoch = 0
        while True:
            yield from task.batches.epoch(epoch)
            epoch += 1

    def seconds(self, steps: int) -> float:
        """Of so many steps."""
        began = time.perf_counter()
        for _ in range(steps):
            self.learner.step([next(self.batches)], self.step, None)
            self.step += 1
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - began


def configured(options: argparse.Namespace, folder: Path) -> Config:
    """The preset, or the models of one stage of it, on a small prepared set."""
    overrides: dict[str, Any] = {"runtime.device": options.device, "paths.data": str(folder), "distill.teacher": None}
    if options.threads:
        overrides["runtime.threads"] = options.threads
    config: Any = APP.load(options.config, overrides)
    models = {n: m for n, m in config.models.items() if options.stage is None or str(m.stage) == options.stage}
    data = config.data.sample().model_copy(update=FEW)
    return config.model_copy(update={"data": data, "models": models})


def trainings(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Training], dict[str, Training], Config]:
    """All models in one training, by how they take their calls; each in one of its own; the configuration of all.

    Raises UserError where the preset has no two models, or cannot be read.
    """
    config = configured(options, folder)
    if len(config.singles()) < 2:
        raise UserError(f"{options.config}: has no two models to train together")
    prepare.prepare(config.data, folder / prepare.PACKAGE / config.data.folder, bar=False)
    runtime = Runtime.start(config.runtime, config.seed)
    planned = WARM_UP + options.repeats * options.steps
    together = {
        how: Training(config.model_copy(update={"together": how}), runtime, planned) for how in ("in_turn", "batched")
    }
    return together, {name: Training(single, runtime, planned) for name, single in config.singles().items()}, config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--config", default="ten")
    parser.add_argument("--stage", choices=("1", "2", "3"), help="the models of one stage alone")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            together, alone, config = trainings(options, Path(folder))
        except UserError as error:
            parser.error(str(error))
    for training in (*together.values(), *alone.values()):
        training.seconds(WARM_UP)
    seconds: dict[str, list[float]] = {how: [] for how in (*together, ALONE)}
    for _ in range(options.repeats):
        for how, training in together.items():
            seconds[how].append(training.seconds(options.steps))
        seconds[ALONE].append(sum(training.seconds(options.steps) for training in alone.values()))
    any_of_them = next(iter(together.values()))
    print(f"{measured.device(any_of_them.device)}, {any_of_them.precision}, torch {torch.__version__}")
    print(
        f"{options.config}: {len(alone)} models, batches of {config.training.batch_size}, {options.steps} steps, "
        f"{options.repeats} turns; median (smallest..largest)"
    )
    for how, of_how in seconds.items():
        ratios = [ours / theirs for ours, theirs in zip(of_how, seconds[ALONE], strict=True)]
        print(f"{how:20} {spread(of_how, '.2f')} s, ratio {spread(ratios, '.3f')}")


if __name__ == "__main__":
    main()
