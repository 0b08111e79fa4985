"""The comparison's identities, and that it learns."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from pair_compare_stacking import baseline, blocks, losses, model
from pair_compare_stacking.generator import digit_prior
from pair_compare_stacking.training_config import Loss

PRIOR = digit_prior(0.8)


def small(dropout: float = 0.0) -> model.PairModel:
    torch.manual_seed(0)
    net = model.PairModel(PRIOR, (8, 16), (1, 1), feat_dim=16, hidden=8, dropout=dropout)
    torch.nn.init.normal_(net.comparison.terms[0].out.weight)  # as if it had learned something
    return net


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(0, 1000))
def test_swapping_the_halves_flips_the_sign_exactly(n: int, seed: int) -> None:
    net = small().eval()
    x = torch.rand(n, 2, 28, 28, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        forward, swapped = net(x), net(x.flip(1))
        features = torch.randn(n, 2, 16)
        digits = torch.randn(n, 2, 10)
        f, g = net.comparison(features, digits), net.comparison(features.flip(1), digits.flip(1))
    assert torch.equal(f, -g)
    torch.testing.assert_close(forward.logit, -swapped.logit, rtol=1e-4, atol=1e-5)
    same = torch.stack([features[:, 0], features[:, 0]], dim=1)
    assert not net.comparison(same, torch.stack([digits[:, 0]] * 2, dim=1)).any()  # equal halves: no opinion


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_comparison_without_its_learned_part_is_bayes_rule(seed: int) -> None:
    """Against the plain sum over all digit pairs, with the symmetrised prior."""
    net = small().eval()
    torch.nn.init.zeros_(net.comparison.terms[0].out.weight)
    digits = 3 * torch.randn(5, 2, 10, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        logit = net.comparison(torch.zeros(5, 2, 16), digits).double()
    left, right = torch.softmax(digits.double(), dim=-1).numpy().transpose(1, 0, 2)
    expected = baseline.probability_left_larger(left, right, (PRIOR + PRIOR.T) / 2)
    np.testing.assert_allclose(torch.sigmoid(logit).numpy(), expected, atol=1e-6)


def test_prior_is_worth_something() -> None:
    """A half that is 5 or 9 beside a certain 6: far pairs are rare, so it is a 5."""
    digits = torch.full((1, 2, 10), -20.0)
    digits[0, 0, [5, 9]] = 0.0
    digits[0, 1, 6] = 0.0
    with torch.no_grad():
        net = small()
        torch.nn.init.zeros_(net.comparison.terms[0].out.weight)
        assert float(net.comparison(torch.zeros(1, 2, 16), digits)) < -1


def test_loss_is_lower_for_the_truth() -> None:
    net = small().eval()
    prediction = net(torch.rand(4, 2, 28, 28))
    y = (prediction.logit > 0).long()
    digits = prediction.digit_logits.argmax(dim=-1)
    right, _ = losses.total(prediction, y, digits, Loss())
    wrong, _ = losses.total(prediction, 1 - y, (digits + 1) % 10, Loss())
    assert right < wrong


def test_shortcut_is_a_strided_convolution_without_the_stride() -> None:
    """The stride itself would corrupt memory, which a test can only notice by luck: see `blocks.Residual.forward`."""
    block = blocks.BasicBlock(4, 8, stride=2).double().eval()
    assert block.shortcut.stride == (1, 1)
    for size in (7, 14):
        x = torch.rand(2, 4, size, size, dtype=torch.float64)
        activated = functional.relu(block.norms[0](x))
        shortcut = functional.conv2d(activated, block.shortcut.weight, stride=2)
        expected = shortcut + block.convolutions[1](functional.relu(block.norms[1](block.convolutions[0](activated))))
        torch.testing.assert_close(block(x), expected)


def test_gradient_reaches_every_parameter() -> None:
    net = small(dropout=0.1)
    y, digits = torch.randint(0, 2, (8,)), torch.randint(0, 10, (8, 2))
    total, _ = losses.total(net(torch.rand(8, 2, 28, 28)), y, digits, Loss())
    total.backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
