"""The standard verbs, run as commands on the toy package."""

import json
from pathlib import Path
from typing import Any

import pytest
import toy
from pydantic import Field

from shared_core import config, hub, records, runs, yamlfile
from shared_core.cli import App, Verb
from shared_core.errors import UserError
from shared_core.runs import RunOptions
from shared_core.settings import Section

CALLS: list[tuple[str, Any, Any]] = []


class PrepareOptions(Section):
    sample: bool = Field(False, description="the embedded sample")


def prepare(app: App, config: Any, options: PrepareOptions) -> None:
    CALLS.append(("prepare", config, options))


def predict(app: App, config: Any, options: RunOptions) -> None:
    CALLS.append(("predict", config, options))


def failing(app: App, config: Any, options: RunOptions) -> int:
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


def test_missing_data_leaves_no_run_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(config: Any, runtime: Any) -> None:
        raise UserError("data/x.npz: no such file; run prepare")

    monkeypatch.setattr(toy, "build_task", broken)
    assert train() == 2
    assert not Path("runs").exists()


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


def test_report_compares_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--name", "a") == train("--name", "b") == 0
    capsys.readouterr()
    assert APP.main(["report", "a", str(home() / "b"), "--out", "both"]) == 0
    assert capsys.readouterr().out == "both/report.html\n"
    assert Path("both/report.md").is_file()


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
    assert train("--name", "x") == 0
    capsys.readouterr()
    assert APP.main(["push", "a/b", "--run", "x", "--private", "false", "--tag", "v1"]) == 0
    assert APP.main(["pull", "a/b", "--revision", "v1"]) == 0
    assert capsys.readouterr().out.splitlines() == ["https://hub/a/b", "runs/toy-package/b"]
    assert calls == [
        ((home() / "x", "a/b"), {"private": False, "tag": "v1"}),
        (("a/b", home() / "b"), {"revision": "v1"}),
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
        assert capsys.readouterr().out.splitlines()[-4:] == [
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


def test_demo_stops_where_a_step_fails() -> None:
    own = (*OWN, Verb("evaluate", f"{__name__}:failing", "fails", "shared_core.runs:RunOptions"))
    app = App("toy", "toy-package", "toy", "A toy.", "toy:Config", "toy:build_task", "accuracy", own)
    assert app.main(["demo", *SMALL]) == 4
    assert [name for name, _, _ in CALLS] == ["prepare"]


def test_print_config_of_a_run_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--name", "a", "--seed", "7") == 0
    capsys.readouterr()
    assert APP.main(["evaluate", "--name", "a", "--print-config"]) == 0
    printed = yamlfile.parse(capsys.readouterr().out).data
    assert printed == config.to_dict(APP.load(home() / "a" / "config.yaml"))
