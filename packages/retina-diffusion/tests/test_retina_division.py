"""Splits: a partition, stratified, the source's own where it has one, and the same again."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retina_diffusion.data_config import Split
from retina_diffusion.division import divide
from shared_core.errors import UserError

Rows = list[dict[str, Any]]


def rows_of(seed: int, count: int, splits: tuple[str | None, ...] = (None,)) -> Rows:
    random = np.random.default_rng(seed)
    return [
        {
            "grade": [None, 0, 1, 2, 3, 4][random.integers(6)],
            "masks": ["MA"] if random.random() < 0.3 else [],
            "split": splits[random.integers(len(splits))],
        }
        for _ in range(count)
    ]


def kinds(rows: Rows, part: np.ndarray) -> Counter:
    return Counter((rows[k]["grade"], bool(rows[k]["masks"])) for k in part)


SPLITS = st.sampled_from(
    [(None,), ("train", "test"), ("train", "val", "test"), ("train", "val"), (None, "train", "test")]
)


@given(st.integers(0, 99), st.integers(60, 200), SPLITS, st.integers(0, 9), st.floats(0.3, 1), st.booleans())
@settings(max_examples=80, deadline=None)
def test_a_partition_that_keeps_the_sources_own(
    seed: int, count: int, splits: tuple[str | None, ...], split_seed: int, ratio: float, official: bool
) -> None:
    rows = rows_of(seed, count, splits)
    wanted = Split(seed=split_seed, official=official)
    whole, parts = divide(rows, wanted), divide(rows, wanted, ratio)
    assert sorted(np.concatenate(list(whole.values())).tolist()) == list(range(count))
    assert set(parts["train"]) <= set(whole["train"])
    assert all(np.array_equal(parts[name], whole[name]) for name in ("val", "test"))
    assert all(np.array_equal(np.sort(part), part) for part in parts.values())
    assert all(np.array_equal(part, divide(rows, wanted)[name]) for name, part in whole.items())
    if official and "test" in splits:
        assert whole["test"].tolist() == [k for k, row in enumerate(rows) if row["split"] == "test"]
    if official and "val" in splits and "test" in splits:
        assert whole["val"].tolist() == [k for k, row in enumerate(rows) if row["split"] == "val"]


@given(st.integers(0, 99), st.integers(100, 400), st.floats(0.1, 0.4), st.floats(0.1, 0.4))
@settings(max_examples=40, deadline=None)
def test_every_part_has_its_share_of_every_kind(seed: int, count: int, test: float, val: float) -> None:
    rows = rows_of(seed, count)
    parts = divide(rows, Split(test=test, val=val))
    shares = {"test": test, "val": (1 - test) * val, "train": (1 - test) * (1 - val)}
    for name, share in shares.items():
        assert abs(len(parts[name]) - share * count) <= 2
        found = kinds(rows, parts[name])
        assert all(abs(found[kind] - share * n) <= 2.5 for kind, n in kinds(rows, np.arange(count)).items())


@given(st.integers(0, 99), st.floats(0.2, 0.9))
@settings(max_examples=30, deadline=None)
def test_a_sample_is_stratified(seed: int, ratio: float) -> None:
    rows = rows_of(seed, 300)
    whole, part = divide(rows, Split())["train"], divide(rows, Split(), ratio)["train"]
    assert abs(len(part) - ratio * len(whole)) <= 1
    sampled = kinds(rows, part)
    assert all(abs(sampled[kind] - ratio * n) <= 1.5 for kind, n in kinds(rows, whole).items())


def test_what_a_source_calls_train_judges_nothing_where_others_can() -> None:
    """Generated images are of the split train: beside photographs without a split they are learned from alone."""
    rows = rows_of(0, 60, (None,)) + rows_of(1, 200, ("train",))
    parts = divide(rows, Split())
    assert {rows[k]["split"] for name in ("val", "test") for k in parts[name]} == {None}
    assert [len(parts[name]) for name in ("val", "test")] == [5, 9]


def test_seeds_divide_differently() -> None:
    rows = rows_of(0, 200)
    assert not np.array_equal(divide(rows, Split(seed=1))["test"], divide(rows, Split(seed=2))["test"])


def test_a_validation_split_of_the_sources_is_not_divided_again() -> None:
    rows = rows_of(0, 40, ("train",)) + rows_of(1, 10, ("val",)) + rows_of(2, 20, ("test",))
    parts = divide(rows, Split())
    assert {name: len(part) for name, part in parts.items()} == {"train": 40, "val": 10, "test": 20}
    parts = divide(rows, Split(official=False))
    assert {name: len(part) for name, part in parts.items()} == {"train": 53, "val": 6, "test": 11}


def test_an_empty_part_is_named() -> None:
    with pytest.raises(UserError, match=r"split\.test: the test split is empty; change the shares"):
        divide(20 * rows_of(0, 1), Split(test=0.01))
    with pytest.raises(UserError, match=r"split\.val: the val split is empty"):
        divide(20 * rows_of(0, 1), Split(val=0.01))
    rows = [{"grade": None, "masks": [], "split": split} for split in (*(20 * ["val"]), None)]
    with pytest.raises(UserError, match=r"split\.test and split\.val: the train split is empty; change the shares"):
        divide(rows, Split(test=0.89))


@pytest.mark.parametrize("splits", [("test",), ("val",), ("test", "val")])
def test_photographs_that_all_judge_train_nothing(splits: tuple[str, ...]) -> None:
    """As `predict --split test` draws them."""
    rows = [{"grade": k % 2, "masks": [], "split": splits[k % len(splits)]} for k in range(40)]
    with pytest.raises(UserError, match=f"split.official: all 40 photographs are of the split {' and '.join(splits)};"):
        divide(rows, Split())
    assert len(divide(rows, Split(official=False))["train"]) > 20


def test_a_share_that_leaves_nothing_is_named() -> None:
    rows = [{"grade": None, "masks": [], "split": None} for _ in range(20)]
    with pytest.raises(UserError, match=r"data\.sample_ratio: the train split is empty"):
        divide(rows, Split(), 0.001)
