"""The verb `evaluate`: what a checkpoint is worth on the labelled splits, beside a baseline, with figures."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pair_compare_stacking import baseline, ensemble, ink, prepare, stacking, subject, tables
from pair_compare_stacking.config import Config, EvaluateOptions
from pair_compare_stacking.generator import digit_prior
from pair_compare_stacking.model import Prediction
from pair_compare_stacking.pairs import PairNPZDataset
from pair_compare_stacking.stacking import UNIT
from shared_core import figures, metrics, records, report
from shared_core.cli import App
from shared_core.errors import UserError
from shared_core.metrics import Estimate
from shared_core.progress import message
from shared_core.records import RunDir
from shared_core.runtime import Runtime

SPLITS = ("val", "test_public", "test_disjoint")
WORST_SHOWN = 12
EVERY = slice(None)  # row
COVERAGES = (0.5, 0.8, 0.9, 0.95, 1.0)  # shares of the pairs that are answered, in the table beside the curve
MODELS = "Every model, and every way of combining them"
SWAPPED = "answers are averaged with those to the swapped halves"
MCNEMAR = "McNemar's p takes pairs that share a source image as independent; the intervals do not"
MOST_SHOWN = 12  # models in a figure
CHOOSING = "Choosing a method, out of fold, on pairs that no base model saw"
LEARNED = "What the way of combining in use has learned"
SIDE_BY_SIDE = "Accuracy of every model on every split"
OF_SEEDS = "intervals of means over seeds are over source images; how far the seeds lie apart is beside them"
SEEDS = "Models that differ in their seed only, as one"


def run(app: App, config: Config, options: EvaluateOptions) -> int:
    """Evaluate a model or an ensemble on each split and refresh the run's report."""
    who = subject.find(app, config, options)
    folder = prepare.require(config)
    runtime = Runtime.start(config.runtime, config.seed)
    splits = [name for name in SPLITS if options.split in (name, "all") and (folder / f"{name}.npz").exists()]
    if not splits:
        raise UserError(f"{folder / options.split}.npz: no such file; prepare it with --data.n_{options.split} 20000")
    trees = fit_baseline(config, folder) if options.baseline and runtime.is_main else None
    found: dict[str, dict[str, Any]] = {}
    for name in splits:
        pairs = PairNPZDataset(folder / f"{name}.npz")
        answers = who.answer(pairs.x, runtime, options.swap_average)
        if runtime.is_main:
            about = {"checkpoint": who.name, **evaluate(answers.prediction, pairs, trees, who.run.figures, name)}
            about["notes"] += trained_on_note(who.sources, pairs)
            about["notes"] += [SWAPPED] if options.swap_average else []
            if isinstance(who, subject.Several):
                add_models(about, who, answers, pairs, name)
            message(f"{name}: accuracy {Estimate.from_dict(about['metrics']['accuracy'])}")
            found[name] = about
    if runtime.is_main:
        _write(found, who.run)
        if options.all_models and isinstance(who, subject.Several):
            for name, about in found.items():
                print(f"{name}\n{tables.render(about['tables'][MODELS])}\n")
        print(report.write([who.run.path], headline=app.headline))
    return 0


def _write(found: dict[str, dict[str, Any]], run: RunDir) -> None:
    """Keep the evaluations; those of several models with a table of all splits side by side."""
    rows = tables.side_by_side(
        {name: about["tables"][MODELS] for name, about in found.items() if MODELS in about["tables"]}
    )
    for name, about in found.items():
        if rows and len(found) > 1:
            about["tables"] = {SIDE_BY_SIDE: rows, **about["tables"]}
        records.write_evaluation(run, name, about)


def trained_on_note(known: frozenset[str], pairs: PairNPZDataset) -> list[str]:
    """A warning where training showed source images that these pairs are made of."""
    if pairs.truth is None or not known:
        return []
    share = float(np.isin(pairs.truth.sources, list(known)).mean())
    return [f"{share:.1%} of the halves show a source image that training showed as well"] if share else []


def add_models(
    about: dict[str, Any], who: subject.Several, answers: subject.Answers, pairs: PairNPZDataset, name: str
) -> None:
    """Add what the base models and the ways of combining them are worth on a split."""
    y, sources = labels(pairs, name), None if pairs.truth is None else pairs.truth.sources
    of_all = {MODELS: tables.every_model(answers.models, answers.methods, y, sources)}
    right = {model: ((p.logit > 0).numpy() == (y == 1)) for model, p in answers.models.items()}
    groups = {label: [right[model] for model in models] for label, models in who.groups.items()}
    if any(len(of_seeds) > 1 for of_seeds in groups.values()):
        of_all[SEEDS] = tables.over_seeds(groups, sources)
        about["notes"].append(OF_SEEDS)
    of_all[LEARNED] = tables.learned(who.ensemble.stackers[who.method])
    if "cross_validation" in who.ensemble.decision:
        of_all[CHOOSING] = who.ensemble.decision["cross_validation"]
    about["tables"] = of_all | about["tables"]
    about["notes"] += [who.ensemble.decision["sentence"], MCNEMAR]
    if len(answers.models) <= MOST_SHOWN:
        drawn = figures.heatmap(
            stacking.agreement(ensemble.logits(answers.models)),
            list(answers.models),
            who.run.figures / f"{name}_agreement.png",
            title=f"Agreement on {name}",
            caption=f"Share of the pairs of {name} that two models answer alike.",
        )
        about["figures"].append(f"figures/{drawn.name}")


