"""The layouts of a table of series: by position, columns VARIABLE_TIME, or a row per series and time.

Shapes: N series, V variables, T steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shared_core.errors import UserError
from timeseries_dualmodal import timeaxis
from timeseries_dualmodal.data_config import Data
from timeseries_dualmodal.phenology import TIMES, VARIABLES
from timeseries_dualmodal.raw import brief, even_times, pick
from timeseries_dualmodal.series import Known

if TYPE_CHECKING:
    from timeseries_dualmodal.table import Table

BY_POSITION = ("time_major", "variable_major")
# dekads fall on the same days of a month every year, composites of 16 days on the same days of a year
COUNTS = (timeaxis.days, timeaxis.calendar_days, timeaxis.leap_calendar_days)
PREDECESSOR = len(VARIABLES) * len(TIMES)  # 518 values, known by position alone


@dataclass(frozen=True)
class Roles:
    """Places of the columns that hold no values of a series."""

    label: int | None = None
    id: int | None = None
    time: int | None = None
    groups: dict[str, int] = field(default_factory=dict)

    @property
    def taken(self) -> set[int]:
        """All of them."""
        return {place for place in (self.label, self.id, self.time) if place is not None} | set(self.groups.values())


@dataclass(frozen=True)
class Grid:
    """What a table holds, whatever its layout."""

    x: NDArray[np.float32]  # (N, V, T)
    variables: tuple[str, ...]
    times: NDArray[np.float64] | None  # (T,); None: the layout knows of none
    rows: NDArray[np.int64]  # (N,): the row of the table where a series begins
    roles: Roles
    by_position: bool = False


def read(table: Table, data: Data, labelled: bool, like: Known | None) -> Grid:
    """The series of a table, with all of its variables that `data` or `like` asks for.

    Raises UserError for an unknown layout and for columns that do not fit it.
    """
    roles = _roles(table, data, labelled, like)
    layout = _recognise(table, data, roles, labelled, like) if data.layout == "auto" else data.layout
    if layout == "long":
        return _long(table, data, roles, like)
    roles = replace(roles, time=None)
    if layout == "wide":
        return _wide(table, data, roles, like)
    return _by_position(table, data, roles, labelled, like, layout)


def _roles(table: Table, data: Data, labelled: bool, like: Known | None) -> Roles:
    """Where the columns are that `data` names. A file to be answered may lack the label and the groups."""

    def place(name: str | None, key: str, usual: tuple[str, ...], needed: bool = True) -> int | None:
        if name is not None:
            return table.demand(name, key) if needed else table.find(name)
        return next((found for one in usual if (found := table.find(one)) is not None), None)

    groups_needed = labelled and like is None
    groups = {name: place(name, "data.groups", (), groups_needed) for name in data.groups}
    return Roles(
        label=place(data.label, "data.label", ("label", "class"), labelled),
        id=place(data.id, "data.id", ("id", "sample_id")),
        time=place(data.time, "data.time", ("time", "date")),
        groups={name: column for name, column in groups.items() if column is not None},
    )


def _recognise(table: Table, data: Data, roles: Roles, labelled: bool, like: Known | None) -> str:
    if roles.time is not None:
        repeated = roles.id is not None and len(np.unique(table.texts(roles.id))) < len(table)
        if data.time is not None or repeated:
            return "long"
    wide = _named(table, replace(roles, time=None))
    variables = {column.variable for column in wide.values()}
    if _is_predecessors(table, data, roles, labelled, like) and len(variables) != len(VARIABLES):
        return "time_major"
    wanted = set(data.variables if like is None else like.variables)
    if len(wide) > 1 and (not wanted or wanted & variables):
        return "wide"
    if like is not None and like.variables == VARIABLES:  # a shorter file of the predecessor's kind
        return "time_major"
    positional = "--data.layout time_major or variable_major"
    if wanted:
        raise UserError(f"{table.where}: the columns can be read by position only; say {positional}")
    raise UserError(
        f"{table.where}: no known layout in the columns {brief(table.names)}; name them VARIABLE_TIME (ndvi_doy001, "
        f"ndvi_2019-04-01), or say --data.layout long with --data.id and --data.time, or {positional} with "
        "--data.variables"
    )


# By position


def _is_predecessors(table: Table, data: Data, roles: Roles, labelled: bool, like: Known | None) -> bool:
    """Whether there are 518 values and nobody says that they are other than the predecessor's."""
    if data.variables or (like is not None and like.variables != VARIABLES):
        return False
    values = len(table.names) - len(roles.taken)
    return values == PREDECESSOR + (roles.label is None and labelled) or (not labelled and values == PREDECESSOR + 1)


