"""The model that is evaluated is the one that learned, whatever it is made of."""

import copy
from pathlib import Path

import pytest
import torch
import toy
from accelerate.utils import AutocastKwargs
from torch import nn

from shared_core import records, runs, trainer
from shared_core.errors import UserError
from shared_core.learner import Learner
from shared_core.runtime import Runtime


class Strange(nn.Module):
    """Tied weights, a recurrent layer with flattened weights, statistics, a table that is in no state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.recurrent = nn.LSTM(6, 6, batch_first=True)
        self.norm = nn.BatchNorm1d(6)
        self.tied = nn.Linear(6, 6)
        self.tied.weight = self.first.weight
        self.out = nn.Linear(6, 1)
        self.register_buffer("table", torch.linspace(0.5, 2.0, 6), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.recurrent(self.first(x)[:, None])
        return self.out(self.tied(self.norm(hidden[:, 0])) * self.table)


def learner(
    precision: str = "fp32", loss_scale: float | None = None, optimizer: str = "adamw", **training: object
) -> tuple[Learner, toy.ToyTask]:
    config = toy.Config.model_validate(
        {
            "training": {"batch_size": 16, **training},
            "runtime": {"device": "cpu", "precision": precision},
            "optimizer": {"name": optimizer},
        }
    )
    runtime = Runtime.start(config.runtime, config.seed)
    if loss_scale:
        pretend_fp16(runtime, loss_scale)
    task = toy.ToyTask(config, runtime)
    task.model = Strange()
    return Learner(config, task, runtime, total_steps=10), task


def pretend_fp16(runtime: Runtime, loss_scale: float) -> None:
    """Accelerate scales losses on GPUs only; PyTorch's scaler works on the CPU too. The arithmetic stays fp32."""
    runtime.accelerator.native_amp = True
    runtime.accelerator.state._mixed_precision = "fp16"
    runtime.accelerator.autocast_handler = AutocastKwargs(enabled=False)
    runtime.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=loss_scale)


@pytest.mark.parametrize("decay", [None, 0.5])
def test_evaluated_model_is_the_one_in_training(decay: float | None) -> None:
    ours, task = learner(ema_decay=decay)
    x = torch.randn(5, 6)
    for step in range(3):
        ours.step([next(iter(task.batches.epoch(0, 0)))], step, None)
        with ours.evaluation_model() as model:
            found = model(x)
            assert not model.training
        expected = Strange().eval()
        weights = ours.averaged.tensors if ours.averaged else task.model.state_dict()
        expected.load_state_dict({name: tensor.clone() for name, tensor in weights.items()})
        torch.testing.assert_close(found, expected(x))
    assert {p.device.type for p in ours.evaluated.parameters()} == {"meta"}  # takes no memory between evaluations
    assert task.model.training and {p.device.type for p in task.model.parameters()} == {"cpu"}


def test_evaluation_computes_in_the_precision_of_the_run() -> None:
    ours, _ = learner(precision="bf16")
    with ours.evaluation_model() as model:
        seen = []
        model.out.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
        assert model(torch.randn(5, 6)).dtype == torch.float32
        assert seen == [torch.bfloat16]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_what_is_learned_is_kept_in_fp32_under_bf16(optimizer: str) -> None:
    """Weights of eight bits would not notice small steps: only what is computed from them is rounded."""
    ours, task = learner(precision="bf16", ema_decay=0.5, optimizer=optimizer)
    seen: set[torch.dtype] = set()
    task.model.out.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    ours.step([next(iter(task.batches.epoch(0, 0)))], 0, None)
    assert seen == {torch.bfloat16}
    assert ours.averaged is not None
    states = [value for one in ours.optimizers for state in one.state.values() for value in state.values()]
    kept = [*task.model.parameters(), *ours.averaged.tensors.values(), *states]
    assert {t.dtype for t in kept if torch.is_tensor(t) and t.is_floating_point()} == {torch.float32}


def test_state_comes_back() -> None:
    ours, task = learner(ema_decay=0.5)
    batch = next(iter(task.batches.epoch(0, 0)))
    ours.step([batch], 0, None)
    state = copy.deepcopy(ours.state())
    other, _ = learner(ema_decay=0.5)
    other.load(state)
    for one in (ours, other):  # and goes on in the same way
        one.step([batch], 1, None)
    for name, tensor in ours.state().model.items():
        assert torch.equal(tensor, other.state().model[name])
    assert ours.averaged and other.averaged
    for name, tensor in ours.averaged.tensors.items():
        assert torch.equal(tensor, other.averaged.tensors[name])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])  # muon brings a second optimizer
def test_scaled_loss_gives_the_same_step(optimizer: str) -> None:
    plain, task = learner(optimizer=optimizer)
    scaled, _ = learner(optimizer=optimizer, loss_scale=2.0**15)
    for step, batch in zip(range(4), task.batches.epoch(0, 0), strict=False):
        plain.step([batch], step, None)
        logs, bad = scaled.step([batch], step, None)
        assert bad == 0 and torch.isfinite(logs["grad_norm"])
    for name, tensor in plain.state().model.items():  # a power of two costs no bit
        assert torch.equal(tensor, scaled.state().model[name])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_overflow_is_skipped_by_all_optimizers_and_halves_the_scale(optimizer: str) -> None:
    ours, task = learner(optimizer=optimizer, loss_scale=2.0**127)
    batch = next(iter(task.batches.epoch(0, 0)))
    before = copy.deepcopy(ours.state().model)
    _, bad = ours.step([batch], 0, None)
    assert bad == 1
    assert ours.loss_scale() == 2.0**126
    for name, tensor in ours.state().model.items():
        assert torch.equal(tensor, before[name]) or name.endswith("num_batches_tracked")
    saved = copy.deepcopy(ours.state())
    other, _ = learner(optimizer=optimizer, loss_scale=1.0)
    other.load(saved)
    assert other.loss_scale() == 2.0**126


def test_fp16_ends_where_no_scale_helps(tmp_path: Path) -> None:
    class Nan(toy.ToyTask):
        def loss(self, model: nn.Module, batch: dict) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            loss, values = super().loss(model, batch)
            return loss * torch.nan, values

    config = toy.Config.model_validate(
        {
            "paths": {"runs": tmp_path},
            "training": {"batch_size": 8, "epochs": 100},
            "logging": {"tracker": "none", "progress": False, "every": 4},
            "runtime": {"device": "cpu"},
        }
    )
    runtime = Runtime.start(config.runtime, config.seed)
    pretend_fp16(runtime, 1.0)
    run = runs.open_for_training(toy.APP, config, runtime)
    with pytest.raises(UserError, match=r"^the gradient is not finite at step 12, however small fp16's loss scale"):
        trainer.train(config, Nan(config, runtime), runtime, run)
    run.close()
    scales = [row["train/loss_scale"] for row in records.read_metrics(run.path)]
    assert scales == [2.0**-4, 2.0**-8, 2.0**-12]
