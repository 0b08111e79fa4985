"""Models that learn together: as each would alone, saved so that each can be rebuilt by itself."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import error

from pair_compare_stacking import saved, stages, subject
from pair_compare_stacking.__main__ import APP, main
from pair_compare_stacking.config import Config
from shared_core import config as configuration
from shared_core import files, records, runs, weights, yamlfile

TINY = [
    *("--data.n_train", "60", "--data.n_val", "40", "--data.n_test_public", "30", "--severity", "3"),
    *("--stream.pairs_per_epoch", "64", "--epochs", "2", "--batch-size", "16", "--model.widths", "8,16"),
    *("--model.layers", "1,1", "--model.feat_dim", "8", "--model.hidden", "4", "--logging.tracker", "none"),
    *("--runtime.device", "cpu", "--runtime.threads", "1", "--logging.progress", "false", "--optimizer.name", "muon"),
    *("--training.clip_norm", "0.3", "--training.ema_decay", "0.9", "--lr", "0.01"),
]
MODELS = {
    "fusion_1.0": {"stage": 2, "model": {"heads": ["difference", "cosine", "residual"], "attention": "cbam"}},
    "fpn": {"stage": 3, "seed": 5, "model": {"architecture": "fpn"}, "loss": {"kind": "focal"}},
    "plain": {"stage": 3, "seed": 7},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("members")
    (folder / "several.yaml").write_text(f"models: {json.dumps(MODELS)}\n")
    assert run(folder, "prepare") == 0
    assert run(folder, "train", "--config", str(folder / "several.yaml")) == 0
    return folder


def run(folder: Path, verb: str, *flags: str) -> int:
    name = [] if "--name" in flags else ["--name", "several"]
    paths = ["--paths.data", str(folder / "data"), "--paths.runs", str(folder / "runs")]
    return main([verb, *paths, *TINY, *name, *flags])


def of_run(folder: Path, *parts: str) -> Path:
    return folder.joinpath("runs", "pair-compare-stacking", *parts)


@pytest.mark.parametrize("name", MODELS)
def test_together_is_as_alone(home: Path, name: str) -> None:
    """From its own saved configuration, with other models or without: the same weights, averages and metrics."""
    path = of_run(home, "several", "models", name)
    assert main(["train", "--config", str(path / "config.yaml"), "--name", f"alone-{name}"]) == 0
    alone = weights.load_weights(runs.checkpoint(records.RunDir(of_run(home, f"alone-{name}")), "latest"))
    together = weights.load_weights(path)
    assert set(alone) == set(together)
    for key, tensor in alone.items():
        torch.testing.assert_close(tensor, together[key], rtol=1e-5, atol=1e-6, msg=key)
    rows = [row for row in records.read_metrics(of_run(home, f"alone-{name}")) if "val/accuracy" in row]
    assert json.loads((path / "metrics.json").read_text())["best_val_acc"] == pytest.approx(rows[-1]["val/accuracy"])


def test_models_are_rebuilt_from_their_own_folder(home: Path) -> None:
    for name in MODELS:
        model, config = saved.load(of_run(home, "several", "models", name))
        assert config.name == name and not config.models
        assert not model.training
    fusion, _ = saved.load(of_run(home, "several", "models", "fusion_1.0"))
    assert [head.kind for head in fusion.comparison.terms] == ["difference", "cosine", "residual"]


def test_metrics_file_has_the_keys_that_its_users_know(home: Path) -> None:
    about = json.loads(of_run(home, "several", "models", "fpn", "metrics.json").read_text())
    assert set(about) == {"best_val_acc", "best_val_f1", "best_epoch", "params", "seed", "threshold", "config"}
    assert (about["best_epoch"], about["seed"], about["threshold"]) == (2, 5, 0.5)
    assert about["config"]["model"]["architecture"] == "fpn" and about["config"]["loss"]["kind"] == "focal"


def test_saved_model_knows_what_it_was_trained_on(home: Path) -> None:
    known = saved.trained_on(of_run(home, "several", "models", "plain"))
    pool = files.read_npz(home / "data/pair-compare-stacking/digits-disjoint/pool.npz", ("ids",))["ids"]
    assert known == {str(name) for name in pool}


def test_other_configuration_than_the_weights_have_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where every shape would fit."""
    path = of_run(home, "several", "models", "plain", "config.yaml")
    before = path.read_text()
    try:
        path.write_text(before.replace("antisymmetric: true", "antisymmetric: false"))
        assert path.read_text() != before
        assert run(home, "evaluate", "--run", str(of_run(home, "several")), "--model", "plain") == 2
        assert "was trained with another configuration than config.yaml says" in error(capsys)
    finally:
        path.write_text(before)


