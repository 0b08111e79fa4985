"""How hard the generated crop seasons are: macro-F1 of gradient-boosted trees on causal prefixes.

    python packages/timeseries-dualmodal/benchmarks/difficulty.py

Random splits of 80 / 20 %, stratified by class, and each region held out. Trees see the first t steps of all
variables, with missing values as they are. The table is the one in `timeseries_dualmodal.phenology`; it takes about ten
minutes on one core.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import f1_score

from shared_core import splits
from timeseries_dualmodal.phenology import generate
from timeseries_dualmodal.series import SeriesSet

STEPS = (3, 6, 9, 12, 18, 24, 37)


def scores(series: SeriesSet, train: np.ndarray, test: np.ndarray) -> list[float]:
    """Macro-F1 at each of STEPS."""
    assert series.y is not None
    found = []
    for steps in STEPS:
        features = series.x[:, :, :steps].reshape(len(series), -1)
        trees = HistGradientBoostingClassifier(max_iter=60, class_weight="balanced", random_state=0)
        trees.fit(features[train], series.y[train])
        found.append(f1_score(series.y[test], trees.predict(features[test]), average="macro"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2_000, help="series")
    parser.add_argument("--seed", type=int, default=0, help="of the set")
    parser.add_argument("--splits", type=int, default=3, help="random splits")
    options = parser.parse_args()
    series = generate(options.n, options.seed)
    assert series.y is not None
    drawn = [splits.stratified(series.y, {"train": 0.8, "test": 0.2}, seed=seed) for seed in range(options.splits)]
    rows = {"random": np.array([scores(series, one["train"], one["test"]) for one in drawn])}
    region = series.groups["region"]
    for name in np.unique(region):
        rows[f"{name} held out"] = np.array(
            [scores(series, np.flatnonzero(region != name), np.flatnonzero(region == name))]
        )
    held_out = np.concatenate([found for name, found in rows.items() if name != "random"])
    rows |= {"held out, mean": held_out, "held out, worst": held_out.min(axis=0, keepdims=True)}
    print(f"{'steps':16}" + "".join(f"{steps:6d}" for steps in STEPS))
    for name, found in rows.items():
        print(f"{name:16}" + "".join(f"{value:6.2f}" for value in found.mean(axis=0)))


if __name__ == "__main__":
    main()
