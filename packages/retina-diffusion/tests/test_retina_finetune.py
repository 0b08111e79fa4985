"""Fine-tuning from published weights, as a user calls it; a small checkpoint in Lumina's form stands for them."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from retina_diffusion import model, pretrained, train
from retina_diffusion.__main__ import APP, main
from retina_diffusion.config import Config
from retina_diffusion.nextdit import NextDiT
from shared_core.records import RunDir
from shared_core.runtime import Runtime
from shared_core.weights import load_weights

TINY = [
    *("--data.source", "sample", "--data.sample_size", "40", "--data.size", "32", "--data.num_workers", "0"),
    *("--model.space", "pixels", "--model.patch", "8", "--model.dim", "32", "--model.depth", "2", "--model.heads", "4"),
    *("--model.kv_heads", "2", "--model.multiple_of", "16", "--text.encoder", "words", "--text.model", "null"),
    *("--text.dim", "16", "--text.tokens", "8", "--batch-size", "8", "--training.micro_batch", "null", "--epochs", "1"),
    *("--scheduler.warmup_steps", "0", "--sampling.steps", "2", "--augment.flip", "true", "--logging.tracker", "none"),
    *("--logging.progress", "false", "--runtime.device", "cpu", "--runtime.threads", "1", "--name", "tuned"),
]


def run(folder: Path, verb: str, *flags: str) -> int:
    return main([verb, "--paths.data", str(folder / "data"), "--paths.runs", str(folder / "runs"), *TINY, *flags])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared set, and the weights of a network without masks."""
    folder = tmp_path_factory.mktemp("home")
    assert run(folder, "prepare", "--config", "lumina_2b") == 0
    shape = model.shape_of(configuration(folder).model, configuration(folder).text, 4)
    torch.manual_seed(1)
    published = NextDiT(dataclasses.replace(shape, masks=0))
    with torch.no_grad():
        for weight in published.parameters():
            weight.add_(0.05 * torch.randn(weight.shape))
    (folder / "published").mkdir()
    save_file(dict(published.state_dict()), folder / "published" / "consolidated.00-of-01.safetensors")
    return folder


def configuration(folder: Path) -> Config:
    config = APP.check(["finetune", "--paths.data", str(folder / "data"), *TINY])
    assert isinstance(config, Config)
    return config


def of_run(folder: Path) -> RunDir:
    return RunDir(folder / "runs" / "retina-diffusion" / "tuned")


@pytest.mark.parametrize("tune", ["all", "new", "lora"])
def test_what_is_tuned_changes_and_nothing_else(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tune: str
) -> None:
    flags = ("--paths.runs", str(tmp_path / "runs"), "--from", str(home / "published"))
    assert main(["finetune", "--paths.data", str(home / "data"), *TINY, *flags, "--model.pretrained.tune", tune]) == 0
    said = capsys.readouterr().err
    assert "(100.0% of the network's)" in said and "new, at 0: unknown_MD, x_embedder.weight (columns of masks)" in said
    before = NextDiT(model.shape_of(configuration(home).model, configuration(home).text, 4))
    pretrained.load(before, configuration(home).model.pretrained.model_copy(update={"source": str(home / "published")}))
    after = load_weights(of_run(tmp_path).path)
    moved = {name for name, old in before.state_dict().items() if not torch.equal(old, after[f"dit.{name}"])}
    new = {"x_embedder.weight", "x_embedder.bias"}
    assert new <= moved
    if tune == "all":
        assert len(moved) > 30
    else:
        assert moved <= new | {"unknown_MD"}
        assert any(name.endswith(".up") and after[name].any() for name in after) == (tune == "lora")
    assert run(tmp_path, "predict", "--paths.data", str(home / "data"), "--run", "tuned", "--count", "1",
               "--model.pretrained.tune", tune) == 0  # fmt: skip


def test_at_step_0_masks_change_nothing(home: Path) -> None:
    config = configuration(home)
    begun = config.model.pretrained.model_copy(update={"source": str(home / "published")})
    config = config.model_copy(update={"model": config.model.model_copy(update={"pretrained": begun})})
    task = train.FlowTask(config, Runtime.start(config.runtime, 0))
    batch = next(task.batches.epoch(0))
    x, t = torch.randn(8, 3, 32, 32), torch.rand(8)
    asked = task._condition(batch)
    with torch.no_grad():
        first, second = (task.model(x, t, one) for one in (asked, asked.without_masks()))
    assert first.abs().max() > 0.1
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)


def test_weights_of_another_network_are_not_taken(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The predecessor loaded nothing and said that it had."""
    assert run(home, "finetune", "--from", str(home / "published"), "--model.kv_heads", "4") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "fewer than pretrained.least_share (95.0%)" in line and "attention.wk" in line
    assert not of_run(home).path.exists()


def test_a_source_that_is_nowhere_is_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "finetune", "--from", "no/such") == 2
    assert "model.pretrained.source: no/such: no such file or folder" in capsys.readouterr().err.splitlines()[-1]


def test_without_a_source_it_is_the_published_one(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    from shared_core import hub

    asked = []

    def snapshot(name: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
        asked.append((name, patterns))
        return home / "published"

    monkeypatch.setattr(hub, "snapshot", snapshot)
    assert run(home, "finetune") == 0
    assert asked == [("Alpha-VLLM/Lumina-Next-T2I", ("consolidated*.safetensors", "consolidated*.pth"))]
