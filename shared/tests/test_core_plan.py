"""The plan's arithmetic against hand counts, its bytes against what training really allocates."""

import json
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from shared_core import costs, gpus, optim, plan
from shared_core.batches import StreamBatches
from shared_core.errors import UserError
from shared_core.runtime import Runtime
from shared_core.settings import RunConfig
from shared_core.task import Task

CPU = {"runtime": {"device": "cpu"}}


class Regression(Task):
    """A model on generated vectors (or pictures) of the given shape."""

    def __init__(self, model, shape, runtime, batch_size=32, batches=10):
        self.model = model
        self.batches = StreamBatches(
            lambda generator: {"x": torch.randn(batch_size, *shape, generator=generator)},
            batches_per_epoch=batches,
            batch_size=batch_size,
            runtime=runtime,
            seed=0,
        )

    def loss(self, model, batch):
        return model(batch["x"]).square().mean(), {}

    def evaluate(self, model, runtime):
        return {"val/loss": 0.0}


@pytest.fixture(scope="module")
def runtime():
    return Runtime.start(RunConfig(**CPU).runtime, seed=0)


def mlp(d=64, width=128):
    return nn.Sequential(nn.Linear(d, width, bias=False), nn.ReLU(), nn.Linear(width, 1, bias=False))


def make(runtime, model=None, shape=(64,), **training):
    """(config, task) of a small regression."""
    training = {"batch_size": 32, "epochs": 3, **training}
    config = RunConfig(**CPU, training=training)
    return config, Regression(model or mlp(), shape, runtime, training["batch_size"])


def test_flops_of_a_network_counted_by_hand(runtime):
    config, task = make(runtime)
    forward = 2 * (64 * 128 + 128 * 1)
    backward = 2 * 64 * 128 + 2 * (2 * 128 * 1)  # weights of both layers, and the input of the second only
    assert plan.plan(config, task, runtime, steps=0).flops_per_sample == forward + backward


def test_attention_counts_whatever_kernel_computes_it(runtime):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            q = (x * self.scale).unsqueeze(1)
            return nn.functional.scaled_dot_product_attention(q, q, q)

    _, task = make(runtime, Attention(), shape=(16, 8))
    batch = next(task.batches.epoch(0))
    products = 2 * (2 * 16 * 16 * 8)  # q k^T, and the weights times v
    assert costs.measure(task, task.model, batch, "fp32").flops_per_sample == 3 * products  # twice as much backward


def test_activations_of_a_network_counted_by_hand(runtime):
    _, task = make(runtime)
    measured = costs.measure(task, task.model, next(task.batches.epoch(0)), "fp32")
    # the input, the hidden layer after ReLU, the output before the square; 4 bytes each
    assert measured.bytes_per_sample == pytest.approx(4 * (64 + 128 + 1))
    assert measured.fixed_bytes == pytest.approx(0, abs=64)
    assert measured.largest_per_sample == 4 * 128


def test_lower_precision_keeps_less_per_sample_and_copies_of_the_weights(runtime):
    _, task = make(runtime, mlp(width=1024))
    batch = next(task.batches.epoch(0))
    full, half = (costs.measure(task, task.model, batch, precision) for precision in ("fp32", "bf16"))
    assert half.bytes_per_sample < 0.7 * full.bytes_per_sample
    assert half.fixed_bytes == 2 * 1024  # the second layer's; nobody needs the first one's, its input has no gradient


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_optimizer_and_gradient_bytes_are_those_of_a_real_step(runtime, name):
    config, task = make(runtime)
    config = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"name": name})})
    planned = plan.plan(config, task, runtime, steps=0)
    optimizers = optim.build(config.optimizer, task.model, task.no_decay)
    task.loss(task.model, next(task.batches.epoch(0)))[0].backward()
    for optimizer in optimizers:
        optimizer.step()
    states = [t for o in optimizers for state in o.state.values() for t in state.values() if t.ndim]  # not the counters
    assert planned.memory["optimizer"] == sum(t.numel() * t.element_size() for t in states)
    assert planned.memory["gradients"] == planned.memory["weights"] == 4 * planned.parameters


