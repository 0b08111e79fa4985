"""Boosted trees as LightGBM's text, read and evaluated here.

LightGBM trains the trees and its text is what is stored, so LightGBM can read it too. But LightGBM trusts such a text:
a damaged one ends the whole process, or runs forever. So this module reads it strictly, and what passes is safe.

Shapes: N rows, M features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shared_core.errors import UserError

HEADER = {"num_class": "1", "num_tree_per_iteration": "1", "objective": "binary sigmoid:1"}
END = "end of trees"
NUMERICAL = (0, 2)  # decision types "at most the threshold goes left" for features without missing values


@dataclass(frozen=True)
class Tree:
    """A binary tree of n leaves. A child is an inner node (always after its parent) or, as a negative number, ~leaf."""

    feature: np.ndarray  # (n - 1,) column looked at
    threshold: np.ndarray  # (n - 1,) at most this goes left
    left: np.ndarray  # (n - 1,)
    right: np.ndarray  # (n - 1,)
    value: np.ndarray  # (n,) of the leaves

    def predict(self, x_MN: np.ndarray) -> np.ndarray:
        """Value of the leaf that each row ends in: (N,)."""
        found = np.full(x_MN.shape[1], self.value[0])
        reached = {0: np.ones(x_MN.shape[1], bool)}  # which rows come to a node
        for node, (feature, threshold) in enumerate(zip(self.feature, self.threshold, strict=True)):
            rows, low = reached.pop(node), x_MN[feature] <= threshold
            for child, mask in ((self.left[node], rows & low), (self.right[node], rows & ~low)):
                if child >= 0:
                    reached[child] = mask
                else:
                    found[mask] = self.value[~child]
        return found


def predict(trees: list[Tree], x_NM: np.ndarray) -> np.ndarray:
    """Log-odds of class 1, finite rows only: (N,)."""
    x_MN = np.ascontiguousarray(x_NM.T)
    return np.sum([tree.predict(x_MN) for tree in trees], axis=0)


def splits(trees: list[Tree], features: int) -> np.ndarray:
    """How often each feature is looked at: (M,)."""
    return np.sum([np.bincount(tree.feature, minlength=features) for tree in trees], axis=0)


def parse(text: str, features: int) -> list[Tree]:
    """The trees of a binary LightGBM model.

    Raises UserError for a text that is damaged, or no such model of `features` features.
    """
    head, *blocks = text.split("\nTree=")
    wanted = HEADER | {"max_feature_idx": str(features - 1)}
    found = _fields(head.splitlines()[1:])
    for key, value in wanted.items():
        if found.get(key) != value:
            raise _damaged(f"{key} is {found.get(key, 'missing')!r:.40}, expected {value!r}")
    if not blocks or END not in blocks[-1]:
        raise _damaged(f"no tree in it, or not ended by {END!r}")
    blocks[-1] = blocks[-1][: blocks[-1].index(END)]
    return [_tree(block.splitlines(), number, features) for number, block in enumerate(blocks)]


def _tree(lines: list[str], number: int, features: int) -> Tree:
    fields = _fields(lines[1:])
    plain = fields.get("num_cat"), fields.get("is_linear")
    if not lines or lines[0] != str(number) or plain != ("0", "0"):
        raise _damaged(f"where tree {number} of plain numerical splits should be is something else")
    try:
        value, threshold = (np.array(fields[key].split(), float) for key in ("leaf_value", "threshold"))
        feature, kind, left, right = (
            np.array(fields[key].split(), int)
            for key in ("split_feature", "decision_type", "left_child", "right_child")
        )
        leaves = int(fields["num_leaves"])
    except (KeyError, ValueError, OverflowError) as error:
        raise _damaged(f"tree {number} lacks a field, or holds what is no number") from error
    inner = leaves - 1
    if len(value) != leaves or any(len(column) != inner for column in (threshold, feature, kind, left, right)):
        raise _damaged(f"tree {number} has not {leaves} leaves and {inner} splits")
    if not (np.isfinite(value).all() and np.isfinite(threshold).all() and np.isin(kind, NUMERICAL).all()):
        raise _damaged(f"tree {number} holds an infinite number or a split of another kind")
    if ((feature < 0) | (feature >= features)).any():
        raise _damaged(f"tree {number} looks at a feature outside 0..{features - 1}")
    children, parents = np.concatenate([left, right]), np.tile(np.arange(inner), 2)
    once = np.array_equal(np.sort(children), [*range(-leaves, 0), *range(1, inner)]) if inner else leaves == 1
    if not once or (children[children >= 0] <= parents[children >= 0]).any():
        raise _damaged(f"the splits of tree {number} form no tree")
    return Tree(feature, threshold, left, right, value)


def _fields(lines: list[str]) -> dict[str, str]:
    pairs = [line.split("=", 1) for line in lines if "=" in line]
    fields = {key: value for key, value in pairs}
    if len(fields) != len(pairs):
        raise _damaged("a field occurs twice")
    return fields


def _damaged(what: str) -> UserError:
    return UserError(f"stacker: its LightGBM text is damaged ({what}); fit the stacker again")
