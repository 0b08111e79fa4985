"""The course's answer file: CSV with the header ``id,label``, one row per pair, labels 0 or 1."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from shared_core import files
from shared_core.errors import UserError

HEADER = ["id", "label"]
SHOWN = 3  # defects spelled out in one message


def write(path: Path, ids: Sequence[str] | np.ndarray, labels: Sequence[int] | np.ndarray) -> None:
    """Write `labels` (integers 0 or 1, 1 = the left digit is larger) in the order of `ids`; whole or not at all.

    Raises UserError where the two differ in length, an id is empty, unprintable or there twice, or a label is neither
    0 nor 1.
    """
    names = [str(name) for name in ids]
    values = np.asarray(labels)
    if values.shape != (len(names),):
        raise UserError(f"{path}: {len(names)} ids but labels of shape {values.shape}: give one label per id")
    if len(set(names)) != len(names):
        raise UserError(f"{path}: an id occurs twice: each pair needs its own")
    odd = [name for name in names if not name or not name.isprintable()]
    if odd:
        raise UserError(f"{path}: id {odd[0]!r} is empty or holds a line break or another unprintable character")
    wrong = np.flatnonzero(~np.isin(values, (0, 1)))
    if len(wrong):
        raise UserError(f"{path}: label of {names[wrong[0]]} is {values[wrong[0]]}, expected 0 or 1")
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows((name, int(value)) for name, value in zip(names, values, strict=True))
    files.atomic_write(path, text.getvalue())


def check(path: Path, ids: Iterable[str]) -> None:
    """Check a submission against the `ids` of its test set.

    Raises UserError that names the first defects with their line numbers: columns other than ``id,label``, a label
    other than 0 or 1, an id that is unknown, missing or there twice, another delimiter, a byte-order mark, an
    empty file.
    """
    defects, labels = _parse(path)
    wanted = {str(name): None for name in ids}
    unknown = [name for name in labels if name not in wanted]
    missing = [name for name in wanted if name not in labels]
    if unknown:
        defects.append(f"{_count(unknown, 'unknown id')} such as {unknown[0]!r} (line {labels[unknown[0]][0]})")
    if missing:
        defects.append(f"{_count(missing, 'id')} without an answer, such as {missing[0]!r}")
    _refuse(path, defects)


def read(path: Path) -> dict[str, int]:
    """Labels by id of a well-formed file. Raises UserError as `check` does, short of comparing the ids."""
    defects, labels = _parse(path)
    _refuse(path, defects)
    return {name: label for name, (_, label) in labels.items()}


def _refuse(path: Path, defects: list[str]) -> None:
    if defects:
        more = f"; and {len(defects) - SHOWN} more" if len(defects) > SHOWN else ""
        raise UserError(f"{path}: no valid submission: {'; '.join(defects[:SHOWN])}{more}")


def _parse(path: Path) -> tuple[list[str], dict[str, tuple[int, int]]]:
    """Defects, and (line, label) by id of the rows that have an id; an unreadable label counts as -1."""
    defects: list[str] = []
    labels: dict[str, tuple[int, int]] = {}
    reader = csv.reader(io.StringIO(_text(path), newline=""))
    try:
        _header(path, next(reader, []))
        line = reader.line_num + 1  # a quoted id may span lines: count from the row's first
        for row in reader:
            defect = _row(row, line, labels)
            if defect:
                defects.append(f"line {line}: {defect}")
            line = reader.line_num + 1
    except csv.Error as error:
        defects.append(f"line {reader.line_num}: {error}")
    if not labels and not defects:
        defects.append("a header but no row")
    return defects, labels


def _row(row: list[str], line: int, labels: dict[str, tuple[int, int]]) -> str | None:
    """Enter a row into `labels`; what is wrong with it, if anything is."""
    if len(row) != 2:
        return f"{len(row)} columns, expected id,label" if row else "empty"
    name, value = row
    if name in labels:
        return f"id {name!r} is also on line {labels[name][0]}"
    labels[name] = (line, int(value) if value in ("0", "1") else -1)
    if value in ("0", "1"):
        return None
    return "no label" if not value.strip() else f"label {value!r}, expected 0 or 1"


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file: give the submission to check") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if not data.strip():
        raise UserError(f"{path}: empty: expected the header id,label and a row per pair")
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: begins with a byte-order mark: save it as UTF-8 without one")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: line {line}: not UTF-8 text: save it as plain CSV") from error


def _header(path: Path, row: list[str]) -> None:
    if row == HEADER:
        return
    shown = ",".join(row)
    for delimiter, spelled in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars"), (" ", "blanks")):
        if delimiter.join(HEADER) in (shown, shown.replace(delimiter + delimiter, delimiter)):
            raise UserError(f"{path}: line 1: columns are separated by {spelled}, expected commas")
    raise UserError(f"{path}: line 1: header {shown[:60]!r}, expected 'id,label'")


def _count(things: Sequence[object], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"
