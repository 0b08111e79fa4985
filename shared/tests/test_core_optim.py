"""Schedules and optimizers against PyTorch's own."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from torch import nn

from shared_core import optim, settings
from shared_core.ema import AveragedWeights


def rates(schedule: optim.Schedule, peak: float, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
    optimizer.param_groups[0]["initial_lr"] = peak
    return [schedule.apply([optimizer], step) for step in range(steps)]


def torch_rates(make: type, peak: float, steps: int, **options: object) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler = make(optimizer, **options)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@limits(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.floats(1e-5, 1.0), st.floats(0, 1))
def test_cosine_is_pytorchs(steps: int, peak: float, share: float) -> None:
    ours = rates(optim.Schedule(settings.Scheduler(min_lr=share * peak), steps), peak, steps)
    theirs = torch_rates(torch.optim.lr_scheduler.CosineAnnealingLR, peak, steps, T_max=steps, eta_min=share * peak)
    assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-12)


def test_linear_is_pytorchs() -> None:
    ours = rates(optim.Schedule(settings.Scheduler(name="linear"), 20), 0.1, 20)
    make = torch.optim.lr_scheduler.LinearLR
    assert ours == pytest.approx(torch_rates(make, 0.1, 20, start_factor=1.0, end_factor=1e-12, total_iters=20))


def test_warmup_rises_to_the_peak_and_ends_at_the_floor() -> None:
    ours = rates(optim.Schedule(settings.Scheduler(warmup_steps=4, min_lr=0.01), 104), 1.0, 105)
    assert ours[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert ours[104] == pytest.approx(0.01)
    assert all(later <= earlier for earlier, later in itertools.pairwise(ours[4:]))


def test_plateau_is_pytorchs() -> None:
    values = [1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]
    schedule = optim.Schedule(settings.Scheduler(name="plateau", patience=2, factor=0.5), 100)
    theirs = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, mode="max", factor=0.5, patience=2, threshold=0)
    for value in values:
        schedule.on_evaluation(value)
        plateau.step(value)
        assert rates(schedule, 1.0, 1) == [theirs.param_groups[0]["lr"]]
    restored = optim.Schedule(schedule.wanted, 100)
    restored.load_state_dict(schedule.state_dict())
    assert restored.factor(0) == schedule.factor(0) < 1


def test_every_parameter_is_in_one_group_and_vectors_do_not_decay() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    for name in ("adamw", "muon"):
        made = optim.build(settings.Optimizer(name=name, weight_decay=0.1), model)
        groups = [group for optimizer in made for group in optimizer.param_groups]
        found = [id(p) for g in groups for p in g["params"]]
        assert sorted(found) == sorted(id(p) for p in model.parameters())
        assert all(p.ndim < 2 for g in groups if g["weight_decay"] == 0 for p in g["params"])
        assert all(p.ndim >= 2 for g in groups if g["weight_decay"] > 0 for p in g["params"])


@limits(max_examples=20, deadline=None)
@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 100))
def test_orthogonalised_keeps_the_singular_vectors(rows: int, columns: int, seed: int) -> None:
    """Newton-Schulz moves the singular values near 1 and leaves the singular vectors: U^T X V is nearly diagonal."""
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ optim.orthogonalise(matrix) @ vh.T
    well = s > 0.05 * s[0]  # tiny ones need more iterations
    values = inner.diagonal()[well]
    assert bool(((values > 0.5) & (values < 1.3)).all()), values
    assert float((inner - torch.diag(inner.diagonal())).abs().max()) < 1e-3


def test_muon_is_pytorchs_on_matrices() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Parameter(torch.randn(8, 6)), None
    theirs = nn.Parameter(ours.detach().clone())
    mine = optim.Muon([ours], lr=0.02, momentum=0.95, weight_decay=0.1)
    other = torch.optim.Muon([theirs], lr=0.02, momentum=0.95, weight_decay=0.1, nesterov=True)
    for _ in range(5):
        gradient = torch.randn(8, 6)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        other.step()
    torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=0)  # theirs iterates in bfloat16


def test_muon_learns_convolutions() -> None:
    torch.manual_seed(0)
    model, x = nn.Conv2d(2, 5, 3), torch.randn(16, 2, 8, 8)
    target = nn.Conv2d(2, 5, 3)(x).detach()
    optimizer = optim.Muon([model.weight], lr=0.02, momentum=0.9, weight_decay=0.0)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (model(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_average_is_the_recurrence() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    averaged = AveragedWeights(model.state_dict(), 0.9)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for step in range(1, 30):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
        averaged.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * tensor
    for name, tensor in averaged.tensors.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)
    assert math.isfinite(float(averaged.tensors["0.weight"].sum()))
