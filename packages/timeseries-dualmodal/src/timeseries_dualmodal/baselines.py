"""The simple methods beside the model: each sees only the first steps of a series, and is fitted for that length.

What they read are the plain values. Gaps are filled causally: by the last value before, and where there is none by the
mean of that step over the training rows.

Shapes: N series, V variables, T steps, L lengths (numbers of steps seen), K classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from shared_core.errors import UserError
from timeseries_dualmodal import kernels
from timeseries_dualmodal.series import forward_filled

TREES = 300
ROUNDS = 150  # of boosting
WORDS = {
    "logistic_regression": "logistic regression on standardised values",
    "random_forest": f"random forest of {TREES} trees",
    "hist_gradient_boosting": f"histogram gradient boosting, {ROUNDS} rounds",
    "minirocket_ridge": "MiniRocket-style kernels and ridge regression",
}
NAMES = tuple(WORDS)
# MiniRocket's authors take 9,996. On prefixes of 9 to 37 steps most of those are near copies of each other, and the
# time of the ridge regression grows with the square of their number.
KERNEL_FEATURES = 1_008
PENALTIES = np.logspace(-3, 3, 7)  # of the ridge regression: the range that MiniRocket's authors search


class Classifier(Protocol):
    """What scikit-learn's classifiers have in common."""

    classes_: np.ndarray

    def fit(self, x: np.ndarray, y: np.ndarray) -> object: ...

    def predict_proba(self, x: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Baseline:
    """A classifier of prefixes of one length; made by `fit`."""

    name: str
    length: int
    classes: int
    means_VT: np.ndarray  # of the training rows, for leading gaps; T is the length
    classifier: Classifier

    def proba(self, x_NVT: np.ndarray) -> np.ndarray:
        """Probabilities (N, K) from the first `length` steps; a class without training rows gets 0.

        Raises ValueError for series with fewer steps.
        """
        p_NK = np.zeros((len(x_NVT), self.classes))
        if len(x_NVT):
            p_NK[:, self.classifier.classes_] = self.classifier.predict_proba(self._values(x_NVT))
        return p_NK

    def _values(self, x_NVT: np.ndarray) -> np.ndarray:
        return fill(_prefix(x_NVT, self.length), self.means_VT)


def fit(name: str, x_NVT: np.ndarray, y: np.ndarray, length: int, seed: int, classes: int) -> Baseline:
    """Fit one of `NAMES` to the first `length` steps of training series.

    Training rows weigh such that every class counts the same.

    Args:
        x_NVT: NaN where a value is missing.
        y: (N,) in 0..classes-1.

    Raises:
        UserError: training rows of fewer than two classes.
        ValueError: an unknown name, or a length that the series do not have.
    """
    from threadpoolctl import threadpool_limits

    if name not in NAMES:
        raise ValueError(f"baseline {name!r}: must be one of {', '.join(NAMES)}")
    if len(np.unique(y)) < 2:
        raise UserError("baselines: the training rows hold fewer than two classes; check --data.label and the split")
    prefix_NVT = _prefix(x_NVT, length)
    means_VT = step_means(prefix_NVT)
    classifier = _classifier(name, seed)
    # boosting asks its threads for many small pieces of work; waking them takes longer than one needs for all of it
    with threadpool_limits(1, user_api="openmp"):
        classifier.fit(fill(prefix_NVT, means_VT), y)
    return Baseline(name, length, classes, means_VT, classifier)


@dataclass(frozen=True)
class Baselines:
    """One method, fitted for several lengths."""

    name: str
    by_length: tuple[Baseline, ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(baseline.length for baseline in self.by_length)

    def proba(self, x_NVT: np.ndarray) -> np.ndarray:
        """Probabilities after each length: (N, L, K)."""
        return np.stack([baseline.proba(x_NVT) for baseline in self.by_length], axis=1)


def fit_all(
    names: Sequence[str], x_NVT: np.ndarray, y: np.ndarray, lengths: Sequence[int], seed: int, classes: int
) -> dict[str, Baselines]:
    """Each of some methods, fitted as `fit` does for each length; several lengths at once, one on each core."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = {
            name: pool.map(lambda length, name=name: fit(name, x_NVT, y, length, seed, classes), lengths)
            for name in names
        }
        return {name: Baselines(name, tuple(of_name)) for name, of_name in made.items()}


def step_means(x_NVT: np.ndarray) -> np.ndarray:
    """Mean (V, T) of every step after forward filling; a step no row has a value for gets the variable's, or 0."""
    filled_NVT = forward_filled(x_NVT)
    there_NVT = ~np.isnan(filled_NVT)
    sums_VT, counts_VT = np.where(there_NVT, filled_NVT, 0.0).sum(axis=0), there_NVT.sum(axis=0)
    of_variable_V1 = sums_VT.sum(axis=1, keepdims=True) / np.maximum(counts_VT.sum(axis=1, keepdims=True), 1)
    return np.where(counts_VT > 0, sums_VT / np.maximum(counts_VT, 1), of_variable_V1)


def fill(x_NVT: np.ndarray, means_VT: np.ndarray) -> np.ndarray:
    """Gaps filled by the last value before, leading ones by `means_VT`: float64 (N, V, T) without NaN."""
    filled_NVT = forward_filled(x_NVT)
    return np.where(np.isnan(filled_NVT), means_VT, filled_NVT)


def _prefix(x_NVT: np.ndarray, length: int) -> np.ndarray:
    if not 1 <= length <= x_NVT.shape[2]:
        raise ValueError(f"length {length}: the series have 1..{x_NVT.shape[2]} steps")
    return x_NVT[:, :, :length]


def _classifier(name: str, seed: int) -> Classifier:
    """One that takes (N, V, T) without gaps."""
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    if name == "minirocket_ridge":
        return KernelRidge(seed)
    last = {
        "logistic_regression": lambda: make_pipeline(
            StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced")
        ),
        "random_forest": lambda: RandomForestClassifier(TREES, class_weight="balanced", n_jobs=-1, random_state=seed),
        "hist_gradient_boosting": lambda: HistGradientBoostingClassifier(
            max_iter=ROUNDS, class_weight="balanced", early_stopping=False, random_state=seed
        ),
    }[name]()
    return make_pipeline(FunctionTransformer(_flat), last)


def _flat(x_NVT: np.ndarray) -> np.ndarray:
    return x_NVT.reshape(len(x_NVT), -1)


class KernelRidge:
    """Ridge regression of the classes (-1 or 1 each) on `kernels`; on the plain values below `kernels.LENGTH` steps.

    The penalty is the one with the lowest leave-one-out error. Scores become probabilities by a softmax, with the
    temperature that gives the leave-one-out scores the lowest log loss. (No kernels in the sense of kernel methods.)
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def fit(self, x: np.ndarray, y: np.ndarray) -> KernelRidge:
        """`x`: (N, V, T) without gaps; `y`: (N,)."""
        from sklearn.linear_model import RidgeCV
        from sklearn.preprocessing import StandardScaler
        from sklearn.utils.class_weight import compute_sample_weight

        self.classes_, codes = np.unique(y, return_inverse=True)
        self._kernels = kernels.fit(x, KERNEL_FEATURES, self._seed) if x.shape[2] >= kernels.LENGTH else None
        self._scaler = StandardScaler()
        values_NF = self._scaler.fit_transform(self._features(x))
        target_NK = 2.0 * np.eye(len(self.classes_))[codes] - 1
        # this scoring is the default one; naming it has scikit-learn keep the leave-one-out scores
        self._ridge = RidgeCV(PENALTIES, scoring="neg_mean_squared_error", store_cv_results=True)
        self._ridge.fit(values_NF, target_NK, sample_weight=compute_sample_weight("balanced", y))
        left_out_NK = self._ridge.cv_results_[:, :, int(np.argmin(np.abs(PENALTIES - self._ridge.alpha_)))]
        self._temperature = _temperature(left_out_NK, codes)
        del self._ridge.cv_results_  # as large as the training rows
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """(N, classes with training rows)."""
        from scipy.special import softmax

        return softmax(self._ridge.predict(self._scaler.transform(self._features(x))) / self._temperature, axis=1)

    def _features(self, x: np.ndarray) -> np.ndarray:
        return _flat(x) if self._kernels is None else kernels.transform(self._kernels, x)


def _temperature(score_NK: np.ndarray, y: np.ndarray) -> float:
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    def log_loss(log_t: float) -> float:
        return -float(log_softmax(score_NK * np.exp(-log_t), axis=1)[np.arange(len(y)), y].mean())

    return float(np.exp(minimize_scalar(log_loss, bounds=np.log([0.01, 100.0]), method="bounded").x))
