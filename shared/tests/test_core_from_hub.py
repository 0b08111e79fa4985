"""Published runs used by name: evaluate, export and whatever takes a run, and weights that a training begins with."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
import yaml
from hub_runs import REPO, environment
from hub_server import TOKEN, Hub
from toy import starts

from shared_core import checkpoint, hub, hubnotes, runs, tensorfile
from shared_core.checkpoint import load_weights
from shared_core.cli import App, Verb
from shared_core.runs import RunOptions

pytest_plugins = ("hub_fixtures",)

SMALL = ("--epochs", "1", "--batch-size", "16", "--tracker", "none", "--device", "cpu", "--data.rows", "32")
HOME = Path("runs/toy-package")


def scale(app: App, config: Any, options: RunOptions) -> None:
    """A verb that needs what was fitted on the training data."""
    print(json.loads((runs.locate(app, config, options).preprocessing / "scaler.json").read_text())["mean"])


OWN = (Verb("predict", f"{__name__}:scale", "scales", "shared_core.runs:RunOptions"),)
APP = App("toy", "toy-package", "toy", "A toy.", "toy:Config", "toy:build_task", "loss", OWN)


@pytest.fixture
def published(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run `mine` with settings of its own, published as ada/digits; we are in its folder."""
    monkeypatch.chdir(tmp_path)
    assert APP.main(["train", "--name", "mine", "--seed", "7", "--data.noise", "0.3", *SMALL]) == 0
    (HOME / "mine" / "preprocessing").mkdir()
    (HOME / "mine" / "preprocessing" / "scaler.json").write_text('{"mean": 2.5}')
    assert APP.main(["push", REPO, "--run", "mine"]) == 0
    return HOME / "mine"


def metrics(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "evaluation" / "val.json").read_text())["metrics"]
    return found


def line_of(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line in which a command line is refused."""
    capsys.readouterr()
    assert APP.main(argv) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_published_run_is_evaluated_with_its_own_settings(server: Hub, published: Path) -> None:
    assert APP.main(["evaluate", "--run", "mine"]) == 0
    assert APP.main(["evaluate", "--from-hub", f"{REPO}@step-2", "--device", "cpu"]) == 0
    fetched = HOME / "digits"
    assert metrics(fetched) == metrics(published)
    assert (fetched / "config.yaml").read_bytes() == server.repo(REPO).files()["config.yaml"]
    assert hubnotes.last(fetched)["commit"] == server.repo(REPO).tags["step-2"]


def test_published_configuration_names_neither_folders_nor_the_publisher(server: Hub, published: Path) -> None:
    content = yaml.safe_load(server.repo(REPO).files()["config.yaml"])
    assert {"paths", "hub"} & content.keys() == set()
    whole = yaml.safe_load((published / "config.yaml").read_text())
    assert content == {key: value for key, value in whole.items() if key not in ("paths", "hub")}


def test_export_and_a_verb_that_needs_preprocessing(
    server: Hub, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert APP.main(["export", "--from-hub", REPO, "--out", "w.pt"]) == 0
    exported = torch.load("w.pt", weights_only=True)["model_state_dict"]
    expected = load_weights(published)
    assert [name for name in expected if not torch.equal(exported[name], expected[name])] == []
    capsys.readouterr()
    assert APP.main(["predict", "--from-hub", REPO]) == 0
    assert capsys.readouterr().out == "2.5\n"


def test_print_config_is_that_of_the_published_run(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert APP.main(["evaluate", "--from-hub", REPO, "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["data"]["noise"] == 0.3


def test_what_is_there_is_not_fetched_again_and_serves_offline(
    server: Hub, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    assert APP.main(["predict", "--from-hub", REPO]) == 0
    server.requests.clear()
    assert APP.main(["predict", "--from-hub", REPO]) == 0
    assert server.count("/resolve/|/cdn/") == 0
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.requests.clear()
    assert APP.main(["predict", "--from-hub", REPO]) == 0
    assert server.requests == []


def test_branch_may_move_while_a_command_runs(
    server: Hub, published: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is looked up once: settings and weights are of one version."""
    looked: list[str] = []
    commit = hub.commit
    monkeypatch.setattr(hub, "commit", lambda *a, **more: looked.append(a[0]) or commit(*a, **more))
    assert APP.main(["predict", "--from-hub", REPO]) == 0
    looked.clear()
    assert APP.main(["predict", "--from-hub", REPO]) == 0
    assert looked == [REPO]


def test_versions_and_runs_of_one_name_lie_beside_each_other(server: Hub, published: Path) -> None:
    (HOME / "digits").mkdir()
    (HOME / "digits" / "status.json").write_text("{}")  # somebody's own run
    assert APP.main(["predict", "--from-hub", f"{REPO}@step-2"]) == 0
    assert APP.main(["train", "--name", "other", *SMALL]) == 0
    (HOME / "other" / "preprocessing").mkdir()
    (HOME / "other" / "preprocessing" / "scaler.json").write_text('{"mean": 3.5}')
    assert APP.main(["push", REPO, "--run", "other"]) == 0
    assert APP.main(["predict", "--from-hub", REPO]) == 0
    commits = server.repo(REPO).tags
    names = {path.name for path in HOME.iterdir()}
    assert names == {"mine", "other", "digits"} | {f"digits@{commits[t][:12]}" for t in ("step-2", "step-2-2")}
    assert APP.main(["predict", "--run", f"digits@{commits['step-2'][:12]}"]) == 0


def test_run_that_was_pushed_is_not_taken_for_the_published_one(server: Hub, published: Path) -> None:
    """It may have been trained further since."""
    published.rename(HOME / "digits")
    folder = hub.fetch(REPO, HOME)
    assert folder.name == f"digits@{server.repo(REPO).refs['main'][:12]}"


def test_fetched_weights_that_were_changed_are_noticed(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert APP.main(["predict", "--from-hub", REPO]) == 0
    path = HOME / "digits" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    assert "model.safetensors is missing or differs" in line_of(capsys, "predict", "--from-hub", REPO)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("0.bias"), "0.bias is missing"),
        (lambda w: w.update({"9.bias": torch.zeros(1)}), "9.bias is not the model's"),
        (lambda w: w.update({"0.weight": torch.zeros(3, 6)}), "0.weight is [3, 6], not [16, 6]"),
    ],
)
def test_weights_are_loaded_strictly(
    server: Hub, published: Path, capsys: pytest.CaptureFixture[str], change: Any, said: str
) -> None:
    """Even where a repository is consistent in itself."""
    weights = load_weights(published)
    change(weights)
    state = checkpoint.State(model=weights)
    checkpoint.Checkpoints(published / "checkpoints").save(3, state, config_digest="d", topology={}, best=True)
    assert APP.main(["push", REPO, "--run", "mine"]) == 0
    line = line_of(capsys, "evaluate", "--from-hub", f"{REPO}@step-3")
    assert "do not fit the configuration's model" in line
    assert said in line
    line = line_of(capsys, "train", "--name", "fine", "--training.init_from", f"{REPO}@step-3", *SMALL)
    assert said in line
    assert not (HOME / "fine").exists()


