"""Stage 4 on tiny models: fitted on withheld images, judged on others, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import error

from pair_compare_stacking import ensemble, pairfile, saved, stack, stackers, tables, train
from pair_compare_stacking.__main__ import main
from shared_core import files, tensorfile
from shared_core.errors import UserError
from shared_core.records import RunDir
from shared_core.runtime import Runtime
from shared_core.settings import Runtime as RuntimeSettings

SETTINGS = """
data: {n_train: 60, n_val: 60, n_test_public: 40, severity: 2, withheld: 0.2}
stream: {pairs_per_epoch: 512}
model: {widths: [8, 16], layers: [1, 1], feat_dim: 16, hidden: 8}
training: {epochs: 1, batch_size: 32}
optimizer: {name: muon}
runtime: {device: cpu, threads: 1}
logging: {tracker: none, progress: false}
stacking: {pairs: 300, folds: 3}
models:
  early: {stage: 1}
  one: {stage: 2, seed: 1}
  two: {stage: 3, seed: 2}
  three: {stage: 3, seed: 3, model: {heads: [residual, product]}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stack")
    paths = f"paths: {{data: {folder / 'data'}, runs: {folder / 'runs'}}}"
    (folder / "small.yaml").write_text(f"name: small\n{paths}\n{SETTINGS}")
    assert run(folder, "prepare") == 0
    assert run(folder, "train", "--stage", "all") == 0
    return folder


def run(folder: Path, verb: str, *flags: str) -> int:
    return main([verb, "--config", str(folder / "small.yaml"), *flags])


def of_run(folder: Path, *parts: str) -> Path:
    return folder.joinpath("runs", "pair-compare-stacking", *parts)


def test_all_stages_leave_an_ensemble(home: Path) -> None:
    assert sorted(path.name for path in of_run(home).iterdir()) == ["small", *(f"small-stage{k}" for k in (1, 2, 3))]
    found = ensemble.load(RunDir(of_run(home, "small")))
    assert list(found.models) == ["one", "two", "three"]  # stage 1 is no base model
    assert set(found.stackers) == {"mean", "weighted_mean", "logistic", "greedy", "lightgbm", "best_single"}
    about = json.loads(of_run(home, "small", "evaluation", "val.json").read_text())
    names = [row["model"] for row in about["tables"]["Every model, and every way of combining them"]]
    assert names[:3] == ["one", "two", "three"] and len(names) == 9
    assert [row["model"] for row in about["tables"]["Weights of the heads"]] == ["three"]  # the others have one
    beside = about["tables"]["Accuracy of every model on every split"]
    assert set(beside[0]) == {"model", "val", "test_public"} and len(beside) == 9
    (together,) = [row for row in about["tables"]["Models that differ in their seed only, as one"] if row["seeds"] == 2]
    assert together["model"] == "one, two"
    assert found.decision["sentence"] in about["notes"]
    assert {"figures/val_agreement.png", "figures/val_error_correlation.png"} <= set(about["figures"])
    assert of_run(home, "small", "report.html").is_file()


def test_best_single_model_is_the_one_of_the_withheld_pairs(home: Path) -> None:
    """Every model is set against it, also where another is better on the split."""
    fitted = ensemble.load(RunDir(of_run(home, "small"))).stackers
    best = stackers.best_single(fitted)
    assert best == fitted["best_single"].models[np.argmax(fitted["best_single"].weights)]
    assert stackers.best_single({"mean": fitted["mean"]}) is None
    for split in ("val", "test_public"):
        about = json.loads(of_run(home, "small", "evaluation", f"{split}.json").read_text())
        assert any(note.startswith(f"{best}, the best single model") for note in about["notes"])
        rows = {row["model"]: row for row in about["tables"]["Every model, and every way of combining them"]}
        for name, row in rows.items():
            if row["less the best single"] == tables.SAME:
                assert row["accuracy"] == rows[best]["accuracy"] and row["p (best single)"] == ""
                continue
            assert name not in (best, "all: the best single model")
            gap = row["accuracy"]["value"] - rows[best]["accuracy"]["value"]
            assert row["less the best single"]["value"] == pytest.approx(gap)
        assert rows["all: the mean of the probabilities"]["less the mean"] == tables.SAME


@pytest.mark.parametrize(("name", "heads"), [("two", None), ("three", {"model", "product", "residual"})])
def test_weights_of_the_heads_of_one_model(home: Path, name: str, heads: set[str] | None) -> None:
    assert run(home, "evaluate", "--model", name, "--split", "val", "--baseline", "false") == 0
    about = json.loads(of_run(home, "small", "models", name, "evaluation", "val.json").read_text())
    rows = about["tables"].get("Weights of the heads")
    assert (rows and set(rows[0])) == heads
    assert any("softmax weights" in note for note in about["notes"]) == (heads is not None)


@pytest.mark.parametrize("name", ["two", "three"])
def test_table_of_one_model_is_refused(home: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert run(home, "evaluate", "--model", name, "--all-models") == 2
    assert f"--all-models: {of_run(home, 'small', 'models', name)} has one model only" in error(capsys)


def test_fitted_on_images_that_nothing_else_shows(home: Path) -> None:
    config = saved.read_config(of_run(home, "small"))
    pairs = stack.draw(config)
    shown = {str(name) for name in pairs.sources.ravel()}
    folder = home / "data" / "pair-compare-stacking" / "digits-disjoint"
    for name in ("one", "two", "three"):
        assert not shown & saved.trained_on(of_run(home, "small", "models", name))
    for name in ("val", "test_public", "train"):
        assert not shown & {str(source) for source in pairfile.read_truth(folder / f"{name}.npz").sources.ravel()}
    by_fold = [set(pairs.sources[pairs.fold == fold].ravel()) for fold in range(3)]
    assert not by_fold[0] & by_fold[1] and not by_fold[1] & by_fold[2] and not by_fold[0] & by_fold[2]
    again = stack.draw(config)
    assert torch.equal(pairs.x, again.x) and np.array_equal(pairs.y, again.y)
    withheld = files.read_npz(folder / "pool_withheld.npz", ("ids", "labels"))
    digit = dict(zip(withheld["ids"].tolist(), withheld["labels"].tolist(), strict=True))
    larger = [digit[left] > digit[right] for left, right in pairs.sources.tolist()]
    assert np.array_equal(pairs.y == 1, larger)


def test_combining_is_the_mean_of_the_calibrated_models(home: Path) -> None:
    found = ensemble.load(RunDir(of_run(home, "small")))
    runtime = Runtime.start(RuntimeSettings(device="cpu"), 0)
    x = torch.randint(0, 256, (7, 28, 56), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    base = found.base(x, runtime)
    temperatures = np.array(found.stackers["mean"].temperatures)
    by_hand = (1 / (1 + np.exp(-ensemble.logits(base) / temperatures))).mean(axis=1)
    combined = found.combine(base, "mean")
    np.testing.assert_allclose(torch.sigmoid(combined.logit).numpy(), by_hand, atol=1e-6)
    posterior = torch.stack([part.digit_logits.softmax(-1) for part in base.values()]).mean(0)
    torch.testing.assert_close(combined.digit_logits.softmax(-1), posterior)


@pytest.mark.parametrize("who", [[], ["--model", "lightgbm"], ["--model", "two"]], ids=str)
def test_answer_file_of_ensemble_method_and_model(home: Path, tmp_path: Path, who: list[str]) -> None:
    out = tmp_path / "answers.csv"
    assert run(home, "predict", "--out", str(out), *who) == 0
    assert run(home, "predict", "--check", str(out)) == 0


def test_second_time_takes_the_same_run(home: Path) -> None:
    before = json.loads(of_run(home, "small", "preprocessing", "stacker.json").read_text())
    assert run(home, "train", "--stage", "4") == 0
    assert json.loads(of_run(home, "small", "preprocessing", "stacker.json").read_text()) == before
    assert not of_run(home, "small-2").exists()


def test_missing_base_model_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "train", "--stage", "4", "--name", "other") == 2
    complaint = error(capsys)
    assert "base models one, two, three: missing, or not finished; train them first (--stage 2, --stage 3)" in complaint
    assert "under the name other" in complaint


def test_misspelled_base_model_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "train", "--stage", "4", "--stacking.models", "one,tow") == 2
    assert "stacking.models: tow: no such model (did you mean two?)" in error(capsys)


def test_base_model_of_other_settings_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "train", "--stage", "4", "--model.feat_dim", "32") == 2
    assert "was trained with other settings (model.feat_dim: 16 -> 32)" in error(capsys)


