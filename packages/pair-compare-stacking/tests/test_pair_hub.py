"""Published models and ensembles answer, elsewhere, exactly as they did where they were trained."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import error
from hub_runs import REPO
from hub_server import Hub
from matplotlib.figure import Figure

from pair_compare_stacking import ensemble, saved, stack, stackers, subject, teacher
from pair_compare_stacking.__main__ import main
from pair_compare_stacking.pairs import PairNPZDataset
from shared_core import files, hub, records, report
from shared_core.publisher import Publisher
from shared_core.records import RunDir
from shared_core.runtime import Runtime

pytest_plugins = ("hub_fixtures",)

TINY = [
    *("--data.n_train", "60", "--data.n_val", "40", "--data.n_test_public", "30", "--severity", "1"),
    *("--stream.pairs_per_epoch", "96", "--epochs", "1", "--batch-size", "32", "--model.widths", "8,16"),
    *("--model.layers", "1,1", "--model.feat_dim", "8", "--model.hidden", "4", "--logging.tracker", "none"),
    *("--runtime.device", "cpu", "--runtime.threads", "1", "--logging.progress", "false", "--optimizer.name", "muon"),
    *("--lr", "0.01", "--stacking.pairs", "300", "--stacking.folds", "3"),
]
MODELS = {
    "fusion": {"stage": 2, "model": {"heads": ["difference", "residual"]}},
    "fpn": {"stage": 3, "seed": 5, "model": {"architecture": "fpn"}},
}
KINDS = ("stacked", "few", "single")


@pytest.fixture(scope="module", autouse=True)
def _without_pictures() -> Iterator[None]:
    """Drawing takes longer than everything else here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, path, **how: Path(path).write_bytes(b"PNG"))
        patch.setattr(report, "write", lambda found, *more, **named: found[0] / "report.html")
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of a single model, of two (`few`), and what stage 4 makes of such two (`stacked`)."""
    folder = tmp_path_factory.mktemp("hub")
    (folder / "few.yaml").write_text(f"models: {json.dumps(MODELS)}\n")
    assert run(folder, "prepare") == 0
    assert run(folder, "train", "--name", "single") == 0
    assert run(folder, "train", "--config", str(folder / "few.yaml"), "--name", "few") == 0
    few, stacked = of_run(folder, "few"), RunDir(of_run(folder, "stacked"))
    shutil.copytree(few / "models", stacked.models)
    shutil.copy(few / "config.yaml", stacked.path)
    stacked.write_run({"package": "pair-compare-stacking", "module": "pair_compare_stacking"})
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 120)
    logit_NM = (2 * y - 1)[:, None] * np.array([3.0, 0.5]) + rng.normal(size=(120, 2)) * np.array([4.0, 0.3])
    fitted = {
        method: stackers.fit(method, logit_NM, y, np.arange(120) % 3, sorted(MODELS))
        for method in (*stackers.METHODS, stackers.BEST_SINGLE)
    }
    ensemble.write(stacked, fitted, {"method": "logistic", "sentence": "Stacking uses logistic regression."})
    stacked.status("finished")
    assert run(folder, "evaluate", "--run", str(stacked.path), *QUICK) == 0
    return folder


QUICK = ("--split", "val", "--baseline", "false")


def run(folder: Path, verb: str, *flags: str) -> int:
    return main([verb, "--paths.data", str(folder / "data"), "--paths.runs", str(folder / "runs"), *TINY, *flags])


def elsewhere(home: Path, folder: Path, verb: str, *flags: str) -> int:
    """A command where none of the runs are, and that knows nothing of their settings."""
    return main([verb, *flags, "--paths.data", str(home / "data"), "--paths.runs", str(folder / "runs")])


def of_run(folder: Path, *parts: str) -> Path:
    return folder.joinpath("runs", "pair-compare-stacking", *parts)


def answers(home: Path, path: Path, model: str | None = None) -> tuple[subject.Answers, frozenset[str]]:
    """What a run answers to val, and what it was trained on."""
    config = saved.read_config(path)
    x = PairNPZDataset(home / "data/pair-compare-stacking/digits-disjoint/val.npz").x
    who = subject.of_run(RunDir(path), config, model)
    return who.answer(x, Runtime.start(config.runtime, config.seed)), who.sources


@pytest.mark.parametrize("kind", KINDS)
def test_fetched_run_answers_exactly_as_the_original(server: Hub, home: Path, tmp_path: Path, kind: str) -> None:
    assert run(home, "push", REPO, "--run", kind) == 0
    assert run(home, "predict", "--run", kind, "--out", str(tmp_path / "here.csv")) == 0
    assert elsewhere(home, tmp_path, "predict", "--from-hub", REPO, "--out", str(tmp_path / "there.csv")) == 0
    assert (tmp_path / "here.csv").read_bytes() == (tmp_path / "there.csv").read_bytes()
    (here, trained_on), (there, known) = (
        answers(home, path) for path in (of_run(home, kind), of_run(tmp_path, "digits"))
    )
    assert torch.equal(here.prediction.logit, there.prediction.logit)
    assert torch.equal(here.prediction.digit_logits, there.prediction.digit_logits)
    assert here.models.keys() == there.models.keys() and here.methods.keys() == there.methods.keys()
    assert all(torch.equal(part.logit, there.models[name].logit) for name, part in here.models.items())
    assert all(np.array_equal(p, there.methods[method]) for method, p in here.methods.items())
    assert trained_on and known == trained_on


@pytest.mark.parametrize("kind", KINDS)
def test_fetched_run_is_evaluated_with_its_own_settings(server: Hub, home: Path, tmp_path: Path, kind: str) -> None:
    if not of_run(home, kind, "evaluation", "val.json").is_file():
        assert run(home, "evaluate", "--run", kind, *QUICK) == 0
    assert run(home, "push", REPO, "--run", kind) == 0
    assert elsewhere(home, tmp_path, "pull", REPO) == 0
    pulled = of_run(tmp_path, "digits")
    (pulled / "evaluation" / "val.json").unlink()
    assert elsewhere(home, tmp_path, "evaluate", "--run", str(pulled), *QUICK) == 0
    before, after = (records.read_evaluations(RunDir(path))["val"] for path in (of_run(home, kind), pulled))
    assert after["metrics"] == before["metrics"] and after["notes"] == before["notes"]


@pytest.mark.parametrize("kind", ["stacked", "few"])
def test_one_model_of_a_fetched_run(server: Hub, home: Path, tmp_path: Path, kind: str) -> None:
    assert run(home, "push", REPO, "--run", kind) == 0
    assert elsewhere(home, tmp_path, "evaluate", "--from-hub", REPO, "--model", "fpn", *QUICK) == 0
    path = of_run(tmp_path, "digits", "models", "fpn")
    assert records.read_evaluations(RunDir(path))["val"]["checkpoint"] == "fpn"
    assert elsewhere(home, tmp_path, "predict", "--run", str(path)) == 0  # as the card says
    (here, _), (there, _) = (
        answers(home, of_run(folder, name), "fpn") for folder, name in ((home, kind), (tmp_path, "digits"))
    )
    assert torch.equal(here.prediction.logit, there.prediction.logit)
    whole, _ = answers(home, of_run(home, kind))
    assert not torch.equal(whole.prediction.logit, here.prediction.logit)
    assert elsewhere(home, tmp_path, "export", "--run", str(path), "--out", str(tmp_path / "fpn.pt")) == 0


def test_card_of_an_ensemble(server: Hub, home: Path) -> None:
    assert run(home, "push", REPO, "--run", "stacked") == 0
    text = server.repo(REPO).files()["README.md"].decode()
    assert ": 2 models, " in text and "| fpn | " in text and "| fusion | " in text
    assert "what `logistic` answers" in text and "Stacking uses logistic regression." in text
    assert f"python -m pair_compare_stacking evaluate --from-hub {REPO}\n" in text


def test_nothing_published_says_where_it_was_made(server: Hub, home: Path) -> None:
    assert run(home, "push", REPO, "--run", "stacked") == 0
    assert not [name for name, data in server.repo(REPO).files().items() if str(home).encode() in data]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("models/fpn/model.safetensors", "models/fpn/model.safetensors is missing or differs"),
        ("models/fpn/config.yaml", "models/fpn/config.yaml is missing or differs"),
        ("models/fpn/trained_on.npz", "models/fpn/trained_on.npz is missing or differs"),
        ("preprocessing/stacker.json", "preprocessing/stacker.json is missing or differs"),
    ],
)
def test_fetched_ensemble_that_was_changed_is_noticed(
    server: Hub, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, said: str
) -> None:
    assert run(home, "push", REPO, "--run", "stacked") == 0
    assert elsewhere(home, tmp_path, "pull", REPO) == 0
    of_run(tmp_path, "digits", file).unlink()
    capsys.readouterr()
    assert elsewhere(home, tmp_path, "predict", "--from-hub", REPO) == 2
    assert said in error(capsys)


def test_fetched_configuration_still_has_to_be_that_of_the_weights(
    server: Hub, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the paths of the machine that it was trained on, it is the same; with another setting it is not."""
    assert run(home, "push", REPO, "--run", "few") == 0
    assert elsewhere(home, tmp_path, "pull", REPO) == 0
    path = of_run(tmp_path, "digits", "models", "fpn", "config.yaml")
    assert "paths:" in of_run(home, "few", "models", "fpn", "config.yaml").read_text()
    assert "paths:" not in path.read_text()
    path.write_text(path.read_text().replace("antisymmetric: true", "antisymmetric: false"))
    capsys.readouterr()
    assert elsewhere(home, tmp_path, "predict", "--run", "digits") == 2
    assert "was trained with another configuration than config.yaml says" in error(capsys)


