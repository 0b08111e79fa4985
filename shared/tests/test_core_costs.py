"""What a plan counts without computing is what a computed pass does and keeps."""

import time
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from shared_core import costs, plan
from shared_core.batches import StreamBatches
from shared_core.errors import UserError
from shared_core.runtime import Runtime
from shared_core.settings import RunConfig
from shared_core.task import Task

CPU = {"runtime": {"device": "cpu", "threads": 1}}
PRODUCTS = {"convolution", "convolution_backward", "addmm", "mm", "bmm"}


class Given(Task):
    """Any model and loss on a batch of generated tensors."""

    def __init__(self, model, *shapes, loss=lambda y: y.square().mean(), runtime=None, batch_size=16):
        self.model, self.own_loss = model, loss
        make = lambda generator: [torch.randn(batch_size, *shape, generator=generator) for shape in shapes]  # noqa: E731
        self.batches = StreamBatches(make, batches_per_epoch=9, batch_size=batch_size, runtime=runtime, seed=0)

    def loss(self, model, batch):
        found = model(batch[0]) if len(batch) == 1 else model(batch)
        return self.own_loss(found.float()), {}

    def evaluate(self, model, runtime):
        return {}


class Attention(nn.Module):
    def __init__(self, mask=False):
        super().__init__()
        self.inner, self.outer, self.mask = nn.Linear(32, 96), nn.Linear(32, 32), mask

    def forward(self, x):
        q, k, v = (part.unflatten(-1, (4, 8)).transpose(1, 2) for part in self.inner(x).chunk(3, dim=-1))
        return self.outer(
            functional.scaled_dot_product_attention(q, k, v, is_causal=self.mask).transpose(1, 2).flatten(2)
        )


class Several(nn.Module):
    """Models side by side, each with a batch of its own; their answers added up."""

    def __init__(self, *models):
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, batches):
        return sum(model(x) for model, x in zip(self.models, batches, strict=True))


class Batched(Several):
    """The same in one call, their weights stacked."""

    def forward(self, batches):
        weights = [dict(model.named_parameters()) for model in self.models]
        stacked = {name: torch.stack([own[name] for own in weights]) for name in weights[0]}
        return vmap(lambda own, x: functional_call(self.models[0], own, x))(stacked, torch.stack(batches)).sum(dim=0)


def dense():
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 1))


def convolutions(stride=1):
    head = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(1))
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), head)
    model(torch.zeros(2, 3, 12, 12))
    return model.to(memory_format=torch.channels_last)


CASES = {
    "dense": (dense, [(32,)]),
    "batch norm": (convolutions, [(3, 12, 12)]),
    "attention": (Attention, [(6, 32)]),
    "masked attention": (lambda: Attention(mask=True), [(6, 32)]),
    "transposed": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 2, 3, 2)), [(3, 12, 12)]),
    "recurrent": (lambda: nn.Sequential(nn.GRU(32, 16, batch_first=True), First(), nn.LayerNorm(16)), [(5, 32)]),
    "several": (lambda: Several(convolutions(), convolutions(2), convolutions(3)), [(3, 12, 12)] * 3),
}


class First(nn.Module):
    def forward(self, x):
        return x[0]


@pytest.fixture(scope="module")
def runtime():
    return Runtime.start(RunConfig(**CPU).runtime, seed=0)


def first(task):
    return next(task.batches.epoch(0))


def oracle(task, batch, precision, samples):
    """(FLOP, bytes saved for the backward pass) of a computed pass, by PyTorch's own counters."""
    piece = [part[:samples].clone() for part in batch]
    own = {tensor.untyped_storage().data_ptr() for tensor in (*task.model.parameters(), *task.model.buffers())}
    kept = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in piece}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    task.model.train()
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        costs._loss(task, task.model, piece, precision).backward()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        costs._loss(task, task.model, piece, precision).backward()
    task.model.zero_grad()
    return counter.get_total_flops(), kept


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("case", CASES)
def test_counts_are_those_of_a_computed_pass(runtime, case, precision):
    model, shapes = CASES[case]
    task = Given(model(), *shapes, runtime=runtime)
    batch = first(task)
    counted = costs.passes(task, task.model, batch, precision, compute=False)
    assert counted == costs.passes(task, task.model, batch, precision, compute=True)
    (_, small), (flops, kept) = (oracle(task, batch, precision, samples) for samples in (4, 8))
    assert counted.flops_per_sample == flops / 8 > 0
    assert counted.bytes_per_sample == (sum(kept.values()) - sum(small.values())) / 4 > 0
    assert counted.fixed_bytes + 8 * counted.bytes_per_sample == sum(kept.values())
    assert counted.largest_per_sample == max(kept.values()) / 8


