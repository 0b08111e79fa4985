"""Seconds of a training step and peak memory: what `plan` says beforehand, and what training then takes.

    python packages/retina-diffusion/benchmarks/planned.py [--turns 3] [--size 64] [--dim 256] [--device cpu]

Each measurement is a process of its own. Memory is what tensors took at most: CUDA's own count, or on CPUs the
profiler's record of every allocation. What a CPU's allocator takes from the system for that, the growth of the resident
set from before the model was made, is shown besides. Recomputing blocks (gradient checkpointing) is measured as well.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import accumulate
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from retina_diffusion import plan as planning
from retina_diffusion.config import Config
from shared_core import measured
from shared_core import plan as plans
from shared_core.learner import Learner
from shared_core.measured import spread
from shared_core.runtime import Runtime
from shared_core.settings import Runtime as Settings

WARM = 2


def configuration(options: argparse.Namespace, again: bool, home: str) -> Config:
    return Config.model_validate(
        {
            "data": {"size": options.size, "name": "none"},
            "model": {
                "dim": options.dim,
                "depth": options.depth,
                "heads": max(1, options.dim // 64),
                "patch": options.patch,
            },
            "training": {"batch_size": options.batch, "ema_decay": 0.999, "resume": "never"},
            "runtime": {"device": options.device, "gradient_checkpointing": again},
            "paths": {"data": home, "runs": home},
            "logging": {"progress": False, "tracker": "none"},
        }
    )


def said(config: Config, runtime: Runtime, steps: int) -> dict[str, float]:
    """What `plan` says: seconds of a step, bytes."""
    task = planning.Imagined(config, runtime, planning.PHOTOGRAPHS)
    made = plans.plan(config, task, runtime, steps)
    assert made.step_seconds is not None
    return {"seconds": made.step_seconds, "bytes": sum(v for k, v in made.memory.items() if k != "CUDA context")}


def taken(config: Config, runtime: Runtime, steps: int) -> dict[str, float]:
    """What training takes: seconds of a step, bytes of tensors at the peak, bytes that the process grew by."""
    run(small(config), runtime, 2)  # what libraries take once
    before = resident()
    if runtime.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = run(config, runtime, steps + WARM)[WARM:]
    grown = resident() - before
    peak = torch.cuda.max_memory_allocated() if runtime.device.type == "cuda" else recorded(config, runtime)
    return {"seconds": statistics.median(seconds), "bytes": peak, "resident": grown}


def resident() -> int:
    """Bytes of this process that were in memory at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def recorded(config: Config, runtime: Runtime) -> float:
    """Bytes of tensors at the peak of three steps on a CPU."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run(config, runtime, 3)
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        profiler.export_chrome_trace(file.name)
        events = json.loads(Path(file.name).read_text(encoding="utf-8"))["traceEvents"]
    changes = [event for event in events if event["name"] == "[memory]"]
    changes.sort(key=lambda event: event["ts"])  # those of one instant stay in their order
    return max(accumulate(event["args"]["Bytes"] for event in changes))


def small(config: Config) -> Config:
    less = config.model.model_copy(update={"dim": 64, "depth": 1, "heads": 1})
    return config.model_copy(update={"model": less, "training": config.training.model_copy(update={"batch_size": 8})})


def run(config: Config, runtime: Runtime, steps: int) -> list[float]:
    """Seconds of each of some optimizer steps."""
    task = planning.Imagined(config, runtime, planning.PHOTOGRAPHS)
    learner, seconds = Learner(config, task, runtime, steps), []
    batch = next(task.batches.epoch(0))
    learner.model.train()
    for step in range(steps):
        began = time.perf_counter()
        learner.step([batch], step, None)
        if runtime.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return seconds


def in_a_process(*flags: str) -> dict[str, float]:
    line = subprocess.run([sys.executable, __file__, *flags], check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(line.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--patch", type=int, default=8)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--once", choices=("said", "taken"), help="one measurement, as JSON")
    parser.add_argument("--again", action="store_true", help="of --once: recompute blocks")
    options = parser.parse_args()
    runtime = Runtime.start(Settings(device=options.device), seed=0)
    if options.once:
        with tempfile.TemporaryDirectory() as home:
            config = configuration(options, options.again, home)
            print(json.dumps({"said": said, "taken": taken}[options.once](config, runtime, options.steps)))
        return
    report(options, runtime)


def report(options: argparse.Namespace, runtime: Runtime) -> None:
    names = ("size", "patch", "dim", "depth", "batch", "steps", "device")
    shape = [f"--{name}={vars(options)[name]}" for name in names]
    print(f"{measured.device(runtime.device)}; {options.turns} turns; medians (smallest..largest)")
    print(f"{'':24} {'planned':>22} {'taken':>22} {'planned / taken':>22}")
    for again in (False, True):
        flags = [*shape, *(["--again"] if again else [])]
        turns = [[in_a_process("--once", how, *flags) for how in ("said", "taken")] for _ in range(options.turns)]
        for what, unit in (("seconds", 1.0), ("bytes", 1e9)):
            pairs = [(first[what] / unit, second[what] / unit) for first, second in turns]
            columns = [[a for a, _ in pairs], [b for _, b in pairs], [a / b for a, b in pairs]]
            name = f"{what if what == 'seconds' else 'GB'}{', recomputed' if again else ''}"
            print(f"{name:24} " + " ".join(f"{spread(values, '.3f'):>22}" for values in columns))
        grown = spread([second["resident"] / 1e9 for _, second in turns], ".3f")
        print(f"{'GB that the process grew':24} {'':22} {grown:>22}")


if __name__ == "__main__":
    main()
