"""The verb `evaluate`: how well and how early a model answers, beside baselines, with intervals and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shared_core import multiclass, records, report
from shared_core.cli import App
from shared_core.errors import UserError
from shared_core.progress import message
from shared_core.records import RunDir
from shared_core.runtime import Runtime
from timeseries_dualmodal import (
    baselines,
    costs,
    division,
    drawings,
    earliness,
    outcome,
    saved,
    stopping,
    subject,
    tables,
    train,
)
from timeseries_dualmodal.config import Config, EvaluateOptions
from timeseries_dualmodal.decision import Decided
from timeseries_dualmodal.outcome import Outcome
from timeseries_dualmodal.series import SeriesSet
from timeseries_dualmodal.subject import Trained

Evaluation = dict[str, Any]
BY_LENGTH = "Macro-F1 after each number of steps"
UNCALIBRATED = (
    "training has not finished: these are the networks' likeliest classes, without trees, calibration, answers that "
    "macro-F1 wants, and stopping rule"
)
COSTS = (
    "the cost of an answer is 1 where it is wrong, plus the price of waiting times the share of the season that it "
    "waited for; for each price a rule, and the best fixed time beside it, are fitted on validation series"
)
CHOSEN_HERE = (
    "checkpoint, share of the trees, temperatures, answers that macro-F1 wants, stopping rule and best baseline were "
    "chosen on these series: their numbers are too good"
)
MOST_GROUPS = 30  # values of a group column in a table
MEAN = "macro_f1 is the mean over the lengths of the table “{}”; every length counts alike"
WANTED = (
    "macro-F1 is of the answers that it wants, often a rarer class than the likeliest (`predict --answers macro_f1`); "
    "the baselines weigh the classes in training instead. Accuracy, costs and decisions are of the likeliest class"
)


def run(app: App, config: Config, options: EvaluateOptions) -> int:
    """Evaluate a model on a split and refresh the run's report."""
    runtime = Runtime.start(config.runtime, config.seed)
    if runtime.world > 1:
        raise UserError("evaluate: runs in one process; start it without a launcher")
    who = subject.find(app, config, options, runtime.device)
    check_lengths(who.config.evaluation.reported(len(who.about.times)), who.lengths)
    material = saved.material(who.run, config, who.about)
    series = material.part(options.split)
    others = beside(config, material, options.split) if options.baselines else {}
    message(f"asking the model after {len(who.lengths)} lengths about {len(series):,} series")
    parts = who.parts(series.x, who.lengths)
    every = decided(who, who.together(parts), series)
    about = evaluate(who, series, every, others, options.split)
    if who.decided is not None and options.split != "val":
        val = material.part("val")
        of_val = who.parts(val.x, who.lengths)
        if len(parts) > 1:
            add_parts(about, who, every, {name: alone(who, of_val[name], val, parts[name], series) for name in parts})
        add_costs(about, who, decided(who, who.together(of_val), val), every, series.steps)
    records.write_evaluation(who.run, options.split, about)
    print(report.write([who.run.path], headline=app.headline))
    return 0


def check_lengths(shown: tuple[int, ...], fitted: tuple[int, ...]) -> None:
    """Raises UserError where a length that is to be reported is none of those that a run was fitted for."""
    if odd := [length for length in shown if length not in fitted]:
        known = ", ".join(map(str, fitted[:8])) + (", ..." if len(fitted) > 8 else "")
        raise UserError(
            f"evaluation.lengths: {odd[0]} is none of the lengths that the run was fitted for ({known}); leave the "
            "flag out"
        )


def outcome_of(config: Config, lengths: tuple[int, ...], p_NLK: np.ndarray, series: SeriesSet) -> Outcome:
    """Answers to labelled series; where a grouped split keeps series together, intervals do so as well."""
    assert series.y is not None
    groups = division.sources(series, config.split)
    return Outcome(lengths, p_NLK, series.y, groups, config.split.by or "groups")


def decided(who: Trained, p_NLK: np.ndarray, series: SeriesSet) -> Outcome:
    """The answers that are made of a model's probabilities after all its lengths."""
    if who.decided is None:
        return outcome_of(who.config, who.lengths, p_NLK, series)
    found = outcome_of(who.config, who.lengths, who.decided.calibrated(p_NLK), series)
    return replace(found, weights_LK=who.decided.weights_LK)


