"""Distances between two sets of photographs, as features see them: Frechet (FID) and kernel (KID).

Neither has a meaning without a yardstick: both depend on the features, and the Frechet distance falls as samples grow
(Chong and Forsyth 2020, CVPR). So each comes beside what two halves of the real photographs show at the same size.

Shapes: N photographs, F features, B bootstrap resamples. Features are float64 arrays (N, F).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shared_core.intervals import Estimate, Floats

Distance = Callable[[Floats, Floats], float]
LEVEL = 0.95


def frechet(a_NF: ArrayLike, b_NF: ArrayLike) -> float:
    """The Frechet distance of two normal distributions fitted to features (Heusel et al. 2017, NeurIPS):

        |mean a - mean b|^2 + trace(A) + trace(B) - 2 trace((A B)^(1/2)),  A and B the covariances.

    With centred rows X and Y, A = X'X / (n - 1) and B = Y'Y / (m - 1), so that the eigenvalues of A B are the squared
    singular values of X Y' / sqrt((n - 1)(m - 1)). Their sum takes no root of a matrix, and fewer photographs than
    features, where A is singular, do no harm.

    Raises ValueError for fewer than two photographs, features of other numbers, or NaN.
    """
    a, b = _checked(a_NF, b_NF)
    everywhere = [np.ones(len(x)) for x in (a, b)]
    return _frechet(a, b, *everywhere)


def kernel(a_NF: ArrayLike, b_NF: ArrayLike, degree: int = 3) -> float:
    """The squared maximum mean discrepancy, without bias, of the kernel (x'y / F + 1)^degree (Binkowski et al. 2018,
    ICLR, "Demystifying MMD GANs", KID). It may be negative. Raises ValueError as `frechet` does.
    """
    a, b = _checked(a_NF, b_NF)
    return float(_Kernel(a, b, degree)(np.ones((1, len(a))), np.ones((1, len(b))))[0])


def kernel_of_subsets(
    a_NF: ArrayLike, b_NF: ArrayLike, seed: int, degree: int = 3, size: int = 100, subsets: int = 100
) -> tuple[float, float]:
    """Mean of `kernel` over random subsets, and its standard error, as papers on KID report it.

    The subsets overlap, so the error says what another draw of subsets would change, not what other photographs would:
    for that there is `kernel_interval`.

    Args:
        size: photographs of each subset, at most as many as there are.
    """
    a, b = _checked(a_NF, b_NF)
    size = min(size, len(a), len(b))
    if size < 2 or subsets < 2:
        raise ValueError(f"size {size}, subsets {subsets}: must be two at least")
    random = np.random.default_rng(seed)
    found = [
        kernel(a[random.permutation(len(a))[:size]], b[random.permutation(len(b))[:size]], degree)
        for _ in range(subsets)
    ]
    return float(np.mean(found)), float(np.std(found, ddof=1) / math.sqrt(subsets))


def frechet_interval(a_NF: ArrayLike, b_NF: ArrayLike, seed: int, n_resamples: int = 200) -> Estimate:
    """`frechet` with a bootstrap interval, both sets resampled.

    A resample repeats photographs and so shows a larger distance than the sample itself. That part, the mean of the
    deviations, is taken off: the interval tells the spread at this size of sample, not the distance of endless ones.
    """
    a, b = _checked(a_NF, b_NF)
    drawn = [_frechet(a, b, u, v) for u, v in _draws(len(a), len(b), n_resamples, seed)]
    found = _estimate(frechet(a, b), np.array(drawn), len(a))
    return replace(found, low=max(found.low, 0.0))  # NaN stays


def kernel_interval(a_NF: ArrayLike, b_NF: ArrayLike, seed: int, degree: int = 3, n_resamples: int = 1000) -> Estimate:
    """`kernel` with a bootstrap interval, both sets resampled; a photograph is never compared with itself."""
    a, b = _checked(a_NF, b_NF)
    statistic = _Kernel(a, b, degree)
    weights = list(_draws(len(a), len(b), n_resamples, seed))
    drawn = statistic(np.array([u for u, _ in weights]), np.array([v for _, v in weights]))
    return _estimate(kernel(a, b, degree), drawn, len(a))


@dataclass(frozen=True)
class Spread:
    """A distance over draws of the photographs: its mean, and the smallest and largest."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(float(np.mean(values)), min(values), max(values))


@dataclass(frozen=True)
class Beside:
    """Generated against real, beside real against real: both against the same halves, all sets of one size."""

    generated: Spread
    floor: Spread
    size: int  # photographs in each set
    draws: int


