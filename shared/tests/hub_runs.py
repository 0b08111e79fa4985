"""What tests of publishing share: a run to publish, and what a client must know of a Hub."""

from __future__ import annotations

import time
import types
from pathlib import Path

import pytest
import torch
from hub_server import TOKEN, Hub

from shared_core import hubfaults, records
from shared_core.checkpoint import Checkpoints, State
from shared_core.intervals import wilson

REPO = "ada/digits"


def environment(hub: Hub, folder: Path) -> dict[str, str]:
    """What makes the client of another process know this Hub."""
    return {
        "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(folder / "home"),
        "HF_HUB_CACHE": str(folder / "cache"), "HF_TOKEN_PATH": str(folder / "no-token"), "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip


def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Make every pause before another attempt, ours and the client's, take no time; the list of them as they come."""
    from huggingface_hub import file_download
    from huggingface_hub.utils import _http

    pauses: list[float] = []
    clock = types.SimpleNamespace(sleep=pauses.append, monotonic=time.monotonic, time=time.time)
    for module in (hubfaults, _http, file_download):
        monkeypatch.setattr(module, "time", clock)
    return pauses


def make_run(path: Path, step: int = 120) -> records.RunDir:
    """A finished, evaluated run with more in it than may be published."""
    run = records.RunDir(path)
    for folder in (run.checkpoints, run.figures, run.predictions, run.evaluation, path / "events"):
        folder.mkdir(parents=True)
    save(run, step, best=True)
    run.write_config("name: fast\nseed: 7\n")
    run.write_run({"package": "pair-compare-stacking", "versions": {"torch": "2.13.0"}, "device": "cpu"})
    run.metrics.write_text('{"step": 120, "train/loss": 0.5}\n')
    run.status("finished", step=step)
    evaluation = {
        "checkpoint": f"step-{step}",
        "n": 10_000,
        "headline": "accuracy",
        "metrics": {"accuracy": wilson(8930, 10_000).as_dict(), "f1": {"value": None, "method": "no positives"}},
        "baselines": {"ink": {"accuracy": wilson(5000, 10_000).as_dict(), "what": "the darker half is larger"}},
    }
    records.write_evaluation(run, "val", evaluation)
    (run.figures / "curves.png").write_bytes(b"\x89PNG curves")
    (run.predictions / "test.csv").write_text("id,label\n")
    (path / "events" / "events.out").write_bytes(b"events")
    (path / "notes.txt").write_text("private notes")
    run.close()
    return run


def save(run: records.RunDir, step: int, best: bool = False, more: torch.Tensor | None = None) -> Path:
    """Write a checkpoint whose averaged weights are 0, 1, 2 and the step, and whatever else."""
    averaged = {"w": torch.cat([torch.arange(3.0), torch.tensor([float(step)])])}
    state = State(model={"w": torch.zeros(4)}, ema=averaged | ({"more": more} if more is not None else {}))
    return Checkpoints(run.checkpoints).save(step, state, config_digest="d", topology={}, best=best)
