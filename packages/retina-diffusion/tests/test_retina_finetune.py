"""Fine-tuning from published weights, as a user calls it; a small checkpoint in Lumina's form stands for them."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from retina_diffusion import captions, model, photographs, pretrained, subject, train
from retina_diffusion.__main__ import APP, main
from retina_diffusion.config import Config
from retina_diffusion.nextdit import NextDiT
from shared_core import runs
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


def of_run(folder: Path, name: str = "tuned") -> RunDir:
    return RunDir(folder / "runs" / "retina-diffusion" / name)


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
    kinds = ("consolidated_ema.*safetensors", "consolidated_ema.*pth", "consolidated.*safetensors")
    assert asked == [("Alpha-VLLM/Lumina-Next-T2I", (kind,)) for kind in kinds]  # and no further: it is there


def test_a_run_that_goes_on_needs_no_published_weights(home: Path, tmp_path: Path) -> None:
    """They may be gone by then, and take minutes to read."""
    shutil.copytree(home, tmp_path / "home")
    folder, weights = tmp_path / "home", tmp_path / "home" / "published" / "consolidated.00-of-01.safetensors"
    flags = ("--from", str(folder / "published"), "--epochs", "2", "--scheduler.name", "constant", "--name", "again")
    assert run(folder, "finetune", *flags, "--training.steps", "2") == 0
    status = of_run(folder, "again").path / "status.json"
    status.write_text(status.read_text().replace('"finished"', '"preempted"'))
    before, there = load_weights(of_run(folder, "again").path), weights.read_bytes()
    weights.write_bytes(b"gone")
    assert run(folder, "finetune", *flags, "--training.steps", "4") == 0
    after = load_weights(of_run(folder, "again").path)
    step = (after["dit.layers.0.attention.wq.weight"] - before["dit.layers.0.attention.wq.weight"]).abs().max()
    assert 0 < step < 0.05  # from where it was
    assert run(folder, "finetune", *flags, "--training.steps", "5") == 2  # that run is finished, this one begins
    weights.write_bytes(there)


def test_adapters_are_folded_into_what_is_exported(home: Path, tmp_path: Path) -> None:
    flags = ("--from", str(home / "published"), "--model.pretrained.tune", "lora", "--name", "adapted")
    assert run(home, "finetune", *flags, "--optimizer.lr", "0.1") == 0
    out = tmp_path / "weights.pt"
    assert run(home, "export", *flags, "--out", str(out)) == 0
    found = torch.load(out, weights_only=True)
    config = configuration(home)
    words = len(found["model_state_dict"]["words.embedding.weight"]) - captions.SPECIAL
    made = model.build(config.model, config.text, config.token_side, words)
    made.load_state_dict(found["model_state_dict"])  # strictly: a network without adapters
    adapted = of_run(home, "adapted")
    begun = config.model.pretrained.model_copy(update={"tune": "lora"})
    tuned = config.model_copy(update={"model": config.model.model_copy(update={"pretrained": begun})})
    who = subject.network(adapted, tuned, runs.checkpoint(adapted, "best"))
    batch = next(train.FlowTask(config, Runtime.start(config.runtime, 0)).batches.epoch(0))
    asked, x, t = photographs.condition(batch, config.model.channels), torch.randn(8, 3, 32, 32), torch.rand(8)
    with torch.no_grad():
        first, second = made.eval()(x, t, asked), who.eval()(x, t, asked)
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-4)
    assert found["optimizer_state_dict"] is None and found["step"] == 3


@pytest.mark.parametrize("tune", ["new", "lora"])
def test_random_weights_are_not_frozen(home: Path, capsys: pytest.CaptureFixture[str], tune: str) -> None:
    assert run(home, "train", "--model.pretrained.tune", tune, "--name", "frozen") == 2
    assert "these are random without model.pretrained.source" in capsys.readouterr().err.splitlines()[-1]
    assert not of_run(home, "frozen").path.exists()


def test_a_rank_that_is_no_use_is_one_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--from", str(home / "published"), "--model.pretrained.tune", "lora", "--model.pretrained.rank", "64")
    assert run(home, "finetune", *flags) == 2
    assert "model.pretrained.rank: 64: must be below model.dim, 32" in capsys.readouterr().err.splitlines()[-1]
