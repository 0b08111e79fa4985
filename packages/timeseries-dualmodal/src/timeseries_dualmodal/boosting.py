"""Boosted trees beside the networks: for each length of prefixes some of their own, made by LightGBM.

On a few thousand series trees often know as much as networks do, and other things; the mean of both is better than
either (`decision.share`). A tree compares one number with a threshold, so what it reads is more than the plain values.

Shapes: N series, V variables, T steps of a prefix, M features, L lengths, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from shared_core import files, tensorfile, trees
from shared_core.errors import UserError
from shared_core.measured import seconds
from shared_core.progress import duration
from shared_core.trees import Trees
from timeseries_dualmodal.model_config import Trees as Wanted

TRIED = 5  # rounds
SUMMARY = 7  # features of a variable beside its values and their changes
STORED = {"leaves": "i4", "feature": "i4", "threshold": "f8", "missing_left": "?", "child": "i4", "value": "f8"}


@dataclass(frozen=True)
class Boosted:
    """Trees for each of L lengths; made by `fit` or `load`."""

    classes: int
    by_length: dict[int, Trees]

    def proba(self, x_NVT: NDArray[np.float32], lengths: Sequence[int]) -> NDArray[np.float64]:
        """Probabilities (N, L, K) after some of the lengths; of each only the first steps are read."""
        return np.stack([self._proba(x_NVT[:, :, :length], self.by_length[length]) for length in lengths], axis=1)

    def _proba(self, x_NVT: NDArray[np.float32], made: Trees) -> NDArray[np.float64]:
        from scipy.special import softmax

        each_NR = made.values(features(x_NVT))
        proba: NDArray[np.float64] = softmax(each_NR.reshape(len(x_NVT), -1, self.classes).sum(axis=1), axis=1)
        return proba

    def save(self, path: Path) -> None:
        """Write them as tensors."""
        found = {
            f"{length}.{name}": torch.from_numpy(np.ascontiguousarray(getattr(made, name), kind))
            for length, made in self.by_length.items()
            for name, kind in STORED.items()
        }
        with files.atomic_path(path) as temporary:
            tensorfile.write(temporary, found)


def features(x_NVT: NDArray[np.float32]) -> NDArray[np.float64]:
    """What trees read of a prefix: (N, M), NaN where nothing is known.

    Of each variable its values, how each differs from the one known before it, the largest, the smallest, their mean,
    their range, how far the last lies below the largest and above the smallest, and how many are known.
    """
    x = x_NVT.astype(np.float64)
    known = ~np.isnan(x)
    newest = np.maximum.accumulate(np.where(known, np.arange(x.shape[2]), 0), axis=2)
    filled = np.take_along_axis(x, newest, axis=2)  # by the last value before
    change = np.where(known[:, :, 1:], x[:, :, 1:] - filled[:, :, :-1], np.nan)
    high, low, last = np.fmax.reduce(x, axis=2), np.fmin.reduce(x, axis=2), filled[:, :, -1]
    count = known.sum(axis=2)
    # summed in order: other ways depend on the number of rows
    total = np.cumsum(np.where(known, x, 0.0), axis=2)[:, :, -1]
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    summary = np.stack([high, low, mean, high - low, high - last, last - low, count.astype(np.float64)], axis=2)
    return np.concatenate([x, change, summary], axis=2).reshape(len(x), -1)


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
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(lambda length: _fit(wanted, x_NVT[:, :, :length], y, classes, seed), lengths)
        return Boosted(classes, dict(zip(lengths, made, strict=True)))


def _fit(wanted: Wanted, x_NVT: NDArray[np.float32], y: NDArray[np.int64], classes: int, seed: int) -> Trees:
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
    read = features(x_NVT)
    booster = lightgbm.train(settings, lightgbm.Dataset(read, y), wanted.rounds)
    return trees.parse(booster.model_to_string(), read.shape[1], f"multiclass num_class:{classes}", classes)


def plan_note(
    wanted: Wanted, x_NVT: NDArray[np.float32], y: NDArray[np.int64], lengths: Sequence[int], classes: int
) -> str:
    """How long `fit` will take, by a few rounds at the middle length."""
    few = wanted.model_copy(update={"rounds": min(wanted.rounds, TRIED)})
    middle = lengths[len(lengths) // 2]
    once = seconds(lambda: _fit(few, x_NVT[:, :, :middle], y, classes, 0), torch.device("cpu"))
    took = once * wanted.rounds / few.rounds * len(lengths) / min(os.cpu_count() or 1, len(lengths))
    return f"after training, trees for {len(lengths)} lengths are grown on the CPU: about {duration(took)}"


def load(path: Path, variables: int, classes: int, lengths: Sequence[int]) -> Boosted:
    """What `Boosted.save` wrote. Raises UserError where it is not there, is damaged, or is of another model."""
    tensors = tensorfile.read(path)[0]
    try:
        made = {}
        for length in lengths:
            arrays = {name: tensors[f"{length}.{name}"].numpy().astype(_KINDS[name]) for name in STORED}
            of_length = Trees(**arrays)
            of_length.check(width(variables, length))
            if len(of_length) % classes:
                raise ValueError(f"{len(of_length)} trees are not as many for each of {classes} classes")
            made[length] = of_length
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise UserError(
            f"{path}: is damaged, or of another model ({error}); train the model again, or pull it again"
        ) from error
    return Boosted(classes, made)


_KINDS = {field.name: {"?": np.bool_, "f8": np.float64}.get(STORED[field.name], np.int64) for field in fields(Trees)}
