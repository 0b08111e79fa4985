"""Splits: their shares, that copies and groups stay together, and clear refusals."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_core.errors import UserError
from timeseries_dualmodal.data_config import Data, Split
from timeseries_dualmodal.division import copies, divide, leaks
from timeseries_dualmodal.readers import read
from timeseries_dualmodal.series import SeriesSet


def series(y: list[int], x: np.ndarray | None = None, **groups: list[str]) -> SeriesSet:
    n = len(y)
    x = np.arange(n, dtype=np.float32).reshape(n, 1, 1) * np.ones((1, 1, 3), np.float32) if x is None else x
    return SeriesSet(
        x=x,
        y=np.array(y, np.int64),
        ids=np.array([f"s{row}" for row in range(n)]),
        variables=("a",),
        classes=tuple(f"class{code}" for code in range(max(y) + 1)),
        times=np.arange(x.shape[2], dtype=np.float64),
        groups={name: np.array(values) for name, values in groups.items()},
    )


def test_random_splits_have_their_shares_in_every_class() -> None:
    """The predecessor's: 20 % test, then 10 % of the rest, of 5,557 series in four classes."""
    y = np.repeat([0, 1, 2, 3], [671, 1210, 1288, 2388])
    parts = divide(series(y.tolist()), Split())
    assert {name: len(rows) for name, rows in parts.items()} == pytest.approx(
        {"train": 4000, "val": 445, "test": 1112}, abs=2
    )
    for rows, share in ((parts["test"], 0.2), (parts["val"], 0.08), (parts["train"], 0.72)):
        assert np.bincount(y[rows]) == pytest.approx(np.bincount(y) * share, abs=2)
        assert (np.diff(rows) > 0).all()


def test_the_seed_decides() -> None:
    set_ = series([0, 1] * 40)
    first, again, other = (divide(set_, Split(seed=seed)) for seed in (1, 1, 2))
    assert np.array_equal(first["test"], again["test"]) and not np.array_equal(first["test"], other["test"])


VALUES = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 1), st.sampled_from("abcdef")), min_size=40, max_size=80
).filter(
    lambda rows: (
        len({value for value, _, _ in rows}) > 4 and min(Counter(y for _, y, _ in rows).values(), default=0) > 12
    )
)


@settings(max_examples=60, deadline=None)
@given(VALUES, st.integers(0, 5), st.sampled_from(["random", "grouped", "hold_out"]))
def test_no_two_equal_series_are_in_different_splits(rows: list[tuple[int, int, str]], seed: int, kind: str) -> None:
    values = np.array([value for value, _, _ in rows], np.float32)
    x = np.repeat(values[:, None, None], 3, axis=2)
    x[values == 0, :, 1:] = np.nan  # gaps count too
    set_ = series([y for _, y, _ in rows], x, place=[place for _, _, place in rows])
    split = {
        "random": Split(seed=seed),
        "grouped": Split(kind="grouped", by="place", seed=seed),
        "hold_out": Split(hold_out=(f"place={rows[0][2]}",), seed=seed),
    }[kind]
    try:
        parts = divide(set_, split)
    except UserError:
        return  # so few series that a split or a class of training is empty
    seen = [set(values[part].tolist()) for part in parts.values()]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    together = np.concatenate([*parts.values()])
    assert len(set(together.tolist())) == len(together)
    if kind == "random":
        assert len(together) == len(rows)
    if kind == "hold_out":
        assert np.array_equal(parts["test"], np.flatnonzero(set_.groups["place"] == rows[0][2]))
    if kind == "grouped":
        places = [set(set_.groups["place"][part].tolist()) for part in parts.values()]
        assert not (places[0] & places[1] or places[0] & places[2] or places[1] & places[2])


def test_copies_are_known_by_value_and_gap() -> None:
    nan, other_nan = np.float32(np.nan), np.frombuffer(b"\x01\x00\xc0\xff", np.float32)[0]
    x = np.array([[1, nan], [1, other_nan], [0.0, 2], [-0.0, 2], [1, 2], [nan, 1], [nan, nan], [nan, nan]], np.float32)
    assert np.isnan(other_nan)
    codes = copies(x[:, None, :])
    assert codes[0] == codes[1] and codes[2] == codes[3]
    assert len(set(codes.tolist())) == 6  # the last two have no value, and are not taken for each other


def test_copies_of_held_out_series_are_left_out_and_told() -> None:
    x = np.arange(40, dtype=np.float32).reshape(40, 1, 1)
    x[20:23] = x[:3]  # three of the region that trains equal three that are held out
    set_ = series([0, 1] * 20, x, region=["held"] * 20 + ["other"] * 20)
    parts = divide(set_, Split(hold_out=("region=held",)))
    assert np.array_equal(parts["test"], np.arange(20))
    assert not np.isin(np.concatenate([parts["train"], parts["val"]]), [20, 21, 22]).any()
    assert "3 series are left out of train and val" in " ".join(leaks(set_, parts))


