"""Which images are drawn: as many as asked, and balanced."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retina_diffusion.channels import LESIONS
from retina_diffusion.orders import orders
from shared_core.errors import UserError

Rows = list[dict[str, Any]]


def rows_of(seed: int, count: int) -> Rows:
    """The first two have what at least two kinds need."""
    random = np.random.default_rng(seed)
    rows: Rows = [
        {"grade": 0, "masks": [*LESIONS], "known": [*LESIONS], "present": []},
        {"grade": 1, "masks": ["MA"], "known": ["MA", "FOV"], "present": ["MA", "FOV"]},
    ]
    for _ in range(count):
        masks = [["MA", "HE", "EX", "SE"], ["MA", "HE", "EX", "SE"], ["OD"], ["EX", "OD"], []][random.integers(5)]
        present = [*(name for name in masks if random.random() < 0.4), "FOV"]
        rows.append(
            {
                "grade": [None, 0, 1, 2, 3, 4][random.integers(6)],
                "masks": masks,
                "known": [*masks, "FOV"],
                "present": present,
            }
        )
    return rows


ROWS = st.builds(rows_of, st.integers(0, 999), st.integers(0, 30))


@given(ROWS, st.integers(1, 200), st.integers(1, 3), st.sampled_from(["none", "grade", "lesion"]), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_as_many_as_asked(rows: Rows, count: int, per_mask: int, balance: Any, seed: int) -> None:
    found = orders(rows, count, per_mask, balance, seed)
    assert [order.number for order in found] == list(range(count))
    assert all(0 <= order.row < len(rows) for order in found)
    assert found == orders(rows, count, per_mask, balance, seed)
    assert found[: count // 2] == orders(rows, count // 2, per_mask, balance, seed)  # more are only added
    assert len(orders(rows, None, per_mask, balance, seed)) == per_mask * len(rows)


@given(ROWS, st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_every_row_equally_often(rows: Rows, count: int) -> None:
    times = Counter(order.row for order in orders(rows, count, 1, "none", 0))
    assert max(times.values()) - min(times[row] for row in range(len(rows))) <= 1


@given(ROWS, st.integers(5, 300), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_every_grade_equally_often_and_its_rows_in_turn(rows: Rows, count: int, seed: int) -> None:
    found = orders(rows, count, 1, "grade", seed)
    grades = Counter(rows[order.row]["grade"] for order in found)
    there = {row["grade"] for row in rows} - {None}
    assert set(grades) == there and max(grades.values()) - min(grades.values()) <= 1
    times = Counter(order.row for order in found)
    for grade in there:
        of_grade = [times[k] for k, row in enumerate(rows) if row["grade"] == grade]
        assert max(of_grade) - min(of_grade) <= 1


@given(ROWS, st.integers(5, 300), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_every_lesion_equally_often(rows: Rows, count: int, seed: int) -> None:
    found = orders(rows, count, 1, "lesion", seed)
    assert all(rows[order.row]["masks"] for order in found)  # nobody looked at the others
    kinds = [name for name in LESIONS if any(name in row["present"] for row in rows)] + ["none"]
    for order in found:
        kind, present = kinds[order.number % len(kinds)], rows[order.row]["present"]
        assert kind in present if kind != "none" else not set(LESIONS) & set(present)
        if kind == "none":  # of a photograph where nobody looked for lesions, nobody knows that there are none
            assert set(LESIONS) <= set(rows[order.row]["known"])


def test_rows_come_in_random_order() -> None:
    rows = [{"grade": k % 2, "masks": [], "present": []} for k in range(40)]
    assert orders(rows, 40, 1, "grade", 0) != orders(rows, 40, 1, "grade", 1)


@pytest.mark.parametrize("balance", ["grade", "lesion"])
def test_one_kind_cannot_be_balanced(balance: Any) -> None:
    rows: Rows = [{"grade": 2, "masks": ["MA"], "known": ["MA"], "present": ["MA"]}] * 5
    with pytest.raises(UserError, match=f"--balance {balance}: these 5 photographs are all of one kind; leave it out"):
        orders(rows, None, 1, balance, 0)


@pytest.mark.parametrize("balance", ["grade", "lesion"])
def test_what_is_not_known_cannot_be_balanced(balance: Any) -> None:
    disc = ["OD"] if balance == "lesion" else []
    rows: Rows = [{"grade": None, "masks": disc, "known": disc, "present": disc}] * 5
    with pytest.raises(UserError, match=f"--balance {balance}: these 5 photographs have no"):
        orders(rows, None, 1, balance, 0)
