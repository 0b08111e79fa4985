"""Seconds from tracks to a submission: two mice, half an hour at 30 frames a second, by a trained model.

    python packages/mabe-behavior/benchmarks/recording.py --run default [--minutes 30] [--repeats 3]

The tracks are simulated and written as a table of DeepLabCut's; then `mabe predict --input` runs in a process of its
own, and its whole time counts: starting Python, reading the table, features, networks, trees, bouts, writing.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mabe_behavior.simulation import labs, simulator
from mabe_behavior.tracks import Tracks
from shared_core.measured import load, processor, spread

LAB = "resident"  # 30 frames a second, seven parts


def write(path: Path, tracks: Tracks) -> None:
    """A table of DeepLabCut's with individuals."""
    header = [[name] for name in ("scorer", "individuals", "bodyparts", "coords")]
    for animal in tracks.animals:
        for part in tracks.parts:
            for axis in "xy":
                for line, cell in zip(header, ("simulator", animal, part, axis), strict=True):
                    line.append(cell)
    rows = tracks.xy_TAPX.reshape(len(tracks), -1)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows(header)
        for number, row in enumerate(rows):
            writer.writerow([number, *("" if np.isnan(value) else f"{value:.2f}" for value in row)])


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="default", help="name or folder of a finished run")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "recording.csv", Path(folder) / "submission.csv"
        tracks = simulator.simulate(labs.lab(LAB), 0, options.minutes * 60).tracks
        write(path, tracks)
        words = ["predict", "--run", options.run, "--input", str(path), "--out", str(out), "--figures", "0"]
        words += ["--fps", f"{tracks.fps:g}", "--pixels_per_cm", f"{tracks.pixels_per_cm:g}"]
        took = []
        for _ in range(options.repeats):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-m", "mabe_behavior", *words], check=True)
            took.append(time.perf_counter() - began)
        rows = len(out.read_text().splitlines()) - 1
    print(
        f"{processor()}, load {load()}; {len(tracks):,} frames of {len(tracks.animals)} mice, {rows:,} bouts predicted"
    )
    print(f"seconds, median (smallest..largest) of {options.repeats}: {spread(took, '.1f')}")


if __name__ == "__main__":
    main(sys.argv[1:])
