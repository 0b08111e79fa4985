"""Looking for better settings: an Optuna study over dotted fields, each trial a run that resumes like any other.

``COMMAND search optimizer.lr=log:1e-4..1e-2 optimizer.weight_decay=log:1e-5..1e-3 --trials 100`` tries what earlier
trials promise most of, ``COMMAND search 'optimizer.lr=1e-4|5e-4|1e-3|5e-3|1e-2' --sampler grid`` every combination.
Both keep everything in ``runs/PACKAGE/NAME-search/``: study.db (SQLite), one run per trial, trials.json and best.yaml.
Stopped or killed, the same command goes on, also in the middle of a trial. Trials that fall behind are pruned by the
monitored metric.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from shared_core import config as configuration
from shared_core import files, progress, records, runs, searchgrid, searchspace
from shared_core.errors import UserError
from shared_core.searchgrid import number
from shared_core.searchspace import Dimension
from shared_core.settings import RunConfig, Section
from shared_core.yamlfile import Document

if TYPE_CHECKING:
    import optuna

    from shared_core.cli import App
    from shared_core.runtime import Runtime
    from shared_core.signals import StopSignals
    from shared_core.task import Task

_FAILURES_IN_A_ROW = 3
_TRIALS = 20  # of a search that has no end of its own


class Options(Section):
    """What to search over, and for how long."""

    over: tuple[str, ...] = Field(
        (),
        description="KEY=LOW..HIGH, KEY=log:LOW..HIGH or 'KEY=A|B|C' for any dotted settings, varied together",
        json_schema_extra={"positional": True},
    )
    sampler: Literal["tpe", "grid"] = Field(
        "tpe",
        description="tpe: settings near the best so far, as in `optimizer.lr=log:1e-4..1e-2 "
        "optimizer.weight_decay=log:1e-5..1e-3 --trials 100`; grid: every combination of choices once, as in "
        "`'optimizer.lr=1e-4|5e-4|1e-3|5e-3|1e-2' --sampler grid`",
    )
    trials: int | None = Field(
        None, ge=1, description=f"trials in all, counting those of earlier calls; default: {_TRIALS}, or the whole grid"
    )
    pruner: Literal["median", "none"] = Field(
        "median", description="median: stop trials below the median of the others"
    )


def run(app: App, config: RunConfig, options: Options) -> int:
    """The verb `search`; exit status 75 where a signal stopped it."""
    return Search(app, config, options).run()


class Search:
    """One study."""

    def __init__(self, app: App, config: RunConfig, options: Options) -> None:
        from shared_core.runtime import Runtime

        self.app, self.config, self.options = app, config, options
        self.dimensions = searchspace.parse(options.over, type(config))
        for dimension in self.dimensions:
            self._check(dimension)
        self.grid = searchspace.grid(self.dimensions, config.seed) if options.sampler == "grid" else None
        self.trials = self._number_of_trials()
        runtime = Runtime.start(config.runtime, config.seed, config.training.accumulation)
        if runtime.world > 1:
            raise UserError("search runs in one process; start it without a launcher (several may share one study)")
        task = app.build_task(config, runtime)  # whatever is missing is missed before the first trial
        self.monitor, self.maximize = task.monitor, task.maximize
        self.folder = config.paths.runs / app.package / f"{config.name or runs.DEFAULT_NAME}-search"
        self.study = self._open()

    def run(self) -> int:
        from shared_core.signals import EXIT_PREEMPTED, StopSignals

        with StopSignals() as signals:  # also between trials
            return EXIT_PREEMPTED if self._try_all(signals) == "preempted" else 0

    def _try_all(self, signals: StopSignals) -> Literal["done", "preempted"]:
        self._take_up_stopped_trials()
        failures = 0
        while self._done() < self.trials:
            if signals.requested:
                return "preempted"
            trial = self._ask()
            if trial is None:
                break  # other processes are about to finish the rest
            state, message = self._trial(trial)
            if state == "preempted":
                return "preempted"
            failures = failures + 1 if state == "failed" else 0
            progress.message(f"trial {number(trial):03d} {state}: {message} with {self._values(trial.params)}")
            self._write()
            if failures == _FAILURES_IN_A_ROW:
                raise UserError(f"{failures} trials in a row failed, the last with: {message}")
        self._write()
        print(self._summary())
        return "done"

    # ---- the study

    def _check(self, dimension: Dimension) -> None:
        """UserError where a value of the dimension is out of bounds, or two choices mean the same."""
        found = [self._with({dimension.key: value}) for value in dimension.extremes()]
        if isinstance(dimension, searchspace.Choice):
            for i, typed in enumerate(dimension.values):
                if found[i] in found[:i]:
                    twin = list(dimension.values)[found.index(found[i])]
                    raise UserError(f"{dimension.key}: {twin} and {typed} are the same value; give each once")

    def _number_of_trials(self) -> int:
        """How many trials the search has in all."""
        wanted = self.options.trials
        if self.grid is None:
            return wanted or _TRIALS
        if wanted is not None and wanted > len(self.grid):
            raise UserError(
                f"--trials {wanted}: the grid has {len(self.grid)} combinations; give no more, or leave it out"
            )
        return wanted or len(self.grid)

    def _open(self) -> optuna.Study:
        """The study on disk, new or as it was left; UserError where it searches over something else."""
        try:
            import optuna
        except ModuleNotFoundError:
            raise UserError("search needs the library optuna; run: pip install optuna") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        database = self.folder / "study.db"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise files.explain(error, self.folder) from error
        pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
        try:
            study = optuna.create_study(
                storage=f"sqlite:///{database.resolve()}",
                study_name="search",
                load_if_exists=True,
                direction="maximize" if self.maximize else "minimize",
                pruner=pruner if self.options.pruner == "median" else optuna.pruners.NopPruner(),
            )
        except Exception as error:
            if type(error).__module__.split(".")[0] not in ("optuna", "sqlalchemy", "sqlite3", "alembic"):
                raise
            raise UserError(f"{database}: is no study; move it away, or choose another --name") from error
        self._refuse_other_search(study)
        study.sampler = self._sampler(len(study.trials))
        return study

    def _sampler(self, trials_before: int) -> optuna.samplers.BaseSampler:
        import optuna

        if self.grid is not None:
            return searchgrid.sampler(self.grid)
        # it draws anew wherever the study is taken up, and the same wherever it starts
        return optuna.samplers.TPESampler(seed=(self.config.seed + trials_before) % 2**32)

    def _refuse_other_search(self, study: optuna.Study) -> None:
        about = {
            "over": sorted(self.options.over),
            "sampler": self.options.sampler,
            "config": configuration.to_dict(self.config),  # last: where it is, the others are
        }
        if "config" not in study.user_attrs:
            for name, value in about.items():
                study.set_user_attr(name, value)
            return
        changed = configuration.differences(study.user_attrs["config"], self.config)
        if study.user_attrs["over"] != about["over"]:
            changed.append(f"{' '.join(study.user_attrs['over'])} -> {' '.join(self.options.over)}")
        sampler = study.user_attrs.get("sampler", "tpe")
        if sampler != about["sampler"]:
            changed.append(f"sampler: {sampler} -> {about['sampler']}")
        if changed:
            raise UserError(f"{self.folder}: is another search ({'; '.join(changed)}); choose another --name")

    def _take_up_stopped_trials(self) -> None:
        """Trials whose process is gone are put back at the head of the queue; their runs resume."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            try:
                self._run_of(trial).close()
            except UserError:
                continue  # another process works on it
            newest = next(other for other in self._latest() if number(other) == number(trial))
            if newest.number == trial.number:  # else it was put back before, by a process that was killed right here
                self.study.enqueue_trial(trial.params, user_attrs={"number": number(trial)})
            self.study.tell(trial.number, state=TrialState.FAIL)

    def _ask(self) -> optuna.Trial | None:
        """The next trial; None where every combination of the grid is tried, or being tried by another process."""
        from optuna.trial import TrialState

        if self.grid is None:
            return self.study.ask()
        queued = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if not queued and len(self._latest()) >= self.trials:
            return None
        trial = self.study.ask()
        if searchgrid.place(self.study, trial) < len(self.grid):
            return trial
        self.study.tell(trial, state=TrialState.FAIL)  # another process was quicker
        return None

    def _latest(self) -> list[optuna.trial.FrozenTrial]:
        """The trials. A stopped one and its continuation are one, of which the continuation counts."""
        return list({number(trial): trial for trial in self.study.get_trials(deepcopy=False)}.values())

    def _done(self) -> int:
        return sum(trial.state.is_finished() for trial in self._latest())

    # ---- one trial

    def _trial(self, trial: optuna.Trial) -> tuple[Literal["finished", "pruned", "failed", "preempted"], str]:
        """Train with the settings of `trial` and tell the study; the second value is for people."""
        import optuna

        config = self._with({dimension.key: dimension.suggest(trial) for dimension in self.dimensions})
        before = records.RunDir(self._path(trial)).read_status()
        if before.get("state") == "finished" and "best" in before:  # killed between the end of its run and telling so
            return self._tell(trial, before["best"])
        run = self._run_of(trial)
        try:
            run.write_config(configuration.to_yaml(config))
            outcome = self._train(config, run, trial)
        except optuna.TrialPruned:
            run.status("finished", pruned=True)
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return "pruned", "behind the others"
        except UserError as error:
            run.status("failed", reason=str(error))
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return "failed", str(error)
        finally:
            run.close()
        if outcome.state == "preempted":
            run.status("preempted", step=outcome.step)
            return "preempted", ""
        run.status("finished", step=outcome.step, best=outcome.best)
        return self._tell(trial, outcome.best)

    def _tell(self, trial: optuna.Trial, best: Mapping[str, float]) -> tuple[Literal["finished", "failed"], str]:
        import optuna

        if self.monitor not in best:  # never finite
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return "failed", f"{self.monitor} was never finite"
        self.study.tell(trial, best[self.monitor])
        return "finished", f"{self.monitor} {best[self.monitor]:.4f}"

    def _train(self, config: RunConfig, run: records.RunDir, trial: optuna.Trial) -> Any:
        from shared_core import trainer
        from shared_core.runtime import Runtime

        runtime = Runtime.start(config.runtime, config.seed, config.training.accumulation)
        task = self.app.build_task(config, runtime)
        self._report_evaluations(task, run, trial)
        return trainer.train(config, task, runtime, run)

    def _report_evaluations(self, task: Task, run: records.RunDir, trial: optuna.Trial) -> None:
        """Let the pruner see every evaluation; a trial it gives up ends by `optuna.TrialPruned`."""
        import optuna

        evaluate = task.evaluate

        def reporting(model: Any, runtime: Runtime) -> dict[str, float]:
            metrics = evaluate(model, runtime)
            earlier = sum(self.monitor in row for row in records.read_metrics(run.path))
            trial.report(metrics[self.monitor], earlier)
            if trial.should_prune():
                raise optuna.TrialPruned
            return metrics

        task.evaluate = reporting  # type: ignore[method-assign]

    def _path(self, trial: optuna.Trial | optuna.trial.FrozenTrial) -> Path:
        return self.folder / f"trial-{number(trial):03d}"

    def _run_of(self, trial: optuna.Trial | optuna.trial.FrozenTrial) -> records.RunDir:
        """The trial's run, opened for writing; UserError where another process writes it."""
        return records.RunDir.open(self.folder.parent, self.folder.name, self._path(trial).name, "auto")

    def _with(self, values: Mapping[str, Any]) -> RunConfig:
        """The configuration with other settings; UserError where one of them is out of bounds."""
        data = configuration.to_dict(self.config)
        overrides = {**values, "training.resume": "auto"}
        config, problems = configuration.validate(type(self.config), Document(data), overrides)
        if config is None:
            raise UserError("\n".join(problems))
        return config

    # ---- what it found

    def _write(self) -> None:
        """trials.json, and best.yaml as soon as there is a best trial."""
        rows = [
            {"trial": number(trial), "state": trial.state.name.lower(), "value": trial.value, **trial.params}
            for trial in self._latest()
        ]
        files.atomic_write(self.folder / "trials.json", json.dumps(rows, indent=2) + "\n")
        if best := self._best():
            files.atomic_write(self.folder / "best.yaml", configuration.to_yaml(self._with(self._decoded(best.params))))

    def _best(self) -> optuna.trial.FrozenTrial | None:
        from optuna.trial import TrialState

        finished = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return self.study.best_trial if finished else None

    def _summary(self) -> str:
        best = self._best()
        if best is None:
            return f"no trial was finished; see {self.folder}"
        return (
            f"best of {self._done()}: trial {number(best):03d}, {self.monitor} {best.value:.4f} with "
            f"{self._values(best.params)}\n"
            f"train it: {self.app.command} train --config {self.folder / 'best.yaml'} --name NAME"
        )

    def _decoded(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """A trial's parameters as settings: choices are stored as they were typed."""
        return {dimension.key: _decoded(dimension, params[dimension.key]) for dimension in self.dimensions}

    def _values(self, params: Mapping[str, Any]) -> str:
        return ", ".join(
            f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items()
        )


def _decoded(dimension: Dimension, value: Any) -> Any:
    return dimension.values[value] if isinstance(dimension, searchspace.Choice) else value
