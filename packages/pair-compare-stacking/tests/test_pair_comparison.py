"""Six heads that see what they are named after, their mixture, and what antisymmetry is worth."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pair_compare_stacking import comparison, model
from pair_compare_stacking.comparison import HEADS, Comparison, Head
from pair_compare_stacking.generator import digit_prior

D, HIDDEN = 12, 16
every_head = pytest.mark.parametrize("kind", HEADS)


def head(kind: str, seed: int = 0) -> Head:
    torch.manual_seed(seed)
    made = Head(kind, D, HIDDEN).double()
    torch.nn.init.normal_(made.out.weight)  # as if it had learned something
    return made


def features(seed: int, n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn((2, n, D), generator=generator, dtype=torch.float64)
    return a, b


@every_head
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_head_sees_what_its_name_says(kind: str, seed: int) -> None:
    """Against NumPy, from the head's own projections."""
    h, (a, b) = head(kind), features(seed)
    with torch.no_grad():
        seen = h.quantity(a, b).numpy()
        if hasattr(h, "project_a"):
            p, q = h.project_a(a).numpy(), h.project_b(b).numpy()
        a, b = a.numpy(), b.numpy()
    if kind == "difference":
        expected = np.abs(p - q)
    elif kind == "concatenation":
        expected = np.concatenate([a, b], axis=1)
    elif kind == "product":
        expected = p * q
    elif kind == "residual":
        expected = a - b
    else:
        p, q = (x.reshape(len(x), comparison.PARTS, -1) for x in (p, q))
        if kind == "cosine":
            expected = (p * q).sum(2) / np.linalg.norm(p, axis=2) / np.linalg.norm(q, axis=2)
        else:
            expected = np.linalg.norm(p - q, axis=2)
    np.testing.assert_allclose(seen, expected, atol=2e-3 if kind in ("l2", "cosine") else 1e-12)


def test_heads_differ() -> None:
    """The predecessor gave all six the same input."""
    a, b = features(0)
    seen = [head(kind).quantity(a, b) for kind in HEADS]
    for i, one in enumerate(seen):
        for other in seen[:i]:
            assert one.shape != other.shape or not torch.allclose(one, other)


@every_head
def test_head_alone_can_tell_which_is_larger(kind: str) -> None:
    """Features that hold the digit: a head that cannot answer stays at chance, as symmetric ones must."""
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(0)
    table = torch.randn(10, D)
    digits = torch.randint(0, 10, (2, 4000), generator=generator)
    digits = digits[:, digits[0] != digits[1]]
    y = (digits[0] > digits[1]).float()
    a, b = (table[part] + 0.1 * torch.randn((len(part), D), generator=generator) for part in digits)
    net = Comparison((kind,), D, 64, prior=None)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    z, nothing = torch.stack([a, b], dim=1), torch.zeros(len(y), 2, 10)
    for _ in range(300):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(net(z[:3000], nothing[:3000]), y[:3000])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        right = (net(z[3000:], nothing[3000:]) > 0) == (y[3000:] > 0)
    assert right.float().mean() > 0.8


@pytest.mark.parametrize("kind", [kind for kind in HEADS if kind not in ("concatenation", "residual")])
def test_symmetric_head_would_have_no_answer(kind: str) -> None:
    """Why two projections are learned: with one, h(a, b) - h(b, a) is zero, whatever the halves show."""
    h, (a, b) = head(kind), features(2)
    with torch.no_grad():
        assert (h(a, b) - h(b, a)).abs().min() > 1e-3
        h.project_b.weight.copy_(h.project_a.weight)
        assert not (h(a, b) - h(b, a)).any()


@settings(max_examples=20, deadline=None)
@given(st.sets(st.sampled_from(HEADS), min_size=1), st.booleans(), st.integers(0, 1000))
def test_antisymmetric_unless_told_otherwise(kinds: set[str], posteriors: bool, seed: int) -> None:
    torch.manual_seed(seed)
    prior = digit_prior(0.8) if posteriors else None
    z, digits = torch.randn(4, 2, D), torch.randn(4, 2, 10)
    for antisymmetric in (True, False):
        net = Comparison(tuple(kinds), D, HIDDEN, prior, antisymmetric)
        for term in net.terms:
            torch.nn.init.normal_(term.out.weight)
        forward, swapped = net(z, digits), net(z.flip(1), digits.flip(1))
        assert torch.equal(forward, -swapped) == antisymmetric


def test_mixture_is_a_softmax_that_learns() -> None:
    net = Comparison(HEADS, D, HIDDEN, None)
    assert sum(net.weights().values()) == pytest.approx(1) and set(net.weights()) == set(HEADS)
    with torch.no_grad():
        net.mixture[0] = 20.0
        for term in net.terms:
            torch.nn.init.normal_(term.out.weight)
        z = torch.randn(3, 2, D)
        a, b = z.unbind(1)
        alone = net.terms[0](a, b) - net.terms[0](b, a)
        torch.testing.assert_close(net(z, torch.zeros(3, 2, 10)), alone, rtol=1e-4, atol=1e-4)
    net(z, torch.zeros(3, 2, 10)).sum().backward()
    assert net.mixture.grad is not None and net.mixture.grad.any()


def test_fusion_changes_the_network() -> None:
    """The predecessor's --use_fusion changed nothing."""
    prior = digit_prior(0.8)
    torch.manual_seed(0)
    plain = model.PairModel(prior, (8,), (1,), 16, 8)
    fused = model.PairModel(prior, (8,), (1,), 16, 8, heads=HEADS)
    assert sum(p.numel() for p in fused.parameters()) > sum(p.numel() for p in plain.parameters())
    for net in (plain, fused):
        for term in net.comparison.terms:
            torch.nn.init.ones_(term.out.weight)
    fused.tower.load_state_dict(plain.tower.state_dict())
    fused.digit_head.load_state_dict(plain.digit_head.state_dict())
    x = torch.rand(3, 2, 28, 28)
    assert not torch.allclose(plain.eval()(x).logit, fused.eval()(x).logit)
