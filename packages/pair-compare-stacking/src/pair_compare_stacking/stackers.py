"""Meta-learners: what M base models say about the same pairs, made into one answer.

Every method first puts the base models' logits on one scale (one temperature each), and is antisymmetric: swapping the
halves of a pair negates all logits, and turns the probability p into 1 - p.

Shapes: N pairs, M base models. `logit_NM` float64: log-odds that the left digit is larger. `y` (N,): 1 where it is.
`fold` (N,): integers; pairs of different folds share no source image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pair_compare_stacking import blends
from pair_compare_stacking.calibration import TEMPERATURES, bounded, nll, sigmoid, temperature
from shared_core import trees
from shared_core.errors import UserError
from shared_core.trees import Trees

BEST_SINGLE = "best_single"  # a reference, no method of stacking
METHODS = ("mean", "weighted_mean", "greedy", "logistic", "lightgbm")  # the simplest first
WORDS = {
    "mean": "the mean of the probabilities",
    "weighted_mean": "a weighted mean of the probabilities",
    "greedy": "greedy selection",
    "logistic": "logistic regression",
    "lightgbm": "LightGBM",
    BEST_SINGLE: "the best single model",
}
PENALTIES = tuple(10.0**k for k in range(-4, 3))  # C of the logistic regression: smaller is stronger
LARGEST = 1e9  # of numbers in a stored stacker
LIGHTGBM = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 20,
    "feature_fraction": 0.9,
    "bagging_fraction": 0.8,
    "bagging_freq": 5,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,  # many threads gain little on so few columns, and disturb those of torch
    "verbosity": -1,
}
N_TREES = 100


@dataclass(frozen=True)
class Stacker(ABC):
    """A fitted method; made by `fit` or `from_dict`."""

    method: str
    models: tuple[str, ...]  # the base models, in the order of the logits' columns
    temperatures: tuple[float, ...]  # (M,)

    def predict(self, logit_NM: np.ndarray) -> np.ndarray:
        """Probability that the left digit is larger: (N,). Raises UserError for logits of another number of models."""
        logit_NM = check_logits(logit_NM, self.models)
        return self._combine(logit_NM / np.array(self.temperatures))

    def describe(self) -> dict[str, Any]:
        """What was learned, by base model, for a report."""
        return {"method": self.method, "temperatures": self._by_model(self.temperatures), **self._learned()}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, from which `from_dict` makes the same stacker."""
        about = {"method": self.method, "models": list(self.models), "temperatures": list(self.temperatures)}
        return about | self._stored()

    def _by_model(self, values: Sequence[float]) -> dict[str, float]:
        return dict(zip(self.models, values, strict=True))

    @abstractmethod
    def _combine(self, logit_NM: np.ndarray) -> np.ndarray:
        """Calibrated logits -> (N,) probability."""

    @abstractmethod
    def _learned(self) -> dict[str, Any]:
        """For `describe`."""

    @abstractmethod
    def _stored(self) -> dict[str, Any]:
        """For `to_dict`."""


@dataclass(frozen=True)
class Blend(Stacker):
    """A weighted mean of calibrated probabilities."""

    weights: tuple[float, ...]  # (M,) not negative, sum 1

    def _combine(self, logit_NM: np.ndarray) -> np.ndarray:
        # of p - 1/2, whose sign is all that swapping changes
        return 0.5 + (sigmoid(logit_NM) - 0.5) @ np.array(self.weights)

    def _learned(self) -> dict[str, Any]:
        return {"weights": self._by_model(self.weights)}

    def _stored(self) -> dict[str, Any]:
        return {"weights": list(self.weights)}


@dataclass(frozen=True)
class Logistic(Stacker):
    """A weighted sum of calibrated logits, without an intercept: it could not be antisymmetric."""

    coefficients: tuple[float, ...]  # (M,)
    penalty: float  # scikit-learn's C

    def _combine(self, logit_NM: np.ndarray) -> np.ndarray:
        return sigmoid(logit_NM @ np.array(self.coefficients))

    def _learned(self) -> dict[str, Any]:
        return {"coefficients": self._by_model(self.coefficients), "C": self.penalty}

    def _stored(self) -> dict[str, Any]:
        return {"coefficients": list(self.coefficients), "C": self.penalty}