def test_base_models_answer_in_their_own_columns(home: Path) -> None:
    """Each column is what its model says, fold by fold where each fold has models of its own."""
    config = saved.read_config(of_run(home, "small"))
    pairs, runtime = stack.draw(config), Runtime.start(RuntimeSettings(device="cpu"), 0)
    paths = {name: of_run(home, "small", "models", name) for name in ("one", "two", "three")}
    alone = {
        name: train.predict(saved.load(path)[0], pairs.x, runtime).logit.double().numpy()
        for name, path in paths.items()
    }
    together = stack.answer(pairs, {None: paths}, runtime)
    for column, name in enumerate(paths):
        np.testing.assert_allclose(together[:, column], alone[name], rtol=1e-4, atol=1e-5)
    names = list(paths)
    turned = {fold: {name: paths[names[(i + fold) % 3]] for i, name in enumerate(names)} for fold in range(3)}
    by_fold = stack.answer(pairs, turned, runtime)  # type: ignore[arg-type]
    for fold, of_fold in turned.items():
        rows = pairs.fold == fold
        for column, path in enumerate(of_fold.values()):
            np.testing.assert_allclose(by_fold[rows, column], alone[path.name][rows], rtol=1e-4, atol=1e-5)


def test_model_that_the_stacker_was_not_fitted_with_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the same name, settings and shape, but trained again."""
    path = of_run(home, "small", "models", "one", saved.WEIGHTS)
    before = path.read_bytes()
    own, header = tensorfile.read(path)
    try:
        tensorfile.write(path, {key: tensor * 2 for key, tensor in own.items()}, header)
        assert run(home, "predict") == 2
        assert "is not the model that" in error(capsys)
    finally:
        path.write_bytes(before)


def test_rows_that_a_base_model_trained_on_are_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = of_run(home, "small-stage2", "models", "one")
    before = files.read_npz(path / saved.TRAINED_ON, ("ids",))["ids"]
    config = saved.read_config(of_run(home, "small"))
    stolen = stack.draw(config).sources[0, 0]
    try:
        saved.write_sources(path, np.append(before, stolen))
        assert run(home, "train", "--stage", "4") == 2
        complaint = error(capsys)
        assert "one" in complaint and str(stolen) in complaint
    finally:
        saved.write_sources(path, before)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda about: about | {"models": dict(list(about["models"].items())[:2])}, "stacker of the base models"),
        (lambda about: about | {"models": {"../../../one": "0" * 64}}, "is damaged"),
        (lambda about: about | {"models": ["one", "two"]}, "is damaged"),
        (lambda about: about | {"decision": {"method": "magic"}}, "the chosen method 'magic'"),
        (lambda about: {}, "is damaged"),
        (lambda about: about | {"stackers": {"mean": {"method": "mean"}}}, "models is no list of names"),
    ],
)
def test_damaged_stacker_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], damage: object, complaint: str
) -> None:
    path = of_run(home, "small", "preprocessing", "stacker.json")
    before = path.read_text()
    try:
        path.write_text(json.dumps(damage(json.loads(before))))  # type: ignore[operator]
        assert run(home, "predict") == 2
        assert complaint in error(capsys)
    finally:
        path.write_text(before)


def test_weights_of_another_network_are_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Headers can be copied; shapes are looked at as well."""
    path = of_run(home, "small", "models", "one", saved.WEIGHTS)
    before = path.read_bytes()
    own, header = tensorfile.read(path)
    other, _ = tensorfile.read(of_run(home, "small", "models", "three", saved.WEIGHTS))
    assert set(other) != set(own)
    try:
        tensorfile.write(path, other, {"config": header["config"]})
        assert run(home, "predict") == 2
        assert "its weights do not fit the configuration's model" in error(capsys)
    finally:
        path.write_bytes(before)


