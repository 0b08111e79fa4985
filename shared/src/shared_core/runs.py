"""Which run a command means: finding one, starting one, and what to write down about its origin."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from shared_core import config as configuration
from shared_core import progress, yamlfile
from shared_core.errors import UserError
from shared_core.schema import did_you_mean
from shared_core.settings import RunConfig, Section

if TYPE_CHECKING:
    from torch import nn

    from shared_core.cli import App
    from shared_core.records import RunDir
    from shared_core.runtime import Runtime

DEFAULT_NAME = "default"
WHICH_RUN = "name or folder of a run; default: the newest of the configuration's name"
_RECORDED = ("torch", "accelerate", "numpy", "safetensors", "pydantic")


class RunOptions(Section):
    """Which run a verb is about.

    `App` gives such a verb the configuration that the run was trained with, flags on top. A --config only names the run
    then, unless --run or --checkpoint name one as well.
    """

    run: str | None = Field(None, description=WHICH_RUN)
    from_hub: str | None = Field(
        None, description="OWNER/NAME or OWNER/NAME@REVISION: a published run, fetched and verified into runs/PACKAGE"
    )
    checkpoint: str = Field("best", description="best, latest, or the folder of a checkpoint")

    @property
    def is_explicit(self) -> bool:
        """Whether the options themselves say which run is meant."""
        return self.run is not None or self.from_hub is not None or self.checkpoint not in ("best", "latest")


def locate(app: App, config: RunConfig, options: RunOptions | None = None, name: str | None = None) -> RunDir:
    """The run that the options (or a name or folder) mean; without either, the newest of the configuration's name.

    One on the Hub is fetched, unless that version is there already. One whose training has not ended is said to be.

    Raises UserError where there is no such run.
    """
    run = _located(app, config, options, name)
    state = run.read_status().get("state", "finished")
    if state != "finished":
        progress.message(f"{run.path}: its training has not finished ({state}); this is about what it has come to")
    return run


def _located(app: App, config: RunConfig, options: RunOptions | None, name: str | None) -> RunDir:
    from shared_core import hub, records

    wanted = name or (options.run if options else None)
    if options is not None and options.from_hub is not None:
        if wanted is not None or options.checkpoint not in ("best", "latest"):
            raise UserError("--from-hub: names a run, and so does --run or --checkpoint; give one of them")
        return records.RunDir(hub.fetch(options.from_hub, config.paths.runs / app.package))
    if wanted is None and options is not None and options.checkpoint not in ("best", "latest"):
        return records.find(Path(options.checkpoint))
    home = config.paths.runs / app.package
    if wanted is None:
        if not (found := named(app, config)):
            raise _no_run(home, config.name or DEFAULT_NAME, app)
        return found[0]
    if (home / wanted).is_dir() and "/" not in wanted:
        return records.find(home / wanted)
    if "/" not in wanted and not Path(wanted).exists():
        raise _no_run(home, wanted, app)
    return records.find(Path(wanted))


def named(app: App, config: RunConfig) -> list[RunDir]:
    """All runs of the configuration's name, the newest first."""
    from shared_core import records

    series = records.series(config.paths.runs / app.package, config.name or DEFAULT_NAME)
    return [records.RunDir(path) for _, path in sorted(series, reverse=True) if path.is_dir()]


def trained(app: App, config: RunConfig) -> RunDir:
    """The run that `train` has worked on with this configuration. Raises UserError where there is none."""
    from shared_core import records

    resumed = config.training.resume
    return locate(app, config) if resumed in ("auto", "never") else records.find(Path(resumed))


def meant(home: Path, source: str) -> Path | None:
    """What a setting means: a run among those in `home`, by its name, or else a file or folder; None: neither."""
    return next((path for path in (home / source, Path(source)) if path.exists()), None)


