"""Stacking out of fold: what models without a fold have seen, what stackers are fitted on, and what is refused.

The pictures are noise, and every source image has a digit at random: who has not seen an image cannot know its digit.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from command_line import error

from pair_compare_stacking import ensemble, folds, pairfile, saved, stack, train
from pair_compare_stacking.__main__ import main
from pair_compare_stacking.config import Config
from pair_compare_stacking.pairs import PairNPZDataset
from shared_core import config as configuration
from shared_core import tensorfile
from shared_core.batches import Batches
from shared_core.cli import App
from shared_core.errors import UserError
from shared_core.records import RunDir
from shared_core.runtime import Runtime
from shared_core.settings import Runtime as RuntimeSettings

IMAGES, PAIRS, FOLDS = 90, 720, 3
SETTINGS = """
name: small
data: {n_train: 720, n_val: 60, n_test_public: 40, severity: 2, withheld: 0, weight_diff1: 0}
stream: {kind: file}
model: {widths: [8], layers: [1], feat_dim: 32, hidden: 8, heads: [difference]}
augment: {swap: false}
training: {epochs: 3, batch_size: 60}
optimizer: {name: adamw, lr: 0.01}
runtime: {device: cpu, threads: 1}
logging: {tracker: none, progress: false}
stacking: {protocol: out_of_fold, folds: 3, methods: [mean, logistic]}
models:
  one: {seed: 1}
  two: {seed: 2}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out_of_fold")
    paths = f"paths: {{data: {folder / 'data'}, runs: {folder / 'runs'}}}"
    (folder / "small.yaml").write_text(f"{paths}\n{SETTINGS}")
    assert run(folder, "prepare") == 0
    pairfile.write(train_file(folder), noise())
    assert run(folder, "train", "--stage", "all") == 0
    return folder


def noise() -> pairfile.PairFile:
    """Pairs of noise pictures; the digit of a picture is drawn once."""
    generator = np.random.default_rng(0)
    images, digit = generator.integers(0, 256, (IMAGES, 28, 28), dtype=np.uint8), np.arange(IMAGES) % 10
    rows = generator.integers(0, IMAGES, (4 * PAIRS, 2))
    rows = rows[digit[rows[:, 0]] != digit[rows[:, 1]]][:PAIRS]
    digits = digit[rows].astype(np.int8)
    truth = pairfile.Truth(digits, np.char.add("noise-", rows.astype(str)), rows.astype(np.int32), "train")
    x = np.concatenate([images[rows[:, 0]], images[rows[:, 1]]], axis=2)
    return pairfile.PairFile(x, (digits[:, 0] > digits[:, 1]).astype(np.int8), truth=truth)


def run(folder: Path, verb: str, *flags: str) -> int:
    return main([verb, "--config", str(folder / "small.yaml"), *flags])


def of_run(folder: Path, *parts: str) -> Path:
    return folder.joinpath("runs", "pair-compare-stacking", *parts)


def train_file(folder: Path) -> Path:
    return folder / "data" / "pair-compare-stacking" / "digits-disjoint" / "train.npz"


def without(home: Path, name: str, fold: int) -> Path:
    return of_run(home, "small-stage2", saved.FOLDS, f"{name}.fold{fold}")


def test_every_model_once_with_all_and_once_without_each_fold(home: Path) -> None:
    stage = of_run(home, "small-stage2")
    assert {path.name for path in (stage / saved.FOLDER).iterdir()} == {"one", "two"}
    expected = {f"{name}.fold{fold}" for name in ("one", "two") for fold in range(FOLDS)}
    assert {path.name for path in (stage / saved.FOLDS).iterdir()} == expected
    found = ensemble.load(RunDir(of_run(home, "small")))
    assert list(found.models) == ["one", "two"] and not of_run(home, "small", saved.FOLDS).exists()
    assert of_run(home, "small", saved.FOLDER, "one", saved.WEIGHTS).read_bytes() == (
        (stage / saved.FOLDER / "one" / saved.WEIGHTS).read_bytes()
    )
    about = json.loads(of_run(home, "small", "evaluation", "val.json").read_text())
    assert found.decision["sentence"] in about["notes"]
    within = folds.divide(saved.read_config(stage).stacking, PairNPZDataset(train_file(home))).within()
    assert f"over {len(within):,} pairs" in found.decision["sentence"] and abs(len(within) - PAIRS / FOLDS) < 40


