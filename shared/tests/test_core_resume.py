"""Promises 1 to 4: killed at any instant, resumed, and the weights are those of the uninterrupted run."""

import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from toy.starts import assert_same_result, is_finished, run_folder, seconds_of, sleep_into, start, status, train

from shared_core.checkpoint import verify
from shared_core.signals import EXIT_PREEMPTED


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
    """Twenty kills from outside, between the first thing that a run writes and the last."""
    rng = random.Random(0)
    killed = 0
    while killed < 20:
        folder = tmp_path / f"run-{killed}"
        process = start(folder)
        sleep_into(folder, rng.random(), seconds_of(uninterrupted))
        process.kill()
        process.join()
        if is_finished(folder):
            shutil.rmtree(folder)  # too late; try again
            continue
        killed += 1
        assert process.exitcode == -signal.SIGKILL
        code, output = train(folder)
        assert code == 0, output
        assert_same_result(folder, uninterrupted)


@pytest.mark.slow
def test_killed_at_every_write_of_a_save(tmp_path: Path, uninterrupted: Path) -> None:
    boundary = 0
    while True:
        boundary += 1
        folder = tmp_path / f"boundary-{boundary}"
        code, output = train(folder, "--data.stop_at_boundary", str(boundary))
        if code == 0:
            break  # the run crosses no more boundaries
        assert code == -signal.SIGKILL, output
        code, output = train(folder)
        assert code == 0, output
        assert_same_result(folder, uninterrupted)
    assert boundary > 30  # three saves of more than ten writes each


def test_terminated_leaves_a_checkpoint_and_says_so(tmp_path: Path, uninterrupted: Path) -> None:
    code, output = train(tmp_path, "--data.stop_at", "16", "--data.stop_signal", str(int(signal.SIGTERM)))
    assert code == EXIT_PREEMPTED, output
    assert status(tmp_path)["state"] == "preempted"
    assert status(tmp_path)["step"] == 15  # the dry run was the first of the sixteen passes: no step is lost
    code, output = train(tmp_path)
    assert code == 0, output
    assert "resumed from step-15" in output
    assert_same_result(tmp_path, uninterrupted)


def test_other_configuration_is_refused_by_name(tmp_path: Path) -> None:
    train(tmp_path, "--data.stop_at", "14", "--data.stop_signal", str(int(signal.SIGTERM)))
    code, output = train(tmp_path, "--lr", "0.5", "--epochs", "4")
    assert code == 2
    (line,) = [line for line in output.splitlines() if line.startswith("error")]
    assert "optimizer.lr: 0.001 -> 0.5" in line
    assert "epochs" not in line  # may change
    assert "Traceback" not in output


def test_refused_resume_changes_nothing(tmp_path: Path) -> None:
    code, output = train(tmp_path, "--epochs", "1")
    assert code == 0, output
    before = status(tmp_path)
    code, output = train(tmp_path, "--epochs", "1", "--lr", "0.5", "--resume", str(run_folder(tmp_path)))
    assert code == 2, output
    assert status(tmp_path) == before


def test_killed_after_stopping_early(tmp_path: Path) -> None:
    """A run whose last checkpoint says that patience is over does not train on."""
    flags = ("--epochs", "8", "--training.patience", "1", "--lr", "1e-12", "--optimizer.name", "adamw")
    code, output = train(tmp_path / "whole", *flags)
    assert code == 0, output
    assert status(tmp_path / "whole")["step"] < 8 * 12
    folder = tmp_path / "killed"
    code, output = train(folder, *flags)
    assert code == 0, output
    (run_folder(folder) / "status.json").write_text('{"state": "running"}')  # as a kill before the last write leaves it
    code, output = train(folder, *flags)
    assert code == 0, output
    assert_same_result(folder, tmp_path / "whole")


def test_finished_run_is_left_alone(tmp_path: Path, uninterrupted: Path) -> None:
    code, output = train(tmp_path, "--epochs", "1")
    assert code == 0, output
    code, output = train(tmp_path, "--epochs", "1")
    assert code == 0, output
    assert {path.name for path in (tmp_path / "toy-package").iterdir()} == {"default", "default-2"}


def test_disk_that_fills_up_in_the_middle(tmp_path: Path, uninterrupted: Path) -> None:
    """One line, exit 2, every checkpoint whole; with more room the same command ends with the same weights."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=1400k", "tmpfs", str(disk)]
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("cannot mount a small disk (not root)")
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(260_000))  # a save wants a megabyte of room to spare
        code, output = train(disk / "runs", "--training.keep_checkpoints", "8")
        assert code == 2, output
        (line,) = [line for line in output.splitlines() if line.startswith("error")]
        assert str(disk) in line
        assert "Traceback" not in output
        folders = list((run_folder(disk / "runs") / "checkpoints").glob("step-*"))
        assert folders
        assert [folder.name for folder in folders if verify(folder) is not None] == []
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        code, output = train(disk / "runs", "--training.keep_checkpoints", "8")
        assert code == 0, output
        assert_same_result(disk / "runs", uninterrupted)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code, output = train(tmp_path, "--paths.runs", str(tmp_path / "file" / "runs"))
    assert code == 2
    (line,) = [line for line in output.splitlines() if line.startswith("error")]
    assert str(tmp_path / "file") in line
