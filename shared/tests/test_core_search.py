"""Searches find what is there to find, go on after a kill, and refuse what makes no sense before the first trial."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import toy

from shared_core import config, records, search, searchspace, trainer
from shared_core.errors import UserError
from shared_core.search import Options
from shared_core.searchspace import Choice, Range
from shared_core.trainer import Outcome

optuna = pytest.importorskip("optuna", reason="needs the extra search")


def config_of(folder: Path, **training: Any) -> toy.Config:
    return toy.Config.model_validate(
        {
            "name": "s",
            "paths": {"runs": str(folder)},
            "training": {"epochs": 2, "batch_size": 16, **training},
            "runtime": {"device": "cpu", "threads": 1},
            "logging": {"tracker": "none", "progress": False},
        }
    )


def folder_of(base: Path) -> Path:
    return base / "toy-package" / "s-search"


def trials(base: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder_of(base) / "trials.json").read_text())
    return found


# ---- the space


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optimizer.lr=log:1e-4..1e-2", Range("optimizer.lr", 1e-4, 1e-2, log=True, whole=False)),
        ("optimizer.weight-decay=0..0.5", Range("optimizer.weight_decay", 0, 0.5, log=False, whole=False)),
        ("--training.batch_size=8..64", Range("training.batch_size", 8, 64, log=False, whole=True)),
        ("optimizer.name=adamw|muon", Choice("optimizer.name", {"adamw": "adamw", "muon": "muon"})),
        ("training.ema_decay=null|0.9", Choice("training.ema_decay", {"null": None, "0.9": "0.9"})),
    ],
)
def test_dimensions(text: str, expected: Range | Choice) -> None:
    assert searchspace.parse([text], toy.Config) == [expected]


def test_lists_are_choices_too() -> None:
    [choice] = searchspace.parse(["optimizer.betas=0.9,0.999|0.8,0.99"], toy.Config)
    assert [tuple(map(float, value)) for value in choice.extremes()] == [(0.9, 0.999), (0.8, 0.99)]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "nothing to search over; write KEY=LOW..HIGH"),
        (["optimizer.rl=1..2"], "optimizer.rl is no setting (did you mean optimizer.lr?)"),
        (["optimizer.lr"], "is no range and no choice"),
        (["optimizer.lr=fast"], "is no range and no choice"),
        (["optimizer.lr=1..inf"], "is no range and no choice"),
        (["optimizer.lr=2..1"], "the lower bound must be below the upper one"),
        (["optimizer.lr=log:0..1"], "and above 0"),
        (["runtime.threads=1..4"], "is the same for all trials"),
        (["optimizer.lr=1..2", "optimizer.lr=3..4"], "is there twice"),
    ],
)
def test_mistakes_in_the_space(texts: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        searchspace.parse(texts, toy.Config)
    assert message in str(caught.value)


@pytest.mark.parametrize("over", ["optimizer.lr=-1..1", "optimizer.name=adamw|sgd", "training.epochs=0..3"])
def test_values_out_of_bounds_are_refused_before_anything_is_made(tmp_path: Path, over: str) -> None:
    with pytest.raises(UserError, match=over.partition("=")[0]):
        search.run(toy.APP, config_of(tmp_path), Options(over=(over,)))
    assert list(tmp_path.iterdir()) == []


# ---- the search, with a pretended training whose best setting is known


@pytest.fixture
def valley(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Training is replaced by a function with its minimum at a learning rate of 0.1; returns what was tried."""
    tried: list[float] = []

    def train(config: Any, task: Any, runtime: Any, run: Any) -> Outcome:
        tried.append(config.optimizer.lr)
        return Outcome("finished", 1, {"val/loss": abs(config.optimizer.lr - 0.1)})

    monkeypatch.setattr(trainer, "train", train)
    return tried


