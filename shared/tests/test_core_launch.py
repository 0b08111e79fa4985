"""`launch`: the plan, and runs on this machine and on several."""

import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st
from toy import starts

from shared_core.errors import UserError
from shared_core.launch import local, nodes, restart, watch
from shared_core.launch.options import Options, duration, mebibytes, seconds
from shared_core.launch.plan import Inner, LaunchPlan, make

INNER = Inner("toy", "toy-package", "toy", "train", (), None, None, "default", Path("runs"), Path("data"))
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"on": "local", "nodes": 2}, "--nodes"),
    ({"on": "local", "gpu": "a100"}, "--gpu"),
    ({"on": "local", "gpus": -1}, "--gpus"),
    ({"on": "local", "gpus": 2, "verb": "evaluate"}, "--verb"),
    ({"on": "local", "timeout": "4 hours"}, "--timeout"),
    ({"on": "local", "timeout": "0"}, "--timeout"),
    ({"on": "local", "restarts": 1000}, "--restarts"),
    ({"on": "local", "restarts": 1, "resume": "never"}, "--restarts"),
    ({"on": "local", "budget": 3.0}, "--budget"),
    ({"on": "local", "budget": -3.0, "price_per_hour": 1.0}, "--budget"),
    ({"on": "local", "budget": float("inf"), "price_per_hour": 1.0}, "--budget"),
    ({"on": "local", "budget": 0.001, "price_per_hour": 100.0}, "--budget"),
    ({"on": "local", "price_per_hour": 0.0}, "--price-per-hour"),
    ({"on": "nodes", "nodes": 2}, "--rendezvous"),
    ({"on": "nodes", "nodes": 0}, "--nodes"),
    ({"on": "nodes", "nodes": 2, "rendezvous": "node0:99999"}, "--rendezvous"),
    ({"on": "nodes", "nodes": 2, "rendezvous": "node 0"}, "--rendezvous"),
    ({"on": "nodes", "nodes": 2, "rendezvous": "node0", "node_rank": 2}, "--node-rank"),
    ({"on": "slurm", "timeout": "3m"}, "--timeout"),
    ({"on": "slurm", "gpu": "a100;rm"}, "--gpu"),
    ({"on": "slurm", "memory": "lots"}, "--memory"),
    ({"on": "slurm", "memory": "16"}, "--memory"),
    ({"on": "slurm", "scheduler": ("--partition=gpu",)}, "--scheduler"),
    ({"on": "slurm", "scheduler": ("partition=a\nrm",)}, "--scheduler"),
    ({"on": "slurm", "scheduler": ("time=3",)}, "--timeout"),
    ({"on": "slurm", "secret": "hf_abc"}, "--secret"),
    ({"on": "slurm", "image": "a b"}, "--image"),
    ({"on": "slurm", "image": "toy:1", "runs": Path("/elsewhere")}, "paths.runs"),
    ({"on": "slurm", "image": "toy:1", "config_file": Path("../mine.yaml")}, "--config"),
    ({"on": "slurm", "runs": Path("my runs")}, "paths.runs"),
    ({"on": "slurm", "volume": "data"}, "--volume"),
    ({"on": "kubernetes", "volume": "My_Data"}, "--volume"),
    ({"on": "kubernetes", "namespace": "a/b"}, "--namespace"),
    ({"on": "kubernetes", "gpu": "a b"}, "--gpu"),
    ({"on": "kubernetes", "restarts": 2}, "--restarts"),
    ({"on": "kubernetes", "runs": Path("/data/runs")}, "paths.runs"),
    ({"on": "modal"}, "--gpu"),
    ({"on": "modal", "gpu": "A11"}, "--gpu"),
    ({"on": "modal", "gpu": "A10", "gpus": 5}, "--gpus"),
    ({"on": "modal", "gpu": "H100", "gpus": 9}, "--gpus"),
    ({"on": "modal", "gpu": "H100", "gpus": 0}, "--gpus"),
    ({"on": "modal", "gpu": "T4", "nodes": 2}, "--nodes"),
    ({"on": "modal", "gpu": "T4", "timeout": "25h"}, "--timeout"),
    ({"on": "modal", "gpu": "T4", "memory": "16384G"}, "--memory"),
    ({"on": "modal", "gpu": "T4", "memory": "64"}, "--memory"),
    ({"on": "modal", "gpu": "T4", "volume": "a/b"}, "--volume"),
    ({"on": "modal", "gpu": "T4", "volume": "v" * 65}, "--volume"),
    ({"on": "modal", "gpu": "T4", "volume": "ap-abcdefghijklmnopqrstuv"}, "--volume"),
    ({"on": "modal", "gpu": "T4", "secret": "hf_token"}, "--secret"),
    ({"on": "modal", "gpu": "T4", "data": Path("../data")}, "paths.data"),
]