def test_missing_weights_are_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = of_run(home, "several", "models", "plain", saved.WEIGHTS)
    path.rename(path.with_suffix(".away"))
    try:
        assert run(home, "evaluate", "--run", str(of_run(home, "several"))) == 2
        assert "models/plain: has no model.safetensors" in error(capsys)
    finally:
        path.with_suffix(".away").rename(path)


def test_one_of_several_is_evaluated_by_name(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(home / "several.yaml")
    assert run(home, "evaluate", "--config", config, "--model", "fpn", "--split", "val", "--baseline", "false") == 0
    found = json.loads(of_run(home, "several", "models", "fpn", "evaluation", "val.json").read_text())
    about = json.loads(of_run(home, "several", "models", "fpn", "metrics.json").read_text())
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(about["best_val_acc"])
    capsys.readouterr()
    assert run(home, "evaluate", "--config", config, "--model", "fpm") == 2
    assert "--model fpm: no such model (did you mean fpn?)" in error(capsys)


def test_table_of_all_models(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--all-models", "--split", "val", "--baseline", "false")
    assert run(home, "evaluate", "--config", str(home / "several.yaml"), *flags) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "val" and lines[1].split()[:2] == ["model", "accuracy"]
    assert [line.split()[0] for line in lines[2:5]] == list(MODELS)
    found = json.loads(of_run(home, "several", "evaluation", "val.json").read_text())
    assert any("stage 4 has not been run" in note for note in found["notes"])


def test_stage_trains_its_models_and_is_not_repeated(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(home / "several.yaml")
    assert run(home, "train", "--config", config, "--name", "staged", "--stage", "3") == 0
    assert sorted(path.name for path in of_run(home, "staged-stage3", "models").iterdir()) == ["fpn", "plain"]
    capsys.readouterr()
    assert run(home, "train", "--config", config, "--name", "staged", "--stage", "3") == 0
    assert "stage 3: finished before" in capsys.readouterr().err
    assert not of_run(home, "staged-stage3-2").exists()
    assert run(home, "train", "--config", config, "--name", "staged", "--stage", "1") == 2
    assert "--stage 1: the configuration has no model of this stage; its models have stages 2, 3" in error(capsys)


def test_seeds_are_models(home: Path) -> None:
    assert run(home, "train", "--name", "seeds", "--seeds", "42,2023", "--epochs", "1") == 0
    first, second = (saved.load(of_run(home, "seeds", "models", f"seed_{seed}"))[0] for seed in (42, 2023))
    assert not torch.equal(first.tower.stem.weight, second.tower.stem.weight)


def test_run_goes_on_with_its_models_listed_in_another_order(home: Path) -> None:
    """A checkpoint knows models by their place: two of one shape must not change places."""
    listed = {"first": {"seed": 1}, "second": {"seed": 2}}
    for name, later in (("straight", listed), ("turned", dict(reversed(listed.items())))):
        for models, epochs in ((listed, 1), (later, 2)):
            file = home / f"{name}-{epochs}.yaml"
            file.write_text(f"models: {json.dumps(models)}\n")
            flags = ["--epochs", str(epochs)] + (["--resume", str(of_run(home, name))] if epochs == 2 else [])
            assert run(home, "train", "--config", str(file), "--name", name, *flags) == 0
    for name in listed:
        one, other = (weights.load_weights(of_run(home, run_, "models", name)) for run_ in ("straight", "turned"))
        assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())


def test_seeds_beside_models_are_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "train", "--config", str(home / "several.yaml"), "--seeds", "1,2") == 2
    assert "seeds and models both name several models" in error(capsys)


def test_checkpoint_of_several_models_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would be ignored: their last weights count."""
    checkpoint = next(of_run(home, "several", "checkpoints").glob("step-*"))
    assert run(home, "evaluate", "--checkpoint", str(checkpoint)) == 2
    assert "holds several models, of which the last weights count" in error(capsys)


def test_what_a_model_began_with_counts_as_trained_on(home: Path) -> None:
    """Weights carry what they were trained on into a training that never shows it."""
    begun_with = of_run(home, "several", "models", "plain")
    before = saved.trained_on(begun_with)
    try:
        saved.write_sources(begun_with, np.array([*before, "an image from elsewhere"]))
        begin = ["--training.init_from", str(begun_with)]
        assert run(home, "train", "--name", "later", "--epochs", "1", *begin) == 0
        assert saved.trained_on(of_run(home, "later")) == before | {"an image from elsewhere"}
        (begun_with / saved.TRAINED_ON).unlink()
        assert run(home, "train", "--name", "later-unknown", "--epochs", "1", *begin) == 0
        assert saved.trained_on(of_run(home, "later-unknown")) == set()  # nothing is known for sure
    finally:
        saved.write_sources(begun_with, np.array(sorted(before)))


def test_a_run_to_begin_with_is_named_like_any_other(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "train", "--name", "first", "--epochs", "1") == 0
    assert run(home, "train", "--name", "second", "--epochs", "1", "--training.init_from", "first") == 0
    known = json.loads(of_run(home, "second", "run.json").read_text())["init_from"]["source"]
    assert known == str(of_run(home, "first").resolve())
    assert saved.trained_on(of_run(home, "second")) == saved.trained_on(of_run(home, "first"))
    capsys.readouterr()
    assert run(home, "train", "--name", "third", "--training.init_from", "several") == 2
    assert "; one of its models is several/models/fpn" in error(capsys)
    several = ["--config", str(home / "several.yaml"), "--training.init_from", "first"]
    assert run(home, "train", "--name", "third", *several) == 2
    assert "; several models can begin with a run of the same ones alone" in error(capsys)
    assert not of_run(home, "third").exists()


def test_a_flag_that_models_override_is_said_to_be(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ["--config", str(home / "several.yaml"), "--name", "varied", "--epochs", "1"]
    assert run(home, "train", *config, "--only", "plain,fusion_1.0", "--model.attention", "se") == 0
    assert "--model.attention: for the models that do not set it themselves; fusion_1.0 keep" in capsys.readouterr().err
    assert run(home, "train", *config, "--only", "plain,fpn", "--model.attention", "se", "--name", "alike") == 0
    assert "--model.attention" not in capsys.readouterr().err  # the one that sets it is not trained
    every = {name: {**about, "seed": 1, "model": {"attention": "se"}} for name, about in MODELS.items()}
    (home / "every.yaml").write_text(f"models: {json.dumps(every)}\n")
    for flag, value in (("--model.attention", "cbam"), ("--seed", "3")):
        assert run(home, "train", "--config", str(home / "every.yaml"), "--name", "every", flag, value) == 2
        assert f"{flag}: has no effect on fusion_1.0, fpn, plain, which set it in the file" in error(capsys)
    assert run(home, "train", *config, "--only", "fpn", "--seed", "9") == 2
    assert "--seed: has no effect on fpn, which sets it in the file" in error(capsys)


def test_few_rows_of_a_file_are_enough_without_folds(home: Path) -> None:
    """Folds are for protocol out_of_fold alone; twelve rows in each would be too few."""
    assert run(home, "train", "--name", "file", "--stream.kind", "file", "--epochs", "1") == 0
    assert saved.trained_on(of_run(home, "file"))


def configured(**values: object) -> Config:
    config, problems = configuration.validate(Config, yamlfile.Document(values), {})
    assert config is not None, problems
    return config


def test_finished_run_of_another_configuration_does_not_count(home: Path) -> None:
    stored = saved.read_config(of_run(home, "several"))
    assert stages.finished(APP, stored) is not None
    assert stages.finished(APP, stored.model_copy(update={"seed": 99})) is None
    longer = stored.training.model_copy(update={"epochs": 3})
    assert stages.finished(APP, stored.model_copy(update={"training": longer})) is None


@pytest.mark.parametrize(
    ("models", "complaint"),
    [
        ({"a": {"model": {"width": 3}}}, "models.a.model.width"),
        ({"a": {"stage": 4}}, "models.a.stage"),
        ({"a": {"loss": {"gamma": -1}}}, "models.a.loss.gamma"),
        ({"../a": {}}, "models"),
    ],
)
def test_mistake_in_a_model_is_named(models: dict[str, object], complaint: str) -> None:
    config, problems = configuration.validate(Config, yamlfile.Document({"models": models}), {})
    assert config is None
    assert complaint in "\n".join(problems)


def test_overrides_are_those_of_the_model_alone() -> None:
    config = configured(
        model={"feat_dim": 64},
        models={"a": {"model": {"width_mult": 1.5}}, "b": {"seed": 3, "loss": {"kind": "focal"}}},
    )
    a, b = config.singles()["a"], config.singles()["b"]
    assert a.model.channels == (72, 144, 288) and a.model.feat_dim == b.model.feat_dim == 64
    assert (a.seed, b.seed, a.loss.kind, b.loss.kind) == (0, 3, "bce", "focal")


def test_unfinished_run_has_no_models_yet(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else the weights of that moment would count as those of the finished run."""
    assert run(home, "train", "--name", "stopped", "--seeds", "1,2", "--epochs", "1") == 0
    stopped = of_run(home, "stopped")
    records.RunDir(stopped).status("preempted")
    (stopped / "models").rename(stopped / "away")
    assert run(home, "evaluate", "--run", str(stopped)) == 2
    assert "has no saved models yet" in error(capsys)
    assert not (stopped / "models").exists()


def test_own_functions_are_called_in_training_and_nowhere_else(home: Path, tmp_path: Path) -> None:
    """A configuration from elsewhere must not run code where it is only looked at."""
    (tmp_path / "mine_for_members.py").write_text(
        "from pathlib import Path\n"
        "def note(name):\n"
        f"    with Path({str(tmp_path / 'called')!r}).open('a') as file: file.write(name)\n"
        "def loss(logit, y):\n"
        "    note('l')\n"
        "    return (logit - y).square()\n"
        "def augment(x, generator):\n"
        "    note('a')\n"
        "    return 1 - x\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        own = ["--loss.function", "mine_for_members:loss", "--augment.function", "mine_for_members:augment"]
        assert run(home, "train", "--name", "own", "--epochs", "1", *own) == 0
        assert set((tmp_path / "called").read_text()) == {"l", "a"}
        (tmp_path / "called").unlink()
        folder = str(of_run(home, "own"))
        assert run(home, "evaluate", "--run", folder, "--split", "val", "--baseline", "false") == 0
        assert run(home, "predict", "--run", folder) == 0
        assert run(home, "export", "--run", folder, "--format", "torch_export", "--out", str(tmp_path / "x.pt2")) == 0
        assert not (tmp_path / "called").exists()


@pytest.mark.parametrize(
    ("groups", "labels"),
    [
        ([["bayes.seed1", "bayes.seed2"], ["fpn"]], ["bayes", "fpn"]),
        ([["fusion"], ["fusion_seed42", "fusion_seed123"]], ["fusion", "fusion_seed42, fusion_seed123"]),
        ([["seed_1", "seed_2"]], ["seed_1, seed_2"]),
        ([["one", "two"]], ["one, two"]),
    ],
)
def test_groups_keep_labels_of_their_own(groups: list[list[str]], labels: list[str]) -> None:
    assert list(subject.labelled(groups)) == labels
    assert list(subject.labelled(groups).values()) == groups


def test_run_that_goes_on_by_its_path_keeps_its_own_models(home: Path) -> None:
    """Also where another run has the name that the command says."""
    assert run(home, "train", "--name", "by-path", "--seeds", "1,2", "--epochs", "1") == 0
    assert run(home, "train", "--name", "namesake", "--seeds", "1,2", "--epochs", "1") == 0
    before = of_run(home, "by-path", "models", "seed_1", "model.safetensors").read_bytes()
    files.remove(of_run(home, "namesake", "models"))
    path = str(of_run(home, "by-path"))
    assert run(home, "train", "--name", "namesake", "--seeds", "1,2", "--epochs", "2", "--resume", path) == 0
    assert not of_run(home, "namesake", "models").exists()
    assert of_run(home, "by-path", "models", "seed_1", "model.safetensors").read_bytes() != before


@pytest.mark.parametrize("stage", ["4", "all"])
def test_only_some_of_all_stages_is_refused(home: Path, stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(home / "several.yaml")
    assert run(home, "train", "--config", config, "--stage", stage, "--only", "fpn") == 2
    assert "--only: chooses among the models of one stage" in error(capsys)


@pytest.mark.parametrize("name", ["mean", "best_single"])
def test_model_named_like_a_method_is_refused(home: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "train", "--models", json.dumps({name: {}})) == 2
    assert f"models.{name}: is the name of a way of combining models" in error(capsys)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--augment.swap", "false"), "augment.swap: a generator draws left and right alike"),
        (("--models", '{"a": {"augment": {"swap": false}}}'), "augment.swap: a generator draws left and right alike"),
        (("--augment.probability", "0.5"), "probability has no effect without rotation"),
        (("--distill.soft", "0.5"), "soft has no effect without a teacher"),
        (("--distill.temperature", "2"), "temperature has no effect without a teacher"),
    ],
)
def test_idle_settings_are_refused(
    home: Path, flags: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(home, "train", *flags) == 2
    assert message in error(capsys)


def test_one_call_for_all_of_an_architecture_trains_the_same_models(home: Path) -> None:
    trained = {}
    for how in ("in_turn", "batched"):
        flags = ["--seeds", "1,2", "--epochs", "1", "--together", how]
        assert run(home, "train", "--name", f"as-{how}", *flags) == 0
        trained[how] = weights.load_weights(of_run(home, f"as-{how}", "models", "seed_2"))
    for key, tensor in trained["in_turn"].items():
        torch.testing.assert_close(tensor, trained["batched"][key], rtol=1e-3, atol=1e-4, msg=key)


def test_seeds_that_a_run_holds_already_are_not_trained_again_as_a_stage(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--name", "both-ways", "--seeds", "4,5", "--epochs", "1"]
    assert run(home, "train", *flags) == 0
    assert run(home, "train", *flags, "--stage", "3") == 0
    assert f"stage 3: finished before: {of_run(home, 'both-ways')}" in capsys.readouterr().err
    assert not of_run(home, "both-ways-stage3").exists()


def test_function_that_is_nowhere_leaves_no_run(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "train", "--name", "lost", "--loss.function", "nowhere:loss") == 2
    assert "loss.function" in error(capsys)
    models = '{"a": {"augment": {"function": "nowhere:augment"}}, "b": {}}'
    assert run(home, "train", "--name", "lost", "--models", models) == 2
    assert "augment.function" in error(capsys)
    assert not of_run(home, "lost").exists()