def alone(who: Trained, val_NLK: np.ndarray, val: SeriesSet, p_NLK: np.ndarray, series: SeriesSet) -> Outcome:
    """What a part of a model would answer alone, with temperatures and weights of its own."""
    of_val, found = (outcome_of(who.config, who.lengths, p, part) for p, part in ((val_NLK, val), (p_NLK, series)))
    return outcome.answering(of_val, found)


def beside(config: Config, material: train.Material, split: str) -> dict[str, tuple[Outcome, Outcome]]:
    """What each baseline answers to the validation series, by which the best one is chosen, and to those of a split."""
    fitted, val, series = material.part("train"), material.part("val"), material.part(split)
    lengths = config.evaluation.reported(material.series.steps)
    assert fitted.y is not None
    found = {}
    for name in baselines.NAMES:
        message(f"fitting the baseline {tables.named(name)} for {len(lengths)} lengths")
        [made] = baselines.fit_all([name], fitted.x, fitted.y, lengths, config.seed, len(fitted.classes)).values()
        of_val, of_split = (outcome_of(config, lengths, made.proba(part.x), part) for part in (val, series))
        found[name] = of_val, of_split
    return found


def evaluate(
    who: Trained, series: SeriesSet, every: Outcome, others: Mapping[str, tuple[Outcome, Outcome]], split: str
) -> Evaluation:
    """Metrics, baselines, tables and figures of one split, in the form of `records.write_evaluation`.

    `every`: what the model answers to these series (`decided`).
    """
    shown = who.config.evaluation.reported(series.steps)
    model, rest = every.at(shown), {name: of_split for name, (_, of_split) in others.items()}
    best = outcome.best({name: of_val for name, (of_val, _) in others.items()}) if others else None
    curve = earliness.curve(every.p_NLK, every.answers_NL, every.y, every.lengths, *every.sources)
    about: Evaluation = {
        "checkpoint": who.name,
        "n": len(series),
        "headline": "macro_f1",
        "metrics": {"macro_f1": model.mean_macro_f1().as_dict(), **_of_the_whole(every)},
        "baselines": {tables.named(name): _baseline(name, model, other) for name, other in rest.items()},
        "tables": {BY_LENGTH: tables.by_length(model, rest, best), **_tables(model, curve, series, shown)},
        "figures": _figures(who, model, rest, series, split),
        "notes": [MEAN.format(BY_LENGTH), *([] if who.decided is None else [WANTED]), *_notes(curve, best)],
    }
    if split == "val":
        about["notes"].append(CHOSEN_HERE)
    if who.decided is None:
        about["notes"].append(UNCALIBRATED)
    else:
        _add_decisions(about, who.decided, every, shown, series, split, who.run)
    about["figures"] = [f"figures/{path.name}" for path in about["figures"]]
    return about


def _tables(
    model: Outcome, curve: earliness.Curve, series: SeriesSet, shown: tuple[int, ...]
) -> dict[str, tables.Rows]:
    """By title: accuracy, classes, and each group column with values few enough for a table."""
    assert series.y is not None
    found = {
        "The likeliest class after each number of steps": tables.likeliest(model, curve),
        "F1 of each class": tables.by_class(curve, series.classes, series.y, shown),
    }
    for name, column in series.groups.items():
        if len(np.unique(column)) <= MOST_GROUPS and (rows := tables.by_group(model, column, name, shown)):
            found[f"By {name}"] = rows
    return found


def _figures(who: Trained, model: Outcome, others: Mapping[str, Outcome], series: SeriesSet, split: str) -> list[Path]:
    """The curve, confusions halfway and at the end, and what a model that sees is shown."""
    folder, ends = who.run.figures, _ends(model.lengths)
    drawn = [drawings.curve(model, {tables.named(name): one for name, one in others.items()}, series, split, folder)]
    drawn += [drawings.confusion(model, series.classes, length, split, folder) for length in ends]
    if who.eyes is not None:
        lengths = _some(model.lengths)
        row = int(np.isnan(series.x).mean(axis=(1, 2)).argmin())  # the series with the fewest gaps
        x_1VT = torch.from_numpy(series.x[row : row + 1]).to(who.device)
        asked = torch.tensor([lengths], device=who.device)
        _, pictures = who.eyes.see(x_1VT, asked, torch.zeros(1, dtype=torch.int64))
        drawn.append(drawings.seen(pictures[0].cpu(), lengths, series, row, split, folder))
    return drawn


