"""The verb `evaluate`: the official score of a model, what it is made of, and what its parts would reach alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mabe_behavior import measures, pictures, saved, streams, subject, tables, tuning
from mabe_behavior.bouts import Bouts, joined
from mabe_behavior.config import Config, EvaluateOptions
from mabe_behavior.data import Material
from mabe_behavior.outcome import Outcome
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
CHOSEN_HERE = (
    "each recording is judged by the model that did not see it, and by rules that were fitted to the other folds; the "
    "checkpoint and the weights of networks and trees were chosen on these recordings, so that the numbers are a "
    "little too good"
)
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
    recordings = {name: material.recording(number) for number, name in _numbers(material, options.split)}
    about = evaluation(who, model, others, options.split, recordings)
    records.write_evaluation(who.run, options.split, about)
    print(report.write([who.run.path], headline=app.headline))
    return 0


def judged(who: Trained, material: Material, options: EvaluateOptions) -> tuple[Outcome, dict[str, Outcome]]:
    """What the model makes of the recordings of a part, and what others would."""
    said, numbers = _said(who, material, options.split)
    video_of = {material.rows[n]["name"]: str(material.rows[n]["video"]) for n in numbers}
    together = who.together(said)
    if who.decided is None:
        return Outcome.of(together, tuning.plain(_actions(together)), video_of), {}
    model = _outcome(who, material, together, BLEND, options.split, video_of)
    if not options.baselines:
        return model, {}
    others = {"plain": Outcome.of(together, tuning.plain(_actions(together)), video_of)}
    if TREES_ALONE in said:
        for name in (NETWORKS, TREES_ALONE):
            others[name] = _outcome(who, material, said[name], name, options.split, video_of)
    if who.config.data.source == "sample":
        others["oracle"] = model.other(_oracle(who.config, [material.rows[n]["name"] for n in numbers]))
    return model, others


def _numbers(material: Material, split: str) -> list[tuple[int, str]]:
    """Numbers and names of a part's recordings."""
    numbers = material.parts.test if split == "test" else material.parts.train
    return [(number, material.rows[number]["name"]) for number in numbers.tolist()]


def _said(who: Trained, material: Material, split: str) -> tuple[subject.Said, list[int]]:
    if split == "test":
        numbers = material.parts.test.tolist()
        message(f"asking the model about {len(numbers):,} recordings")
        return who.asked((material.recording(number) for number in numbers), judged=True), numbers
    return subject.out_of_fold(who, material, who.forests), material.parts.train.tolist()


def _outcome(
    who: Trained, material: Material, given: list[Stream], name: str, split: str, video_of: Mapping[str, str]
) -> Outcome:
    assert who.decided is not None
    if split == "test":
        return Outcome.of(given, who.decided.rules[name], video_of)
    folds = zip(material.parts.train.tolist(), material.parts.fold.tolist(), strict=True)
    fold_of = {material.rows[number]["name"]: str(fold) for number, fold in folds}
    return Outcome(given, tuning.crossfitted(given, fold_of), video_of)


def _oracle(config: Config, names: list[str]) -> Bouts:
    """What is the case in simulated videos, as far as rules see it."""
    from mabe_behavior.simulation import labs, simulator

    found = []
    for name in names:
        lab, _, seed = name.rpartition("-")
        found.append(simulator.oracle(labs.lab(lab), int(seed), config.data.sample_seconds))
    return joined(found)


def evaluation(
    who: Trained, model: Outcome, others: Mapping[str, Outcome], split: str, recordings: Mapping[str, Recording]
) -> Evaluation:
    """Metrics, baselines, tables and figures of one part, in the form of `records.write_evaluation`."""
    score = model.estimate()
    figures = pictures.of_evaluation(who.run.figures, split, model, others.get("oracle"), recordings)
    found = measures.found(model.truth, model.said, streams.labeled(model.given))
    total = measures.total(found)
    return {
        "checkpoint": who.name,
        "n": len({one.video for one in model.given}),
        "headline": "score",
        "metrics": {
            "score": score.as_dict(),
            "bout_f1": {"value": total.f1},
            "bouts_hit": {"value": total.hit_share},
            "bouts_right": {"value": total.right_share},
        },
        "baselines": {NAMES[name]: _baseline(model, one) for name, one in others.items()},
        "tables": _tables(model, others, recordings, found),
        "figures": [f"figures/{path.name}" for path in figures],
        "notes": [OFFICIAL, UNFINISHED if who.decided is None else TUNED if split == "test" else CHOSEN_HERE],
    }


def _baseline(model: Outcome, other: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = {"score": other.estimate().as_dict()}
    gap = model.less(other)
    return found if gap is None else {**found, "differences": {"score": gap.as_dict()}}


def _tables(
    model: Outcome, others: Mapping[str, Outcome], recordings: Mapping[str, Recording], found: Mapping[str, Any]
) -> dict[str, tables.Rows]:
    estimates = {lab: model.of_lab(lab).estimate() for lab in model.score.labs}
    beside = {SHORT[name]: one.score for name, one in others.items()}
    fps = {name: one.tracks.fps for name, one in recordings.items()}
    lab_of = streams.labs(model.given)
    return {
        "Laboratories": tables.by_lab(model.score, estimates, model.estimate(), beside),
        "Actions of each laboratory": tables.by_action(model.score, model.truth, lab_of, fps),
        "Bouts": tables.by_bout(found),
    }


def _actions(given: list[Stream]) -> set[str]:
    return {action for one in given for action in one.actions}
