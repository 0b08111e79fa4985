"""Which photographs train, choose and judge. The same arguments give the same parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retina_diffusion.data_config import Split
from shared_core import splits
from shared_core.errors import UserError

Parts = dict[str, NDArray[np.int64]]
NO_GRADE = 9
PARTS = ("train", "val", "test")


def divide(rows: Sequence[dict[str, Any]], wanted: Split, sample_ratio: float = 1.0) -> Parts:
    """Rows of train, val and test, ascending.

    Rows (`prepared set`) are of photographs that are there once, each with its ``grade``, whether it has ``masks``, and
    the ``split`` of its source. What the source calls train is divided into train and val, unless it names a val split,
    or leaves some photographs without one: these are divided then.
    Every part has its share of each grade, and of photographs with masks.

    Raises UserError where a part would be empty.
    """
    kind_N = np.array([_kind(row) for row in rows])
    given = np.array([(row["split"] or "") if wanted.official else "" for row in rows])
    if len(rows) and set(given) <= {"val", "test"}:
        names = " and ".join(sorted(set(given)))
        raise UserError(
            f"split.official: all {len(rows)} photographs are of the split {names}; --split.official false divides "
            "them anew, or use them as data.val_data_path"
        )
    everything = np.arange(len(rows))
    if (given == "test").any():
        test, rest = everything[given == "test"], everything[given != "test"]
    else:
        free = everything[given == ""] if (given == "").any() else everything
        made = splits.stratified(kind_N[free], {"rest": 1 - wanted.test, "test": wanted.test}, wanted.seed)
        test = free[made["test"]]
        rest = np.setdiff1d(everything, test)
    val = rest[given[rest] == "val"]
    if not len(val):
        free = rest[given[rest] == ""] if (given[rest] == "").any() else rest
        made = splits.stratified(kind_N[free], {"train": 1 - wanted.val, "val": wanted.val}, wanted.seed)
        val = free[made["val"]]
    train = _share(np.setdiff1d(rest, val), kind_N, sample_ratio, wanted.seed)
    parts = {"train": train, "val": val, "test": test}
    for name, part in parts.items():
        if not len(part):
            shares = f"split.{name}" if name != "train" else "split.test and split.val"
            key = "data.sample_ratio" if name == "train" and sample_ratio < 1 else shares
            raise UserError(f"{key}: the {name} split is empty; change the shares")
    return parts


def _share(part: NDArray[np.int64], kind_N: NDArray[np.int64], ratio: float, seed: int) -> NDArray[np.int64]:
    """A share of some rows, equally of all kinds."""
    if ratio >= 1:
        return part
    return part[splits.stratified(kind_N[part], {"kept": ratio, "left": 1 - ratio}, seed)["kept"]]


def _kind(row: dict[str, Any]) -> int:
    """What must be alike in all parts, as one number."""
    grade = NO_GRADE if row["grade"] is None else row["grade"]
    return 2 * grade + bool(row["masks"])
