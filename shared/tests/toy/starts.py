"""Start the toy's training, in one process or in two, and look at what it wrote."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import toy
import toy.child

HERE = Path(__file__).parent.parent
# what training imports, early or late; the server finds installed packages only, and skips silently what it does not
IMPORTED = ["torch._inductor", "torch.utils.tensorboard", "accelerate.data_loader", "shared_core.trainer"]
IMPORTED += ["shared_core.batches", "shared_core.hub", "shared_core.report", "shared_core.verbs"]
IMPORTED += ["matplotlib.figure", "matplotlib.backends.backend_agg"]
TINY = [
    *("--epochs", "3", "--batch-size", "8", "--training.ema_decay", "0.9", "--optimizer.name", "muon"),
    *("--logging.tracker", "none", "--logging.every", "2", "--runtime.device", "cpu", "--runtime.threads", "1"),
]


def flags(folder: Path, *more: str, verb: str = "train") -> list[str]:
    return [verb, "--paths.runs", str(folder), *TINY, *more]


def start(
    folder: Path,
    *more: str,
    verb: str = "train",
    output: str = "output.txt",
    environment: Mapping[str, str] | None = None,
) -> Any:
    """One process, forked from a server that has imported everything: a start costs no import."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / output).write_text("")  # it may be killed before it prints anything
    arguments = (flags(folder, *more, verb=verb), folder / output, environment or {})
    process = context.Process(target=toy.child.main, args=arguments)
    process.start()
    return process


def train(folder: Path, *more: str) -> tuple[int, str]:
    """Exit status (negative: the signal) and output of one training process."""
    return command(folder, "train", *more)


def command(folder: Path, verb: str, *more: str) -> tuple[int, str]:
    process = start(folder, *more, verb=verb)
    process.join(timeout=240)
    return process.exitcode, (folder / "output.txt").read_text()


class Two:
    """Two training processes of one run, started as torchrun starts them."""

    def __init__(self, folder: Path, *more: str, environment: Mapping[str, str] | None = None) -> None:
        self.outputs = [folder / f"output-{rank}.txt" for rank in range(2)]
        # where the processes find each other; like torchrun's, it outlives any of them
        self.store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_USE_AGENT_STORE": "True"}
        common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.store.port)}
        common |= environment or {}
        self.processes = [
            start(folder, *more, output=path.name, environment={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank, path in enumerate(self.outputs)
        ]

    def kill(self, *ranks: int) -> None:
        for rank in ranks:
            self.processes[rank].kill()

    def wait(self) -> tuple[list[int], list[str]]:
        """Exit statuses and outputs. A process that outlives the other by half a minute hangs, which is a failure."""
        deadline = time.monotonic() + 240
        while all(process.is_alive() for process in self.processes) and time.monotonic() < deadline:
            time.sleep(0.01)
        for process in self.processes:
            process.join(timeout=30)
        hanging = [rank for rank, process in enumerate(self.processes) if process.is_alive()]
        self.kill(*hanging)
        assert hanging == [], self.texts()
        return [process.exitcode for process in self.processes], self.texts()

    def texts(self) -> list[str]:
        return [path.read_text() for path in self.outputs]


def train_two(folder: Path, *more: str) -> tuple[list[int], list[str]]:
    """Exit statuses and outputs of two processes that train one run."""
    return Two(folder, *more).wait()


def train_with_torchrun(folder: Path, *more: str) -> tuple[int, str]:
    """The same with the real launcher, whose processes import everything."""
    launch = ["torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    launch += ["--rdzv_endpoint", "localhost:0", "-m", "toy"]
    done = subprocess.run(
        [sys.executable, "-m", *launch, *flags(folder, *more)],
        env={**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"},
        text=True,
        capture_output=True,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


def run_folder(folder: Path, name: str = "default") -> Path:
    return folder / "toy-package" / name


def status(folder: Path) -> dict:
    return json.loads((run_folder(folder) / "status.json").read_text())


def is_finished(folder: Path) -> bool:
    return (run_folder(folder) / "status.json").exists() and status(folder)["state"] == "finished"


def seconds_of(folder: Path) -> float:
    """How long a finished run took, without the start before it and the report after it."""
    first, last = run_folder(folder) / "config.yaml", run_folder(folder) / "status.json"
    return last.stat().st_mtime - first.stat().st_mtime


def sleep_into(folder: Path, share: float, seconds: float) -> None:
    """Return when a run that has just been started has spent that share of its seconds."""
    deadline = time.monotonic() + 240
    while not run_folder(folder).exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(share * seconds)


def assert_same_result(ours: Path, theirs: Path) -> None:
    """Weights, averages and evaluations of two finished runs are equal to the last bit."""
    assert status(ours)["state"] == status(theirs)["state"] == "finished"
    a, b = toy.weights(run_folder(ours)), toy.weights(run_folder(theirs))
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    assert evaluations(ours) == evaluations(theirs)


def evaluations(folder: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (run_folder(folder) / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["val/loss"]) for row in rows if "val/loss" in row]
