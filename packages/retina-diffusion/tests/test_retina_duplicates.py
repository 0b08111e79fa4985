"""Photographs that are there twice: found, merged into one, and told."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retina_diffusion import duplicates, framing, merging, pictures, sources
from retina_diffusion.data_config import Data
from retina_diffusion.duplicates import Pair


@given(st.integers(0, 999), st.integers(2, 12), st.floats(-0.5, 0.99))
@settings(max_examples=25, deadline=None)
def test_pairs_are_those_that_correlate(seed: int, count: int, alike: float) -> None:
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (count, 3, 3)).astype(np.uint8)
    found = duplicates.pairs(small, alike)
    wanted = np.corrcoef(small.reshape(count, -1))
    for i in range(count):
        for j in range(i + 1, count):
            if abs(wanted[i, j] - alike) > 1e-5:
                assert ((i, j) in {pair[:2] for pair in found}) == (wanted[i, j] > alike)
    assert all(pair.first < pair.second for pair in found) and len({pair[:2] for pair in found}) == len(found)
    assert np.allclose([pair.correlation for pair in found], [wanted[pair[:2]] for pair in found], atol=1e-5)


def test_many_photographs_are_compared_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    small = np.random.default_rng(0).integers(0, 256, (40, 4, 4)).astype(np.uint8)
    at_once = duplicates.pairs(small, 0.3)
    monkeypatch.setattr(duplicates, "AT_ONCE", 7)
    by_piece = duplicates.pairs(small, 0.3)
    assert len(at_once) > 20 and {pair[:2] for pair in by_piece} == {pair[:2] for pair in at_once}


def test_brightness_does_not_matter_and_flat_ones_are_like_no_other() -> None:
    x = np.random.default_rng(0).integers(0, 100, (1, 8, 8)).astype(np.uint8)
    found = duplicates.pairs(np.concatenate([x, 2 * x + 9, 100 - x, np.full((2, 8, 8), 7, np.uint8)]))
    assert [pair[:2] for pair in found] == [(0, 1)]


def test_groups_are_connected() -> None:
    found = duplicates.groups(6, [Pair(0, 3, 1.0), Pair(3, 5, 1.0), Pair(1, 2, 1.0)]).tolist()
    assert found[0] == found[3] == found[5] and found[1] == found[2] and len(set(found)) == 3
    assert sorted(duplicates.groups(3, []).tolist()) == [0, 1, 2]


def row(name: str, split: str | None = None, masks: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    rest = {"grade": None, "caption": None, "known": [*masks, "FOV"], "place": [0, ord(name[0])]}
    return {"name": name, "split": split, "masks": list(masks), **rest, **more}


def test_one_row_for_each_photograph() -> None:
    rows = [
        row("a", "train", grade=2),
        row("b", "train"),
        row("c", "test", ("MA", "HE")),
        row("d", "train", grade=3, caption="Drusen."),
    ]
    alone, kept = sorted(merging.merged(rows, [0, 1, 0, 0]), key=lambda one: one["name"])
    assert alone == {**rows[1], "also": []}
    assert kept["place"] == rows[2]["place"] and kept["masks"] == ["MA", "HE"]  # where the masks are
    assert (kept["grade"], kept["caption"], kept["also"]) == (2, "Drusen.", ["a", "d"])


@pytest.mark.parametrize(
    ("splits", "wanted"),
    [
        (("train", "test"), "test"),
        (("test", "val"), "test"),
        (("val", "train"), "val"),
        ((None, "train"), "train"),
        ((None, None), None),
    ],
)
def test_what_is_judged_never_trains(splits: tuple[str | None, str | None], wanted: str | None) -> None:
    for first, second in (splits, splits[::-1]):
        (kept,) = merging.merged([row("a", first, ("OD",)), row("b", second)], [0, 0])
        assert kept["split"] == wanted


def test_what_is_judged_keeps_its_own_label() -> None:
    """IDRiD's B-test-064 has grade 3; the same photograph is B-train-118 with grade 0."""
    for rows in ([row("a", "train", grade=0), row("b", "test", grade=3)],
                 [row("b", "test", grade=3), row("a", "train", ("OD",), grade=0)]):  # fmt: skip
        (kept,) = merging.merged(rows, [0, 0])
        assert (kept["split"], kept["grade"]) == ("test", 3)


def test_a_pair_is_told_with_its_leak_and_its_quarrel() -> None:
    rows = [row("a", "train", grade=0), row("b", "test", grade=3), row("c", "test")]
    assert merging.described(rows, [Pair(0, 1, 0.99987), Pair(1, 2, 1.0)]) == [
        "a = b (correlation 0.9999, in splits train and test, grades 0 and 3)",
        "b = c (correlation 1.0000)",
    ]


def test_the_real_duplicates() -> None:
    """As counted by other means: 60 photographs with masks are graded ones too, and 6 graded ones are there twice."""
    folder = Path(os.environ.get("TEST_DATA_DIR", "")) / "idrid-715px"
    if "TEST_DATA_DIR" not in os.environ or not folder.is_dir():
        pytest.skip("set TEST_DATA_DIR to a folder with idrid-715px to compare real photographs")
    found = sources.items(Data(source=str(folder)))
    small = np.stack([framing.thumbnail(pictures.read(item.record.image)) for item in found])  # type: ignore[union-attr]
    same = [tuple(found[k].name.replace("IDRiD_", "") for k in pair[:2]) for pair in duplicates.pairs(small)]
    assert {pair for pair in same if pair[0].startswith("B")} == {
        *(("B-train-021", "B-train-391"), ("B-train-028", "B-train-327"), ("B-train-045", "B-train-333")),
        *(("B-train-073", "B-train-375"), ("B-train-079", "B-train-279"), ("B-train-118", "B-test-064")),
    }
    both = {first for first, second in same if first.startswith("A") and second.startswith("B")}
    assert len(both) == 60 and len(same) == 68
    ways = {(a, b[:6]) for a, b in same if a.startswith("A") and b.startswith("B")}  # two are three times there
    assert Counter((a[:6], part) for a, part in ways) == {
        ("A-trai", "B-trai"): 42, ("A-test", "B-trai"): 15, ("A-trai", "B-test"): 3
    }  # fmt: skip
    records = [item.record for item in found]  # type: ignore[union-attr]
    rows = [{"name": r.name, "split": r.split, "grade": r.grade} for r in records]
    told = [line for line in merging.described(rows, duplicates.pairs(small)) if "grades" in line]
    assert [line[line.index("grades") :].rstrip(")") for line in told] == ["grades 1 and 2", "grades 4 and 3",
                                                                            "grades 0 and 3"]  # fmt: skip
    assert len(set(duplicates.groups(len(found), duplicates.pairs(small)).tolist())) == 531
