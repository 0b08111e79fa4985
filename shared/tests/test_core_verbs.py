"""The standard verbs, run as commands on the toy package."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import toy
from pydantic import Field

from shared_core import config, hub, records, runs, trainer, yamlfile
from shared_core.cli import App, Verb
from shared_core.errors import UserError
from shared_core.runs import RunOptions
from shared_core.settings import Section
from shared_core.signals import EXIT_PREEMPTED

CALLS: list[tuple[str, Any, Any]] = []


class PrepareOptions(Section):
    sample: bool = Field(False, description="the embedded sample")


def prepare(app: App, config: Any, options: PrepareOptions) -> None:
    CALLS.append(("prepare", config, options))


def predict(app: App, config: Any, options: RunOptions) -> None:
    CALLS.append(("predict", config, options))


def failing(app: App, config: Any, options: RunOptions) -> int:
    print("no such split")
    return 4


def evaluate(app: App, config: Any, options: RunOptions) -> None:
    """An evaluation with a baseline, as a package writes it."""
    estimate = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 100, "method": "Wilson 95 %"}
    baseline = {"accuracy": {**estimate, "value": 0.5, "low": 0.4, "high": 0.6}, "what": "guessing"}
    found = {"checkpoint": "step-1", "n": 100, "headline": "accuracy", "metrics": {"accuracy": estimate}}
    run = runs.locate(app, config, options)
    records.write_evaluation(run, "test", {**found, "baselines": {"guessing": baseline}})


OWN = (
    Verb("prepare", f"{__name__}:prepare", "prepares", f"{__name__}:PrepareOptions"),
    Verb("predict", f"{__name__}:predict", "predicts", "shared_core.runs:RunOptions"),
)
APP = App("toy", "toy-package", "toy", "A toy.", "toy:Config", "toy:build_task", "accuracy", OWN)
SMALL = ("--epochs", "1", "--batch-size", "16", "--tracker", "none", "--device", "cpu", "--data.rows", "32")


@pytest.fixture(autouse=True)
def _heeds_ctrl_c() -> Iterator[None]:
    """What a shell starts in the background ignores Ctrl-C, a test run too; these tests press it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    CALLS.clear()


def train(*argv: str) -> int:
    return APP.main(["train", *SMALL, *argv])


def home() -> Path:
    return Path("runs/toy-package")


def test_train_ends_with_a_report_and_says_how_it_was_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--name", "a", "--seed", "3") == 0
    run = home() / "a"
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    about = json.loads((run / "run.json").read_text())
    assert about["package"] == "toy-package"
    assert {"python", "torch", "accelerate", "shared-core"} <= set(about["versions"])
    assert (run / "report.html").is_file()
    assert capsys.readouterr().out.splitlines()[-1] == str(run / "report.html")
    stored = APP.load(run / "config.yaml")
    assert (stored.name, stored.seed, stored.training.epochs) == ("a", 3, 1)


def test_a_finished_run_is_left_alone() -> None:
    assert train() == 0
    before = (home() / "default" / "metrics.jsonl").read_bytes()
    assert train() == 0
    assert (home() / "default" / "metrics.jsonl").read_bytes() == before
    assert runs.locate(APP, APP.load(None)).name == "default-2"


def test_a_failure_is_noted_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--data.nan-at", "2") == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("error: ")] == [lines[-1]]
    status = json.loads((home() / "default" / "status.json").read_text())
    assert status["state"] == "failed"
    assert lines[-1] == f"error: {status['reason']}"


