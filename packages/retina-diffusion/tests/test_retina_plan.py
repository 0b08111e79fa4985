"""Plans: what they count is what the network does, without data and without memory."""

import dataclasses
import json
import resource
from pathlib import Path

import pytest
import torch
from command_line import error
from torch.utils.flop_counter import FlopCounterMode

from retina_diffusion import plan
from retina_diffusion.__main__ import APP, main
from retina_diffusion.config import Config, PlanOptions
from retina_diffusion.plan import Imagined
from shared_core import gpus
from shared_core.errors import UserError
from shared_core.runtime import Runtime

CPU = ["--runtime.device", "cpu", "--runtime.threads", "1"]


def planned(folder: Path, *flags: str) -> dict:
    out = folder / "plan.json"
    where = ["--paths.data", str(folder / "data"), "--paths.runs", str(folder / "runs"), "--json_file", str(out)]
    assert main(["plan", *where, *flags]) == 0
    found: dict = json.loads(out.read_text())
    return found


def test_arithmetic_is_that_of_a_real_pass(tmp_path: Path) -> None:
    """Held against PyTorch's own counter on a network that computes."""
    config = Config.model_validate({"model": {"dim": 64, "depth": 2}, "training": {"batch_size": 4}})
    runtime = Runtime.start(config.runtime, 0)
    with plan._nothing_computed(runtime) as there:
        found = plan.plans.plan(config, Imagined(config, there, 40), there, steps=0, gpu="A100")
    task = Imagined(config, runtime, 40)
    with FlopCounterMode(display=False) as counter:
        task.loss(task.model, next(task.batches.epoch(0)))[0].backward()
    attention = 3 * 2 * 2 * 2 * 64 * (64 + config.text.tokens) * 64  # PyTorch counts none of the fused kernel on CPUs
    counted = counter.get_total_flops() / 4
    assert counted <= found.flops_per_sample <= counted + 1.2 * attention
    assert found.parameters == sum(weight.numel() for weight in task.model.parameters())


def test_pixel_patches_of_two_cost_what_the_facts_say(tmp_path: Path) -> None:
    """768 wide, 12 deep, 256 pixels: 16,384 tokens and 38 TFLOP for an image, nearly all of it attention."""
    flags = [
        "--gpu",
        "B200",
        "--batch-size",
        "1",
        "--size",
        "256",
        "--model.patch",
        "2",
        "--model.dim",
        "768",
        "--model.depth",
        "12",
    ]
    found = planned(tmp_path, *flags, "--model.heads", "12", "--model.multiple_of", "256", *CPU)
    assert found["flops_per_sample"] == pytest.approx(38.2e12, rel=0.05)
    assert any("16,384 tokens of 2 x 2 pixels" in note for note in found["notes"])


