"""The verb `train`: one model, several together, or the stages of an ensemble one after the other."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pair_compare_stacking.config import Config, Member, TrainOptions
from shared_core import config as configuration
from shared_core import runs, verbs
from shared_core.cli import App
from shared_core.errors import UserError
from shared_core.flags import Split
from shared_core.progress import message
from shared_core.records import RunDir

TRAINED = ("1", "2", "3")
SEEDS = "3"  # the stage of several seeds of one model


def run(app: App, config: Config, options: TrainOptions, line: Split | None = None) -> int:
    """Train what the options say; exit status as of the core's `train`. `line`: the flags as they were typed."""
    if line is not None:
        _say_what_reaches_no_model(_trained(config, options), line.config.spelled)
    if options.stage is None:
        return verbs.train(app, _only(config, options.only), None)
    if options.only and options.stage in ("4", "all"):
        raise UserError(
            f"--only: chooses among the models of one stage, and so does not go with --stage {options.stage}; what "
            "stage 4 combines is chosen by --stacking.models"
        )
    wanted = (options.stage,)
    if options.stage == "all":
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError("--stage all: stage 4 runs in one process; launch the stages 1 to 3 one by one, then that")
        wanted = (*(stage for stage in TRAINED if _of_stage(config, stage).singles()), "4")
    for stage in wanted:
        if stage == "4":
            from pair_compare_stacking import stack

            status = stack.run(app, config)
        else:
            status = _stage(app, config, stage, options.only)
        if status:
            return status
    return 0


def _trained(config: Config, options: TrainOptions) -> dict[str, Member]:
    """The models that the options mean."""
    chosen = _of_stage(config, options.stage) if options.stage in TRAINED else config
    return {name: member for name, member in chosen.models.items() if not options.only or name in options.only}


def _say_what_reaches_no_model(models: Mapping[str, Member], spelled: Mapping[str, str]) -> None:
    """A flag for all models changes nothing in those that set the same themselves."""
    for key, flag in spelled.items():
        own = [name for name, member in models.items() if _sets(member, key)]
        if own and len(own) == len(models):
            raise UserError(
                f"{flag}: has no effect on {', '.join(own)}, which set{'s' * (len(own) == 1)} it in the file; "
                "change it there, under models"
            )
        if own:
            message(f"{flag}: for the models that do not set it themselves; {', '.join(own)} keep their own")


def _sets(member: Member, key: str) -> bool:
    section, _, name = key.rpartition(".")
    if not section:
        return key == "seed" and member.seed is not None
    return section in ("model", "loss", "augment") and name in getattr(member, section)


def _stage(app: App, config: Config, stage: str, only: tuple[str, ...]) -> int:
    """Train the models of one stage as the run NAME-stageN, unless that is finished."""
    chosen = _of_stage(config, stage)
    if not chosen.singles():
        known = [SEEDS] if config.seeds else sorted({str(member.stage) for member in config.models.values()})
        there = f"its models have stages {', '.join(known)}" if known else "it names no models; try --config ten"
        raise UserError(f"--stage {stage}: the configuration has no model of this stage; {there}")
    chosen = _only(chosen, only)
    done = finished(app, chosen) or finished(app, chosen.model_copy(update={"name": config.name}))
    if done is not None and config.training.resume == "auto":
        message(f"stage {stage}: finished before: {done.path}")
        return 0
    return verbs.train(app, chosen, None)


def stage_name(config: Config, stage: str) -> str:
    """Name of the run in which a stage is trained."""
    return f"{config.name or runs.DEFAULT_NAME}-stage{stage}"


def runs_of(app: App, config: Config, stage: str | None) -> list[RunDir]:
    """The runs of a stage, or of the configuration itself; the newest first."""
    return runs.named(app, config.model_copy(update={"name": stage_name(config, stage)}) if stage else config)


def run_of(app: App, config: Config, stage: str) -> RunDir:
    """The newest run of a stage. Raises UserError where there is none."""
    return runs.locate(app, config.model_copy(update={"name": stage_name(config, stage)}))


def _of_stage(config: Config, stage: str) -> Config:
    models = {name: member for name, member in config.models.items() if str(member.stage) == stage}
    seeds = config.seeds if stage == SEEDS else ()
    return config.model_copy(update={"name": stage_name(config, stage), "models": models, "seeds": seeds})


def _only(config: Config, names: tuple[str, ...]) -> Config:
    """The configuration with some of its models only."""
    if not names:
        return config
    known = list(config.bases())
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"--only {unknown[0]}: no such model here; there are {', '.join(known) or 'none'}")
    if config.seeds:
        return config.model_copy(update={"seeds": tuple(int(name.removeprefix("seed_")) for name in names)})
    return config.model_copy(update={"models": {name: config.models[name] for name in names}})


def finished(app: App, config: Config) -> RunDir | None:
    """The newest finished run of that name, configuration and length, if there is one."""
    from pair_compare_stacking import saved

    for run in runs.named(app, config):
        if run.read_status().get("state") != "finished" or not (run.path / "config.yaml").is_file():
            continue
        stored = saved.read_config(run.path)  # with the defaults of settings that are newer than the run
        lengths = {(one.training.epochs, one.training.steps) for one in (stored, config)}
        if len(lengths) == 1 and not configuration.differences(stored, config):
            return run
    return None
