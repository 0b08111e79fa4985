"""Distillation: a student learns a teacher's answers, and nothing of the teacher ends up in the student."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import error

from pair_compare_stacking import ensemble, losses, saved, stackers, subject, teacher, train
from pair_compare_stacking.__main__ import main
from pair_compare_stacking.config import Config
from pair_compare_stacking.model import Prediction
from pair_compare_stacking.pairs import PairNPZDataset, halves
from shared_core import files, records, report, runs, trainer, weights
from shared_core.errors import UserError
from shared_core.records import RunDir
from shared_core.runtime import Runtime

TINY = [
    *("--data.n_train", "60", "--data.n_val", "40", "--data.n_test_public", "30", "--severity", "1"),
    *("--stream.pairs_per_epoch", "160", "--epochs", "2", "--batch-size", "32", "--model.widths", "8,16"),
    *("--model.layers", "1,1", "--model.feat_dim", "8", "--model.hidden", "4", "--logging.tracker", "none"),
    *("--runtime.device", "cpu", "--runtime.threads", "1", "--logging.progress", "false", "--optimizer.name", "muon"),
    *("--training.ema_decay", "0.5", "--lr", "0.01"),
]
TEACHERS = {
    "fusion_1.0": {"stage": 2, "model": {"heads": ["difference", "residual"], "attention": "cbam"}},
    "fpn": {"stage": 3, "seed": 5, "model": {"architecture": "fpn"}},
}


@pytest.fixture(scope="module", autouse=True)
def _without_reports() -> Iterator[None]:
    """They take longer than everything else here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "write", lambda found, *more, **named: found[0] / "report.html")
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run `few` of two models, and the same one combined by stage 4's methods as `stacked`."""
    folder = tmp_path_factory.mktemp("distill")
    (folder / "few.yaml").write_text(f"models: {json.dumps(TEACHERS)}\n")
    (folder / "students.yaml").write_text('models: {"first": {}, "second": {"seed": 3, "loss": {"kind": "focal"}}}\n')
    assert run(folder, "prepare") == 0
    assert run(folder, "train", "--config", str(folder / "few.yaml"), "--name", "few", "--epochs", "8") == 0
    shutil.copytree(of_run(folder, "few"), of_run(folder, "stacked"))
    combine(folder, "mean")
    return folder


def run(folder: Path, verb: str, *flags: str) -> int:
    return main([verb, "--paths.data", str(folder / "data"), "--paths.runs", str(folder / "runs"), *TINY, *flags])


def taught(folder: Path, name: str, *flags: str, by: str = "stacked") -> int:
    return run(folder, "train", "--name", name, "--distill.teacher", by, "--distill.soft", "1", *flags)


def of_run(folder: Path, *parts: str) -> Path:
    return folder.joinpath("runs", "pair-compare-stacking", *parts)


