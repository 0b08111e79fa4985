"""A table of columns, from a CSV, a Parquet file or the Hub, and errors that name the line.

Everything of a CSV is read as text first, so that nothing is guessed and a wrong value can be named.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shared_core import files
from shared_core.errors import UserError
from shared_core.schema import did_you_mean
from timeseries_dualmodal.raw import brief

MAX_BYTES = 8 * 2**30  # of an unpacked Parquet file
MISSING = ("", "NA", "N/A", "nan", "NaN", "NAN", "null", "NULL", "None")  # of numbers
_MAX_HEADER = 2**24
_MOST_WHOLE = 2.0**53  # up to here a float holds every whole number


@dataclass(frozen=True)
class Table:
    """N rows. Columns are known by their place, because names may be missing or double."""

    where: str  # the file or data set, for messages
    names: tuple[str, ...]
    columns: tuple[pa.ChunkedArray, ...]
    line: Callable[[int], int] | None = None  # of a row in a CSV, for messages

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    def place(self, row: int) -> str:
        """``line 2`` of a CSV's first row."""
        return f"row {row + 1}" if self.line is None else f"line {self.line(row)}"

    def find(self, name: str) -> int | None:
        """The place of a column, or None. Raises UserError where two columns have this name."""
        places = [place for place, known in enumerate(self.names) if known == name]
        if len(places) > 1:
            raise UserError(f"{self.where}: two columns are called {name}: rename one")
        return places[0] if places else None

    def demand(self, name: str, key: str) -> int:
        """The place of the column that the setting `key` names. Raises UserError where there is none."""
        place = self.find(name)
        if place is None:
            raise UserError(
                f"{self.where}: has no column {name!r}{did_you_mean(name, self.names)}, which --{key} names; it has "
                f"{brief(self.names)}"
            )
        return place

    def numbers(self, column: int) -> NDArray[np.float64]:
        """The values of a column, (N,), NaN where there is none. Raises UserError for a value that is no number."""
        values = self._values(column)
        if pa.types.is_string(values.type):
            values = pc.utf8_trim_whitespace(values)
            values = pc.if_else(pc.is_in(values, pa.array(MISSING)), None, values)
        try:
            if pa.types.is_temporal(values.type) or pa.types.is_nested(values.type):
                raise pa.ArrowInvalid(f"holds {values.type}")
            return pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
        except pa.ArrowException:
            raise UserError(
                f"{self.where}: {self._first_wrong(values)} in column {self.names[column]!r} is no number; correct it, "
                "or name the columns to read: --data.variables, and those of another kind: --data.label, --data.groups"
            ) from None

    def texts(self, column: int) -> NDArray[np.str_]:
        """The values of a column as text, (N,), empty where there is none; 2016.0 reads 2016."""
        values = self._values(column)
        try:
            if pa.types.is_floating(values.type) and pc.all(pc.equal(pc.floor(values), values)).as_py():
                low, high = pc.min_max(values).as_py().values()
                if low is not None and low >= -_MOST_WHOLE and high <= _MOST_WHOLE:
                    values = pc.cast(values, pa.int64())
            texts = pc.utf8_trim_whitespace(pc.fill_null(pc.cast(values, pa.string()), ""))
        except pa.ArrowException:  # lists
            raise UserError(
                f"{self.where}: column {self.names[column]!r} holds {values.type}; expected text or numbers"
            ) from None
        return np.array(texts.to_pylist(), np.str_)

    def _values(self, column: int) -> pa.ChunkedArray:
        """A column, all text as strings. Raises UserError for one that is not UTF-8, which Parquet does not check."""
        values = _plain(self.columns[column])
        if not (pa.types.is_string(values.type) or pa.types.is_binary(values.type)):
            return values
        try:
            values = pc.cast(values, pa.string())
            values.validate(full=True)
        except pa.ArrowException:
            raw = pc.cast(values, pa.binary()).to_pylist()
            row = next(row for row, value in enumerate(raw) if value is not None and not _is_utf8(value))
            raise UserError(
                f"{self.where}: {self.place(row)} in column {self.names[column]!r} is no UTF-8; write it as text, or "
                "leave the column out"
            ) from None
        return values

    def _first_wrong(self, values: pa.ChunkedArray) -> str:
        for row, value in enumerate(values):
            try:
                value.cast(pa.float64())
            except pa.ArrowException:
                return f"{self.place(row)}: {str(value)[:40]!r}"
        return "a value"


def from_csv(path: Path) -> Table:
    """A CSV with a header line; its columns are separated by commas, semicolons or tabs.

    Raises:
        UserError: the file is missing, empty, no text, has no header, or its rows are of different lengths.
    """
    from pyarrow import csv as arrow

    header, delimiter = _header(path)
    line = partial(_line_of, path, delimiter)
    try:
        table = arrow.read_csv(
            path,
            arrow.ReadOptions(use_threads=False),  # else a wrong row's number is unknown
            arrow.ParseOptions(delimiter=delimiter),
            arrow.ConvertOptions(column_types={name: pa.string() for name in header}),
        )
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: {_reason(str(error), line)}") from error
    except OSError as error:
        raise files.explain(error, path) from error
    names, columns = tuple(table.column_names), tuple(table.columns)
    if names and names[0] == "":  # the row numbers that pandas writes
        names, columns = names[1:], columns[1:]
    _refuse_headerless(path, names)
    return Table(str(path), names, columns, line)


