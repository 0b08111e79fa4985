"""Readers: the same series from every container and layout, and one clear line for every unusable file."""

import os
import re
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared_core import hub
from shared_core.errors import UserError
from timeseries_dualmodal import table, timeaxis
from timeseries_dualmodal.data_config import Data
from timeseries_dualmodal.phenology import VARIABLES, generate
from timeseries_dualmodal.readers import read
from timeseries_dualmodal.series import SeriesSet

N, V, T = 6, 2, 3
X = (np.arange(N * V * T).reshape(N, V, T) / 8).astype(np.float32)
X[1, :, 2] = np.nan
X[4, 1, 0] = np.nan
LABELS = ["rice", "maize", "rice", "maize", "rice", "maize"]
NAMES = ("ndvi", "b2")
WIDE = [f"{name}_t{step}" for name in NAMES for step in range(T)]


def text(value: float) -> str:
    return "" if np.isnan(value) else repr(float(value))


def csv(path: Path, header: list[str], rows: list[list[Any]], separator: str = ",") -> Path:
    lines = [separator.join(map(str, row)) for row in [header, *rows]]
    path.write_text("\n".join(lines) + "\n")
    return path


def wide_rows(x: np.ndarray = X, labels: list[str] = LABELS) -> list[list[Any]]:
    return [[f"s{row}", *map(text, x[row].ravel()), labels[row]] for row in range(len(x))]


def wide(folder: Path, **change: Any) -> Path:
    return csv(folder / "wide.csv", ["id", *change.get("columns", WIDE), "label"], wide_rows())


def by_position(folder: Path, time_major: bool, labels: list[Any]) -> Path:
    x = X.swapaxes(1, 2) if time_major else X
    rows = [[*map(text, x[row].ravel()), labels[row]] for row in range(N)]
    return csv(folder / "position.csv", [f"c{place}" for place in range(V * T)] + ["y"], rows)


def long_rows() -> list[list[Any]]:
    return [
        [f"s{row}", step, *map(text, X[row, :, step]), LABELS[row]]
        for row in range(N)
        for step in range(T)
        if not np.isnan(X[row, :, step]).all()
    ]


def data(source: Path | str, **settings: Any) -> Data:
    return Data.model_validate({"source": str(source), **settings})


def same(series: SeriesSet, variables: tuple[str, ...] = NAMES) -> bool:
    assert series.y is not None
    return (
        np.array_equal(series.x, X, equal_nan=True)
        and series.x.dtype == np.float32
        and [series.classes[code] for code in series.y] == LABELS
        and series.classes == ("maize", "rice")
        and series.variables == variables
    )


# Layouts


def test_wide_columns(tmp_path: Path) -> None:
    series = read(data(wide(tmp_path)))
    assert same(series) and series.ids.tolist() == [f"s{row}" for row in range(N)]
    assert series.times.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("columns", "times"),
    [
        (["ndvi_doy001", "ndvi_doy017", "ndvi_doy033", "b2_doy001", "b2_doy017", "b2_doy033"], [1, 17, 33]),
        ([f"{name}_{day}" for name in NAMES for day in ("2019-04-01", "2019-04-11", "2020-01-01")], [91, 101, 366]),
        ([f"{name}_{day}" for name in NAMES for day in ("20190401", "20190411", "20190421")], [91, 101, 111]),
        ([f"{name}_{step}" for name in NAMES for step in (1, 2, 10)], [1, 2, 10]),
    ],
)
def test_times_in_the_names_of_columns(columns: list[str], times: list[float], tmp_path: Path) -> None:
    series = read(data(wide(tmp_path, columns=columns)))
    assert same(series) and series.times.tolist() == times


def test_columns_may_come_in_any_order_and_some_may_lack(tmp_path: Path) -> None:
    order = [4, 0, 2, 5, 1, 3]
    rows = [[*(text(X[row].ravel()[place]) for place in order[:-1]), LABELS[row]] for row in range(N)]
    series = read(data(csv(tmp_path / "a.csv", [*(WIDE[place] for place in order[:-1]), "class"], rows)))
    assert series.variables == ("b2", "ndvi") and series.times.tolist() == [0, 1, 2]
    assert np.array_equal(series.x[:, 1], X[:, 0], equal_nan=True)
    assert np.isnan(series.x[:, 0, 0]).all() and np.array_equal(series.x[:, 0, 1:], X[:, 1, 1:], equal_nan=True)


def test_variables_can_be_chosen_and_ordered(tmp_path: Path) -> None:
    series = read(data(wide(tmp_path), variables=("b2", "ndvi")))
    assert series.variables == ("b2", "ndvi") and np.array_equal(series.x, X[:, ::-1], equal_nan=True)
    assert read(data(wide(tmp_path), variables=("b2",))).x.shape == (N, 1, T)


@pytest.mark.parametrize("time_major", [True, False])
def test_layouts_by_position_ignore_names(time_major: bool, tmp_path: Path) -> None:
    path = by_position(tmp_path, time_major, [3, 10, 3, 10, 3, 10])
    layout = "time_major" if time_major else "variable_major"
    series = read(data(path, layout=layout, variables=NAMES, first_time=1, step_time=16))
    assert np.array_equal(series.x, X, equal_nan=True) and series.variables == NAMES
    assert series.classes == ("3", "10") and series.y is not None and series.y.tolist() == [0, 1] * 3
    assert series.ids.tolist() == ["0", "1", "2", "3", "4", "5"] and series.times.tolist() == [1, 17, 33]


