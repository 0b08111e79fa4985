"""Seconds of a training epoch: what `plan` says beforehand, and what the trainer then takes.

    python packages/timeseries-dualmodal/benchmarks/planned.py [--series 500] [--turns 3] [--device cpu]

The default model trains on generated seasons, its pictures drawn when needed or from our cache. An epoch is the time
from one evaluation to the next, of which the evaluations themselves take nothing here; the checkpoint between them
counts. All take turns, so that whatever else the machine does hits them alike, and ratios are taken within each turn.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from torch import nn

from shared_core import measured, plan, records, trainer
from shared_core.measured import spread
from shared_core.runtime import Runtime
from shared_core.settings import Runtime as Settings
from timeseries_dualmodal import picturesets, prepare, train
from timeseries_dualmodal.config import Config, PrepareOptions


class Timed(train.EarlyTask):
    """Says when each epoch was over."""

    def __init__(self, config: Config, runtime: Runtime) -> None:
        super().__init__(config, runtime)
        self.ends: list[float] = []

    def evaluate(self, model: nn.Module, runtime: Runtime) -> dict[str, float]:
        self.ends.append(time.perf_counter())
        return {self.monitor: 0.0}


def configuration(home: Path, series: int, cached: bool) -> Config:
    return Config.model_validate(
        {
            "data": {"sample_size": series},
            "pictures": {"cache": home / "pictures" if cached else None},
            "training": {"epochs": 2, "resume": "never"},
            "curriculum": {"stages": [{"longest": 0.5}]},
            "paths": {"data": home / "data", "runs": home / "runs"},
            "logging": {"progress": False, "tracker": "none"},
        }
    )


def planned(config: Config, runtime: Runtime, steps: int) -> float:
    """Seconds of an epoch, as `plan` says."""
    said = plan.plan(config, Timed(config, runtime), runtime, steps)
    assert said.seconds is not None
    return said.seconds / config.training.epochs


def real(config: Config, runtime: Runtime) -> float:
    """Seconds of the second epoch."""
    task = Timed(config, runtime)
    trainer.train(config, task, runtime, records.RunDir.open(config.paths.runs, "benchmark", "epoch", "never"))
    return task.ends[1] - task.ends[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--series", type=int, default=500, help="of the set; 72 %% of them train")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="that plan measures")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args()
    runtime = Runtime.start(Settings(device=options.device), seed=0)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        configs = {how: configuration(home, options.series, how == "our cache") for how in ("drawn", "our cache")}
        wanted = configs["our cache"]
        prepare.prepare(wanted.data, wanted.split, home / "data" / prepare.PACKAGE / wanted.data.folder)
        picturesets.draw(wanted, PrepareOptions(images=True))
        turns = [
            {how: (planned(config, runtime, options.steps), real(config, runtime)) for how, config in configs.items()}
            for _ in range(options.turns)
        ]
    print(f"{measured.device(runtime.device)}; {options.turns} turns; medians (smallest..largest)")
    print(f"{'':10} {'planned, s':>22} {'taken, s':>22} {'planned / taken':>22}")
    for how in configs:
        pairs = [turn[how] for turn in turns]
        columns = [[said for said, _ in pairs], [took for _, took in pairs], [said / took for said, took in pairs]]
        print(f"{how:10} " + " ".join(f"{spread(values, '.2f'):>22}" for values in columns))


if __name__ == "__main__":
    main()
