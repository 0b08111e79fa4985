"""Dice and average precision against scikit-learn; intervals by repetition; what is unknown does not count."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score

from retina_diffusion import fidelity


def data(seed: int, n: int = 12, side: int = 10, skill: float = 2.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Probabilities, coverage (n, 3, side, side), known (n, 3): probabilities follow coverage and have ties."""
    draw = torch.Generator().manual_seed(seed)
    coverage = (torch.rand(n, 3, side, side, generator=draw) - 0.6).clamp(min=0) / 0.4
    probability = torch.sigmoid(skill * coverage - 1.5 + torch.randn(coverage.shape, generator=draw))
    return (50 * probability).round() / 50, coverage, torch.rand(n, 3, generator=draw) < 0.7


HALF = torch.full((3,), 0.5)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 999), st.floats(0, 4))
def test_scores_are_those_of_sklearn_over_all_pixels_that_are_known(seed: int, skill: float) -> None:
    probability, coverage, known = data(seed, skill=skill)
    for m, score in enumerate(fidelity.fidelity(probability, coverage, known, HALF, seed=0, n_resamples=0)):
        truth = (coverage[known[:, m], m] >= fidelity.TRUTH).flatten().numpy()
        found = probability[known[:, m], m].flatten().numpy()
        assert score.average_precision.value == pytest.approx(average_precision_score(truth, found), abs=1e-9)
        assert score.dice.value == pytest.approx(f1_score(truth, found >= 0.5), abs=1e-9)
        assert score.prevalence == pytest.approx(truth.mean())
        assert score.dice.n == known[:, m].sum()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 999))
def test_binned_curves_are_those_of_repeated_images(seed: int) -> None:
    """What the bootstrap relies on: weights are repetitions, and bins change hardly anything."""
    probability, coverage, _ = data(seed, n=8, side=24)
    probability = probability + 1e-3 * torch.rand(probability.shape, generator=torch.Generator().manual_seed(seed))
    seen = fidelity.looked_at(probability[:, 0], coverage[:, 0], 0.5)
    weights = np.random.default_rng(seed).integers(0, 4, 8) + np.eye(8, dtype=int)[0]
    rows = np.repeat(np.arange(8), weights)
    truth, found = (coverage[rows, 0] >= fidelity.TRUTH).flatten().numpy(), probability[rows, 0].flatten().numpy()
    once = weights[None].astype(float)
    assert seen.binned(once)[0] == pytest.approx(average_precision_score(truth, found), abs=5e-3)
    assert seen.dice(once)[0] == pytest.approx(f1_score(truth, found >= 0.5), abs=1e-9)


def test_intervals_are_as_wide_as_fresh_images_spread() -> None:
    known = torch.ones(30, 3, dtype=torch.bool)
    strength = torch.rand(200, 30, 1, 1, 1, generator=torch.Generator().manual_seed(0))  # images differ in difficulty
    found = []
    for seed in range(60):
        probability, coverage, _ = data(seed, n=30, side=6)
        probability = torch.where(strength[seed] < 0.5, probability, probability.flip(3))
        found.append(fidelity.fidelity(probability, coverage, known, HALF, seed, n_resamples=100)[0])
    for name in ("dice", "average_precision"):
        scores = [getattr(one, name) for one in found]
        spread = 2 * 1.96 * np.std([score.value for score in scores])
        assert np.mean([score.high - score.low for score in scores]) == pytest.approx(spread, rel=0.35)


def test_images_of_one_mask_are_no_independent_evidence() -> None:
    probability, coverage, known = (x.repeat_interleave(4, dim=0) for x in data(6, n=10))
    alone = fidelity.fidelity(probability, coverage, known, HALF, seed=0)
    grouped = fidelity.fidelity(probability, coverage, known, HALF, seed=0, groups=np.arange(40) // 4)
    for a, b in zip(alone, grouped, strict=True):
        assert b.dice.value == a.dice.value and b.dice.high - b.dice.low > 1.4 * (a.dice.high - a.dice.low)


def test_thresholds_are_the_best_ones() -> None:
    probability, coverage, known = data(7, n=6)
    found = fidelity.thresholds(probability, coverage, known)
    for m in range(3):
        truth = (coverage[known[:, m], m] >= fidelity.TRUTH).flatten().numpy()
        scores = probability[known[:, m], m].flatten().numpy()
        best = max(f1_score(truth, scores >= level) for level in np.unique(scores))
        assert f1_score(truth, scores >= found[m].item()) == pytest.approx(best, abs=1e-9)


def test_what_nobody_looked_for_or_found_is_undefined() -> None:
    probability, coverage, known = data(8)
    known[:, 0] = False
    coverage[:, 1] = 0
    unsearched, absent, there = fidelity.fidelity(probability, coverage, known, HALF, seed=0)
    assert np.isnan(unsearched.dice.value) and "searched" in str(unsearched.average_precision)
    assert absent.dice.value == 0 and np.isnan(absent.average_precision.value)
    assert there.average_precision.value > there.prevalence
    assert fidelity.thresholds(probability, coverage, known)[:2].tolist() == [0.5, 0.5]


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    probability, coverage, known = data(9)
    with pytest.raises(ValueError, match="must be the same"):
        fidelity.fidelity(probability[:5], coverage, known, HALF, seed=0)
    with pytest.raises(ValueError, match="thresholds"):
        fidelity.fidelity(probability, coverage, known, HALF[:2], seed=0)
