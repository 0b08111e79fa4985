"""The verb `evaluate`: the official score of a model, what it is made of, and what its parts would reach alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mabe_behavior import measures, pictures, postprocessing, saved, streams, subject, tables, tuning
from mabe_behavior.bouts import Bouts, joined
from mabe_behavior.config import Config, EvaluateOptions
from mabe_behavior.data import Material
from mabe_behavior.outcome import Outcome
from mabe_behavior.postprocessing import Rules
from mabe_behavior.recording import Recording
from mabe_behavior.saved import BLEND, NETWORKS, TREES_ALONE
from mabe_behavior.streams import Stream
from mabe_behavior.subject import Trained
from shared_core import records, report
from shared_core.cli import App
from shared_core.errors import UserError
from shared_core.progress import message
from shared_core.runtime import Runtime

Evaluation = dict[str, Any]
OFFICIAL = (
    "score is the Kaggle challenge's: F1 over frames of each action in each laboratory, the mean over a laboratory's "
    "actions, and over laboratories; its interval is over recordings of these laboratories, not over laboratories"
)
TUNED = (
    "what networks and trees count for, smoothing, thresholds and shortest bouts were tuned on out-of-fold predictions "
    "of the training recordings"
)
UNFINISHED = "training has not finished: these are the networks alone, at thresholds of 0.5"
TUNED_HERE = (
    "there is a model of one fold alone: these are the recordings of that fold, on which checkpoint, weights of "
    "networks and trees, thresholds and all else were chosen; the numbers are too good"
)
CHOSEN_HERE = (
    "each recording is judged by the model that did not learn from it, and by rules that were fitted to the other "
    "folds; checkpoint, weights of networks and trees, and principal components, where features have any, were chosen "
    "on all of these recordings, so that the numbers are a little too good"
)
NARROW = "the score counts actions that were not learned as missed; score_of_learned is of the others alone"
NAMES = {
    NETWORKS: "networks alone",
    TREES_ALONE: "trees alone",
    "plain": "without tuning: threshold 0.5, nothing smoothed",
    "oracle": "oracle: the rules that the simulated mice are annotated by",
}
SHORT = {NETWORKS: "networks", TREES_ALONE: "trees", "plain": "untuned", "oracle": "oracle"}


def run(app: App, config: Config, options: EvaluateOptions) -> int:
    """Evaluate a model on a part of its data and refresh the run's report."""
    runtime = Runtime.start(config.runtime, config.seed)
    if runtime.world > 1:
        raise UserError("evaluate: runs in one process; start it without a launcher")
    who = subject.find(app, config, options, runtime.device)
    material = saved.material(who.run, config, who.about)
    model, others = judged(who, material, options)
    numbers = {material.rows[number]["name"]: number for number in _numbers(material, options.split)}
    about = evaluation(who, model, others, options.split, lambda name: material.recording(numbers[name]))
    records.write_evaluation(who.run, options.split, about)
    print(report.write([who.run.path], headline=app.headline))
    return 0


def judged(who: Trained, material: Material, options: EvaluateOptions) -> tuple[Outcome, dict[str, Outcome]]:
    """What the model makes of the recordings of a part, and what others would."""
    said, numbers = _said(who, material, options.split)
    names = [material.rows[n]["name"] for n in numbers]
    annotations = {name: material.annotations(n) for name, n in zip(names, numbers, strict=True)}
    videos = {name: str(material.rows[n]["video"]) for name, n in zip(names, numbers, strict=True)}
    together = who.together(said)
    plain = Outcome(together, _bouts(together, tuning.plain(_actions(together))), annotations, videos)
    if who.decided is None:
        return plain, {}
    model = plain.other(_ruled(who, material, together, BLEND, options.split))
    if not options.baselines:
        return model, {}
    others = {"plain": plain}
    if TREES_ALONE in said:
        for name in (NETWORKS, TREES_ALONE):
            others[name] = plain.other(_ruled(who, material, said[name], name, options.split), said[name])
    if who.config.data.source == "sample":
        others["oracle"] = plain.other(_oracle(who.config, names))
    return model, others