def fit_baseline(config: Config, folder: Path) -> baseline.TreesBaseline:
    """The baseline, fitted on train.npz, whose source images no evaluated split of protocol disjoint shares."""
    message("fitting the baseline")
    pairs = PairNPZDataset(folder / "train.npz")
    if pairs.digits is None:
        path = folder / "train.npz"
        raise UserError(f"{path}: the truth beside it is missing; prepare again or use --baseline false")
    trees = baseline.TreesBaseline(digit_prior(config.data.weight_diff1), config.seed)
    return trees.fit(pairs.x.numpy(), pairs.digits.numpy())


def evaluate(
    prediction: Prediction,
    pairs: PairNPZDataset,
    trees: baseline.TreesBaseline | None,
    folder: Path,
    name: str,
) -> dict[str, Any]:
    """Metrics, baselines, tables and figures of one split, in the form of `records.write_evaluation`.

    Intervals allow for pairs that share a source image, wherever it is known which they are made of.

    Raises UserError where the split has neither labels nor the truth beside it.
    """
    y, digits = labels(pairs, name), pairs.digits
    p = torch.sigmoid(prediction.logit.double()).numpy()
    right = (p >= 0.5) == y
    sources = None if pairs.truth is None else pairs.truth.sources
    shown: dict[str, Any] = {}
    notes = [what_intervals_are_over(len(y), sources)]
    drawn = [
        figures.reliability(p, y, folder / f"{name}_reliability.png", title=f"Reliability on {name}", groups=sources),
        figures.risk_coverage(
            np.abs(p - 0.5), right, folder / f"{name}_risk_coverage.png", title=f"Risk and coverage on {name}"
        ),
    ]
    if digits is not None:
        by_distance = accuracy_by_distance(right, digits.numpy(), sources)
        shown["Accuracy by distance of the digits"] = [
            {"|a - b|": key, "accuracy": e.as_dict(), "pairs": e.n} for key, e in by_distance.items()
        ]
        shown["What the answer is made of"], note = ingredients(prediction, y, right, sources)
        notes.append(note)
        drawn += digit_figures(prediction, digits.numpy(), by_distance, float(right.mean()), folder, name)
    visible = ink.visible(pairs.x.numpy())
    by_ink = accuracy_by_ink(right, visible, sources)
    shown["Accuracy by visible ink"] = [
        {"bright pixels of the emptier half": key, "accuracy": e.as_dict(), "pairs": e.n} for key, e in by_ink.items()
    ]
    notes.append(ink.summary(visible))
    drawn.append(ink_figure(by_ink, float(right.mean()), folder, name))
    shown["Risk against coverage"] = [
        {"most confident": f"{share:.0%}", "accuracy": e.as_dict(), "pairs": e.n}
        for share, e in accuracy_at_coverage(np.abs(p - 0.5), right, sources).items()
    ]
    drawn.append(worst(p, y, pairs, folder / f"{name}_worst.png"))
    baselines = {}
    if trees is not None:
        baseline_right = (trees.predict(pairs.x.numpy()) >= 0.5) == y
        gain = metrics.paired_difference(baseline_right, right, sources, UNIT)
        baselines["trees on pixels"] = {
            "what": baseline.WHAT,
            "accuracy": _accuracy(baseline_right, sources).as_dict(),
            "differences": {"accuracy": gain.as_dict()},
        }
    return {
        "n": len(y),
        "headline": "accuracy",
        "metrics": {key: e.as_dict() for key, e in metrics.binary(p, y, groups=sources, unit=UNIT).items()},
        "baselines": baselines,
        "tables": shown,
        "figures": [f"figures/{path.name}" for path in drawn],
        "notes": notes,
    }


def what_intervals_are_over(n: int, sources: np.ndarray | None) -> str:
    """The note that says what the intervals of `n` pairs take into account."""
    if sources is None:
        return (
            "which source images the pairs are made of is unknown; the intervals take the pairs as independent, and "
            "are too narrow where an image occurs in several"
        )
    return (
        f"the {n:,} pairs are made of {len(np.unique(sources)):,} source images; the intervals allow for pairs that "
        "share an image, and so are about new pairs of new images"
    )


