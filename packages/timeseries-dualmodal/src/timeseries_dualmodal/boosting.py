"""Boosted trees beside the networks: for each length of prefixes some of their own, made by LightGBM.

On a few thousand series trees may know as much as networks do, and other things: how much they count is chosen on
validation series (`decision.share`), and every evaluation shows what each says alone. A tree compares one number with a
threshold, so what it reads is more than the plain values.

Shapes: N series, V variables, T steps of a prefix, M features, L lengths, K classes, R trees.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from shared_core import files, tensorfile, trees
from shared_core.errors import UserError
from shared_core.measured import seconds
from shared_core.progress import duration
from shared_core.seeds import derive
from shared_core.trees import Trees
from timeseries_dualmodal.model_config import Trees as Wanted
from timeseries_dualmodal.series import forward_filled

ROWS = 4_096  # series whose features are there at once
SUMMARY = 7  # features of a variable beside its values and their changes
TRIED = (3, 9)  # rounds that say how long all will take
# of `Trees`: how it is stored, and what it is in use
STORED = {
    "leaves": (np.int32, np.int64),
    "feature": (np.int32, np.int64),
    "threshold": (np.float64, np.float64),
    "missing_left": (np.bool_, np.bool_),
    "child": (np.int32, np.int64),
    "value": (np.float64, np.float64),
}
Features = NDArray[np.float64]


@dataclass(frozen=True)
class OfLength:
    """Trees for prefixes of one length, and what stands for features that training always knew: NaN for the others."""

    made: Trees  # R, those of the classes in turn
    usual_M: Features

    def scores(self, read_NM: Features) -> NDArray[np.float64]:
        """(N, R)."""
        # to LightGBM a gap where training had none is a 0
        unheard_NM = np.isnan(read_NM) & ~np.isnan(self.usual_M)
        return self.made.values(np.where(unheard_NM, self.usual_M, read_NM))

    def check(self, features: int, classes: int) -> None:
        """Raises ValueError for anything that is none of so many features and classes."""
        self.made.check(features)
        if self.usual_M.shape != (features,):
            raise ValueError(f"{len(self.usual_M)} usual values are not one for each of {features} features")
        if len(self.made) % classes:
            raise ValueError(f"{len(self.made)} trees are not as many for each of {classes} classes")


@dataclass(frozen=True)
class Boosted:
    """Trees for each of L lengths; made by `fit` or `load`."""

    classes: int
    by_length: Mapping[int, OfLength]

    def proba(self, x_NVT: NDArray[np.float32], lengths: Sequence[int]) -> NDArray[np.float64]:
        """Probabilities (N, L, K) after some of the lengths; of each only the first steps are read."""
        return np.stack([self._proba(x_NVT[:, :, :length], self.by_length[length]) for length in lengths], axis=1)

    def _proba(self, x_NVT: NDArray[np.float32], of_length: OfLength) -> NDArray[np.float64]:
        from scipy.special import softmax

        parts = [of_length.scores(features(x_NVT[start : start + ROWS])) for start in range(0, len(x_NVT), ROWS)]
        each_NR = np.concatenate(parts) if parts else np.empty((0, len(of_length.made)))
        proba: NDArray[np.float64] = softmax(
            each_NR.reshape(len(x_NVT), len(of_length.made) // self.classes, self.classes).sum(axis=1), axis=1
        )
        return proba

    def save(self, path: Path) -> None:
        """Write them as tensors."""
        found = {}
        for length, of_length in self.by_length.items():
            found[f"{length}.usual"] = torch.from_numpy(of_length.usual_M)
            for name, (kept, _) in STORED.items():
                array = np.ascontiguousarray(getattr(of_length.made, name), kept)
                found[f"{length}.{name}"] = torch.from_numpy(array)
        with files.atomic_path(path) as temporary:
            tensorfile.write(temporary, found)


def features(x_NVT: NDArray[np.float32]) -> Features:
    """What trees read of a prefix: (N, M), NaN where nothing is known yet.

    Of each variable its values, a gap taking the value before it; how each differs from the one before; the largest,
    the smallest, their mean, their range, how far the last lies below the largest and above the smallest; and how many
    are known.
    """
    x, filled = x_NVT.astype(np.float64), forward_filled(x_NVT)
    known = ~np.isnan(x)
    high, low, last = np.fmax.reduce(x, axis=2), np.fmin.reduce(x, axis=2), filled[:, :, -1]
    count = known.sum(axis=2)
    # summed in order: other ways depend on the number of rows
    total = np.cumsum(np.where(known, x, 0.0), axis=2)[:, :, -1]
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    summary = np.stack([high, low, mean, high - low, high - last, last - low, count.astype(np.float64)], axis=2)
    return np.concatenate([filled, np.diff(filled, axis=2), summary], axis=2).reshape(len(x), -1)


def width(variables: int, length: int) -> int:
    """M."""
    return variables * (2 * length - 1 + SUMMARY)


def fit(
    wanted: Wanted, x_NVT: NDArray[np.float32], y: NDArray[np.int64], lengths: Sequence[int], classes: int, seed: int
) -> Boosted:
    """Trees for each length, several lengths at once, one on each core; the same arguments make the same trees.

    Args:
        x_NVT: training series, NaN where a value is missing.
        y: (N,) in 0..classes-1.
    """
    x_NVT, y = _some(wanted, x_NVT, y, seed)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(lambda length: _fit(wanted, x_NVT[:, :, :length], y, classes, seed), lengths)
        return Boosted(classes, dict(zip(lengths, made, strict=True)))


def _some(
    wanted: Wanted, x_NVT: NDArray[np.float32], y: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The series that trees learn from."""
    if len(y) <= wanted.series:
        return x_NVT, y
    rows = np.sort(np.random.default_rng(derive(seed, "trees")).choice(len(y), wanted.series, replace=False))
    return x_NVT[rows], y[rows]