def test_the_predecessors_file_needs_no_flags(tmp_path: Path) -> None:
    """518 values and an integer label, whatever the columns are called."""
    made = generate(50, 0)
    assert made.y is not None
    rows = [[*map(text, x.T.ravel()), label] for x, label in zip(made.x, made.y, strict=True)]
    for names in ([f"f_{place}" for place in range(518)], ["same"] * 518, [str(place) for place in range(518)]):
        series = read(data(csv(tmp_path / "2018four.csv", [*names, "target"], rows)))
        assert np.array_equal(series.x, made.x, equal_nan=True) and series.variables == VARIABLES
        assert series.classes == ("0", "1", "2", "3") and np.array_equal(series.y, made.y)
        assert np.array_equal(series.times, made.times)


def test_518_named_columns_are_read_by_name(tmp_path: Path) -> None:
    made = generate(50, 0)
    assert made.y is not None
    names = [f"{name}_{step:02d}" for name in reversed(VARIABLES) for step in range(37)]
    rows = [[*map(text, x[::-1].ravel()), label] for x, label in zip(made.x, made.y, strict=True)]
    series = read(data(csv(tmp_path / "named.csv", [*names, "label"], rows), variables=VARIABLES))
    assert np.array_equal(series.x, made.x, equal_nan=True)


def test_long_tables(tmp_path: Path) -> None:
    rows = long_rows()
    np.random.default_rng(0).shuffle(rows)
    series = read(data(csv(tmp_path / "long.csv", ["id", "time", *NAMES, "label"], rows)))
    order = [series.ids.tolist().index(f"s{row}") for row in range(N)]
    assert same(series.take(np.array(order)))
    assert series.ids.tolist() == list(dict.fromkeys(row[0] for row in rows))


def dated(folder: Path, days: Callable[[int], list[date]]) -> Path:
    rows = [
        [f"s{row}", day, row + step / 4, LABELS[row], 2016 + row % 4]
        for row in range(N)
        for step, day in enumerate(days(2016 + row % 4))
    ]
    return csv(folder / "dated.csv", ["sample_id", "date", "ndvi", "label", "year"], rows)


def test_dates_of_several_years_share_an_axis(tmp_path: Path) -> None:
    """2016 is a leap year: composites of 16 days keep the day of the year, dekads the day of the month."""
    composites = dated(tmp_path, lambda year: [date(year, 1, 1) + timedelta(16 * step) for step in range(23)])
    series = read(data(composites, groups=("year",)))
    assert series.times.tolist() == list(range(1, 354, 16)) and series.groups["year"].tolist()[:2] == ["2016", "2017"]
    dekads = dated(tmp_path, lambda year: [date(year, month, day) for month in range(1, 13) for day in (1, 11, 21)])
    series = read(data(dekads, groups=("year",)))
    assert series.steps == 36 and not np.isnan(series.x).any() and series.times[6] == 60


@pytest.mark.parametrize("learned", [2019, 2020])
@pytest.mark.parametrize("layout", ["wide", "long"])
def test_a_model_of_a_common_year_reads_dekads_of_a_leap_year_and_the_other_way_round(
    learned: int, layout: str, tmp_path: Path
) -> None:
    def table(year: int) -> Path:
        days = [date(year, month, day) for month in range(1, 13) for day in (1, 11, 21)]
        if layout == "long":
            rows = [[f"s{number}", day, number + 0.5, number % 2] for number in range(4) for day in days]
            return csv(tmp_path / f"{year}.csv", ["sample_id", "date", "ndvi", "label"], rows)
        rows = [[number + 0.5] * len(days) + [number % 2] for number in range(4)]
        return csv(tmp_path / f"{year}.csv", [*(f"ndvi_{day}" for day in days), "label"], rows)

    known = read(data(table(learned)))
    other = read(data(table(4039 - learned)), like=known)
    assert np.array_equal(other.x, known.x) and np.array_equal(other.times, known.times)


def test_a_season_over_the_turn_of_the_year_goes_on(tmp_path: Path) -> None:
    path = dated(tmp_path, lambda year: [date(year - 1, 10, 1), date(year, 1, 1), date(year, 3, 1)])
    assert read(data(path, groups=("year",))).times.tolist() == [274, 366, 425]


def seasons(folder: Path, rows: dict[str, list[str]], name: str = "seasons.csv") -> Path:
    """A long table of one variable: the dates of each series."""
    cells = [[who, day, 1.0, int(who[1:]) % 2] for who, days in rows.items() for day in days]
    return csv(folder / name, ["id", "date", "ndvi", "label"], cells)


OCTOBER = {
    "s0": ["2018-10-01", "2018-11-01", "2018-12-01", "2019-01-11", "2019-01-21"],
    "s1": ["2019-10-01", "2019-11-01", "2019-12-01", "2020-01-11", "2020-01-21"],
    "s2": ["2020-01-11", "2020-01-21"],  # has lost its first rows
    "s3": ["2019-12-01", "2020-01-11"],
}


def test_a_season_that_lost_its_first_rows_stays_in_its_place(tmp_path: Path) -> None:
    whole = read(data(seasons(tmp_path, OCTOBER)))
    assert whole.times.tolist() == [274, 305, 335, 376, 386]
    assert (~np.isnan(whole.x[:, 0])).astype(int).tolist() == [[1] * 5, [1] * 5, [0, 0, 0, 1, 1], [0, 0, 1, 1, 0]]
    for new in ({"s2": OCTOBER["s2"]}, {"s1": OCTOBER["s1"][:3]}, {"s2": OCTOBER["s2"], "s3": OCTOBER["s3"]}):
        path = seasons(tmp_path, new, "new.csv")  # whose dates alone do not say when seasons begin
        series = read(data(path), labelled=False, like=whole)
        rows = [int(name[1:]) for name in new]
        assert np.array_equal(series.x, whole.x[rows][:, :, : series.steps], equal_nan=True)
    names = [f"ndvi_{day}" for day in OCTOBER["s2"]]
    series = read(data(csv(tmp_path / "w.csv", names, [[1, 1]])), labelled=False, like=whole)
    assert series.times.tolist() == whole.times.tolist() and not np.isnan(series.x[0, 0, 3:]).any()


