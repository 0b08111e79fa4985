"""The verbs that every package gets for nothing.

Each is a thin function ``(app, config, options)`` over a module of the core; a package replaces one by declaring a
`cli.Verb` of the same name. Torch and the rest are imported when a verb runs, not before.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from shared_core import runs
from shared_core.cli import Verb
from shared_core.errors import UserError
from shared_core.runs import RunOptions
from shared_core.settings import RunConfig, Section

if TYPE_CHECKING:
    from shared_core.cli import App
    from shared_core.publisher import Publisher
    from shared_core.records import RunDir
    from shared_core.runtime import Runtime
    from shared_core.signals import StopSignals
    from shared_core.task import Task


class ReportOptions(Section):
    """What a report is about."""

    runs: tuple[str, ...] = Field(
        (),
        description="names or folders of runs, compared if several; default: the newest of the configuration's name",
        json_schema_extra={"positional": True},
    )
    out: Path | None = Field(None, description="folder of the report; default: the run's, or one beside several")


class PlanOptions(Section):
    """How `plan` finds its numbers."""

    steps: int = Field(5, ge=0, description="training steps to measure")
    gpu: str | None = Field(None, description="plan for this GPU (by name) instead of the device that is here")
    processes: int | None = Field(None, ge=1, description="plan for so many processes, one per GPU [those here]")
    json_file: Path | None = Field(None, description="also write the plan as JSON to this file")


class PushOptions(Section):
    """Where a run goes on the Hub."""

    repo: str | None = Field(
        None, description="OWNER/NAME on the Hub; default: YOU/PACKAGE-RUN", json_schema_extra={"positional": True}
    )
    run: str | None = Field(None, description=runs.WHICH_RUN)
    private: bool = Field(True, description="create the repository as a private one")
    tag: str | None = Field(
        None, description="tag of this version; default: step-N, or version for models of several trainings"
    )
    checkpoint: str = Field("best", description="best, latest, or the folder of a checkpoint")


class PullOptions(Section):
    """What comes from the Hub."""

    repo: str = Field(
        description="OWNER/NAME on the Hub, or OWNER/NAME@REVISION", json_schema_extra={"positional": True}
    )
    folder: Path | None = Field(
        None, description="where to put it; default: runs/PACKAGE/NAME, or NAME@COMMIT if that is taken"
    )
    revision: str | None = Field(None, description="tag, branch or commit; default: the newest")


class ExportOptions(RunOptions):
    """Weights in a form that others load."""

    format: Literal["state_dict", "onnx", "torch_export"] = Field("state_dict", description="state_dict: one .pt file")
    out: Path | None = Field(None, description="file to write; default: in the run's folder")


def train(app: App, config: RunConfig, options: None) -> int:
    """Train, or go on with an unfinished run of that name; ends with a report."""
    from shared_core import signals
    from shared_core.runtime import Runtime

    runtime = Runtime.start(config.runtime, config.seed, config.training.accumulation)
    with _one_line_for_a_lost_process():
        task = app.build_task(config, runtime)  # first: a missing data set must not leave an empty run behind
    # until here a signal ends the process and leaves nothing; from here on there is a run, whose status must be true
    with signals.StopSignals() as stop:
        return _train(app, config, task, runtime, stop)


def _train(app: App, config: RunConfig, task: Task, runtime: Runtime, stop: StopSignals) -> int:
    """The part of `train` in which signals only ask: the trainer answers them after its first step."""
    from shared_core import signals, trainer
    from shared_core.publisher import Publisher

    with _one_line_for_a_lost_process():
        run = runs.open_for_training(app, config, runtime, task.model, task.made_from(), task.is_of_several)
    with Publisher(config.hub, run, enabled=runtime.is_main, only_at_end=task.is_of_several) as publisher:
        try:
            with _one_line_for_a_lost_process():
                outcome = trainer.train(config, task, runtime, run, publisher)
            if outcome.state == "finished" and runtime.is_main:
                app.complete(run)
        except BaseException as error:
            if runtime.is_main:
                run.status("failed", reason=str(error) or type(error).__name__)
            raise
        if outcome.state == "preempted":
            publisher.stop()
        if runtime.is_main:
            run.status(outcome.state, step=outcome.step, best=outcome.best)
            print(f"{outcome.state} at step {outcome.step}: {run.path}")
            if outcome.state == "finished":
                from shared_core import report  # matplotlib takes a second to import

                print(report.write([run.path], headline=app.headline))
                _publish(app, config, run, publisher, stop)
    return signals.EXIT_PREEMPTED if outcome.state == "preempted" else 0


def _publish(app: App, config: RunConfig, run: RunDir, publisher: Publisher, stop: StopSignals) -> None:
    """Publish what a finished run has come to; where that fails, the run is finished all the same."""
    from shared_core import progress

    if not publisher.enabled:
        return
    progress.message(f"publishing to {config.hub.repo}")
    reason = publisher.finish(lambda: stop.requested)
    if reason is not None:
        repeat = f"{app.command} push {config.hub.repo} --run {run.path}"
        repeat += "" if config.hub.private else " --private false"
        progress.message(f"warning: not published ({reason}); repeat with: {repeat}")


class _ProcessLostError(UserError):
    """Another process of this run has ended; why, it says itself."""

    exit_code = 1  # not a mistake of the user's, as far as this process knows


@contextlib.contextmanager
def _one_line_for_a_lost_process() -> Iterator[None]:
    """Say so where another process ended in the middle of an exchange: a traceback from here would explain nothing."""
    from torch.distributed import DistError

    try:
        yield
    except RuntimeError as error:
        # gloo, which connects processes on CPUs, has no class for its errors; NCCL's are `DistError`
        if not isinstance(error, DistError) and "gloo/transport/" not in str(error):
            raise
        raise _ProcessLostError(
            "lost another process of this run, which failed or was killed: see its own message; the same command goes "
            "on from the newest checkpoint"
        ) from error


def evaluate(app: App, config: RunConfig, options: RunOptions) -> int:
    """The task's own metrics for a checkpoint, written as evaluation/val.json (packages offer more)."""
    import torch

    from shared_core import records
    from shared_core.runtime import Runtime
    from shared_core.weights import load_strictly, load_weights

    run = runs.locate(app, config, options)
    path = runs.checkpoint(run, options.checkpoint)
    runtime = Runtime.start(config.runtime, config.seed)
    task = app.build_task(config, runtime)
    load_strictly(task.model, load_weights(path), path)
    with torch.no_grad():
        metrics = task.evaluate(task.model.to(runtime.device).eval(), runtime)
    if not runtime.is_main:
        return 0
    named = {name.removeprefix("val/"): {"value": value} for name, value in metrics.items()}
    headline = app.headline if app.headline in named else next(iter(named))
    about = {"checkpoint": path.name, "headline": headline, "metrics": named}
    print(records.write_evaluation(run, "val", about))
    return 0


