"""What a report consists of, independent of how it is written: HTML and Markdown render the same blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from shared_core.intervals import Estimate

Tone = Literal["", "good", "bad", "muted"]


@dataclass(frozen=True)
class Remark:
    """A line of text that may be good or bad news."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Cell:
    """A table cell; `small` lines stand below its text."""

    text: str
    small: tuple[Remark, ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first column names the row, the others hold numbers."""

    columns: list[str]
    rows: list[list[Cell]]
    title: str = ""


@dataclass(frozen=True)
class Candidate:
    """One line of the headline's picture of intervals."""

    name: str
    estimate: Estimate
    is_run: bool
    what: str = ""


@dataclass(frozen=True)
class Headline:
    """The number a reader came for, what it is worth, and what it is to be compared with."""

    label: str
    estimate: Estimate
    detail: str
    candidates: list[Candidate]
    verdicts: list[Remark]


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    pairs: list[tuple[str, str]]


@dataclass(frozen=True)
class Pictures:
    """PNG files; their captions are inside them (`figures.describe`)."""

    paths: list[Path]


@dataclass(frozen=True)
class Code:
    """Text in a fixed-width font; with a `summary` it is folded away behind it."""

    text: str
    summary: str = ""


@dataclass(frozen=True)
class Notes:
    items: list[Remark]


Block = Table | Facts | Pictures | Code | Notes


@dataclass(frozen=True)
class Section:
    title: str
    blocks: list[Block]


@dataclass(frozen=True)
class Document:
    """A whole report: `chips` are short remarks beside the title."""

    kind: str
    title: str
    subtitle: str
    chips: list[Remark]
    headline: Headline | None
    sections: list[Section] = field(default_factory=list)