def labels(pairs: PairNPZDataset, name: str) -> np.ndarray:
    """(N,) 0 or 1, from the file or from the truth beside it (the public test's file itself has none)."""
    if pairs.y is not None:
        return pairs.y.numpy()
    if pairs.digits is None:
        raise UserError(f"{name}.npz: has no labels, and the truth beside it is missing; prepare it again")
    return (pairs.digits[:, 0] > pairs.digits[:, 1]).long().numpy()


def accuracy_by_distance(right: np.ndarray, digits: np.ndarray, sources: np.ndarray | None) -> dict[str, Estimate]:
    """Accuracy for |a - b| = 1, 2, ..., as far as there are pairs."""
    distance = np.abs(digits[:, 0] - digits[:, 1])
    found = {}
    for d in np.unique(distance):
        rows = distance == d
        found[str(d)] = _accuracy(right, sources, rows)
    return found


def accuracy_by_ink(right: np.ndarray, visible: np.ndarray, sources: np.ndarray | None) -> dict[str, Estimate]:
    """Accuracy by the bright pixels of the emptier half, as far as there are pairs."""
    return {name: _accuracy(right, sources, rows) for name, rows in ink.bins(visible).items()}


def accuracy_at_coverage(
    confidence: np.ndarray, right: np.ndarray, sources: np.ndarray | None
) -> dict[float, Estimate]:
    """Accuracy of the most confident pairs, by the share that is answered; equal confidences are answered together."""
    found = {}
    for share in COVERAGES:
        least = np.sort(confidence)[::-1][max(1, round(share * len(confidence))) - 1]
        rows = confidence >= least
        found[share] = _accuracy(right, sources, rows)
    return found


def ingredients(
    prediction: Prediction, y: np.ndarray, right: np.ndarray, sources: np.ndarray | None
) -> tuple[list[dict[str, Any]], str]:
    """The combined answer beside one from the digits alone, which does not know that neighbours are common."""
    posteriors = torch.softmax(prediction.digit_logits.double(), dim=-1)
    expected = posteriors @ torch.arange(10, dtype=torch.float64)
    digits_only = (expected[:, 0] > expected[:, 1]).numpy() == y
    rows = [
        {"answer": "comparison and digits, with the pairs' prior", "accuracy": _accuracy(right, sources).as_dict()},
        {"answer": "larger expected digit, without the prior", "accuracy": _accuracy(digits_only, sources).as_dict()},
    ]
    gain = metrics.paired_difference(digits_only, right, sources, UNIT)
    return (
        rows,
        f"the two answers of the table on what the answer is made of, first less second on the same pairs: {gain}",
    )


def ink_figure(by_ink: dict[str, Estimate], overall: float, folder: Path, name: str) -> Path:
    """What accuracy is worth where there is little to see."""
    return figures.bars_with_intervals(
        by_ink,
        folder / f"{name}_by_ink.png",
        title=f"Accuracy by visible ink on {name}",
        caption=f"Pixels brighter than {ink.BRIGHT} in the emptier half of a pair. Bars: 95 % intervals.",
        xlabel="accuracy",
        reference=overall,
    )


def digit_figures(
    prediction: Prediction,
    digits: np.ndarray,
    by_distance: dict[str, Estimate],
    overall: float,
    folder: Path,
    name: str,
) -> list[Path]:
    """Accuracy by distance, and which digits are taken for which."""
    answered = prediction.digit_logits.argmax(dim=-1).numpy()
    matrix = metrics.confusion_matrix(digits.ravel(), answered.ravel(), 10)
    return [
        figures.bars_with_intervals(
            {f"|a - b| = {key}": estimate for key, estimate in by_distance.items()},
            folder / f"{name}_by_distance.png",
            title=f"Accuracy by distance of the digits on {name}",
            xlabel="accuracy",
            reference=overall,
        ),
        figures.confusion(
            matrix,
            [str(digit) for digit in range(10)],
            folder / f"{name}_digits.png",
            title=f"Digits of single halves on {name}",
        ),
    ]


def worst(p: np.ndarray, y: np.ndarray, pairs: PairNPZDataset, path: Path) -> Path:
    """The pairs whose true answer the model found least likely."""
    order = np.argsort(np.where(y == 1, p, 1 - p), kind="stable")[:WORST_SHOWN]
    return figures.image_grid(
        [pairs.x[row].numpy() for row in order],
        [f"{_truth(pairs, row, y)}, p(left) {p[row]:.2f}" for row in order],
        path,
        columns=3,
        title="Worst errors",
        caption="Pairs whose true answer the model found least likely: the true digits, and its probability that the "
        "left one is larger.",
    )


def _truth(pairs: PairNPZDataset, row: int, y: np.ndarray) -> str:
    if pairs.digits is None:
        return "left" if y[row] else "right"
    left, right = pairs.digits[row].tolist()
    return f"{left} {'>' if left > right else '<'} {right}"


def _accuracy(right: np.ndarray, sources: np.ndarray | None, rows: np.ndarray | slice = EVERY) -> Estimate:
    return metrics.proportion(right[rows], None if sources is None else sources[rows], UNIT)
