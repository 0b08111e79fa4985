"""Which images are to be drawn: of which masks, and for which grade."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from retina_diffusion.channels import LESIONS
from shared_core.errors import UserError

Balance = Literal["none", "grade", "lesion"]


class Order(NamedTuple):
    """One image: its number, and the row whose masks and text it is drawn from."""

    number: int
    row: int


def orders(
    rows: Sequence[dict[str, Any]], count: int | None, per_mask: int, balance: Balance, seed: int
) -> list[Order]:
    """Images of some rows (``grade``, ``masks``, ``known``, ``present``).

    Args:
        count: how many; default: `per_mask` of each row.
        balance: none: every row equally often, in turn; grade: every grade that there is equally often; lesion: images
            with each kind of lesion, and those that were searched for all and have none, equally often. Rows of a kind
            take turns, in random order.

    Raises UserError where nothing is known that could be balanced.
    """
    if balance == "none":
        total = per_mask * len(rows) if count is None else count
        return [Order(number, number % len(rows)) for number in range(total)]
    kinds = _grades(rows) if balance == "grade" else _lesions(rows)
    if len(kinds) < 2:
        what = "are all of one kind" if kinds else f"have no {'grade' if balance == 'grade' else 'masks of lesions'}"
        raise UserError(f"--balance {balance}: these {len(rows)} photographs {what}; leave it out")
    random = np.random.default_rng(seed)
    turns = [random.permutation(kind).tolist() for kind in kinds]
    total = per_mask * len(rows) if count is None else count
    return [
        Order(number, turns[number % len(turns)][number // len(turns) % len(turns[number % len(turns)])])
        for number in range(total)
    ]


def _grades(rows: Sequence[dict[str, Any]]) -> list[list[int]]:
    known = sorted({row["grade"] for row in rows if row["grade"] is not None})
    return [[index for index, row in enumerate(rows) if row["grade"] == grade] for grade in known]


def _lesions(rows: Sequence[dict[str, Any]]) -> list[list[int]]:
    with_masks = [index for index, row in enumerate(rows) if row["masks"]]
    kinds = [[index for index in with_masks if lesion in rows[index]["present"]] for lesion in LESIONS]
    looked_for = {lesion for row in rows for lesion in LESIONS if lesion in row["known"]}
    searched = [index for index in with_masks if looked_for and looked_for <= set(rows[index]["known"])]
    kinds.append([index for index in searched if not set(LESIONS) & set(rows[index]["present"])])
    return [kind for kind in kinds if kind]