@dataclass(frozen=True)
class Boosted(Stacker):
    """LightGBM on calibrated logits, averaged over both orders of the halves."""

    text: str  # LightGBM's own

    @cached_property
    def _trees(self) -> Trees:
        return parse_trees(self.text, len(self.models))

    def _combine(self, logit_NM: np.ndarray) -> np.ndarray:
        left, right = (sigmoid(self._trees.values(x_NM).sum(axis=1)) for x_NM in (logit_NM, -logit_NM))
        return (left + 1 - right) / 2

    def _learned(self) -> dict[str, Any]:
        looked_at = self._trees.splits(len(self.models))
        return {"trees": len(self._trees), "splits": self._by_model(looked_at.tolist())}

    def _stored(self) -> dict[str, Any]:
        return {"lightgbm": self.text}


def fit(
    method: str, logit_NM: np.ndarray, y: np.ndarray, fold: np.ndarray, models: Sequence[str], seed: int = 0
) -> Stacker:
    """Fit one of `METHODS`, or the reference `BEST_SINGLE`.

    Args:
        fold: what the logistic regression's penalty is chosen over; with one fold only it is 1.
        models: names of the base models, in the order of the columns.
        seed: of LightGBM, the only method that draws.

    Raises UserError for an unknown method, and for rows as `check_rows` does.
    """
    if method not in (*METHODS, BEST_SINGLE):
        raise UserError(f"stacking method {method!r:.40}: choose one of {', '.join((*METHODS, BEST_SINGLE))}")
    logit_NM, y, fold = check_rows(logit_NM, y, fold, models)
    names = tuple(models)
    temperatures = tuple(temperature(column, y) for column in logit_NM.T)
    calibrated_NM = logit_NM / np.array(temperatures)
    if method == "logistic":
        penalty = _best_penalty(calibrated_NM, y, fold)
        return Logistic(method, names, temperatures, tuple(_coefficients(calibrated_NM, y, penalty)), penalty)
    if method == "lightgbm":
        return Boosted(method, names, temperatures, _boost(calibrated_NM, y, seed))
    true_NM = bounded(sigmoid(np.where(y[:, None] == 1, calibrated_NM, -calibrated_NM)))
    if method == "mean":
        weights = blends.equal(len(names))
    elif method == "weighted_mean":
        weights = blends.best(true_NM)
    elif method == "greedy":
        weights = blends.greedy(true_NM)
    else:
        right = ((logit_NM >= 0) == (y[:, None] == 1)).mean(axis=0)
        weights = blends.one(len(names), int(np.lexsort((-np.log(true_NM).mean(axis=0), -right))[0]))
    return Blend(method, names, temperatures, tuple(weights.tolist()))


def best_single(fitted: Mapping[str, Stacker]) -> str | None:
    """Name of the base model that was best on the pairs that stackers were fitted on; None where it was not looked for.

    `fitted`: stackers by method.
    """
    found = fitted.get(BEST_SINGLE)
    return found.models[int(np.argmax(found.weights))] if isinstance(found, Blend) else None


def check_logits(logit_NM: np.ndarray, models: Sequence[str]) -> np.ndarray:
    """As float64 (N, M). Raises UserError for another shape, or where a logit is NaN or infinite."""
    logit_NM = np.asarray(logit_NM, dtype=np.float64)
    if logit_NM.ndim != 2 or logit_NM.shape[1] != len(models):
        raise UserError(
            f"logits of shape {logit_NM.shape}: the stacker takes one column for each of its {len(models)} base models "
            f"({', '.join(models)})"
        )
    for name, column in zip(models, logit_NM.T, strict=True):
        if bad := int((~np.isfinite(column)).sum()):
            raise UserError(f"base model {name}: {bad} of {len(column)} logits are NaN or infinite; check its answers")
    return logit_NM