def test_memory_counts_averaged_weights_tied_weights_and_frozen_ones(runtime):
    model = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False))
    model[1].weight = model[0].weight
    model[2].weight.requires_grad_(False)
    config, task = make(runtime, model, ema_decay=0.99)
    planned = plan.plan(config, task, runtime, steps=0)
    assert (planned.parameters, planned.trainable) == (2 * 4096, 4096)
    assert planned.memory["weights"] == planned.memory["averaged weights"] == 2 * 4 * 4096
    assert planned.memory["gradients"] == 4 * 4096 and planned.memory["optimizer"] == 2 * 4 * 4096
    assert planned.checkpoint_bytes == 4 * (2 * 4096 + 2 * 4096 + 2 * 4096)
    assert "8,192 (4,096 trainable)" in planned.render()


def test_activations_follow_the_micro_batch_and_steps_the_effective_one(runtime):
    whole = plan.plan(*make(runtime), runtime, steps=0)
    pieces = plan.plan(*make(runtime, micro_batch=8), runtime, steps=0)
    assert pieces.memory["activations"] == pytest.approx(whole.memory["activations"] / 4, rel=0.01)
    accumulated = plan.plan(*make(runtime, accumulation=3), runtime, steps=0)
    assert (whole.steps, whole.samples) == (30, 960)
    assert (accumulated.steps, accumulated.samples) == (9, 9 * 96)  # 10 batches make 3 steps of 3
    assert accumulated.memory == whole.memory


def test_disk_counts_every_checkpoint_that_can_lie_there(runtime):
    kept = plan.plan(*make(runtime, epochs=10, keep_checkpoints=3, keep_every_epochs=5), runtime, steps=0)
    assert kept.disk_bytes == (3 + 1 + 1 + 2) * kept.checkpoint_bytes


def test_planning_changes_nothing(runtime):
    head = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 1))
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), head).eval()
    config, task = make(runtime, model, shape=(1, 8, 8))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.random.get_rng_state()
    planned = plan.plan(config, task, runtime, steps=2)
    assert planned.measured
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and not model.training
    assert torch.equal(torch.random.get_rng_state(), random)


def test_time_is_that_of_steps_on_full_batches(runtime):
    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 1)

        def forward(self, x):
            time.sleep(0.001 * len(x))
            return self.layer(x)

    planned = plan.plan(*make(runtime, Slow(), accumulation=2), runtime, steps=3)
    assert planned.measured and 0.064 <= planned.step_seconds < 0.2  # two batches of 32 samples
    assert planned.seconds == pytest.approx(planned.step_seconds * planned.steps)
    assert "measured" in planned.render() and "cpu" in planned.device


def test_a_named_gpu_is_estimated_from_its_data_sheet(runtime):
    config, task = make(runtime)
    slow, fast = (plan.plan(config, task, runtime, gpu=name) for name in ("T4", "H100"))
    assert not slow.measured and "T4 (not here)" in slow.device
    assert (slow.precision, fast.precision) == ("fp32", "bf16")
    assert slow.memory_available == 16e9
    text = fast.render()
    assert "estimated from the data sheet" in text and "35%" in text and "989 TFLOP/s" in text


def test_the_estimate_is_the_slowest_of_arithmetic_traffic_and_issuing(runtime):
    config, _ = make(runtime)
    gpu = gpus.find("A100-80")
    memory = dict.fromkeys(("weights", "optimizer", "gradients", "averaged weights"), 0.0)

    def seconds(flops, size, operations):
        return plan._roofline(gpu, config, costs.Costs(flops, size, 0, 0, operations), memory, "bf16")

    for values, limit, expected in (
        ((1e12, 1.0, 1), "arithmetic", 32 * 1e12 / (312e12 * gpus.COMPUTE_UTILISATION)),
        ((1.0, 1e9, 1), "memory traffic", 5 * 32 * 1e9 / (2039e9 * gpus.BANDWIDTH_UTILISATION)),
        ((1.0, 1.0, 10_000), "issuing operations", 10_000 * gpus.SECONDS_PER_OPERATION),
    ):
        found, (note,) = seconds(*values)
        assert found == pytest.approx(expected) and f"limited by {limit}" in note


