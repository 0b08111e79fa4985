"""Training, validation and test splits that can be trusted: stratified, grouped, and checked for leaks.

A split is an array of sample indices, ascending. The same arguments give the same split.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shared_core.errors import UserError

Indices = NDArray[np.int64]


def stratified(labels: ArrayLike, shares: Mapping[str, float], seed: int) -> dict[str, Indices]:
    """Split samples at random so that every class is divided by the same shares.

    What rounding takes from a split in one class it gives back in the next, so that rare classes do not all end up in
    the largest split: a split's size is within one sample of its share for two splits, and close to it for more.

    Args:
        labels: class of each sample, (N,), of any type that NumPy can sort.
        shares: name of each split -> its share; they add up to 1.
        seed: decides which samples of a class go where.

    Raises:
        UserError: the shares do not add up to 1, or there is nothing to split.
    """
    weights = _weights(shares)
    classes, codes = np.unique(_column(labels, "labels"), return_inverse=True)
    generator = np.random.default_rng(seed)
    parts: list[list[Indices]] = [[] for _ in weights]
    carry = np.zeros(len(weights))
    for code in range(len(classes)):
        members = generator.permutation(np.flatnonzero(codes == code))
        quota = weights * len(members) + carry
        counts = _apportion(quota, len(members))
        carry = quota - counts
        for part, chosen in zip(parts, np.split(members, np.cumsum(counts)[:-1]), strict=True):
            part.append(chosen)
    return {name: np.sort(np.concatenate(part)) for name, part in zip(shares, parts, strict=True)}


def grouped(
    groups: ArrayLike, shares: Mapping[str, float], seed: int, labels: ArrayLike | None = None
) -> dict[str, Indices]:
    """Split samples at random so that no group (patient, video, field, image) is in two splits.

    Groups come in random order; each goes where it brings the sizes closest to the shares. With `labels` that holds
    for every class separately, so that the classes are divided alike as far as whole groups allow. Every split gets
    at least one group.

    Args:
        groups: group of each sample, (N,), of any type that NumPy can sort.
        shares: name of each split -> its share of the samples; they add up to 1.
        labels: class of each sample, (N,).

    Raises:
        UserError: the shares do not add up to 1, there are fewer groups than splits, or the lengths differ.
    """
    weights = _weights(shares)
    names, group_of = np.unique(_column(groups, "groups"), return_inverse=True)
    if len(names) < len(weights):
        raise UserError(f"splits: {len(names)} groups cannot fill {len(weights)} splits; use fewer splits or more data")
    class_of = np.zeros(len(group_of), dtype=np.int64)
    if labels is not None:
        _, class_of = np.unique(_column(labels, "labels"), return_inverse=True)
        if len(class_of) != len(group_of):
            raise UserError(f"splits: {len(class_of)} labels for {len(group_of)} samples; give each sample one label")
    sizes = np.zeros((len(names), class_of.max() + 1))  # samples per group and class
    np.add.at(sizes, (group_of, class_of), 1)
    order = np.random.default_rng(seed).permutation(len(names))
    chosen = _assign(sizes, weights, order)
    return {name: np.flatnonzero(chosen[group_of] == split) for split, name in enumerate(shares)}


def connected(count: int, pairs: Iterable[tuple[int, int]]) -> Indices:
    """Groups of what must not be parted: (count,) of each number the smallest one that pairs connect it with."""
    parent = list(range(count))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for first, second in pairs:
        one, other = sorted((root(first), root(second)))
        parent[other] = one
    return np.array([root(number) for number in range(count)], np.int64)


def check_disjoint(splits: Mapping[str, Sequence[Hashable]], what: str) -> None:
    """Refuse splits that share something: the leak check of a `prepare`.

    Args:
        splits: name -> what its samples come from (patients, files, hashes), repetitions allowed.
        what: the plural noun for the message, such as "patients".

    Raises:
        UserError: names two splits and some of what they share.
    """
    seen = {name: set(items) for name, items in splits.items()}
    names = list(seen)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            shared = seen[first] & seen[second]
            if shared:
                examples = ", ".join(sorted(map(str, shared))[:3])
                more = ", ..." if len(shared) > 3 else ""
                raise UserError(
                    f"splits: {len(shared)} {what} are in both {first} and {second} ({examples}{more}); "
                    f"split by {what} or remove the duplicates"
                )


def _weights(shares: Mapping[str, float]) -> NDArray[np.float64]:
    weights = np.array(list(shares.values()), dtype=np.float64)
    if len(weights) == 0 or not np.all(weights > 0) or abs(weights.sum() - 1) > 1e-6:
        given = ", ".join(f"{name} {share:g}" for name, share in shares.items()) or "nothing"
        raise UserError(f"splits: shares must be positive and add up to 1, but are {given}; change them")
    return weights / weights.sum()


def _column(values: ArrayLike, what: str) -> NDArray[np.generic]:
    column = np.asarray(values)
    if column.ndim != 1 or len(column) == 0:
        raise UserError(f"splits: {what} must be a list with an entry for each sample, but have shape {column.shape}")
    return column


def _apportion(quota: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Whole numbers >= 0 that add up to `total`, each as near to its quota as that allows (largest remainders)."""
    counts = np.maximum(np.floor(quota), 0).astype(np.int64)
    while counts.sum() < total:
        counts[np.argmax(quota - counts)] += 1
    while counts.sum() > total:
        counts[np.argmin(np.where(counts > 0, quota - counts, np.inf))] -= 1
    return counts


def _assign(sizes: NDArray[np.float64], weights: NDArray[np.float64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Split of each group: the one that most lacks what the group has.

    Args:
        sizes: samples per group and class, (G, C).
        weights: share of each split, (S,).
        order: in which groups are dealt, (G,).
    """
    per_class = sizes.sum(axis=0)
    scale = 1 / np.maximum(per_class, 1)  # a rare class counts as much as a common one
    lacking = weights[:, None] * per_class  # samples of each class that each split still needs, (S, C)
    chosen = np.empty(len(sizes), dtype=np.int64)
    for group in order:
        # Least squared error: of |lacking - group|^2 only -2 lacking . group depends on the split it goes to.
        split = int(np.argmax((lacking * scale**2) @ sizes[group]))
        chosen[group] = split
        lacking[split] -= sizes[group]
    for split in range(len(weights)):
        if not np.any(chosen == split):
            richest = np.bincount(chosen, minlength=len(weights)).argmax()
            members = np.flatnonzero(chosen == richest)
            chosen[members[sizes[members].sum(axis=1).argmin()]] = split
    return chosen