def checkpoint(run: RunDir, which: str) -> Path:
    """Folder with the weights of the best or the latest checkpoint of a run, or of the one at a path."""
    from shared_core.checkpoint import Checkpoints

    found = Checkpoints(run.checkpoints)
    if which not in ("best", "latest"):
        path, skipped = found.find(which)
    else:
        path, skipped = (found.best() if which == "best" else None), []
        if path is None:
            path, skipped = found.find("auto")
    if path is None and (run.path / "model.safetensors").is_file():
        return run.path  # pulled from the Hub: weights alone
    if path is None and (models := sorted(weights.parent for weights in run.models.glob("*/model.safetensors"))):
        names = ", ".join(model.name for model in models)
        raise UserError(f"{run.path}: holds several models ({names}); give one of them, such as --run {models[0]}")
    if path is None and skipped:
        reasons = "; ".join(line.removeprefix("skipped ") for line in skipped)
        raise UserError(f"{run.checkpoints}: every checkpoint is damaged ({reasons}); restore one or train anew")
    if path is None:
        raise UserError(f"{run.path}: has no checkpoint yet; train it first")
    return path


def open_for_training(
    app: App,
    config: RunConfig,
    runtime: Runtime,
    model: nn.Module | None = None,
    made_from: Mapping[str, Mapping[str, str]] | None = None,
    several: bool = False,
) -> RunDir:
    """Start the run that `config` describes, or go on with an unfinished one; the same folder on every process.

    The main process's `model` gets the weights of `training.init_from` where there is no checkpoint to go on from; the
    learner makes the other processes' equal to it. `made_from` and `several` are the task's.

    Raises UserError where an unfinished run was started with another configuration, naming the differences, or from
    something else, or where the weights are not to be had or do not fit.
    """
    from shared_core import hub, records
    from shared_core.checkpoint import Checkpoints

    path, name = "", config.name or DEFAULT_NAME
    config = config.model_copy(update={"name": name})
    if runtime.is_main:
        run = records.RunDir.open(config.paths.runs, app.package, name, config.training.resume)
        begins = not (run.path / "config.yaml").exists()
        try:
            _refuse_other_configuration(run, config)
            _refuse_other_ingredients(run, made_from or {})
            if config.training.resume not in ("auto", "never"):
                Checkpoints(run.checkpoints).find(config.training.resume)  # refused before anything is written
            initial = None if model is None else _initialise(run, config, model, several)
            run.write_config(configuration.to_yaml(config))
            run.status("running")
            command = [app.command, *sys.argv[1:]]
            about: dict[str, Any] = {"package": app.package, "module": app.module, "argv": command, "hub": hub.used()}
            about |= {"init_from": initial} if initial else {}
            about |= {"made_from": made_from} if made_from else {}
            about |= {"several": True} if several else {}
            run.write_run({**about, **origin(app), **runtime.describe()})
        except UserError:
            if begins:
                run.discard()  # a start that was refused leaves nothing that a later one would have to name
            else:
                run.close()
            raise
        path = str(run.path)
    path = runtime.agree(path)
    return run if runtime.is_main else records.RunDir(Path(path))


def headline(app: App, run: RunDir) -> str:
    """The number that a run's report opens with, a line for each baseline below it."""
    from shared_core.report import data

    found = data.load(run.path)
    name = found.headline(app.headline)
    if found.split is None or name is None:
        return "not evaluated"
    lines = [f"{name} on {found.split}: {found.estimate(found.split, name)}"]
    for title, (estimate, _) in found.baselines(found.split, name).items():
        lines.append(f"  baseline {title}: {estimate}")
    return "\n".join(lines)


def origin(app: App) -> dict[str, Any]:
    """Versions, machine, git commit and what came from the Hub, for run.json."""
    from shared_core import hub

    versions = {"python": platform.python_version()}
    for package in (app.package, "shared-core", *_RECORDED):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    found: dict[str, Any] = {"versions": versions, "platform": platform.platform()}
    return {**found, "commit": commit(app.presets().parent) or _built_from(), "from_hub": hub.used()}


def commit(folder: Path) -> str | None:
    """The commit that `folder` is checked out from, with ``+changes`` where files differ; None outside a checkout."""
    try:
        git = ["git", "-C", str(folder)]
        found = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        changes = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def _built_from() -> str | None:
    """The commit that an image was told at its build, for there is no checkout in it."""
    said = os.environ.get("SOURCE_REVISION", "unknown")
    return None if said == "unknown" else said


