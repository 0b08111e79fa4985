"""Windows per second: how fast training gets its windows, against features computed in every window.

    python packages/mabe-behavior/benchmarks/loading.py [--repeats 5]

Two mice, windows of 100 frames, the set `v4` (128 columns), one process. "ours" cuts windows out of features that were
computed once and lie on the disk, with labels, balanced sampling and jitter, and collates batches of 64. "per window"
does as the project did whose guide this package follows: positions of a window are taken, missing ones are 0, and 16
components and statistics over a second are computed of it anew, frame by frame in Python; its labels are not made here,
which is in its favour. The ways take turns.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from mabe_behavior import featurestore
from mabe_behavior.data_config import Features
from mabe_behavior.examples import Cutter, Piece, Windows
from mabe_behavior.features import coordinates, pca
from mabe_behavior.featurestore import FeatureStore
from mabe_behavior.simulation import labs, simulator
from mabe_behavior.vocabulary import Relation
from shared_core.measured import load, processor, spread

LENGTH, BATCH, MOST = 100, 64, 8
PAIR = Relation("mouse1", "mouse2")


def ours(folder: Path, wanted: Features) -> Callable[[], int]:
    """Batches of a data set over features on the disk."""
    recordings = [simulator.simulate(labs.lab("openfield"), seed, 60.0) for seed in range(MOST)]
    found = [featurestore.seen(one.tracks, wanted) for one in recordings]
    fitted = pca.fit([coordinates.raw28(one, *PAIR).x_TF for one in found], coordinates.COMPONENTS)
    store = FeatureStore.of(folder, "benchmark", wanted, fitted)
    list(store.fill(range(MOST), lambda n: (recordings[n].tracks, [PAIR])))
    rng, pieces = np.random.default_rng(0), []
    for n, one in enumerate(found):
        x_TF = store.open(n, PAIR, len(one))
        assert x_TF is not None
        pieces.append(Piece(x_TF, (rng.random((len(one), 4)) < 0.02).astype(np.int8), 1, 0))
    windows = Windows({"pair": Cutter(pieces, LENGTH, 2, 0.5)}, 1.0)

    def batches() -> int:
        for _ in range(20):
            windows.__getitems__(torch.randint(len(windows), (BATCH,)).tolist())
        return 20 * BATCH

    return batches


def per_window(wanted: Features) -> Callable[[], int]:
    """Windows of positions, from which features are computed each time."""
    tracks = simulator.simulate(labs.lab("openfield"), 0, 60.0).tracks.resampled(wanted.fps)
    xy_TF = np.nan_to_num(coordinates.raw28(tracks, *PAIR).x_TF)
    fitted = pca.fit([xy_TF], coordinates.COMPONENTS)
    half = round(coordinates.SECONDS * wanted.fps) // 2

    def one(start: int) -> np.ndarray:
        window_LF = xy_TF[start : start + LENGTH]
        components = fitted.transform(window_LF)
        rows = []
        for t in range(LENGTH):
            seen = window_LF[max(0, t - half) : t + half + 1]
            rows.append(np.concatenate((seen.mean(axis=0), seen.std(axis=0), seen[-1] - seen[0])))
        return np.concatenate((window_LF, components, np.stack(rows)), axis=1)

    def windows() -> int:
        for start in np.random.default_rng(0).integers(0, len(xy_TF) - LENGTH, BATCH).tolist():
            torch.from_numpy(one(start))
        return BATCH

    return windows


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(argv)
    wanted = Features(pair="v4")
    with tempfile.TemporaryDirectory() as folder:
        ways = {"ours": ours(Path(folder), wanted), "per window": per_window(wanted)}
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(options.repeats + 1):
            for name, work in ways.items():
                began = time.perf_counter()
                count = work()
                if turn:  # the first warms up
                    rates[name].append(count / (time.perf_counter() - began))
    print(f"{processor()}, one process, load {load()}")
    print(f"windows per second, median (smallest..largest) of {options.repeats}")
    for name, values in rates.items():
        print(f"{name:12} {spread(values, ',.0f')}")
    ratios = [one / other for one, other in zip(*rates.values(), strict=True)]
    print(f"{'ratio':12} {spread(ratios, '.0f')}")


if __name__ == "__main__":
    main(sys.argv[1:])
