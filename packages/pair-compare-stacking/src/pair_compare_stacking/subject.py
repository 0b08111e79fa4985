"""Who answers: a checkpoint, one of several saved models, or an ensemble by one of its methods."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from pair_compare_stacking import blends, ensemble, saved, stackers, stages, train
from pair_compare_stacking.config import Config, ModelOptions
from pair_compare_stacking.ensemble import Ensemble
from pair_compare_stacking.model import PairModel, Prediction
from shared_core import config as configuration
from shared_core import runs, weights
from shared_core.cli import App
from shared_core.errors import UserError
from shared_core.records import RunDir
from shared_core.runtime import Runtime
from shared_core.schema import did_you_mean


@dataclass(frozen=True)
class Answers:
    """What was answered to N pairs."""

    prediction: Prediction  # the answer
    models: dict[str, Prediction] = field(default_factory=dict)  # what it was made of: base models by name
    methods: dict[str, np.ndarray] = field(default_factory=dict)  # P(left larger) (N,) by each way of combining them


@dataclass(frozen=True)
class Single:
    """One model."""

    run: RunDir  # where its evaluation is kept
    name: str  # for the record
    model: PairModel
    sources: frozenset[str]  # ids of the source images that its training showed, as far as they are known

    def answer(self, x: torch.Tensor, runtime: Runtime, swapped_too: bool = False) -> Answers:
        return Answers(train.predict(self.model.to(runtime.device), x, runtime, swapped_too))


@dataclass(frozen=True)
class Several:
    """An ensemble and one of its methods."""

    run: RunDir
    name: str
    ensemble: Ensemble
    method: str
    sources: frozenset[str]
    groups: dict[str, list[str]]  # names of the base models that differ in their seed only, by what they have in common

    def answer(self, x: torch.Tensor, runtime: Runtime, swapped_too: bool = False) -> Answers:
        base = self.ensemble.base(x, runtime, swapped_too)
        return Answers(self.ensemble.combine(base, self.method), base, self.ensemble.probabilities(base))


def find(app: App, config: Config, options: ModelOptions) -> Single | Several:
    """Whom the options mean.

    Raises UserError where there is no such run, checkpoint or model, or its weights are of another configuration.
    """
    return of_run(_locate(app, config, options), config, options.model, options.checkpoint)


def of_run(run: RunDir, config: Config, model: str | None = None, checkpoint: str = "best") -> Single | Several:
    """The model, or one of several, or the ensemble, that a run of this configuration has come to; raises as `find`."""
    if run.path.parent.name == saved.FOLDER:
        return _saved(run.path)
    if not (run.path / saved.FOLDER).is_dir() and not is_of_several(run):
        if model is not None:
            raise UserError(f"--model {model}: {run.path} has one model only; leave the flag out")
        return _checkpoint(config, run, checkpoint)
    if checkpoint not in ("best", "latest"):
        raise UserError(f"--checkpoint: {run.path} holds several models, of which the last weights count; leave it out")
    folder = saved.of(run)
    names = _order(run)
    if model in names:
        return _saved(folder / str(model))
    found = ensemble.load(run) if ensemble.is_one(run) else _uncombined(folder, names)
    method = model or found.chosen
    if method not in found.stackers:
        known = [*names, *found.stackers]
        raise UserError(f"--model {method}: no such model{did_you_mean(method, known)}; there are {', '.join(known)}")
    sources = frozenset().union(*(saved.trained_on(folder / name) for name in found.models))
    return Several(run, method, found, method, sources, _groups(folder, list(found.models)))


def _order(run: RunDir) -> list[str]:
    """Names of a run's saved models, as its configuration lists them."""
    there = sorted(path.name for path in (run.path / saved.FOLDER).iterdir())
    listed = [name for name in saved.read_config(run.path).singles() if name in there]
    return listed + [name for name in there if name not in listed]


def _groups(folder: Path, names: list[str]) -> dict[str, list[str]]:
    """Models that differ in their seed only, in the order of their names."""
    alike: dict[str, list[str]] = {}
    for name in names:
        config = saved.read_config(folder / name).model_copy(update={"name": None, "seed": 0})
        alike.setdefault(configuration.digest(config), []).append(name)
    return labelled(list(alike.values()))


def labelled(groups: list[list[str]]) -> dict[str, list[str]]:
    """Groups of names by a label of their own: what they have in common, or all of them where another has the same."""
    labels = [_common(group) for group in groups]
    return {
        label if labels.count(label) == 1 else ", ".join(group): group
        for label, group in zip(labels, groups, strict=True)
    }


def _common(names: list[str]) -> str:
    """What names have in common: bayes for bayes.seed1 and bayes.seed2."""
    stems = {re.sub(r"[._-]?(seed)?[._-]?\d+$", "", name) for name in names}
    return stems.pop() if len(names) > 1 and len(stems) == 1 and "" not in stems else ", ".join(names)


def _locate(app: App, config: Config, options: ModelOptions) -> RunDir:
    """The run, or else that of the stage which trained the model."""
    listed = None if options.is_explicit else config.models.get(str(options.model))
    try:
        found = runs.locate(app, config, options)
    except UserError:
        if listed is None:
            raise
        return stages.run_of(app, config, str(listed.stage))
    if listed is None or not (found.path / saved.FOLDER).is_dir() or str(options.model) in _order(found):
        return found
    return stages.run_of(app, config, str(listed.stage))


def is_of_several(run: RunDir) -> bool:
    """Whether a run is of several models."""
    return (run.path / "config.yaml").is_file() and bool(saved.read_config(run.path).singles())


def _saved(path: Path) -> Single:
    return Single(RunDir(path), path.name, saved.load(path)[0], frozenset(saved.trained_on(path)))


def _checkpoint(config: Config, run: RunDir, which: str) -> Single:
    path = runs.checkpoint(run, which)
    _refuse_other_network(config, run)
    model = train.build_model(config)
    weights.load_strictly(model, weights.load_weights(path), path)
    return Single(run, path.name, model.eval(), frozenset(saved.trained_on_if_known(run.path)))


def _refuse_other_network(config: Config, run: RunDir) -> None:
    """Settings that change no weight would pass otherwise, and the answers would be of a model that nobody trained."""
    stored = saved.read_config(run.path) if (run.path / "config.yaml").is_file() else config
    changed = [line for line in configuration.differences(stored, config) if line.startswith("model.")]
    if changed:
        raise UserError(f"{run.path}: was trained with another network ({'; '.join(changed)}); leave these flags out")


def _uncombined(folder: Path, names: list[str]) -> Ensemble:
    """Models that stage 4 has not worked on: their plain mean."""
    equal = tuple(blends.equal(len(names)).tolist())
    mean = stackers.Blend("mean", tuple(names), (1.0,) * len(names), equal)
    sentence = "the plain mean of the models' probabilities, not calibrated: stage 4 has not been run"
    models = {name: saved.load(folder / name)[0] for name in names}
    return Ensemble(models, {"mean": mean}, "mean", {"method": "mean", "sentence": sentence})
