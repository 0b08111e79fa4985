"""Faults of the Hub and of the way there, with its real client: what passes is outlived, what was sent stays sent."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from pathlib import Path

import pytest
import torch
from hub_runs import REPO, no_waiting, save
from hub_server import Hub

from shared_core import hub, hubfaults, hubnotes, records
from shared_core.checkpoint import load_weights
from shared_core.errors import UserError

pytest_plugins = ("hub_fixtures",)

OF_A_PUSH = [
    r"POST /api/repos/create", r"GET /api/models/ada/digits$", r"GET /api/models/.*/refs", r"GET /api/models/.*/tree/",
    r"POST /api/validate-yaml", r"POST /api/models/.*/preupload/", r"POST .*/info/lfs/objects/batch", r"PUT /lfs/",
    r"POST /lfs-verify", r"POST /api/models/.*/commit/", r"POST /api/models/.*/tag/",
]  # fmt: skip
OF_A_PULL = [
    r"GET /api/models/.*/revision/step-120", r"HEAD .*/resolve/.*/config\.yaml", r"GET .*/resolve/.*/config\.yaml",
    r"HEAD .*/resolve/.*/model\.safetensors", r"GET /cdn/",
]  # fmt: skip
STATUSES = [429, 500, 502, 503, 504]


def weights_on(server: Hub) -> bytes:
    return server.repo(REPO).files("step-120")["model.safetensors"]


def assert_published(server: Hub, run: records.RunDir) -> None:
    """One commit with all of the run's weights, under its tag, and a note that says so."""
    repo = server.repo(REPO)
    assert len(repo.commits) == 2  # the empty one of the beginning, and one
    assert repo.tags == {"step-120": repo.refs["main"]}
    expected = load_weights(run.path)
    (run.path / "got.safetensors").write_bytes(weights_on(server))
    got = load_weights(run.path / "got.safetensors")
    assert [name for name in expected if not torch.equal(got[name], expected[name])] == []
    assert hubnotes.last(run.path)["state"] == "pushed"


@pytest.mark.parametrize("status", STATUSES)
def test_push_outlives_one_bad_answer_of_every_kind(server: Hub, run: records.RunDir, status: int) -> None:
    for request in OF_A_PUSH:
        server.fail(request, status)
    assert hub.push(run.path, REPO).endswith("/tree/step-120")
    assert [fault.pattern for fault in server.faults if fault.times] == []  # each of them was met
    assert_published(server, run)
    assert [note["state"] for note in hubnotes.read(run.path)] == ["pushed"]


@pytest.mark.parametrize("request_", [request for request in OF_A_PUSH if not request.startswith("GET")])
def test_push_outlives_an_answer_that_gets_lost(server: Hub, run: records.RunDir, request_: str) -> None:
    """The Hub has done what it was asked, and the client cannot know."""
    server.cut(request_, "whole answer")
    assert hub.push(run.path, REPO).endswith("/tree/step-120")
    assert server.faults[0].times == 0
    assert_published(server, run)


@pytest.mark.parametrize("status", [409, 412])
def test_commit_of_somebody_else_comes_between(server: Hub, run: records.RunDir, status: int) -> None:
    server.fail(r"POST .*/commit/", status)
    hub.push(run.path, REPO)
    assert server.count(r"POST .*/commit/") == 2
    assert_published(server, run)


def test_push_outlives_a_connection_cut_in_the_middle_of_an_upload(server: Hub, run: records.RunDir) -> None:
    save(run, 120, best=True, more=torch.randn(1_000_000))
    figure = hashlib.sha256((run.figures / "curves.png").read_bytes()).hexdigest()
    server.cut(rf"PUT /lfs/(?!{figure})", "request", times=3)  # files go up side by side: the weights, not the figure
    hub.push(run.path, REPO)
    sent = [len(body) for request, body in zip(server.requests, server.bodies, strict=True) if "PUT /lfs" in request]
    assert sum(sorted(sent)[-2:]) > 4_000_000 + 2_000_000 - 1000  # half of the weights, then all of them
    assert_published(server, run)


