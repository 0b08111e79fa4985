"""Distances between two sets of photographs, as features see them: Frechet (FID) and kernel (KID).

Neither has a meaning without a yardstick: both depend on the features, and the Frechet distance falls as samples grow
(Chong and Forsyth 2020, CVPR). So each comes beside what two halves of the real photographs show at the same size
(`beside`).

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
    """A distance over draws of the photographs: its mean, and the smallest and largest. These are a range, no interval:
    draws overlap."""

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
    estimate: Estimate  # generated.mean, with a bootstrap interval of one half of the photographs
    floor_estimate: Estimate
    size: int  # photographs in each set
    draws: int


Interval = Callable[[Floats, Floats, int], Estimate]


def beside(
    generated_NF: ArrayLike,
    real_NF: ArrayLike,
    seed: int,
    distance: Distance = frechet,
    interval: Interval = frechet_interval,
    draws: int = 10,
) -> Beside:
    """A distance and what two disjoint halves of real photographs show: no generator can be expected to lie closer.

    Image n was generated like photograph n, of its mask and text. Each draw splits the photographs in halves a and b,
    and compares real b with real a, and with the images like a: these know as little of b as the photographs of a do.

    Args:
        interval: of one such comparison; it is that of the first draw, moved to the mean over the draws.

    Raises:
        ValueError: as many images as photographs are needed, and four of them at least.
    """
    generated, real = _checked(generated_NF, real_NF)
    size, random = len(real) // 2, np.random.default_rng(seed)
    if len(generated) != len(real) or size < 2:
        raise ValueError(f"photographs: {len(generated)} generated like {len(real)}; must be as many, four at least")
    halves = [(rows[:size], rows[size : 2 * size]) for rows in (random.permutation(len(real)) for _ in range(draws))]
    spreads, estimates = [], []
    for like in (generated, real):
        spread = Spread.of([distance(like[a], real[b]) for a, b in halves])
        one = interval(like[halves[0][0]], real[halves[0][1]], seed)
        gap, least = spread.mean - one.value, 0.0 if distance is frechet else -math.inf
        spreads.append(spread)
        low, method = max(one.low + gap, least), f"{one.method} of one half"  # NaN stays
        estimates.append(replace(one, value=spread.mean, low=low, high=one.high + gap, method=method))
    return Beside(*spreads, *estimates, size, draws)


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
            with np.errstate(invalid="ignore"):  # a resample of one photograph alone has no pair: NaN
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
