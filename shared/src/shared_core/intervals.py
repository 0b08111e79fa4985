"""Confidence intervals: a number never comes without what it is worth.

Shapes: n samples, B bootstrap resamples. Weights `w_Bn` count how often each resample drew each sample; a statistic
that is a function of weights, and does not change when all are multiplied by a number, is computed for many resamples
at once instead of once per resample.

Samples that share a source are no independent evidence. `groups` says which do, everywhere with the same meaning:

- None: every sample is independent.
- (n,): the source of each sample (its video, its patient).
- (n, 2): both sources of each sample, where samples are pairs of members of one pool. Samples depend on each other that
  share a source, whichever side it is on; the two of one sample differ.

`unit` is what the sources are called where an interval says what it is over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
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
        interval = "" if math.isnan(self.low) else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.value:.3f}{interval} (n={self.n}, {self.method})"

    def as_dict(self) -> dict[str, Any]:
        """For JSON: an undefined number is null."""
        return {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Estimate:
        """The inverse of `as_dict`; bounds that are absent are NaN."""
        value, low, high = (math.nan if data.get(key) is None else float(data[key]) for key in ("value", "low", "high"))
        return cls(value, low, high, int(data.get("n") or 0), str(data.get("method", "")))


def wilson(successes: int, n: int, level: float = 0.95, design_effect: float = 1.0) -> Estimate:
    """A proportion with Wilson's score interval (Wilson 1927, JASA 22:209), which holds up near 0 and 1.

    Args:
        design_effect: how many times larger the variance is than that of n independent samples (Kish 1965). They are
            then worth `n / design_effect` independent ones, which takes the place of n in the interval (Dean and Pagano
            2015, Journal of Survey Statistics and Methodology 3:484); the estimate's n stays.

    Raises:
        UserError: n is 0, or successes lie outside 0..n.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise UserError(f"{successes} successes out of {n} is no proportion; is the split empty?")
    z, p, worth = NormalDist().inv_cdf((1 + level) / 2), successes / n, n / design_effect
    centre = (p + z * z / (2 * worth)) / (1 + z * z / worth)
    half = z / (1 + z * z / worth) * math.sqrt(p * (1 - p) / worth + z * z / (4 * worth * worth))
    # rounding must not put a bound on the wrong side of the value
    low, high = max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))
    return Estimate(p, low, high, int(n), f"Wilson {_percent(level)}")


