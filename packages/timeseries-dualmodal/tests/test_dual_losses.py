"""What training minimises."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from timeseries_dualmodal import losses
from timeseries_dualmodal.augment import augment
from timeseries_dualmodal.model import Answer
from timeseries_dualmodal.model_config import Augment, Loss


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 3, 4, generator=generator), torch.randint(4, (6,), generator=generator)


def test_plain_loss_is_pytorchs() -> None:
    logits, y = batch()
    ours = losses.classification(logits, y, torch.ones(6, 3), Loss(label_smoothing=0.1))
    theirs = F.cross_entropy(logits.flatten(0, 1), y.repeat_interleave(3), label_smoothing=0.1)
    assert torch.allclose(ours, theirs)


def test_focal_loss_without_gamma_is_cross_entropy_and_follows_its_formula() -> None:
    logits, y = batch()
    plain = losses.classification(logits, y, torch.ones(6, 3), Loss())
    assert torch.allclose(losses.classification(logits, y, torch.ones(6, 3), Loss(kind="focal", gamma=0)), plain)
    p = logits.double().softmax(-1).numpy()[np.arange(6), :, y.numpy()]
    expected = (-((1 - p) ** 2) * np.log(p)).mean()
    assert losses.classification(logits, y, torch.ones(6, 3), Loss(kind="focal")).item() == pytest.approx(
        expected, rel=1e-5
    )


def test_class_weights_reach_the_loss() -> None:
    """The predecessor computed them and used them nowhere."""
    logits, y = batch()
    length = torch.full((6, 3), 2)
    logits.requires_grad_()
    plain, weighted = (losses.class_weights(torch.tensor([100, 10, 10, 1]), power) for power in (0.0, 1.0))
    gradients = [
        torch.autograd.grad(losses.total(Answer(logits), y, length, 4, weight_C, Loss())[0], logits)[0]
        for weight_C in (weighted, plain)
    ]
    ratio = (gradients[0] / gradients[1])[:, 0, 0]
    assert torch.allclose(ratio, weighted[y], rtol=1e-4)
    assert weighted[3] > 50 * weighted[0]


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=8), st.floats(0, 1))
def test_class_weights_keep_the_mean_over_samples(counts: list[int], power: float) -> None:
    counts_C = torch.tensor(counts)
    weight_C = losses.class_weights(counts_C, power)
    assert ((weight_C.double() * counts_C).sum() / counts_C.sum()).item() == pytest.approx(1, rel=1e-4)
    ratio = (counts_C[0] / counts_C[1]).item() ** -power
    assert (weight_C[0] / weight_C[1]).item() == pytest.approx(ratio, rel=1e-3)


def test_earlier_prefixes_weigh_more() -> None:
    weight = losses.earliness_weights(torch.tensor([[1, 10, 20]]), 20, 3.0)[0]
    raw = torch.tensor([1 + 3 * 19 / 20, 1 + 3 / 2, 1.0])
    assert torch.allclose(weight, raw / raw.mean())
    assert torch.equal(losses.earliness_weights(torch.tensor([[1, 20]]), 20, 0.0), torch.ones(1, 2))


def test_alignment_prefers_the_matching_series() -> None:
    words = F.normalize(torch.randn(8, 2, 3, 16), dim=-1)
    low = losses.alignment(words, words, torch.tensor(0.07).log())
    high = losses.alignment(words, words.roll(1, dims=0), torch.tensor(0.07).log())
    assert low < 0.1 < high
    # of a batch without any relation: the chance of the right one
    same = losses.alignment(torch.ones(8, 1, 1, 4), torch.ones(8, 1, 1, 4), torch.tensor(0.0))
    assert same.item() == pytest.approx(np.log(8), rel=1e-5)


@given(st.integers(0, 5))
def test_a_shift_moves_values_and_leaves_gaps(shift: int) -> None:
    x = torch.arange(60.0).view(2, 3, 10)
    moved = augment(x, torch.ones(3), Augment(shift=shift))
    for series, before in zip(moved, x, strict=True):
        known = ~series[0].isnan()
        by = int((series[0][known][0] - before[0, 0]).item()) - int(known.nonzero()[0])
        assert abs(by) <= shift and known.sum() == 10 - abs(by)
        assert torch.equal(series[:, known], before[:, known.nonzero().squeeze(1) + by])


def test_augmentation_keeps_a_variable_and_off_changes_nothing() -> None:
    x = torch.randn(64, 3, 5)
    assert torch.equal(augment(x, torch.ones(3), Augment()), x)
    lost = augment(x, torch.ones(3), Augment(drop_variables=0.99))
    assert (~lost.isnan()).any(dim=(1, 2)).all()
    assert lost.isnan().any()
    gone = augment(x, torch.ones(3), Augment(drop_steps=0.9)).isnan()
    assert torch.equal(gone, gone[:, :1].expand_as(gone))  # a step goes missing in all variables
    noisy = augment(x, torch.tensor([1.0, 2.0, 0.0]), Augment(noise=0.1)) - x
    assert noisy[:, 2].abs().max() == 0
    assert (noisy[:, 1].std() / noisy[:, 0].std()).item() == pytest.approx(2, rel=0.2)
