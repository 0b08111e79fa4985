"""Sharded training: two processes that hold half of the model each train what two that hold all of it train."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from toy import starts

from shared_core import fsdp
from shared_core.checkpoint import load_weights, read_manifest
from shared_core.signals import EXIT_PREEMPTED

pytestmark = [
    pytest.mark.skipif(not distributed.is_gloo_available(), reason="needs gloo"),
    pytest.mark.filterwarnings("error:torch.distributed is disabled"),  # users need not know
]
# normalisation takes away the bias before it: its gradient is rounding, which Adam makes a step of
UNDETERMINED = {f"{which}.{name}" for which in ("model", "ema") for name in ("0.bias", "1.running_mean")}
SHARDED = ("--runtime.fsdp", "true")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The newest weights of a run and their averages, whole."""
    checkpoints = starts.run_folder(folder) / "checkpoints"
    newest = checkpoints / (checkpoints / "latest").read_text().strip()
    return {f"{which}.{name}": t for which in ("model", "ema") for name, t in load_weights(newest, which).items()}


def assert_close(ours: Path, theirs: Path) -> None:
    a, b = weights(ours), weights(theirs)
    assert a.keys() == b.keys()
    for name in a.keys() - UNDETERMINED:
        torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-6, msg=name)
    assert starts.evaluations(ours) == [
        (step, pytest.approx(loss, rel=1e-4)) for step, loss in starts.evaluations(theirs)
    ]


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    codes, outputs = starts.train_two(folder, *SHARDED)
    assert codes == [0, 0], outputs
    assert "161 parameters, sharded, fp32 on 2 x cpu" in outputs[0]
    return folder


def test_shards_learn_what_copies_learn(tmp_path: Path, sharded: Path) -> None:
    codes, outputs = starts.train_two(tmp_path)
    assert codes == [0, 0], outputs
    assert_close(sharded, tmp_path)


def test_every_process_writes_its_part(sharded: Path) -> None:
    folder = starts.run_folder(sharded) / "checkpoints"
    names = set(read_manifest(folder / (folder / "latest").read_text().strip())["files"])
    assert {name for name in names if name.startswith("shards/shard-0000")} == {name for name in names if "/" in name}
    assert sum("shards/" in name for name in names) == 2
    assert "model.safetensors" not in names


def test_checkpoint_of_shards_is_evaluated_by_one_process(sharded: Path) -> None:
    code, output = starts.command(sharded, "evaluate")
    assert code == 0, output
    found = json.loads((starts.run_folder(sharded) / "evaluation" / "val.json").read_text())
    step = int(found["checkpoint"].split("-")[1])
    assert found["metrics"]["loss"]["value"] == pytest.approx(dict(starts.evaluations(sharded))[step])


def test_checkpoint_of_shards_is_exported(sharded: Path) -> None:
    code, output = starts.command(sharded, "export", "--out", str(sharded / "whole.pt"))
    assert code == 0, output
    assert "Warning" not in output
    exported = torch.load(sharded / "whole.pt", weights_only=True)
    assert exported["step"] > 0 and exported["optimizer_state_dict"]
    best = load_weights(starts.run_folder(sharded))
    assert all(torch.equal(tensor, best[name]) for name, tensor in exported["model_state_dict"].items())


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        ("--data.stop_at", "9", "--data.fault_in", "1"),
        ("--data.stop_at_boundary", "6", "--data.fault_in", "0"),
        ("--data.stop_at_boundary", "2", "--data.fault_in", "1"),
        ("--data.stop_at", "9", "--data.stop_signal", str(int(signal.SIGTERM))),
    ],
    ids=["in a step", "in a save", "in a save of the other", "terminated"],
)
def test_killed_and_resumed(tmp_path: Path, sharded: Path, fault: tuple[str, ...]) -> None:
    codes, outputs = starts.train_two(tmp_path, *SHARDED, *fault)
    assert 0 not in codes, outputs
    assert (codes == [EXIT_PREEMPTED] * 2) == ("--data.stop_signal" in fault)
    codes, outputs = starts.train_two(tmp_path, *SHARDED)
    assert codes == [0, 0], outputs
    ours, theirs = weights(tmp_path), weights(sharded)
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    assert starts.evaluations(tmp_path) == starts.evaluations(sharded)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_pieces_accumulation_and_a_skipped_step(tmp_path: Path, optimizer: str) -> None:
    """One process's bad gradient makes both skip."""
    flags = ["--training.accumulation", "2", "--training.micro_batch", "3", "--optimizer.name", optimizer]
    flags += ["--training.max_skipped_steps", "1", "--data.nan_at", "9", "--data.fault_in", "1"]
    for name, more in (("copies", ()), ("shards", SHARDED)):
        codes, outputs = starts.train_two(tmp_path / name, *flags, *more)
        assert codes == [0, 0], outputs
        rows = (starts.run_folder(tmp_path / name) / "metrics.jsonl").read_text().splitlines()
        assert max(json.loads(row).get("train/skipped_steps", 0) for row in rows) == 1
    assert_close(tmp_path / "shards", tmp_path / "copies")


@pytest.mark.slow
def test_memory_that_is_too_small_ends_all_processes_with_advice(tmp_path: Path) -> None:
    codes, outputs = starts.train_two(tmp_path, *SHARDED, "--data.largest_piece", "5")
    assert codes == [2, 2], outputs
    for output in outputs:
        (line,) = [line for line in output.splitlines() if line.startswith("error")]
        assert line.endswith("out of memory: use --training.micro_batch 4")
        assert "Traceback" not in output


def test_processes_find_each_other_without_a_gpu(tmp_path: Path) -> None:
    """Accelerate joins them on the CPU only where it is told so."""
    codes, outputs = starts.train_two(tmp_path, "--runtime.device", "auto")
    assert codes == [0, 0], outputs
    assert json.loads((starts.run_folder(tmp_path) / "run.json").read_text())["processes"] == 2


def test_one_process_has_nothing_to_split(tmp_path: Path) -> None:
    code, output = starts.train(tmp_path, *SHARDED)
    assert code == 0, output
    assert "runtime.fsdp: there is one process, so nothing is split" in output


def test_blocks_are_the_members_of_the_outermost_lists() -> None:
    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(2, 2)
            self.layers = nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(3))
            self.stages = nn.ModuleList([nn.ModuleList([nn.Linear(2, 2)]), nn.ModuleList([nn.Linear(2, 2)])])
            self.head = nn.Sequential(nn.ReLU(), nn.Linear(2, 2))

    model = Transformer()
    expected = [*model.layers, model.stages[0][0], model.stages[1][0], model.head[1]]
    assert list(fsdp.blocks(model)) == expected
    assert list(fsdp.blocks(model.head)) == [model.head[1]]
    assert list(fsdp.blocks(nn.Linear(2, 2))) == []
