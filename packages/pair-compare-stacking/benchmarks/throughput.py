"""Pairs per second at inference: an ensemble, each of its models, and single models such as its student.

    python packages/pair-compare-stacking/benchmarks/throughput.py ten distilled [--device cpu] [--repeats 7]

The first run is the ensemble, the others are compared with it; each is a name in the folder of runs, or a path. A pair
is timed from its uint8 picture to its answer, in batches as `predict` makes them, combining included. All take
turns, so that whatever else the machine does hits them alike, and ratios are taken within each turn. The pictures are
random: what they show does not matter for the time.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pair_compare_stacking import saved, stackers, subject, train
from pair_compare_stacking.model import PairModel
from pair_compare_stacking.subject import Several, Single
from shared_core import records
from shared_core.errors import UserError
from shared_core.runtime import Runtime
from shared_core.settings import Runtime as Settings


def find(name: str, home: Path) -> Single | Several:
    run = records.find(home / name if (home / name).is_dir() else Path(name))
    return subject.of_run(run, saved.read_config(run.path))


def best_single(who: Several) -> str | None:
    """Name of the model that stage 4 found the best, if it has been run."""
    stacker = who.ensemble.stackers.get(stackers.BEST_SINGLE)
    return stacker.models[int(np.argmax(stacker.weights))] if isinstance(stacker, stackers.Blend) else None


def works(
    ensemble: Several, others: dict[str, Single | Several], x: torch.Tensor, runtime: Runtime
) -> dict[str, Callable[[], object]]:
    """What is timed, by the name of its row; the ensemble comes first."""

    def single(model: PairModel) -> Callable[[], object]:
        return lambda: train.predict(model, x, runtime)

    def several(who: Several) -> Callable[[], object]:
        return lambda: who.ensemble.combine(who.ensemble.base(x, runtime), who.method)

    found: dict[str, Callable[[], object]] = {f"ensemble ({ensemble.method})": several(ensemble)}
    best = best_single(ensemble)
    for name, model in ensemble.ensemble.models.items():
        found[f"{name} (best single)" if name == best else name] = single(model.to(runtime.device))
    for name, who in others.items():
        found[name] = several(who) if isinstance(who, Several) else single(who.model.to(runtime.device))
    return found


def seconds(work: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("runs", nargs="+", help="the ensemble, then what is compared with it")
    parser.add_argument("--home", type=Path, default=Path("runs/pair-compare-stacking"), help="folder of the runs")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    try:
        found = {name: find(name, options.home) for name in options.runs}
    except UserError as error:
        parser.error(str(error))
    first, *others = options.runs
    if not isinstance(ensemble := found[first], Several):
        parser.error(f"{first}: is a single model; name the ensemble first")
    runtime = Runtime.start(Settings(device=options.device, threads=options.threads), seed=0)
    x = torch.randint(0, 256, (options.pairs, 28, 56), dtype=torch.uint8)
    todo = works(ensemble, {name: found[name] for name in others}, x, runtime)
    taken: dict[str, list[float]] = {name: [] for name in todo}
    for turn in range(options.repeats + 1):
        for name, work in todo.items():
            spent = seconds(work, runtime.device)
            if turn:  # the first one warms up
                taken[name].append(spent)
    where = torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else platform.processor()
    print(
        f"{runtime.device.type} ({where or platform.machine()}), {torch.get_num_threads()} threads, load {load()}, "
        f"{options.pairs:,} pairs in batches of {train.EVALUATION_BATCH}, {options.repeats} turns; "
        "median (smallest..largest)"
    )
    print(f"{'':36} {'pairs/s':>28}   {'cost, ensemble = 1':>24}")
    whole = taken[next(iter(todo))]
    for name, spent in taken.items():
        ratios = [ours / all_of_them for ours, all_of_them in zip(spent, whole, strict=True)]
        rates = [options.pairs / value for value in spent]
        print(f"{name:36} {spread(rates, ',.0f'):>28}   {spread(ratios, '.3f'):>24}")
    for name in others:
        ratio = statistics.median(ours / theirs for ours, theirs in zip(taken[name], whole, strict=True))
        print(f"{name}/{first}: {ratio:.3f}")


def load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}}..{max(values):{form}})"


if __name__ == "__main__":
    main()
