"""Frames per second: our sets of features against pandas, and against Python loops in every window.

    python packages/mabe-behavior/benchmarks/features.py [--minutes 30] [--repeats 5] [--processes 1]

Two mice, seven parts, 30 fps, one point in fifty missing; whole sets, from tracks to table.

* "pandas" is `plain.py`: NumPy and SciPy for what is of a frame, `DataFrame.rolling` over all columns for what is over
  time. It must find the same numbers, which is checked before anything is timed.
* "loops" does as the project did whose guide this package follows: windows of 100 frames are cut first, what is missing
  is 0, and Python goes through the frames of each, so that statistics start anew in every window. It takes a short
  recording. Once a frame's statistics are taken of all columns at once, which favours it, and once column by column.

With one process, ours takes one thread or two, and the others one, as they have no more; with more, each works on a
recording of its own in one thread, so that all have the same cores. The ways take turns. At last, what the first use
costs in a new process, while machine code is made and when it lies on the disk.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import plain

from mabe_behavior.features import coordinates, invariants, pca, rolling, sets
from mabe_behavior.features.rolling import odd_frames
from mabe_behavior.parts import STD7
from mabe_behavior.tracks import Tracks
from shared_core.measured import load, processor, spread

FPS, WINDOW = 30.0, 100
MEANS = dict.fromkeys(invariants.WINDOWS, invariants.MEANS)
ENDS = {invariants.EXTREMES: invariants.ENDS}
Ways = dict[str, Callable[[], Any]]
Loop = Callable[[np.ndarray, dict[float, tuple[str, ...]]], np.ndarray]


def recording(frames: int, seed: int) -> Tracks:
    """Smooth random ways with noise, (T, 2, 7, 2), in pixels."""
    rng = np.random.default_rng(seed)
    step = rolling.mean(rng.normal(0, 6, (frames, 4)), FPS, 0.5).reshape(frames, 2, 1, 2)
    body = rng.normal(0, 30, (1, 2, len(STD7), 2))
    xy = 300 + np.cumsum(step, axis=0) + body + rng.normal(0, 1, (frames, 2, len(STD7), 2))
    xy[rng.random(xy.shape[:3]) < 0.02] = np.nan
    return Tracks(xy.astype(np.float32), ("mouse1", "mouse2"), STD7, FPS, 18.33)


def looped(window_TF: np.ndarray, wanted: dict[float, tuple[str, ...]]) -> np.ndarray:
    """(T, F) statistics of one window, frame by frame."""
    rows = []
    for t in range(len(window_TF)):
        row: list[np.ndarray] = []
        for seconds, statistics in wanted.items():
            half = odd_frames(seconds, FPS) // 2
            seen = window_TF[max(0, t - half) : t + half + 1]
            for statistic in statistics:
                if statistic == "change":
                    middle = min(t, half)
                    row.append(seen[middle:].mean(axis=0) - seen[: middle + 1].mean(axis=0))
                else:
                    row.append(getattr(seen, statistic)(axis=0))
        rows.append(np.concatenate(row))
    return np.stack(rows)


def column_by_column(window_TF: np.ndarray, wanted: dict[float, tuple[str, ...]]) -> np.ndarray:
    return np.concatenate([looped(window_TF[:, [f]], wanted) for f in range(window_TF.shape[1])], axis=1)


def loops(tracks: Tracks, frames: int, of_window: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Of windows of positions in cm, in which what is missing is 0."""
    cm_TAPX = np.nan_to_num(tracks.xy_TAPX[:frames] / tracks.pixels_per_cm)
    return np.concatenate([of_window(cm_TAPX[start : start + WINDOW]) for start in range(0, frames, WINDOW)])


def v4_ways(tracks: Tracks) -> Ways:
    fitted = pca.fit([coordinates.raw28(tracks, "mouse1", "mouse2").x_TF], coordinates.COMPONENTS)
    wanted = {coordinates.SECONDS: coordinates.TEMPORAL}

    def of_window(cm_TAPX: np.ndarray, one: Loop) -> np.ndarray:
        xy_TF = cm_TAPX.reshape(len(cm_TAPX), -1)
        components = (xy_TF - fitted.mean_F) @ fitted.directions_KF.T
        return np.concatenate((xy_TF, components, one(xy_TF, wanted)), axis=1, dtype=np.float32)

    return {
        "ours, 2 threads": lambda: sets.features(tracks, "mouse1", "mouse2", "v4", fitted, 2).x_TF,
        "ours, 1 thread": lambda: sets.features(tracks, "mouse1", "mouse2", "v4", fitted).x_TF,
        "pandas": lambda: plain.v4(tracks.xy_TAPX / tracks.pixels_per_cm, FPS, fitted.mean_F, fitted.directions_KF),
        "loops": lambda: loops(tracks, 3000, lambda cm_TAPX: of_window(cm_TAPX, looped)),
        "loops, column by column": lambda: loops(tracks, 300, lambda cm_TAPX: of_window(cm_TAPX, column_by_column)),
    }