def test_two_billion_parameters_take_no_memory(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = planned(tmp_path, "--config", "guide_standard", "--gpu", "A100-80", *CPU)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert found["parameters"] > 2.3e9 and grown < 1e6  # kB; the weights alone would be 9 GB
    assert found["memory"]["weights"] == pytest.approx(4 * found["parameters"], rel=1e-3)


def test_recomputing_saves_memory_and_costs_arithmetic(tmp_path: Path) -> None:
    flags = ["--config", "small", "--gpu", "A100", *CPU]
    kept = planned(tmp_path, *flags)
    again = planned(tmp_path, *flags, "--runtime.gradient_checkpointing", "true")
    assert again["peak_memory_bytes"] < 0.5 * kept["peak_memory_bytes"]
    assert 1.2 < again["flops_per_sample"] / kept["flops_per_sample"] < 1.35
    # a block's activations are there while it is computed again; gradients come as those go
    one_block, memory = kept["memory"]["activations"] / 12, again["memory"]
    assert memory["gradients"] + memory["workspace"] > 0.8 * one_block


def test_photographs_are_those_of_the_set_or_assumed(tmp_path: Path) -> None:
    flags = ["--data.sample_size", "60", "--size", "32", "--batch-size", "8", "--epochs", "2", "--gpu", "T4", *CPU]
    assumed = planned(tmp_path, *flags)
    assert any("1,400 for training are assumed" in note for note in assumed["notes"])
    assert assumed["steps"] == 2 * (1_400 // 8)
    where = ["--paths.data", str(tmp_path / "data")]
    assert main(["prepare", *where, "--data.sample_size", "60", "--size", "32", "--logging.progress", "false"]) == 0
    assert planned(tmp_path, *flags)["steps"] == 2 * (46 // 8)
    assert planned(tmp_path, *flags, "--photographs", "800")["steps"] == 2 * 100


def test_here_steps_are_measured(tmp_path: Path) -> None:
    found = planned(tmp_path, "--size", "32", "--model.dim", "32", "--batch-size", "8", "--steps", "2", *CPU)
    assert found["measured"] and found["step_seconds"] > 0


def test_a_budget_says_what_fits_and_which_key_to_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan.configuration, "preset_names", lambda folder: ["fast", "guide_ultra_fast", "tiny"])
    rows = {row["preset"]: row for row in planned(tmp_path, "--budget", "1h", "--gpu", "A100", *CPU)}  # type: ignore[union-attr]
    shown = capsys.readouterr().out
    assert not rows["fast"]["fits"] and rows["tiny"]["fits"] and rows["guide_ultra_fast"]["fits"]
    fewer = int(rows["fast"]["advice"].split()[1])
    assert fewer == pytest.approx(94_000 * 3600 / rows["fast"]["seconds"], rel=0.01)
    assert "the largest that fits, from scratch: retina train --config tiny" in shown
    assert rows["guide_ultra_fast"]["advice"] == "fits; too few steps to learn to draw"
    assert rows["fast"]["memory_recomputed"] < rows["fast"]["memory"]


def test_nothing_that_fits_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan.configuration, "preset_names", lambda folder: ["guide_standard"])
    assert main(["plan", "--budget", "90m", "--gpu", "T4", "--paths.data", str(tmp_path), *CPU]) == 2
    assert "no preset fits" in error(capsys)


@pytest.mark.parametrize(
    ("flags", "advice"),
    [
        (["--gpu", "A100-80", "--config", "guide_standard", "--runtime.gradient_checkpointing", "false"],
         "--runtime.gradient_checkpointing true would fit"),
        (["--gpu", "T4", "--precision", "fp16", "--config", "standard", "--runtime.gradient_checkpointing", "true",
          "--training.micro_batch", "128"], "--training.micro_batch 26 would fit"),
        (["--gpu", "T4", "--precision", "fp16", "--config", "guide_standard"],
         "weights and optimizer alone fill it; take a smaller --model.dim"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], advice: str
) -> None:
    assert main(["plan", *flags, "--paths.data", str(tmp_path), *CPU]) == 2
    said = capsys.readouterr()
    assert said.out.startswith("plan of ") and advice in said.err.splitlines()[-1]


@pytest.mark.parametrize(("text", "seconds"), [("90m", 5_400), ("24h", 86_400), ("1.5 d", 129_600)])
def test_budgets(text: str, seconds: float) -> None:
    assert plan.seconds(text) == seconds


@pytest.mark.parametrize("text", ["24", "h", "0h", "-3h", "soon"])
def test_other_budgets_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="write minutes, hours or days"):
        plan.seconds(text)


def test_a_budget_wants_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--budget", "1h", "--paths.data", str(tmp_path), *CPU]) == 2
    assert "name the GPU that the budget is for" in error(capsys)


def test_the_default_configuration_is_planned(tmp_path: Path) -> None:
    config = APP.load(None, {"runtime": {"device": "cpu", "threads": 1}})
    assert isinstance(config, Config)
    made = plan.one(config, Runtime.start(config.runtime, 0), PlanOptions(gpu="A10G"))
    assert made.seconds is not None and torch.zeros(1).item() == 0  # and tensors have memory again


def test_a_tenth_of_the_memory_is_kept_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the note and the table call fitting is the same."""
    flags = ["--gpu", "A10G", "--config", "tiny", *CPU]
    needed = planned(tmp_path, *flags)["peak_memory_bytes"]
    for share, code in ((0.92, 2), (0.88, 0)):
        gpu = dataclasses.replace(gpus.find("A10G"), memory=needed / share)
        monkeypatch.setattr(gpus, "GPUS", (gpu,))
        assert main(["plan", *flags, "--paths.data", str(tmp_path)]) == code
