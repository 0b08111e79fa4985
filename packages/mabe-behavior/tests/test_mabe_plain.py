"""The sets `v4` and `pair` against a plain restatement with NumPy, SciPy and pandas: benchmarks/plain.py."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mabe_behavior.features import chunks, coordinates, invariants, pca, sets
from mabe_behavior.features.columns import Table
from mabe_behavior.parts import STD7
from mabe_behavior.tracks import Tracks


@pytest.fixture(scope="module")
def plain() -> ModuleType:
    folder = str(Path(__file__).parents[1] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        import plain
    finally:
        sys.path.remove(folder)
    return plain


def walks(frames: int, fps: float, seed: int) -> Tracks:
    """Two mice on random ways that cross, with gaps of single points, of parts and of whole animals."""
    rng = np.random.default_rng(seed)
    xy = 300 + np.cumsum(np.cumsum(rng.normal(0, 0.2, (frames, 2, 1, 2)), axis=0) * 0.97, axis=0)
    xy = 300 + 150 * np.sin(xy / 150) + rng.normal(0, 30, (1, 2, len(STD7), 2)) + rng.normal(0, 1, (frames, 2, 7, 2))
    xy[rng.random(xy.shape[:3]) < 0.02] = np.nan
    for start in rng.integers(0, frames, 3):
        xy[start : start + rng.integers(1, 40), rng.integers(2), rng.integers(7)] = np.nan
        xy[start : start + rng.integers(1, 400), rng.integers(2)] = np.nan
    return Tracks(xy.astype(np.float32), ("mouse1", "mouse2"), STD7, fps, 18.33)


def compare(found: Table, expected: pandas.DataFrame, ends: int) -> None:
    """All but the ends, where derivatives differ: missing in the same places, and equal up to rounding."""
    a, b = (x[ends : len(x) - ends].astype(float) for x in (found.x_TF, expected.to_numpy()))
    assert np.array_equal(np.isnan(a), np.isnan(b))
    with np.errstate(invalid="ignore"):
        spread = np.nanstd(b, axis=0) + 1e-3 * np.nanmax(np.abs(b), axis=0)
        apart = np.nanmax(np.abs(a - b), axis=0) / spread
    assert [(name, x) for name, x in zip(found.names, apart, strict=True) if not x < 5e-3] == []


@pytest.mark.parametrize("fps", [25.0, 30.0, 60.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_pair_is_what_one_writes_down(plain: ModuleType, fps: float, seed: int) -> None:
    tracks = walks(3000, fps, seed)
    cm = tracks.xy_TAPX.astype(float) / tracks.pixels_per_cm
    expected = plain.pair(cm, fps, invariants.LASTING_PAIR, invariants.EXTREME_PAIR)
    found = sets.features(tracks, "mouse1", "mouse2", "pair")
    assert sorted(expected.columns) == sorted(found.names)
    # pandas' deviations of a second's equal values are not 0 but as large as its running sums' rounding
    compare(found, expected[list(found.names)], plain.frames_of(6, fps) // 2 + 12)


def test_v4_is_what_one_writes_down(plain: ModuleType) -> None:
    tracks = walks(3000, 30.0, 2)
    fitted = pca.fit([coordinates.raw28(tracks, "mouse1", "mouse2").x_TF], coordinates.COMPONENTS)
    found = sets.features(tracks, "mouse1", "mouse2", "v4", fitted)
    expected = plain.v4(tracks.xy_TAPX.astype(float) / tracks.pixels_per_cm, 30.0, fitted.mean_F, fitted.directions_KF)
    unseen = np.isnan(tracks.xy_TAPX).all(axis=(1, 2, 3))
    expected.loc[unseen, [f"component{k}" for k in range(coordinates.COMPONENTS)]] = np.nan
    compare(found, expected, 0)


@pytest.mark.parametrize("name", sets.SETS)
@pytest.mark.parametrize("threads", [1, 3])
def test_a_table_does_not_depend_on_where_it_is_cut(name: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tracks = walks(700, 30.0, 3)
    fitted = pca.fit([coordinates.raw28(tracks, "mouse1", "mouse2").x_TF], coordinates.COMPONENTS)
    whole = sets.features(tracks, "mouse1", "mouse2", name, fitted).x_TF
    for frames in (1, 97, 349, 699):
        monkeypatch.setattr(chunks, "CHUNK", frames)
        if frames == 1 and threads > 1:
            continue
        cut = sets.features(tracks, "mouse1", "mouse2", name, fitted, threads).x_TF
        # sums begin elsewhere, and round differently
        assert np.allclose(cut, whole, rtol=1e-5, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("name", sets.SETS)
def test_columns_are_known_without_a_recording(name: str) -> None:
    known = sets.columns(name)
    fitted = pca.fit([coordinates.raw28(walks(50, 30.0, 0), "mouse1", "mouse2").x_TF], coordinates.COMPONENTS)
    found = sets.features(walks(50, 30.0, 0), "mouse1", "mouse2", name, fitted)
    assert known.now + known.over_time == found.names
    assert all("_" not in column.rsplit(".", 1)[-1] or "component" in column for column in known.now)
    assert all(column.endswith("s") or "since" in column for column in known.over_time)
    if name.endswith("_now"):
        whole = sets.columns(name.removesuffix("_now"))
        assert known.now == whole.now and known.over_time == () != whole.over_time


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99), st.sampled_from(["alone_now", "pair_now"]))
def test_columns_of_now_see_no_further_than_a_derivative(frame: int, name: str) -> None:
    tracks = walks(100, 30.0, 4)
    before = sets.features(tracks, "mouse1", "mouse2", name).x_TF
    tracks.xy_TAPX[frame] += 30
    apart = np.abs(sets.features(tracks, "mouse1", "mouse2", name).x_TF - before)
    frames = np.flatnonzero((apart > 1e-2 * np.nanstd(before, axis=0)).any(axis=1))
    assert frames.size or np.isnan(tracks.xy_TAPX[frame, 0]).all()
    assert (np.abs(frames - frame) <= 10).all()  # 5, and the last whole window at either end


def test_what_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="threads: 0; must be at least 1"):
        sets.features(walks(10, 30.0, 0), "mouse1", "mouse2", "pair", threads=0)
    with pytest.raises(ValueError, match="'v5'; must be one of raw28"):
        sets.columns("v5")
