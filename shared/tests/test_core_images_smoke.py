"""`smoke` passes an image that keeps its promises, and finds each one that is broken. On a real engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import engine_images as images
import pytest

from shared_core.images import engine, smoke
from shared_core.images.__main__ import main

TOKEN = "hf_" + "aZ3kQ9rT7bN1xY5wE8vU2mP6cD4fG0hJ"
Build = Callable[..., str]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    images.engine_or_skip("that smoke finds the defects of an image")
    yield images.make_base(tmp_path_factory.mktemp("base"))
    images.forget()


@pytest.fixture
def build(base: str, tmp_path: Path) -> Build:
    return lambda tag, more="", **script: images.build(tmp_path / tag, base, tag, more, **script)


def run(reference: str, **more: object) -> tuple[bool, list[str]]:
    lines: list[str] = []
    passed = smoke.smoke(engine.connect(), reference, gpu=False, out=lines.append, **more)
    assert images.left_behind() == []
    return passed, lines


def test_passes_an_image_that_keeps_its_promises(build: Build) -> None:
    passed, lines = run(build("latest"))
    assert passed, lines
    table = [line.split("  ")[1] for line in lines if line.startswith("passed")]
    assert table[-4:] == ["demo", "stop", "resume", "same weights"]
    assert "   | the demo's result" in lines  # logs are streamed
    assert "exit status 75; step-6 is whole" in next(line for line in lines if line.startswith("passed  stop"))
    assert "from step 6 to step 12" in next(line for line in lines if line.startswith("passed  resume"))


SETTINGS = {
    "root": ("user", {"user": "0:0"}),
    "root by name": ("user", {"user": "root"}),
    "label": ("labels", {"more": 'LABEL org.opencontainers.image.licenses=""'}),
    "token in env": ("secrets in settings", {"more": f"ENV GREETING={TOKEN}"}),
    "secret in env": ("secrets in settings", {"more": "ENV WANDB_API_KEY=0123456789abcdef"}),
    "token in label": ("secrets in settings", {"more": f"LABEL note={TOKEN}"}),
    "token in history": ("secrets in settings", {"more": f"RUN : {TOKEN}"}),
    "password in history": ("secrets in settings", {"more": "RUN : https://me:secret@index.example.org/"}),
    "deleted file": ("secrets in layers", {"more": "COPY secret /tmp/secret\nRUN rm /tmp/secret"}),
}


@pytest.mark.parametrize("defect", SETTINGS)
def test_finds_what_an_image_must_not_be(build: Build, tmp_path: Path, defect: str) -> None:
    check, parts = SETTINGS[defect]
    (tmp_path / "defect").mkdir()
    (tmp_path / "defect" / "secret").write_text(f"x{'y' * 100} {TOKEN}\n")
    passed, lines = run(build("defect", **parts))
    assert not passed
    assert lines[-1].startswith(f"FAILED  {check}"), lines
    assert TOKEN not in "\n".join(lines)


RUNS = {
    "help writes": ("--help", "exit status 3", {"help": "echo x > /workspace/data/x || exit 3"}),
    "help wants a network": ("--help", "exit status 3", {"help": "[ -e /sys/class/net/eth0 ] || exit 3"}),
    "demo fails": ("demo", "exit status 4, and said last: it broke", {"demo": "echo it broke; exit 4"}),
    "demo without a report": ("demo", "no report.html", {"demo": "state finished; exit"}),
    "demo writes elsewhere": ("demo", "there is no /workspace/runs/smoke-test-", {"demo": "rm -r $run; exit"}),
    "demo left running": ("demo", "says 'running'", {"demo": "state running; touch $run/report.html; exit"}),
    "train fails": ("stop", "ended by itself: exit status 2", {"resume": "echo no data; exit 2"}),
    "no checkpoint": ("stop", "left no checkpoint", {"trap": "state preempted; exit 75"}),
    "damaged checkpoint": (
        "stop",
        "step-6 does not verify: model.safetensors has",
        {"trap": "cp -r /pretend/step-6 $checkpoints; echo >> $checkpoints/step-6/model.safetensors; "
                 "state preempted; exit 75"},
    ),
    "status not written": ("stop", "says 'running'", {"trap": "cp -r /pretend/step-6 $checkpoints; exit 75"}),
    "starts over": ("resume", "started over", {"resume": "[ $first = 7 ] && first=1 pause=0 && rm $run/metrics.jsonl"}),
    "ends at once": ("resume", "no step after step 6", {"resume": "[ $first = 7 ] && finish && exit"}),
    "fails on resuming": ("resume", "exit status 1", {"resume": "[ $first = 7 ] && exit 1"}),
    "other weights": (
        "same weights",
        "other weights than the demo's",
        {"demo": "cp -r /pretend/step-6 $checkpoints; touch $run/report.html; state finished; exit"},
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("defect", RUNS)
def test_finds_broken_promises(build: Build, defect: str) -> None:
    check, said, script = RUNS[defect]
    passed, lines = run(build("defect", **script))
    assert not passed
    assert lines[-1].startswith(f"FAILED  {check}"), lines
    assert said in lines[-1]


@pytest.mark.slow
def test_finds_sigterm_ignored(build: Build) -> None:
    passed, lines = run(build("defect", trap=""), grace=1)
    assert not passed
    assert "SIGTERM did not end training within 1 s" in lines[-1], lines


@pytest.mark.slow
def test_trains_longer_where_it_is_over_too_soon(build: Build) -> None:
    """The first run ends before it can be stopped; the second, which is told to be longer, does not."""
    quick = "[ -d runs/$PACKAGE/smoke-longer ] || { finish; exit; }"
    passed, lines = run(build("quick", resume=quick))
    assert passed, lines
    assert "not compared: training was made longer" in lines[-1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_cleans_up_when_interrupted(build: Build, number: int) -> None:
    reference = build("long", demo="echo started; sleep 100 & wait")
    process = subprocess.Popen(
        [sys.executable, "-m", "shared_core.images", "smoke", reference], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "| started" in line:
            break
    assert len(images.left_behind()) == 3  # a container and two volumes
    os.kill(process.pid, number)
    assert process.wait(60) == 130
    assert images.left_behind() == []


def test_gives_up_on_what_does_not_end(build: Build) -> None:
    passed, lines = run(build("stuck", help="sleep 100 & wait"), limit=1)
    assert not passed
    assert lines[-1].startswith("FAILED  --help"), lines
    assert "did not end within 1 s" in lines[-1]


def test_exit_statuses(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["smoke", build("defect", user="root")]) == 1
    assert "FAILED  user" in capsys.readouterr().out
    assert main(["smoke", "never-built"]) == 2
    assert capsys.readouterr().err == "images smoke: never-built:latest: no such image; run `just build never-built`\n"