def test_finds_the_best_and_writes_it_down(
    tmp_path: Path, valley: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    assert search.run(toy.APP, config_of(tmp_path), Options(over=("optimizer.lr=0.001..1",), trials=6)) == 0
    assert len(valley) == 6
    best = min(valley, key=lambda lr: abs(lr - 0.1))
    found = config.load(toy.Config, folder_of(tmp_path) / "best.yaml", tmp_path, {})
    assert found.optimizer.lr == best
    assert f"optimizer.lr={best:.4g}" in capsys.readouterr().out
    assert [row["optimizer.lr"] for row in trials(tmp_path)] == valley


def test_same_seed_tries_the_same(tmp_path: Path, valley: list[float]) -> None:
    for name in ("a", "b"):
        search.run(toy.APP, config_of(tmp_path / name), Options(over=("optimizer.lr=0.001..1",), trials=3))
    assert valley[:3] == valley[3:]


def test_goes_on_to_more_trials(tmp_path: Path, valley: list[float]) -> None:
    for trials_in_all in (2, 5, 5):
        search.run(toy.APP, config_of(tmp_path), Options(over=("optimizer.lr=0.001..1",), trials=trials_in_all))
    assert len(valley) == len(set(valley)) == 5


def test_another_search_under_the_same_name_is_refused(tmp_path: Path, valley: list[float]) -> None:
    search.run(toy.APP, config_of(tmp_path), Options(over=("optimizer.lr=0.001..1",), trials=1))
    with pytest.raises(UserError, match=r"is another search \(optimizer\.lr=0\.001\.\.1 -> .*; choose another --name"):
        search.run(toy.APP, config_of(tmp_path), Options(over=("optimizer.lr=0.001..2",), trials=1))
    with pytest.raises(UserError, match=r"training\.batch_size: 16 -> 8"):
        other = config_of(tmp_path, batch_size=8)
        search.run(toy.APP, other, Options(over=("optimizer.lr=0.001..1",), trials=1))


def test_choices_reach_the_configuration_with_their_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def train(config: Any, task: Any, runtime: Any, run: Any) -> Outcome:
        tried.append((config.training.ema_decay, config.training.batch_size))
        return Outcome("finished", 1, {"val/loss": 1.0})

    monkeypatch.setattr(trainer, "train", train)
    over = ("training.ema_decay=null|0.9", "training.batch_size=16|32")
    search.run(toy.APP, config_of(tmp_path), Options(over=over, trials=8))
    assert {decay for decay, _ in tried} == {None, 0.9}
    assert {size for _, size in tried} == {16, 32}


def test_failed_trials_are_noted_and_three_in_a_row_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = iter([False, True, False, False, False])

    def train(config: Any, task: Any, runtime: Any, run: Any) -> Outcome:
        if next(outcomes):
            return Outcome("finished", 1, {"val/loss": 1.0})
        raise UserError("the gradient was not finite")

    monkeypatch.setattr(trainer, "train", train)
    with pytest.raises(UserError, match="3 trials in a row failed, the last with: the gradient was not finite"):
        search.run(toy.APP, config_of(tmp_path), Options(over=("optimizer.lr=0.1..1",), trials=9))
    assert [row["state"] for row in trials(tmp_path)] == ["fail", "complete", "fail", "fail", "fail"]
    status = records.RunDir(folder_of(tmp_path) / "trial-000").read_status()
    assert (status["state"], status["reason"]) == ("failed", "the gradient was not finite")


def test_search_in_which_nothing_was_ever_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trainer, "train", lambda *_: Outcome("finished", 1, {}))  # the metric was never finite
    assert search.run(toy.APP, config_of(tmp_path), Options(over=("optimizer.lr=0.1..1",), trials=2)) == 0
    printed = capsys.readouterr()
    assert "trial 000 failed: val/loss was never finite" in printed.err
    assert printed.out == f"no trial was finished; see {folder_of(tmp_path)}\n"
    assert [(row["state"], row["value"]) for row in trials(tmp_path)] == [("fail", None)] * 2
    assert not (folder_of(tmp_path) / "best.yaml").exists()


