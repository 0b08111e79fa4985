"""Stage 4: fit the ways of combining base models on pairs that none of them can have seen, and choose one.

A share of the source images was withheld from every training (`data.withheld`). They are divided into folds; fresh
pairs are drawn within each fold, so that no two folds share an image. Methods are compared by nested cross-validation,
and what is used is judged on val and the test files, whose images neither base models nor stackers know.

Under protocol out_of_fold the pairs are those of train.npz that lie within one fold, and each fold is answered by
models that were trained without it (`folds`); the ensemble keeps those that were trained on all rows.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pair_compare_stacking import degrade, ensemble, folds, prepare, saved, stackers, stacking, stages, tables, train
from pair_compare_stacking.config import Config
from pair_compare_stacking.pairs import PairNPZDataset
from shared_core import config as configuration
from shared_core import files, records, runs, splits
from shared_core.cli import App
from shared_core.errors import UserError
from shared_core.progress import message
from shared_core.records import RunDir
from shared_core.runtime import Runtime
from shared_core.schema import did_you_mean
from shared_core.seeds import derive


@dataclass(frozen=True)
class Pairs:
    """Pairs that stackers are fitted on."""

    x: torch.Tensor  # (N, 28, 56) uint8
    y: np.ndarray  # (N,)
    fold: np.ndarray  # (N,)
    sources: np.ndarray | None  # (N, 2) ids of the source images, where they are known

    def rows(self, fold: int | None) -> np.ndarray:
        """(N,) whether a pair is of a fold; None: of any."""
        return np.ones(len(self.fold), bool) if fold is None else self.fold == fold


def run(app: App, config: Config) -> int:
    """Fit, choose, keep, evaluate; the result is the run NAME."""
    runtime = Runtime.start(config.runtime, config.seed)
    if runtime.world > 1:
        raise UserError("--stage 4 runs in one process; start it without a launcher")
    wanted = config.stacking
    paths = find_models(app, config)
    if wanted.protocol == "out_of_fold":
        pairs, unseen_by = within_folds(config), find_without_folds(app, config, paths)
    else:
        pairs, unseen_by = draw(config), {None: paths}
    logit_NM, names = answer(pairs, unseen_by, runtime), list(paths)
    message("choosing by nested cross-validation")
    seed = derive(wanted.seed, "methods") % 2**31
    compared = stacking.cross_validate(logit_NM, pairs.y, pairs.fold, names, pairs.sources, wanted.methods, seed)
    decision = stacking.decide(compared)
    fitted = {
        method: stackers.fit(method, logit_NM, pairs.y, pairs.fold, names, seed)
        for method in (*wanted.methods, stackers.BEST_SINGLE)
    }
    kept = _keep(app, config, paths)
    about = decision.as_dict() | {"cross_validation": tables.cross_validation(compared)}
    known = pairs.sources is not None
    about["sentence"] += "" if known else f" Doubtful: {folds.BY_ROW}."
    ensemble.write(kept, fitted, about)
    kept.status("finished")
    message(about["sentence"])
    return app.call("evaluate", config, run=str(kept.path), all_models=True, baseline=known)


def answer(pairs: Pairs, unseen_by: dict[int | None, dict[str, Path]], runtime: Runtime) -> np.ndarray:
    """Log-odds of M base models for N pairs: float64 (N, M).

    Args:
        unseen_by: the saved models that answer the pairs of a fold (None: of all), by the base models' names.

    Raises UserError where one of them was trained on a source image of its pairs.
    """
    if pairs.sources is not None:
        for fold, paths in unseen_by.items():
            shown = {path.name: saved.trained_on(path) for path in paths.values()}
            stacking.check_unseen(pairs.sources[pairs.rows(fold)], shown)
    logit_NM = np.empty((len(pairs.y), len(next(iter(unseen_by.values())))))
    for fold, paths in unseen_by.items():
        rows = pairs.rows(fold)
        for column, path in enumerate(paths.values()):
            message(f"{path.name}: answering {rows.sum():,} pairs that it has not seen")
            prediction = train.predict(saved.load(path)[0].to(runtime.device), pairs.x[rows], runtime)
            logit_NM[rows, column] = prediction.logit.double().numpy()
    return logit_NM


def find_models(app: App, config: Config) -> dict[str, Path]:
    """Folders of the base models: in the run NAME itself, or in those of its stages.

    Raises UserError that names what is missing, and how it is made.
    """
    wanted = config.stacked()
    if len(wanted) < 2:
        raise UserError("stacking.models: fewer than two base models; name them, or use --config ten")
    found = _find(app, config, wanted, saved.FOLDER)
    for name, path in found.items():
        if changed := _changed(config, name, path):
            raise UserError(
                f"{path}: was trained with other settings ({'; '.join(changed)}); use those, or train it anew under "
                "another --name"
            )
    return found


def _changed(config: Config, name: str, path: Path) -> list[str]:
    """In what a saved model differs from what the configuration says about a model of that name."""
    now = config.singles().get(name)
    return [] if now is None else configuration.differences(_science(saved.read_config(path)), _science(now))


def _science(config: Config) -> Config:
    """What a configuration says about a model and what it learned from, and nothing else."""
    return Config(
        seed=config.seed,
        data=config.data.model_copy(update={"path": None}),
        stream=config.stream,
        model=config.model,
        loss=config.loss,
        augment=config.augment,
        distill=config.distill,
    )


def find_without_folds(app: App, config: Config, bases: Iterable[str]) -> dict[int | None, dict[str, Path]]:
    """Folders of the base models' copies that were trained without fold 0, 1, ...: by fold, then by the base's name.

    Raises UserError where one is missing, or was trained without another fold than it would be now.
    """
    names = {base: config.without_folds(base) for base in bases}
    found = _find(app, config, [name for of_base in names.values() for name in of_base], saved.FOLDS)
    for path in found.values():
        then, now = saved.read_config(path).stacking, config.stacking
        if (then.folds, then.seed) != (now.folds, now.seed):
            raise UserError(
                f"{path}: was trained without one of {then.folds} folds of stacking.seed {then.seed}, wanted are "
                f"{now.folds} of seed {now.seed}; use those, or train anew under another --name"
            )
    return {fold: {base: found[names[base][fold]] for base in names} for fold in range(config.stacking.folds)}


def _find(app: App, config: Config, wanted: Sequence[str], folder: str) -> dict[str, Path]:
    """Saved models in a folder of the run NAME or of its stages: the newest of the configuration's settings, or else
    the newest."""
    found: dict[str, list[Path]] = {}
    for stage in (*reversed(stages.TRAINED), None):
        for run in stages.runs_of(app, config, stage):
            if run.read_status().get("state") == "finished" and saved.read_config(run.path).singles():
                saved.of(run)
                for path in sorted((run.path / folder).glob("*/config.yaml")):
                    found.setdefault(path.parent.name, []).append(path.parent)
    if missing := [name for name in wanted if name not in found]:
        _refuse_missing(config, missing, folder)
    return {
        name: next((path for path in found[name] if not _changed(config, name, path)), found[name][0])
        for name in wanted
    }


def _refuse_missing(config: Config, missing: list[str], folder: str) -> None:
    known = list(config.bases())
    bases = [name if folder == saved.FOLDER else name.rpartition(".fold")[0] for name in missing]
    if (base := bases[0]) not in known:
        there = f"there are {', '.join(known)}" if known else "the configuration names none"
        raise UserError(f"stacking.models: {base}: no such model{did_you_mean(base, known)}; {there}")
    stages = sorted({f"--stage {config.models[name].stage}" for name in bases if name in config.models})
    how = ", ".join(stages) or "this configuration"
    raise UserError(
        f"base models {', '.join(missing)}: missing, or not finished; train them first ({how}), under the name "
        f"{config.name or runs.DEFAULT_NAME}"
    )


def draw(config: Config) -> Pairs:
    """Fresh pairs from the withheld source images; each fold has images of its own.

    Raises UserError where none were withheld, or too few for so many folds.
    """
    if config.data.is_given:
        raise UserError(
            "stacking.protocol: source pairs has no digits that could be withheld; train with --stacking.protocol "
            "out_of_fold"
        )
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


def within_folds(config: Config) -> Pairs:
    """The pairs of train.npz whose halves lie within one fold. Raises UserError as `folds.divide`."""
    whole = PairNPZDataset(prepare.require(config) / "train.npz")
    for warning in folds.warnings(config, whole):
        message(f"warning: {warning}")
    found = folds.divide(config.stacking, whole)
    rows = found.within()
    message(f"stacking on the {len(rows):,} of {len(whole):,} pairs of train.npz whose halves lie in one fold")
    assert whole.y is not None  # a training file has labels: `pairfile`
    sources = None if found.sources_N2 is None else found.sources_N2[rows]
    return Pairs(whole.x[rows], whole.y.numpy()[rows], found.fold_N2[rows, 0], sources)


def _keep(app: App, config: Config, paths: dict[str, Path]) -> RunDir:
    """The run NAME, with the base models in it."""
    name, where = config.name or runs.DEFAULT_NAME, "never"
    with contextlib.suppress(UserError):
        there = runs.locate(app, config)
        if ensemble.is_one(there) or (there.path / saved.FOLDER).is_dir():  # else it is something else's
            where = str(there.path)
    run = records.RunDir.open(config.paths.runs, app.package, name, where)
    try:
        run.write_config(configuration.to_yaml(config.model_copy(update={"name": name})))
        if not run.read_run():
            run.write_run({"package": app.package, "module": app.module, **runs.origin(app)})
        _gather(run.path / saved.FOLDER, paths)
    finally:
        run.close()
    return run


def _gather(folder: Path, paths: dict[str, Path]) -> None:
    """Copy models into `folder`. One that is there already stays as it is, with what was made of it since."""
    for model, path in paths.items():
        there = folder / model
        if there != path and _content(there) != _content(path):
            with files.atomic_dir(there) as temporary:
                shutil.copytree(path, temporary, dirs_exist_ok=True)
    if any(path.parent == folder for path in paths.values()):
        return  # the others were trained here as well
    for other in [path for path in folder.iterdir() if path.is_dir() and path.name not in paths]:
        files.remove(other)


def _content(folder: Path) -> list[str]:
    """What makes a saved model the one that it is."""
    names = ("config.yaml", saved.WEIGHTS, saved.TRAINED_ON)
    return [files.sha256(folder / name) for name in names if (folder / name).is_file()]