@pytest.mark.parametrize("every", [1, 10, 16])
@pytest.mark.parametrize("month", [4, 10])
def test_seasons_without_a_gap_between_them(every: int, month: int, tmp_path: Path) -> None:
    """The start is where no series goes on; s9 begins after New Year. One of the years is a leap year."""
    rows = {
        f"s{number}": [str(date(2017 + number, month, 1) + timedelta(day)) for day in range(0, 360, every)]
        for number in range(4)
    }
    begins = sum(day < "2019" for day in rows["s1"])
    rows["s9"] = rows["s1"][begins:]
    series = read(data(seasons(tmp_path, rows)))
    first = series.times[np.argmax(~np.isnan(series.x[4, 0]))]
    assert first == series.times[np.flatnonzero(~np.isnan(series.x[1, 0]))[begins]] > 365


@pytest.mark.parametrize(
    "rows",
    [
        {"s0": ["2018-01-11", "2018-03-01", "2018-10-01"], "s1": ["2018-10-01"], "s2": ["2019-03-01", "2019-10-01"]},
        {"s0": ["2018-03-01", "2018-07-01"], "s1": ["2019-07-01"], "s2": ["2020-03-01"]},
        {"s0": ["2018-01-11", "2018-07-01", "2019-01-11", "2019-07-01"], "s1": ["2018-07-01", "2019-01-11"]},
    ],
    ids=["gap in summer", "gap in winter", "longer than a year"],
)
def test_days_of_calendar_years_and_longer_series_are_as_they_are(rows: dict, tmp_path: Path) -> None:
    series = read(data(seasons(tmp_path, rows)), labelled=False)
    for number, days in enumerate(rows.values()):
        years = [date.fromisoformat(day).year - date.fromisoformat(days[0]).year for day in days]
        found = series.times[~np.isnan(series.x[number, 0])].tolist()
        assert found == [date.fromisoformat(f"2019{day[4:]}").timetuple().tm_yday + 365 * year
                         for day, year in zip(days, years, strict=True)]  # fmt: skip


@given(st.dates(date(1990, 1, 1), date(2090, 12, 31)), st.integers(0, 400))
def test_days_count_from_new_year(begin: date, later: int) -> None:
    day = begin + timedelta(later)
    found = timeaxis.days(np.array([day], "datetime64[D]"), np.array([begin], "datetime64[D]"))
    assert found[0] == (day - date(begin.year, 1, 1)).days + 1
    common = timeaxis.calendar_days(np.array([day], "datetime64[D]"), np.array([begin], "datetime64[D]"))[0]
    assert common % 365 == (
        59.5 if (day.month, day.day) == (2, 29) else date(2019, day.month, day.day).timetuple().tm_yday % 365
    )


@pytest.mark.parametrize(
    ("name", "variable", "time"),
    [
        ("ndvi_doy001", "ndvi", 1),
        ("b2_t05", "b2", 5),
        ("ndvi_1", "ndvi", 1),
        ("b_2_step_7", "b_2", 7),
        ("s2_ndvi_2019-04-01", "s2_ndvi", date(2019, 4, 1)),
        ("VV_20190401", "VV", date(2019, 4, 1)),
        ("VV_2019_04_01", "VV", date(2019, 4, 1)),
        ("VV_20191301", "VV", 20191301),
    ],
)
def test_names_of_columns(name: str, variable: str, time: Any) -> None:
    found = timeaxis.column(name)
    assert found is not None and (found.variable, found.time) == (variable, time)


@pytest.mark.parametrize("name", ["ndvi", "sample_id", "_1", "ndvi_", "b2", "ndvi_max", "2019-04-01"])
def test_names_without_a_time(name: str) -> None:
    assert timeaxis.column(name) is None


# Containers


def test_parquet_files(tmp_path: Path) -> None:
    columns = {name: X.reshape(N, -1)[:, place].astype(np.float64) for place, name in enumerate(WIDE)}
    content = pa.table({"id": range(N), **columns, "label": pa.array(LABELS).dictionary_encode()})
    pq.write_table(content, tmp_path / "a.parquet")
    series = read(data(tmp_path / "a.parquet"))
    assert same(series) and series.ids[3] == "3"
    times = [date(2019, 4, 1 + step) for _ in range(N) for step in range(T)]
    content = pa.table({
        "id": np.repeat(np.arange(N), T), "date": pa.array(times), "label": np.repeat(LABELS, T),
        **{name: X[:, variable].ravel() for variable, name in enumerate(NAMES)},
    })  # fmt: skip
    pq.write_table(content, tmp_path / "long.parquet")
    series = read(data(tmp_path / "long.parquet"))
    assert same(series) and series.times.tolist() == [91, 92, 93]


def npz(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **{"x": X, "y": np.array(LABELS), **arrays})
    return path


def test_npz_files(tmp_path: Path) -> None:
    bare = read(data(npz(tmp_path / "a.npz")))
    assert same(bare, ("variable0", "variable1")) and bare.times.tolist() == [0, 1, 2] and bare.ids[5] == "5"
    series = read(data(
        npz(tmp_path / "b.npz", y=np.array([1, 0] * 3), classes=np.array(["maize", "rice"]), ids=np.arange(N) + 7,
            variables=np.array(NAMES), times=np.array([5, 10, 20]), region=np.array(list("aabbcc")),
            group_year=np.arange(N)),
        groups=("region", "year"),
    ))  # fmt: skip
    assert same(series) and series.times.tolist() == [5, 10, 20] and series.ids[0] == "7"
    assert series.groups["region"].tolist() == list("aabbcc") and series.groups["year"][5] == "5"
    assert read(data(tmp_path / "b.npz", variables=("b2",))).x.shape == (N, 1, T)