def test_trial_that_ended_without_being_told_is_not_repeated(
    tmp_path: Path, valley: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = optuna.Study.tell

    def killed(self: Any, *arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(optuna.Study, "tell", killed)
    with pytest.raises(KeyboardInterrupt):
        search.run(toy.APP, config_of(tmp_path), Options(over=("optimizer.lr=0.001..1",), trials=1))
    monkeypatch.setattr(optuna.Study, "tell", tell)
    search.run(toy.APP, config_of(tmp_path), Options(over=("optimizer.lr=0.001..1",), trials=1))
    assert len(valley) == 1
    assert trials(tmp_path)[-1]["value"] == abs(valley[0] - 0.1)


def test_database_of_something_else(tmp_path: Path) -> None:
    folder_of(tmp_path).mkdir(parents=True)
    (folder_of(tmp_path) / "study.db").write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match=r"study\.db: is no study; move it away"):
        search.run(toy.APP, config_of(tmp_path), Options(over=("optimizer.lr=0.1..1",)))


def test_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match="pip install optuna"):
        search.run(toy.APP, config_of(tmp_path), Options(over=("optimizer.lr=0.1..1",)))


# ---- grids

LRS = ("1e-4", "5e-4", "1e-3", "5e-3", "1e-2")
GRID = (f"optimizer.lr={'|'.join(LRS)}",)
PLANE = ("optimizer.lr=0.1|0.2|0.3", "training.ema_decay=null|0.9")


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float | None]]:
    """Training is replaced by a function that likes 0.2 with 0.9 best; returns what was tried."""
    seen: list[tuple[float, float | None]] = []

    def train(config: Any, task: Any, runtime: Any, run: Any) -> Outcome:
        lr, decay = config.optimizer.lr, config.training.ema_decay
        seen.append((lr, decay))
        return Outcome("finished", 1, {"val/loss": abs(lr - 0.2) + (decay is None)})

    monkeypatch.setattr(trainer, "train", train)
    return seen


ALL_OF_THE_PLANE = {(lr, decay) for lr in (0.1, 0.2, 0.3) for decay in (None, 0.9)}


def grid(folder: Path, over: tuple[str, ...] = PLANE, **options: Any) -> int:
    return search.run(toy.APP, config_of(folder), Options(over=over, sampler="grid", **options))


def test_grid_tries_every_combination_once_and_ends(tmp_path: Path, tried: list[tuple[float, float | None]]) -> None:
    assert grid(tmp_path) == 0
    assert len(tried) == 6 and set(tried) == ALL_OF_THE_PLANE
    found = config.load(toy.Config, folder_of(tmp_path) / "best.yaml", tmp_path, {})
    assert (found.optimizer.lr, found.training.ema_decay) == (0.2, 0.9)
    grid(tmp_path, PLANE[::-1])  # the order in which they are named changes nothing
    assert len(tried) == 6


def test_grid_of_learning_rates(tmp_path: Path, valley: list[float]) -> None:
    grid(tmp_path, GRID)
    assert sorted(valley) == sorted(map(float, LRS))


@pytest.mark.slow
def test_hundred_trials_over_two_ranges(tmp_path: Path, valley: list[float]) -> None:
    ranges = ("optimizer.lr=log:1e-4..1e-2", "optimizer.weight_decay=log:1e-5..1e-3")
    search.run(toy.APP, config_of(tmp_path), Options(over=ranges, trials=100))
    rows = trials(tmp_path)
    assert [row["state"] for row in rows] == ["complete"] * 100
    assert all(1e-4 <= row["optimizer.lr"] <= 1e-2 for row in rows)
    assert all(1e-5 <= row["optimizer.weight_decay"] <= 1e-3 for row in rows)
    late = sorted(row["optimizer.lr"] for row in rows[50:])
    assert late[25] > 5e-3  # the best is at the upper end, and most late trials are near it


def test_fewer_trials_than_combinations_and_then_the_rest(
    tmp_path: Path, tried: list[tuple[float, float | None]]
) -> None:
    for trials_in_all, expected in ((2, 2), (2, 2), (5, 5), (None, 6)):
        grid(tmp_path, trials=trials_in_all)
        assert len(tried) == len(set(tried)) == expected


def test_the_order_of_a_grid_is_drawn_from_the_seed() -> None:
    dimensions = searchspace.parse(PLANE, toy.Config)
    orders = [searchspace.grid(dimensions, seed) for seed in range(5)]
    assert any(order != orders[0] for order in orders)
    assert orders[0] == searchspace.grid(dimensions[::-1], 0)
    assert len({tuple(sorted(combination.items())) for combination in orders[1]}) == 6


