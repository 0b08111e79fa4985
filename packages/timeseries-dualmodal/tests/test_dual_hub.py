"""A published model answers elsewhere, without the data it learned from, as it did where it was trained."""

from pathlib import Path

import numpy as np
import pytest
from hub_runs import REPO
from hub_server import Hub

from shared_core import report
from timeseries_dualmodal import prepare
from timeseries_dualmodal.__main__ import main

pytest_plugins = ("hub_fixtures",)

TINY = [
    *("--data.sample-size", "120", "--data.variables", "ndvi,lswi", "--pictures.size", "16", "--epochs", "1"),
    *("--batch-size", "32", "--model.dim", "16", "--model.language.dim", "16", "--model.language.depth", "1"),
    *("--model.vision.dim", "16", "--model.vision.channels", "8,8", "--evaluation.every", "12"),
    *("--logging.tracker", "none", "--runtime.device", "cpu", "--runtime.threads", "1", "--logging.progress", "false"),
]


def run(folder: Path, verb: str, *flags: str) -> int:
    return main([verb, "--paths.data", str(folder / "data"), "--paths.runs", str(folder / "runs"), *flags])


def test_a_fetched_model_reads_new_files_and_answers_alike(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "write", lambda found, *more, **named: found[0] / "report.html")
    here, there = tmp_path / "here", tmp_path / "there"
    assert run(here, "prepare", *TINY) == 0
    assert run(here, "train", "--name", "tiny", *TINY) == 0
    series = prepare.load(here / "data" / prepare.PACKAGE / "sample")
    new = tmp_path / "new.npz"
    np.savez(new, x=series.x[:20, :, :30], ids=series.ids[:20], variables=series.variables, times=series.times[:30])
    assert run(here, "predict", "--run", "tiny", "--input", str(new), "--out", str(tmp_path / "here.csv")) == 0
    assert run(here, "push", REPO, "--run", "tiny") == 0
    # elsewhere: no prepared data, and a name of its own
    assert run(there, "predict", "--from-hub", REPO, "--input", str(new), "--out", str(tmp_path / "there.csv")) == 0
    assert (tmp_path / "there.csv").read_text() == (tmp_path / "here.csv").read_text()
    assert not (there / "data").exists()