def _of_the_whole(every: Outcome) -> dict[str, Any]:
    """Metrics once all steps are there."""
    found = multiclass.scores(every.p_NLK[:, -1], every.y, *every.sources)
    found |= {"macro_f1": every.macro_f1(every.lengths[-1])}
    return {f"{name}_full": estimate.as_dict() for name, estimate in found.items()}


def _baseline(name: str, model: Outcome, other: Outcome) -> dict[str, Any]:
    return {
        "what": f"{baselines.WORDS[name]}, fitted for each length",
        "macro_f1": other.mean_macro_f1().as_dict(),
        "differences": {"macro_f1": model.mean_less(other).as_dict()},
    }


def _notes(curve: earliness.Curve, best: str | None) -> list[str]:
    first = curve.recognised()
    level = f"a macro-F1 of {earliness.RECOGNISED:g}"
    notes = [f"{level} is {'not reached' if first is None else f'reached after {first} steps'}"]
    if best is not None:
        notes.append(f"the best baseline, {tables.named(best)}, was chosen on the validation series")
    return notes


def _ends(lengths: tuple[int, ...]) -> tuple[int, ...]:
    """The middle and the last of the lengths."""
    return tuple(dict.fromkeys((lengths[(len(lengths) - 1) // 2], lengths[-1])))


def _some(lengths: tuple[int, ...]) -> tuple[int, ...]:
    """Up to three of the lengths, and the last."""
    return tuple(dict.fromkeys(lengths[:: max(1, len(lengths) // 3)][:3] + lengths[-1:]))


def _add_decisions(
    about: Evaluation,
    decided: Decided,
    every: Outcome,
    shown: tuple[int, ...],
    series: SeriesSet,
    split: str,
    run: RunDir,
) -> None:
    """What the stopping rule makes of the answers."""
    y, steps, classes = every.y, series.steps, every.classes
    stop_N, answer_N = stopping.decide(decided.rule, every.p_NLK)
    scores = earliness.decision_scores(stop_N, answer_N, y, every.lengths, steps, classes, *every.sources)
    fixed = {}
    for length in shown:
        index = np.full(len(y), every.lengths.index(length))
        fixed[length] = earliness.decision_scores(
            index, every.likeliest_NL[:, index[0]], y, every.lengths, steps, classes, *every.sources
        )
    saving = earliness.saving_at_equal_accuracy(stop_N, answer_N, every.p_NLK, y, every.lengths, *every.sources)
    about["metrics"] |= {f"decision_{name}": estimate.as_dict() for name, estimate in scores.items()}
    about["metrics"] |= {"steps_saved": saving.saving.as_dict()}
    about["tables"]["Decisions"] = tables.decisions(scores, fixed)
    about["notes"].append(f"the stopping rule: {saving}; steps_saved is the share of steps that it saves")
    about["figures"].append(drawings.decisions(every, stop_N, series, series.classes, split, run.figures))


def add_parts(about: Evaluation, who: Trained, every: Outcome, parts: Mapping[str, Outcome]) -> None:
    """What networks and trees are worth alone."""
    assert who.decided is not None
    shown = who.config.evaluation.reported(len(who.about.times))
    of_shown = {f"{name} alone": one.at(shown) for name, one in parts.items()}
    about["tables"]["Networks and trees"] = tables.parts(every.at(shown), of_shown)
    about["notes"].append(
        f"an answer is made of what networks and boosted trees say; the trees count for {who.decided.share:.0%}, which "
        "was chosen on the validation series"
    )


def add_costs(about: Evaluation, who: Trained, val: Outcome, judged: Outcome, steps: int) -> None:
    """What answers cost at several prices of waiting, by rules that are fitted on validation series for each."""
    found = costs.measure(who.config.decision, val, judged, steps)
    about["metrics"]["average_cost"] = found.average.as_dict()
    about["tables"]["Cost of an answer"] = tables.by_price(found)
    about["notes"].append(COSTS)
