"""MiniRocket: features of time series from a fixed set of small convolution kernels.

Dempster, Schmidt and Webb 2021 (KDD, "MiniRocket: a very fast (almost) deterministic transform for time series
classification", arXiv:2012.08791), with the multivariate form of the authors' code: a kernel looks at the sum of a few
variables drawn at random. Each kernel has length 9, six weights of -1 and three of 2; a feature is the share of
positions at which a convolution exceeds a bias (PPV), and biases are quantiles of the convolution of training series.

Values are taken as they are. Z-normalising each series would discard its level, which tells crops apart.

Shapes: N series, V variables, T steps, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

LENGTH = 9  # of a kernel; a shorter series has no features
TRIPLES = tuple(combinations(range(LENGTH), 3))  # the 84 kernels: where the weight is 2
MOST_DILATIONS = 32
GOLDEN = (np.sqrt(5) + 1) / 2  # its multiples, modulo 1, are spread evenly: the quantiles


@dataclass(frozen=True)
class Kernel:
    """One kernel at one dilation, and the features taken from it."""

    triple: tuple[int, int, int]
    dilation: int
    padded: bool  # convolves beyond both ends, where zeros are assumed, so that no position is left out
    variables: np.ndarray  # the indices of those that are added up
    biases: np.ndarray  # one per feature

    def convolve(self, x_NVT: np.ndarray) -> np.ndarray:
        """(N, T), or fewer positions where `padded` is false."""
        summed_NT = x_NVT[:, self.variables].sum(axis=1)
        reach = LENGTH // 2 * self.dilation
        if self.padded:
            summed_NT = np.pad(summed_NT, ((0, 0), (reach, reach)))
        positions = summed_NT.shape[1] - 2 * reach
        taps = [summed_NT[:, k * self.dilation :][:, :positions] for k in range(LENGTH)]
        return 3 * sum(taps[k] for k in self.triple) - sum(taps)

    def features(self, x_NVT: np.ndarray) -> np.ndarray:
        """(N, len(biases)), each in 0..1."""
        convolved = self.convolve(x_NVT)
        return np.stack([(convolved > bias).mean(axis=1) for bias in self.biases], axis=1)


def fit(x_NVT: np.ndarray, features: int, seed: int) -> tuple[Kernel, ...]:
    """Kernels with about `features` features in all, and their biases from training series without gaps.

    The same arguments give the same kernels. Raises ValueError for series shorter than `LENGTH`.
    """
    n, v, t = x_NVT.shape
    if t < LENGTH:
        raise ValueError(f"{t} steps; kernels need {LENGTH} or more")
    rng = np.random.default_rng(seed)
    made: list[Kernel] = []
    drawn = 0
    for d, (dilation, count) in enumerate(_dilations(t, max(1, features // len(TRIPLES)))):
        for k, triple in enumerate(TRIPLES):
            variables = _some(v, rng)
            kernel = Kernel(triple, dilation, (d + k) % 2 == 0, variables, np.empty(0))
            row = rng.integers(n)
            quantiles = (np.arange(drawn + 1, drawn + count + 1) * GOLDEN) % 1
            biases = np.quantile(kernel.convolve(x_NVT[row : row + 1]), quantiles)
            made.append(Kernel(triple, dilation, kernel.padded, variables, biases))
            drawn += count
    return tuple(made)


def transform(kernels: tuple[Kernel, ...], x_NVT: np.ndarray) -> np.ndarray:
    """The features of series without gaps: (N, F)."""
    return np.concatenate([kernel.features(x_NVT) for kernel in kernels], axis=1)


def _dilations(steps: int, per_kernel: int) -> list[tuple[int, int]]:
    """Dilations up to those that just fit the series, evenly spaced in their logarithm, and the features of each."""
    most = np.log2((steps - 1) / (LENGTH - 1))
    spaced = np.logspace(0, most, min(per_kernel, MOST_DILATIONS), base=2).astype(int)
    dilations, counts = np.unique(spaced, return_counts=True)
    counts = counts * per_kernel // counts.sum()
    counts[0] += per_kernel - counts.sum()  # what rounding left over
    return [(int(dilation), int(count)) for dilation, count in zip(dilations, counts, strict=True)]


def _some(variables: int, rng: np.random.Generator) -> np.ndarray:
    """A random subset, whose size is evenly distributed in its logarithm and at most `LENGTH`."""
    size = int(2 ** rng.uniform(0, np.log2(min(variables, LENGTH) + 1)))
    return np.sort(rng.choice(variables, size, replace=False))
