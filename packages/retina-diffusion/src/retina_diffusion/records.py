"""What is known of a photograph before it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

GRADES = (
    "no diabetic retinopathy",
    "mild non-proliferative diabetic retinopathy",
    "moderate non-proliferative diabetic retinopathy",
    "severe non-proliferative diabetic retinopathy",
    "proliferative diabetic retinopathy",
)


@dataclass(frozen=True)
class Record:
    """A photograph with what belongs to it."""

    name: str  # unique in a data set
    image: Path
    split: str | None = None  # train, val or test, where the source says so
    masks: Mapping[str, Path] = field(default_factory=dict)  # by channel
    labels: Path | None = None  # one file instead, whose pixel values are numbers of classes
    known: tuple[str, ...] = ()  # channels that were looked for: without a mask there is none of it
    grade: int | None = None  # of diabetic retinopathy, 0 to 4
    caption: str | None = None
    where: str = ""  # the line of a list that says all this, for messages


def text(caption: str | None, grade: int | None) -> str:
    """The caption; that of the grade, where there is none; or nothing."""
    if caption is not None:
        return caption
    return "" if grade is None else f"Fundus photograph, {GRADES[grade]}."
