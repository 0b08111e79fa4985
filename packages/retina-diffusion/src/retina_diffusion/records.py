"""What is known of a photograph before it is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from retina_diffusion.channels import CHANNELS, LESIONS, Channel

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
    image: Path | None  # none where images are to be drawn of masks alone
    split: str | None = None  # train, val or test, where the source says so
    masks: Mapping[str, Path] = field(default_factory=dict)  # by channel
    labels: Path | None = None  # one file instead, whose pixel values are numbers of classes
    known: tuple[str, ...] = ()  # channels that were looked for: without a mask there is none of it
    grade: int | None = None  # of diabetic retinopathy, 0 to 4
    caption: str | None = None
    where: str = ""  # the line of a list that says all this, for messages


def searched(given: Collection[str], of_set: Collection[str]) -> tuple[Channel, ...]:
    """The channels that were looked for in a photograph.

    Those of which it has masks; and where it has one of a lesion, all lesions: nobody draws a mask of what is not
    there.

    Args:
        given: channels of its masks.
        of_set: channels of which there is any mask in the set.
    """
    lesions = set(LESIONS) & set(of_set) if set(LESIONS) & set(given) else set()
    return tuple(channel for channel in CHANNELS if channel in given or channel in lesions)


def text(caption: str | None, grade: int | None) -> str:
    """The caption; that of the grade, where there is none; or nothing."""
    if caption is not None:
        return caption
    return "" if grade is None else f"Fundus photograph, {GRADES[grade]}."
