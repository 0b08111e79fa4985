"""A configuration on several splits, beside the baselines: macro-F1 after each length, and how much the model adds.

    python packages/timeseries-dualmodal/benchmarks/repeated.py --config cawa-season --seeds 43,44,45
    python packages/timeseries-dualmodal/benchmarks/repeated.py --config cawa-season --hold-out region

Other flags are the configuration's, as in `dualmodal train`. Every split trains its own model (runs/, the usual folder)
and its own baselines; what was finished before is taken from there. Beside the model's answers, which are those that
macro-F1 wants, stand its likeliest classes, and what networks and trees would answer alone. The baselines weigh the
classes in training, and give their likeliest; what they would answer if their probabilities were treated as the model's
are takes part in the choice of the best one: of a length that with the largest mean macro-F1 there on the validation
series of all splits. Its difference from the model is the mean over the splits, with a 95 % bootstrap interval over
series: a series that several splits judge is drawn for all of them together.

Shapes: N series, L lengths, K classes, B resamples.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from shared_core import files, records, runs
from shared_core.intervals import Estimate, Floats, Resamples
from shared_core.multiclass import MacroF1
from timeseries_dualmodal import baselines, division, evaluate, outcome, subject, tables, train
from timeseries_dualmodal.__main__ import APP
from timeseries_dualmodal.config import Config
from timeseries_dualmodal.outcome import Outcome

MODEL = "model"
LIKELIEST = "its likeliest class"
ALIKE = ", weighed"


@dataclass(frozen=True)
class Judged:
    """One split: which series judge, and what was answered to them; by name, the model among them."""

    name: str
    rows: np.ndarray  # (N,) of the prepared set
    test: dict[str, Outcome]
    val: dict[str, Outcome]


def shown_names(config: Config) -> tuple[str, ...]:
    """Who stands in the table, in its order."""
    parts = (subject.NETWORKS, subject.TREES) if config.model.trees.rounds else (subject.NETWORKS,)
    return (MODEL, LIKELIEST, *parts, *baselines.NAMES)


def splits(config: Config, seeds: Sequence[int], column: str | None) -> dict[str, Config]:
    """The configuration of each split, by the name of its run."""
    series = train.Material.load(config).series
    if column is None:
        changed = {f"seed{seed}": {"seed": seed} for seed in seeds}
    else:
        changed = {value: {"hold_out": (f"{column}={value}",)} for value in np.unique(series.groups[column]).tolist()}
    return {
        name: config.model_copy(
            update={"name": f"{config.name}-{name}", "split": config.split.model_copy(update=values)}
        )
        for name, values in changed.items()
    }


def judge(name: str, config: Config) -> Judged:
    """Train and ask what has not been asked before."""
    found = runs.named(APP, config)
    if (not found or found[0].read_status().get("state") != "finished") and (status := APP.call("train", config)):
        raise SystemExit(status)
    run, material = runs.locate(APP, config), train.Material.load(config)
    lengths = config.evaluation.reported(material.series.steps)
    kept = run.path / "predictions" / "repeated.npz"
    if not kept.exists():
        _ask(config, run, material, lengths, kept)
    names = shown_names(config)
    p = files.read_npz(kept, [f"{part}_{who}" for part in ("val", "test") for who in names])
    y = {part: material.part(part).y for part in ("val", "test")}
    val, test = ({who: Outcome(lengths, p[f"{part}_{who}"], y[part]) for who in names} for part in ("val", "test"))
    for who in baselines.NAMES:
        val[who + ALIKE], test[who + ALIKE] = (outcome.answering(val[who], of_part[who]) for of_part in (val, test))
    return Judged(name, material.parts["test"], test, val)


def _ask(config: Config, run: records.RunDir, material: train.Material, lengths: tuple[int, ...], kept: Path) -> None:
    who = subject.of_run(run, config, "best", torch.device("cpu"))
    fitted = material.part("train")
    made = baselines.fit_all(baselines.NAMES, fitted.x, fitted.y, lengths, config.seed, len(fitted.classes))
    val, p = material.part("val"), {}
    of_val = who.parts(val.x, who.lengths)
    for part in ("val", "test"):
        series = material.part(part)
        said = of_val if part == "val" else who.parts(series.x, who.lengths)
        whole = evaluate.decided(who, who.together(said), series).at(lengths)
        p[f"{part}_{MODEL}"], p[f"{part}_{LIKELIEST}"] = whole.p_NLK * whole.weights_LK, whole.p_NLK
        for name in said:
            one = evaluate.alone(who, of_val[name], val, said[name], series).at(lengths)
            p[f"{part}_{name}"] = one.p_NLK * one.weights_LK
        p |= {f"{part}_{name}": of_name.proba(series.x) for name, of_name in made.items()}
    with files.atomic_path(kept) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **p)


def best_at(judged: Sequence[Judged], lengths: tuple[int, ...]) -> str:
    """The baseline with the largest mean macro-F1 on validation series, over splits and lengths."""
    names = [name + how for name in baselines.NAMES for how in ("", ALIKE)]
    of_val = [{name: one.val[name].at(lengths) for name in names} for one in judged]
    return outcome.best_of_several(of_val, names)


def difference(
    judged: Sequence[Judged], resamples: Resamples, first: str, second: str, lengths: Sequence[int]
) -> Estimate:
    """Macro-F1 of one less that of another, the mean over splits and lengths."""
    parts = [
        (one.rows, *(_of_length(one.test[who], length) for who in (first, second)))
        for one in judged
        for length in lengths
    ]

    def statistic(w_BN: Floats) -> Floats:
        return np.mean([a(w_BN[:, rows]) - b(w_BN[:, rows]) for rows, a, b in parts], axis=0)

    return resamples.estimate(statistic)


def _of_length(answers: Outcome, length: int) -> MacroF1:
    return MacroF1(answers.answers_NL[:, answers.lengths.index(length)], answers.y, answers.classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="42,43,44,45,46", help="split seeds, separated by commas")
    parser.add_argument("--hold-out", help="a column of data.groups: each of its values is held out in its turn")
    given, flags = parser.parse_known_args()
    config = APP.check(["train", *flags])
    seeds = [int(seed) for seed in given.seeds.split(",")]
    judged = [judge(name, of_split) for name, of_split in splits(config, seeds, given.hold_out).items()]
    series, lengths = train.Material.load(config).series, judged[0].test[MODEL].lengths
    groups, unit = division.sources(series, config.split), config.split.by or "groups"
    resamples = Resamples(len(series), groups=groups, unit=unit)
    names = shown_names(config)
    print(f"{len(judged)} splits ({', '.join(one.name for one in judged)})")
    print(f"| steps | {' | '.join(tables.named(name) for name in names)} | model less the best baseline |")
    print("|---:|" + "---:|" * len(names) + "---|")
    for length in lengths:
        means = [np.mean([one.test[name].macro_f1(length).value for one in judged]) for name in names]
        best = best_at(judged, (length,))
        less = f"{shown(difference(judged, resamples, MODEL, best, [length]))} {tables.named(best)}"
        print(f"| {length} | {' | '.join(f'{mean:.3f}' for mean in means)} | {less} |", flush=True)
    best = best_at(judged, lengths)
    print(f"mean over the lengths: {shown(difference(judged, resamples, MODEL, best, lengths))} {tables.named(best)}")
    sys.stdout.flush()


def shown(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


if __name__ == "__main__":
    main()