def report(app: App, config: RunConfig, options: ReportOptions) -> None:
    """Write report.md, report.html and report.json of one run, or of several compared."""
    from shared_core import report as reports

    found = [runs.locate(app, config, name=name).path for name in options.runs or (None,)]
    print(reports.write(found, options.out, headline=app.headline))


def plan(app: App, config: RunConfig, options: PlanOptions) -> None:
    """Print what training would cost, before it does."""
    import json

    from shared_core import files
    from shared_core import plan as plans
    from shared_core.runtime import Runtime

    # what a named GPU computes in is no question to the device that is here
    here = config.runtime.model_copy(update={"device": "auto", "precision": "auto"}) if options.gpu else config.runtime
    runtime = Runtime.start(here, config.seed, config.training.accumulation)
    if options.processes:
        runtime = replace(runtime, world=options.processes)
    task = app.build_task(config, runtime)
    made = plans.plan(config, task, runtime, steps=options.steps, gpu=options.gpu)
    if not runtime.is_main:
        return
    print(made.render())
    if options.json_file:
        files.atomic_write(options.json_file, json.dumps(made.as_dict(), indent=2) + "\n")


def push(app: App, config: RunConfig, options: PushOptions) -> None:
    """Publish a run: weights, configuration, metrics, figures and a card, nothing else."""
    from shared_core import hub

    run = runs.locate(app, config, name=options.run)
    repo = options.repo or hub.own(f"{app.package}-{run.name}")
    print(hub.push(run.path, repo, private=options.private, tag=options.tag, checkpoint=options.checkpoint))


def pull(app: App, config: RunConfig, options: PullOptions) -> None:
    """Fetch a published run."""
    from shared_core import hub

    if options.folder is not None:
        print(hub.pull(options.repo, options.folder, revision=options.revision))
    else:
        print(hub.fetch(options.repo, config.paths.runs / app.package, revision=options.revision))


def demo(app: App, config: RunConfig, options: None) -> int:
    """Prepare the embedded sample, train, evaluate, predict and report; ends with the headline number."""
    config = config.model_copy(update={"name": config.name or "demo"})
    if status := _quietly(app, "prepare", config, sample=True):
        return status
    if status := _quietly(app, "train", config):
        return status
    run = runs.trained(app, config)
    for name in ("evaluate", "predict"):
        if status := _quietly(app, name, config, run=str(run.path)):
            return status
    _quietly(app, "report", config, runs=(str(run.path),))
    print(f"\nreport: {run.path / 'report.html'}\n{runs.headline(app, run)}")
    return 0


def _quietly(app: App, name: str, config: RunConfig, **options: Any) -> int:
    """`app.call`, without the verb's standard output unless it fails: each would name the same report."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = app.call(name, config, **options)
    if status:
        print(printed.getvalue(), end="")
    return status


def _standard(name: str, about: str, options: str | None = None, preset: str | None = None) -> Verb:
    return Verb(name, f"shared_core.verbs:{name}", about, options and f"shared_core.verbs:{options}", preset)


ORDER = (
    *("prepare", "plan", "train", "evaluate", "predict", "report"),
    *("push", "pull", "launch", "export", "search", "demo"),
)
STANDARD = (
    _standard("plan", "what training would cost (memory, FLOPs, disk, time), before it does", "PlanOptions"),
    _standard("train", "train, or go on with an unfinished run of that name; ends with a report"),
    Verb("evaluate", "shared_core.verbs:evaluate", "metrics of a run or checkpoint", "shared_core.runs:RunOptions"),
    _standard("report", "report.md, report.html and report.json of one run, or of several compared", "ReportOptions"),
    _standard("push", "publish a run on the Hub, with a card that carries its measured metrics", "PushOptions"),
    _standard("pull", "fetch a published run from the Hub", "PullOptions"),
    Verb(
        "launch",
        "shared_core.launch.verb:run",
        "the same run somewhere else: local, nodes, slurm, kubernetes or modal",
        "shared_core.launch.options:Options",
        wants_split=True,
    ),
    Verb(
        "export", "shared_core.export:run", "weights as one .pt file, ONNX or torch.export", f"{__name__}:ExportOptions"
    ),
    Verb(
        "search",
        "shared_core.search:run",
        "better settings, by an Optuna study that resumes",
        "shared_core.search:Options",
    ),
    _standard("demo", "prepare the embedded sample, train, evaluate, predict, report", preset="demo"),
)
