"""How much of an ensemble's gain over its best single model another model keeps, such as its student.

    python packages/pair-compare-stacking/benchmarks/kept.py ten distilled [distilled-control]

The first run is the ensemble, each is a name in the folder of runs, or a path. The best single model is the one that
was best on the withheld pairs. On every labelled split of the ensemble's data: accuracies, and for each other run
what it is worth beside the ensemble and beside the best single model, answer by answer, with intervals over source
images. "kept" is the share of the ensemble's gain; where that gain is small its interval is wide, so the line also
says by how much the run is better than having kept 95 % of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from throughput import ensemble_first

from pair_compare_stacking import evaluate, prepare, saved, stackers
from pair_compare_stacking.outcome import Outcome
from pair_compare_stacking.pairs import PairNPZDataset
from pair_compare_stacking.stacking import UNIT
from shared_core import metrics
from shared_core.intervals import Ratio, Resamples
from shared_core.runtime import Runtime
from shared_core.settings import Runtime as Settings

TARGET = 0.95


def lines(
    split: str, whole: np.ndarray, best: np.ndarray, others: dict[str, np.ndarray], sources: np.ndarray
) -> list[str]:
    """What one split says."""
    gain = metrics.paired_difference(best, whole, sources, UNIT)
    found = [f"{split}: ensemble {whole.mean():.4f}, best single {best.mean():.4f}, gain {gain}"]
    for name, own in others.items():
        with np.errstate(invalid="ignore"):  # a resample in which nothing is gained
            kept = Resamples(len(own), groups=sources, unit=UNIT).estimate(
                Ratio(own.astype(float) - best, whole.astype(float) - best)
            )
        margin = metrics.paired_difference(TARGET * whole + (1 - TARGET) * best, own, sources, UNIT)
        beside = metrics.paired_difference(whole, own, sources, UNIT)
        found += [
            f"  {name}: {own.mean():.4f}; less the ensemble {beside.value:+.4f} "
            f"[{beside.low:+.4f}, {beside.high:+.4f}]",
            f"    kept {kept.value:.2f} [{kept.low:.2f}, {kept.high:.2f}]; beyond {TARGET:.0%} of the gain: "
            f"{margin.value:+.4f} [{margin.low:+.4f}, {margin.high:+.4f}]",
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="the ensemble, then what is compared with it")
    parser.add_argument("--home", type=Path, default=Path("runs/pair-compare-stacking"), help="folder of the runs")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of prepared data")
    parser.add_argument("--threads", type=int, help="CPU threads")
    given = parser.parse_args()
    ensemble, others = ensemble_first(parser, given.runs, given.home)
    runtime = Runtime.start(Settings(threads=given.threads), seed=0)
    folder = given.data / prepare.PACKAGE / saved.read_config(ensemble.run.path).data.folder
    there = [split for split in evaluate.SPLITS if (folder / f"{split}.npz").exists()]
    if not there:
        parser.error(f"--data: {folder} holds no prepared pairs")
    with torch.no_grad():
        for split in there:
            pairs = PairNPZDataset(folder / f"{split}.npz")
            if pairs.truth is None:
                parser.error(f"{folder / split}.npz: its source images are not known, which intervals are over")
            answers = ensemble.answer(pairs.x, runtime)
            whole = Outcome.of(split, pairs, answers.prediction)
            best = (answers.methods[stackers.BEST_SINGLE] >= 0.5) == (whole.y == 1)
            right = {
                name: Outcome.of(split, pairs, who.answer(pairs.x, runtime).prediction).right
                for name, who in others.items()
            }
            print("\n".join(lines(split, whole.right, best, right, pairs.truth.sources)), flush=True)


if __name__ == "__main__":
    main()
