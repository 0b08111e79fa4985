"""Publishing and fetching runs with several models, each in a folder of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy
import yaml
from hub_runs import REPO, make_run
from hub_server import Hub
from torch import nn

from shared_core import config as configuration
from shared_core import files, hub, hubnotes, publication, records, report, runs, tensorfile
from shared_core.cli import App
from shared_core.errors import UserError
from shared_core.publisher import Publisher
from shared_core.records import RunDir
from shared_core.settings import Hub as Wanted
from shared_core.settings import RunConfig, Training

pytest_plugins = ("hub_fixtures",)

CONFIG = {
    "seed": 7,
    "paths": {"data": "/elsewhere/data"},
    "hub": {"repo": REPO},
    "model": {"width": 2},
    "data": {"path": "/elsewhere/mnist.npz", "more": ["~/elsewhere/a.csv", "a/b.csv"]},
}
OF_A_MODEL = ("config.yaml", "metrics.json", "model.safetensors", "trained_on.npz")


@pytest.fixture
def several(run: RunDir) -> RunDir:
    """A run whose training made two models."""
    for number, name in enumerate(("fpn", "plain"), start=1):
        keep(run, name, number)
    run.write_run({**run.read_run(), "several": True})
    return run


@pytest.fixture
def stacked(several: RunDir) -> RunDir:
    """Models of several trainings, and what was fitted on top of them."""
    shutil.rmtree(several.checkpoints)
    several.preprocessing.mkdir()
    (several.preprocessing / "stacker.json").write_text('{"method": "mean"}')
    path = several.evaluation / "val.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"checkpoint": "mean", "notes": ["Stacking uses the mean: nothing gains."]}))
    return several


def keep(run: RunDir, name: str, number: int) -> None:
    """A saved model with 3 numbers, or as many more as `number` says."""
    path = run.models / name
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump({"name": name, **CONFIG}))
    tensorfile.write(path / "model.safetensors", {"w": torch.full((2 + number,), float(number))}, {"config": "digest"})
    (path / "metrics.json").write_text(json.dumps({"best_val_acc": float("nan"), "config": {"name": name, **CONFIG}}))
    np.savez_compressed(path / "trained_on.npz", ids=np.array([f"image-{number}"]))
    (path / "evaluation").mkdir()
    (path / "notes.txt").write_text("private notes")


def published(server: Hub) -> dict[str, bytes]:
    return server.repo(REPO).files()


def test_each_model_is_published_whole_and_nothing_else(server: Hub, several: RunDir) -> None:
    np.savez_compressed(several.path / "trained_on.npz", ids=np.array(["image-1"]))
    assert hub.push(several.path, REPO).endswith("/step-120")
    nested = [f"models/{name}/{file}" for name in ("fpn", "plain") for file in OF_A_MODEL]
    top = ["README.md", "SHA256SUMS", "config.yaml", "evaluation/val.json", "figures/curves.png", "metrics.jsonl"]
    assert sorted(published(server)) == sorted([*top, *nested, "trained_on.npz"])
    for name in ("fpn", "plain"):  # whatever combines them knows them by their checksums
        path = several.models / name / "model.safetensors"
        assert published(server)[f"models/{name}/model.safetensors"] == path.read_bytes()
    assert hubnotes.last(several.path)["checkpoint"] == "step-120"


def test_configurations_of_models_say_nothing_of_this_machine(server: Hub, several: RunDir) -> None:
    hub.push(several.path, REPO)
    own_names = {"path": "mnist.npz", "more": ["a.csv", "a/b.csv"]}
    expected = {"name": "fpn", "seed": 7, "model": {"width": 2}, "data": own_names}
    assert yaml.safe_load(published(server)["models/fpn/config.yaml"]) == expected
    about = json.loads(published(server)["models/fpn/metrics.json"])
    assert about["config"] == expected and np.isnan(about["best_val_acc"])
    assert not [name for name, data in published(server).items() if b"elsewhere" in data]


def test_weights_belong_to_a_configuration_wherever_its_files_lie() -> None:
    here, there = (
        RunConfig(training=Training(init_from="/here/w.safetensors")),
        RunConfig(training=Training(init_from="w.safetensors")),
    )
    assert configuration.digest(here) == configuration.digest(there)
    other = RunConfig(training=Training(init_from="/here/v.safetensors"))
    assert configuration.digest(other) != configuration.digest(here)


def test_card_says_which_models_there_are_and_what_was_measured(server: Hub, stacked: RunDir) -> None:
    from huggingface_hub import ModelCard

    hub.push(stacked.path, REPO)
    text = published(server)["README.md"].decode()
    assert "Run `fast` of the package `pair-compare-stacking`: 2 models, 7 numbers together." in text
    assert "| fpn | 3 |\n| plain | 4 |" in text
    assert "* Measured: what `mean` answers." in text and "Stacking uses the mean: nothing gains." in text
    assert "while the weights here are those of" not in text
    assert f"evaluate --from-hub {REPO}\n" in text and "Weights are in `models/NAME/model.safetensors`" in text
    assert "evaluate --run runs/pair-compare-stacking/digits/models/fpn`" in text
    assert "repeats the training" not in text  # it was more than one
    [result] = ModelCard(text, ignore_metadata_errors=False).data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.893)


def test_card_of_models_that_one_training_made(server: Hub, several: RunDir) -> None:
    hub.push(several.path, REPO)
    text = published(server)["README.md"].decode()
    assert ": step 120, 2 models, 7 numbers together." in text
    assert "train --config config.yaml --name fast` repeats the training" in text


def test_version_without_a_step_has_a_tag_of_its_own(server: Hub, stacked: RunDir) -> None:
    assert hub.push(stacked.path, REPO).endswith("/version")
    assert hub.push(stacked.path, REPO).endswith("/version")
    keep(stacked, "third", 3)
    assert hub.push(stacked.path, REPO).endswith("/version-2")
    assert "checkpoint" not in hubnotes.last(stacked.path)


def test_several_models_take_the_place_of_one(server: Hub, several: RunDir, tmp_path: Path) -> None:
    hub.push(make_run(tmp_path / "runs" / "pair-compare-stacking" / "single").path, REPO)
    assert "model.safetensors" in published(server)
    hub.push(several.path, REPO)
    assert "model.safetensors" not in published(server)
    hub.pull(REPO, tmp_path / "pulled")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: run.status("running"), "when all have been trained (its state is running)"),
        (lambda run: run.status("preempted"), "its state is preempted); repeat the command it began with"),
        (lambda run: files.remove(run.models), "its models are missing; train on with --resume"),
        (lambda run: (run.models / "fpn" / "model.safetensors").unlink(), "models/fpn: has no model.safetensors of"),
        (lambda run: (run.models / "fpn" / "config.yaml").unlink(), "models/fpn: has no config.yaml of its own"),
        (lambda run: (run.models / "fpn" / "model.safetensors").write_bytes(b"torn"), "models/fpn/model.safetensors"),
        (lambda run: (run.models / "fpn" / "metrics.json").write_text("[]"), "models/fpn/metrics.json: is damaged"),
        (lambda run: (run.models / "fpn" / "config.yaml").write_text("a: b: c"), "models/fpn/config.yaml"),
    ],
)
def test_models_are_published_all_or_none(
    server: Hub, several: RunDir, change: Callable[[RunDir], object], said: str
) -> None:
    change(several)
    with pytest.raises(UserError) as caught:
        hub.push(several.path, REPO)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert server.requests == []


def test_only_the_last_weights_of_several_models_are_published(server: Hub, several: RunDir) -> None:
    hub.push(several.path, REPO, checkpoint="latest")
    with pytest.raises(UserError, match="several models, of which the last weights count"):
        hub.push(several.path, REPO, checkpoint=str(several.checkpoints / "step-120"))
    with pytest.raises(UserError, match="is one of several models; push the run that holds them"):
        hub.push(several.models / "fpn", REPO)


def test_token_in_a_model_s_file_stops_the_push(server: Hub, several: RunDir) -> None:
    path = several.models / "fpn" / "metrics.json"
    path.write_text(path.read_text().replace('"fpn"', f'"hf_{"a1B2" * 9}"'))
    with pytest.raises(UserError, match=r"models/fpn/metrics\.json: holds an access token"):
        hub.push(several.path, REPO)


def test_models_come_back(server: Hub, stacked: RunDir, tmp_path: Path) -> None:
    hub.push(stacked.path, REPO)
    pulled = records.find(hub.pull(REPO, tmp_path / "pulled"))
    for name in ("fpn", "plain"):
        for file in ("model.safetensors", "trained_on.npz"):
            assert (pulled.models / name / file).read_bytes() == (stacked.models / name / file).read_bytes()
        assert runs.checkpoint(RunDir(pulled.models / name), "best") == pulled.models / name
    assert pulled.read_status()["state"] == "finished"
    assert hub.pull(REPO, pulled.path) == pulled.path  # again: nothing to do
    with pytest.raises(UserError, match="came from the Hub; push the run it was published from"):
        hub.push(pulled.path, "ada/other")
    with pytest.raises(UserError, match=r"holds several models \(fpn, plain\); give one of them, such as --run .*fpn"):
        runs.checkpoint(pulled, "best")


def test_what_is_made_of_pulled_models_may_be_published(server: Hub, several: RunDir, tmp_path: Path) -> None:
    hub.push(several.path, REPO)
    pulled = records.find(hub.pull(REPO, tmp_path / "runs" / "pulled"))
    pulled.preprocessing.mkdir(exist_ok=True)
    (pulled.preprocessing / "stacker.json").write_text("{}")
    pulled.write_run({"package": "pair-compare-stacking"})  # as whatever works on a run does
    hub.push(pulled.path, "ada/other")
    again = hub.pull("ada/other", tmp_path / "again")
    assert (again / "preprocessing" / "stacker.json").is_file()


@pytest.mark.parametrize("file", OF_A_MODEL)
@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_damaged_or_missing_file_of_a_model_is_named(
    server: Hub, several: RunDir, tmp_path: Path, file: str, how: str
) -> None:
    hub.push(several.path, REPO)
    repo, name = server.repo(REPO), f"models/plain/{file}"
    content = repo.files()
    damaged = {name: content.pop(name)[:-1] + b"\x01"}
    server.commit(repo, content | (damaged if how == "damaged" else {}))
    with pytest.raises(UserError, match=f"{name} is missing or differs from its checksum"):
        hub.pull(REPO, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


@pytest.mark.parametrize("file", ["config.yaml", "model.safetensors", "trained_on.npz"])
def test_fetched_model_that_was_changed_is_noticed(server: Hub, several: RunDir, tmp_path: Path, file: str) -> None:
    hub.push(several.path, REPO)
    folder = hub.pull(REPO, tmp_path / "pulled")
    path = folder / "models" / "plain" / file
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match=f"models/plain/{file} is missing or differs"):
        hub.pull(REPO, folder)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["config.yaml"], "lists no model.safetensors or no config.yaml"),
        (["models/a/model.safetensors"], "lists no model.safetensors or no config.yaml"),
        (["config.yaml", "models/a/config.yaml"], "lists no model.safetensors or no config.yaml"),
        (["config.yaml", "models/a/model.safetensors", "models/a/b/config.yaml"], "which no publication has"),
        (["config.yaml", "models/a/model.safetensors", "models/../config.yaml"], "which no publication has"),
        (["config.yaml", "models/a/model.safetensors", "models/a/evil.pkl"], "which no publication has"),
    ],
)
def test_checksums_say_whether_it_is_a_publication(tmp_path: Path, names: list[str], said: str) -> None:
    (tmp_path / "SHA256SUMS").write_text("".join(f"{'0' * 64}  {name}\n" for name in names))
    with pytest.raises(UserError, match=said):
        publication.verify(tmp_path, "x")


def test_training_cannot_begin_with_several_models(server: Hub, several: RunDir) -> None:
    hub.push(several.path, REPO)
    with pytest.raises(UserError, match=r"holds several models; pull it, and give the folder of one, models/NAME"):
        hub.weights(f"{REPO}@step-120")


def test_publisher_of_several_models_waits_for_the_end(server: Hub, several: RunDir) -> None:
    best = several.checkpoints / "step-120"
    for wanted in (Wanted(repo=REPO), Wanted(repo=REPO, every_epochs=1)):
        with Publisher(wanted, several, only_at_end=True) as publisher:
            assert not publisher.is_due(2, best=True)  # nor would a checkpoint be saved for it
            publisher.resume(best, best, epoch=1)
            publisher.offer(best)
            assert publisher._process is None and publisher.in_use == set()
    assert server.requests == []
    with Publisher(Wanted(repo=REPO, wait_minutes=3), several, only_at_end=True) as publisher:
        assert publisher.finish(lambda: False) is None
    assert "models/fpn/model.safetensors" in published(server)


# ---- whole trainings


class Both(toy.ToyTask):
    """Two networks that learn side by side."""

    def __init__(self, config: Any, runtime: Any) -> None:
        super().__init__(config, runtime)
        self.model = nn.ModuleList(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 1)) for _ in range(2))  # type: ignore

    def independent(self, model: nn.Module) -> list[nn.Module]:
        return list(model)  # type: ignore[call-overload]

    def loss(self, model: nn.Module, batch: Any) -> Any:
        parts = [super(Both, self).loss(part, batch) for part in model]  # type: ignore[attr-defined]
        return sum(loss for loss, _ in parts), parts[0][1]

    def evaluate(self, model: nn.Module, runtime: Any) -> dict[str, float]:
        found: dict[str, float] = super().evaluate(model[0], runtime)  # type: ignore[index]
        return found


def complete(run: RunDir) -> None:
    """What the package of this file leaves when a training is over."""
    assert run.read_status()["state"] == "running"
    if run.read_run().get("several"):
        files.remove(run.models)
        keep(run, "fpn", 1)
    else:
        np.savez_compressed(run.path / "trained_on.npz", ids=np.array(["image-1"]))


def broken(run: RunDir) -> None:
    raise UserError("no place for the models")


def app(task: str, completion: str = "complete") -> App:
    return App("toy", "toy-package", "toy", "A toy.", "toy:Config", task, "loss", completion=f"{__name__}:{completion}")


BOTH, ONE = app(f"{__name__}:Both"), app("toy:build_task")
FLAGS = ("--name", "mine", "--epochs", "2", "--batch-size", "16", "--tracker", "none", "--device", "cpu")
FLAGS = (*FLAGS, "--data.rows", "32", "--logging.progress", "false")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that we are in; trainings end without a report and publish from this process, to be quick."""

    def finish(publisher: Publisher, is_asked_to_stop: object) -> None:
        hub.push(publisher.run.path, str(publisher.wanted.repo))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "write", lambda found, *more, **named: found[0] / "report.html")
    monkeypatch.setattr(Publisher, "finish", finish)
    return tmp_path


