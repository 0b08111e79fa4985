"""The verb `evaluate`: what a checkpoint is worth on the labelled splits, beside a baseline, with figures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pair_compare_stacking import baseline, breakdown, drawings, ensemble, pairfile, prepare, stackers, subject, tables
from pair_compare_stacking.config import Config, EvaluateOptions
from pair_compare_stacking.generator import digit_prior
from pair_compare_stacking.outcome import Outcome
from pair_compare_stacking.pairs import PairNPZDataset
from pair_compare_stacking.stacking import UNIT
from pair_compare_stacking.subject import Answers, Several, Single
from shared_core import metrics, records, report
from shared_core.cli import App
from shared_core.errors import UserError
from shared_core.metrics import Estimate
from shared_core.progress import message
from shared_core.records import RunDir
from shared_core.runtime import Runtime

SPLITS = ("val", "test_public", "test_disjoint")
MODELS = "Every model, and every way of combining them"
SWAPPED = "answers are averaged with those to the swapped halves"
MCNEMAR = (
    f"p in the table “{MODELS}” is McNemar's, which takes pairs that share a source image as independent; the "
    "intervals do not"
)
BEST = "{}, the best single model there, was the best on the pairs that stackers were fitted on; these chose nothing"
CHOOSING = "Choosing a method, out of fold, on pairs that no base model saw"
LEARNED = "What the way of combining in use has learned"
SIDE_BY_SIDE = "Accuracy of every model on every split"
OF_SEEDS = "intervals of means over seeds are over source images; how far the seeds lie apart is beside them"
SEEDS = "Models that differ in their seed only, as one"
HEADS = "Weights of the heads"
OF_HEADS = (
    f"the table “{HEADS}” has the softmax weights with which heads are added up; how large their outputs are, which "
    "counts as much, it does not say"
)


def run(app: App, config: Config, options: EvaluateOptions) -> int:
    """Evaluate a model or an ensemble on each split and refresh the run's report."""
    who = subject.find(app, config, options)
    if options.all_models and isinstance(who, Single):
        raise UserError(f"--all-models: {who.run.path} has one model only; leave the flag out")
    folder = prepare.require(config)
    runtime = Runtime.start(config.runtime, config.seed)
    splits = _splits(folder, options.split, config.data.is_given)
    trees = fit_baseline(config, folder) if options.baseline and runtime.is_main else None
    found: dict[str, dict[str, Any]] = {}
    for name in splits:
        pairs = PairNPZDataset(folder / f"{name}.npz")
        answers = who.answer(pairs.x, runtime, options.swap_average)
        if runtime.is_main:
            found[name] = evaluate(who, answers, Outcome.of(name, pairs, answers.prediction), trees)
            found[name]["notes"] += [SWAPPED] if options.swap_average else []
            message(f"{name}: accuracy {Estimate.from_dict(found[name]['metrics']['accuracy'])}")
    if runtime.is_main:
        _write(found, who.run)
        if options.all_models:
            for name, about in found.items():
                print(f"{name}\n{tables.render(about['tables'][MODELS])}\n")
        print(report.write([who.run.path], headline=app.headline))
    return 0


def _splits(folder: Path, wanted: str, given: bool) -> list[str]:
    """The prepared split that is wanted, or all of them; of ready files of pairs, those with labels."""
    found = [name for name in SPLITS if wanted in (name, "all") and (folder / f"{name}.npz").exists()]
    if not found:
        raise UserError(f"{folder / wanted}.npz: no such file; prepare it with --data.n_{wanted} 20000")
    blind = [name for name in found if given and wanted == "all" and _is_blind(folder / f"{name}.npz")]
    for name in blind:
        message(f"{name}: not evaluated, its labels are unknown; lay {prepare.LABELS} beside it and prepare again")
    return [name for name in found if name not in blind]


def _is_blind(path: Path) -> bool:
    """Whether a file of pairs says neither which digit is larger nor what they are made of."""
    return "y" not in pairfile.names(path) and not pairfile.truth_path(path).exists()


def _write(found: dict[str, dict[str, Any]], run: RunDir) -> None:
    """Keep the evaluations; those of several models with a table of all splits side by side."""
    rows = tables.side_by_side(
        {name: about["tables"][MODELS] for name, about in found.items() if MODELS in about["tables"]}
    )
    for name, about in found.items():
        if rows and len(found) > 1:
            about["tables"] = {SIDE_BY_SIDE: rows, **about["tables"]}
        records.write_evaluation(run, name, about)