def check_rows(
    logit_NM: np.ndarray, y: np.ndarray, fold: np.ndarray, models: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits float64 (N, M), labels and folds (N,), as arrays. Raises UserError for anything else."""
    if not models or len(set(models)) != len(models):
        raise UserError(f"base models {', '.join(models) or '(none)'}: need one or more, each with a name of its own")
    logit_NM, y, fold = check_logits(logit_NM, models), np.asarray(y), np.asarray(fold)
    if not len(logit_NM) or y.shape != fold.shape or y.shape != (len(logit_NM),):
        raise UserError(
            f"{len(logit_NM)} rows of logits, labels {y.shape}, folds {fold.shape}: must describe the same pairs, and "
            "one at least"
        )
    if not np.isin(y, (0, 1)).all() or not np.issubdtype(fold.dtype, np.integer):
        raise UserError("labels must be 0 or 1, and folds whole numbers; check what the stacker is fitted on")
    return logit_NM, y, fold


def from_dict(data: Any, models: Sequence[str] | None = None) -> Stacker:
    """The stacker that `to_dict` described.

    Args:
        models: the base models at hand, in the order of their columns; others than the stacker's, or another order, are
            refused.

    Raises UserError for anything that is no such description.
    """
    if not isinstance(data, dict):
        raise _unfit("is no mapping")
    method, names = data.get("method"), data.get("models")
    if method not in (*METHODS, BEST_SINGLE):
        raise _unfit(f"method is {method!r:.40}")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
        raise _unfit("models is no list of names")
    if len(set(names)) != len(names):
        raise _unfit("a base model occurs twice")
    own = {"logistic": {"coefficients", "C"}, "lightgbm": {"lightgbm"}}.get(method, {"weights"})
    if odd := sorted(repr(key) for key in data.keys() ^ ({"method", "models", "temperatures"} | own)):
        raise _unfit(f"{odd[0]:.40} is missing or too much")
    if models is not None and list(models) != names:
        raise UserError(
            f"stacker of the base models {', '.join(names)}, in this order; here are {', '.join(models) or 'none'}: "
            "give it those, or fit it again"
        )
    about = method, tuple(names), _numbers(data, "temperatures", len(names), *TEMPERATURES)
    if method == "logistic":
        coefficients = _numbers(data, "coefficients", len(names), -LARGEST, LARGEST)
        (penalty,) = _numbers({"C": [data["C"]]}, "C", 1, 0.0, LARGEST)
        return Logistic(*about, coefficients, penalty)
    if method == "lightgbm":
        if not isinstance(data["lightgbm"], str):
            raise _unfit("lightgbm is no text")
        parse_trees(data["lightgbm"], len(names))
        return Boosted(*about, data["lightgbm"])
    weights = _numbers(data, "weights", len(names), 0.0, 1.0)
    if abs(sum(weights) - 1) > 1e-6:
        raise _unfit(f"weights add up to {sum(weights):g} instead of 1")
    return Blend(*about, weights)


def parse_trees(text: str, models: int) -> Trees:
    """The trees of a stacker. Raises UserError for a damaged text, or one of another number of models."""
    try:
        return trees.parse(text, models)
    except ValueError as error:
        raise UserError(f"stacker: its LightGBM text is damaged ({error}); fit the stacker again") from error


def _numbers(data: dict[str, Any], key: str, count: int, low: float, high: float) -> tuple[float, ...]:
    values = data[key]
    if not isinstance(values, list) or len(values) != count:
        raise _unfit(f"{key} must be {count} numbers, one per base model")
    for value in values:
        if type(value) not in (int, float) or not low <= value <= high:
            raise _unfit(f"{key} must lie in {low:g}..{high:g}, found {value!r:.40}")
    return tuple(float(value) for value in values)


def _unfit(what: str) -> UserError:
    return UserError(f"stacker: {what}; fit the stacker again, or give it the file that was written")


def _both_orders(logit_NM: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows, then those of the pairs with their halves swapped: (2N, M), (2N,)."""
    return np.concatenate([logit_NM, -logit_NM]), np.concatenate([y, 1 - y])


def _best_penalty(logit_NM: np.ndarray, y: np.ndarray, fold: np.ndarray) -> float:
    """The C with the lowest NLL out of fold; the stronger penalty among equals."""
    folds = np.unique(fold)
    if len(folds) < 2:
        return 1.0
    found = []
    for penalty in PENALTIES:
        p = np.empty(len(y))
        for k in folds:
            held_out = fold == k
            coefficients = _coefficients(logit_NM[~held_out], y[~held_out], penalty)
            p[held_out] = sigmoid(logit_NM[held_out] @ coefficients)
        found.append(nll(p, y))
    return PENALTIES[int(np.argmin(found))]


def _coefficients(logit_NM: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    # Both orders say the same twice, hence half of C. They are there because scikit-learn wants both labels.
    regression = LogisticRegression(C=penalty / 2, fit_intercept=False, solver="newton-cholesky", tol=1e-8)
    return regression.fit(*_both_orders(logit_NM, y)).coef_[0]


def _boost(logit_NM: np.ndarray, y: np.ndarray, seed: int) -> str:
    import lightgbm

    x_NM, answer = _both_orders(logit_NM, y)
    return lightgbm.train({**LIGHTGBM, "seed": seed}, lightgbm.Dataset(x_NM, answer), N_TREES).model_to_string()
