"""Laboratories that nothing was trained or tuned on: the official score of each, for several seeds, beside the oracle.

    python packages/mabe-behavior/benchmarks/heldout.py --seeds 0,1,2
    python packages/mabe-behavior/benchmarks/heldout.py --seeds 0 --config v4

Other flags are the configuration's, as in `mabe train`. For every laboratory of the prepared set and every seed a run
is trained without it, with folds of whole laboratories, so that thresholds too are tuned on laboratories that a model
had not seen; what was trained before is judged again, and not trained again. Shown are the blend of networks and trees,
each alone with rules of its own, the blend without tuning, and the rules that simulated mice are annotated by: the mean
over laboratories, of each seed and of all, and what share of the oracle that is.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from mabe_behavior import prepare, store
from mabe_behavior.__main__ import APP
from mabe_behavior.config import Config
from mabe_behavior.evaluate import NAMES
from shared_core import runs
from shared_core.measured import load, processor

BLEND = "blend"
SHOWN = {BLEND: BLEND, "networks": NAMES["networks"], "trees": NAMES["trees"], "untuned": NAMES["plain"]}
ORACLE, LEARNED = NAMES["oracle"], "score_of_learned"
Scores = dict[str, float]  # of each of SHOWN and the oracle


def config_of(config: Config, lab: str, seed: int) -> Config:
    """The run without a laboratory."""
    split = {"kind": "lab", "test_labs": (lab,), "folds_by": "lab"}
    changed = {"name": f"{config.name}-without-{lab}-{seed}", "seed": seed}
    return config.model_copy(update={**changed, "split": config.split.model_copy(update=split)})


def judged(config: Config) -> Scores:
    """Train and judge what has not been."""
    found = runs.named(APP, config)
    if (not found or found[0].read_status().get("state") != "finished") and (status := APP.call("train", config)):
        raise SystemExit(status)
    path = runs.locate(APP, config).path / "evaluation" / "test.json"
    if status := APP.call("evaluate", config, run=str(path.parent.parent)):
        raise SystemExit(status)
    about = json.loads(path.read_text())
    others = {name: one["score"]["value"] for name, one in about["baselines"].items()}
    scores = {BLEND: about["metrics"]["score"]["value"], "oracle": others.get(ORACLE, float("nan"))}
    if LEARNED in about["metrics"]:  # the model knows some of the actions only
        scores["learned"] = about["metrics"][LEARNED]["value"]
    return scores | {name: others[long] for name, long in SHOWN.items() if long in others}


def show(found: dict[tuple[str, int], Scores], labs: Sequence[str], seeds: Sequence[int]) -> None:
    """A row a laboratory, the mean over seeds; then the means over laboratories."""
    names = [name for name in (*SHOWN, "learned", "oracle") if all(name in scores for scores in found.values())]
    print(f"{'held out':12}" + "".join(f"{name:>12}" for name in names) + f"{'of oracle':>12}")
    for lab in labs:
        values = [mean(found[lab, seed][name] for seed in seeds) for name in names]
        told = f"{values[0] / values[-1]:12.1%}"
        print(f"{lab:12}" + "".join(f"{value:12.3f}" for value in values) + told)
    for seed in seeds:
        values = [mean(found[lab, seed][name] for lab in labs) for name in names]
        print(
            f"{f'seed {seed}':12}" + "".join(f"{value:12.3f}" for value in values) + f"{values[0] / values[-1]:12.1%}"
        )
    values = [mean(scores[name] for scores in found.values()) for name in names]
    print(f"{'mean':12}" + "".join(f"{value:12.3f}" for value in values) + f"{values[0] / values[-1]:12.1%}")


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0", help="numbers, separated by commas")
    parser.add_argument("--labs", default="", help="only these, separated by commas")
    options, flags = parser.parse_known_args(argv)
    config = APP.check(["train", *flags])
    assert isinstance(config, Config)
    if status := APP.call("prepare", config):
        raise SystemExit(status)
    rows = store.index(prepare.require(config))
    labs = options.labs.split(",") if options.labs else sorted({row["lab"] for row in rows if row["labeled"]})
    seeds = [int(seed) for seed in options.seeds.split(",")]
    print(f"{processor()}, load {load()}; {len(rows)} recordings", flush=True)
    found = {(lab, seed): judged(config_of(config, lab, seed)) for seed in seeds for lab in labs}
    show(found, labs, seeds)
    path = Path(config.paths.runs) / "mabe-behavior" / f"{config.name}-without.json"
    path.write_text(json.dumps([{"lab": lab, "seed": seed, **of} for (lab, seed), of in found.items()], indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