def _refuse_other_configuration(run: RunDir, config: RunConfig) -> None:
    """A run that has checkpoints goes on with the settings it began with, or not at all."""
    kept = run.path / "config.yaml"
    if not kept.exists() or not _has_checkpoints(run):
        return
    changed = configuration.differences(yamlfile.read(kept).data, config)
    if changed:
        raise UserError(
            f"{run.path}: was started with another configuration ({'; '.join(changed)}); use its settings, or start a "
            "new run with --resume never or another --name"
        )


def _refuse_other_ingredients(run: RunDir, made_from: Mapping[str, Mapping[str, str]]) -> None:
    """What a setting names may lie elsewhere by now, but must be the same."""
    before = run.read_run().get("made_from", {}) if _has_checkpoints(run) else {}
    for key, now in made_from.items():
        if before.get(key, now).get("sha256") != now["sha256"]:
            raise UserError(
                f"{run.path}: {key}: {now['path']} has changed since the run was started; restore it, or start a new "
                "run with --resume never or another --name"
            )


def _initialise(run: RunDir, config: RunConfig, model: nn.Module, several: bool) -> dict[str, str] | None:
    """Load `training.init_from` into the model of a run that begins; what was loaded, for run.json."""
    from shared_core import files, hub, manifest, weights

    source = config.training.init_from
    if source is None or manifest.newest_good(run.checkpoints)[0] is not None:
        return None
    path = meant(run.path.parent, source)
    if path is None and "@" not in source:
        raise UserError(
            f"training.init_from: {source}: no such run, checkpoint or file; for one on the Hub write "
            "OWNER/NAME@REVISION"
        )
    file, version = hub.weights(source) if path is None else (path, "")
    try:
        weights.load_strictly(model, weights.load_weights(file), source)
    except UserError as error:
        raise UserError(f"training.init_from: {error}{_instead(path, source, several)}") from error
    if path is None:
        return {"source": source, "commit": version, "sha256": files.sha256(file)}
    return {"source": str(path.resolve())}


def _instead(path: Path | None, source: str, several: bool) -> str:
    """What else to begin with, where the weights of `source` do not fit."""
    from shared_core import records

    if several:
        return "; several models can begin with a run of the same ones alone: leave it out, or train one by itself"
    saved = [] if path is None else sorted(folder.name for folder in (path / records.MODELS).glob("*/"))
    return f"; one of its models is {source}/{records.MODELS}/{saved[0]}" if saved else ""


def _has_checkpoints(run: RunDir) -> bool:
    return any(run.checkpoints.glob("step-*/manifest.json"))


def _no_run(home: Path, name: str, app: App) -> UserError:
    names = [path.name for path in _folders(home)]
    known = f"there are {', '.join(names)}" if names else f"train one: {app.command} train --name {name}"
    return UserError(f"{home / name}: no such run{did_you_mean(name, names)}; {known}")


def _folders(home: Path) -> list[Path]:
    return sorted(path for path in home.iterdir() if path.is_dir()) if home.is_dir() else []


def require_same_split(run: RunDir, split: Section) -> None:
    """Raises UserError where a run was trained with another section `split`: what it learned from could judge it."""
    if not (run.path / "config.yaml").is_file():
        return
    stored = yamlfile.read(run.path / "config.yaml").data.get("split", {})
    if changed := configuration.differences(type(split).model_validate(stored), split):
        lines = "; ".join(changed)
        raise UserError(f"{run.path}: was trained with another split ({lines}); leave these flags out")


def require_same_data(run: RunDir, folder: Path, fingerprint: str, trained_on: str | None = None) -> None:
    """Raises UserError where the prepared set in `folder` is none that a run was trained on.

    Args:
        trained_on: fingerprint of the run's set; default: what run.json notes, if anything.
    """
    if trained_on is None:
        trained_on = run.read_run().get("made_from", {}).get("data", {}).get("sha256")
    if trained_on and fingerprint != trained_on:
        raise UserError(
            f"{folder}: is another data set than {run.path} was trained on, prepared again from a changed source; "
            "restore that, or train anew under another --name"
        )