@pytest.mark.parametrize(
    ("over", "options", "message"),
    [
        (("optimizer.lr=log:1e-4..1e-2",), {}, "optimizer.lr is a range; write 'optimizer.lr=A|B|C'"),
        (("optimizer.name=adamw|muon", "optimizer.lr=1e-4..1e-2"), {}, "optimizer.lr is a range"),
        (PLANE, {"trials": 7}, "--trials 7: the grid has 6 combinations; give no more"),
        (("optimizer.lr=1e-3|5e-3|0.001",), {}, "optimizer.lr: 1e-3 and 0.001 are the same value"),
        (tuple(f"training.{key}=1|2|3" for key in ("epochs", "batch_size")), {}, "9 combinations, 8 at most"),
    ],
)
def test_grids_that_make_no_sense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over: tuple[str, ...], options: Any, message: str
) -> None:
    monkeypatch.setattr(searchspace, "LARGEST_GRID", 8)
    with pytest.raises(UserError) as caught:
        grid(tmp_path, over, **options)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


class Killed(BaseException):
    """Stands for a kill: nothing in the search catches it."""


@pytest.mark.parametrize(
    ("where", "before"),
    [("training", 2), ("before its settings are drawn", 2), ("between two settings", 2), ("training", 5)],
)
def test_killed_grid_goes_on_and_tries_nothing_twice(
    where: str, before: int, tmp_path: Path, tried: list[tuple[float, float | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: Any, **__: Any) -> Any:
        raise Killed

    grid(tmp_path, trials=before)
    with monkeypatch.context() as patched:
        if where == "training":
            patched.setattr(trainer, "train", kill)
        elif where == "between two settings":
            draw = Choice.suggest
            patched.setattr(Choice, "suggest", lambda self, trial: (draw if "lr" in self.key else kill)(self, trial))
        else:
            patched.setattr(search.Search, "_trial", kill)
        with pytest.raises(Killed):
            grid(tmp_path)
    with monkeypatch.context() as patched:  # and again while the stopped trial is put back
        patched.setattr(optuna.Study, "tell", kill)
        with pytest.raises(Killed):
            grid(tmp_path)
    grid(tmp_path)
    assert len(tried) == 6 and set(tried) == ALL_OF_THE_PLANE
    assert [row["state"] for row in trials(tmp_path)] == ["complete"] * 6
    assert not list(folder_of(tmp_path).glob("trial-*-2"))


def test_several_processes_share_a_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(over=PLANE, sampler="grid")
    one, other = (search.Search(toy.APP, config_of(tmp_path), options) for _ in range(2))
    asked = [made._ask() for made in (one, other) * 3]
    drawn = [tuple(d.suggest(trial) for d in one.dimensions) for trial in asked if trial is not None]
    assert len(drawn) == len(set(drawn)) == 6
    assert one._ask() is None and other._ask() is None
    assert len(one.study.trials) == 6
    monkeypatch.setattr(other, "_latest", list)  # it looked just before the other took the last one
    assert other._ask() is None
    assert [trial.state.name for trial in one.study.trials] == ["RUNNING"] * 6 + ["FAIL"]


def test_a_grid_is_no_continuation_of_another_search(tmp_path: Path, valley: list[float]) -> None:
    search.run(toy.APP, config_of(tmp_path), Options(over=GRID, trials=1))
    with pytest.raises(UserError, match=r"is another search \(sampler: tpe -> grid\); choose another --name"):
        grid(tmp_path, GRID)


# ---- the search, with real training


def test_trials_of_a_grid_are_pruned_too(tmp_path: Path) -> None:
    over = ("optimizer.lr=0.1|0.08|0.06|0.05|1e-9",)
    dimensions = searchspace.parse(over, toy.Config)
    hopeless_last = next(s for s in range(100) if searchspace.grid(dimensions, s)[-1] == {"optimizer.lr": "1e-9"})
    settings = config_of(tmp_path, epochs=6).model_copy(update={"seed": hopeless_last})
    assert search.run(toy.APP, settings, Options(over=over, sampler="grid")) == 0
    assert [row["state"] for row in trials(tmp_path)] == ["complete"] * 4 + ["pruned"]


def test_trials_that_fall_behind_are_pruned(tmp_path: Path) -> None:
    """Five trials that learn, then one whose learning rate lets it learn nothing."""
    options = Options(over=("optimizer.lr=log:1e-9..0.1",), trials=6)
    made = search.Search(toy.APP, config_of(tmp_path, epochs=6), options)
    for lr in (0.1, 0.08, 0.06, 0.05, 0.04, 1e-9):
        made.study.enqueue_trial({"optimizer.lr": lr})
    assert made.run() == 0
    assert [row["state"] for row in trials(tmp_path)] == ["complete"] * 5 + ["pruned"]
    rows = records.read_metrics(folder_of(tmp_path) / "trial-005")
    assert sum("val/loss" in row for row in rows) < 6


@pytest.mark.slow
@pytest.mark.parametrize(("over", "sampler"), [("optimizer.lr=0.01..0.02", "tpe"), ("optimizer.lr=0.01|0.02", "grid")])
def test_killed_in_the_middle_of_a_trial_goes_on_there(tmp_path: Path, over: str, sampler: str) -> None:
    """The trial's run resumes from its checkpoint, and the trial counts once."""
    code = (
        "import sys, toy, pathlib\n"
        "from shared_core import search\n"
        "stop = int(sys.argv[2])\n"
        "values = {'name': 's', 'paths': {'runs': sys.argv[1]}, 'data': {'stop_at': stop or None},\n"
        "          'training': {'epochs': 3, 'batch_size': 16, 'dry_run': False},\n"
        "          'runtime': {'device': 'cpu', 'threads': 1}, 'logging': {'tracker': 'none', 'progress': False}}\n"
        "toy.Config.model_fields['data'].json_schema_extra = {'resumable': True}\n"
        f"options = search.Options(over=({over!r},), sampler={sampler!r}, trials=2)\n"
        "raise SystemExit(search.run(toy.APP, toy.Config.model_validate(values), options))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(toy.__file__).parent.parent), *sys.path])}
    command = [sys.executable, "-c", code, str(tmp_path)]
    killed = subprocess.run([*command, "10"], env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    resumed = subprocess.run([*command, "0"], env=environment, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert "resumed from step-6" in resumed.stderr + (folder_of(tmp_path) / "trial-000" / "train.log").read_text()
    assert [row["state"] for row in trials(tmp_path)] == ["complete", "complete"]
    assert len({row["optimizer.lr"] for row in trials(tmp_path)}) == 2


def test_signal_stops_the_search_and_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter(["preempted", "finished", "finished"])
    monkeypatch.setattr(trainer, "train", lambda *_: Outcome(next(states), 1, {"val/loss": 1.0}))
    options = Options(over=("optimizer.lr=0.1..1",), trials=2)
    assert search.run(toy.APP, config_of(tmp_path), options) == 75
    assert search.run(toy.APP, config_of(tmp_path), options) == 0
    assert [row["state"] for row in trials(tmp_path)] == ["complete", "complete"]


def test_signal_between_two_trials_stops_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "train", lambda *_: Outcome("finished", 1, {"val/loss": 1.0}))
    write = search.Search._write

    def interrupted(self: search.Search) -> None:
        write(self)
        monkeypatch.setattr(search.Search, "_write", write)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(search.Search, "_write", interrupted)
    options = Options(over=("optimizer.lr=0.1..1",), trials=2)
    assert search.run(toy.APP, config_of(tmp_path), options) == 75
    assert [row["state"] for row in trials(tmp_path)] == ["complete"]


def test_study_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "toy-package").write_text("a file in the way")
    with pytest.raises(UserError, match="toy-package"):
        search.run(toy.APP, config_of(tmp_path), Options(over=("optimizer.lr=0.1..1",)))


def test_options_need_neither_torch_nor_optuna() -> None:
    code = "import sys, shared_core.search; print({'torch', 'optuna', 'sqlalchemy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