def test_a_run_goes_on_only_with_its_own_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--epochs", "3", "--data.nan-at", "5") == 2  # ends in the third epoch, with two checkpoints
    before = (home() / "default" / "config.yaml").read_bytes()
    capsys.readouterr()
    assert train("--epochs", "3", "--lr", "0.5", "--seed", "1") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: runs/toy-package/default: was started with another configuration (")
    assert "(seed: 0 -> 1; optimizer.lr: 0.001 -> 0.5)" in line
    assert "--resume never" in line
    assert (home() / "default" / "config.yaml").read_bytes() == before
    assert train("--epochs", "3", "--lr", "0.5", "--resume", "never") == 0
    assert (home() / "default-2" / "report.html").is_file()


def test_settings_may_change_before_there_is_anything_to_go_on_from() -> None:
    assert train("--data.nan-at", "2") == 2
    assert train("--lr", "0.5") == 0
    assert not (home() / "default-2").exists()


def test_a_run_goes_on_only_with_what_it_was_made_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which may have been moved, but not changed; and what is to be said about it stands in the log."""
    made_from = {"data.noise": {"path": "there/noise", "sha256": "12ab"}}
    monkeypatch.setattr(toy.ToyTask, "made_from", lambda self: made_from)
    monkeypatch.setattr(toy.ToyTask, "warnings", lambda self: ["it is too quiet"])
    stopping = ("--epochs", "3", "--data.nan-at", "5")
    assert train(*stopping) == 2
    run = records.RunDir(home() / "default")
    assert run.read_run()["made_from"] == made_from
    assert [line.split(" ", 1)[1] for line in records.read_warnings(run)] == ["it is too quiet"]
    made_from["data.noise"] = {"path": "here/noise", "sha256": "34cd"}
    capsys.readouterr()
    assert train(*stopping) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "data.noise: here/noise has changed since the run was started; restore it, or" in line
    made_from["data.noise"] = {"path": "here/noise", "sha256": "12ab"}
    assert train(*stopping) == 2
    assert "has changed" not in capsys.readouterr().err
    assert run.read_run()["made_from"] == made_from


def test_missing_data_leaves_no_run_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(config: Any, runtime: Any) -> None:
        raise UserError("data/x.npz: no such file; run prepare")

    monkeypatch.setattr(toy, "build_task", broken)
    assert train() == 2
    assert not Path("runs").exists()


def interrupt_after(monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> None:
    """Press Ctrl-C once, right after that function: like SIGTERM, but it spares the test run where nobody listens."""
    function = getattr(where, name)

    def interrupted(*args: Any, **more: Any) -> Any:
        result = function(*args, **more)
        monkeypatch.setattr(where, name, function)
        os.kill(os.getpid(), signal.SIGINT)
        return result

    monkeypatch.setattr(where, name, interrupted)


@pytest.mark.parametrize(("where", "name"), [(runs, "open_for_training"), (trainer.Trainer, "__init__")])
def test_signal_before_the_first_step_is_not_lost(monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> None:
    interrupt_after(monkeypatch, where, name)
    assert train("--epochs", "2") == EXIT_PREEMPTED
    status = records.RunDir(home() / "default").read_status()
    assert (status["state"], status["step"]) == ("preempted", 1)
    assert train("--epochs", "2") == 0
    assert records.RunDir(home() / "default").read_status()["state"] == "finished"


def test_signal_before_there_is_a_run_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_after(monkeypatch, toy, "build_task")
    assert train() == 130
    assert not Path("runs").exists()


def test_signal_after_the_last_step_leaves_a_whole_report(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_after(monkeypatch, trainer, "train")
    assert train() == 0
    assert records.RunDir(home() / "default").read_status()["state"] == "finished"
    assert (home() / "default" / "report.html").is_file()


def test_evaluate_uses_the_configuration_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--name", "a", "--seed", "7") == 0
    assert train("--name", "b", "--data.rows", "48") == 0
    assert APP.main(["predict", "--name", "a"]) == 0
    assert (CALLS[-1][1].seed, CALLS[-1][1].data.rows) == (7, 32)
    assert APP.main(["predict", "--run", "b", "--runtime.threads", "1"]) == 0
    assert (CALLS[-1][1].data.rows, CALLS[-1][1].runtime.threads) == (48, 1)
    step = next((home() / "b" / "checkpoints").glob("step-*"))
    assert APP.main(["predict", "--checkpoint", str(step)]) == 0
    assert CALLS[-1][1].data.rows == 48
    Path("other.yaml").write_text("data: {rows: 5}\n")
    assert APP.main(["predict", "--run", "b", "--config", "other.yaml"]) == 0
    assert CALLS[-1][1].data.rows == 5

    assert APP.main(["evaluate", "--name", "a"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(home() / "a" / "evaluation" / "val.json")
    found = json.loads((home() / "a" / "evaluation" / "val.json").read_text())
    assert found["metrics"]["loss"]["value"] == records.read_metrics(home() / "a")[-1]["val/loss"]


def test_runs_that_are_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert APP.main(["evaluate"]) == 2
    assert capsys.readouterr().err == (
        "error: runs/toy-package/default: no such run; train one: toy train --name default\n"
    )
    assert train("--name", "first") == 0
    capsys.readouterr()
    for argv, line in [
        (["evaluate", "--run", "frist"], "runs/toy-package/frist: no such run (did you mean first?); there are first"),
        (["report", "firs"], "runs/toy-package/firs: no such run (did you mean first?); there are first"),
        (["evaluate", "--run", "./x"], "x: no such folder"),
        (["evaluate", "--run", "first", "--checkpoint", "first"], "first: "),
    ]:
        assert APP.main(argv) == 2
        assert capsys.readouterr().err.startswith(f"error: {line}")


def test_setting_that_is_gone_from_the_code_is_named_with_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--name", "old") == 0
    path = home() / "old" / "config.yaml"
    path.write_text(path.read_text().replace("training:\n", "training:\n  warp: 0.9\n", 1))
    line = path.read_text().splitlines().index("  warp: 0.9") + 1
    capsys.readouterr()
    assert APP.main(["evaluate", "--run", "old"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"error: {path}:{line}: training.warp: ")
    assert APP.main(["report", "old"]) == 0  # shows what was written down


def test_run_called_by_a_number_is_not_taken_for_the_newest_of_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--name", "exp-7") == 0
    capsys.readouterr()
    assert APP.main(["predict", "--name", "exp", "--print-config"]) == 0  # needs no run
    assert APP.main(["evaluate", "--name", "exp"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: runs/toy-package/exp: no such run")
    for _ in range(2):
        assert train("--name", "exp") == 0
    assert {path.name for path in home().iterdir()} == {"exp-7", "exp", "exp-2"}
    assert runs.locate(APP, APP.load(None, {"name": "exp"})).name == "exp-2"


def test_a_training_that_has_not_finished_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    said = "its training has not finished (failed)"
    assert train("--epochs", "3", "--data.nan-at", "5") == 2
    assert APP.main(["evaluate"]) == 0
    assert said in capsys.readouterr().err
    assert train("--name", "whole") == 0
    assert APP.main(["evaluate", "--name", "whole"]) == 0
    assert "not finished" not in capsys.readouterr().err


def test_checkpoints_that_are_all_damaged_are_not_called_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--name", "a", "--epochs", "2") == 0
    checkpoints = home() / "a" / "checkpoints"
    (checkpoints / "step-2" / "manifest.json").write_text("{")
    (checkpoints / "step-4" / "model.safetensors").unlink()
    for which, reasons in {
        "latest": "step-2: manifest.json is damaged; step-4: model.safetensors is missing",
        "best": "step-4: model.safetensors is missing",  # the best one is known, and asked for
    }.items():
        capsys.readouterr()
        assert APP.main(["evaluate", "--name", "a", "--checkpoint", which]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert reasons in line, line
        assert "train it first" not in line


def test_report_compares_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--name", "a") == train("--name", "b") == 0
    capsys.readouterr()
    assert APP.main(["report", "a", str(home() / "b"), "--out", "both"]) == 0
    assert capsys.readouterr().out == "both/report.html\n"
    assert Path("both/report.md").is_file()


def test_plan_for_a_named_gpu_asks_nothing_of_the_device_that_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--gpu", "V100", "--steps", "0", "--runtime.precision", "fp16", "--runtime.device", "cuda"]
    assert APP.main(["plan", "--batch-size", "8", *flags]) == 0
    assert "V100 (not here), fp16" in capsys.readouterr().out


def test_plan_prints_a_table_and_writes_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert APP.main(["plan", *SMALL, "--steps", "1", "--json-file", "plan.json"]) == 0
    assert "parameters" in capsys.readouterr().out
    assert json.loads(Path("plan.json").read_text())["parameters"] == 161
    assert not Path("runs").exists()


def test_push_and_pull_hand_over_what_was_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(hub, "push", lambda *args, **more: calls.append((args, more)) or "https://hub/a/b")
    monkeypatch.setattr(hub, "pull", lambda *args, **more: calls.append((args, more)) or args[1])
    monkeypatch.setattr(hub, "fetch", lambda *args, **more: calls.append((args, more)) or args[1] / "b")
    assert train("--name", "x") == 0
    capsys.readouterr()
    assert APP.main(["push", "a/b", "--run", "x", "--private", "false", "--tag", "v1"]) == 0
    assert APP.main(["pull", "a/b", "--revision", "v1"]) == 0
    assert APP.main(["pull", "a/b@v1", "--folder", "mine"]) == 0
    assert capsys.readouterr().out.splitlines() == ["https://hub/a/b", "runs/toy-package/b", "mine"]
    assert calls == [
        ((home() / "x", "a/b"), {"private": False, "tag": "v1", "checkpoint": "best"}),
        (("a/b", home()), {"revision": "v1"}),
        (("a/b@v1", Path("mine")), {"revision": None}),
    ]


def test_an_unwritable_place_for_runs(capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs").write_text("a file where a folder belongs")
    assert train() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: runs/toy-package")


def test_demo_runs_the_whole_chain_and_ends_with_the_number(capsys: pytest.CaptureFixture[str]) -> None:
    own = (*OWN, Verb("evaluate", f"{__name__}:evaluate", "evaluates", "shared_core.runs:RunOptions"))
    app = App("toy", "toy-package", "toy", "A toy.", "toy:Config", "toy:build_task", "accuracy", own)
    for number in ("demo", "demo-2"):
        assert app.main(["demo", *SMALL]) == 0
        assert capsys.readouterr().out.splitlines() == [  # the report once, though three verbs write it
            "",
            f"report: {home() / number / 'report.html'}",
            "accuracy on test: 0.900 [0.800, 0.950] (n=100, Wilson 95 %)",
            "  baseline guessing: 0.500 [0.400, 0.600] (n=100, Wilson 95 %)",
        ]
        assert [(name, options) for name, _, options in CALLS] == [
            ("prepare", PrepareOptions(sample=True)),
            ("predict", RunOptions(run=str(home() / number))),
        ]
        CALLS.clear()


def test_demo_stops_where_a_step_fails(capsys: pytest.CaptureFixture[str]) -> None:
    own = (*OWN, Verb("evaluate", f"{__name__}:failing", "fails", "shared_core.runs:RunOptions"))
    app = App("toy", "toy-package", "toy", "A toy.", "toy:Config", "toy:build_task", "accuracy", own)
    assert app.main(["demo", *SMALL]) == 4
    assert capsys.readouterr().out == "no such split\n"  # what it had to say
    assert [name for name, _, _ in CALLS] == ["prepare"]


def test_print_config_of_a_run_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--name", "a", "--seed", "7") == 0
    capsys.readouterr()
    assert APP.main(["evaluate", "--name", "a", "--print-config"]) == 0
    printed = yamlfile.parse(capsys.readouterr().out).data
    assert printed == config.to_dict(APP.load(home() / "a" / "config.yaml"))
