"""Boosted trees on the same features: for each action a model of whether a frame shows it (LightGBM).

LightGBM trusts the text of a model that it reads; a damaged one ends the process. So the text is read strictly by
`shared_core.trees` first, and only what passes is handed on.

Shapes: N frames, F columns, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.model_config import Trees as Wanted
from shared_core import trees
from shared_core.seeds import derive

Floats = NDArray[np.float32]
LEAST = 20  # frames with an action, without which there is nothing to learn


@dataclass(frozen=True)
class Forest:
    """A model of each class, or none where there was nothing to learn from; what is not modelled has its share."""

    texts: tuple[str | None, ...]  # LightGBM's
    share_K: tuple[float, ...]  # of annotated training frames
    columns: int

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.share_K):
            raise ValueError("forest: a share for each class")
        for text in self.texts:
            if text is not None:
                trees.parse(text, self.columns)
        object.__setattr__(self, "_models", [None] * len(self.texts))

    def proba(self, x_NF: NDArray) -> Floats:
        """(N, K). Raises ValueError for another number of columns."""
        if x_NF.shape[1] != self.columns:
            raise ValueError(f"forest: {x_NF.shape[1]} columns; was grown on {self.columns}")
        x_NF = np.asarray(x_NF, np.float32)
        found = np.tile(np.array(self.share_K, np.float32), (len(x_NF), 1))
        for k, text in enumerate(self.texts):
            if text is not None and len(x_NF):
                found[:, k] = self._model(k, text).predict(x_NF)
        return found

    def _model(self, k: int, text: str) -> Any:
        models: list[Any] = self._models  # type: ignore[attr-defined]
        if models[k] is None:
            import lightgbm

            models[k] = lightgbm.Booster(model_str=text)
        return models[k]


def fit(
    wanted: Wanted,
    streams: Sequence[tuple[NDArray[np.float16], NDArray[np.int8]]],
    seed: int,
) -> Forest:
    """Trees of each class, from the features (T, F) and three-state labels (T, K) of training relations."""
    classes, columns = streams[0][1].shape[1], streams[0][0].shape[1]
    texts: list[str | None] = []
    shares = []
    for k in range(classes):
        frames = [np.flatnonzero(y_TK[:, k] >= 0) for _, y_TK in streams]
        y_N = np.concatenate([y_TK[rows, k] for rows, (_, y_TK) in zip(frames, streams, strict=True)]) == 1
        shares.append(float(y_N.mean()) if len(y_N) else 0.0)
        if y_N.sum() < LEAST or y_N.all():
            texts.append(None)
            continue
        chosen_N = _some(wanted, y_N, derive(seed, "frames", k))
        x_NF = _taken([x_TF for x_TF, _ in streams], frames, chosen_N)
        weight_N = np.where(y_N[chosen_N], 1.0, (~y_N).sum() / max((~y_N[chosen_N]).sum(), 1))
        texts.append(_grown(wanted, x_NF, y_N[chosen_N], weight_N, derive(seed, "trees", k)))
    return Forest(tuple(texts), tuple(shares), columns)


def _some(wanted: Wanted, y_N: NDArray[np.bool_], seed: int) -> NDArray[np.int64]:
    """Frames to learn from: those with the action, and some without it, which then stand for all of these."""
    rng = np.random.default_rng(seed)
    yes, no = np.flatnonzero(y_N), np.flatnonzero(~y_N)
    most = int(min(len(yes), wanted.frames / (1 + wanted.negatives)))
    yes = rng.choice(yes, most, replace=False) if most < len(yes) else yes
    most = int(min(len(no), max(wanted.negatives * len(yes), wanted.frames / 10)))
    no = rng.choice(no, most, replace=False) if most < len(no) else no
    return np.sort(np.concatenate((yes, no)))


def _taken(
    streams: Sequence[NDArray[np.float16]], frames: Sequence[NDArray[np.int64]], chosen_N: NDArray[np.int64]
) -> Floats:
    """(N, F) rows of several tables, numbered on through all of them."""
    ends = np.cumsum([len(rows) for rows in frames])
    parts = np.split(chosen_N, np.searchsorted(chosen_N, ends[:-1]))
    begins = np.concatenate(([0], ends[:-1]))
    return np.concatenate(
        [x_TF[rows[part - begin]] for x_TF, rows, part, begin in zip(streams, frames, parts, begins, strict=True)]
    ).astype(np.float32)


def _grown(wanted: Wanted, x_NF: Floats, y_N: NDArray[np.bool_], weight_N: NDArray[np.float64], seed: int) -> str:
    import lightgbm

    settings = {
        "objective": "binary",
        "num_leaves": wanted.leaves,
        "learning_rate": wanted.learning_rate,
        "lambda_l2": wanted.l2,
        "min_data_in_leaf": min(wanted.min_leaf, max(1, int(y_N.sum()) // 2)),
        "feature_fraction": wanted.columns,
        "max_bin": 63,
        "seed": seed % 2**31,
        "deterministic": True,
        "force_col_wise": True,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(x_NF, y_N.astype(np.float32), weight=weight_N)
    return str(lightgbm.train(settings, data, wanted.rounds).model_to_string())
