"""Which recordings train and which judge, and the folds of those that train.

What shows the same video, or the same animal where the source names it, is never in two parts or two folds. Recordings
without annotations are in none.

Shapes: N recordings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.data_config import Split
from shared_core import splits
from shared_core.errors import UserError

Ints = NDArray[np.int64]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Parts:
    """Numbers of recordings."""

    train: Ints
    fold: Ints  # of each of `train`, from 0
    test: Ints

    @property
    def folds(self) -> int:
        return int(self.fold.max()) + 1


def divide(rows: Sequence[Row], split: Split) -> Parts:
    """The parts; the same arguments give the same ones.

    Raises UserError where a laboratory or the source's split is not there, or a part or a fold would be empty.
    """
    annotated = np.array([number for number, row in enumerate(rows) if row["labeled"]], np.int64)
    if not len(annotated):
        raise UserError("split: no recording has annotations to learn from; prepare some that do")
    group = _groups(rows)
    test = _test(rows, annotated, group, split)
    rest = np.setdiff1d(annotated, test)
    if split.kind != "recording":  # a copy of what judges must not teach
        rest = rest[~np.isin(group[rest], group[test])]
    if not len(rest) or not len(test):
        raise UserError(f"split: {len(rest)} recordings train and {len(test)} judge; choose others to hold out")
    fold = _folds(rows, rest, group, split)
    what = {"train": group[rest].tolist(), "test": group[test].tolist()}
    splits.check_disjoint(what, "recordings of the same video or animal")
    return Parts(rest, fold, test)


def _groups(rows: Sequence[Row]) -> Ints:
    """(N,) the same number for what must not be parted: the same video, or the same animal of a laboratory."""
    first: dict[tuple[str, Any], int] = {}
    pairs = []
    for number, row in enumerate(rows):
        keys: list[tuple[str, Any]] = [("video", row["video"])]
        if row["animal"]:
            keys.append((row["lab"], row["animal"]))
        pairs += [(first.setdefault(key, number), number) for key in keys]
    return splits.connected(len(rows), pairs)


def _test(rows: Sequence[Row], annotated: Ints, group: Ints, split: Split) -> Ints:
    labs = np.array([row["lab"] for row in rows])
    if split.kind == "given":
        said = np.array([str(row["split"]) for row in rows])
        found = annotated[said[annotated] == "test"]
        if not len(found):
            raise UserError("split.kind: given, but the source names no recording of a test; use recording or lab")
        return found
    if split.kind == "lab":
        if unknown := [lab for lab in split.test_labs if lab not in labs]:
            raise UserError(f"split.test_labs: no {unknown[0]}; there are {', '.join(sorted(set(labs.tolist())))}")
        return annotated[np.isin(labs[annotated], split.test_labs)]
    if len(np.unique(group[annotated])) < 2:
        raise UserError("split: all recordings are of one video or animal; more are needed to hold some out")
    shares = {"train": 1 - split.test, "test": split.test}
    return annotated[splits.grouped(group[annotated], shares, split.seed, labs[annotated])["test"]]


def _folds(rows: Sequence[Row], rest: Ints, group: Ints, split: Split) -> Ints:
    """(len(rest),) the fold of each recording that trains."""
    labs = np.array([rows[number]["lab"] for number in rest.tolist()])
    by_lab = split.folds_by == "lab"
    keys = labs if by_lab else group[rest]
    what = "laboratories" if by_lab else "videos or animals"
    if (count := len(np.unique(keys))) < split.folds:
        raise UserError(f"split.folds: {split.folds}, but there are only {count} {what} to train on; lower it")
    shares = {str(fold): 1 / split.folds for fold in range(split.folds)}
    found = np.empty(len(rest), np.int64)
    for name, places in splits.grouped(keys, shares, split.seed, None if by_lab else labs).items():
        found[places] = int(name)
    return found
