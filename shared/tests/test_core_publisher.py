"""Publishing while training: in a process of its own, against a Hub on loopback that works, refuses or hangs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import toy
from hub_runs import REPO, environment, make_run, save
from hub_server import TOKEN, Hub
from toy import starts

from shared_core import checkpoint, hub, hubnotes, records
from shared_core.checkpoint import Checkpoints, load_weights
from shared_core.errors import UserError
from shared_core.publisher import Publisher
from shared_core.settings import Hub as Wanted

pytest_plugins = ("hub_fixtures",)

EACH_BEST = Wanted(repo=REPO)


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Return when the condition holds; it never does if what is tested is broken."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def drain(publisher: Publisher) -> None:
    """Let a publisher come to the end of what it was offered."""

    def is_idle() -> bool:
        publisher.poll()
        return publisher._process is None

    until(is_idle)


def is_alive(process: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def publisher(run: records.RunDir, told: list[str]) -> Iterator[Publisher]:
    with Publisher(EACH_BEST, run) as made:
        made.say = told.append
        yield made


def test_due_checkpoints_are_each_new_best_or_every_nth_epochs(run: records.RunDir) -> None:
    def due(wanted: Wanted) -> list[tuple[int, bool]]:
        publisher = Publisher(wanted, run, enabled=False)  # all processes must agree on when to save
        return [(epoch, best) for epoch in (1, 2, 3, 4) for best in (False, True) if publisher.is_due(epoch, best)]

    assert due(Wanted()) == []
    assert due(EACH_BEST) == [(1, True), (2, True), (3, True), (4, True)]
    assert due(Wanted(repo=REPO, every_epochs=2)) == [(2, False), (2, True), (4, False), (4, True)]


@pytest.mark.slow
def test_only_the_main_process_publishes(server: Hub, run: records.RunDir) -> None:
    publisher = Publisher(EACH_BEST, run, enabled=False)
    publisher.offer(run.checkpoints / "step-120")
    assert publisher.finish(lambda: False) is None
    assert publisher._process is None
    assert server.requests == []


def test_one_push_at_a_time_of_checkpoints_that_stay(
    server: Hub, run: records.RunDir, publisher: Publisher, told: list[str]
) -> None:
    """The first is being sent, the second gives way to the third; the two that are needed are not rotated away."""
    checkpoints = Checkpoints(run.checkpoints)
    publisher.in_use = checkpoints.in_use
    server.cut("POST /api/repos/create", "silence")

    def saved(step: int) -> Path:
        state = checkpoint.State(model={"w": torch.ones(step)})
        return checkpoints.save(step, state, config_digest="d", topology={}, best=True)

    offered = [saved(121)]
    publisher.offer(offered[0])
    until(server.hangs.is_set)
    owner = publisher._process
    assert owner is not None
    for step in (122, 123):
        offered.append(saved(step))
        publisher.offer(offered[-1])
    assert publisher._process is owner
    with pytest.raises(UserError, match=f"is being published by process {owner.pid} on .*; wait"):
        hub.push(run.path, REPO)  # not by another command either
    for step in (124, 125, 126):
        saved(step)
    assert [path.exists() for path in offered] == [True, False, True]
    server.released.set()
    drain(publisher)
    assert sorted(server.repo(REPO).tags) == ["step-121", "step-123"]
    assert checkpoints.in_use == set()
    assert told == []
    saved(127)
    assert [path.exists() for path in offered] == [False, False, False]


@pytest.mark.slow
def test_failure_is_noted_each_time_and_told_once(
    server: Hub, run: records.RunDir, publisher: Publisher, told: list[str]
) -> None:
    server.fail("POST .*/commit/", 403, times=10_000)
    for step in (121, 122):
        publisher.offer(save(run, step, best=True))
        drain(publisher)
    assert [note["state"] for note in hubnotes.read(run.path)] == ["failed", "failed"]
    assert [note["checkpoint"] for note in hubnotes.read(run.path)] == ["step-121", "step-122"]
    [line] = told
    assert line.startswith(f"step-121 was not published: push to {REPO}: this token may not do that (403)")
    assert publisher.in_use == set()
    server.faults.clear()
    publisher.offer(save(run, 123, best=True))
    drain(publisher)
    assert hubnotes.last(run.path)["state"] == "pushed"
    server.fail("POST .*/commit/", 403, times=10_000)
    publisher.offer(save(run, 124, best=True))
    drain(publisher)
    assert len(told) == 2  # it had worked in between


@pytest.mark.slow
def test_process_that_dies_is_a_failure_like_another(
    server: Hub, run: records.RunDir, publisher: Publisher, told: list[str]
) -> None:
    server.cut("POST /api/repos/create", "silence")
    publisher.offer(run.checkpoints / "step-120")
    until(server.hangs.is_set)
    assert publisher._process is not None
    publisher._process.kill()  # as a machine out of memory does
    drain(publisher)
    assert "status -9" in hubnotes.last(run.path)["reason"]
    assert len(told) == 1


def test_stop_ends_a_push_that_hangs(server: Hub, run: records.RunDir, publisher: Publisher) -> None:
    server.cut("POST /api/repos/create", "silence")
    publisher.offer(run.checkpoints / "step-120")
    until(server.hangs.is_set)
    assert publisher._process is not None
    process = publisher._process.pid
    publisher.offer(save(run, 121, best=True))
    publisher.stop()
    assert not is_alive(process)
    assert publisher.in_use == set()
    assert not (run.path / ".publication").exists()
    assert (hubnotes.last(run.path)["state"], hubnotes.last(run.path)["checkpoint"]) == ("interrupted", "step-120")
    publisher.poll()
    assert publisher._process is None
    hub.push(run.path, REPO)  # and nothing is in the way of the next


@pytest.mark.slow
@pytest.mark.parametrize("how", ["late", "told"])
def test_end_of_a_run_waits_for_a_limited_time(server: Hub, run: records.RunDir, how: str) -> None:
    server.cut("POST /api/repos/create", "silence", times=10_000)
    wanted = EACH_BEST.model_copy(update={"wait_minutes": 1000.0 if how == "told" else 0.0})
    with Publisher(wanted, run) as publisher:
        reason = publisher.finish(lambda: how == "told" and server.hangs.is_set())
        assert publisher._process is None
    expected = "the process was told to stop" if how == "told" else "not done within 0 minutes (hub.wait_minutes)"
    assert reason == expected
    assert hubnotes.last(run.path)["state"] == "interrupted"


def test_resume_offers_what_was_not_published(server: Hub, run: records.RunDir) -> None:
    def offered(wanted: Wanted, epoch: int | None) -> str | None:
        publisher = Publisher(wanted, run)
        publisher.poll = lambda: None  # type: ignore[method-assign]  # do not begin
        publisher.resume(run.checkpoints / "step-120", run.checkpoints / "step-240", epoch)
        return publisher._next.name if publisher._next else None

    every = Wanted(repo=REPO, every_epochs=2)
    assert offered(EACH_BEST, None) == "step-120"
    assert [offered(every, epoch) for epoch in (None, 3, 4)] == [None, None, "step-240"]
    assert offered(Wanted(), 4) is None
    hub.push(run.path, REPO)
    assert offered(EACH_BEST, None) is None
    assert offered(Wanted(repo="ada/elsewhere"), None) == "step-120"


def test_process_ends_with_a_training_that_is_killed(server: Hub, run: records.RunDir) -> None:
    server.cut("POST /api/repos/create", "silence", times=10_000)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom shared_core import publisher, records, settings\n"
        "run = records.RunDir(Path(sys.argv[1]))\n"
        f"publishing = publisher.Publisher(settings.Hub(repo={REPO!r}), run)\n"
        "publishing.offer(run.checkpoints / 'step-120')\nprint(publishing._process.pid, flush=True)\ntime.sleep(600)\n"
    )
    training = subprocess.Popen([sys.executable, "-c", code, str(run.path)], stdout=subprocess.PIPE, text=True)
    assert training.stdout is not None
    process = int(training.stdout.readline())
    until(server.hangs.is_set)
    assert is_alive(process)
    training.kill()
    training.wait()
    training.stdout.close()
    until(lambda: not is_alive(process))


# ---- whole trainings; the processes find the Hub by their environment


def train(folder: Path, *more: str) -> tuple[int, str]:
    return starts.train(folder, "--logging.every", "1", *more)


def publish(folder: Path, *more: str) -> tuple[int, str]:
    return train(folder, "--hub.repo", REPO, *more)


@pytest.fixture
def plain(tmp_path: Path, server: Hub) -> Path:
    """A run that publishes nothing."""
    assert train(tmp_path / "plain")[0] == 0
    assert server.requests == []
    return tmp_path / "plain"


def start(folder: Path, server: Hub, *more: str, **given: str) -> tuple[int, str]:
    """A training process with its own environment: the forked ones inherit that of the first test."""
    process = starts.start(
        folder, "--logging.every", "1", "--hub.repo", REPO, *more, environment={**environment(server, folder), **given}
    )
    process.join(timeout=240)
    return process.exitcode, (folder / "output.txt").read_text()


@pytest.mark.slow
def test_training_publishes_its_best_and_ends_with_the_report(server: Hub, plain: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    folder = tmp_path / "ours"
    secret = {"HF_TOKEN": "", "HF_TOKEN_PATH": str(token)}
    status, output = start(folder, server, "--logging.tracker", "tensorboard", **secret)
    assert status == 0, output
    assert "not published" not in output
    starts.assert_same_result(folder, plain)
    run = starts.run_folder(folder)
    notes = hubnotes.read(run)
    assert {note["state"] for note in notes} == {"pushed"}
    repo = server.repo(REPO)
    assert repo.private
    assert any(name.startswith("figures/") for name in repo.files())  # which the report has drawn
    pulled = hub.pull(REPO, tmp_path / "pulled")
    best = checkpoint.Checkpoints(run / "checkpoints").best()
    assert best is not None
    expected, got = load_weights(best), load_weights(pulled)
    assert [name for name in expected if not got[name].equal(expected[name])] == []
    assert "the best check so far was at step" in repo.files()["README.md"].decode()
    # the token went to the Hub in headers, and nowhere else
    assert "tensorboard" in (run / "config.yaml").read_text()
    holding = [path for path in folder.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert holding == []
    assert [body for body in server.bodies if TOKEN.encode() in body] == []
    assert [name for name, data in repo.files().items() if TOKEN.encode() in data] == []


@pytest.mark.slow
def test_every_nth_epoch_is_saved_and_published(server: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "ours"
    flags = ["--hub.every_epochs", "2", "--training.checkpoint_every", "100", "--training.eval_every", "100"]
    status, output = start(folder, server, *flags)
    assert status == 0, output
    assert set(server.repo(REPO).tags) == {"step-24", "step-36"}  # 12 steps an epoch; the last one is the best


@pytest.mark.parametrize("trouble", ["hangs", pytest.param("refuses", marks=pytest.mark.slow), "is not there"])
def test_training_does_not_suffer_from_a_hub_in_trouble(server: Hub, plain: Path, tmp_path: Path, trouble: str) -> None:
    folder, given = tmp_path / "ours", {}
    if trouble == "hangs":
        server.cut("POST", "silence", times=10_000)
    elif trouble == "refuses":
        server.fail("POST", 403, times=10_000)
    else:
        given = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    wait = "10" if trouble == "refuses" else "0.02"
    status, output = start(folder, server, "--hub.private", "false", "--hub.wait_minutes", wait, **given)
    assert status == 0, output
    starts.assert_same_result(folder, plain)
    run = starts.run_folder(folder)
    assert (run / "report.html").is_file()
    [line] = [line for line in output.splitlines() if "repeat with" in line]
    assert f"repeat with: toy push {REPO} --run {run} --private false" in line
    assert hubnotes.last(run)["state"] == ("failed" if trouble == "refuses" else "interrupted")
    assert output.count("was not published") <= 1  # said once
    server.faults.clear()
    server.released.set()
    assert toy.APP.main(["push", REPO, "--run", str(run), "--private", "false"]) == 0


def test_preempted_run_does_not_wait_and_carries_on(server: Hub, plain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ours"
    server.cut("POST", "silence", times=10_000)
    stop = ["--data.stop-at", "30", "--data.stop-signal", str(int(signal.SIGTERM)), "--hub.wait_minutes", "1000"]
    status, output = start(folder, server, *stop)
    assert status == 75, output
    run = starts.run_folder(folder)
    assert starts.status(folder)["state"] == "preempted"
    assert hubnotes.last(run)["state"] == "interrupted"
    assert not (run / ".publication").exists()
    server.faults.clear()
    server.released.set()
    status, output = start(folder, server)
    assert status == 0, output
    starts.assert_same_result(folder, plain)
    assert {note["state"] for note in hubnotes.read(run)[1:]} == {"pushed"}
    assert next(iter(server.repo(REPO).tags)) == "step-24"  # the best when it was told to stop


@pytest.mark.parametrize("state", ["running", "preempted", "failed"])
def test_unfinished_run_is_published_as_one(server: Hub, run: records.RunDir, state: records.State) -> None:
    run.status(state)
    save(run, 130)
    hub.push(run.path, REPO, checkpoint="latest")
    assert list(server.repo(REPO).tags) == ["step-130"]
    card = server.repo(REPO).files()["README.md"].decode()
    assert f"The training was not over when this was published: its state was {state}." in card
    assert "Measured on step-120, while the weights here are those of step-130." in card
    run.status("finished")
    hub.push(run.path, REPO, checkpoint="latest")
    assert "was not over" not in server.repo(REPO).files()["README.md"].decode()


@pytest.mark.slow
def test_sharded_run_is_published_whole_by_one_process(server: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "two"
    flags = ["--hub.repo", REPO, "--runtime.fsdp", "true"]
    two = starts.Two(folder, *flags, environment=environment(server, tmp_path))
    statuses, outputs = two.wait()
    assert statuses == [0, 0], outputs
    run = starts.run_folder(folder)
    best = checkpoint.Checkpoints(run / "checkpoints").best()
    assert best is not None
    assert (best / "shards").is_dir()
    pulled = hub.pull(REPO, tmp_path / "pulled")
    expected, got = load_weights(best), load_weights(pulled)
    assert expected.keys() == got.keys()
    assert [name for name in expected if not got[name].equal(expected[name])] == []
    assert "publishing" not in outputs[1]
    assert {note["state"] for note in hubnotes.read(run)} == {"pushed"}


def test_publishing_may_change_on_resume() -> None:
    from shared_core import config

    before = toy.APP.load(None)
    after = toy.APP.load(None, {"hub.repo": REPO, "hub.private": False, "hub.every_epochs": 3, "hub.wait_minutes": 1})
    assert config.differences(before, after) == []
    assert config.digest(before) == config.digest(after)


def test_environment_is_not_recorded(server: Hub, run: records.RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by the notes nor by what the publishing process prints, even if the Hub says the token back to us."""
    make_run(run.path.parent / "other")
    server.fail("POST /api/repos/create", 403, times=10_000, **{"X-Error-Message": f"token {TOKEN} may not"})
    with Publisher(EACH_BEST, run) as publisher:
        publisher.offer(run.checkpoints / "step-120")
        drain(publisher)
    kept = [path for path in run.path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert kept == []
    assert json.loads((run.path / "hub.json").read_text())[-1]["state"] == "failed"
