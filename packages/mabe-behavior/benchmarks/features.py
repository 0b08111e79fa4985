"""Frames per second on two cores: our features against pandas, and against a Python loop in every window.

    python packages/mabe-behavior/benchmarks/features.py [--minutes 30] [--repeats 5] [--workers 2]

Two mice, seven parts, 30 fps, one point in fifty missing. Every way works in as many processes as `--workers`, each on
a recording of its own, so that all have the same cores; the ways take turns. "pandas" is one `Series.rolling` for each
column, window and statistic; "a loop in every window" cuts windows of 100 frames first and goes through their frames in
Python, as the project did whose guide this package follows, though over all columns at once, which it did not.

Two tasks: `v4`, the whole set from tracks to table, with a fitted PCA; and the 140 moving statistics of `pair`, out of
its columns of single frames. pandas must find the same numbers, which is checked before anything is timed; the loop
does not, as its statistics start anew in every window. Then, what each of our sets takes as a whole.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from statistics import median

import numpy as np

from mabe_behavior.features import coordinates, invariants, pca, rolling, sets
from mabe_behavior.features.columns import Table, joined
from mabe_behavior.parts import STD7
from mabe_behavior.tracks import Tracks
from shared_core.measured import load, processor, spread

FPS, WINDOW, SLOW_FRAMES = 30.0, 100, 3000
Columns = dict[str, np.ndarray]


def recording(frames: int, seed: int) -> Tracks:
    """Smooth random ways with noise, (T, 2, 7, 2), in pixels."""
    rng = np.random.default_rng(seed)
    step = rolling.mean(rng.normal(0, 6, (frames, 4)), FPS, 0.5).reshape(frames, 2, 1, 2)
    body = rng.normal(0, 30, (1, 2, len(STD7), 2))
    xy = 300 + np.cumsum(step, axis=0) + body + rng.normal(0, 1, (frames, 2, len(STD7), 2))
    xy[rng.random(xy.shape[:3]) < 0.02] = np.nan
    return Tracks(xy.astype(np.float32), ("mouse1", "mouse2"), STD7, FPS, 18.33)


def pandas_statistics(given: Columns, windows: dict[float, tuple[str, ...]]) -> np.ndarray:
    """(T, F) of every column, window and statistic, centred and without regard to what is missing."""
    import pandas

    frame, found = pandas.DataFrame(given), {}
    for name in frame.columns:
        for seconds, statistics in windows.items():
            width = rolling.odd_frames(seconds, FPS)
            rolled = frame[name].rolling(width, center=True, min_periods=1)
            for statistic in statistics:
                if statistic == "change":
                    half = frame[name].rolling(width // 2, min_periods=1).mean()
                    after = frame[name][::-1].rolling(width // 2, min_periods=1).mean()[::-1]
                    found[f"{name}.{statistic}_{seconds}"] = after.shift(-1) - half.shift(1)
                elif statistic == "std":
                    found[f"{name}.{statistic}_{seconds}"] = rolled.std(ddof=0)
                else:
                    found[f"{name}.{statistic}_{seconds}"] = getattr(rolled, statistic)()
    return pandas.DataFrame(found).to_numpy(np.float32)


def columns(table: Table) -> Columns:
    return dict(zip(table.names, table.x_TF.T, strict=True))


def loop_statistics(x_TF: np.ndarray, windows: dict[float, tuple[str, ...]]) -> np.ndarray:
    """(T, F) by windows of 100 frames, in each of which the statistics start anew; missing is 0."""
    known, made = np.nan_to_num(x_TF), []
    for start in range(0, len(x_TF), WINDOW):
        window, rows = known[start : start + WINDOW], []
        for t in range(len(window)):
            row: list[np.ndarray] = []
            for seconds, statistics in windows.items():
                half = rolling.odd_frames(seconds, FPS) // 2
                seen = window[max(0, t - half) : t + half + 1]
                for statistic in statistics:
                    if statistic == "change":
                        middle = min(t, half)
                        row.append(seen[middle:].mean(axis=0) - seen[: middle + 1].mean(axis=0))
                    else:
                        row.append(getattr(seen, statistic)(axis=0))
            rows.append(np.concatenate(row))
        made.append(np.stack(rows))
    return np.concatenate(made).astype(np.float32)


def v4_ways(tracks: Tracks) -> dict[str, Callable[[], np.ndarray]]:
    """Of the whole set, by name."""
    fitted = pca.fit([coordinates.raw28(tracks, "mouse1", "mouse2").x_TF], coordinates.COMPONENTS)
    windows = {coordinates.SECONDS: coordinates.TEMPORAL}

    def raw(of: Tracks) -> np.ndarray:
        return (of.xy_TAPX / of.pixels_per_cm).reshape(len(of), -1)

    def by_pandas() -> np.ndarray:
        import pandas

        x = raw(tracks)
        frame = pandas.DataFrame(x, columns=[str(k) for k in range(x.shape[1])])
        components = (frame - fitted.mean_F).fillna(0).to_numpy() @ fitted.directions_KF.T
        statistics = pandas_statistics({name: frame[name] for name in frame.columns}, windows)
        return np.concatenate((x, components.astype(np.float32), statistics), axis=1)

    def by_loop() -> np.ndarray:
        x = raw(tracks)[:SLOW_FRAMES]
        components = (np.nan_to_num(x) - fitted.mean_F) @ fitted.directions_KF.T
        return np.concatenate((x, components.astype(np.float32), loop_statistics(x, windows)), axis=1)

    return {
        "ours": lambda: sets.features(tracks, "mouse1", "mouse2", "v4", fitted).x_TF,
        "pandas": by_pandas,
        "a loop in every window": by_loop,
    }


def pair_ways(tracks: Tracks) -> dict[str, Callable[[], np.ndarray]]:
    """Of the moving statistics, by name; each column's means and deviations come first, extremes after them."""
    whole = sets.features(tracks, "mouse1", "mouse2", "pair")
    lasting, extreme = whole.take(invariants.LASTING_PAIR), whole.take(invariants.EXTREME_PAIR)
    means = dict.fromkeys(invariants.WINDOWS, ("mean", "std"))
    extremes = {invariants.EXTREMES: ("min", "max")}

    def ours() -> np.ndarray:
        return joined(invariants.over_time(whole, invariants.LASTING_PAIR, invariants.EXTREME_PAIR, FPS)).x_TF

    def by_pandas() -> np.ndarray:
        parts = pandas_statistics(columns(lasting), means), pandas_statistics(columns(extreme), extremes)
        return np.concatenate(parts, axis=1)

    def by_loop() -> np.ndarray:
        lasting_TF, extreme_TF = lasting.x_TF[:SLOW_FRAMES], extreme.x_TF[:SLOW_FRAMES]
        return np.concatenate((loop_statistics(lasting_TF, means), loop_statistics(extreme_TF, extremes)), axis=1)

    return {"ours": ours, "pandas": by_pandas, "a loop in every window": by_loop}