def _by_position(table: Table, data: Data, roles: Roles, labelled: bool, like: Known | None, layout: str) -> Grid:
    places = [place for place in range(len(table.names)) if place not in roles.taken]
    predecessors = _is_predecessors(table, data, roles, labelled, like)
    variables = VARIABLES if predecessors else data.variables or (() if like is None else like.variables)
    if not variables:
        raise UserError(
            f"{table.where}: layout {layout} knows its variables by order only: list them, --data.variables"
        )
    unnamed_label = roles.label is None and data.label is None
    if unnamed_label and (labelled or _ends_in_a_label(len(places), len(variables), like)):
        roles = replace(roles, label=places.pop())
    steps, rest = divmod(len(places), len(variables))
    if rest or not steps:
        raise UserError(
            f"{table.where}: {len(places)} columns of values are no multiple of the {len(variables)} variables; "
            "correct --data.variables, or name the other columns: --data.label, --data.id, --data.groups"
        )
    with np.errstate(over="ignore"):  # infinite values are named later
        values = np.stack([table.numbers(place).astype(np.float32) for place in places], axis=1)
    if layout == "time_major":
        x = values.reshape(len(table), steps, len(variables)).swapaxes(1, 2)
    else:
        x = values.reshape(len(table), len(variables), steps)
    times = None if like is not None else even_times(steps, data, *((1.0, 10.0) if predecessors else (0.0, 1.0)))
    rows = np.arange(len(table))
    return Grid(np.ascontiguousarray(x), tuple(variables), times, rows, roles, by_position=unnamed_label)


def _ends_in_a_label(places: int, variables: int, like: Known | None) -> bool:
    """Whether one column more is there than values: a labelled file where none is needed."""
    if variables == 1 and like is not None:
        return places == len(like.times) + 1
    return places % variables == 1


# Columns VARIABLE_TIME


def _named(table: Table, roles: Roles) -> dict[int, timeaxis.Column]:
    """What the columns' names say, of those whose times are of the most frequent kind."""
    found = {
        place: column
        for place, name in enumerate(table.names)
        if place not in roles.taken and (column := timeaxis.column(name)) is not None
    }
    kinds = Counter(column.kind for column in found.values()).most_common(1)
    return {place: column for place, column in found.items() if column.kind == kinds[0][0]}


def _wide(table: Table, data: Data, roles: Roles, like: Known | None) -> Grid:
    found = _named(table, roles)
    if not found:
        raise UserError(
            f"{table.where}: no column is named VARIABLE_TIME (ndvi_doy001, ndvi_2019-04-01, ndvi_t05, ndvi_1) among "
            f"{brief(table.names)}; say another --data.layout"
        )
    variables = pick(tuple(dict.fromkeys(column.variable for column in found.values())), data, like, table.where)
    axis = sorted({column.time for column in found.values() if column.variable in variables})
    x = np.full((len(table), len(variables), len(axis)), np.nan, np.float32)
    seen: dict[tuple[str, object], str] = {}
    for place, column in found.items():
        if column.variable not in variables:
            continue
        other = seen.setdefault((column.variable, column.time), table.names[place])
        if other != table.names[place] or table.names.count(other) > 1:
            raise UserError(f"{table.where}: columns {other} and {table.names[place]} are the same time: drop one")
        with np.errstate(over="ignore"):  # infinite values are named later
            x[:, variables.index(column.variable), axis.index(column.time)] = table.numbers(place)
    if next(iter(found.values())).kind == "date":
        dates = np.array(axis, "datetime64[D]")
        start = 1.0 if like is None else timeaxis.known_start(like.times)
        choices = [count(dates, timeaxis.season_years(dates[:1], start, count)) for count in COUNTS]
        return Grid(x, variables, _best_known(choices, like), np.arange(len(table)), roles)
    return Grid(x, variables, np.array(axis, np.float64), np.arange(len(table)), roles)