def test_training_publishes_its_models_once_they_are_all_there(
    server: Hub, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert BOTH.main(["train", *FLAGS, "--hub.repo", REPO, "--hub.every_epochs", "1"]) == 0
    assert "several models are published when all have been trained" in capsys.readouterr().err
    run = Path("runs/toy-package/mine")
    assert [note["state"] for note in hubnotes.read(run)] == ["pushed"]
    assert list(server.repo(REPO).tags) == ["step-4"]
    assert "models/fpn/model.safetensors" in published(server) and "model.safetensors" not in published(server)
    RunDir(run).status("running")  # so it was while they learned
    assert BOTH.main(["push", REPO, "--run", "mine"]) == 2
    assert "can be published when all have been trained" in capsys.readouterr().err


def test_one_model_is_published_with_what_completes_its_run(server: Hub, here: Path) -> None:
    assert ONE.main(["train", *FLAGS, "--hub.repo", REPO, "--hub.every_epochs", "9"]) == 0
    assert {"model.safetensors", "trained_on.npz"} <= published(server).keys()
    assert (hub.pull(REPO, here / "pulled") / "trained_on.npz").is_file()


def test_run_is_finished_when_it_is_complete(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Until then the same command goes on with it."""
    assert app(f"{__name__}:Both", "broken").main(["train", *FLAGS]) == 2
    assert "no place for the models" in capsys.readouterr().err
    run = RunDir(Path("runs/toy-package/mine"))
    assert run.read_status()["state"] == "failed"
    assert BOTH.main(["train", *FLAGS]) == 0
    assert run.read_status()["state"] == "finished" and (run.models / "fpn").is_dir()
