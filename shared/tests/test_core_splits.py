"""Splits: complete, disjoint, in proportion, reproducible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_core.errors import UserError
from shared_core.splits import check_disjoint, grouped, stratified

SHARES = st.sampled_from(
    [
        {"train": 0.8, "test": 0.2},
        {"train": 0.7, "val": 0.15, "test": 0.15},
        {"a": 0.5, "b": 0.5},
        {"train": 0.98, "val": 0.01, "test": 0.01},
        {"only": 1.0},
        {str(k): 0.1 for k in range(10)},
    ]
)
SEEDS = st.integers(0, 2**32 - 1)


def assert_partition(parts: dict[str, np.ndarray], count: int) -> None:
    together = np.concatenate(list(parts.values()))
    assert sorted(together.tolist()) == list(range(count))
    for part in parts.values():
        assert part.dtype == np.int64 and np.all(np.diff(part) > 0)


@settings(deadline=None)
@given(labels=st.lists(st.integers(0, 6), min_size=1, max_size=200), shares=SHARES, seed=SEEDS)
def test_stratified_divides_every_class_and_the_whole(labels: list[int], shares: dict[str, float], seed: int) -> None:
    parts = stratified(labels, shares, seed)
    assert list(parts) == list(shares)
    assert_partition(parts, len(labels))
    array = np.array(labels)
    for name, share in shares.items():
        assert abs(len(parts[name]) - share * len(labels)) < 2
        if len(shares) == 2:
            assert abs(len(parts[name]) - share * len(labels)) < 1
        for label in set(labels):
            assert abs((array[parts[name]] == label).sum() - share * (array == label).sum()) < 2


def test_stratified_gives_rare_classes_to_every_split() -> None:
    """100 classes of one sample: rounding each class by itself would put all of them into train."""
    parts = stratified(np.arange(100), {"train": 0.8, "test": 0.2}, 0)
    assert {name: len(part) for name, part in parts.items()} == {"train": 80, "test": 20}


def test_the_seed_decides_and_nothing_else() -> None:
    labels = np.arange(1000) % 10
    shares = {"train": 0.9, "test": 0.1}
    one, again, other = (stratified(labels, shares, seed)["test"] for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    one, again, other = (grouped(labels, {"train": 0.5, "test": 0.5}, seed)["test"] for seed in (1, 1, 5))
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    # 100 test samples of 1000, drawn twice: about 10 in common if the draws are independent
    assert len(np.intersect1d(stratified(labels, shares, 1)["test"], stratified(labels, shares, 2)["test"])) < 30


def test_names_work_as_labels_and_groups() -> None:
    parts = stratified(["cat", "dog"] * 10, {"a": 0.5, "b": 0.5}, 0)
    assert len(parts["a"]) == 10
    parts = grouped(["p1", "p1", "p2", "p3"], {"a": 0.5, "b": 0.5}, 0)
    assert_partition(parts, 4)


@settings(deadline=None)
@given(
    groups=st.lists(st.integers(0, 40), min_size=1, max_size=300),
    shares=SHARES,
    seed=SEEDS,
    labelled=st.booleans(),
)
def test_grouped_keeps_groups_together_and_fills_every_split(
    groups: list[int], shares: dict[str, float], seed: int, labelled: bool
) -> None:
    labels = [group % 3 for group in range(len(groups))] if labelled else None
    if len(set(groups)) < len(shares):
        with pytest.raises(UserError, match="cannot fill"):
            grouped(groups, shares, seed, labels)
        return
    parts = grouped(groups, shares, seed, labels)
    assert_partition(parts, len(groups))
    assert all(len(part) for part in parts.values())
    array = np.array(groups)
    check_disjoint({name: array[part].tolist() for name, part in parts.items()}, "groups")


def test_grouped_comes_close_to_the_shares() -> None:
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(500), generator.integers(1, 20, 500))
    labels = (np.arange(500) % 10 == 0)[groups]  # a tenth of the groups
    shares = {"train": 0.7, "val": 0.1, "test": 0.2}
    for given_labels in (None, labels):
        parts = grouped(groups, shares, 0, given_labels)
        for name, share in shares.items():
            assert abs(len(parts[name]) / len(groups) - share) < 0.01
    for name in shares:  # of the last, with labels: the rare class is divided as well
        assert abs(labels[parts[name]].mean() - labels.mean()) < 0.01


def test_grouped_does_not_give_large_groups_to_one_split() -> None:
    """Which split gets the largest group is left to chance, or sizes and splits would be confounded."""
    groups = np.repeat(np.arange(60), [1] * 30 + [5] * 30)
    sizes = []
    for seed in range(40):
        test = grouped(groups, {"train": 0.8, "test": 0.2}, seed)["test"]
        sizes.append(np.mean(groups[test] >= 30))
    assert abs(np.mean(sizes) - 150 / 180) < 0.05


@pytest.mark.parametrize("shares", [{}, {"a": 0.5}, {"a": 1.5, "b": -0.5}, {"a": 1.0, "b": 0.0}, {"a": float("nan")}])
def test_shares_that_are_none(shares: dict[str, float]) -> None:
    with pytest.raises(UserError, match="shares must be positive and add up to 1"):
        stratified([0, 1], shares, 0)


def test_nothing_to_split() -> None:
    with pytest.raises(UserError, match=r"labels .*shape \(0,\)"):
        stratified([], {"a": 1.0}, 0)
    with pytest.raises(UserError, match=r"shape \(2, 2\)"):
        grouped(np.zeros((2, 2)), {"a": 1.0}, 0)
    with pytest.raises(UserError, match="3 labels for 2 samples"):
        grouped([1, 2], {"a": 0.5, "b": 0.5}, 0, labels=[0, 1, 2])


def test_leaks_are_named() -> None:
    check_disjoint({"train": ["a", "a", "b"], "val": ["c"], "test": np.array(["d"])}, "patients")  # type: ignore[dict-item]
    with pytest.raises(
        UserError, match=r"4 patients are in both train and test \(p1, p2, p3, \.\.\.\); split by patients"
    ):
        check_disjoint(
            {"train": ["p1", "p2", "p3", "p4", "x"], "val": ["v"], "test": ["p4", "p3", "p2", "p1"]}, "patients"
        )
    with pytest.raises(UserError, match=r"1 images are in both val and test \(7\)"):
        check_disjoint({"train": [1], "val": [7], "test": [np.int64(7)]}, "images")
