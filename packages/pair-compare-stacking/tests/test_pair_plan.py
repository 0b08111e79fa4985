"""A plan comes before anything is trained: a teacher that is still to be trained does not stand in its way."""

import json
from pathlib import Path

import pytest

from pair_compare_stacking.__main__ import main
from shared_core import costs, report

TINY = [
    *("--data.n_train", "60", "--data.n_val", "40", "--data.n_test_public", "30", "--severity", "1"),
    *("--stream.pairs_per_epoch", "64", "--epochs", "1", "--batch-size", "16", "--model.widths", "8,16"),
    *("--model.layers", "1,1", "--model.feat_dim", "8", "--model.hidden", "4", "--logging.tracker", "none"),
    *("--runtime.device", "cpu", "--runtime.threads", "1", "--logging.progress", "false"),
]


def run(folder: Path, verb: str, *flags: str) -> int:
    return main([verb, "--paths.data", str(folder / "data"), "--paths.runs", str(folder / "runs"), *TINY, *flags])


def planned(folder: Path, *flags: str) -> dict:
    assert run(folder, "plan", "--gpu", "h200", "--json-file", str(folder / "plan.json"), *flags) == 0
    return json.loads((folder / "plan.json").read_text())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data, nothing trained yet; "several.yaml" has two models that learn together."""
    folder = tmp_path_factory.mktemp("plan")
    (folder / "several.yaml").write_text('models: {"first": {}, "second": {"seed": 3, "loss": {"kind": "focal"}}}\n')
    assert run(folder, "prepare") == 0
    return folder


@pytest.mark.parametrize("more", [(), ("--config", "several.yaml")])
def test_a_plan_leaves_out_a_teacher_that_is_not_there(
    home: Path, more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    alone, taught = planned(home, *more), planned(home, *more, "--distill.teacher", "ten")
    assert taught["flops_per_sample"] == alone["flops_per_sample"] > 0
    (note,) = [note for note in taught["notes"] if "distill.teacher" in note]
    assert "ten: no such run" in note and note.endswith("its cost is not counted")


def test_a_teacher_that_is_there_is_counted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "write", lambda found, *more, **named: found[0] / "report.html")
    assert run(home, "train", "--name", "ten", "--model.widths", "16,32") == 0
    monkeypatch.setattr(costs.progress, "message", pytest.fail)  # its answers need no computing
    alone, taught = planned(home), planned(home, "--distill.teacher", "ten")
    assert taught["flops_per_sample"] > 1.5 * alone["flops_per_sample"]  # twice the widths, forward only
    assert any("its answers are counted" in note for note in taught["notes"])
    assert taught["parameters"] == alone["parameters"]


def test_models_in_one_batched_call_cost_as_many_operations_as_one_by_one(home: Path) -> None:
    turns, batched = (planned(home, "--seeds", "1,2,3", "--together", how) for how in ("in_turn", "batched"))
    assert batched["flops_per_sample"] == pytest.approx(turns["flops_per_sample"], rel=0.01)
    assert batched["step_seconds"] < turns["step_seconds"]  # fewer operations to issue
