"""Times of steps: days of the year, dates, step numbers.

A date becomes a day counted from 1 January (day 1) of the year in which its season begins, so that fields of different
years share an axis and a season may go on past the end of a year.

Shapes: N series, R rows of a table.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

Dates = NDArray[np.datetime64]
Count = Callable[[Dates, Dates], NDArray[np.float64]]  # `days`, `calendar_days` or `leap_calendar_days`
_TIME = re.compile(
    r"(?P<date>(?:19|20)\d\d-\d\d-\d\d|(?:19|20)\d\d_\d\d_\d\d|(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))"
    r"|doy_?(?P<day>\d{1,3})|(?:t|step)_?(?P<step>\d+)|(?P<number>\d+)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Column:
    """What the name VARIABLE_TIME of a column says, such as ndvi_doy001, ndvi_2019-04-01, b2_t05 or ndvi_1."""

    variable: str
    kind: str  # date, day, step or number
    time: float | date


def column(name: str) -> Column | None:
    """The variable and time in a column's name, or None where it has no such form."""
    for cut in (place for place, letter in enumerate(name) if letter == "_" and place):  # the first that leaves a time
        found = _TIME.fullmatch(name[cut + 1 :])
        if found is None:
            continue
        kind = str(found.lastgroup)
        if kind != "date":
            return Column(name[:cut], kind, float(found[kind]))
        day = parse_date(found["date"].replace("_", "-"))
        if day is not None:
            return Column(name[:cut], kind, day)
    return None


def parse_date(text: str) -> date | None:
    """A date out of 2019-04-01 (a time of day may follow) or 20190401, or None."""
    try:
        return date.fromisoformat(re.split(r"[T ]", text.strip(), maxsplit=1)[0])
    except ValueError:
        return None


def days(dates: Dates, begins: Dates) -> NDArray[np.float64]:
    """Days of `dates` counted from 1 January (day 1) of the years of `begins`, arrays that broadcast."""
    return (dates - begins.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.float64) + 1


def calendar_days(dates: Dates, begins: Dates) -> NDArray[np.float64]:
    """As `days`, in years of 365 days: the same day of a month is the same day in leap years; 29 February is 59.5."""
    months, inside = _months(dates)
    before = np.cumsum([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30])[months]
    leap_day = (months == 1) & (inside == 29)
    return 365 * _years(dates, begins) + before + inside - 0.5 * leap_day


def leap_calendar_days(dates: Dates, begins: Dates) -> NDArray[np.float64]:
    """As `calendar_days`, in years of 366 days: where a model learned from the dates of a leap year, those of others
    join it, as long as seasons do not go on past December."""
    months, inside = _months(dates)
    before = np.cumsum([0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30])[months]
    return 366 * _years(dates, begins) + before + inside


def _months(dates: Dates) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The month of each date, from 0, and the day within it, from 1."""
    months = dates.astype("datetime64[M]")
    return months.astype(int) % 12, (dates - months.astype("datetime64[D]")).astype(np.float64) + 1


def _years(dates: Dates, begins: Dates) -> NDArray[np.int64]:
    return dates.astype("datetime64[Y]").astype(int) - begins.astype("datetime64[Y]").astype(int)


def of_seasons(dates: Dates, series: NDArray[np.int64], count: Count, start: float | None) -> NDArray[np.float64]:
    """Days of `dates` (R,), counted from 1 January of the year in which the season of their series began.

    The year of a series' first date alone would not do: a series of a season from October to January may lack its first
    rows and begin in January.

    Args:
        series: number of each date's series, (R,), from 0 to N - 1.
        count: how days are counted.
        start: day of the year on which seasons start, from 1; None finds it in the dates.
    """
    first, last = np.full(series.max() + 1, dates.max()), np.full(series.max() + 1, dates.min())
    np.minimum.at(first, series, dates)
    np.maximum.at(last, series, dates)
    if start is None:
        start = _season_start(first, last, np.unique(count(dates, dates)), count)
    return count(dates, season_years(first, start, count)[series])


def season_years(dates: Dates, start: float, count: Count) -> Dates:
    """The years in which the seasons of `dates` began, if seasons start on the day `start` of the year."""
    return dates.astype("datetime64[Y]") - (count(dates, dates) < start)


def known_start(times: NDArray[np.float64]) -> float:
    """The start of the seasons behind a model's times: the first of them where they go on past a year, else day 1."""
    return float(times[0]) if times[-1] > 365 else 1.0


def _season_start(first: Dates, last: Dates, present: NDArray[np.float64], count: Count) -> float:
    """The day of the year on which seasons start, so that each series, from `first` (N,) to `last`, lies in one season.

    Day 1 if that is such a day. Else one of the ascending days of the year that are `present`: the one after the
    longest gap. Day 1 if there is none, as where series are longer than a year.
    """
    gaps = np.diff(present, prepend=present[-1] - 365)
    for start in [1.0, *present[np.argsort(-gaps, kind="stable")].tolist()]:
        if (season_years(first, start, count) == season_years(last, start, count)).all():
            return start
    return 1.0
