"""Images that follow their masks are told from images that follow none, in one number that is what its parts say."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score

from retina_diffusion import fidelity, following

HALF = torch.full((2,), 0.5)
EACH = 3  # images of each mask


def masks(seed: int, count: int, side: int = 12) -> torch.Tensor:
    """(count, 2, side, side) with a square of each class, somewhere."""
    draw = np.random.default_rng(seed)
    found = torch.zeros(count, 2, side, side)
    for mask in found:
        for channel, size in zip(mask, (4, 2), strict=True):
            row, column = draw.integers(0, side - size + 1, 2)
            channel[row : row + size, column : column + size] = 1
    return found


def seen(coverage: torch.Tensor, seed: int, skill: float) -> torch.Tensor:
    """Probabilities that follow masks the better the higher the skill; 0: not at all."""
    noise = torch.randn(coverage.shape, generator=torch.Generator().manual_seed(seed))
    return torch.sigmoid(skill * (coverage - 0.5) + noise)


def follow(coverage: torch.Tensor, generated: torch.Tensor, real: torch.Tensor, **more: object) -> following.Following:
    each = len(generated) // len(coverage)
    mask_N = np.repeat(np.arange(len(coverage)), each)
    known = more.pop("known", torch.ones(len(coverage), 2, dtype=torch.bool))
    assert isinstance(known, torch.Tensor)
    return following.follow(generated, real, coverage, known, mask_N, HALF, seed=0, n_resamples=200)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=30), st.integers(0, 999))
def test_no_image_is_held_against_its_own_mask(given_masks: list[int], seed: int) -> None:
    mask_N = np.array(given_masks)
    if len(set(given_masks)) < 2:
        mask_N[0] = 10
    others = following.others(mask_N, seed)
    assert (mask_N[others] != mask_N).all()
    for mask in set(mask_N):
        assert len(set(mask_N[others][mask_N == mask])) == 1  # the same other one for all images of a mask
    assert len(set(mask_N[others])) == len(set(mask_N))  # and every mask serves


def test_images_that_follow_beat_shuffled_masks_and_blind_ones_do_not() -> None:
    coverage = masks(0, 24)
    repeated, real = coverage.repeat_interleave(EACH, dim=0), seen(coverage, 1, 5.0)
    good, blind = (follow(coverage, seen(repeated, 2, skill), real) for skill in (4.0, 0.0))
    for measure in ("dice", "average_precision"):
        assert getattr(good.gain, measure).low > 0.2
        assert getattr(good.share, measure).value > 0.7
        gain = getattr(blind.gain, measure)
        assert gain.low < 0.02 and gain.high > -0.02 and abs(gain.value) < 0.05
        assert getattr(blind.share, measure).high < 0.5
        assert getattr(good.real, measure) == getattr(blind.real, measure)


def test_images_of_one_mask_for_all_gain_nothing() -> None:
    """A generator that draws the same eye whatever it is asked for, however well its classes can be seen."""
    coverage = masks(0, 24)
    same = seen(coverage[:1].expand(len(coverage), -1, -1, -1), 3, 8.0)
    found = follow(coverage, same, seen(coverage, 1, 8.0))
    assert found.generated.dice.value == pytest.approx(found.shuffled.dice.value, abs=0.05)
    assert found.gain.dice.low < 0.05 and found.share.dice.high < 0.6


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 999))
def test_the_mean_is_that_of_the_classes_where_they_are_known(seed: int) -> None:
    """Photographs may each know another class. Against scikit-learn, and the table of classes beside it."""
    coverage = masks(seed, 10)
    known = torch.zeros(10, 2, dtype=torch.bool)
    known[:6, 0] = known[5:, 1] = True
    repeated = coverage.repeat_interleave(EACH, dim=0)
    generated, real = seen(repeated, seed + 1, 2.0), seen(coverage, seed + 2, 4.0)
    found = follow(coverage, generated, real, known=known)
    precision, dice = [], []
    for m in range(2):
        rows = known[:, m].repeat_interleave(EACH).numpy()
        truth, p = repeated[rows, m].flatten().numpy(), generated[rows, m].flatten().numpy()
        precision.append(average_precision_score(truth, p))
        dice.append(f1_score(truth, p >= 0.5))
    assert found.generated.average_precision.value == pytest.approx(np.mean(precision), abs=1e-9)
    assert found.generated.dice.value == pytest.approx(np.mean(dice), abs=1e-9)
    table = fidelity.fidelity(generated, repeated, known.repeat_interleave(EACH, dim=0), HALF, 0, n_resamples=0)
    of_table = np.mean([one.average_precision.value for one in table])
    assert found.generated.average_precision.value == pytest.approx(of_table, abs=1e-12)
    own = np.mean([one.average_precision.value for one in fidelity.fidelity(real, coverage, known, HALF, 0)])
    assert found.share.average_precision.value == pytest.approx(of_table / own)


def test_one_mask_is_too_few() -> None:
    coverage, known = masks(0, 4), torch.ones(4, 2, dtype=torch.bool)
    known[1:, 1] = False
    with pytest.raises(ValueError, match="masks: 1 of class 1; two at least"):
        follow(coverage, coverage, coverage, known=known)
