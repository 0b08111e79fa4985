"""Confidence intervals: a number never comes without what it is worth.

Shapes: n samples, B bootstrap resamples. Weights `w_Bn` count how often each resample drew each sample; a statistic
that is a function of weights is computed for many resamples at once instead of once per resample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shared_core.errors import UserError

Floats = NDArray[np.float64]
_CHUNK = 4_000_000  # weights held at once: 32 MB


@dataclass(frozen=True)
class Estimate:
    """A number, its confidence interval, the samples it rests on and how the interval was made.

    An undefined number (precision where nothing was predicted positive) is NaN, and `method` says why.
    """

    value: float
    low: float
    high: float
    n: int
    method: str

    def __str__(self) -> str:
        if math.isnan(self.value):
            return self.method
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n}, {self.method})"

    def as_dict(self) -> dict[str, Any]:
        """For JSON: an undefined number is null."""
        return {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Estimate:
        """The inverse of `as_dict`; bounds that are absent are NaN."""
        value, low, high = (math.nan if data.get(key) is None else float(data[key]) for key in ("value", "low", "high"))
        return cls(value, low, high, int(data.get("n") or 0), str(data.get("method", "")))


def wilson(successes: int, n: int, level: float = 0.95) -> Estimate:
    """A proportion with Wilson's score interval (Wilson 1927, JASA 22:209), which holds up near 0 and 1.

    Raises:
        UserError: n is 0, or successes lie outside 0..n.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise UserError(f"{successes} successes out of {n} is no proportion; is the split empty?")
    z, p = NormalDist().inv_cdf((1 + level) / 2), successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # rounding must not put a bound on the wrong side of the value
    low, high = max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))
    return Estimate(p, low, high, int(n), f"Wilson {_percent(level)}")


def bootstrap(
    statistic: Callable[..., float],
    *arrays: ArrayLike,
    n_resamples: int = 1000,
    seed: int = 0,
    groups: ArrayLike | None = None,
    level: float = 0.95,
) -> Estimate:
    """`statistic(*arrays)` with a percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

    Args:
        arrays: each of length n; rows are resampled together.
        groups: length n. Where samples share a source (a video, a patient), whole groups are resampled instead,
            because samples of one group are no independent evidence.

    Resamples for which the statistic is NaN (one class only) do not count. Raises `UserError` for empty arrays, or
    arrays of different lengths.
    """
    columns = [np.asarray(array) for array in arrays]
    resamples = Resamples(same_length(*columns), n_resamples, seed, groups)
    samples = [statistic(*(column[rows] for column in columns)) for rows in resamples.rows()]
    return resamples.interval(float(statistic(*columns)), np.asarray(samples, dtype=float), level)


def difference(a: Estimate, b: Estimate) -> Estimate:
    """`b - a` of two independent estimates, with Newcombe's interval (1998, Statistics in Medicine 17:873, method 10).

    On the same test samples the estimates are positively correlated as a rule; the interval is then too wide, which
    errs on the safe side. `mcnemar` uses the pairing.
    """
    value = b.value - a.value
    low = value - math.hypot(b.value - b.low, a.high - a.value)
    high = value + math.hypot(b.high - b.value, a.value - a.low)
    return Estimate(value, low, high, min(a.n, b.n), "Newcombe")


def overlap(a: Estimate, b: Estimate) -> bool:
    """Whether two intervals share a point."""
    return a.low <= b.high and b.low <= a.high


class Resamples:
    """The resamples of one bootstrap, the same ones whether asked for as rows or as weights.

    `estimate` gives the interval that `bootstrap` gives, many times faster, for a statistic of weights.
    With `n_resamples=0` estimates come without an interval (NaN bounds), for where only the value is looked at.
    """

    def __init__(self, n: int, n_resamples: int = 1000, seed: int = 0, groups: ArrayLike | None = None) -> None:
        if n == 0:
            raise UserError("no samples to evaluate; is the split empty?")
        self.n, self.groups = n, groups
        self._seed, self._n_resamples = seed, n_resamples
        self._units, self._group_n = n, np.arange(n)
        if groups is not None:
            names, self._group_n = np.unique(np.asarray(groups), return_inverse=True)
            self._units = len(names)
            same_length(np.empty(n), self._group_n)

    def rows(self) -> Iterator[NDArray[np.int64]]:
        """Indices of the samples in each resample; with groups, their number varies."""
        order = np.argsort(self._group_n, kind="stable")
        members = np.split(order, np.flatnonzero(np.diff(self._group_n[order])) + 1)
        for units in self._draws():
            yield units if self.groups is None else np.concatenate([members[unit] for unit in units])

    def weights(self) -> Iterator[Floats]:
        """Chunks (b, n) of counts that together are (B, n)."""
        chunk: list[NDArray[np.int64]] = []
        for units in self._draws():
            count = np.bincount(units, minlength=self._units)
            chunk.append(count if self.groups is None else count[self._group_n])
            if len(chunk) * self.n >= _CHUNK:
                yield np.asarray(chunk, dtype=float)
                chunk = []
        if chunk:
            yield np.asarray(chunk, dtype=float)

    def estimate(self, statistic: Callable[[Floats], Floats], level: float = 0.95, basic: bool = False) -> Estimate:
        """The estimate of a statistic that maps weights (b, n) to values (b,); `basic` as in `interval`."""
        value = float(statistic(np.ones((1, self.n)))[0])
        chunks = [statistic(w_Bn) for w_Bn in self.weights()]
        return self.interval(value, np.concatenate([np.empty(0), *chunks]), level, basic)

    def interval(self, value: float, samples: Floats, level: float = 0.95, basic: bool = False) -> Estimate:
        """`value` with the percentiles of its resampled `samples` (B,), NaN ones left out.

        `basic` reflects the percentiles at the value (Davison and Hinkley 1997, 5.2.1), for statistics that resampling
        biases upwards. The interval is widened to contain the value where it would not.
        """
        if math.isnan(value):
            return undefined("no value for these samples")
        samples = samples[~np.isnan(samples)]
        if not len(samples):
            return Estimate(value, math.nan, math.nan, self.n, "no interval")
        low, high = (float(bound) for bound in np.quantile(samples, [(1 - level) / 2, (1 + level) / 2]))
        if basic:
            low, high = 2 * value - high, 2 * value - low
        over = "" if self.groups is None else f" over {self._units} groups"
        method = f"{'basic ' if basic else ''}bootstrap {_percent(level)}{over}"
        return Estimate(value, min(value, low), max(value, high), self.n, method)

    def _draws(self) -> Iterator[NDArray[np.int64]]:
        generator = np.random.default_rng(self._seed)
        for _ in range(self._n_resamples):
            yield generator.integers(0, self._units, self._units)


def undefined(why: str) -> Estimate:
    """What has no value on these samples: it prints as the reason."""
    return Estimate(math.nan, math.nan, math.nan, 0, f"undefined: {why}")


def same_length(*columns: NDArray[Any]) -> int:
    """The common first dimension of arrays. Raises `UserError` where there is none, or it is 0."""
    sizes = [column.shape for column in columns]
    if any(len(size) == 0 or size[0] != sizes[0][0] for size in sizes):
        shapes = ", ".join(map(str, sizes))
        raise UserError(f"arrays of different lengths: {shapes}; they must describe the same samples")
    if sizes[0][0] == 0:
        raise UserError("no samples to evaluate; is the split empty?")
    return int(sizes[0][0])


def _percent(level: float) -> str:
    return f"{100 * level:g} %"