def _fit(wanted: Wanted, x_NVT: NDArray[np.float32], y: NDArray[np.int64], classes: int, seed: int) -> OfLength:
    import lightgbm

    settings = {
        "objective": "multiclass",
        "num_class": classes,
        "num_leaves": wanted.leaves,
        "learning_rate": wanted.learning_rate,
        "lambda_l2": wanted.l2,
        "min_data_in_leaf": wanted.min_leaf,
        "extra_trees": wanted.extra,
        "seed": seed,
        "deterministic": True,
        "force_col_wise": True,  # the same trees as by rows, in half the time where features are many
        "num_threads": 1,
        "verbosity": -1,
    }
    read_NM = features(x_NVT)
    booster = lightgbm.train(settings, lightgbm.Dataset(read_NM, y), wanted.rounds)
    made = trees.parse(booster.model_to_string(), read_NM.shape[1], f"multiclass num_class:{classes}", classes)
    return OfLength(made, np.median(read_NM, axis=0))


def plan_note(
    wanted: Wanted, x_NVT: NDArray[np.float32], y: NDArray[np.int64], lengths: Sequence[int], classes: int
) -> str:
    """How long `fit` will take, by a few rounds at the middle length."""
    x_NVT, y = _some(wanted, x_NVT[:, :, : lengths[len(lengths) // 2]], y, 0)

    def took(rounds: int) -> float:
        few = wanted.model_copy(update={"rounds": rounds})
        return seconds(lambda: _fit(few, x_NVT, y, classes, 0), torch.device("cpu"))

    took(1)  # loads LightGBM
    first, second = (took(rounds) for rounds in TRIED)
    each = (second - first) / (TRIED[1] - TRIED[0])
    once = first + max(each, 0) * (wanted.rounds - TRIED[0])
    total = once * len(lengths) / min(os.cpu_count() or 1, len(lengths))
    return f"after training, trees for {len(lengths)} lengths are grown on the CPU: about {duration(total)}"


def load(path: Path, variables: int, classes: int, lengths: Sequence[int]) -> Boosted:
    """What `Boosted.save` wrote. Raises UserError where it is not there, is damaged, or is of another model."""
    again = "train the model again, or pull it again"
    if not path.is_file():
        raise UserError(f"{path}: is missing; {again}")
    tensors = tensorfile.read(path)[0]
    made = {}
    try:
        for length in lengths:
            arrays = {name: tensors[f"{length}.{name}"].numpy().astype(used) for name, (_, used) in STORED.items()}
            made[length] = OfLength(Trees(**arrays), tensors[f"{length}.usual"].numpy())
            made[length].check(width(variables, length), classes)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise UserError(f"{path}: is damaged, or of another model ({error}); {again}") from error
    return Boosted(classes, made)