def combine(folder: Path, chosen: str) -> None:
    """Fit every method on answers that suit none of the models."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 120)
    logit_NM = (2 * y - 1)[:, None] * np.array([3.0, 0.5]) + rng.normal(size=(120, 2)) * np.array([4.0, 0.3])
    names = sorted(TEACHERS)
    fitted = {
        method: stackers.fit(method, logit_NM, y, np.arange(120) % 3, names)
        for method in (*stackers.METHODS, stackers.BEST_SINGLE)
    }
    ensemble.write(RunDir(of_run(folder, "stacked")), fitted, {"method": chosen, "sentence": "for the test"})


def config_of(folder: Path, name: str, **distill: Any) -> Config:
    config = saved.read_config(of_run(folder, name))
    return config.model_copy(update={"distill": config.distill.model_copy(update=distill)} if distill else {})


def started(config: Config) -> Runtime:
    return Runtime.start(config.runtime, config.seed)


def val(folder: Path) -> torch.Tensor:
    """Pictures uint8 (40, 28, 56)."""
    return PairNPZDataset(folder / "data/pair-compare-stacking/digits-disjoint/val.npz").x


def newest(folder: Path, *parts: str, which: Any = "auto") -> dict[str, torch.Tensor]:
    return weights.load_weights(runs.checkpoint(RunDir(of_run(folder, *parts)), "latest"), which)


def everything(folder: Path) -> dict[str, str]:
    return {str(path): files.sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def student(home: Path) -> Path:
    """A run that learned from nothing but its teacher."""
    assert taught(home, "student", "--epochs", "6") == 0
    return of_run(home, "student")


@pytest.mark.parametrize("method", [*stackers.METHODS, stackers.BEST_SINGLE])
def test_teacher_answers_as_the_ensemble_does(home: Path, method: str) -> None:
    combine(home, method)
    config = config_of(home, "few", teacher="stacked")
    runtime = started(config)
    who = subject.of_run(RunDir(of_run(home, "stacked")), config)
    assert isinstance(who, subject.Several) and who.method == method
    expected = who.answer(val(home), runtime).prediction
    answer = teacher.load(config, runtime)(halves(val(home)))
    torch.testing.assert_close(answer.logit, expected.logit.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(answer.digit_logits, expected.digit_logits, rtol=1e-5, atol=1e-5)
    assert answer.logit.dtype == torch.float32 and not answer.logit.requires_grad
    assert answer.logit.std() > 0.05
    combine(home, "mean")


@pytest.mark.parametrize("method", [*stackers.METHODS, stackers.BEST_SINGLE])
def test_combination_holds_far_from_what_it_was_fitted_on(home: Path, method: str) -> None:
    """Also where float32 has lost all of 1 - p, and where the ensemble bounds its log-odds."""
    found = ensemble.load(RunDir(of_run(home, "stacked")))
    generator = torch.Generator().manual_seed(1)
    for scale in (0.1, 3.0, 10.0, 30.0, 1000.0):
        logit_MB = scale * torch.randn(2, 50, generator=generator)
        base = {name: Prediction(row, torch.zeros(50, 2, 10)) for name, row in zip(found.models, logit_MB, strict=True)}
        ours = teacher.combination(found.stackers[method], logit_MB.device)(logit_MB)
        torch.testing.assert_close(ours, found.combine(base, method).logit.float(), rtol=1e-5, atol=2e-5)


def test_student_moves_towards_its_teacher(home: Path, student: Path) -> None:
    config = saved.read_config(student)
    model = train.build_model(config).eval()
    guide = teacher.load(config, started(config))
    pictures = halves(val(home))

    def distance() -> float:
        with torch.no_grad():
            return float(losses.imitate(model(pictures), guide(pictures), 1.0, 1.0))

    before = distance()
    model.load_state_dict(newest(home, "student"))
    assert before > 0.1
    assert distance() < 0.6 * before
    logged = [row["train/distill_loss"] for row in records.read_metrics(student) if "train/distill_loss" in row]
    assert logged[-1] < logged[0]


def test_with_soft_one_nothing_is_learned_from_the_labels(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert taught(home, "seeing", "--epochs", "1") == 0
    total = losses.total

    def blind(prediction: Prediction, y: torch.Tensor, digits: torch.Tensor, *more: Any) -> Any:
        return total(prediction, 1 - y, digits.flip(0), *more)

    monkeypatch.setattr(losses, "total", blind)
    assert taught(home, "blind", "--epochs", "1", "--training.eval_every", "9") == 0
    seeing, unseeing = newest(home, "seeing"), newest(home, "blind")
    assert all(torch.equal(seeing[name], unseeing[name]) for name in seeing)


@pytest.mark.parametrize("by", ["few", "few/models/fpn", "student", None])
def test_another_teacher_makes_another_student(home: Path, student: Path, by: str | None) -> None:
    """A run of several models without stage 4, a saved model, a run of one model, and none."""
    name = f"by-{str(by).replace('/', '-')}"
    flags = [] if by is None else ["--distill.teacher", by, "--distill.soft", "1"]
    assert taught(home, "by-stacked", "--epochs", "1", "--training.resume", "never") == 0
    assert run(home, "train", "--name", name, *flags, "--epochs", "1") == 0
    ours, other = newest(home, name), newest(home, "by-stacked")
    assert ours.keys() == other.keys()
    assert not torch.equal(ours["tower.stem.weight"], other["tower.stem.weight"])
    made_from = RunDir(of_run(home, name)).read_run().get("made_from")
    assert (made_from is None) == (by is None)


def test_teacher_is_not_in_the_student(home: Path, student: Path) -> None:
    """Not in its weights, their averages or the optimizer; and the teacher is as it was."""
    before = everything(of_run(home, "stacked"))
    assert taught(home, "alone", "--epochs", "1") == 0
    assert everything(of_run(home, "stacked")) == before
    config = saved.read_config(of_run(home, "alone"))
    own = train.build_model(config).state_dict()
    for which in ("model", "ema"):
        assert newest(home, "alone", which=which).keys() == own.keys()
    path = runs.checkpoint(RunDir(of_run(home, "alone")), "latest")
    assert sum(file.stat().st_size for file in path.glob("*.safetensors")) < 5 * sum(t.nbytes for t in own.values())
    runtime = started(config)
    task = train.PairTask(config, runtime)
    task.loss(task.model, next(iter(task.batches.epoch(0))))[0].backward()
    guide = task.material.teacher
    assert guide is not None and len(guide.models) == 2
    for model in guide.models:
        assert not model.training
        assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is not None for name, parameter in task.model.named_parameters() if "out" not in name)


def test_resumed_is_as_uninterrupted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert taught(home, "whole") == 0
    step = trainer.Trainer._step

    def interrupted(self: trainer.Trainer, group: list[Any]) -> None:
        step(self, group)
        if self.progress.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_step", interrupted)
        assert taught(home, "parts") == 75
    assert taught(home, "parts") == 0
    for which in ("model", "ema"):
        whole, parts = newest(home, "whole", which=which), newest(home, "parts", which=which)
        assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_run_goes_on_with_the_same_teacher_only(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named alike, and of the same content; moving it is no change."""
    shutil.copytree(of_run(home, "stacked"), of_run(home, "guide"))
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_epoch", lambda self: "preempted")
        assert taught(home, "loyal", by="guide") == 75
    assert not list(of_run(home, "loyal", "checkpoints").glob("step-*"))
    step = trainer.Trainer._step

    def interrupted(self: trainer.Trainer, group: list[Any]) -> None:
        step(self, group)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_step", interrupted)
        assert taught(home, "loyal", by="guide") == 75
    capsys.readouterr()
    assert taught(home, "loyal", by="few") == 2
    assert "distill.teacher" in error(capsys)
    stacker = of_run(home, "guide", "preprocessing", "stacker.json")
    kept = stacker.read_text()
    about = json.loads(kept)
    about["stackers"]["mean"]["temperatures"][0] *= 1.5
    stacker.write_text(json.dumps(about))
    assert taught(home, "loyal", by="guide") == 2
    assert "distill.teacher" in (line := error(capsys)) and "guide has changed since the run was started" in line
    stacker.write_text(kept)
    assert taught(home, "loyal", by="guide") == 0