@pytest.mark.parametrize("transposed", [False, True])
def test_grouped_convolutions_count_by_their_groups(runtime, transposed):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    grouped, whole = (
        Given(nn.Sequential(nn.Conv2d(4, 8, 1), kind(8, 12, 3, 2, groups=groups)), (4, 9, 9), runtime=runtime)
        for groups in (4, 1)
    )
    flops = [costs.measure(task, task.model, first(task), "fp32").flops_per_sample for task in (grouped, whole)]
    places = 9 * 9 if transposed else 4 * 4
    before = 2 * 2 * 81 * 4 * 8  # nobody wants the gradient of the batch
    assert flops == [before + 3 * 2 * places * 8 * 12 * 9 / 4, before + 3 * 2 * places * 8 * 12 * 9]


def test_models_of_one_call_count_as_one_after_the_other(runtime):
    models = [dense() for _ in range(3)]
    for model in models:
        model[2].p = 0.0
    turns, batched = (Given(kind(*models), *[(32,)] * 3, runtime=runtime) for kind in (Several, Batched))
    one, other = (costs.measure(task, task.model, first(task), "fp32") for task in (turns, batched))
    assert other.flops_per_sample == one.flops_per_sample > 0
    assert other.operations < one.operations
    assert other.fixed_bytes == one.fixed_bytes + 4 * 3 * 64  # the stacked copies that the backward pass needs


