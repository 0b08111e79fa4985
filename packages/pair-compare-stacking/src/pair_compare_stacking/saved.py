"""Saved models: folders from which one of several models can be rebuilt by itself.

A run with several models keeps them in ``models/NAME/``, each in the form in which runs are published:

``config.yaml``        the model's own configuration, as if it had been trained alone
``model.safetensors``  its weights (averaged where there are any), and the digest of the configuration they belong to
``metrics.json``       best_val_acc, best_val_f1, best_epoch, params, seed, threshold, config
``trained_on.npz``     ids of the source images that its training showed

Models that were trained without a fold (`folds`) are kept likewise in ``folds/NAME.foldK/``: they only serve to fit
stackers.
"""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from pair_compare_stacking import train
from pair_compare_stacking.config import Config
from pair_compare_stacking.model import PairModel
from shared_core import config as configuration
from shared_core import files, records, runs, tensorfile, weights, yamlfile
from shared_core.errors import UserError
from shared_core.progress import message
from shared_core.records import RunDir

FOLDER = records.MODELS
FOLDS = "folds"
WEIGHTS = "model.safetensors"
TRAINED_ON = "trained_on.npz"
THRESHOLD = 0.5  # of an antisymmetric answer there is no other


def of(run: RunDir) -> Path:
    """The folder of a finished run's saved models, which is made where it is missing.

    Raises UserError for a run that is not finished.
    """
    folder = run.path / FOLDER
    if folder.is_dir():
        return folder
    if run.read_status().get("state") != "finished":
        raise UserError(
            f"{run.path}: has no saved models yet; its training has not finished: repeat the command it began with"
        )
    return keep(run, read_config(run.path))


def complete(run: RunDir) -> None:
    """Write what a finished training leaves beside its checkpoints: saved models, or the images a single one saw."""
    config = read_config(run.path)
    if config.singles():
        message(f"models: {keep(run, config)}")
    else:
        write_sources(run.path, np.array(train.sources(config)))


def keep(run: RunDir, config: Config) -> Path:
    """Write the models of a run whose training is over; returns their folder.

    They are the last weights, not the best: an endless stream does not overfit, and nothing is chosen on val.
    """
    folder = run.path / FOLDER
    whole = weights.load_weights(runs.checkpoint(run, "latest"))
    last = _last_evaluation(run)
    singles, bases = config.singles(), config.bases()
    learners = {single.stream: single for single in singles.values()}  # one for all that learn from the same pairs
    sources = {stream: np.array(train.sources(single)) for stream, single in learners.items()}
    others = files.atomic_dir(run.path / FOLDS) if len(singles) > len(bases) else contextlib.nullcontext(folder)
    with files.atomic_dir(folder) as of_bases, others as without_fold:  # `folder` comes last: then all is there
        for index, (name, single) in enumerate(sorted(singles.items())):  # as `members.MembersTask` orders them
            prefix = f"members.{index}."
            own = {key.removeprefix(prefix): tensor for key, tensor in whole.items() if key.startswith(prefix)}
            metrics = {key.split("/")[-1]: value for key, value in last.items() if key.startswith(f"val/{name}/")}
            metrics = {"epoch": last.get("epoch"), **metrics}
            path = (of_bases if name in bases else without_fold) / name
            _write(path, single, own, metrics, sources[single.stream])
    return folder


def _write(path: Path, config: Config, own: tensorfile.Tensors, metrics: dict[str, Any], sources: np.ndarray) -> None:
    path.mkdir()
    (path / "config.yaml").write_text(configuration.to_yaml(config))
    tensorfile.write(path / WEIGHTS, own, {"config": configuration.digest(config)})
    about = {
        "best_val_acc": metrics.get("accuracy"),
        "best_val_f1": metrics.get("f1"),
        "best_epoch": math.ceil(metrics["epoch"]) if metrics["epoch"] is not None else None,
        "params": sum(p.numel() for p in train.build_model(config).parameters()),
        "seed": config.seed,
        "threshold": THRESHOLD,
        "config": configuration.to_dict(config),
    }
    (path / "metrics.json").write_text(json.dumps(about, indent=2) + "\n")
    write_sources(path, sources)


def write_sources(path: Path, sources: np.ndarray) -> None:
    """Keep the ids of the source images that were trained on, beside a model."""
    with files.atomic_path(path / TRAINED_ON) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, ids=sources)


def _last_evaluation(run: RunDir) -> dict[str, Any]:
    rows = [row for row in records.read_metrics(run.path) if "val/accuracy" in row]
    return rows[-1] if rows else {}


def read_config(path: Path) -> Config:
    """The configuration of a saved model. Raises UserError where it is missing or not valid (any more)."""
    return configuration.stored(Config, path)


def load(path: Path) -> tuple[PairModel, Config]:
    """A saved model, ready to predict, and its configuration.

    Raises UserError where the weights are missing, damaged, or belong to another configuration.
    """
    if not (path / WEIGHTS).is_file():
        raise UserError(f"{path}: has no {WEIGHTS}; train the model again, or take it from the list of models")
    config = read_config(path)
    own, header = tensorfile.read(path / WEIGHTS)
    if header.get("config") != configuration.digest(config, yamlfile.read(path / "config.yaml").data):
        raise UserError(
            f"{path}: {WEIGHTS} was trained with another configuration than config.yaml says; restore the file that "
            "belongs to it, or train the model again"
        )
    model = train.build_model(config)
    weights.load_strictly(model, own, path)
    return model.eval(), config


def trained_on_if_known(path: Path) -> set[str]:
    """`trained_on` of a saved model, of a run, or of a run's checkpoint; empty where it is unknown."""
    for folder in (path, path.parent.parent):
        if (folder / TRAINED_ON).is_file():
            return trained_on(folder)
    return set()


def trained_on(path: Path) -> set[str]:
    """Ids of the source images that a saved model's training showed. Raises UserError where they are unknown."""
    if not (path / TRAINED_ON).is_file():
        raise UserError(f"{path}: does not say which source images it was trained on ({TRAINED_ON} is missing)")
    return {str(name) for name in files.read_npz(path / TRAINED_ON, ("ids",))["ids"]}