def set_ways(tracks: Tracks) -> dict[str, Callable[[], np.ndarray]]:
    """Each of our sets."""
    fitted = pca.fit([coordinates.raw28(tracks, "mouse1", "mouse2").x_TF], coordinates.COMPONENTS)
    return {
        name: (lambda name=name: sets.features(tracks, "mouse1", "mouse2", name, fitted).x_TF) for name in sets.SETS
    }


TASKS = {"v4": v4_ways, "the statistics of pair": pair_ways, "our sets": set_ways}
_ways: dict[str, dict[str, Callable[[], np.ndarray]]] = {}  # of this process


def prepare(frames: int, seed: int) -> None:
    """A process's own recording, and a check that pandas finds what we do."""
    for task, ways in TASKS.items():
        _ways[task] = ways(recording(frames, seed))
    for task in ("v4", "the statistics of pair"):
        ours, theirs = (np.sort(_ways[task][way](), axis=1) for way in ("ours", "pandas"))  # in whatever order
        if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=1e-3, atol=5e-3, equal_nan=True):
            raise AssertionError(f"{task}: pandas finds other numbers than we do")


def frames_of(task: str, way: str) -> int:
    return len(_ways[task][way]())


def rates(frames: int, workers: int, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Frames per second of all processes together, by task and way, turn by turn."""
    pools = [ProcessPoolExecutor(1) for _ in range(workers)]
    for prepared in [pool.submit(prepare, frames, seed) for seed, pool in enumerate(pools)]:
        prepared.result()
    tasks = {task: list(ways) for task, ways in pools[0].submit(_names).result().items()}
    found: dict[str, dict[str, list[float]]] = {task: {way: [] for way in ways} for task, ways in tasks.items()}
    for turn in range(repeats + 1):
        for task, ways in tasks.items():
            for way in ways:
                began = time.perf_counter()
                running = [pool.submit(frames_of, task, way) for pool in pools]
                done = sum(one.result() for one in running)
                if turn:  # the first warms up
                    found[task][way].append(done / (time.perf_counter() - began))
    for pool in pools:
        pool.shutdown()
    return found


def _names() -> dict[str, list[str]]:
    return {task: list(ways) for task, ways in _ways.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="of each recording")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="processes, one core each")
    options = parser.parse_args()
    frames = round(options.minutes * 60 * FPS)
    print(f"{processor()}, {options.workers} processes, load {load()}; {frames:,} frames each, {options.repeats} turns")
    for task, ways in rates(frames, options.workers, options.repeats).items():
        print(f"\n{task}: frames per second, median (smallest..largest)")
        first = ways.get("ours")
        for way, speeds in ways.items():
            ratio = (
                "" if first is None else f"  ours is {median(a / b for a, b in zip(first, speeds, strict=True)):,.1f} x"
            )
            print(f"  {way:24} {spread(speeds, ',.0f'):>40}{ratio}")


if __name__ == "__main__":
    main()