class FakeDataset:
    """As much of a `datasets.Dataset` as is asked for."""

    def __init__(self, content: dict[str, Any], features: dict[str, Any] | None = None) -> None:
        self.table, self.features = pa.table(content), features or {}

    def with_format(self, form: str) -> "FakeDataset":
        assert form == "arrow"
        return self

    def __getitem__(self, rows: slice) -> pa.Table:
        return self.table[rows]


@pytest.fixture
def on_the_hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `shared_core.hub.dataset` returns; the fixture's value can be changed."""
    columns = {name: X.reshape(N, -1)[:, place] for place, name in enumerate(WIDE)}
    content = {**columns, "label": np.array([1, 0] * 3)}
    features = {"label": type("ClassLabel", (), {"names": ["maize", "rice"]})()}
    parts: dict[str, Any] = {
        "train": FakeDataset({key: values[:4] for key, values in content.items()}, features),
        "test": FakeDataset({key: values[4:] for key, values in content.items()}, features),
    }
    monkeypatch.setattr(
        hub, "dataset", lambda name, revision: parts.setdefault("asked", (name, revision)) and parts_of(parts)
    )
    return parts


def parts_of(parts: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in parts.items() if key != "asked"}


def test_the_hub_through_its_one_door(on_the_hub: dict[str, Any]) -> None:
    series = read(data("hub:someone/crops@abc", groups=("split",)))
    assert same(series) and on_the_hub["asked"] == ("someone/crops", "abc")
    assert series.groups["split"].tolist() == ["train"] * 4 + ["test"] * 2


def test_a_hub_data_set_whose_splits_differ_is_named(on_the_hub: dict[str, Any]) -> None:
    on_the_hub["test"] = FakeDataset({"other": [1]})
    with pytest.raises(UserError, match="hub:someone/crops: its splits train, test have different columns"):
        read(data("hub:someone/crops"))


def test_errors_of_the_hub_come_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def dataset(name: str, revision: str | None) -> None:
        raise UserError("the Hub cannot be reached")

    monkeypatch.setattr(hub, "dataset", dataset)
    with pytest.raises(UserError, match="cannot be reached"):
        read(data("hub:someone/crops"))
    with pytest.raises(UserError, match="no name of a repository"):
        read(data("hub:crops"))


@pytest.mark.slow  # the library takes seconds to import
def test_real_datasets_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("datasets")
    columns = {name: X.reshape(N, -1)[:, place].tolist() for place, name in enumerate(WIDE)}
    made = library.Dataset.from_dict({**columns, "label": LABELS}).class_encode_column("label")
    monkeypatch.setattr(hub, "dataset", lambda name, revision: library.DatasetDict(train=made))
    assert same(read(data("hub:someone/crops")))


def test_separators_quotes_and_row_numbers(tmp_path: Path) -> None:
    assert same(read(data(csv(tmp_path / "a.csv", ["id", *WIDE, "label"], wide_rows(), ";"))))
    assert same(read(data(csv(tmp_path / "a.tsv", ["id", *WIDE, "label"], wide_rows(), "\t"))))
    rows = [[row, *cells[1:-1], f'"{cells[-1]}"'] for row, cells in enumerate(wide_rows())]
    path = csv(tmp_path / "b.csv", ["", *WIDE, '"label"'], rows)  # as pandas writes a frame with its index
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    series = read(data(path))
    assert same(series) and series.ids[2] == "2"


@pytest.mark.parametrize("word", ["", "NA", "nan", "NaN", "null", " "])
def test_missing_values(word: str, tmp_path: Path) -> None:
    rows = [[cell if cell != "" else word for cell in row] for row in wide_rows()]
    assert same(read(data(csv(tmp_path / "a.csv", ["id", *WIDE, "label"], rows))))


def test_the_sample() -> None:
    series = read(Data(sample_size=60, sample_seed=5))
    made = generate(60, 5)
    assert np.array_equal(series.x, made.x, equal_nan=True) and set(series.groups) == {"region", "year", "field"}
    assert series.y is not None and made.y is not None
    assert [series.classes[code] for code in series.y] == [made.classes[code] for code in made.y]
    small = read(Data(sample_size=60, variables=("ndvi",), groups=("field",), drop_classes=("maize",)))
    assert small.variables == ("ndvi",) and set(small.groups) == {"field"} and "maize" not in small.classes
    with pytest.raises(UserError, match=r"--data\.groups: the sample has no column 'farm'"):
        read(Data(sample_size=60, groups=("farm",)))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(v=st.integers(1, 4), t=st.integers(1, 5), seed=st.integers(0, 2**31 - 1))
