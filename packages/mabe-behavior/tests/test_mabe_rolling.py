"""Moving statistics against a loop over every window."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mabe_behavior.features import rolling

VALUES = st.one_of(st.floats(-1e3, 1e3, width=32), st.just(math.nan), st.sampled_from([0.0, 500.0]))


def slow(x: list[float], width: int, statistic: str) -> list[float]:
    """The statistic of every window, from its values."""

    def mean(values: list[float]) -> float:
        seen = [v for v in values if not math.isnan(v)]
        return math.fsum(seen) / len(seen) if seen else math.nan

    found = []
    for t in range(len(x)):
        window = x[max(0, t - width // 2) : t + width // 2 + 1]
        seen = [v for v in window if not math.isnan(v)]
        if statistic == "change":
            found.append(mean(x[t + 1 : t + width // 2 + 1]) - mean(x[max(0, t - width // 2) : t]))
        elif not seen:
            found.append(math.nan)
        elif statistic == "std":
            found.append(math.sqrt(math.fsum((v - mean(seen)) ** 2 for v in seen) / len(seen)))
        else:
            found.append({"mean": mean, "min": min, "max": max}[statistic](seen))
    return found


@settings(deadline=None)  # the first call compiles
@given(
    st.integers(1, 25).flatmap(lambda n: st.lists(st.lists(VALUES, min_size=n, max_size=n), min_size=1, max_size=3)),
    st.lists(st.integers(0, 15).map(lambda half: 2 * half + 1), min_size=1, max_size=3),
)
def test_they_are_those_of_every_window(rows: list[list[float]], widths: list[int]) -> None:
    found = rolling.rolling(np.array(rows, np.float32).T, widths, rolling.STATISTICS)
    assert found.shape == (len(rows[0]), len(widths), len(rolling.STATISTICS), len(rows))
    for f, row in enumerate(rows):
        for w, width in enumerate(widths):
            for s, statistic in enumerate(rolling.STATISTICS):
                expected = slow(row, width, statistic)
                assert found[:, w, s, f].tolist() == pytest.approx(expected, rel=1e-5, abs=2e-3, nan_ok=True), statistic


def test_a_small_wobble_far_from_zero_and_late_in_a_long_recording_keeps_its_size() -> None:
    x = 50 + 1e-3 * np.where(np.arange(500_000) % 2, 1.0, -1.0)
    x[:1000] = 0  # so that the mean of all is not the mean of the rest
    found = rolling.rolling(x[:, None], [31], ["mean", "std"])[2000:, 0, :, 0]
    assert np.abs(found[:, 0] - 50).max() < 2e-4
    assert np.abs(found[:, 1] - 1e-3).max() < 2e-5


@settings(deadline=None)
@given(st.integers(0, 99), st.integers(0, 10))
def test_a_value_is_felt_in_its_window_and_nowhere_else(frame: int, half: int) -> None:
    x = np.random.default_rng(0).normal(size=(100, 1))
    whole = rolling.rolling(x, [2 * half + 1], ["mean", "std", "min", "max"])
    x[frame, 0] = np.nan
    found = rolling.rolling(x, [2 * half + 1], ["mean", "std", "min", "max"])
    outside = np.abs(np.arange(100) - frame) > half
    assert found[outside] == pytest.approx(whole[outside], abs=1e-6)
    assert np.isnan(found).any() == (half == 0)  # one missing value hides only a window of that value alone


@pytest.mark.parametrize(
    ("seconds", "fps", "frames"),
    [(0.5, 30, 15), (1, 30, 29), (0.01, 30, 1), (2, 25, 49), (0.5, 10, 5), (0.4, 30, 11), (0.1, 30, 3)],
)
def test_windows_have_an_odd_number_of_frames(seconds: float, fps: float, frames: int) -> None:
    assert rolling.odd_frames(seconds, fps) == frames


def test_moving_means_are_along_the_first_axis() -> None:
    x = np.random.default_rng(0).normal(size=(30, 2))
    found = rolling.mean(x, 30.0, 0.3)
    assert found.shape == x.shape
    assert found[10] == pytest.approx(x[6:15].mean(axis=0), abs=1e-6)


def test_names_say_column_statistic_and_window() -> None:
    found = rolling.names(("a", "b"), [0.5, 2.0], ["mean", "max"])
    assert found[:5] == ("a.mean_0.5s", "b.mean_0.5s", "a.max_0.5s", "b.max_0.5s", "a.mean_2s") and len(found) == 8


@pytest.mark.parametrize("statistic", rolling.STATISTICS)
def test_a_statistic_is_the_same_alone_as_among_others(statistic: str) -> None:
    x = np.random.default_rng(0).normal(size=(50, 3))
    among = rolling.rolling(x, [5, 9], rolling.STATISTICS)[:, :, rolling.STATISTICS.index(statistic)]
    assert np.array_equal(rolling.rolling(x, [5, 9], [statistic])[:, :, 0], among, equal_nan=True)


def test_they_are_computed_where_numba_can_write_nothing() -> None:
    """As in a container whose file system is read-only."""
    code = (
        "from numba.core import caching; caching.CacheImpl._locator_classes = []\n"
        "from mabe_behavior.features import rolling\n"
        "assert rolling.rolling([[1.0], [3.0]], [3], ['mean'])[0, 0, 0, 0] == 2"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_wrong_is_said() -> None:
    x = np.zeros((4, 1))
    with pytest.raises(ValueError, match="frames: 4; must be odd"):
        rolling.rolling(x, [4])
    with pytest.raises(ValueError, match="median; must be among mean, std"):
        rolling.rolling(x, [3], ["median"])
    with pytest.raises(ValueError, match=r"shape \(4,\); must be \(frames, columns\)"):
        rolling.rolling(x[:, 0], [3])
    with pytest.raises(ValueError, match="fps 0; must be above 0"):
        rolling.odd_frames(1, 0)
    assert rolling.rolling(np.zeros((0, 2)), [3]).shape == (0, 1, 2, 2)
