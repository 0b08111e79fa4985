"""A table of columns, from a CSV, a Parquet file or the Hub, and errors that name the line.

Everything of a CSV is read as text first, so that nothing is guessed and a wrong value can be named.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Table:
    """N rows. Columns are known by their place, because names may be missing or double."""

    where: str  # the file or data set, for messages
    names: tuple[str, ...]
    columns: tuple[pa.ChunkedArray, ...]
    unit: str  # what a row is called in messages: a line of a CSV, else a row
    first: int  # number of the first row in messages

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    def place(self, row: int) -> str:
        """``line 2`` of a CSV's first row."""
        return f"{self.unit} {row + self.first}"

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
        values = _plain(self.columns[column])
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
        values = _plain(self.columns[column])
        if pa.types.is_nested(values.type):
            raise UserError(
                f"{self.where}: column {self.names[column]!r} holds {values.type}; expected text or numbers"
            )
        if pa.types.is_floating(values.type) and pc.all(pc.equal(pc.floor(values), values)).as_py():
            values = pc.cast(values, pa.int64())
        return np.array(pc.utf8_trim_whitespace(pc.fill_null(pc.cast(values, pa.string()), "")).to_pylist(), np.str_)

    def _first_wrong(self, values: pa.ChunkedArray) -> str:
        for row, value in enumerate(values.to_pylist()):
            try:
                float(value or 0)
            except (TypeError, ValueError):
                return f"{self.place(row)}: {str(value)[:40]!r}"
        return "a value"


def from_csv(path: Path) -> Table:
    """A CSV with a header line; its columns are separated by commas, semicolons or tabs.

    Raises:
        UserError: the file is missing, empty, no text, has no header, or its rows are of different lengths.
    """
    from pyarrow import csv as arrow

    header, delimiter = _header(path)
    try:
        table = arrow.read_csv(
            path,
            arrow.ReadOptions(use_threads=False),  # else a wrong row's number is unknown
            arrow.ParseOptions(delimiter=delimiter),
            arrow.ConvertOptions(column_types={name: pa.string() for name in header}),
        )
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: {_reason(str(error))}") from error
    except OSError as error:
        raise files.explain(error, path) from error
    names, columns = tuple(table.column_names), tuple(table.columns)
    if names and names[0] == "":  # the row numbers that pandas writes
        names, columns = names[1:], columns[1:]
    _refuse_headerless(path, names)
    return Table(str(path), names, columns, "line", 2)


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
    return Table(str(path), tuple(table.column_names), tuple(table.columns), "row", 1)


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
    return Table(where, tuple(table.column_names), tuple(table.columns), "row", 1)


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


def _reason(message: str) -> str:
    """Arrow's complaint about a CSV in our words."""
    ragged = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", message)
    if ragged:
        row, expected, found = ragged.groups()
        return f"line {row} has {found} values where the header has {expected}; complete or remove it"
    wrong = re.search(r"In CSV column #(\d+): Row #(\d+): .*invalid UTF8", message)
    if wrong:
        return f"line {wrong[2]}, column {int(wrong[1]) + 1} is no UTF-8; save the file as UTF-8"
    return f"is no CSV ({message.splitlines()[0][:200]}); get or make it again"


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without dictionaries and views."""
    if pa.types.is_dictionary(values.type):
        values = pc.cast(values, values.type.value_type)
    if pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type) or pa.types.is_null(values.type):
        values = pc.cast(values, pa.string())
    return values


def _line(error: Exception) -> str:
    return (str(error).splitlines() or ["damaged"])[0][:200]