def test_run_says_who_taught_it(home: Path, student: Path) -> None:
    about = RunDir(student).read_run()["made_from"]["distill.teacher"]
    assert about["path"] == str(of_run(home, "stacked").resolve())
    assert about["answers"] == "mean" and len(about["sha256"]) == 64
    config = saved.read_config(student)
    digests = {teacher.load(config, started(config)).describe()["sha256"]}
    assert digests == {about["sha256"]}
    for name in ("few", "few/models/fpn", "few/models/fusion_1.0", "student"):
        digests.add(teacher.load(config_of(home, "student", teacher=name), started(config)).describe()["sha256"])
    assert len(digests) == 5
    known = saved.trained_on(of_run(home, "few", "models", "fpn"))
    assert saved.trained_on(student) >= known


def test_several_students_are_as_each_alone(home: Path) -> None:
    config = ["--config", str(home / "students.yaml")]
    flags = ["--distill.teacher", "stacked", "--distill.soft", "0.6", "--epochs", "1"]
    assert run(home, "train", *config, "--name", "class", *flags) == 0
    log = records.read_metrics(of_run(home, "class"))
    assert {"train/first/loss", "train/second/loss"} <= log[0].keys()
    assert "distill.teacher" in RunDir(of_run(home, "class")).read_run()["made_from"]
    for name in ("first", "second"):
        path = of_run(home, "class", "models", name)
        assert saved.read_config(path).distill.teacher == "stacked"
        assert main(["train", "--config", str(path / "config.yaml"), "--name", f"only-{name}"]) == 0
        together, alone = weights.load_weights(path), newest(home, f"only-{name}")
        assert together.keys() == alone.keys()
        for key, tensor in alone.items():
            torch.testing.assert_close(tensor, together[key], rtol=1e-5, atol=1e-6, msg=key)