def from_parquet(path: Path) -> Table:
    """A Parquet file. Raises UserError where it is missing, truncated or none."""
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            unpacked = sum(file.metadata.row_group(group).total_byte_size for group in range(file.num_row_groups))
            if unpacked > MAX_BYTES:
                raise UserError(f"{path}: unpacks to more than {MAX_BYTES // 2**30} GiB; give a smaller file")
            files.check_ratio(path, unpacked, path.stat().st_size)
            table = file.read()
    except pa.ArrowException as error:
        raise UserError(f"{path}: is no whole Parquet file ({_line(error)}); get or make it again") from error
    except OSError as error:
        if error.errno is None:  # Arrow's way to say that a page is damaged
            raise UserError(f"{path}: is no whole Parquet file ({_line(error)}); get or make it again") from error
        raise files.explain(error, path) from error
    return Table(str(path), tuple(table.column_names), tuple(table.columns))


def from_hub(name: str, revision: str | None) -> Table:
    """A data set of the Hub; where it has several splits, they are one table with a column `split`.

    Raises:
        UserError: it cannot be had, its splits have different columns, or it has no rows.
    """
    from shared_core import hub

    where = f"hub:{name}"
    parts = dict(hub.dataset(name, revision))
    tables = {part: _named(dataset.with_format("arrow")[:], dataset.features) for part, dataset in parts.items()}
    if len(tables) > 1 and not any("split" in table.column_names for table in tables.values()):
        tables = {
            part: table.append_column("split", pa.array([part] * len(table), pa.string()))
            for part, table in tables.items()
        }
    try:
        table = pa.concat_tables(tables.values())
    except pa.ArrowInvalid as error:
        raise UserError(f"{where}: its splits {', '.join(tables)} have different columns ({_line(error)})") from error
    return Table(where, tuple(table.column_names), tuple(table.columns))


def _named(table: pa.Table, features: dict[str, Any]) -> pa.Table:
    """Class numbers as the names that the data set gives them."""
    for place, name in enumerate(table.column_names):
        labels = getattr(features.get(name), "names", None)
        if labels is not None:
            texts = [None if code is None or code < 0 else labels[code] for code in table[name].to_pylist()]
            table = table.set_column(place, name, pa.array(texts, pa.string()))
    return table


def _header(path: Path) -> tuple[list[str], str]:
    """Names of the columns, and what separates them."""
    try:
        with path.open("rb") as stream:
            line = stream.readline(_MAX_HEADER)
    except OSError as error:
        raise files.explain(error, path) from error
    if not line.strip():
        raise UserError(f"{path}: is empty, or its first line is; expected a header line with the columns' names")
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"{path}: is no CSV in UTF-8; save it as one, or give a .parquet or .npz by that ending")
    delimiter = max(",;\t", key=text.count)
    return next(csv.reader([text], delimiter=delimiter)), delimiter


def _refuse_headerless(path: Path, names: tuple[str, ...]) -> None:
    """Names that are numbers are data, unless they count the columns."""
    numbers = [name for name in names if re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", name)]
    counted = any(numbers == [str(start + place) for place in range(len(numbers))] for start in (0, 1))
    if 2 * len(numbers) > len(names) and not counted:
        raise UserError(f"{path}: line 1 holds numbers ({brief(tuple(numbers), 3)}), not names; add a header line")


def _line_of(path: Path, delimiter: str, row: int) -> int:
    """The line on which a row begins. Rows do not count blank lines, and a quoted value may span several lines."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        reader = csv.reader(stream, delimiter=delimiter)
        rows, begin = -1, 1  # the header comes before row 0
        try:
            for cells in reader:
                if cells and rows == row:
                    return begin
                rows += bool(cells)
                begin = reader.line_num + 1
        except csv.Error:  # a value too long for this reader
            pass
    return row + 2


def _reason(message: str, line: Callable[[int], int]) -> str:
    """Arrow's complaint about a CSV in our words."""
    ragged = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", message)
    if ragged:
        row, expected, found = ragged.groups()
        return f"line {line(int(row) - 2)} has {found} values where the header has {expected}; complete or remove it"
    wrong = re.search(r"In CSV column #(\d+): Row #(\d+): .*invalid UTF8", message)
    if wrong:
        return f"line {line(int(wrong[2]) - 2)}, column {int(wrong[1]) + 1} is no UTF-8; save the file as UTF-8"
    return f"is no CSV ({message.splitlines()[0][:200]}); get or make it again"


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without dictionaries, views and large forms: text is a string, or binary."""
    if pa.types.is_dictionary(values.type):
        values = pc.cast(values, values.type.value_type)
    kind = values.type
    if pa.types.is_null(kind):
        return pc.cast(values, pa.string())
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_large_binary(kind):
        return pc.cast(values, pa.binary())
    if pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind):
        return pc.cast(values, pa.binary())
    return values


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _line(error: Exception) -> str:
    return (str(error).splitlines() or ["damaged"])[0][:200]