def test_fetched_models_that_were_trained_on_what_is_stacked_are_refused(
    server: Hub, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = of_run(home, "few", "models", "fpn")
    before = files.read_npz(path / saved.TRAINED_ON, ("ids",))["ids"]
    stolen = stack.draw(saved.read_config(of_run(home, "few"))).sources[0, 0]
    try:
        saved.write_sources(path, np.append(before, stolen))
        assert run(home, "push", REPO, "--run", "few") == 0
    finally:
        saved.write_sources(path, before)
    assert elsewhere(home, tmp_path, "pull", REPO) == 0
    capsys.readouterr()
    config = str(of_run(tmp_path, "digits", "config.yaml"))
    assert elsewhere(home, tmp_path, "train", "--config", config, "--stage", "4", "--name", "digits") == 2
    assert f"fpn on 1 (such as {stolen})" in error(capsys)


@pytest.mark.parametrize(("kind", "which"), [("stacked", "digits"), ("few", "digits/models/fpn"), ("single", "digits")])
def test_fetched_teacher_hands_on_what_it_was_trained_on(
    server: Hub, home: Path, tmp_path: Path, kind: str, which: str
) -> None:
    assert run(home, "push", REPO, "--run", kind) == 0
    assert elsewhere(home, tmp_path, "pull", REPO) == 0
    config = saved.read_config(of_run(home, "single"))
    paths = config.paths.model_copy(update={"runs": tmp_path / "runs"})
    student = config.model_copy(
        update={"paths": paths, "distill": config.distill.model_copy(update={"teacher": which})}
    )
    assert teacher.sources(student) == saved.trained_on(of_run(home, "single"))
    found = teacher.load(student, Runtime.start(config.runtime, config.seed))
    assert len(found.describe()["sha256"]) == 64


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings publish their end from this process, to be quick."""
    monkeypatch.setattr(
        Publisher, "finish", lambda publisher, _: hub.push(publisher.run.path, str(publisher.wanted.repo)) and None
    )


@pytest.mark.usefixtures("at_once")
def test_training_of_several_publishes_them_at_its_end(server: Hub, home: Path, tmp_path: Path) -> None:
    assert run(home, "train", "--name", "told", "--seeds", "1,2", "--hub.repo", REPO) == 0
    published = server.repo(REPO).files()
    assert {f"models/seed_{seed}/model.safetensors" for seed in (1, 2)} <= published.keys()
    assert "model.safetensors" not in published
    assert elsewhere(home, tmp_path, "predict", "--from-hub", REPO) == 0


@pytest.mark.usefixtures("at_once")
def test_training_of_one_publishes_what_it_was_trained_on(server: Hub, home: Path, tmp_path: Path) -> None:
    assert run(home, "train", "--name", "alone", "--hub.repo", REPO) == 0
    assert elsewhere(home, tmp_path, "pull", REPO) == 0
    assert saved.trained_on(of_run(tmp_path, "digits")) == saved.trained_on(of_run(home, "single"))


def test_models_that_were_lost_are_written_anew(server: Hub, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command that the refusal names."""
    assert run(home, "train", "--name", "lost", "--seeds", "3,4") == 0
    path = of_run(home, "lost")
    files.remove(path / "models")
    capsys.readouterr()
    assert run(home, "push", REPO, "--run", "lost") == 2
    assert f"its models are missing; train on with --resume {path}" in error(capsys)
    assert run(home, "train", "--name", "lost", "--seeds", "3,4", "--resume", str(path)) == 0
    assert run(home, "push", REPO, "--run", "lost") == 0