def test_push_without_a_name_goes_to_ones_own(
    server: Hub, published: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert APP.main(["push", "--run", "mine"]) == 0
    assert "/ada/toy-package-mine/tree/step-" in capsys.readouterr().out
    monkeypatch.setenv("HF_TOKEN", "another")
    assert "push without OWNER/NAME: no such repository, or no access" in line_of(capsys, "push", "--run", "mine")
    monkeypatch.delenv("HF_TOKEN")
    assert "there is no token that says who you are; run `hf auth login`" in line_of(capsys, "push", "--run", "mine")


def test_which_run_is_said_once(server: Hub, published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.requests.clear()
    assert "give one of them" in line_of(capsys, "evaluate", "--from-hub", REPO, "--run", "mine")
    assert "give one of them" in line_of(capsys, "evaluate", "--from-hub", REPO, "--checkpoint", str(published))
    assert "the revision is missing" in line_of(capsys, "evaluate", "--from-hub", f"{REPO}@")
    assert "OWNER/NAME" in line_of(capsys, "evaluate", "--from-hub", "digits")
    assert "two revisions" in line_of(capsys, "pull", f"{REPO}@a", "--revision", "b")
    assert server.requests == []
    assert "there is no such revision" in line_of(capsys, "evaluate", "--from-hub", f"{REPO}@v9")


def test_pull_takes_the_revision_either_way(server: Hub, published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert APP.main(["pull", f"{REPO}@step-2", "--folder", "a"]) == 0
    assert APP.main(["pull", REPO, "--revision", "step-2", "--folder", "b"]) == 0
    assert APP.main(["pull", f"{REPO}@step-2"]) == 0
    assert capsys.readouterr().out.splitlines() == ["a", "b", str(HOME / "digits")]
    assert Path("a/model.safetensors").read_bytes() == Path("b/model.safetensors").read_bytes()
    assert hubnotes.last(Path("a"))["revision"] == hubnotes.last(Path("b"))["revision"] == "step-2"


def test_commands_that_the_card_shows_work(server: Hub, published: Path, tmp_path: Path) -> None:
    card = server.repo(REPO).files()["README.md"].decode()
    shown = re.search(r"^```\n(python -m .*?)```", card, re.MULTILINE | re.DOTALL)
    assert shown is not None
    [evaluate, predict] = shown[1].splitlines()
    assert predict == f"python -m toy predict --from-hub {REPO}"  # the toy itself has no such verb
    tests = str(Path(__file__).parent)
    given = {**os.environ, **environment(server, tmp_path), "PYTHONPATH": tests, "OMP_NUM_THREADS": "1"}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, *shlex.split(evaluate)[1:]], cwd=elsewhere, env=given, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert metrics(elsewhere / HOME / "digits").keys() == {"loss"}
    [revision] = re.findall(rf"`--from-hub ({REPO})@REVISION`", card)
    assert revision == REPO


# ---- training that begins with published weights


def first_weights(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The model's weights at each call of its loss from now on."""
    seen: list[dict[str, torch.Tensor]] = []
    loss = toy.ToyTask.loss

    def recorded(self: Any, model: Any, batch: Any) -> Any:
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return loss(self, model, batch)

    monkeypatch.setattr(toy.ToyTask, "loss", recorded)
    return seen


def first_loss(run: Path) -> float:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return float(next(row["train/loss"] for row in rows if "train/loss" in row))


@pytest.mark.parametrize("source", ["hub", "run", "name", "checkpoint", "file"])
def test_training_begins_with_the_weights_it_is_given(
    server: Hub, published: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    expected = load_weights(published)
    tensorfile.write(Path("w.safetensors"), expected)
    given = {"hub": f"{REPO}@step-2", "run": str(published), "name": published.name, "file": "w.safetensors"}
    given["checkpoint"] = str(next((published / "checkpoints").glob("step-2")))
    seen = first_weights(monkeypatch)
    flags = ["--name", "fine", "--logging.every", "1", "--training.init_from", given[source], *SMALL]
    assert APP.main(["train", *flags]) == 0
    assert [name for name in expected if not torch.equal(seen[0][name], expected[name])] == []
    about = json.loads((HOME / "fine" / "run.json").read_text())["init_from"]
    if source == "hub":
        assert (about["source"], about["commit"]) == (given["hub"], server.repo(REPO).tags["step-2"])
    else:
        assert about == {"source": str((published if source == "name" else Path(given[source])).resolve())}
    # and its first loss is the one that the same model has on the same batch
    begin = toy.ToyTask.__init__

    def trained(self: Any, *arguments: Any) -> None:
        begin(self, *arguments)
        self.model.load_state_dict(expected)

    monkeypatch.setattr(toy.ToyTask, "__init__", trained)
    assert APP.main(["train", "--name", "same", "--logging.every", "1", *SMALL]) == 0
    assert first_loss(HOME / "fine") == first_loss(HOME / "same")
    monkeypatch.setattr(toy.ToyTask, "__init__", begin)
    assert APP.main(["train", "--name", "fresh", "--logging.every", "1", *SMALL]) == 0
    assert first_loss(HOME / "fine") != first_loss(HOME / "fresh")


def test_resume_goes_on_from_its_checkpoint_and_asks_for_no_other_weights(
    server: Hub, published: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--name", "fine", "--epochs", "3", "--batch-size", "16", "--data.rows", "32", "--tracker", "none"]
    begin = ["--training.init_from", f"{REPO}@step-2"]
    assert APP.main(["train", *flags, *begin, "--data.nan-at", "4"]) == 2  # in the second epoch
    server.requests.clear()
    seen = first_weights(monkeypatch)
    line = line_of(capsys, "train", *flags, "--training.init_from", str(published))
    assert "training.init_from:" in line
    assert "was started with another configuration" in line
    assert APP.main(["train", *flags, *begin]) == 0
    assert server.requests == []
    assert (HOME / "fine" / "checkpoints" / "step-6").exists()
    assert any(not torch.equal(seen[0][name], tensor) for name, tensor in load_weights(published).items())


def test_weights_to_begin_with_must_be_there(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = line_of(capsys, "train", "--name", "fine", "--training.init_from", "runs/typo", *SMALL)
    assert "runs/typo: no such run, checkpoint or file; for one on the Hub write OWNER/NAME@REVISION" in line
    line = line_of(capsys, "train", "--name", "fine", "--training.init_from", "ada/nothing@v1", *SMALL)
    assert "no such repository" in line
    assert not (HOME / "fine").exists()
    assert APP.main(["train", "--name", "fine", *SMALL]) == 0  # nothing was trained, so nothing is in the way


@pytest.mark.slow
def test_two_processes_begin_with_the_same_weights(published: Path, tmp_path: Path) -> None:
    """The evaluation is over both processes' shares: it is that of the weights only if both have them."""
    frozen = ["--optimizer.name", "adamw", "--lr", "1e-30", "--optimizer.weight_decay", "0", "--epochs", "1"]
    frozen += ["--training.init_from", str(published), "--data.rows", "32"]
    statuses, outputs = starts.train_two(tmp_path / "two", *frozen)
    assert statuses == [0, 0], outputs
    got, expected = toy.weights(starts.run_folder(tmp_path / "two")), load_weights(published)
    [(_, loss)] = starts.evaluations(tmp_path / "two")
    assert APP.main(["evaluate", "--run", str(starts.run_folder(tmp_path / "two"))]) == 0
    assert metrics(starts.run_folder(tmp_path / "two"))["loss"]["value"] == pytest.approx(loss, rel=1e-5)
    learned = [name for name in expected if "running" not in name and "num_batches" not in name]
    assert [name for name in learned if not torch.equal(got[name], expected[name])] == []
    assert TOKEN not in "".join(outputs)
