"""What is odd about a set is told: a line for each oddity, and none for data that are as they should be."""

import os
from pathlib import Path

import numpy as np
import pytest

from timeseries_dualmodal.checks import warnings
from timeseries_dualmodal.data_config import Data
from timeseries_dualmodal.readers import read
from timeseries_dualmodal.series import SeriesSet

N, V, T = 80, 2, 20


def series(x: np.ndarray, times: np.ndarray | None = None, **groups: np.ndarray) -> SeriesSet:
    n, v, t = x.shape
    return SeriesSet(
        x=x.astype(np.float32),
        y=np.arange(n) % 2,
        ids=np.array([str(row) for row in range(n)]),
        variables=tuple(f"v{number}" for number in range(v)),
        classes=("a", "b"),
        times=1.0 + 10 * np.arange(t) if times is None else times,
        groups=groups,
    )


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, V, T))


def test_good_data_need_no_warning(x: np.ndarray) -> None:
    assert warnings(series(x, region=np.array(["north", "south"] * (N // 2)))) == []


def test_whole_numbers_are_told(x: np.ndarray) -> None:
    x[:, 1] = np.round(100 * x[:, 1])
    (line,) = warnings(series(x))
    assert line.startswith("v1 hold whole numbers only")


def test_few_distinct_values_are_told(x: np.ndarray) -> None:
    x[:, 0] = np.round(x[:, 0], 1).clip(-1, 1)
    (line,) = warnings(series(x))
    assert line.startswith("v0 (21) have very few distinct values")


def test_constant_columns_and_variables_are_told(x: np.ndarray) -> None:
    x[:, 0, 3] = 0.25
    (line,) = warnings(series(x))
    assert line == "1 columns are constant: v0 at time 31"
    x[:, 0] = np.linspace(0, 1, T)
    x[:, 0, 5] = np.nan
    assert any(line.startswith("v0 do not differ between series") for line in warnings(series(x)))


def test_mostly_missing_steps_are_told(x: np.ndarray) -> None:
    x[: int(0.6 * N), :, 4] = np.nan
    x[: int(0.4 * N), :, 5] = np.nan
    (line,) = warnings(series(x))
    assert line == "1 of 20 steps are mostly missing, at time 41 (60%)"


def test_late_beginnings_are_told(x: np.ndarray) -> None:
    x[:30, :, :4] = np.nan
    x[3] = np.nan
    lines = warnings(series(x))
    assert "1 series have no value at all" in lines
    assert any("37.5% in the first 3, 1.2% in the first 6" in line for line in lines)


def test_copies_are_told_with_their_classes(x: np.ndarray) -> None:
    x[10], x[12] = x[0], x[0]  # three equal ones of a class are three pairs
    x[21] = x[20]
    (line,) = warnings(series(x))
    assert line.startswith("4 pairs of series are exactly equal, 1 of them with different classes;")


@pytest.mark.parametrize("first", [0, 1])
def test_step_numbers_for_dates_are_told(first: int, x: np.ndarray) -> None:
    (line,) = warnings(series(x, first + np.arange(T, dtype=np.float64)))
    assert "name no dates" in line and f"{first} to {first + T - 1}" in line and "--data.step_time" in line


def test_gaps_that_betray_the_region_are_told(x: np.ndarray) -> None:
    region = np.array(["north", "south"] * (N // 2))
    x[np.ix_(region == "north", [0, 1], range(0, T, 3))] = np.nan
    lines = warnings(series(x, region=region))
    assert any("missing values depend on region: north lacks 35%, south 0%" in line for line in lines)


def test_real_seasons_are_as_the_facts_say() -> None:
    path = Path(os.environ.get("TEST_DATA_DIR", "")) / "cawa-ndvi" / "cawa_ndvi.csv"
    if "TEST_DATA_DIR" not in os.environ or not path.exists():
        pytest.skip("set TEST_DATA_DIR to a folder with cawa-ndvi/cawa_ndvi.csv to check real series")
    lines = warnings(read(Data(source=str(path), label="season", groups=("region",))))
    assert any(line.startswith("96 pairs of series are exactly equal, 2 of them with different") for line in lines)
    assert any("37.5% in the first 3, 33.6% in the first 6, 32.5% in the first 9 steps" in line for line in lines)
    assert any("Samarkand lacks 54%, Dushanbe 0%" in line for line in lines)
    assert any("time 353 (53%)" in line for line in lines)
    assert len(lines) == 4
