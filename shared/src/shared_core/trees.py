"""Boosted trees, as arrays and as LightGBM's text, read and evaluated here.

LightGBM trains trees, and can read its text again. But it trusts what it reads: a damaged text ends the whole process,
or runs forever. So both forms are read strictly here, and what passes is safe.

Shapes: N rows, M features, R trees, I inner nodes of the largest tree, which has I + 1 leaves; smaller ones are padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

END = "end of trees"
MISSING_IS_ZERO, MISSING_HAS_A_SIDE = (0, 2), (8, 10)  # LightGBM's decision types of plain numerical splits
ZERO = np.float32(1e-35)  # numbers up to this are 0 to LightGBM
ROWS = 2048  # evaluated at once
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Trees:
    """R binary trees. A child is an inner node, always after its parent, or, as a negative number, ~leaf."""

    leaves: Ints  # (R,)
    feature: Ints  # (R, I) column looked at
    threshold: Floats  # (R, I) at most this goes left
    missing_left: NDArray[np.bool_]  # (R, I) where a missing value goes
    child: Ints  # (R, I, 2) left and right
    value: Floats  # (R, I + 1) of the leaves

    def __len__(self) -> int:
        return len(self.leaves)

    def values(self, x_NM: NDArray[np.floating]) -> Floats:
        """Value of the leaf that each row ends in, of each tree: (N, R). NaN is a missing value."""
        x_NM = np.where(np.abs(x_NM) <= ZERO, 0, x_NM)
        parts = [self._values(x_NM[start : start + ROWS]) for start in range(0, len(x_NM), ROWS)]
        return np.concatenate(parts) if parts else np.empty((0, len(self)))

    def _values(self, x_NM: NDArray[np.floating]) -> Floats:
        node_NR = np.tile(np.where(self.leaves > 1, 0, -1), (len(x_NM), 1))
        while len((inside := np.nonzero(node_NR >= 0))[0]):
            row, tree = inside
            node = node_NR[row, tree]
            x = x_NM[row, self.feature[tree, node]]
            left = np.where(np.isnan(x), self.missing_left[tree, node], x <= self.threshold[tree, node])
            node_NR[row, tree] = self.child[tree, node, np.where(left, 0, 1)]
        return self.value[np.arange(len(self)), ~node_NR]

    def splits(self, features: int) -> Ints:
        """How often each feature is looked at: (M,)."""
        there = np.arange(self.feature.shape[1]) < self.leaves[:, None] - 1
        return np.bincount(self.feature[there], minlength=features)

    def check(self, features: int) -> None:
        """Raises ValueError for arrays that are no such trees over so many features: evaluating them may never end."""
        trees, inner = self.feature.shape
        shapes = (self.leaves.shape, self.threshold.shape, self.missing_left.shape, self.child.shape, self.value.shape)
        if shapes != ((trees,), (trees, inner), (trees, inner), (trees, inner, 2), (trees, inner + 1)):
            raise ValueError("its arrays do not fit each other")
        if not trees:
            raise ValueError("there is no tree in it")
        if ((self.leaves < 1) | (self.leaves > inner + 1)).any():
            raise ValueError(f"a tree has not 1 to {inner + 1} leaves")
        for number, leaves in enumerate(self.leaves.tolist()):
            own = leaves - 1
            feature, child = self.feature[number, :own], self.child[number, :own]
            # an infinite threshold parts what is known from what is missing
            if not np.isfinite(self.value[number, :leaves]).all() or np.isnan(self.threshold[number, :own]).any():
                raise ValueError(f"tree {number} holds an infinite value, or a threshold that is no number")
            if ((feature < 0) | (feature >= features)).any():
                raise ValueError(f"tree {number} looks at a feature outside 0..{features - 1}")
            once = np.array_equal(np.sort(child, axis=None), [*range(-leaves, 0), *range(1, own)] if own else [])
            if not once or ((child >= 0) & (child <= np.arange(own)[:, None])).any():
                raise ValueError(f"the splits of tree {number} form no tree")


def parse(text: str, features: int, objective: str = "binary sigmoid:1", classes: int = 1) -> Trees:
    """The trees of a LightGBM model without categorical features; of several classes one for each in turn.

    Raises ValueError for a text that is damaged, or no such model.
    """
    head, *blocks = text.split("\nTree=")
    each = str(classes)
    wanted = {"num_class": each, "num_tree_per_iteration": each, "objective": objective}
    found = _fields(head.splitlines()[1:])
    for key, value in {**wanted, "max_feature_idx": str(features - 1)}.items():
        if found.get(key) != value:
            raise ValueError(f"{key} is {found.get(key, 'missing')!r:.40}, expected {value!r}")
    if not blocks or END not in blocks[-1]:
        raise ValueError(f"no tree in it, or not ended by {END!r}")
    blocks[-1] = blocks[-1][: blocks[-1].index(END)]
    made = _stacked([_tree(block.splitlines(), number) for number, block in enumerate(blocks)])
    made.check(features)
    return made


def _tree(lines: list[str], number: int) -> Trees:
    fields = _fields(lines[1:])
    plain = fields.get("num_cat"), fields.get("is_linear")
    if not lines or lines[0] != str(number) or plain != ("0", "0"):
        raise ValueError(f"where tree {number} of plain numerical splits should be is something else")
    try:
        value, threshold = (np.array(fields[key].split(), float) for key in ("leaf_value", "threshold"))
        feature, kind, left, right = (
            np.array(fields[key].split(), np.int64)
            for key in ("split_feature", "decision_type", "left_child", "right_child")
        )
        leaves = int(fields["num_leaves"])
    except (KeyError, ValueError, OverflowError) as error:
        raise ValueError(f"tree {number} lacks a field, or holds what is no number") from error
    inner = leaves - 1
    if len(value) != leaves or any(len(column) != inner for column in (threshold, feature, kind, left, right)):
        raise ValueError(f"tree {number} has not {leaves} leaves and {inner} splits")
    if not np.isin(kind, MISSING_IS_ZERO + MISSING_HAS_A_SIDE).all():
        raise ValueError(f"tree {number} holds a split of another kind")
    missing_left = np.where(np.isin(kind, MISSING_IS_ZERO), threshold >= 0, kind == MISSING_HAS_A_SIDE[1])
    child = np.stack([left, right], axis=1)
    return Trees(np.array([leaves]), feature[None], threshold[None], missing_left[None], child[None], value[None])


def _stacked(parts: Sequence[Trees]) -> Trees:
    """Trees one after the other, padded alike."""
    inner = max(part.feature.shape[1] for part in parts)

    def stack(name: str, width: int) -> NDArray:
        arrays = [getattr(part, name) for part in parts]
        pad = [(0, 0)] * (arrays[0].ndim - 2)
        return np.concatenate([np.pad(array, [(0, 0), (0, width - array.shape[1]), *pad]) for array in arrays])

    leaves = np.concatenate([part.leaves for part in parts])
    columns = {name: stack(name, inner) for name in ("feature", "threshold", "missing_left", "child")}
    return Trees(leaves, **columns, value=stack("value", inner + 1))


def _fields(lines: list[str]) -> dict[str, str]:
    pairs = [line.split("=", 1) for line in lines if "=" in line]
    fields = {key: value for key, value in pairs}
    if len(fields) != len(pairs):
        raise ValueError("a field occurs twice")
    return fields
