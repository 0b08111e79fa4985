"""Two processes, either of them or both killed at any instant, resumed: the weights are the uninterrupted ones."""

import json
import random
import shutil
import signal
from pathlib import Path

import pytest
from toy.starts import (
    Two,
    assert_same_result,
    evaluations,
    is_finished,
    run_folder,
    seconds_of,
    sleep_into,
    status,
    train_two,
    train_with_torchrun,
)

from shared_core.signals import EXIT_PREEMPTED


@pytest.fixture(scope="module")
def uninterrupted_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted-two")
    codes, outputs = train_two(folder)
    assert codes == [0, 0], outputs
    return folder


def test_two_processes_train_one_run(uninterrupted_two: Path) -> None:
    run = json.loads((run_folder(uninterrupted_two) / "run.json").read_text())
    assert run["processes"] == 2
    losses = [loss for _, loss in evaluations(uninterrupted_two)]
    assert len(set(losses)) == 3  # the averaged weights that are evaluated do learn
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_two_processes_killed_at_random_instants(tmp_path: Path, uninterrupted_two: Path) -> None:
    """Twenty kills from outside, of one process or of both, as a machine that loses its power kills them."""
    rng = random.Random(0)
    killed = 0
    while killed < 20:
        folder = tmp_path / f"run-{killed}"
        victims = ((0,), (1,), (0, 1))[killed % 3]
        two = Two(folder)
        sleep_into(folder, rng.random(), seconds_of(uninterrupted_two))
        two.kill(*victims)
        codes, outputs = two.wait()
        if is_finished(folder):
            shutil.rmtree(folder)  # too late; try again
            continue
        killed += 1
        assert -signal.SIGKILL in codes
        through = (run_folder(folder) / "checkpoints" / "step-18").exists()  # processes do not need each other any more
        for survivor in {0, 1} - set(victims):
            if not (through and codes[survivor] == 0):
                assert_lost_the_other(codes[survivor], outputs[survivor])
        codes, outputs = train_two(folder)
        assert codes == [0, 0], outputs
        assert_same_result(folder, uninterrupted_two)


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "at_least"), [(0, 30), (1, 9)])  # process 1 writes two files and flushes
def test_two_processes_killed_at_every_write_of_a_save(
    tmp_path: Path, uninterrupted_two: Path, rank: int, at_least: int
) -> None:
    boundary = 0
    while True:
        boundary += 1
        folder = tmp_path / f"boundary-{boundary}"
        fault = ("--data.stop_at_boundary", str(boundary), "--data.fault_in", str(rank))
        codes, outputs = train_two(folder, *fault)
        if codes == [0, 0]:
            break  # this process crosses no more boundaries
        assert codes[rank] == -signal.SIGKILL, outputs
        assert_lost_the_other(codes[1 - rank], outputs[1 - rank])
        assert status(folder)["state"] == ("running" if rank == 0 else "failed")  # it is process 0 who writes it
        codes, outputs = train_two(folder)
        assert codes == [0, 0], outputs
        assert_same_result(folder, uninterrupted_two)
    assert boundary > at_least


def assert_lost_the_other(code: int, output: str) -> None:
    """A process whose partner is gone ends by itself, with one line."""
    assert code == 1, output
    assert "Traceback" not in output
    (line,) = [line for line in output.splitlines() if line.startswith("error")]
    assert "lost another process" in line


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("at", [1, 9])  # in the dry run, in a step
def test_one_of_two_processes_fails(tmp_path: Path, rank: int, at: int) -> None:
    """It says why; the other one says where to look."""
    codes, outputs = train_two(tmp_path, "--data.damaged_at", str(at), "--data.fault_in", str(rank))
    assert codes[rank] == 2
    lines = outputs[rank].splitlines()
    assert lines[-1] == ("error: " if rank == 0 else "error (process 1): ") + "row 3: is damaged; prepare the data anew"
    assert_lost_the_other(codes[1 - rank], outputs[1 - rank])
    assert status(tmp_path)["state"] == "failed"
    assert status(tmp_path)["reason"].startswith("row 3: is damaged" if rank == 0 else "lost another process")


@pytest.mark.parametrize("told", [("--data.fault_in", "1"), ()], ids=["one", "both"])
def test_two_processes_terminated(tmp_path: Path, uninterrupted_two: Path, told: tuple[str, ...]) -> None:
    """Both stop after the same step, with a checkpoint, whichever of them was told to."""
    codes, outputs = train_two(tmp_path, "--data.stop_at", "9", "--data.stop_signal", str(int(signal.SIGTERM)), *told)
    assert codes == [EXIT_PREEMPTED, EXIT_PREEMPTED], outputs
    assert status(tmp_path)["state"] == "preempted"
    codes, outputs = train_two(tmp_path)
    assert codes == [0, 0], outputs
    assert "resumed from" in outputs[0]
    assert_same_result(tmp_path, uninterrupted_two)


@pytest.mark.slow
def test_torchrun_killed_and_resumed(tmp_path: Path, uninterrupted_two: Path) -> None:
    """The real launcher ends both processes where one was killed in a save, and starts them again."""
    code, output = train_with_torchrun(tmp_path, "--data.stop_at_boundary", "17", "--data.fault_in", "0")
    assert code == 1, output
    assert status(tmp_path)["state"] == "running"
    code, output = train_with_torchrun(tmp_path)
    assert code == 0, output
    assert "resumed from" in output
    assert_same_result(tmp_path, uninterrupted_two)