def plan(**settings: Any) -> LaunchPlan:
    about = {name: settings.pop(name) for name in ("verb", "resume", "runs", "data", "config_file") if name in settings}
    return make(Options(**settings), replace(INNER, **about))


@pytest.mark.parametrize(("settings", "flag"), WRONG, ids=lambda value: str(value)[:60])
def test_wrong_plan_is_refused_by_the_flag(settings: dict[str, Any], flag: str) -> None:
    with pytest.raises(UserError) as caught:
        plan(**settings)
    assert any(
        line.startswith(flag) or flag in line.split("say it with ")[-1] for line in str(caught.value).splitlines()
    )


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        plan(on="modal", gpu="A11", memory="1M", timeout="2d", volume="a b")
    assert len(str(caught.value).splitlines()) == 4


@given(st.integers(1, 10**7))
def test_duration_is_read_back(number: int) -> None:
    assert seconds(duration(number)) == number == seconds(str(number))


def test_amounts_of_memory() -> None:
    assert [mebibytes(text) for text in ("16384", "16G", "16GiB", "16Gi", "512m")] == [16384, 16384, 16384, 16384, 512]


@given(
    budget=st.floats(1, 1000),
    price=st.floats(0.1, 10),
    gpus=st.integers(1, 8),
    count=st.integers(1, 4),
    restarts=st.integers(0, 5),
)
def test_budget_bounds_the_worst_case(budget: float, price: float, gpus: int, count: int, restarts: int) -> None:
    settings = {"on": "slurm", "nodes": count, "gpus": gpus, "restarts": restarts}
    try:
        made = plan(**settings, budget=budget, price_per_hour=price)
    except UserError:  # too little even for the shortest run
        assert budget / (price * gpus * count * (1 + restarts)) * 3600 < 300
        return
    assert made.worst_case is not None
    assert made.worst_case <= budget * (1 + 1e-9)
    assert plan(**settings, timeout="4m", budget=budget, price_per_hour=price).timeout == 240