def test_nothing_withheld_is_said(home: Path) -> None:
    with pytest.raises(UserError, match=r"data\.withheld: is 0"):
        config = saved.read_config(of_run(home, "small"))
        stack.draw(config.model_copy(update={"data": config.data.model_copy(update={"withheld": 0.0})}))


def test_stage_4_again_leaves_what_was_made_of_its_models(home: Path) -> None:
    mine = of_run(home, "small", "models", "one", "notes.txt")
    mine.write_text("my own")
    assert run(home, "train", "--stage", "4") == 0
    assert mine.read_text() == "my own"
    mine.unlink()


def test_variation_of_a_stage_does_not_hide_the_finished_one(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither from its repetition nor from stage 4."""
    varied = ["--stage", "2", "--loss.label_smoothing", "0.1"]
    assert run(home, "train", *varied) == 0
    assert of_run(home, "small-stage2-2").is_dir()
    try:
        capsys.readouterr()
        assert run(home, "train", "--stage", "all") == 0
        assert f"stage 2: finished before: {of_run(home, 'small-stage2')}" in capsys.readouterr().err
        assert not of_run(home, "small-stage2-3").exists()
        ours, theirs = (of_run(home, name, "models", "one", saved.WEIGHTS) for name in ("small", "small-stage2"))
        assert ours.read_bytes() == theirs.read_bytes()
    finally:
        files.remove(of_run(home, "small-stage2-2"))


def test_base_model_that_no_configuration_names_is_no_missing_one(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(home, "train", "--stage", "4", "--stacking.models", "one,zz") == 2
    assert "stacking.models: zz: no such model; there are early, one, two, three" in error(capsys)


def test_report_says_what_each_model_sets_for_itself(home: Path) -> None:
    text = of_run(home, "small", "report.md").read_text()
    assert "model.heads residual, product" in text
    assert "optimizer steps" not in text and "one seed" not in text
