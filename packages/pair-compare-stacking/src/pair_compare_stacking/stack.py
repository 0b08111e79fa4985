"""Stage 4: fit the ways of combining base models on pairs that none of them can have seen, and choose one.

A share of the source images was withheld from every training (`data.withheld`). They are divided into folds; fresh
pairs are drawn within each fold, so that no two folds share an image. Methods are compared by nested cross-validation,
and what is used is judged on val and the test files, whose images neither base models nor stackers know.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pair_compare_stacking import degrade, ensemble, prepare, saved, stackers, stacking, stages, tables, train
from pair_compare_stacking.config import Config
from shared_core import config as configuration
from shared_core import files, records, runs, splits
from shared_core.cli import App
from shared_core.errors import UserError
from shared_core.progress import message
from shared_core.records import RunDir
from shared_core.runtime import Runtime
from shared_core.seeds import derive


@dataclass(frozen=True)
class Pairs:
    """Pairs that stackers are fitted on."""

    x: torch.Tensor  # (N, 28, 56) uint8
    y: np.ndarray  # (N,)
    fold: np.ndarray  # (N,)
    sources: np.ndarray  # (N, 2) ids of the source images


def run(app: App, config: Config) -> int:
    """Fit, choose, keep, evaluate; the result is the run NAME."""
    runtime = Runtime.start(config.runtime, config.seed)
    if runtime.world > 1:
        raise UserError("--stage 4 runs in one process; start it without a launcher")
    paths = find_models(app, config)
    pairs = draw(config)
    stacking.check_unseen(pairs.sources, {name: saved.trained_on(path) for name, path in paths.items()})
    base = {}
    for name, path in paths.items():
        message(f"{name}: answering {len(pairs.y):,} withheld pairs")
        base[name] = train.predict(saved.load(path)[0].to(runtime.device), pairs.x, runtime)
    logit_NM, names, wanted = ensemble.logits(base), list(base), config.stacking
    message("choosing by nested cross-validation")
    compared = stacking.cross_validate(
        logit_NM, pairs.y, pairs.fold, names, pairs.sources, wanted.methods, derive(wanted.seed, "methods") % 2**31
    )
    decision = stacking.decide(compared)
    fitted = {
        method: stackers.fit(method, logit_NM, pairs.y, pairs.fold, names, derive(wanted.seed, "methods") % 2**31)
        for method in (*wanted.methods, stackers.BEST_SINGLE)
    }
    kept = _keep(app, config, paths)
    about = decision.as_dict() | {"cross_validation": tables.cross_validation(compared)}
    ensemble.write(kept, names, fitted, about)
    kept.status("finished")
    message(decision.sentence)
    return app.call("evaluate", config, run=str(kept.path), all_models=True)


def find_models(app: App, config: Config) -> dict[str, Path]:
    """Folders of the base models: in the run NAME itself, or in those of its stages.

    Raises UserError that names what is missing, and how it is made.
    """
    singles = config.singles()
    wanted = config.stacking.models or tuple(
        name for name in singles if config.seeds or config.models[name].stage in (2, 3)
    )
    if len(wanted) < 2:
        raise UserError("stacking.models: fewer than two base models; name them, or use --config ten")
    found: dict[str, Path] = {}
    for stage in (None, *stages.TRAINED):
        try:
            run = stages.run_of(app, config, stage) if stage else runs.locate(app, config)
        except UserError:
            continue
        if run.read_status().get("state") == "finished" and saved.read_config(run.path).singles():
            found |= {path.name: path for path in saved.of(run).iterdir()}
    if missing := [name for name in wanted if name not in found]:
        stage = config.models[missing[0]].stage if missing[0] in config.models else None
        flag, name = f" --stage {stage}" if stage else "", config.name or runs.DEFAULT_NAME
        raise UserError(
            f"base models {', '.join(missing)}: missing; train them with: {app.command} train --name {name}{flag}"
        )
    return {name: found[name] for name in wanted}


def draw(config: Config) -> Pairs:
    """Fresh pairs from the withheld source images; each fold has images of its own.

    Raises UserError where none were withheld, or too few for so many folds.
    """
    if not config.data.withheld:
        raise UserError("data.withheld: is 0, so there is nothing to fit a stacker on; prepare with a share withheld")
    wanted, data = config.stacking, config.data
    pool = files.read_npz(prepare.require(config) / prepare.WITHHELD, ("images", "labels", "ids"))
    labels = pool["labels"]
    if np.bincount(labels, minlength=10).min() < wanted.folds:
        raise UserError(
            f"stacking.folds: {wanted.folds} is more than the withheld images of some digit; lower it or raise "
            "data.withheld"
        )
    shares = {str(fold): 1 / wanted.folds for fold in range(wanted.folds)}
    parts = splits.stratified(labels, shares, derive(wanted.seed, "folds") % 2**31)
    drawn = []
    for fold, rows in parts.items():
        images, index = torch.from_numpy(pool["images"][rows]), degrade.DigitIndex.of(torch.from_numpy(labels[rows]))
        generator = torch.Generator().manual_seed(derive(wanted.seed, "pairs", fold))
        made = degrade.sample_pairs_batch(
            images, index, wanted.pairs // wanted.folds, data.severity, data.weight_diff1, generator
        )
        source = torch.stack((made["left_source"], made["right_source"]), dim=1).numpy()
        drawn.append((made["x"], made["y"].numpy(), np.full(len(made["y"]), int(fold)), pool["ids"][rows][source]))
    x, y, fold, sources = zip(*drawn, strict=True)
    return Pairs(torch.cat(x), np.concatenate(y), np.concatenate(fold), np.concatenate(sources))


def _keep(app: App, config: Config, paths: dict[str, Path]) -> RunDir:
    """The run NAME, with the base models in it."""
    name, where = config.name or runs.DEFAULT_NAME, "auto"
    with contextlib.suppress(UserError):
        where = str(runs.locate(app, config).path)
    run = records.RunDir.open(config.paths.runs, app.package, name, where)
    try:
        run.write_config(configuration.to_yaml(config.model_copy(update={"name": name})))
        if not run.read_run():
            run.write_run({"package": app.package, "module": app.module, **runs.origin(app)})
        folder = run.path / saved.FOLDER
        if any(path.parent != folder for path in paths.values()):
            with files.atomic_dir(folder) as temporary:
                for model, path in paths.items():
                    shutil.copytree(path, temporary / model)
    finally:
        run.close()
    return run