def test_models_saw_nothing_of_the_rows_that_they_answer(home: Path) -> None:
    """By what their configuration makes them learn from, and by what is kept with them."""
    pairs = stack.within_folds(saved.read_config(of_run(home, "small")))
    assert pairs.sources is not None and set(pairs.fold) == set(range(FOLDS))
    file = PairNPZDataset(train_file(home))
    assert file.truth is not None
    row_of = {x.numpy().tobytes(): row for row, x in enumerate(file.x)}
    for fold in range(FOLDS):
        _, config = saved.load(without(home, "one", fold))
        assert (config.name, config.seed, config.stream.fold) == (f"one.fold{fold}", 1, fold)
        batches = train.PairTask(config, Runtime.start(RuntimeSettings(device="cpu"), 0)).batches
        seen = [batch["x"] for epoch in range(2) for batch in batches.epoch(epoch)]
        pictures = (torch.cat(tuple(torch.cat(seen).unbind(1)), dim=2) * 255).round().to(torch.uint8)
        rows = np.array([row_of[x.numpy().tobytes()] for x in pictures])
        shown = set(file.truth.sources[rows].ravel())
        asked = set(pairs.sources[pairs.rows(fold)].ravel())
        assert not shown & asked and shown == saved.trained_on(without(home, "one", fold))
        assert len(np.unique(rows)) < 0.6 * PAIRS  # (2/3)^2 of them
    assert saved.trained_on(of_run(home, "small-stage2", saved.FOLDER, "one")) == set(file.truth.sources.ravel())


def test_who_remembers_has_chance_accuracy_out_of_fold(home: Path) -> None:
    """And would not have it on rows of two folds: one half was seen."""
    file, config = PairNPZDataset(train_file(home)), saved.read_config(of_run(home, "small"))
    divided = folds.divide(config.stacking, file)
    right: dict[str, list[np.ndarray]] = {"seen": [], "half seen": [], "unseen": []}
    for fold in range(FOLDS):
        model, _ = saved.load(without(home, "one", fold))
        answers = train.predict(model, file.x, Runtime.start(RuntimeSettings(device="cpu"), 0)).logit > 0
        is_right, of_fold = (answers == (file.y == 1)).numpy(), (divided.fold_N2 == fold).sum(axis=1)
        for halves, name in enumerate(right):
            right[name].append(is_right[of_fold == halves])
    accuracy = {name: np.concatenate(parts).mean() for name, parts in right.items()}
    assert accuracy["seen"] > 0.95
    assert 0.4 < accuracy["unseen"] < 0.6
    assert accuracy["half seen"] > 0.7


def test_overlap_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = without(home, "two", 1)
    before = np.array(sorted(saved.trained_on(path)))
    pairs = stack.within_folds(saved.read_config(of_run(home, "small")))
    assert pairs.sources is not None
    other, stolen = pairs.sources[pairs.fold == 0][0, 0], pairs.sources[pairs.fold == 1][0, 0]
    assert other in before
    try:
        saved.write_sources(path, np.append(before, stolen))
        assert run(home, "train", "--stage", "4") == 2
        complaint = error(capsys)
        assert f"two.fold1 on 1 (such as {stolen})" in complaint and "one.fold" not in complaint
    finally:
        saved.write_sources(path, before)


def test_missing_fold_models_are_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = without(home, "two", 1)
    aside = path.rename(path.with_name("aside"))
    try:
        assert run(home, "train", "--stage", "4") == 2
        assert "base models two.fold1: missing, or not finished; train them first (--stage 2)" in error(capsys)
    finally:
        aside.rename(path)


def test_other_folds_than_were_trained_without_are_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "train", "--stage", "4", "--stacking.seed", "8") == 2
    assert "was trained without one of 3 folds of stacking.seed 7, wanted are 3 of seed 8" in error(capsys)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--stream.kind", "generator"), "stacking.protocol: out_of_fold is for stream.kind file"),
        (("--stacking.folds", "20"), "stacking.folds: 20 folds leave "),
        (("--batch-size", "500"), "training.batch_size: 500 x 1 processes is more than the "),
        (("--stream.fold", "1"), "stream.fold: protocol out_of_fold trains several models without each fold"),
        (("--stream.fold", "3"), "stream.fold: 3 is none of the folds 0 to 2"),
        (("--stream.kind", "generator", "--stream.fold", "1"), "fold has no effect beside kind generator"),
    ],
    ids=["generator", "too-few-rows", "batch", "fold", "no-such-fold", "idle"],
)
def test_what_cannot_be_is_said_before_training(
    home: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], complaint: str
) -> None:
    assert run(home, "train", "--stage", "2", "--name", "other", *flags) == 2
    assert complaint in error(capsys)
    assert not list(of_run(home).glob("other*/checkpoints/*"))


def test_names_of_fold_models_are_taken() -> None:
    wanted = {"stream": {"kind": "file"}, "stacking": {"protocol": "out_of_fold"}}
    with pytest.raises(ValueError, match=r"models.one.fold2: protocol out_of_fold gives this name"):
        Config.model_validate({**wanted, "models": {"one": {}, "one.fold2": {}}})
    assert list(Config.model_validate({**wanted, "seeds": [3]}).singles()) == (
        ["seed_3", *(f"seed_3.fold{fold}" for fold in range(5))]
    )