def test_push_that_failed_goes_on_where_it_stopped(server: Hub, run: records.RunDir) -> None:
    figure = hashlib.sha256((run.figures / "curves.png").read_bytes()).hexdigest()
    server.fail(f"PUT /lfs/{figure}", 503, times=10_000)
    with pytest.raises(UserError, match=r"the Hub has a fault \(503\).*what has been sent is kept") as caught:
        hub.push(run.path, REPO)
    assert "\n" not in str(caught.value)
    assert not (run.path / ".publication").exists()
    assert server.repo(REPO).tags == {}
    server.faults.clear()
    hub.push(run.path, REPO)
    weights = hashlib.sha256(weights_on(server)).hexdigest()
    assert server.count(f"PUT /lfs/{weights}") == 1
    assert [note["state"] for note in hubnotes.read(run.path)] == ["failed", "pushed"]


def test_wait_that_the_hub_asks_for_is_kept(
    server: Hub, run: records.RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pauses = no_waiting(monkeypatch)
    server.fail(r"POST /api/repos/create", 429, **{"Retry-After": "7"})
    server.fail(r"POST .*/commit/", 429, ratelimit='"api";r=0;t=11')
    hub.push(run.path, REPO)
    assert pauses == [7.0, 11.0]
    assert f"push to {REPO}: too many requests (429); trying again in 7 s" in capsys.readouterr().err


def test_number_of_attempts_and_of_seconds_is_limited(
    server: Hub, run: records.RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.fail(r"POST /api/repos/create", 500, times=10_000)
    with pytest.raises(UserError, match="500"):
        hub.push(run.path, REPO)
    assert server.count("POST /api/repos/create") == 1 + len(hubfaults.WAITS)
    monkeypatch.setattr(hubfaults, "PATIENCE", 0.5)
    with pytest.raises(UserError, match="500"):
        hub.push(run.path, REPO)
    assert server.count("POST /api/repos/create") == 2 + len(hubfaults.WAITS)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_will_not_pass_is_not_repeated(server: Hub, run: records.RunDir, status: int) -> None:
    server.fail(r"POST .*/commit/", status, times=10_000)
    with pytest.raises(UserError, match=str(status)):
        hub.push(run.path, REPO)
    assert server.count(r"POST .*/commit/") == 1


@pytest.mark.parametrize("status", STATUSES)
def test_pull_outlives_one_bad_answer_of_every_kind(
    server: Hub, run: records.RunDir, tmp_path: Path, status: int
) -> None:
    hub.push(run.path, REPO)
    for request in OF_A_PULL:
        server.fail(request, status)
    folder = hub.pull(REPO, tmp_path / "pulled", "step-120")
    assert [fault.pattern for fault in server.faults if fault.times] == []
    assert (folder / "model.safetensors").read_bytes() == weights_on(server)


def test_download_goes_on_where_the_connection_was_cut(
    server: Hub, run: records.RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 2**16)
    save(run, 120, best=True, more=torch.randn(1_000_000))
    hub.push(run.path, REPO)
    server.cut(f"GET /cdn/{hashlib.sha256(weights_on(server)).hexdigest()}", "answer", times=2)
    folder = hub.pull(REPO, tmp_path / "pulled")
    first, second = server.ranges  # of 4 MB; nothing of what had come was asked for again
    assert 1_900_000 < first < 2_000_000 < 2_900_000 < second < 3_000_000
    assert (folder / "model.safetensors").read_bytes() == weights_on(server)


def test_pull_that_failed_leaves_nothing_and_succeeds_when_repeated(
    server: Hub, run: records.RunDir, tmp_path: Path
) -> None:
    hub.push(run.path, REPO)
    server.fail(r"GET /cdn/", 503, times=10_000)
    with pytest.raises(UserError, match=r"the Hub has a fault \(503\)"):
        hub.pull(REPO, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()
    server.faults.clear()
    assert (hub.pull(REPO, tmp_path / "pulled") / "model.safetensors").read_bytes() == weights_on(server)


def test_file_that_comes_short_is_fetched_again(server: Hub, run: records.RunDir, tmp_path: Path) -> None:
    hub.push(run.path, REPO)
    server.cut(r"GET /cdn/", "last byte", times=2)
    folder = hub.pull(REPO, tmp_path / "pulled")
    assert (folder / "model.safetensors").read_bytes() == weights_on(server)
    other = server.commit(server.repo(REPO), {**server.repo(REPO).files(), "figures/new.png": b"\x89PNG new"})
    server.cut(r"GET /cdn/", "last byte", times=10_000)
    with pytest.raises(UserError, match="a file came incomplete; repeat the command"):
        hub.pull(REPO, tmp_path / "other", other)


def test_full_cache_is_one_line(
    server: Hub, run: records.RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    def full(*args: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "cache/blobs/x")

    hub.push(run.path, REPO)
    monkeypatch.setattr(HfApi, "snapshot_download", full)
    with pytest.raises(UserError, match="cache/blobs/x: no space left on device; make room") as caught:
        hub.pull(REPO, tmp_path / "pulled")
    assert "\n" not in str(caught.value)


def test_what_a_killed_push_left_is_not_published(server: Hub, run: records.RunDir) -> None:
    (run.path / ".publication" / "figures").mkdir(parents=True)
    (run.path / ".publication" / "figures" / "old.png").write_bytes(b"\x89PNG old")
    hub.push(run.path, REPO)
    assert "figures/old.png" not in server.repo(REPO).files()


def test_one_bad_answer_does_not_turn_back_the_time(server: Hub) -> None:
    """The client would take the commit that it knows from before."""
    server.add("bob/net", {"a": b"1"})
    hub.commit("bob/net", "main")
    newest = server.commit(server.repo("bob/net"), {"a": b"2"})
    server.fail(r"GET /api/models/bob/net/revision/main", 503)
    assert hub.commit("bob/net", "main") == newest


def test_hub_that_is_silent_is_left_in_the_end(
    server: Hub, run: records.RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubfaults, "SILENCE", 0.2)
    monkeypatch.setattr(hubfaults, "_limited", False)
    server.cut(r"POST /api/repos/create", "silence", times=10_000)
    answers_at_last = threading.Timer(30.0, server.released.set)  # so that nothing hangs if nobody loses patience
    answers_at_last.start()
    try:
        with pytest.raises(UserError, match="cannot be reached"):
            hub.push(run.path, REPO)
    finally:
        answers_at_last.cancel()
        monkeypatch.setattr(hubfaults, "SILENCE", 120.0)
        monkeypatch.setattr(hubfaults, "_limited", False)
        hubfaults.limit_silence()
    assert server.hangs.is_set()


def test_interrupted_push_is_noted(server: Hub, run: records.RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(hub, "_create", interrupt)
    with pytest.raises(KeyboardInterrupt):
        hub.push(run.path, REPO)
    [note] = json.loads((run.path / "hub.json").read_text())
    assert (note["state"], note["checkpoint"]) == ("interrupted", "step-120")
    assert not (run.path / ".publication").exists()


def test_token_that_cannot_be_read(
    server: Hub, run: records.RunDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Docker mounts a folder where the file to be mounted is missing, and a secret may be another user's."""
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "secret").mkdir()
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "secret"))
    said = rf"the token in {tmp_path}/secret cannot be read \(Is a directory\); make the file readable"
    with pytest.raises(UserError, match=said):
        hub.push(run.path, REPO)
    with pytest.raises(UserError, match=said):
        hub.pull(REPO, tmp_path / "pulled")