# A row per series and time


def _long(table: Table, data: Data, roles: Roles, like: Known | None) -> Grid:
    if roles.id is None or roles.time is None:
        missing, key = ("series' names", "id") if roles.id is None else ("time", "time")
        raise UserError(f"{table.where}: layout long needs a column of the {missing}: name it with --data.{key}")
    ids = table.texts(roles.id)
    if "" in ids:
        raise UserError(
            f"{table.where}: {table.place(int(np.argmax(ids == '')))} has no {table.names[roles.id]}: add it"
        )
    names, first, series = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(first)  # series in the order of the table
    rows, series = first[order], np.argsort(order)[series]
    for place in sorted(roles.taken - {roles.id, roles.time}):
        _check_constant(table, place, rows, series)
    known = tuple(name for place, name in enumerate(table.names) if place not in roles.taken)
    if not known:
        raise UserError(f"{table.where}: has no column with values besides {brief(table.names)}; add the variables")
    variables = pick(known, data, like, table.where)
    times = _long_times(table, roles.time, series, like)
    axis, step = np.unique(times, return_inverse=True)
    _check_once(table, roles.time, names[order], series, step, len(axis))
    x = np.full((len(names), len(variables), len(axis)), np.nan, np.float32)
    for variable, name in enumerate(variables):
        with np.errstate(over="ignore"):
            x[series, variable, step] = table.numbers(table.demand(name, "data.variables"))
    return Grid(x, variables, axis, rows, roles)


def _long_times(table: Table, place: int, series: NDArray[np.int64], like: Known | None) -> NDArray[np.float64]:
    """Time of each row: the number in it, or the day of its date, counted from the year of its season's start."""
    texts, which = np.unique(table.texts(place), return_inverse=True)
    parsed = [timeaxis.parse_date(text) if not _is_number(text) or _is_compact(text) else None for text in texts]
    for text, day in zip(texts, parsed, strict=True):
        if day is None and (not _is_number(text) or any(parsed)):
            row = int(np.argmax(table.texts(place) == text))
            raise UserError(
                f"{table.where}: {table.place(row)} has the time {str(text)!r} in column {table.names[place]!r}; "
                "expected a number, or a date such as 2019-04-01, as in all other rows"
            )
    if not any(parsed):
        return np.array([float(text) for text in texts])[which]
    dates = np.array(parsed, "datetime64[D]")[which]
    known = None if like is None else timeaxis.known_start(like.times)
    return _best_known([timeaxis.of_seasons(dates, series, count, known) for count in COUNTS], like)


def _best_known(choices: Sequence[NDArray[np.float64]], like: Known | None) -> NDArray[np.float64]:
    """Of ways to count the times, the one of which a model misses the fewest; of equals the one with fewest steps."""

    def missed(times: NDArray[np.float64]) -> int:
        return 0 if like is None else len(np.setdiff1d(times, like.times))

    return min(choices, key=lambda times: (missed(times), len(np.unique(times))))


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _is_compact(text: str) -> bool:
    """Whether digits are a date, 20190401."""
    return len(text) == 8 and text.isdigit() and text[:2] in ("19", "20") and timeaxis.parse_date(text) is not None


def _check_constant(table: Table, place: int, rows: NDArray[np.int64], series: NDArray[np.int64]) -> None:
    texts = table.texts(place)
    wrong = np.flatnonzero(texts != texts[rows][series])
    if len(wrong):
        row = int(wrong[0])
        raise UserError(
            f"{table.where}: {table.place(row)} has {table.names[place]} {str(texts[row])!r} where "
            f"{table.place(int(rows[series[row]]))} of the same series has {str(texts[rows[series[row]]])!r}; make "
            "them equal"
        )


def _check_once(
    table: Table, place: int, names: NDArray, series: NDArray[np.int64], step: NDArray[np.int64], steps: int
) -> None:
    cell = series * steps + step
    order = np.argsort(cell, kind="stable")
    again = np.flatnonzero(np.diff(cell[order]) == 0)
    if len(again):
        first, second = order[again[0]], order[again[0] + 1]
        raise UserError(
            f"{table.where}: {table.place(int(first))} and {table.place(int(second))} are both time "
            f"{table.texts(place)[second]} of series {names[series[second]]}; remove one"
        )
