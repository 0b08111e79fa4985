"""Losses against loops over every label, PyTorch's own and scikit-learn's; windows that are mixed and moved."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score
from torch.nn import functional

from mabe_behavior.objectives import UNKNOWN, binary, exclusive, mixup, probability, soft_f1, softmax

SEEDS = st.integers(0, 2**31)


def drawn(seed: int, outputs: int, shape: tuple[int, int, int] = (3, 7, 4)) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits in double precision, and labels of all three states."""
    source = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(*shape[:2], outputs, generator=source, dtype=torch.float64)
    return logits.requires_grad_(), torch.randint(-1, 2, shape, generator=source).to(torch.int8)


@settings(deadline=None)
@given(SEEDS, st.floats(0, 0.5), st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_binary_is_a_mean_over_what_is_annotated(seed: int, smoothing: float, gamma: float) -> None:
    logits, y = drawn(seed, 4)
    losses = []
    for index in torch.cartesian_prod(torch.arange(3), torch.arange(7), torch.arange(4)).tolist():
        truth, p = float(y[tuple(index)]), 1 / (1 + math.exp(-logits[tuple(index)].item()))
        if truth < 0:
            continue
        soft = (1 - smoothing / 2) * truth + smoothing / 2 * (1 - truth)
        entropy = -soft * math.log(p) - (1 - soft) * math.log(1 - p)
        losses.append((1 - p if truth else p) ** gamma * entropy)
    expected = math.fsum(losses) / max(1, len(losses))
    assert binary(logits, y, smoothing, gamma).item() == pytest.approx(expected, rel=1e-6)


def test_binary_of_what_is_all_annotated_is_pytorchs() -> None:
    logits, y = drawn(0, 4)
    expected = functional.binary_cross_entropy_with_logits(logits, y.abs().double())
    assert binary(logits, y.abs()).item() == pytest.approx(expected.item())


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


# how many outputs each takes for four actions, and the loss
LOSSES = {
    "binary": (4, lambda logits, y: binary(logits, y)),
    "focal": (4, lambda logits, y: binary(logits, y, 0.1, 2.0)),
    "softmax": (5, lambda logits, y: softmax(logits, y)),
    "smooth softmax": (5, lambda logits, y: softmax(logits, y, torch.tensor([0.5, 1.0, 5.0, 8.0, 8.0]), 0.1)),
    "soft F1": (4, lambda logits, y: soft_f1(logits.sigmoid(), y)),
}


@pytest.mark.parametrize("name", LOSSES)
@settings(deadline=None)
@given(SEEDS)
def test_what_is_not_annotated_gets_no_gradient(name: str, seed: int) -> None:
    outputs, loss = LOSSES[name]
    logits, y = drawn(seed, outputs)
    y[0] = UNKNOWN  # a window of which nothing is known
    loss(logits, y).backward()
    assert logits.grad.isfinite().all()
    assert not logits.grad[..., -4:][y < 0].any()
    assert not logits.grad[0].any()  # other's neither


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_annotated_is_a_loss_of_0_that_can_be_minimised(name: str) -> None:
    outputs, loss = LOSSES[name]
    logits, y = drawn(0, outputs)
    value = loss(logits, torch.full_like(y, UNKNOWN))
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("name", LOSSES)
@settings(deadline=None)
@given(SEEDS)
def test_frames_count_alike_wherever_they_are(name: str, seed: int) -> None:
    """In any order of windows and frames, and whatever frames pad the windows."""
    outputs, loss = LOSSES[name]
    logits, y = drawn(seed, outputs)
    expected = loss(logits, y).item()
    order = torch.randperm(21, generator=torch.Generator().manual_seed(seed))
    shuffled = [part.flatten(0, 1)[order].unflatten(0, (7, 3)) for part in (logits, y)]
    assert loss(*shuffled).item() == pytest.approx(expected)
    padded = torch.cat((logits, torch.randn(3, 2, outputs)), 1), functional.pad(y, (0, 0, 0, 2), value=UNKNOWN)
    assert loss(*padded).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_summed_in_single(name: str) -> None:
    outputs, loss = LOSSES[name]
    logits, y = drawn(1, outputs, (2, 400, 4))
    half = logits.detach().bfloat16()
    assert loss(half, y).dtype == torch.float32
    assert loss(half, y).item() == pytest.approx(loss(half.double(), y).item(), rel=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_labels_may_be_of_any_type(name: str) -> None:
    outputs, loss = LOSSES[name]
    logits, y = drawn(2, outputs)
    for kind in (torch.int64, torch.float32, torch.float64):
        assert loss(logits, y.to(kind)).item() == pytest.approx(loss(logits, y).item())


def test_unlikely_shapes_are_refused() -> None:
    logits, y = drawn(0, 4)
    with pytest.raises(ValueError, match=r"logits.*\(3, 7, 5\)"):
        softmax(logits, y)
    with pytest.raises(ValueError, match="logits"):
        binary(logits[:, :6], y)
    with pytest.raises(ValueError, match="p: "):
        soft_f1(logits[0], y[0])


@settings(deadline=None)
@given(SEEDS)
def test_soft_f1_of_certain_answers_is_the_f1(seed: int) -> None:
    logits, y = drawn(seed, 4)
    said = logits.detach() > 0
    scores = []
    for k in range(4):
        there = y[..., k] >= 0
        if there.any():
            scores.append(f1_score(y[..., k][there], said[..., k][there], zero_division=0.0))
    found = soft_f1(said.double(), y).item()
    assert found == pytest.approx(1 - sum(scores) / max(1, len(scores)) if scores else 0.0)


def test_soft_f1_leaves_out_actions_that_nobody_looked_for() -> None:
    y = torch.tensor([[[1, -1], [0, -1]]])
    p = torch.tensor([[[0.5, 0.9], [0.5, 0.9]]])
    assert soft_f1(p, y).item() == pytest.approx(1 - 2 * 0.5 / 2)


def test_the_rarest_action_is_the_truth_and_the_rest_is_other() -> None:
    y = torch.tensor([[[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, -1, 1]]])
    shares = torch.tensor([0.3, 0.1, 0.2])
    assert exclusive(y, shares).argmax(-1).tolist() == [[2, 3, 0, 3]]
    assert exclusive(y).argmax(-1).tolist() == [[1, 3, 0, 1]]


@settings(deadline=None)
@given(SEEDS, st.floats(0, 1), st.permutations(range(4)))
def test_mixed_labels_are_a_distribution(seed: int, lam: float, rank: list[int]) -> None:
    y = drawn(seed, 4)[1].abs()
    _, mixed = mixup(torch.zeros(3, 7, 1, dtype=torch.float64), y, torch.tensor([1, 2, 0]), lam)
    found = exclusive(mixed, torch.tensor(rank))
    assert found.sum(-1).numpy() == pytest.approx(1)
    assert (found >= 0).all()
    # of windows with one action at a time, it is the mixture of theirs
    single = functional.one_hot(y.argmax(-1), 4)
    _, mixed = mixup(torch.zeros(3, 7, 1, dtype=torch.float64), single, torch.tensor([1, 2, 0]), lam)
    of_each = exclusive(single, torch.tensor(rank)).double()
    expected = lam * of_each + (1 - lam) * of_each[[1, 2, 0]]
    assert exclusive(mixed, torch.tensor(rank)).numpy() == pytest.approx(expected.numpy(), abs=1e-6)


@settings(deadline=None)
@given(SEEDS, st.floats(0, 1))
def test_the_loss_of_mixed_labels_is_the_mixture_of_losses(seed: int, lam: float) -> None:
    """Cross-entropy is linear in the labels (where all is annotated, and one action is done at a time)."""
    logits, y = drawn(seed, 4)
    y = functional.one_hot(y.abs().argmax(-1), 4)
    order = torch.tensor([1, 2, 0])
    _, mixed = mixup(torch.zeros(3, 7, 1, dtype=torch.float64), y, order, lam)
    for loss, said in ((binary, logits), (softmax, drawn(seed, 5)[0])):
        expected = lam * loss(said, y).item() + (1 - lam) * loss(said, y[order]).item()
        assert loss(said, mixed).item() == pytest.approx(expected)


def test_mixup_knows_only_what_both_windows_tell() -> None:
    x = torch.tensor([[[1.0, 2.0]], [[3.0, torch.nan]]])
    y = torch.tensor([[[1, -1, 0]], [[0, 1, 0]]], dtype=torch.int8)
    mixed_x, mixed_y = mixup(x, y, torch.tensor([1, 0]), torch.tensor([0.75, 0.5]))
    assert mixed_x[..., 0].flatten().tolist() == [1.5, 2.0]
    assert mixed_x[..., 1].isnan().all()
    assert mixed_y.tolist() == [[[0.75, -1, 0]], [[0.5, -1, 0]]]


def test_probabilities_of_a_softmax_are_shared_by_what_is_looked_for() -> None:
    logits = torch.randn(2, 5, 4)
    every, some = torch.ones(3, dtype=torch.bool), torch.tensor([True, False, True])
    assert torch.allclose(probability(logits, every, "softmax"), logits.softmax(dim=-1)[..., 1:])
    found = probability(logits, some, "softmax")
    assert (found[..., 1] == 0).all()
    assert torch.allclose(found[..., [0, 2]], logits[..., [0, 1, 3]].softmax(dim=-1)[..., 1:])
    assert torch.equal(probability(logits, some, "binary"), logits.sigmoid())