def test_every_layout_holds_the_same_values(v: int, t: int, seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    x = random.normal(size=(4, v, t)).astype(np.float32)
    x[random.random(x.shape) < 0.2] = np.nan
    x[0] = 0.5  # no variable without a value
    variables = tuple(f"v{number}x" for number in range(v))
    labels = [1, 2, 1, 2]
    header = [f"{name}_{step}" for name in variables for step in range(t)]
    wide_path = csv(
        tmp_path / "w.csv", [*header, "label"], [[*map(text, x[row].ravel()), labels[row]] for row in range(4)]
    )
    time_major = csv(
        tmp_path / "t.csv", ["c"] * (v * t) + ["y"], [[*map(text, x[row].T.ravel()), labels[row]] for row in range(4)]
    )
    long_path = csv(
        tmp_path / "l.csv",
        ["id", "time", *variables, "label"],
        [[row, step, *map(text, x[row, :, step]), labels[row]] for row in range(4) for step in range(t)],
    )
    for source, layout in ((wide_path, "wide"), (time_major, "time_major"), (long_path, "long")):
        series = read(data(source, layout=layout, variables=variables))
        assert np.array_equal(series.x, x, equal_nan=True) and series.times.tolist() == list(range(t))


# Classes


def test_classes_are_chosen_ordered_and_dropped(tmp_path: Path) -> None:
    labels = ["b", "a", "c", "b", "a", "c"]
    path = csv(tmp_path / "a.csv", ["id", *WIDE, "label"], wide_rows(labels=labels))
    series = read(data(path, classes=("c", "a")))
    assert series.classes == ("c", "a") and series.y is not None
    assert series.y.tolist() == [1, 0, 1, 0] and series.ids.tolist() == ["s1", "s2", "s4", "s5"]
    assert np.array_equal(series.x, X[[1, 2, 4, 5]], equal_nan=True)
    assert read(data(path, drop_classes=("b",))).classes == ("a", "c")


def test_whole_numbers_are_classes_however_they_are_written(tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", ["id", *WIDE, "label"], wide_rows(labels=["10", "2.0", "10.0", "2", "10", "2"]))
    series = read(data(path))
    assert series.classes == ("2", "10") and series.y is not None and series.y.tolist() == [1, 0] * 3


# What a trained model knows

LIKE = SeriesSet(X, np.array([1, 0] * 3), np.array(list("abcdef")), NAMES, ("maize", "rice"), np.array([0.0, 1.0, 2.0]))


def test_a_new_file_is_put_in_the_models_terms(tmp_path: Path) -> None:
    header = ["b2_t0", "extra_t0", "ndvi_t0", "b2_t1", "ndvi_t1"]
    rows = [
        [text(X[row, 1, 0]), 9, text(X[row, 0, 0]), text(X[row, 1, 1]), text(X[row, 0, 1]), "rice"] for row in range(3)
    ]
    path = csv(tmp_path / "new.csv", [*header, "label"], rows)
    series = read(data(path), like=LIKE)
    assert series.variables == NAMES and series.classes == ("maize", "rice") and series.times.tolist() == [0, 1]
    assert np.array_equal(series.x, X[:3, :, :2], equal_nan=True) and series.y is not None
    assert series.y.tolist() == [1, 1, 1]  # one class is enough to be judged
    unlabelled = read(data(path), labelled=False, like=LIKE)
    assert unlabelled.y is None and unlabelled.classes == ()


def test_steps_between_may_lack(tmp_path: Path) -> None:
    path = csv(tmp_path / "new.csv", ["ndvi_t1", "b2_t1"], [[1, 2]])
    series = read(data(path), labelled=False, like=LIKE)
    assert series.x.shape == (1, 2, 2) and np.isnan(series.x[:, :, 0]).all() and series.x[0, :, 1].tolist() == [1, 2]


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("steps", [2, 3])
def test_files_by_position_with_and_without_labels(labels: bool, steps: int, tmp_path: Path) -> None:
    rows = [[*map(text, X[row, :, :steps].T.ravel()), *([row % 2] if labels else [])] for row in range(N)]
    path = csv(tmp_path / "new.csv", [f"c{place}" for place in range(len(rows[0]))], rows)
    series = read(data(path, layout="time_major"), labelled=False, like=LIKE)
    assert np.array_equal(series.x, X[:, :, :steps], equal_nan=True) and series.times.tolist() == [0, 1, 2][:steps]


def test_a_shorter_file_of_the_predecessors_needs_no_flags_either(tmp_path: Path) -> None:
    made = generate(50, 0)
    rows = [[*map(text, x[:, :12].T.ravel())] for x in made.x]
    path = csv(tmp_path / "new.csv", [f"f_{place}" for place in range(168)], rows)
    series = read(data(path), labelled=False, like=made)
    assert np.array_equal(series.x, made.x[:, :, :12], equal_nan=True) and np.array_equal(series.times, made.times[:12])


@pytest.mark.parametrize("columns", [518, 519])
def test_the_predecessors_file_without_labels(columns: int, tmp_path: Path) -> None:
    made = generate(50, 0)
    rows = [[*map(text, x.T.ravel()), 1][:columns] for x in made.x]
    path = csv(tmp_path / "new.csv", [f"f_{place}" for place in range(columns)], rows)
    for like in (None, made):
        series = read(data(path), labelled=False, like=like)
        assert np.array_equal(series.x, made.x, equal_nan=True) and series.variables == VARIABLES


@pytest.mark.parametrize(
    ("header", "row", "settings", "words"),
    [
        (["ndvi_t0", "b3_t0"], "1,2", {}, r"has no variable 'b2', which the model asks for; it has ndvi, b3"),
        (["ndvi_t0", "b2_t7"], "1,2", {}, r"the model knows no time 7, only 0, 1, 2"),
        (["c"] * 8, "1,2,3,4,5,6,7,8", {"layout": "time_major"}, r"has 4 steps where the model knows 3"),
        (["a"] * 5, "1,2,3,4,5", {}, r"by position only; say --data\.layout time_major or variable_major"),
    ],
)
def test_files_the_model_cannot_read(header: list[str], row: str, settings: dict, words: str, tmp_path: Path) -> None:
    path = csv(tmp_path / "new.csv", header, [row.split(",")])
    with pytest.raises(UserError, match=words):
        read(data(path, **settings), labelled=False, like=LIKE)


@pytest.mark.parametrize("form", ["wide", "long", "position", "npz", "sample"])
def test_a_file_to_be_answered_needs_no_label_and_no_groups(form: str, tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    says: dict[str, Any] = {"label": "crop", "groups": ("region",)}
    if form == "wide":
        csv(path, ["id", *WIDE], [row[:-1] for row in wide_rows()])
    elif form == "long":
        csv(path, ["id", "time", *NAMES], [row[:-1] for row in long_rows()])
    elif form == "position":
        csv(path, ["c"] * (V * T), [[*map(text, x.T.ravel())] for x in X])
        says |= {"layout": "time_major"}
    elif form == "npz":
        path = tmp_path / "new.npz"
        np.savez(path, x=X, variables=np.array(NAMES))
    else:
        series = read(Data(groups=("farm", "year")), labelled=False, like=generate(50, 0))
        assert set(series.groups) == {"year"}
        return
    series = read(data(path, **says), labelled=False, like=LIKE)
    assert np.array_equal(series.x, X, equal_nan=True) and series.y is None and series.groups == {}
    needed = r"'crop', which --data\.label" if form != "npz" else "has no labels"
    with pytest.raises(UserError, match=needed):
        read(data(path, **says), like=LIKE)
    if form == "npz":
        with pytest.raises(UserError, match=r"'region', which --data\.groups"):
            read(data(path, **says))


def test_a_file_to_be_judged_needs_a_label_but_no_groups(tmp_path: Path) -> None:
    assert same(read(data(wide(tmp_path), groups=("region",)), like=LIKE))


def test_labels_that_are_not_asked_for_are_not_read(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", y=np.full(N, -1), classes=np.array(["maize", "rice"]))
    assert read(data(path), labelled=False, like=LIKE).y is None


def test_a_class_the_model_does_not_know(tmp_path: Path) -> None:
    path = csv(
        tmp_path / "a.csv", ["id", *WIDE, "label"], wide_rows(labels=["rice", "oats", "rice", "oats", "rice", "rice"])
    )
    with pytest.raises(
        UserError, match=r"class 'oats' \(2 series, the first is line 3\) is unknown .*knows maize, rice;"
    ):
        read(data(path), like=LIKE)
    assert len(read(data(path, drop_classes=("oats",)), like=LIKE)) == 4
    with pytest.raises(UserError, match="no series is left"):
        read(data(path, drop_classes=("oats", "rice")), like=LIKE)


# Bad input


def broken(folder: Path, change: Callable[[list[list[Any]]], Any], name: str = "bad.csv") -> Path:
    """The wide file with something changed in its lines; line 0 is the header."""
    lines = [["id", *WIDE, "label"], *wide_rows()]
    change(lines)
    return csv(folder / name, lines[0], lines[1:])


def nothing(lines: list[list[Any]]) -> None:
    pass


def rename(lines: list[list[Any]]) -> None:
    lines[0][1:7] = "abcdef"


def without_b2(lines: list[list[Any]]) -> None:
    for line in lines[1:]:
        line[4:7] = ["", "", ""]


def put(line: int, column: int, value: Any) -> Callable[[list[list[Any]]], None]:
    return lambda lines: lines[line].__setitem__(column, value)


@pytest.mark.parametrize(
    ("change", "settings", "words"),
    [
        (lambda lines: lines[3].pop(), {}, r"line 4 has 7 values where the header has 8"),
        (lambda lines: lines[6].append(1), {}, r"line 7 has 9 values where the header has 8"),
        (put(2, 3, "cloudy"), {}, r"line 3: 'cloudy' in column 'ndvi_t2' is no number"),
        (put(2, 3, "1_000"), {}, r"line 3: '1_000' in column 'ndvi_t2' is no number"),
        (nothing, {"variables": ("ndvi", "ndvi")}, r"--data\.variables: 'ndvi' is named 2 times; name each once"),
        (nothing, {"classes": ("rice", "maize", "rice")}, r"--data\.classes: 'rice' is named 2 times"),
        (put(2, 3, "0,5".replace(",", "§")), {}, r"line 3: '0§5' in column"),
        (put(5, 2, "inf"), {}, r"line 6: ndvi at time 1 is infinite; put"),
        (put(5, 2, "-1e60"), {}, r"line 6: ndvi at time 1 is infinite; put"),
        (put(4, 0, "s1"), {}, r"line 3 and line 5 have the same id 's1' \(1 ids occur more than once\)"),
        (put(4, 0, ""), {}, r"line 5 has no id"),
        (put(6, -1, ""), {}, r"line 7 has no label"),
        (put(6, -1, "oats"), {}, r"a single series is of class oats, .*--data\.drop_classes oats"),
        (put(0, -1, "crop"), {}, r"has no labels \(column label or class\); .*--data\.label"),
        (put(0, -1, "crop"), {"label": "corp"}, r"no column 'corp' \(did you mean crop\?\), which --data\.label names"),
        (nothing, {"groups": ("region",)}, r"no column 'region', which --data\.groups names"),
        (nothing, {"id": "name"}, r"no column 'name', which --data\.id names"),
        (nothing, {"classes": ("rice", "oat")}, r"--data\.classes: .* class 'oat'; there are maize, rice"),
        (nothing, {"drop_classes": ("maiz",)}, r"--data\.drop_classes: no series is of class 'maiz' .*mean maize"),
        (nothing, {"drop_classes": ("maize",)}, r"1 class is left \(rice\); two are needed"),
        (nothing, {"label": "ndvi_t1"}, r"has the label '.*', which is no class"),
        (nothing, {"variables": ("ndvi", "evi")}, r"has no variable 'evi'"),
        (lambda lines: lines.__delitem__(slice(1, None)), {}, r"has no rows"),
        (put(0, 2, "ndvi_t0"), {}, r"two columns|are the same time"),
        (put(0, 2, "ndvi_t00"), {}, r"columns ndvi_t0 and ndvi_t00 are the same time"),
        (without_b2, {}, r"variable b2 has no value in any series; fill it, or leave it out with --data\.variables"),
        (lambda lines: lines.pop(0), {}, r"line 1 holds numbers .*; add a header line"),
        (put(0, 2, "nvdi"), {"layout": "long"}, r"layout long needs a column of the time: name it with --data\.time"),
        (rename, {}, r"no known layout in the columns id, a, b, c"),
        (rename, {"layout": "wide"}, r"no column is named VARIABLE_TIME"),
        (nothing, {"layout": "time_major"}, r"knows its variables by order only: list them, --data\.variables"),
        (nothing, {"layout": "time_major", "variables": ("a", "b", "c", "d")}, r"6 columns .* no multiple of the 4"),
    ],
)  # fmt: skip
def test_unusable_tables_are_named(change: Callable, settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = broken(tmp_path, change)
    with pytest.raises(UserError, match=words) as caught:
        read(data(path, **settings))
    assert "\n" not in str(caught.value) and (str(path) in str(caught.value) or str(caught.value).startswith("--data"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"s9,cloudy,1,2,3,4,5,rice", r"line 6: 'cloudy'"),
        (b"s9,1,2,rice", r"line 6 has 4 values"),
        (b"s9,1,2,3,4,5,6,\xff", r"line 6, column 8 is no UTF-8"),
    ],
)
def test_blank_lines_and_values_of_several_lines_are_counted(line: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(
        f"id,{','.join(WIDE)},label\n\n".encode() + b'"s\n0",1,2,3,4,5,6,rice\n\n' + line + b"\n"
    )
    with pytest.raises(UserError, match=words):
        read(data(tmp_path / "a.csv"))


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ({"label": [1.0, np.inf] * 2}, r"row 2 has the label 'inf', which is no class"),
        ({"label": [1e20, 1.0] * 2}, r"row 1 has the label '1e\+20', which is no class"),
        ({"label": pa.array([b"a", b"b", b"\xff", b"a"])}, r"row 3 in column 'label' is no UTF-8"),
        ({"label": pa.array([b"ab", b"\xffb"] * 2, pa.binary(2))}, r"row 2 in column 'label' is no UTF-8"),
        ({"id": pa.array([b"a", b"b", b"\xff", b"c"]).view(pa.string())}, r"row 3 in column 'id' is no UTF-8"),
        ({"ndvi_0": pa.array([b"1", b"\xff"] * 2)}, r"row 2 in column 'ndvi_0' is no UTF-8"),
        ({"label": [["a"], ["b"]] * 2}, r"column 'label' holds list<.*>; expected text or numbers"),
    ],
)
def test_odd_columns_of_parquet_files_are_named(column: dict[str, Any], words: str, tmp_path: Path) -> None:
    columns = {"id": [1, 2, 3, 4], "ndvi_0": [1.0] * 4, "ndvi_1": [2.0] * 4, "label": ["a", "b"] * 2, **column}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=words) as caught:
        read(data(tmp_path / "a.parquet"))
    assert "\n" not in str(caught.value)


def test_large_ids_and_bytes_are_text(tmp_path: Path) -> None:
    columns = {"id": [1e20, 2e20, 3.0, 4.0], "ndvi_0": [1.0] * 4, "ndvi_1": [2.0] * 4, "label": [b"a", b"b"] * 2}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    series = read(data(tmp_path / "a.parquet"))
    assert series.ids.tolist() == ["1e+20", "2e+20", "3", "4"] and series.classes == ("a", "b")


@pytest.mark.parametrize("labels", [[0, 1, 0.5, 1, 0, 1], ["a", "b"] * 3, [0.25] * 6])
def test_by_position_the_last_column_must_be_an_integer_label(labels: list[Any], tmp_path: Path) -> None:
    path = by_position(tmp_path, True, labels)
    with pytest.raises(UserError, match=r"has the label '.*', which is no class; by position the last .*--data\.label"):
        read(data(path, layout="time_major", variables=NAMES))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows.append(rows[2]), r"line 4 and line \d+ are both time 2 of series s0"),
        (
            lambda rows: rows[4].__setitem__(-1, "rice"),
            r"line \d+ has label '.*' where line \d+ of the same series has",
        ),
        (lambda rows: rows[4].__setitem__(1, "later"), r"line 6 has the time 'later' in column 'time'"),
        (lambda rows: rows[4].__setitem__(1, "2019-04-01"), r"line 2 has the time '0' .*as in all other rows"),
        (lambda rows: rows[4].__setitem__(1, ""), r"line 6 has the time ''"),
        (lambda rows: rows[4].__setitem__(0, ""), r"line 6 has no id"),
        (lambda rows: rows[4].__setitem__(2, "wet"), r"line 6: 'wet' in column 'ndvi' is no number"),
    ],
)
def test_unusable_long_tables_are_named(change: Callable, words: str, tmp_path: Path) -> None:
    rows = long_rows()
    change(rows)
    with pytest.raises(UserError, match=words):
        read(data(csv(tmp_path / "long.csv", ["id", "time", *NAMES, "label"], rows)))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", r"is empty"),
        ("a.csv", b"\n\n", r"is empty"),
        ("a.csv", bytes(range(256)) * 8, r"no CSV in UTF-8"),
        ("a.csv", b"PK\x03\x04\x00\x00" * 99, r"no CSV in UTF-8"),
        ("a.csv", b"id,ndvi_1,label\n0,\xff\xfe,1\n", r"line 2, column 2 is no UTF-8"),
        ("a.csv", b'id,ndvi_1,label\n0,"1,1\n', r"line 2 has|is no CSV"),
        ("a.csv", b"id,id,ndvi_1,label\n0,1,1,1\n", r"two columns are called id"),
        ("a.parquet", b"", r"no whole Parquet file"),
        ("a.parquet", b"PAR1" + bytes(200) + b"PAR1", r"no whole Parquet file"),
        ("a.npz", b"PK\x03\x04" + bytes(200), r"no whole \.npz archive"),
        ("a.npz", b"", r"no whole \.npz archive"),
        ("a.txt", b"hello", r"is no source of series \(--data\.source\); give a \.csv, \.parquet or \.npz file"),
    ],
)
def test_files_of_something_else_are_named(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        read(data(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["parquet", "npz"])
@pytest.mark.parametrize("part", [0.2, 0.5, 0.95])
def test_truncated_files_are_named(form: str, part: float, tmp_path: Path) -> None:
    path = tmp_path / f"a.{form}"
    if form == "npz":
        npz(path)
    else:
        pq.write_table(pa.table({"ndvi_0": range(999), "ndvi_1": range(999), "label": [0, 1, 2] * 333}), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(UserError, match=r"no whole"):
        read(data(path))


def test_a_damaged_page_of_a_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    values = np.random.default_rng(0).normal(size=4_000)
    pq.write_table(pa.table({"ndvi_0": values, "ndvi_1": values, "label": [0, 1] * 2_000}), path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[40:400] = bytes(360)
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match="no whole Parquet file"):
        read(data(path))


def test_parquet_columns_of_lists_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"ndvi_0": [[1.0], [2.0]], "ndvi_1": [1, 2], "label": [0, 1]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="in column 'ndvi_0' is no number"):
        read(data(tmp_path / "a.parquet"))


def test_a_parquet_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MAX_BYTES", 10)
    pq.write_table(pa.table({"ndvi_0": range(99)}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="unpacks to more than"):
        read(data(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("arrays", "settings", "words"),
    [
        ({"x": X[0]}, {}, r"x is float32 \(2, 3\), expected numbers \(N series, V variables, T steps\)"),
        ({"x": np.full((N, V, T), "a")}, {}, r"x is <U1"),
        ({"x": np.array([None] * 6, object)}, {}, r"Python objects"),
        ({"y": np.arange(5)}, {}, r"y is \(5,\), expected \(6,\) beside x \(6, 2, 3\)"),
        ({"times": np.array([0, 2, 1])}, {}, r"times are int64, 0, 2, 1; expected ascending numbers"),
        ({"variables": np.array(["a"])}, {}, r"variables is \(1,\), expected \(2,\)"),
        ({"variables": np.array(["a", "a"])}, {}, r"variables: 'a' is named 2 times; name each once"),
        ({"y": np.array([0, 1, 2] * 2), "classes": np.array(["a", "a", "b"])}, {}, r"classes: 'a' is named 2 times"),
        ({}, {"variables": ("a", "b", "c")}, r"x has 2 variables without names, where 3 are asked for"),
        ({}, {"groups": ("region",)}, r"has no array 'region', which --data\.groups names; it has x, y"),
        ({"y": np.array([0, 1, 2] * 2), "classes": np.array(["a", "b"])}, {}, r"y runs from 0 to 2, where 2 classes"),
        ({"x": np.where(X[3, 1, 2] == X, np.inf, X)}, {}, r"row 4: variable1 at time 2 is infinite"),
        ({"x": np.where(X[3, 1, 2] == X, 1e300, X.astype(float))}, {}, r"row 4: variable1 at time 2 is infinite"),
        ({"x": X[:0], "y": np.array([])}, {}, r"has no rows"),
        ({"ids": np.array([1, 2, 3, 4, 5, 5])}, {}, r"row 5 and row 6 have the same id '5'"),
    ],
)
def test_unusable_npz_files_are_named(arrays: dict, settings: dict, words: str, tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=words) as caught:
        read(data(path, **settings))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere.csv", r"nowhere\.csv: no such file \(--data\.source\); give a \.csv"),
        ("someone/crops", r"give hub:someone/crops if a data set on the Hub is meant"),
        ("folder/a.csv", r"no such file .*; give a \.csv"),
        (".", r"is no source of series"),
    ],
)
def test_sources_that_are_not_there(source: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        read(data(source))


# Real data


@pytest.fixture
def cawa() -> Path:
    path = Path(os.environ.get("TEST_DATA_DIR", "")) / "cawa-ndvi" / "cawa_ndvi.csv"
    if "TEST_DATA_DIR" not in os.environ or not path.exists():
        pytest.skip("set TEST_DATA_DIR to a folder with cawa-ndvi/cawa_ndvi.csv to read real series")
    return path


def test_real_seasons(cawa: Path) -> None:
    series = read(data(cawa, label="season", groups=("region", "year"), drop_classes=("unclear",)))
    assert series.x.shape == (8_379, 1, 23) and series.variables == ("ndvi",)
    assert series.classes == ("double", "fallow", "permanent", "summer", "winter") and series.y is not None
    assert np.bincount(series.y).tolist() == [1925, 128, 407, 4323, 1596]
    assert series.times.tolist() == list(range(1, 354, 16)) and series.ids[0] == "0"
    assert 0.25 < np.isnan(series.x).mean() < 0.27
    assert (series.groups["region"] == "Fergana").sum() == 2_390 and set(series.groups["year"]) >= {"2008", "2018"}


def test_real_crops(cawa: Path) -> None:
    ten = (
        "cotton",
        "wheat",
        "wheat-other",
        "wheat-rice",
        "orchard",
        "rice",
        "wheat-maize",
        "fallow",
        "maize",
        "alfalfa",
    )
    series = read(data(cawa, label="crop", classes=ten))
    assert len(series) == 8_250 and series.classes == ten
    with pytest.raises(UserError, match=r"a single series is of class .*oats.*--data\.drop_classes .*oats") as caught:
        read(data(cawa, label="crop"))
    assert len(re.findall(",", str(caught.value).split("--data.drop_classes ")[1])) == 13
