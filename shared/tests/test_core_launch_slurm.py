"""`launch --on slurm`: the batch script, run by stand-ins for SLURM's programs that keep everything on this machine."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import toy
from toy import starts

from shared_core.errors import UserError

SRUN = """#!{python}
import os, signal, subprocess, sys
words, nodes = sys.argv[1:], int(os.environ["SLURM_JOB_NUM_NODES"])
while words[0].startswith("--"):
    option = words.pop(0)
    nodes = int(option[8:]) if option.startswith("--nodes=") else nodes

def start(node):
    return subprocess.Popen(words, env=dict(os.environ, SLURM_NODEID=str(node)), start_new_session=True)

tasks = [start(node) for node in range(nodes)]
signal.signal(signal.SIGTERM, lambda *_: [task.terminate() for task in tasks])
statuses = [task.wait() for task in tasks]
sys.exit(max(status if status >= 0 else 128 - status for status in statuses))
"""
SCONTROL = """#!/bin/sh
if [ "$1" = requeue ]; then echo "$2" >> "$CLUSTER/requeued"; else echo 127.0.0.1; echo 127.0.0.1; fi
"""
SBATCH = """#!/bin/sh
cat > "$CLUSTER/job.sh"; echo "Submitted batch job 4242"
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cluster"
    folder.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("sbatch", SBATCH)):
        (folder / name).write_text(text.format(python=sys.executable) if name == "srun" else text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("CLUSTER", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def script(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert toy.APP.run(["launch", "--on", "slurm", "--dry-run", *words]) == 0
    return capsys.readouterr().out


def start(job: Path, attempt: int, nodes: int) -> "subprocess.Popen[bytes]":
    about = {"SLURM_JOB_ID": "4242", "SLURM_JOB_NUM_NODES": str(nodes), "SLURM_JOB_NODELIST": "n[0-1]"}
    about |= {"SLURM_RESTART_COUNT": str(attempt)} if attempt else {}
    environment = {**os.environ, **about, "PYTHONPATH": str(starts.HERE), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(["bash", str(job)], env=environment)


def test_script_is_one_that_bash_reads(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for words in (
        [],
        ["--nodes", "2", "--gpus", "4", "--gpu", "a100", "--timeout", "1d2h", "--memory", "64G"],
        ["--gpus", "2", "--restarts", "0", "--scheduler", "partition=gpu", "account=lab"],
        ["--nodes", "2", "--image", "registry.example.org/team/toy:1", "--secret", "it's a file"],
        ["--training.resume", "it's; $(touch here)"],
    ):
        text = script(capsys, *words)
        assert text.startswith("#!")
        checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
        assert checked.stderr == ""
    assert not (tmp_path / "here").exists()


def test_directives_say_what_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--nodes", "2", "--gpus", "4", "--gpu", "a100", "--timeout", "26h", "--memory", "64G", "--scheduler"]
    text = script(capsys, *words, "partition=gpu", "qos=long", "--name", "mine")
    found = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in re.findall(r"^#SBATCH.*", text, re.M))
    assert found == {
        "job-name": "toy-mine",
        "nodes": "2",
        "ntasks-per-node": "1",
        "gpus-per-node": "a100:4",
        "time": "1-02:00:00",
        "mem": "65536M",
        "output": "runs/toy-package/slurm-%j.log",
        "open-mode": "append",
        "signal": "B:USR1@120",
        "requeue": "",
        "partition": "gpu",
        "qos": "long",
    }
    _, _, body = text.partition("\n\n")
    assert "#SBATCH" not in body, "SLURM stops reading at the first command"
    assert "--no-requeue" in script(capsys, "--restarts", "0")
    assert "scontrol requeue" not in script(capsys, "--restarts", "0")


def test_sbatch_gets_what_is_shown(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert toy.APP.run(["launch", "--on", "slurm"]) == 0
    said = capsys.readouterr().out
    assert "Submitted batch job 4242" in said
    assert Path("runs/toy-package").is_dir(), "SLURM would not make it, and the job would have no output"
    assert (cluster / "job.sh").read_text() == script(capsys).removesuffix("\n")


def test_refusal_of_sbatch_is_passed_on(cluster: Path) -> None:
    (cluster / "sbatch").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(UserError, match="sbatch refused"):
        toy.APP.run(["launch", "--on", "slurm"])


def test_machine_without_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--dry-run"):
        toy.APP.run(["launch", "--on", "slurm"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("does", "attempt", "requeued"),
    [
        ("exit 0", 0, False),
        ("exit 75", 0, True),
        ("exit 75", 3, False),
        ("exit 2", 0, False),
        ("kill -9 $$", 0, True),
    ],
)
def test_job_goes_back_into_the_queue_when_that_helps(
    does: str, attempt: int, requeued: bool, cluster: Path, capsys: Any
) -> None:
    fake = cluster / "python"
    real = shlex.quote(sys.executable)
    fake.write_text(f'#!/bin/sh\ncase "$*" in *launch.restart*) exec {real} "$@";; esac\n{does}\n')
    fake.chmod(0o755)
    job = cluster / "job.sh"
    job.write_text(script(capsys).replace(sys.executable, str(fake)))
    start(job, attempt, nodes=1).wait(timeout=60)
    assert (cluster / "requeued").exists() == requeued


@pytest.mark.slow
def test_two_nodes_are_preempted_and_finish(cluster: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The signal before the end of the time, the queue, and the second attempt: as if nothing had happened."""
    more = ["--epochs", "80", "--runtime.threads", "1"]
    job = cluster / "job.sh"
    job.write_text(script(capsys, "--nodes", "2", *starts.flags(tmp_path / "ours", *more)[1:]))
    process = start(job, 0, nodes=2)
    latest = starts.run_folder(tmp_path / "ours") / "checkpoints" / "latest"
    while not latest.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=120) != 0
    assert starts.status(tmp_path / "ours")["state"] == "preempted"
    assert (cluster / "requeued").read_text().split() == ["4242"]
    assert start(job, 1, nodes=2).wait(timeout=240) == 0
    assert (cluster / "requeued").read_text().split() == ["4242"]
    starts.train_two(tmp_path / "theirs", *more)
    starts.assert_same_result(tmp_path / "ours", tmp_path / "theirs")
