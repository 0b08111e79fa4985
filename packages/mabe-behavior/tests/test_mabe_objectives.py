"""Losses against loops over every label, PyTorch's own and scikit-learn's; windows that are mixed and moved."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from mabe_behavior.objectives import binary, probability, soft_f1, softmax

SEEDS = st.integers(0, 2**31)


def drawn(seed: int, outputs: int, shape: tuple[int, int, int] = (3, 7, 4)) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits in double precision, and labels of all three states."""
    source = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(*shape[:2], outputs, generator=source, dtype=torch.float64)
    return logits.requires_grad_(), torch.randint(-1, 2, shape, generator=source).to(torch.int8)


@settings(deadline=None)
@given(SEEDS, st.floats(0, 0.5), st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.booleans())
def test_binary_is_a_mean_over_what_is_annotated(seed: int, smoothing: float, gamma: float, weighted: bool) -> None:
    logits, y = drawn(seed, 4)
    weights = torch.tensor([1.0, 2.0, 5.0, 0.5]) if weighted else None
    losses = []
    for index in torch.cartesian_prod(torch.arange(3), torch.arange(7), torch.arange(4)).tolist():
        truth, p = float(y[tuple(index)]), 1 / (1 + math.exp(-float(logits[tuple(index)])))
        if truth < 0:
            continue
        soft = (1 - smoothing / 2) * truth + smoothing / 2 * (1 - truth)
        weight = float(weights[index[2]]) if weighted else 1.0
        entropy = -weight * soft * math.log(p) - (1 - soft) * math.log(1 - p)
        losses.append((1 - p if truth else p) ** gamma * entropy)
    expected = math.fsum(losses) / max(1, len(losses))
    assert binary(logits, y, weights, smoothing, gamma).item() == pytest.approx(expected, rel=1e-6)


def test_binary_of_what_is_all_annotated_is_pytorchs() -> None:
    logits, y = drawn(0, 4)
    weights = torch.tensor([1.0, 2.0, 5.0, 0.5], dtype=torch.float64)
    expected = functional.binary_cross_entropy_with_logits(logits, y.abs().double(), pos_weight=weights)
    assert binary(logits, y.abs(), weights).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_certain_answers_have_finite_slopes(gamma: float) -> None:
    logits = torch.tensor([[[200.0, -200.0, 200.0, -200.0]]], requires_grad=True)
    binary(logits, torch.tensor([[[1, 0, 0, 1]]]), focal_gamma=gamma).backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 0, 2] > 0 > logits.grad[0, 0, 3]


@settings(deadline=None)
@given(SEEDS, st.floats(0, 0.5), st.booleans(), st.permutations(range(4)))
def test_softmax_is_one_over_what_is_annotated(seed: int, smoothing: float, weighted: bool, rank: list[int]) -> None:
    logits, y = drawn(seed, 5)
    weights = torch.tensor([0.5, 1.0, 2.0, 5.0, 3.0]) if weighted else torch.ones(5)
    total = count = 0.0
    for said, labels in zip(logits.flatten(0, 1).tolist(), y.flatten(0, 1).tolist(), strict=True):
        there = [0, *(1 + k for k in range(4) if labels[k] >= 0)]
        if there == [0]:
            continue
        done = [k for k in range(4) if labels[k] == 1]
        truth = 1 + min(done, key=lambda k: rank[k]) if done else 0
        log_sum = math.log(math.fsum(math.exp(said[c]) for c in there))
        for c in there:
            wanted = (1 - smoothing) * (c == truth) + smoothing / len(there)
            total -= float(weights[c]) * wanted * (said[c] - log_sum)
        count += float(weights[truth])
    found = softmax(logits, y, weights if weighted else None, smoothing, torch.tensor(rank) / 10)
    assert found.item() == pytest.approx(total / max(count, 1e-9), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, [0.5, 10.0, 15.0, 15.0, 1.0]])
def test_softmax_of_what_is_all_annotated_is_pytorchs(smoothing: float, weights: list[float] | None) -> None:
    torch.manual_seed(0)
    logits, truth = torch.randn(2, 30, 5, dtype=torch.float64), torch.randint(0, 5, (2, 30))
    y = functional.one_hot(truth, 5)[..., 1:].to(torch.int8)
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    expected = functional.cross_entropy(logits.flatten(0, 1), truth.flatten(), weight, label_smoothing=smoothing)
    assert softmax(logits, y, weight, smoothing).item() == pytest.approx(expected.item())


@settings(deadline=None)
@given(SEEDS, st.floats(0, 0.5))
def test_what_is_not_annotated_gets_no_gradient(seed: int, smoothing: float) -> None:
    for loss in (
        lambda logits, y: binary(logits, y, smoothing=smoothing, focal_gamma=2.0),
        lambda logits, y: softmax(logits, y, smoothing=smoothing),
        lambda logits, y: soft_f1(logits.sigmoid(), y),
    ):
        is_softmax = loss(*drawn_for(loss, seed)) is not None and _outputs(loss) == 5
        logits, y = drawn_for(loss, seed)
        loss(logits, y).backward()
        of_actions = logits.grad[..., 1:] if is_softmax else logits.grad
        assert logits.grad.isfinite().all()
        assert not of_actions[y < 0].any()


def _outputs(loss) -> int:
    try:
        loss(*drawn(0, 4))
    except ValueError:
        return 5
    return 4


def drawn_for(loss, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    return drawn(seed, _outputs(loss))


def test_probabilities_of_a_softmax_are_shared_by_what_is_looked_for() -> None:
    logits = torch.randn(2, 5, 4)
    every, some = torch.ones(3, dtype=torch.bool), torch.tensor([True, False, True])
    assert torch.allclose(probability(logits, every, "softmax"), logits.softmax(dim=-1)[..., 1:])
    found = probability(logits, some, "softmax")
    assert (found[..., 1] == 0).all()
    assert torch.allclose(found[..., [0, 2]], logits[..., [0, 1, 3]].softmax(dim=-1)[..., 1:])
    assert torch.equal(probability(logits, some, "binary"), logits.sigmoid())