def proportion(hits: ArrayLike, groups: ArrayLike | None = None, unit: str = "groups", level: float = 0.95) -> Estimate:
    """The share of true `hits` (n,) with Wilson's interval; `groups` widen it by the design effect that they cause.

    Where all samples agree the design effect cannot be seen: then every group counts as if its samples were copies of
    one, so that a perfect score on a few groups is not taken for certainty.
    """
    hit = np.asarray(hits, dtype=bool)
    n, k = same_length(hit), int(hit.sum())
    if groups is None:
        return wilson(k, n, level)
    sources = Sources(n, groups, unit)
    effect = n * sources.ways / sources.units if k in (0, n) else sources.design_effect(hit.astype(float))
    return replace(wilson(k, n, level, effect), method=f"Wilson {_percent(level)}{sources.over}")


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    groups: ArrayLike | None = None,
    unit: str = "groups",
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Mean of `b - a`, each (n,), of two ways to treat the same samples, with a bootstrap interval."""
    gap = np.asarray(b, dtype=float) - np.asarray(a, dtype=float)
    resamples = Resamples(same_length(gap), n_resamples, seed, groups, unit)
    return resamples.estimate(Ratio(gap, np.ones(len(gap))), level)


def bootstrap(
    statistic: Callable[..., float],
    *arrays: ArrayLike,
    n_resamples: int = 1000,
    seed: int = 0,
    groups: ArrayLike | None = None,
    unit: str = "groups",
    level: float = 0.95,
) -> Estimate:
    """`statistic(*arrays)` with a percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

    Args:
        arrays: each of length n; rows are resampled together.

    Resamples for which the statistic is NaN (one class only) do not count. Raises `UserError` for empty arrays, or
    arrays of different lengths.
    """
    columns = [np.asarray(array) for array in arrays]
    n = same_length(*columns)

    def of_weights(w_Bn: Floats) -> Floats:
        drawn = (np.repeat(np.arange(n), w_n.astype(int)) for w_n in w_Bn)
        return np.array([statistic(*(column[rows] for column in columns)) for rows in drawn], dtype=float)

    return Resamples(n, n_resamples, seed, groups, unit).estimate(of_weights, level)


class Ratio:
    """The statistic "sum of `numerator` over sum of `denominator`", each (n,), as a function of weights (b, n)."""

    def __init__(self, numerator: ArrayLike, denominator: ArrayLike) -> None:
        self.parts_n2 = np.stack([np.asarray(numerator, float), np.asarray(denominator, float)], axis=1)

    def __call__(self, w_Bn: Floats) -> Floats:
        return self._divide(w_Bn @ self.parts_n2)

    def of_sources(self, count_Bu: Floats, columns: tuple[NDArray[Any], ...]) -> Floats:
        """The same where each sample weighs what its sources (their numbers: (n,) in each column) were drawn together.

        Sums over the samples of a source are the same in every resample, so that none needs a weight per sample."""
        units = count_Bu.shape[1]
        sums_u2 = np.stack(
            [sum(np.bincount(column, part, units) for column in columns) for part in self.parts_n2.T], axis=1
        )
        return self._divide(count_Bu @ sums_u2)

    @staticmethod
    def _divide(sums_B2: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            values: Floats = sums_B2[:, 0] / sums_B2[:, 1]
        return values


def difference(a: Estimate, b: Estimate) -> Estimate:
    """`b - a` of two independent estimates, with Newcombe's interval (1998, Statistics in Medicine 17:873, method 10).

    On the same test samples the estimates are positively correlated as a rule; the interval is then too wide, which
    errs on the safe side. `paired_difference` uses the pairing.
    """
    value = b.value - a.value
    low = value - math.hypot(b.value - b.low, a.high - a.value)
    high = value + math.hypot(b.high - b.value, a.value - a.low)
    return Estimate(value, low, high, min(a.n, b.n), "Newcombe")


def overlap(a: Estimate, b: Estimate) -> bool:
    """Whether two intervals share a point."""
    return a.low <= b.high and b.low <= a.high


class Sources:
    """Which samples share a source: `groups` as this module understands them, checked and numbered."""

    def __init__(self, n: int, groups: ArrayLike | None, unit: str) -> None:
        if n == 0:
            raise UserError("no samples to evaluate; is the split empty?")
        sources = np.arange(n) if groups is None else np.asarray(groups)
        same_length(np.empty(n), sources)
        if sources.shape not in ((n,), (n, 2)):
            raise UserError(f"groups: shape {sources.shape}; must be ({n},) or ({n}, 2), one or two sources per sample")
        names, numbers = np.unique(sources, return_inverse=True)
        self.columns = tuple(numbers.reshape(n, -1).T)  # the number of the first source of each sample, of the second
        self.units, self.ways = len(names), len(self.columns)
        self.over = "" if groups is None else f" over {self.units:,} {unit}"  # what an interval is over, in words
        self.by_pair: Sources | None = None  # samples with the same two sources, as one group
        if self.ways == 2:
            low_n, high_n = np.sort(self.columns, axis=0)
            self.by_pair = Sources(n, low_n * self.units + high_n, unit)

    def design_effect(self, values: Floats) -> float:
        """Variance of the mean of `values` (n,) over that of independent samples (Kish 1965), 1 at least.

        The variance is the cluster-robust one, with two sources that of Aronow, Samii and Assenova (2015, Political
        Analysis 23:564): the sum over all pairs of samples that share a source of the product of their residuals.
        """
        residuals = values - values.mean()
        return max(1.0, self._products(residuals) / float(residuals @ residuals))

    def _products(self, residuals: Floats) -> float:
        sums = np.sum([np.bincount(column, residuals, self.units) for column in self.columns], axis=0)
        shared = float(sums @ sums)
        return shared if self.by_pair is None else shared - self.by_pair._products(residuals)  # that shared both: twice


class Resamples:
    """The resamples of one bootstrap, for statistics that are functions of weights.

    Sources are drawn with replacement, and each brings every sample it is a source of. With one source per sample this
    is the usual bootstrap of samples or of clusters.

    A sample with two sources comes in through either, so its weight is the sum of two draws. This halves the spread of
    a statistic that the sources determine, and would count what is peculiar to a sample twice. So the variance is taken
    as 4 times the one over sources less the one over samples, and the deviations over sources are stretched to it: the
    variance of `Sources.design_effect`, for any smooth statistic, but with an error of 5 % of the width for 1000
    resamples. Where it comes out below that of independent samples, the deviations over samples are taken. The better
    known product of two weights (Owen and Eckles 2012, Annals of Applied Statistics 6:895) makes intervals too wide by
    a factor of up to sqrt(3) where the sources matter little, or recur little.

    With `n_resamples=0` estimates come without an interval (NaN bounds), for where only the value is looked at.
    """

    def __init__(
        self,
        n: int,
        n_resamples: int = 1000,
        seed: int = 0,
        groups: ArrayLike | None = None,
        unit: str = "groups",
    ) -> None:
        self.n, self._n_resamples, self._seed = n, n_resamples, seed
        self._sources = Sources(n, groups, unit)

    def estimate(self, statistic: Callable[[Floats], Floats], level: float = 0.95) -> Estimate:
        """The estimate of a statistic that maps weights (b, n) to values (b,), with a percentile interval.

        The interval is widened to contain the value where it would not.
        """
        value = self._value(statistic)
        if math.isnan(value):
            return undefined("no value for these samples")
        deviations = self._deviations(statistic)
        if not len(deviations):
            return Estimate(value, math.nan, math.nan, self.n, "no interval")
        low, high = (float(bound) for bound in np.quantile(deviations, [(1 - level) / 2, (1 + level) / 2]))
        method = f"bootstrap {_percent(level)}{self._sources.over}"
        return Estimate(value, value + min(0.0, low), value + max(0.0, high), self.n, method)

    def _value(self, statistic: Callable[[Floats], Floats]) -> float:
        return float(statistic(np.ones((1, self.n)))[0])

    def _deviations(self, statistic: Callable[[Floats], Floats]) -> Floats:
        """How the estimate lies about the truth: resampled values less the value, NaN ones left out."""
        over_sources = self._resampled(statistic, self._sources)
        if self._sources.by_pair is None or not len(over_sources):
            return over_sources
        over_samples = self._resampled(statistic, self._sources.by_pair)
        variance = 4 * over_sources.var() - over_samples.var()
        if not variance > over_samples.var():
            return over_samples
        return over_sources * math.sqrt(variance / over_sources.var())

    def _resampled(self, statistic: Callable[[Floats], Floats], sources: Sources) -> Floats:
        if isinstance(statistic, Ratio):
            values = [statistic.of_sources(count_Bu, sources.columns) for count_Bu in self._counts(sources)]
        else:
            values = [statistic(_weights(count_Bu, sources.columns)) for count_Bu in self._counts(sources)]
        deviations: Floats = np.concatenate([np.empty(0), *values]) - self._value(statistic)
        return deviations[~np.isnan(deviations)]

    def _counts(self, sources: Sources) -> Iterator[Floats]:
        """Chunks (b, u) of how often each source was drawn, that together are (B, u)."""
        generator = np.random.default_rng(self._seed)
        size, units = max(1, _CHUNK // max(self.n, sources.units)), sources.units
        for start in range(0, self._n_resamples, size):
            draws = (generator.integers(0, units, units) for _ in range(min(size, self._n_resamples - start)))
            yield np.array([np.bincount(draw, minlength=units) for draw in draws], dtype=float)


def _weights(count_Bu: Floats, columns: tuple[NDArray[Any], ...]) -> Floats:
    """Weights (b, n) of samples: how often their sources were drawn, together."""
    w_Bn: Floats = count_Bu[:, columns[0]]
    for column in columns[1:]:
        w_Bn += count_Bu[:, column]
    return w_Bn


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
