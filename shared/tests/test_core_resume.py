"""Promises 1 to 4: killed at any instant, resumed, and the weights are those of the uninterrupted run."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy
import torch
from shared_core.signals import EXIT_PREEMPTED

HERE = Path(__file__).parent
TINY = [
    *("--epochs", "3", "--batch-size", "8", "--training.ema_decay", "0.9", "--optimizer.name", "muon"),
    *("--logging.tracker", "none", "--logging.every", "2", "--runtime.device", "cpu", "--runtime.threads", "1"),
]


def command(folder: Path, *flags: str, processes: int = 1) -> list[str]:
    train = ["train", "--paths.runs", str(folder), *TINY, *flags]
    if processes == 1:
        return [sys.executable, "-m", "toy", *train]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["accelerate.commands.launch", "--cpu", "--multi_cpu", "--num_processes", str(processes)]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--main_process_port", str(port)]
    return [sys.executable, "-m", *launch, "-m", "toy", *train]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}


def start(folder: Path, *flags: str, processes: int = 1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(folder, *flags, processes=processes),
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out + err


def train(folder: Path, *flags: str, processes: int = 1) -> tuple[int, str]:
    return finish(start(folder, *flags, processes=processes))


def run_folder(folder: Path, name: str = "default") -> Path:
    return folder / "toy-package" / name


def status(folder: Path) -> dict:
    return json.loads((run_folder(folder) / "status.json").read_text())


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


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    code, output = train(folder)
    assert code == 0, output
    return folder


@pytest.mark.parametrize("at", [1, 13, 30])  # in the dry run, at the start of an epoch, in the middle of one
def test_killed_in_a_step(tmp_path: Path, uninterrupted: Path, at: int) -> None:
    code, _ = train(tmp_path, "--data.stop_at", str(at))
    assert code == -signal.SIGKILL
    assert status(tmp_path)["state"] == "running"  # nobody was left to write anything else
    code, output = train(tmp_path)
    assert code == 0, output
    assert_same_result(tmp_path, uninterrupted)


@pytest.mark.slow
def test_killed_at_random_instants(tmp_path: Path, uninterrupted: Path) -> None:
    """Twenty kills from outside, at any point of start-up, step, evaluation or save."""
    rng = random.Random(0)
    began = time.monotonic()
    code, output = train(tmp_path / "timed")
    assert code == 0, output
    whole = time.monotonic() - began
    killed = 0
    while killed < 20:
        folder = tmp_path / f"run-{killed}"
        process = start(folder)
        time.sleep(rng.uniform(0.3, 1.0) * whole)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.communicate()
        code, output = train(folder) if not is_finished(folder) else (0, "")
        assert code == 0, output
        assert_same_result(folder, uninterrupted)


def is_finished(folder: Path) -> bool:
    return (run_folder(folder) / "status.json").exists() and status(folder)["state"] == "finished"


def test_terminated_leaves_a_checkpoint_and_says_so(tmp_path: Path, uninterrupted: Path) -> None:
    code, output = train(tmp_path, "--data.stop_at", "16", "--data.stop_signal", str(int(signal.SIGTERM)))
    assert code == EXIT_PREEMPTED, output
    assert status(tmp_path)["state"] == "preempted"
    assert status(tmp_path)["step"] == 15  # the dry run was the first of the sixteen passes: no step is lost
    code, output = train(tmp_path)
    assert code == 0, output
    assert "resumed from step-15" in output
    assert_same_result(tmp_path, uninterrupted)


@pytest.mark.slow
def test_two_processes_killed_and_resumed(tmp_path: Path) -> None:
    code, output = train(tmp_path / "whole", processes=2)
    assert code == 0, output
    for at in (4, 9, 14):
        folder = tmp_path / f"killed-{at}"
        code, _ = train(folder, "--data.stop_at", str(at), processes=2)
        assert code != 0
        code, output = train(folder, processes=2)
        assert code == 0, output
        assert_same_result(folder, tmp_path / "whole")


def test_other_configuration_is_refused_by_name(tmp_path: Path) -> None:
    train(tmp_path, "--data.stop_at", "14", "--data.stop_signal", str(int(signal.SIGTERM)))
    code, output = train(tmp_path, "--lr", "0.5", "--epochs", "4")
    assert code == 2
    (line,) = [line for line in output.splitlines() if line.startswith("error")]
    assert "optimizer.lr: 0.001 -> 0.5" in line
    assert "epochs" not in line  # may change
    assert "Traceback" not in output


def test_finished_run_is_left_alone(tmp_path: Path, uninterrupted: Path) -> None:
    code, output = train(tmp_path, "--epochs", "1")
    assert code == 0, output
    code, output = train(tmp_path, "--epochs", "1")
    assert code == 0, output
    assert {path.name for path in (tmp_path / "toy-package").iterdir()} == {"default", "default-2"}