def test_without_truth_folds_are_of_rows(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "train.npz"
    content = noise()
    pairfile.write(path, pairfile.PairFile(content.x, content.y))
    config = saved.read_config(of_run(home, "small"))
    file = PairNPZDataset(path)
    divided = folds.divide(config.stacking, file)
    assert len(divided.within()) == PAIRS and divided.shown(None).size == 0
    kept = [set(divided.without(fold)) for fold in range(FOLDS)]
    assert all(abs(len(rows) - PAIRS * 2 / 3) <= 2 for rows in kept) and not kept[0] & kept[1] & kept[2]
    assert (
        folds.warnings(config, file) == [folds.BY_ROW]
        and folds.warnings(config, PairNPZDataset(train_file(home))) == []
    )


def test_without_truth_training_and_stage_4_say_so(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: dict[str, object] = {}
    monkeypatch.setattr(App, "call", lambda self, verb, config, **flags: called.update(flags, verb=verb) or 0)
    shutil.copytree(of_run(home, "small-stage2"), of_run(home, "rows-stage2"))
    sidecar = pairfile.truth_path(train_file(home))
    aside = sidecar.rename(sidecar.with_name("aside.npz"))
    try:
        config = saved.read_config(without(home, "one", 0))
        task = train.PairTask(config, Runtime.start(RuntimeSettings(device="cpu"), 0))
        assert task.warnings() == [folds.BY_ROW] and train.sources(config) == []
        assert run(home, "train", "--stage", "4", "--name", "rows") == 0
        assert called["verb"] == "evaluate" and called["baseline"] is False  # which needs the truth
    finally:
        aside.rename(sidecar)
    assert f"warning: {folds.BY_ROW}" in capsys.readouterr().err
    assert folds.BY_ROW in ensemble.load(RunDir(of_run(home, "rows"))).decision["sentence"]


def test_saved_model_outlives_settings_that_are_newer(home: Path, tmp_path: Path) -> None:
    """Its digest is that of its own file: a setting that came later is not there, one that was changed is refused."""
    path = Path(shutil.copytree(of_run(home, "small", saved.FOLDER, "one"), tmp_path / "one"))
    document = yaml.safe_load((path / "config.yaml").read_text())
    del document["stacking"]["protocol"]
    (path / "config.yaml").write_text(yaml.safe_dump(document))
    own, _ = tensorfile.read(path / saved.WEIGHTS)
    tensorfile.write(path / saved.WEIGHTS, own, {"config": configuration.digest(saved.read_config(path), document)})
    assert saved.load(path)[1].stacking.protocol == "withheld"
    for key, value in (("pairs", 200), ("protocol", "withheld")):
        other = {**document, "stacking": {**document["stacking"], key: value}}
        (path / "config.yaml").write_text(yaml.safe_dump(other))
        with pytest.raises(UserError, match="was trained with another configuration"):
            saved.load(path)


class Numbered(Batches):
    batches_per_epoch, batch_size = 3, 1

    def epoch(self, epoch: int, start: int = 0):  # type: ignore[no-untyped-def]
        yield from (3 * epoch + k for k in range(start, 3))


def test_epochs_of_another_length_go_through_the_same_batches() -> None:
    for length in (1, 2, 3, 5, 7):
        recut = folds.Recut(Numbered(), length)
        assert [number for epoch in range(4) for number in recut.epoch(epoch)] == list(range(4 * length))
        assert list(recut.epoch(2, length - 1)) == [3 * length - 1]


def test_division_depends_on_images_alone(home: Path) -> None:
    wanted, file = saved.read_config(of_run(home, "small")).stacking, PairNPZDataset(train_file(home))
    first = folds.divide(wanted, file)
    assert np.array_equal(first.fold_N2, folds.divide(wanted, file).fold_N2)
    assert not np.array_equal(first.fold_N2, folds.divide(wanted.model_copy(update={"seed": 8}), file).fold_N2)
    assert file.truth is not None
    fold_of = dict(zip(file.truth.sources.ravel(), first.fold_N2.ravel(), strict=True))
    assert np.array_equal(first.fold_N2, np.vectorize(fold_of.get)(file.truth.sources))
    of_digit = {digit: [0] * FOLDS for digit in range(10)}
    for source, fold in fold_of.items():
        of_digit[int(source.removeprefix("noise-")) % 10][fold] += 1
    assert all(counts == [3, 3, 3] for counts in of_digit.values())
    with pytest.raises(UserError, match="20 are the fewest"):
        folds.divide(wanted.model_copy(update={"folds": 20}), file)


def test_only_models_that_are_stacked_are_trained_without_folds() -> None:
    values = {"stream": {"kind": "file"}, "stacking": {"protocol": "out_of_fold"}}
    models = {"early": {"stage": 1}, "one": {"stage": 2}, "two": {"stage": 3}}
    config = Config.model_validate({**values, "models": models})
    assert config.without_folds("early") == () and len(config.without_folds("one")) == config.stacking.folds
    chosen = config.model_copy(update={"stacking": config.stacking.model_copy(update={"models": ("early", "two")})})
    assert chosen.without_folds("one") == () and len(chosen.without_folds("early")) == config.stacking.folds