def test_sharding_divides_what_belongs_to_the_weights(runtime):
    four = replace(runtime, world=4)
    config, task = make(four, ema_decay=0.9)
    sharded = config.model_copy(update={"runtime": config.runtime.model_copy(update={"fsdp": True})})
    copies, parts = (plan.plan(c, task, four, gpu="A100-80") for c in (config, sharded))
    for name in ("weights", "gradients", "optimizer", "averaged weights"):
        assert parts.memory[name] == copies.memory[name] / 4 > 0
    assert parts.memory["activations"] == copies.memory["activations"]
    assert parts.memory["whole blocks"] == 3 * 4 * 64 * 128  # the larger of the two layers, nothing outside of blocks
    assert parts.checkpoint_bytes == copies.checkpoint_bytes
    assert "4 processes" in parts.batch and "4 x A100" in parts.device
    alone = plan.plan(sharded, make(runtime)[1], runtime, gpu="A100-80")
    assert "whole blocks" not in alone.memory


def test_what_does_not_fit_names_the_micro_batch_that_would(runtime, monkeypatch):
    tiny = gpus.Gpu("A10G", 0.61e9, 600e9, 1e12, 1e12, 1e12)
    monkeypatch.setattr(gpus, "GPUS", (tiny,))
    config, task = make(runtime, mlp(d=64, width=8192), batch_size=4096)
    planned = plan.plan(config, task, runtime, gpu="A10G")
    assert planned.peak_memory_bytes > planned.memory_available
    assert any("does not fit" in note for note in planned.notes)
    monkeypatch.setattr(gpus, "GPUS", (gpus.Gpu("A10G", 0.75e9, 600e9, 1e12, 1e12, 1e12),))
    (note,) = [note for note in plan.plan(config, task, runtime, gpu="A10G").notes if "does not fit" in note]
    fits = int(note.split("--training.micro_batch ")[1].split()[0])
    smaller = config.model_copy(update={"training": config.training.model_copy(update={"micro_batch": fits})})
    assert not any("does not fit" in note for note in plan.plan(smaller, task, runtime, gpu="A10G").notes)


def test_a_plan_is_json_and_a_table(runtime):
    planned = plan.plan(*make(runtime), runtime, steps=1)
    data = json.loads(json.dumps(planned.as_dict()))
    assert data["peak_memory_bytes"] == planned.peak_memory_bytes and data["parameters"] == 8320
    for word in ("parameters", "FLOP per sample", "memory, peak", "disk", "30 (960 samples)", "evaluations"):
        assert word in planned.render()
    assert "not known" in plan.plan(*make(runtime), runtime, steps=0).render()


@pytest.mark.parametrize(
    ("name", "found"),
    [("a100", "A100-40"), ("NVIDIA A100-SXM4-80GB", "A100-80"), ("rtx4090", "RTX 4090"), ("NVIDIA L40S", "L40S"),
     ("L4", "L4"), ("Tesla T4", "T4"), ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA GeForce RTX 3090", "RTX 3090")],
)  # fmt: skip
def test_gpus_are_found_by_the_names_people_and_drivers_use(name, found):
    assert gpus.find(name).name == found


def test_every_gpu_of_the_table_makes_sense():
    for gpu in gpus.GPUS:
        assert 10e9 < gpu.memory < 300e9 and 200e9 < gpu.bandwidth < 10e12
        assert gpu.fp32 <= gpu.fp16 and (gpu.bf16 is None or gpu.bf16 == gpu.fp16)
        assert gpus.find(gpu.name) is gpu


def test_bad_input_is_one_clear_line(runtime):
    config, task = make(runtime)
    with pytest.raises(UserError, match=r"--gpu H10: not in the table \(did you mean H100\?\); there are V100"):
        plan.plan(config, task, runtime, gpu="H10")
    bf16 = RunConfig(runtime={"device": "cpu", "precision": "bf16"})
    with pytest.raises(UserError, match="the T4 has no bf16"):
        plan.plan(bf16, task, runtime, gpu="T4")
    recompute = RunConfig(runtime={"device": "cpu", "gradient_checkpointing": True})
    with pytest.raises(UserError, match="gradient_checkpointing: Sequential does not support it"):
        plan.plan(recompute, task, runtime)
    with pytest.raises(UserError, match=r"training\.accumulation: 50 is more than the 10 batches"):
        plan.plan(*make(runtime, accumulation=50), runtime)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.34e9, "2.34 GB"), (5e15, "5 PB")]
)
def test_quantities(value, text):
    assert plan.quantity(value, "B") == text
