"""The stopping rules by themselves, on what the baselines say: how much earlier than answers at a fixed time.

    python packages/timeseries-dualmodal/benchmarks/stopping.py --config cawa-season --seeds 42,43,44
    python packages/timeseries-dualmodal/benchmarks/stopping.py --config cawa-season --split.hold_out region=Fergana

Other flags are the configuration's, as in `dualmodal train`. Temperatures and rules are fitted on the validation series
of each split, and judged on its test series, over which the 95 % bootstrap intervals are.
"""

from __future__ import annotations

import argparse

import numpy as np

from timeseries_dualmodal import baselines, division, earliness, stopping, tables, temperature, train
from timeseries_dualmodal.__main__ import APP
from timeseries_dualmodal.config import Config
from timeseries_dualmodal.decision_config import Decision

RULES = ("cost", "confidence")


def cells(config: Config, name: str) -> list[str]:
    """The shares of steps that the rules save at equal accuracy, and what the first of them comes to."""
    material = train.Material.load(config)
    fitted, val, test = (material.part(part) for part in ("train", "val", "test"))
    assert fitted.y is not None and val.y is not None and test.y is not None
    lengths, steps = config.evaluation.reported(test.steps), test.steps
    made = baselines.fit_all([name], fitted.x, fitted.y, lengths, config.seed, len(fitted.classes))[name]
    of_val = made.proba(val.x)
    temperatures = temperature.fit(of_val, val.y)
    p_val, p_test = (temperature.apply(p, temperatures) for p in (of_val, made.proba(test.x)))
    of_val_groups, of_test_groups = (division.sources(part, config.split) for part in (val, test))
    groups = of_test_groups, config.split.by or "groups"
    found = []
    for rule in RULES:
        wanted: Decision = config.decision.model_copy(update={"rule": rule})
        decided = stopping.decide(stopping.fit(wanted, p_val, val.y, lengths, steps, of_val_groups), p_test)
        saving = earliness.saving_at_equal_accuracy(decided.stop_N, decided.answer_N, p_test, test.y, lengths, *groups)
        share = saving.saving
        found.append(f"{100 * share.value:.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}]")
        found.append(f"{saving.accuracy:.3f} after {saving.steps_observed:.1f}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="42", help="split seeds, separated by commas")
    parser.add_argument("--names", default="random_forest", help="baselines, separated by commas")
    given, flags = parser.parse_known_args()
    config = APP.check(["train", *flags])
    print("| probabilities of | " + " | ".join(f"{rule} rule saves | accuracy, mean steps" for rule in RULES) + " |")
    print("|---|" + "---|" * (2 * len(RULES)))
    for name in given.names.split(","):
        for seed in np.array(given.seeds.split(","), int).tolist():
            of_split = config.model_copy(update={"split": config.split.model_copy(update={"seed": seed})})
            print(f"| {tables.named(name)}, split {seed} | {' | '.join(cells(of_split, name))} |", flush=True)


if __name__ == "__main__":
    main()