def test_several_students_share_one_teacher(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    load = teacher.load
    monkeypatch.setattr(teacher, "load", lambda *arguments: calls.append("loaded") or load(*arguments))
    flags = ["--config", str(home / "students.yaml"), "--distill.teacher", "few", "--epochs", "1"]
    assert run(home, "train", "--name", "shared", *flags) == 0
    assert calls == ["loaded"]


@pytest.mark.parametrize(
    ("by", "complaint"),
    [
        ("stakced", "stakced: no such run (did you mean stacked?); there are "),
        ("few/models/fnp", "few/models/fnp: no such run"),
        ("/nowhere/at/all", "/nowhere/at/all: no such run"),
    ],
)
def test_missing_teacher(home: Path, capsys: pytest.CaptureFixture[str], by: str, complaint: str) -> None:
    assert taught(home, "orphan", by=by) == 2
    assert error(capsys).startswith(f"error: distill.teacher: {complaint}")
    assert not of_run(home, "orphan").exists()


def test_teacher_that_is_still_learning_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And is left as it is: models that are saved too early would be taken for the finished ones."""
    shutil.copytree(of_run(home, "few"), of_run(home, "young"))
    shutil.rmtree(of_run(home, "young", "models"))
    assert taught(home, "early", by="young") == 2
    assert "young: has no saved models yet" in error(capsys)
    assert not of_run(home, "young", "models").exists()


def test_damaged_teacher_is_one_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(of_run(home, "stacked"), of_run(home, "torn"))
    of_run(home, "torn", "models", "fpn", "model.safetensors").unlink()
    assert taught(home, "unlucky", by="torn") == 2
    assert "models/fpn: has no model.safetensors" in error(capsys)


def test_only_training_needs_the_teacher(home: Path, student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    away = of_run(home, "stacked").rename(home / "away")
    try:
        assert run(home, "evaluate", "--name", "student", "--baseline", "false", "--split", "val") == 0
        assert run(home, "predict", "--name", "student") == 0
        assert run(home, "export", "--name", "student") == 0
        config = saved.read_config(student)
        task = train.PairTask(config, started(config))
        with torch.no_grad():  # so do the formats of `export` that trace the model
            task.loss(task.model.eval(), next(iter(task.batches.epoch(0))))
        capsys.readouterr()
        assert taught(home, "late") == 2
        assert "stacked: no such run" in error(capsys)
    finally:
        away.rename(of_run(home, "stacked"))


def test_no_teacher_is_loaded_where_none_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any) -> None:
        raise AssertionError("loaded a teacher")

    monkeypatch.setattr(teacher, "load", refused)
    assert run(home, "train", "--name", "plain", "--epochs", "1") == 0


def test_teacher_of_other_pairs_is_a_warning(home: Path) -> None:
    other = ["--data.name", "harder", "--severity", "4", "--data.weight_diff1", "0.5"]
    assert run(home, "prepare", *other) == 0
    assert taught(home, "abroad", *other, "--epochs", "1") == 0
    warning = records.read_warnings(RunDir(of_run(home, "abroad")))[0]
    assert (
        "distill.teacher: stacked: was trained on other pairs: data.severity 1 instead of 4, data.weight_d" in warning
    )
    assert taught(home, "at-home", "--epochs", "1") == 0
    assert records.read_warnings(RunDir(of_run(home, "at-home"))) == []


def test_teacher_that_knows_val_is_a_warning(home: Path) -> None:
    """Another split of the same source images; ids of another source mean other images."""
    other = ["--data.name", "resplit", "--data.split_seed", "1"]
    assert run(home, "prepare", *other) == 0
    assert taught(home, "flattered", *other, "--epochs", "1") == 0
    (warning,) = records.read_warnings(RunDir(of_run(home, "flattered")))
    folder = home / "data/pair-compare-stacking"
    truth = PairNPZDataset(folder / "resplit/val.npz").truth
    assert truth is not None
    known = saved.trained_on(of_run(home, "few", "models", "fpn"))
    share = np.mean([str(name) in known for name in truth.sources.ravel()])
    assert 0.3 < share < 1
    assert f"was trained on source images of val.npz ({share:.1%} of its halves)" in warning
    assert saved.trained_on(of_run(home, "flattered")) & {str(name) for name in truth.sources.ravel()}
    config = config_of(home, "flattered")
    guide = teacher.load(config, started(config))
    (only,) = guide.warnings(config.data.model_copy(update={"source": "mnist"}), truth.sources)
    assert "data.source digits instead of mnist" in only


def test_plain_mean_of_models_that_stage_4_has_not_seen_is_a_warning(home: Path) -> None:
    config = config_of(home, "few", teacher="few")
    (warning,) = teacher.load(config, started(config)).warnings(config.data, None)
    assert "few: answers with the plain mean" in warning and "stage 4 has not been run" in warning


def test_checkpoint_can_be_named(home: Path, student: Path) -> None:
    steps = sorted(student.glob("checkpoints/step-*"), key=lambda path: int(path.name.removeprefix("step-")))
    config = config_of(home, "student", teacher=str(steps[0]))
    first = teacher.load(config, started(config))
    assert first.describe()["answers"] == steps[0].name
    other = teacher.load(config_of(home, "student", teacher=str(steps[-1])), started(config))
    pictures = halves(val(home))
    assert not torch.equal(first(pictures).logit, other(pictures).logit)
    with pytest.raises(UserError, match=r"^distill.teacher: "):
        teacher.load(config_of(home, "student", teacher=str(student / "figures")), started(config))