def pair_ways(tracks: Tracks) -> Ways:
    lasting, extreme = list(invariants.LASTING_PAIR), list(invariants.EXTREME_PAIR)

    def of_window(cm_TAPX: np.ndarray, one: Loop) -> np.ndarray:
        now = plain.now(cm_TAPX, FPS).fillna(0)
        means, ends = one(now[lasting].to_numpy(), MEANS), one(now[extreme].to_numpy(), ENDS)
        return np.concatenate((now.to_numpy(), means, ends), axis=1, dtype=np.float32)

    return {
        "ours, 2 threads": lambda: sets.features(tracks, "mouse1", "mouse2", "pair", threads=2).x_TF,
        "ours, 1 thread": lambda: sets.features(tracks, "mouse1", "mouse2", "pair").x_TF,
        "pandas": lambda: plain.pair(tracks.xy_TAPX / tracks.pixels_per_cm, FPS, lasting, extreme),
        "loops": lambda: loops(tracks, 3000, lambda cm_TAPX: of_window(cm_TAPX, looped)),
        "loops, column by column": lambda: loops(tracks, 300, lambda cm_TAPX: of_window(cm_TAPX, column_by_column)),
    }


def set_ways(tracks: Tracks) -> Ways:
    """Each of our sets, in one thread."""
    fitted = pca.fit([coordinates.raw28(tracks, "mouse1", "mouse2").x_TF], coordinates.COMPONENTS)
    return {
        name: (lambda name=name: sets.features(tracks, "mouse1", "mouse2", name, fitted).x_TF) for name in sets.SETS
    }


TASKS = {"v4": v4_ways, "pair": pair_ways, "our sets, 1 thread": set_ways}
_ways: dict[str, Ways] = {}  # of this process


def prepare(frames: int, seed: int) -> None:
    """A process's own recording, and a check that pandas finds what we do."""
    for task, ways in TASKS.items():
        _ways[task] = ways(recording(frames, seed))
    ends = slice(200, -200)  # where derivatives differ
    for task in ("v4", "pair"):
        ours, theirs = (_ways[task][way]()[ends] for way in ("ours, 1 thread", "pandas"))
        theirs = theirs[list(sets.columns(task).now + sets.columns(task).over_time)] if task == "pair" else theirs
        x_TF, scale_F = theirs.to_numpy(np.float64), np.maximum(theirs.std().to_numpy(), 1e-6)
        known_F = ~np.isin(np.arange(x_TF.shape[1]), range(28, 44)) if task == "v4" else slice(None)
        if not np.allclose((ours / scale_F)[:, known_F], (x_TF / scale_F)[:, known_F], atol=1e-2, equal_nan=True):
            raise AssertionError(f"{task}: pandas finds other numbers than we do")


def frames_of(task: str, way: str) -> int:
    return len(_ways[task][way]())


def rates(frames: int, processes: int, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Frames per second of all processes together, by task and way, turn by turn."""
    pools = [ProcessPoolExecutor(1) for _ in range(processes)]
    for prepared in [pool.submit(prepare, frames, seed) for seed, pool in enumerate(pools)]:
        prepared.result()
    tasks = {task: list(ways) for task, ways in pools[0].submit(_names).result().items()}
    found: dict[str, dict[str, list[float]]] = {task: {way: [] for way in ways} for task, ways in tasks.items()}
    for turn in range(repeats + 1):
        for task, ways in tasks.items():
            for way in ways:
                if processes > 1 and "2 threads" in way:
                    continue
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


def first_use(folder: str) -> float:
    """Seconds of a new process for the set `pair` of a hundred frames, with machine code kept in this folder."""
    code = (
        "import time; began = time.perf_counter(); import numpy as np\n"
        "from mabe_behavior.features import sets; from mabe_behavior.parts import STD7\n"
        "from mabe_behavior.tracks import Tracks\n"
        "xy = np.random.default_rng(0).normal(size=(100, 2, 7, 2))\n"
        "sets.features(Tracks(xy, ('a', 'b'), STD7, 30.0, 10.0), 'a', 'b', 'pair'); print(time.perf_counter() - began)"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": folder}
    return float(subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="of each recording")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    frames = round(options.minutes * 60 * FPS)
    print(
        f"{processor()}, {os.cpu_count()} cores, load {load()}; {options.processes} processes, {frames:,} frames each"
    )
    for task, ways in rates(frames, options.processes, options.repeats).items():
        print(f"\n{task}: frames per second, median (smallest..largest) of {options.repeats} turns")
        ours = {way: speeds for way, speeds in ways.items() if way.startswith("ours") and speeds}
        for way, speeds in ways.items():
            if not speeds:
                continue
            ratios = {name: [a / b for a, b in zip(first, speeds, strict=True)] for name, first in ours.items()}
            said = ", ".join(f"{name} {spread(ratio, ',.1f')} x" for name, ratio in ratios.items() if way not in ours)
            print(f"  {way:24} {spread(speeds, ',.0f'):>40}  {said}")
    with tempfile.TemporaryDirectory() as folder:
        print(f"\nfirst use of pair in a process: {first_use(folder):.1f} s, then {first_use(folder):.1f} s")


if __name__ == "__main__":
    main()
