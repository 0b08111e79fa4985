"""One row for each photograph, however often a source has it.

A photograph that is there twice keeps the place with the most masks and is judged, never trained on, if either is in
the source's test split. Grade and caption are those of the one that decides the split, where it has any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from retina_diffusion.duplicates import Pair

Row = dict[str, Any]
ORDER = ("test", "val", "train")


def merged(rows: Sequence[Row], groups: Sequence[int]) -> list[Row]:
    """Rows (``name, place, split, masks, known, grade, caption``), those of one group made into one."""
    by_group: dict[int, list[Row]] = {}
    for row, group in zip(rows, groups, strict=True):
        by_group.setdefault(int(group), []).append(row)
    return [_one(same) for same in by_group.values()]


def _one(same: list[Row]) -> Row:
    best = max(same, key=lambda row: len(row["masks"]))  # the first of equals
    if len(same) == 1:
        return {**best, "also": []}
    split = next((name for name in ORDER if any(row["split"] == name for row in same)), None)
    order = sorted([best, *(row for row in same if row is not best)], key=lambda row: row["split"] != split)
    found = {key: next((row[key] for row in order if row[key] is not None), None) for key in ("grade", "caption")}
    return {**best, **found, "split": split, "also": [row["name"] for row in same if row is not best]}


def described(rows: Sequence[Row], found: Sequence[Pair]) -> list[str]:
    """A line for each pair: who they are, whether a split lies between them, whether they disagree."""
    lines = []
    for pair in found:
        a, b = rows[pair.first], rows[pair.second]
        notes = [f"correlation {pair.correlation:.4f}"]
        if a["split"] != b["split"]:
            notes.append(f"in splits {a['split']} and {b['split']}")
        if None not in (a["grade"], b["grade"]) and a["grade"] != b["grade"]:
            notes.append(f"grades {a['grade']} and {b['grade']}")
        lines.append(f"{a['name']} = {b['name']} ({', '.join(notes)})")
    return lines