@pytest.mark.parametrize(
    ("place", "attempts"), [(["local"], 1), (["slurm"], 4), (["modal", "--gpu", "T4"], 4), (["kubernetes"], 1)]
)
def test_worst_case_counts_every_attempt(place: list[str], attempts: int, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--gpus", "2", "--timeout", "90m", "--price-per-hour", "3"]
    assert toy.APP.run(["launch", "--dry-run", "--on", *place, *words]) == 0
    assert f"worst case: {9.0 * attempts:.2f} = " in capsys.readouterr().err


def dry_run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert toy.APP.run(["launch", "--dry-run", *words]) == 0
    return capsys.readouterr().out


def test_flags_go_on_to_the_inner_verb(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("training:\n  epochs: 3\n")
    shown = shlex.split(dry_run(capsys, "--on", "local", "--config", str(file), "--lr", "0.1", "--no-training.dry_run"))
    assert shown[1:4] == ["-m", "toy", "train"]
    assert shown[4:6] == ["--config", str(file)]
    config = toy.APP.check(shown[3:])
    assert (config.training.epochs, config.optimizer.lr, config.training.dry_run) == (3, 0.1, False)


@given(st.sampled_from(["", "--x", "a b", "it's", "-1", "$HOME", "a=b"]))
def test_any_value_survives_the_way(name: str) -> None:
    split = (
        starts_split("--training.resume", name)
        if not name.startswith("--")
        else starts_split(f"--training.resume={name}")
    )
    from shared_core.launch.verb import typed

    assert toy.APP.check(["train", *shlex.split(shlex.join(typed(split)))]).training.resume == name


def starts_split(*words: str) -> Any:
    from shared_core.flags import Flags

    return Flags(toy.Config, Options).split(words)


def test_inner_command_is_checked_here(capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in [
        (["--epochs", "none"], "--epochs"),
        (["--verb", "trian"], "train"),
        (["--verb", "launch"], "--verb"),
        (["--verb", "evaluate", "--arguments=--checkpoint"], "--checkpoint"),
        (["--arguments=--bogus"], "--bogus"),
        (["--arguments", "it's"], "--arguments"),
        (["--config", "missing.yaml"], "missing.yaml"),
    ]:
        with pytest.raises(UserError, match=said):
            toy.APP.run(["launch", "--on", "local", "--dry-run", *words])
    assert "evaluate --checkpoint latest" in dry_run(
        capsys, "--on", "local", "--verb", "evaluate", "--arguments=--checkpoint latest"
    )


def test_dry_run_starts_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    def refuse(*arguments: Any, **more: Any) -> None:
        raise AssertionError("something was started")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "execve", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    for place in (
        ["local", "--detach"],
        ["nodes", "--nodes", "2", "--rendezvous", "n0"],
        ["slurm"],
        ["kubernetes"],
        ["modal", "--gpu", "T4"],
    ):
        assert dry_run(capsys, "--on", *place)
    assert list(tmp_path.iterdir()) == []


def test_what_is_shown_is_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *arguments: called.append(arguments))
    made = plan(on="local", gpus=2, restarts=1)
    local.submit(made)
    [(program, words, environment)] = called
    assert program == sys.executable
    variable, _, value = local.render(made).split()[0].partition("=")
    assert environment[variable] == value
    assert shlex.split(local.render(made))[1:] == words


def test_node_that_does_not_know_which_it_is() -> None:
    with pytest.raises(UserError, match="--node-rank"):
        nodes.submit(plan(on="nodes", nodes=2, rendezvous="n0"))


def test_reasons_to_start_again(tmp_path: Path) -> None:
    home = tmp_path / "toy-package"
    (home / "default").mkdir(parents=True)
    (home / "default" / "config.yaml").write_text("name: default\n")
    file = home / "default" / "status.json"

    def reason(status: int, state: str = "", since: float = 0.0, why: str = "") -> str | None:
        file.unlink(missing_ok=True)
        if state:
            file.write_text(f'{{"state": "{state}", "reason": "{why}"}}')
        return restart.reason(home, "default", since, status)

    assert [bool(reason(status)) for status in (0, 1, 2, 130, -2)] == [False] * 5
    assert [bool(reason(status)) for status in (75, 137, 143, -9, -15, -11)] == [True] * 6
    assert [bool(reason(1, state)) for state in ("preempted", "running", "failed", "finished")] == [
        True,
        True,
        False,
        False,
    ]
    assert reason(1, "failed", why="lost another process of this run")
    assert not reason(1, "preempted", since=time.time() + 60), "the status of an earlier attempt"
    assert restart.main([str(tmp_path), "toy-package", "default", "0", "75"]) == 0
    assert restart.main([str(tmp_path), "toy-package", "default", "0", "2"]) == 1


def test_watch_starts_again_while_it_makes_sense(tmp_path: Path) -> None:
    def attempts(script: str, restarts: int) -> tuple[int, int]:
        count = tmp_path / "count"
        count.write_text("")
        status = watch.Watch(["bash", "-c", f"echo >> {count}; {script}"], tmp_path / "run", restarts).start()
        return len(count.read_text().splitlines()), status

    assert attempts("exit 75", 2) == (3, 75)
    assert attempts("kill -9 $$", 1) == (2, 137)
    assert attempts(f"[ $(wc -l < {tmp_path / 'count'}) = 2 ] || exit 75", 5) == (2, 0)
    assert attempts("exit 2", 5) == (1, 2)
    assert attempts("exit 75", 0) == (1, 75)


TRAPPING = """
import os, signal, sys, time
told = []
def note(*_):
    told.append(1)
    print("term", file=open(sys.argv[1], "a"))
signal.signal(signal.SIGTERM, note), signal.signal(signal.SIGINT, note)
print("started", flush=True)
print(os.getpgrp(), "ready", file=open(sys.argv[1], "a"))
while not told:
    time.sleep(0.02)
end = time.monotonic() + 0.5
while time.monotonic() < end:
    time.sleep(0.02)
sys.exit(75)
"""


@pytest.mark.parametrize("by", ["signal", "terminal", "time"])
def test_stop_reaches_the_run_once_and_ends_the_repeating(by: str, tmp_path: Path) -> None:
    file = tmp_path / "told"
    file.write_text("")
    limits = ["--restarts", "5", *(["--seconds", "2"] if by == "time" else [])]
    words = ["-m", "shared_core.launch.watch", "--run", str(tmp_path / "run"), *limits]
    command = [sys.executable, *words, "--", sys.executable, "-c", TRAPPING, str(file)]
    process = subprocess.Popen(command, start_new_session=True)
    while "ready" not in file.read_text():
        assert process.poll() is None
        time.sleep(0.02)
    if by == "signal":
        process.send_signal(signal.SIGTERM)
    elif by == "terminal":  # Ctrl-C goes to everything in the foreground
        os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 75
    group, *told = file.read_text().split()
    assert told == ["ready", "term"]
    assert int(group) != process.pid, "Ctrl-C would reach it twice, and end it without a checkpoint"


def test_detached_run_says_how_to_stop_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = plan(on="local", detach=True, runs=tmp_path)
    file = tmp_path / "told"
    file.write_text("")
    assert local.start(made, [sys.executable, "-c", TRAPPING, str(file)]) == 0
    said = capsys.readouterr().out
    log = tmp_path / "toy-package" / "default.launch.log"
    assert str(log) in said
    assert log.read_text() == "started\n"
    pid = int(said.split("kill -TERM ")[1])
    assert os.getsid(pid) == pid, "it would go with the terminal"
    os.kill(pid, signal.SIGTERM)
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        time.sleep(0.02)
    assert "term" in file.read_text()


def test_detached_run_that_fails_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"status 3; see .*default\.launch\.log"):
        local.start(plan(on="local", detach=True, runs=tmp_path), ["bash", "-c", "exit 3"])


def toy_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(starts.HERE), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_run_killed_twice_finishes_by_itself(tmp_path: Path) -> None:
    """Every attempt is killed at its 20th step, and the third has less than that before it."""
    flags = starts.flags(tmp_path / "ours", "--data.stop_at", "20")[1:]
    command = [sys.executable, "-m", "toy", "launch", "--on", "local", "--restarts", "2", *flags]
    done = subprocess.run(command, env=toy_environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("starting again") == 2
    assert starts.train(tmp_path / "theirs")[0] == 0
    starts.assert_same_result(tmp_path / "ours", tmp_path / "theirs")


@pytest.mark.slow
def test_two_nodes_run_the_commands_that_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port = starts.torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False).port
    flags = starts.flags(tmp_path / "ours")[1:]
    lines = dry_run(capsys, "--on", "nodes", "--nodes", "2", "--rendezvous", f"127.0.0.1:{port}", *flags).splitlines()
    commands = [line for line in lines if not line.startswith("#")]
    assert len(commands) == 2
    running = [subprocess.Popen(["bash", "-c", f"exec env {line}"], env=toy_environment()) for line in commands]
    assert [process.wait(timeout=240) for process in running] == [0, 0]
    starts.train_two(tmp_path / "theirs")
    starts.assert_same_result(tmp_path / "ours", tmp_path / "theirs")