def floor(
    real_NF: ArrayLike, seed: int, distance: Distance = frechet, size: int | None = None, draws: int = 10
) -> Spread:
    """What two disjoint draws of the real photographs show: no generator can be expected to lie closer.

    Args:
        size: photographs in each draw, half of them by default.

    Raises:
        ValueError: two draws of that size are not to be had.
    """
    real = _features("real", real_NF)
    return Spread.of([distance(a, b) for a, b in _halves(real, size or len(real) // 2, draws, seed)])


def beside(
    generated_NF: ArrayLike, real_NF: ArrayLike, seed: int, distance: Distance = frechet, draws: int = 10
) -> Beside:
    """A distance and its floor at the same size, half of the real photographs or all generated ones if these are fewer.

    Each draw splits the real photographs; the one half is compared with the other, and with as many generated ones.
    """
    generated, real = _checked(generated_NF, real_NF)
    size, random = min(len(real) // 2, len(generated)), np.random.default_rng([seed, 1])
    found, between = [], []
    for a, b in _halves(real, size, draws, seed):
        between.append(distance(a, b))
        found.append(distance(generated[random.permutation(len(generated))[:size]], b))
    return Beside(Spread.of(found), Spread.of(between), size, draws)


def _halves(real: Floats, size: int, draws: int, seed: int) -> Iterator[tuple[Floats, Floats]]:
    if not 2 <= size <= len(real) // 2:
        raise ValueError(f"size: {size}; must be 2 to {len(real) // 2}, half of the real photographs")
    random = np.random.default_rng(seed)
    for _ in range(draws):
        rows = random.permutation(len(real))
        yield real[rows[:size]], real[rows[size : 2 * size]]


def _frechet(a: Floats, b: Floats, w_a: Floats, w_b: Floats) -> float:
    """Where each photograph counts as often as its weight says."""
    mean_a, mean_b = (w @ x / w.sum() for w, x in ((w_a, a), (w_b, b)))
    root_a, root_b = _root(a - mean_a, w_a), _root(b - mean_b, w_b)
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    return float(((mean_a - mean_b) ** 2).sum() + (root_a**2).sum() + (root_b**2).sum() - 2 * cross)


def _root(centred_NF: Floats, w_N: Floats) -> Floats:
    """Some R of at most F rows whose R'R is the covariance."""
    scaled = centred_NF * np.sqrt(w_N / (w_N.sum() - 1))[:, None]
    if scaled.shape[0] <= scaled.shape[1]:
        return scaled
    return np.linalg.qr(scaled, mode="r")


class _Kernel:
    """The discrepancy as a function of how often each photograph was drawn."""

    def __init__(self, a: Floats, b: Floats, degree: int) -> None:
        def values(x: Floats, y: Floats) -> Floats:
            return (x @ y.T / x.shape[1] + 1) ** degree

        self.within_a, self.within_b, self.between = values(a, a), values(b, b), values(a, b)
        for within in (self.within_a, self.within_b):
            np.fill_diagonal(within, 0.0)  # a photograph with itself, or with its own repetition, is no pair

    def __call__(self, u_BN: Floats, v_BN: Floats) -> Floats:
        def mean(w: Floats, within: Floats) -> Floats:
            return ((w @ within) * w).sum(axis=1) / (w.sum(axis=1) ** 2 - (w**2).sum(axis=1))

        across = ((u_BN @ self.between) * v_BN).sum(axis=1) / (u_BN.sum(axis=1) * v_BN.sum(axis=1))
        found: Floats = mean(u_BN, self.within_a) + mean(v_BN, self.within_b) - 2 * across
        return found


def _draws(n: int, m: int, n_resamples: int, seed: int) -> Iterator[tuple[Floats, Floats]]:
    """How often each photograph of the two sets is drawn, with replacement."""
    random = np.random.default_rng(seed)
    for _ in range(n_resamples):
        u, v = (np.bincount(random.integers(0, size, size), minlength=size).astype(float) for size in (n, m))
        yield u, v


def _estimate(value: float, drawn_B: Floats, n: int) -> Estimate:
    drawn_B = drawn_B[np.isfinite(drawn_B)]
    if len(drawn_B) < 2:
        return Estimate(value, math.nan, math.nan, n, "no interval")
    low, high = np.quantile(drawn_B - drawn_B.mean(), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, value + float(low), value + float(high), n, f"bootstrap {100 * LEVEL:g} %")


def _features(name: str, x_NF: ArrayLike) -> Floats:
    x = np.asarray(x_NF, dtype=float)
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(
            f"{name}: features of shape {x.shape}; must be (photographs, features), two photographs at least"
        )
    if not np.isfinite(x).all():
        raise ValueError(f"{name}: features hold NaN or infinite values; check the feature network's input")
    return x


def _checked(a_NF: ArrayLike, b_NF: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = _features("first set", a_NF), _features("second set", b_NF)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features: {a.shape[1]} and {b.shape[1]} of them; both sets need the same feature network")
    return a, b