def test_several_values_are_held_out_together() -> None:
    set_ = series([0, 1] * 30, region=["a", "a", "b", "b", "c", "c"] * 10, year=["1"] * 30 + ["2"] * 30)
    parts = divide(set_, Split(hold_out=("region=a", "region=b")))
    assert set(set_.groups["region"][parts["test"]]) == {"a", "b"}
    parts = divide(set_, Split(hold_out=("region=a", "year=2")))
    rest = np.concatenate([parts["train"], parts["val"]])
    assert "a" not in set_.groups["region"][rest] and "2" not in set_.groups["year"][rest]


def test_a_source_in_two_splits_is_told() -> None:
    set_ = series([0, 1] * 200, field=[f"f{row // 2}" for row in range(400)], region=["a", "b", "b", "a"] * 100)
    lines = leaks(set_, divide(set_, Split()))
    assert any(line.split(" ", 1)[1].startswith("values of field are in train and test") for line in lines)
    assert any("every region of the test split is in train too" in line for line in lines)
    lines = leaks(set_, divide(set_, Split(kind="grouped", by="field")))
    assert not any("field" in line for line in lines)
    lines = leaks(set_, divide(set_, Split(hold_out=("region=a",))))
    assert not any("region" in line for line in lines)


def test_splits_that_share_copies_are_told() -> None:
    x = np.ones((4, 1, 1), np.float32)
    parts = {"train": np.array([0]), "val": np.array([1]), "test": np.array([2, 3])}
    lines = " ".join(leaks(series([0, 1, 0, 1], x), parts))
    assert (
        "1 series of val have an exact copy in train" in lines
        and "2 series of test have an exact copy in train" in lines
    )


def test_a_class_that_only_the_test_lacks_is_a_note() -> None:
    set_ = series([0, 1] * 30 + [2] * 6, region=["a", "a", "b", "b"] * 15 + ["a"] * 6)
    parts = divide(set_, Split(hold_out=("region=b",)))
    assert any("test has no series of class class2" in line for line in leaks(set_, parts))


@pytest.mark.parametrize(
    ("split", "words"),
    [
        (Split(hold_out=("region=a",)), r"training has no series of class class2; .*--data\.drop_classes class2"),
        (Split(hold_out=("region=Notrh",)), r"no region is 'Notrh' \(did you mean north\?\); there are a, b, north"),
        (Split(hold_out=("regoin=a",)), r"split\.hold_out: 'regoin' is no group column .*did you mean region\?"),
        (Split(hold_out=("region=a", "region=b", "region=north")), "is every series, which leaves none to train on"),
        (Split(hold_out=("region",)), r"split\.hold_out: 'region' is not of the form COLUMN=VALUE; write region=north"),
        (Split(hold_out=("region=",)), r"no region is ''; there are a, b, north"),
        (Split(kind="grouped"), r"split\.by: kind grouped needs the column to go by; there are region"),
        (Split(kind="grouped", by="field"), r"split\.by: 'field' is no group column .*--data\.groups"),
    ],
)
def test_splits_that_cannot_be_are_refused(split: Split, words: str) -> None:
    set_ = series([0, 1] * 30 + [2] * 6, region=["north"] * 30 + ["b"] * 30 + ["a"] * 6)
    with pytest.raises(UserError, match=words) as caught:
        divide(set_, split)
    assert "\n" not in str(caught.value)


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(UserError, match=r"val would have none of the 8 series; change --split\.test"):
        divide(series([0, 1] * 4), Split(val=0.01))


def test_a_set_without_groups_says_where_to_name_some() -> None:
    with pytest.raises(UserError, match=r"--data\.groups"):
        divide(series([0, 1] * 10), Split(kind="grouped"))
    with pytest.raises(UserError, match=r"there are none; add it to --data\.groups"):
        divide(series([0, 1] * 10), Split(hold_out=("region=a",)))


def test_an_unlabelled_set_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="unlabelled"):
        divide(SeriesSet(np.zeros((2, 1, 1), np.float32), None, np.array(["a", "b"]), ("v",), (), np.zeros(1)), Split())


def test_the_pairs_of_real_data_stay_together() -> None:
    path = Path(os.environ.get("TEST_DATA_DIR", "")) / "cawa-ndvi" / "cawa_ndvi.csv"
    if "TEST_DATA_DIR" not in os.environ or not path.exists():
        pytest.skip("set TEST_DATA_DIR to a folder with cawa-ndvi/cawa_ndvi.csv to divide real series")
    set_ = read(Data(source=str(path), label="season", groups=("region", "year"), drop_classes=("unclear",)))
    codes = copies(set_.x)
    assert len(codes) - len(np.unique(codes)) > 80
    for split in (Split(), Split(hold_out=("region=Fergana",)), Split(kind="grouped", by="region")):
        parts = divide(set_, split)
        seen = [set(codes[rows].tolist()) for rows in parts.values()]
        assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert len(divide(set_, Split(hold_out=("region=Fergana",)))["test"]) == 2_390