def _bouts(given: list[Stream], rules: Rules) -> Bouts:
    return postprocessing.apply_all(given, rules, streams.labeled(given))


def _numbers(material: Material, split: str) -> list[int]:
    """Of a part's recordings; of those that train, the ones of a fold that has a model."""
    parts = material.parts
    return (parts.test if split == "test" else parts.train[parts.fold < material.config.split.members]).tolist()


def _said(who: Trained, material: Material, split: str) -> tuple[subject.Said, list[int]]:
    numbers = _numbers(material, split)
    if split == "test":
        message(f"asking the model about {len(numbers):,} recordings")
        return who.asked((material.recording(number) for number in numbers), judged=True), numbers
    return subject.out_of_fold(who, material, who.forests), numbers


def _ruled(who: Trained, material: Material, given: list[Stream], name: str, split: str) -> Bouts:
    """Bouts by the rules of a part of the model; in training recordings by rules fitted to the other folds, if any."""
    assert who.decided is not None
    if split == "test" or who.config.split.members == 1:
        return _bouts(given, who.decided.rules[name])
    folds = zip(material.parts.train.tolist(), material.parts.fold.tolist(), strict=True)
    return tuning.crossfitted(given, {material.rows[number]["name"]: str(fold) for number, fold in folds})


def _oracle(config: Config, names: list[str]) -> Bouts:
    """What is the case in simulated videos, as far as rules see it."""
    from mabe_behavior.simulation import labs, simulator

    found = []
    for name in names:
        lab, _, seed = name.rpartition("-")
        found.append(simulator.oracle(labs.lab(lab), int(seed), config.data.sample_seconds))
    return joined(found)


def evaluation(
    who: Trained, model: Outcome, others: Mapping[str, Outcome], split: str, recording: Callable[[str], Recording]
) -> Evaluation:
    """Metrics, baselines, tables and figures of one part, in the form of `records.write_evaluation`."""
    score = model.estimate()
    figures = pictures.of_evaluation(who.run.figures, split, model, others.get("oracle"), recording)
    found = measures.found(model.truth, model.said, model.labeled)
    total = measures.total(found)
    here = CHOSEN_HERE if who.config.split.members > 1 else TUNED_HERE
    notes = [OFFICIAL, UNFINISHED if who.decided is None else TUNED if split == "test" else here]
    learned = model.of_learned
    if learned is not None:
        notes.append(NARROW)
    return {
        "checkpoint": who.name,
        "n": len(model.annotations),
        "headline": "score",
        "metrics": {
            "score": score.as_dict(),
            "bout_f1": {"value": total.f1},
            "bouts_hit": {"value": total.hit_share},
            "bouts_right": {"value": total.right_share},
            **({} if learned is None else {"score_of_learned": {"value": learned}}),
        },
        "baselines": {NAMES[name]: _baseline(model, one) for name, one in others.items()},
        "tables": _tables(model, others, found),
        "figures": [f"figures/{path.name}" for path in figures],
        "notes": notes,
    }


def _baseline(model: Outcome, other: Outcome) -> dict[str, Any]:
    return {"score": other.estimate().as_dict(), "differences": {"score": model.less(other).as_dict()}}


def _tables(
    model: Outcome, others: Mapping[str, Outcome], found: Mapping[str, measures.Found]
) -> dict[str, tables.Rows]:
    estimates = {lab: model.of_lab(lab).estimate() for lab in model.score.labs}
    beside = {SHORT[name]: one.score for name, one in others.items()}
    fps = {name: one.fps for name, one in model.annotations.items()}
    return {
        "Laboratories": tables.by_lab(model.score, estimates, model.estimate(), beside),
        "Actions of each laboratory": tables.by_action(model.score, model.truth, model.lab_of, fps),
        "Actions, all laboratories": tables.by_frame(measures.frames(model.score)),
        "Bouts": tables.by_bout(found),
    }


def _actions(given: list[Stream]) -> set[str]:
    return {action for one in given for action in one.actions}
