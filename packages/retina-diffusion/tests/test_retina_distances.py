"""Distances against torchmetrics, closed forms and identities; what the floor and the intervals promise."""

import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from retina_diffusion import distances
from shared_core.intervals import Estimate


class Flat(nn.Module):
    """The features are the image itself: what torchmetrics takes for a network."""

    num_features = 12

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.flatten(1).double()


def sets(seed: int, n: int, m: int, width: int = 12) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    mix = random.normal(size=(width, width)) / np.sqrt(width)
    return random.normal(size=(n, width)) @ mix, 0.3 + random.normal(size=(m, width)) * random.uniform(0.5, 1.5, width)


def of_torchmetrics(metric: FrechetInceptionDistance | KernelInceptionDistance, a: np.ndarray, b: np.ndarray) -> object:
    for features_NF, real in ((a, True), (b, False)):
        metric.update(torch.from_numpy(features_NF).view(-1, 3, 2, 2), real=real)
    return metric.compute()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 999), st.integers(20, 60), st.integers(20, 60))
def test_frechet_is_that_of_torchmetrics(seed: int, n: int, m: int) -> None:
    a, b = sets(seed, n, m)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric = FrechetInceptionDistance(feature=Flat(), normalize=True, input_img_size=(3, 2, 2)).double()
        metric.set_dtype(torch.float64)
        expected = of_torchmetrics(metric, a, b)
    assert distances.frechet(a, b) == pytest.approx(float(expected), rel=1e-6)  # type: ignore[arg-type]


def test_frechet_of_fewer_photographs_than_features() -> None:
    """Where covariances are singular: against the root of a matrix in the few dimensions that the rows span."""
    a, b = sets(1, 7, 9, width=40)
    basis = np.linalg.qr(np.concatenate([a, b]).T)[0]  # 16 dimensions hold all rows
    x, y = a @ basis, b @ basis
    ridge = 1e-12 * np.eye(16)
    root = scipy.linalg.sqrtm((np.cov(x.T) + ridge) @ (np.cov(y.T) + ridge))
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root.real)
    assert distances.frechet(a, b) == pytest.approx(expected, rel=1e-4)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 999), st.integers(3, 30), st.integers(3, 30))
def test_frechet_is_a_squared_distance(seed: int, n: int, m: int) -> None:
    a, b = sets(seed, n, m)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(12, 12)))[0]
    found = distances.frechet(a, b)
    assert found >= 0 and distances.frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert distances.frechet(b, a) == pytest.approx(found)
    assert distances.frechet(a @ rotation + 5, b @ rotation + 5) == pytest.approx(found)
    assert distances.frechet(a, a + 1) == pytest.approx(12)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 999), st.integers(10, 40))
def test_kernel_is_that_of_torchmetrics(seed: int, n: int) -> None:
    a, b = sets(seed, n, n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric = KernelInceptionDistance(feature=Flat(), subsets=1, subset_size=n, normalize=True)
        expected = of_torchmetrics(metric, a, b)[0]  # type: ignore[index]
    assert distances.kernel(a, b) == pytest.approx(float(expected), rel=1e-6)


def test_kernel_is_zero_on_average_for_one_population() -> None:
    random = np.random.default_rng(0)
    found = [distances.kernel(random.normal(size=(20, 5)), random.normal(size=(15, 5))) for _ in range(400)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 20


@pytest.mark.parametrize("interval", [distances.frechet_interval, distances.kernel_interval])
def test_intervals_are_as_wide_as_fresh_photographs_spread(interval: object) -> None:
    """The bootstrap's spread against that of fresh samples from the same populations."""
    fresh = np.random.default_rng(0)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        return fresh.normal(size=(80, 4)), 0.5 + fresh.normal(size=(80, 4))

    distance = distances.frechet if interval is distances.frechet_interval else distances.kernel
    values = np.array([distance(*draw()) for _ in range(200)])
    spread = np.quantile(values, 0.975) - np.quantile(values, 0.025)
    found = [interval(*draw(), seed=seed, n_resamples=100) for seed in range(10)]  # type: ignore[operator]
    assert all(one.low < one.value < one.high for one in found)
    assert np.mean([one.high - one.low for one in found]) == pytest.approx(spread, rel=0.3)


def test_the_floor_is_where_photographs_of_the_same_population_lie() -> None:
    """At the same size; others lie far above."""
    random = np.random.default_rng(0)
    found, floors = [], []
    for seed in range(60):
        real, alike = random.normal(size=(60, 6)), random.normal(size=(60, 6))
        result = distances.beside(alike, real, seed, interval=no_interval)
        assert result.size == 30
        found.append(result.generated.mean)
        floors.append(result.floor.mean)
    assert np.mean(found) == pytest.approx(np.mean(floors), rel=0.1)
    bad = distances.beside(1 + alike, real, seed=0)
    assert bad.generated.low > 2 * bad.floor.high and bad.estimate.low > bad.floor_estimate.high
    assert bad.estimate.low < bad.estimate.value == bad.generated.mean < bad.estimate.high
    assert 0 <= bad.floor_estimate.low < bad.floor_estimate.value == bad.floor.mean < bad.floor_estimate.high
    fewer = distances.beside(alike[:20], real[:20], seed=0, interval=no_interval)
    assert fewer.size == 10 and fewer.floor.mean > 1.5 * np.mean(floors)  # fewer photographs lie further apart


@pytest.mark.parametrize("distance", [distances.frechet, distances.kernel])
def test_images_that_share_masks_with_their_photographs_gain_nothing_by_it(distance: distances.Distance) -> None:
    """Whatever is copied of photograph n comes to stand against other photographs, as photograph n itself does: a
    generator of exact copies shows the floor, and never less."""
    real = np.random.default_rng(0).normal(size=(40, 6))
    copies = distances.beside(real, real, 0, distance, interval=no_interval)
    assert copies.generated == copies.floor
    shuffled = distances.beside(real[::-1], real, 0, distance, interval=no_interval)
    assert shuffled.generated.mean < 0.95 * copies.floor.mean  # as an image held against its own photograph would be
    near = real + 0.02 * np.random.default_rng(1).normal(size=real.shape)
    assert distances.beside(near, real, 0, distance, interval=no_interval).generated.mean > 0.95 * copies.floor.mean


def no_interval(a_NF: np.ndarray, b_NF: np.ndarray, seed: int) -> Estimate:
    return Estimate(0.0, 0.0, 0.0, len(a_NF), "none")


def test_draws_follow_their_seed() -> None:
    a, b = sets(0, 40, 40)
    assert distances.beside(a, b, seed=1) == distances.beside(a, b, seed=1) != distances.beside(a, b, seed=2)
    assert (
        distances.kernel_interval(a, b, 1) == distances.kernel_interval(a, b, 1) != distances.kernel_interval(a, b, 2)
    )


def test_what_cannot_be_compared_is_refused() -> None:
    a, b = sets(0, 10, 10)
    for first, second, message in ((a, b[:, :3], "same feature network"), (a[:1], b, "two"), (a * np.nan, b, "NaN")):
        with pytest.raises(ValueError, match=message):
            distances.frechet(first, second)
    with pytest.raises(ValueError, match="as many"):
        distances.beside(a[:9], b, 0)
    with pytest.raises(ValueError, match="four at least"):
        distances.beside(a[:3], b[:3], 0)