def test_products_are_not_computed_and_all_else_is(runtime):
    class Computed(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            if not any(isinstance(leaf, FakeTensor) for leaf in leaves):
                names.add(func._overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    task = Given(convolutions(), (3, 12, 12), runtime=runtime)
    for compute, found in ((False, set()), (True, {"convolution", "convolution_backward", "addmm", "mm"})):
        names: set[str] = set()
        with Computed():
            costs.passes(task, task.model, first(task), "fp32", compute)
        assert names & PRODUCTS == found
        assert {"relu", "threshold_backward", "native_batch_norm_backward"} <= names


def test_what_asks_for_values_or_leaves_pytorch_is_planned_without_computing(runtime, capsys):
    def loss(y):
        hard = (y > 0).nonzero()
        weight = float(y.detach().numpy().mean()) + hard.shape[0]
        return y.square().mean() * (1 + weight if y.sum().item() > 0 else 1)

    task = Given(dense(), (32,), loss=loss, runtime=runtime)
    assert costs.measure(task, task.model, first(task), "fp32").flops_per_sample > 0
    assert capsys.readouterr().err == ""


def test_a_loss_that_fails_on_zeros_is_computed_and_says_so(runtime, capsys):
    def loss(y):
        if not y.std() > 0.01:
            raise ValueError("all the same\nin every row")
        return y.square().mean()

    task = Given(nn.Linear(32, 1, bias=False), (32,), loss=loss, runtime=runtime)
    plain = Given(nn.Linear(32, 1, bias=False), (32,), runtime=runtime)
    found = costs.measure(task, task.model, first(task), "fp32")
    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError: all the same" in line and "computing" in line
    expected = costs.measure(plain, plain.model, first(plain), "fp32")
    assert (found.flops_per_sample, found.bytes_per_sample) == (expected.flops_per_sample, expected.bytes_per_sample)


def test_what_is_the_users_mistake_stays_one(runtime):
    def loss(y):
        raise UserError("loss.function: returns nothing")

    task = Given(dense(), (32,), loss=loss, runtime=runtime)
    with pytest.raises(UserError, match="returns nothing"):
        costs.measure(task, task.model, first(task), "fp32")


@pytest.mark.parametrize("compute", [True, False])
def test_memory_that_a_pass_gives_back_or_had_before_does_not_count(runtime, compute):
    class Wasteful(nn.Linear):
        table = torch.ones(64, 64)

        def forward(self, x):
            with torch.no_grad():
                scale = (torch.cat([x] * 50) @ self.table).abs().mean()  # big, and gone when it returns
            self.table.mul_(1)
            return super().forward(x) / scale.clamp(min=1)

    task = Given(Wasteful(64, 1), (64,), runtime=runtime)
    found = costs.passes(task, task.model, first(task), "fp32", compute)
    assert found.bytes_per_sample == pytest.approx(4 * (64 + 1))  # the batch, and the quotient, which is squared
    assert found.fixed_bytes <= 64


class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.seen = nn.Linear(64, 1), []

    def forward(self, x):
        self.seen.append(len(x))
        time.sleep(0.001 * len(x))
        return self.layer(x)


def test_where_whole_steps_take_too_long_a_piece_is_scaled_up(runtime, monkeypatch):
    monkeypatch.setattr(costs, "MOST_SECONDS", 0.1)
    config = RunConfig(**CPU, training={"batch_size": 64, "accumulation": 2, "epochs": 4})
    task = Given(Slow(), (64,), runtime=runtime, batch_size=64)
    monkeypatch.setattr(costs, "PROBE_SECONDS", 0.02)
    found = costs.pace(config, task, task.model, runtime, 5)
    assert found.steps == 0 and 2 <= found.samples == max(task.model.seen) < 64
    assert 0.1 < found.seconds < 0.3  # 0.128 and what layers take
    planned = plan.plan(config, task, runtime, steps=5)
    assert not planned.measured and 0.1 < planned.step_seconds < 0.3
    assert any("scaled up from a piece of" in note for note in planned.notes) and "estimated)" in planned.render()


def test_pieces_that_take_as_long_as_larger_ones_are_not_scaled_up(runtime, monkeypatch):
    """As on a GPU: two samples take as long as sixty-four."""

    class Alike(Slow):
        def forward(self, x):
            time.sleep(0.02)
            return self.layer(x)

    monkeypatch.setattr(costs, "MOST_SECONDS", 0.2)
    monkeypatch.setattr(costs, "PROBE_SECONDS", 0.1)
    config = RunConfig(**CPU, training={"batch_size": 64, "epochs": 4})
    found = costs.pace(config, task := Given(Alike(), (64,), runtime=runtime, batch_size=64), task.model, runtime, 5)
    assert found.steps > 0 and found.seconds < 0.1


def test_fewer_steps_are_measured_where_they_take_long(runtime, monkeypatch):
    config = RunConfig(**CPU, training={"batch_size": 64, "epochs": 4})
    task = Given(Slow(), (64,), runtime=runtime, batch_size=64)
    assert costs.pace(config, task, task.model, runtime, 3).steps == 3
    monkeypatch.setattr(costs, "MOST_SECONDS", 0.4)
    found = costs.pace(config, task, task.model, runtime, 500)
    assert 1 <= found.steps < 10 and found.seconds >= 0.064


def test_probing_respects_the_micro_batch(runtime):
    config = RunConfig(**CPU, training={"batch_size": 64, "micro_batch": 5, "epochs": 4})
    task = Given(Slow(), (64,), runtime=runtime, batch_size=64)
    costs.pace(config, task, task.model, runtime, 1)
    assert max(task.model.seen) == 5


def test_what_is_not_there_yet_is_left_out_before_anything_is_counted(runtime):
    class Incomplete(Given):
        def leave_out_missing(self):
            self.own_loss = lambda y: y.square().mean()
            return ["teacher: not there; its cost is not counted"]

    def needs_it(y):
        raise UserError("there is no teacher")

    task = Incomplete(dense(), (32,), loss=needs_it, runtime=runtime)
    planned = plan.plan(RunConfig(**CPU), task, replace(runtime), steps=0)
    assert planned.notes[0] == "teacher: not there; its cost is not counted"


def test_a_plan_has_the_task_s_own_notes_and_says_what_an_epoch_takes(runtime):
    class Talkative(Given):
        def plan_notes(self):
            return ["its data would take 5 GB"]

    config = RunConfig(**CPU, training={"epochs": 3})
    planned = plan.plan(config, Talkative(dense(), (32,), runtime=runtime), runtime, steps=0)
    assert planned.notes[-1] == "its data would take 5 GB" and planned.epochs == 3
    assert planned.steps % 3 == 0
    per_step = 240.0 * 3 / planned.steps
    assert "12:00 of training (4:00 per epoch, " in replace(planned, step_seconds=per_step).render()
    quick = replace(planned, step_seconds=1e-3 * 3 / planned.steps)
    assert "0:00 of training (1 ms per epoch, " in quick.render()


class Blocks(nn.Module):
    """Blocks that keep their input and eight tensors more of its size each, or compute these again."""

    def __init__(self, again: bool) -> None:
        super().__init__()
        self.again, self.inner = again, nn.ModuleList(nn.Linear(256, 256, bias=False) for _ in range(6))

    def forward(self, x):
        for linear in self.inner:
            x = checkpoint(self.block, linear, x, use_reentrant=False) if self.again else self.block(linear, x)
        return x

    @staticmethod
    def block(linear, x):
        y = linear(x)
        for _ in range(8):
            y = y.tanh()  # keeps its answer
        return x + y


def test_peak_holds_what_one_block_computes_again(runtime):
    """In units of one activation: six inputs and the eight tensors of the block at work, less than all that is kept."""
    unit, weights = 4 * 256 * 64, 6 * 4 * 256 * 256  # per sample; bytes of all gradients
    found = {}
    for again in (False, True):
        task = Given(Blocks(again), (64, 256), runtime=runtime)
        found[again] = costs.measure(task, task.model, first(task), "fp32", peak=True)
    assert found[True].bytes_per_sample == pytest.approx(6 * unit, rel=0.4)
    samples = 512  # where weights hardly count
    kept, recomputed = ((found[again].peak(samples) - weights) / unit / samples for again in (False, True))
    assert 6 * 8 <= kept <= 6 * 10 + 4
    assert 6 + 8 <= recomputed <= 6 + 8 + 6


def test_fake_tensors_are_counted_alike(runtime):
    real = Given(Attention(), (16, 32), runtime=runtime)
    counted = costs.passes(real, real.model, first(real), "bf16", compute=True)
    with FakeTensorMode():
        fake = Given(Attention(), (16, 32), runtime=runtime)
        batch = [torch.empty(16, 16, 32)]
        assert costs.passes(fake, fake.model, batch, "bf16", compute=True) == counted