def evaluate(
    who: Single | Several, answers: Answers, outcome: Outcome, trees: baseline.TreesBaseline | None
) -> dict[str, Any]:
    """Metrics, baselines, tables and figures of one split, in the form of `records.write_evaluation`."""
    found = metrics.binary(outcome.p, outcome.y, groups=outcome.sources, unit=UNIT)
    shown, notes = breakdown.tables(outcome)
    drawn = drawings.of_split(outcome, who.run.figures)
    notes += trained_on_note(who.sources, outcome.sources)
    if isinstance(who, Several):
        of_models, more = compare_models(who, answers, outcome)
        shown, notes = of_models | shown, notes + more
        logit_NM = ensemble.logits(answers.models)
        drawn += drawings.of_models(logit_NM, list(answers.models), outcome.y, outcome.split, who.run.figures)
    elif weights := tables.head_weights({who.name: who.model.comparison.weights()}):
        shown, notes = {**shown, HEADS: weights}, [*notes, OF_HEADS]
    return {
        "checkpoint": who.name,
        "n": len(outcome.y),
        "headline": "accuracy",
        "metrics": {key: estimate.as_dict() for key, estimate in found.items()},
        "baselines": {} if trees is None else {"trees on pixels": beside(trees, outcome)},
        "tables": shown,
        "figures": [f"figures/{path.name}" for path in drawn],
        "notes": notes,
    }


def compare_models(
    who: Several, answers: Answers, outcome: Outcome
) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """What the base models and the ways of combining them are worth on a split: tables by title, and notes."""
    y, sources = outcome.y, outcome.sources
    found = {MODELS: tables.every_model(answers.models, answers.methods, y, sources)}
    notes = [who.ensemble.decision["sentence"], MCNEMAR]
    if best := stackers.best_single(who.ensemble.stackers):
        notes.append(BEST.format(best))
    right = {model: ((p.logit >= 0).numpy() == (y == 1)) for model, p in answers.models.items()}
    groups = {label: [right[model] for model in models] for label, models in who.groups.items()}
    if any(len(of_seeds) > 1 for of_seeds in groups.values()):
        found[SEEDS] = tables.over_seeds(groups, sources)
        notes.append(OF_SEEDS)
    found[LEARNED] = tables.learned(who.ensemble.stackers[who.method])
    models = who.ensemble.models
    if weights := tables.head_weights({name: model.comparison.weights() for name, model in models.items()}):
        found[HEADS] = weights
        notes.append(OF_HEADS)
    if "cross_validation" in who.ensemble.decision:
        found[CHOOSING] = who.ensemble.decision["cross_validation"]
    return found, notes


def trained_on_note(known: Iterable[str], sources: np.ndarray | None) -> list[str]:
    """A warning where training showed source images that the pairs (N, 2) are made of."""
    known = list(known)
    if sources is None or not known:
        return []
    share = float(np.isin(sources, known).mean())
    return [f"{share:.1%} of the halves show a source image that training showed as well"] if share else []


def fit_baseline(config: Config, folder: Path) -> baseline.TreesBaseline | None:
    """The baseline, fitted on train.npz, whose source images no evaluated split of protocol disjoint shares.

    None for ready files of pairs whose digits are unknown."""
    pairs = PairNPZDataset(folder / "train.npz")
    if pairs.digits is None and config.data.is_given:
        message("no baseline: it learns digits, and which ones the pairs show is unknown")
        return None
    message("fitting the baseline")
    if pairs.digits is None:
        path = folder / "train.npz"
        raise UserError(f"{path}: the truth beside it is missing; prepare again or use --baseline false")
    trees = baseline.TreesBaseline(digit_prior(config.data.weight_diff1), config.seed)
    return trees.fit(pairs.x.numpy(), pairs.digits.numpy())


def beside(trees: baseline.TreesBaseline, outcome: Outcome) -> dict[str, Any]:
    """The baseline's accuracy on the same pairs, and how much better the answers are."""
    right = (trees.predict(outcome.x) >= 0.5) == outcome.y
    return {
        "what": baseline.WHAT,
        "accuracy": outcome.share(right).as_dict(),
        "differences": {"accuracy": outcome.less(right).as_dict()},
    }
