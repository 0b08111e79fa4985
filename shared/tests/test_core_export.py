"""Exports answer like the model they come from, and what cannot be exported says so."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from torch import nn

from shared_core import export, records, runs, trainer
from shared_core.checkpoint import load_weights
from shared_core.errors import UserError
from shared_core.runtime import Runtime
from shared_core.task import Task
from shared_core.verbs import ExportOptions


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> records.RunDir:
    """A trained toy."""
    config = config_of(tmp_path_factory.mktemp("export"))
    runtime = Runtime.start(config.runtime, config.seed)
    started = runs.open_for_training(toy.APP, config, runtime)
    trainer.train(config, toy.build_task(config, runtime), runtime, started)
    started.close()
    return started


def config_of(folder: Path) -> toy.Config:
    return toy.Config.model_validate(
        {
            "name": "short",
            "paths": {"runs": str(folder)},
            "training": {"epochs": 2, "batch_size": 16, "ema_decay": 0.9},
            "runtime": {"device": "cpu", "threads": 1},
            "logging": {"tracker": "none", "progress": False},
        }
    )


@dataclass
class Answer:
    logit: torch.Tensor
    features: torch.Tensor


class Net(nn.Module):
    """Two inputs, one of them by keyword, a constant argument, a dataclass as answer."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 8), nn.Linear(3, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor, gain: float, *, y: torch.Tensor) -> Answer:
        features = self.norm(self.left(x) + gain * self.right(y)).relu()
        return Answer(self.head(features).squeeze(1), features)


class NetTask(Task):
    def __init__(self, model: nn.Module | None = None) -> None:
        torch.manual_seed(0)
        self.model = model or Net()
        batch = {"x": torch.randn(16, 6), "y": torch.randn(16, 3)}
        self.batches = type("Once", (), {"epoch": lambda self, epoch, start=0: iter([batch])})()

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return model(batch["x"], 0.5, y=batch["y"]).logit.mean(), {}

    def evaluate(self, model: nn.Module, runtime: Runtime) -> dict[str, float]:
        return {}


def test_state_dict_has_the_guides_keys_and_loads_safely(run: records.RunDir, tmp_path: Path) -> None:
    checkpoint = runs.checkpoint(run, "best")
    out = export.state_dict(run, checkpoint, tmp_path / "model.pt")
    loaded = torch.load(out, weights_only=True)
    assert {"epoch", "model_state_dict", "optimizer_state_dict", "best_val_acc"} <= set(loaded)
    assert loaded["epoch"] in (1, 2)
    assert loaded["best_val_acc"] is None  # the toy has a loss only
    assert loaded["metrics"]["val/loss"] > 0
    averaged = load_weights(checkpoint, "ema")
    assert all(torch.equal(loaded["model_state_dict"][name], tensor) for name, tensor in averaged.items())
    model = toy.build_task(config_of(tmp_path), Runtime.start(config_of(tmp_path).runtime, 0)).model
    model.load_state_dict(loaded["model_state_dict"], strict=True)
    assert set(loaded["optimizer_state_dict"]) == set(torch.optim.AdamW(model.parameters()).state_dict())


def test_accuracy_goes_under_the_guides_name(run: records.RunDir, tmp_path: Path, monkeypatch: Any) -> None:
    original = export.Checkpoints.load

    def with_accuracy(self: Any, path: Path) -> Any:
        state = original(self, path)
        state.extra["progress"]["best"] = {"val/accuracy": 0.875}
        return state

    monkeypatch.setattr(export.Checkpoints, "load", with_accuracy)
    out = export.state_dict(run, runs.checkpoint(run, "best"), tmp_path / "model.pt")
    assert torch.load(out, weights_only=True)["best_val_acc"] == 0.875


def test_bare_weights_export_too(run: records.RunDir, tmp_path: Path) -> None:
    """A run that came from the Hub has weights and nothing else."""
    from shared_core import tensorfile

    pulled = records.RunDir(tmp_path / "pulled")
    pulled.path.mkdir()
    pulled.write_config("name: pulled\n")
    tensorfile.write(pulled.path / "model.safetensors", {"w": torch.ones(2)})
    loaded = torch.load(export.state_dict(pulled, pulled.path, tmp_path / "m.pt"), weights_only=True)
    assert torch.equal(loaded["model_state_dict"]["w"], torch.ones(2))
    assert loaded["epoch"] is None


def test_full_disk_leaves_nothing(run: records.RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(content: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="the disk is full"):
        export.state_dict(run, runs.checkpoint(run, "best"), tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


def test_torch_export_answers_alike_for_other_batch_sizes(tmp_path: Path) -> None:
    task = NetTask()
    assert export.torch_export(task, tmp_path / "net.pt2") < 1e-5
    program = torch.export.load(tmp_path / "net.pt2").module()
    x, y = torch.randn(9, 6), torch.randn(9, 3)
    logit, features = program(x, y)
    expected = task.model(x, 0.5, y=y)
    torch.testing.assert_close(logit, expected.logit)
    torch.testing.assert_close(features, expected.features)


def test_onnx_answers_alike_for_other_batch_sizes(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    task = NetTask()
    assert export.onnx(task, tmp_path / "net.onnx") < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    session = runtime.InferenceSession(tmp_path / "net.onnx")
    assert [item.name for item in session.get_inputs()] == ["x", "y"]
    assert [item.name for item in session.get_outputs()] == ["logit", "features"]
    x, y = torch.randn(9, 6), torch.randn(9, 3)
    logit, _ = session.run(None, {"x": x.numpy(), "y": y.numpy()})
    torch.testing.assert_close(torch.as_tensor(logit), task.model(x, 0.5, y=y).logit, atol=1e-5, rtol=1e-4)


class Depends(nn.Module):
    """Control flow that depends on the data cannot be traced."""

    def forward(self, x: torch.Tensor, gain: float, *, y: torch.Tensor) -> Answer:
        return Answer(x.sum(dim=1) if x.sum() > 0 else y.sum(dim=1), x)


def test_what_cannot_be_traced_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"Depends cannot be exported to torch\.export: .*; use --format state_dict"
    ) as e:
        export.torch_export(NetTask(Depends()), tmp_path / "net.pt2")
    assert "\n" not in str(e.value)
    assert list(tmp_path.iterdir()) == []


def test_wrong_answers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = NetTask()
    export_program = torch.export.export

    def biased(*arguments: Any, **options: Any) -> Any:
        with torch.no_grad():
            task.model.head.bias += 1.0
        return export_program(*arguments, **options)

    monkeypatch.setattr(torch.export, "export", biased)
    with pytest.raises(UserError, match="answers differently from PyTorch"):
        export.torch_export(task, tmp_path / "net.pt2")
    assert list(tmp_path.iterdir()) == []


def test_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="pip install onnx onnxscript onnxruntime"):
        export.onnx(NetTask(), tmp_path / "net.onnx")


def test_too_large_for_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    monkeypatch.setattr(export, "_ONNX_LIMIT", 10)
    with pytest.raises(UserError, match="use --format torch_export"):
        export.onnx(NetTask(), tmp_path / "net.onnx")


@pytest.mark.parametrize("form", ["state_dict", "torch_export"])
def test_verb_writes_into_the_run(run: records.RunDir, form: Any, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of(run.path.parent.parent)
    export.run(toy.APP, config, ExportOptions(format=form))
    out = run.path / f"short{export.SUFFIXES[form]}"
    assert out.is_file()
    assert str(out) in capsys.readouterr().out
