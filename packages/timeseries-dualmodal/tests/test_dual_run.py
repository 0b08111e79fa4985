"""The whole command on a tiny set: prepare, train, evaluate, predict, a stream, and what goes wrong."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import error

from shared_core import records
from shared_core.errors import UserError
from shared_core.records import RunDir
from shared_core.runtime import Runtime
from timeseries_dualmodal import prepare, saved, stopping, subject, train
from timeseries_dualmodal.__main__ import APP, main
from timeseries_dualmodal.decision import Decided
from timeseries_dualmodal.series import SeriesSet
from timeseries_dualmodal.stream import Stream
from timeseries_dualmodal.subject import Trained

TINY = [
    *("--data.sample-size", "150", "--data.variables", "ndvi,lswi", "--pictures.size", "16", "--epochs", "2"),
    *("--batch-size", "32", "--curriculum.prefixes", "2", "--model.dim", "16", "--model.language.dim", "16"),
    *("--model.language.depth", "1", "--model.vision.dim", "16", "--model.vision.channels", "8,8"),
    *("--evaluation.every", "6", "--evaluation.lengths", "2,12", "--logging.tracker", "none"),
    *("--runtime.device", "cpu", "--runtime.threads", "1", "--logging.progress", "false", "--name", "tiny"),
]
LENGTHS = (2, 6, 12, 18, 24, 30, 36, 37)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    assert run(folder, "prepare") == 0
    assert run(folder, "train") == 0
    return folder


def run(folder: Path, verb: str, *flags: str) -> int:
    return main([verb, "--paths.data", str(folder / "data"), "--paths.runs", str(folder / "runs"), *TINY, *flags])


def of_run(folder: Path, *parts: str) -> Path:
    return folder.joinpath("runs", "timeseries-dualmodal", "tiny", *parts)


def trained(folder: Path) -> Trained:
    config = APP.load(of_run(folder, "config.yaml"))
    return subject.of_run(RunDir(of_run(folder)), config, "best", torch.device("cpu"))


def test_of(folder: Path) -> SeriesSet:
    return train.Material.load(APP.load(of_run(folder, "config.yaml"))).part("test")


test_of.__test__ = False  # type: ignore[attr-defined]


def test_training_leaves_what_answers_need(home: Path) -> None:
    about = json.loads(of_run(home, "preprocessing", "series.json").read_text())
    assert about["variables"] == ["ndvi", "lswi"]
    assert len(about["times"]) == 37
    found = json.loads(of_run(home, "preprocessing", "decision.json").read_text())
    assert tuple(found["rule"]["lengths"]) == LENGTHS
    assert len(found["temperatures"]) == len(LENGTHS)
    rows = records.read_metrics(of_run(home))
    assert {"val/macro_f1", "val/macro_f1_2", "val/macro_f1_12", "val/macro_f1_37", "val/loss"} <= set(rows[-1])


@pytest.fixture(scope="module")
def evaluation(home: Path) -> dict[str, Any]:
    assert run(home, "evaluate") == 0
    return json.loads(of_run(home, "evaluation", "test.json").read_text())


def test_evaluation_stands_beside_baselines_with_intervals(evaluation: dict[str, Any]) -> None:
    metrics = evaluation["metrics"]
    assert {"macro_f1", "accuracy_full", "ece_full", "decision_harmonic_mean", "decision_fraction_observed"} <= set(
        metrics
    )
    assert metrics["macro_f1"]["low"] <= metrics["macro_f1"]["value"] <= metrics["macro_f1"]["high"]
    assert set(evaluation["baselines"]) == {
        "logistic regression", "random forest", "hist gradient boosting", "minirocket ridge",
    }  # fmt: skip
    for about in evaluation["baselines"].values():
        assert about["differences"]["macro_f1"]["value"] == pytest.approx(
            metrics["macro_f1"]["value"] - about["macro_f1"]["value"]
        )


def test_tables_report_every_length_also_those_shorter_than_a_patch(evaluation: dict[str, Any]) -> None:
    """The predecessor skipped steps that were fewer than a patch, then failed on their missing result."""
    [by_length, accuracies, by_class, *groups, decisions, parts, prices] = evaluation["tables"].values()
    assert [row["steps"] for row in by_length] == [row["steps"] for row in accuracies] == [2, 12, 37]
    mean = np.mean([row["model"]["value"] for row in by_length])
    assert evaluation["metrics"]["macro_f1"]["value"] == pytest.approx(mean)
    assert [row["class"] for row in by_class] == ["maize", "rice", "soybean", "wheat"]
    assert sum(row["series"] for row in by_class) == evaluation["n"]
    assert [row["steps"] for row in parts] == [2, 12, 37, "mean", "gain of both"]
    assert parts[0]["model"] == by_length[0]["model"] and parts[3]["model"] == evaluation["metrics"]["macro_f1"]
    gain = parts[3]["model"]["value"] - parts[3]["trees alone"]["value"]
    assert parts[4]["trees alone"]["value"] == pytest.approx(gain)
    assert not groups  # of 30 series each field, region and year has too few
    assert [row["price of waiting"] for row in prices] == ["0.05", "0.1", "0.2", "0.5", "1", "mean"]
    of_rule = [row["the rule"]["value"] for row in prices]
    assert evaluation["metrics"]["average_cost"]["value"] == pytest.approx(np.mean(of_rule[:-1])) == of_rule[-1]
    assert [row["answered"] for row in decisions] == ["by the rule", *(f"after {n} steps" for n in (2, 12, 37))]


def test_figures_are_there(home: Path, evaluation: dict[str, Any]) -> None:
    names = [Path(name).name for name in evaluation["figures"]]
    assert names == [f"test_{name}.png" for name in ("curve", "confusion_12", "confusion_37", "pictures", "decisions")]
    assert all(of_run(home, "figures", name).stat().st_size > 5000 for name in names)


def test_completing_twice_changes_nothing(home: Path, tmp_path: Path) -> None:
    """A run that is trained further, or was killed at the very end, has old files: they must not answer."""
    copy = RunDir(Path(shutil.copytree(of_run(home), tmp_path / "again")))
    before = {path.name: path.read_bytes() for path in copy.preprocessing.iterdir()}
    saved.complete(copy)
    assert {path.name: path.read_bytes() for path in copy.preprocessing.iterdir()} == before
    assert "trees.safetensors" in before


def test_a_flag_does_not_take_the_trees_from_a_trained_run(home: Path, tmp_path: Path) -> None:
    for name, flags in (("plain", ()), ("without", ("--model.trees.rounds", "0"))):
        assert run(home, "predict", "--out", str(tmp_path / name), *flags) == 0
    assert (tmp_path / "plain").read_text() == (tmp_path / "without").read_text()


def test_trees_that_count_must_be_there(home: Path, tmp_path: Path) -> None:
    copy = RunDir(Path(shutil.copytree(of_run(home), tmp_path / "again")))
    (copy.preprocessing / "trees.safetensors").unlink()
    who = trained(home)
    assert who.decided is not None
    assert saved.trees(copy, who.about, replace(who.decided, share=0.0)) is None
    with pytest.raises(UserError, match="is missing; train the model again, or pull it again"):
        saved.trees(copy, who.about, replace(who.decided, share=0.5))


def test_without_trees_only_networks_answer(home: Path) -> None:
    who, series = trained(home), test_of(home)
    assert who.decided is not None and who.trees is not None
    said = who.parts(series.x, LENGTHS)
    for share, part in ((0.0, subject.NETWORKS), (1.0, subject.TREES)):
        one = replace(who, decided=replace(who.decided, share=share))
        assert np.array_equal(one.probabilities(series.x, LENGTHS), said[part])


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("trees", 1.5, "share from 0 to 1"),
        ("trees", "many", "could not convert"),
        ("weights", [[1, 1, 1, 1]], "positive weights"),
        ("weights", None, "positive weights"),
        ("temperatures", [1], "positive temperatures"),
    ],
)
def test_what_was_fitted_is_read_strictly(home: Path, key: str, value: Any, words: str) -> None:
    who = trained(home)
    assert who.decided is not None
    about = who.decided.as_dict()
    assert Decided.from_dict(about).as_dict() == about
    with pytest.raises((ValueError, TypeError), match=words):
        Decided.from_dict({**about, key: value})
    about["weights"][0][0] = -1.0
    with pytest.raises(ValueError, match="positive weights"):
        Decided.from_dict(about)


def answers(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def test_predictions_are_those_of_the_rule(home: Path) -> None:
    assert run(home, "predict") == 0
    rows = answers(of_run(home, "predictions", "test.csv"))
    who, series = trained(home), test_of(home)
    assert who.decided is not None
    assert [row["id"] for row in rows] == series.ids.tolist()
    p_NLK = who.decided.calibrated(who.probabilities(series.x, LENGTHS))
    found = stopping.decide(who.decided.rule, p_NLK)
    assert [row["answer"] for row in rows] == [who.about.classes[k] for k in found.answer_N]
    assert [int(row["steps"]) for row in rows] == [LENGTHS[k] for k in found.stop_N]
    total = [sum(float(row[f"p_{name}"]) for name in who.about.classes) for row in rows]
    assert np.allclose(total, 1, atol=1e-3)
    assert all(row["probability"] == row[f"p_{row['answer']}"] for row in rows)


def test_predictions_may_be_those_that_macro_f1_wants(home: Path, tmp_path: Path) -> None:
    """When it is answered stays; what is answered is often a rarer class."""
    assert run(home, "predict", "--out", str(tmp_path / "plain.csv")) == 0
    assert run(home, "predict", "--answers", "macro_f1", "--out", str(tmp_path / "wanted.csv")) == 0
    plain, wanted = answers(tmp_path / "plain.csv"), answers(tmp_path / "wanted.csv")
    who = trained(home)
    assert who.decided is not None
    others = 0
    for first, second in zip(plain, wanted, strict=True):
        assert {**second, "answer": "", "probability": ""} == {**first, "answer": "", "probability": ""}
        weights_K = who.decided.weights_LK[LENGTHS.index(int(second["steps"]))]
        p_K = [float(second[f"p_{name}"]) for name in who.about.classes]
        weighed_K = dict(zip(who.about.classes, p_K * weights_K, strict=True))
        assert weighed_K[second["answer"]] >= max(weighed_K.values()) * 0.98  # of rounded numbers
        others += second["answer"] != first["answer"]
    assert others


def test_a_prefix_may_be_too_short_for_an_answer(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "early.csv"
    assert run(home, "predict", "--steps", "7", "--out", str(out)) == 0
    rows = answers(out)
    assert {row["steps"] for row in rows} <= {"2", "6"}
    whole = {row["id"]: row for row in answers(of_run(home, "predictions", "test.csv"))}
    for row in rows:
        if row["answer"] == "not yet":
            assert int(whole[row["id"]]["steps"]) > 6
        else:
            assert row == whole[row["id"]]  # an answer once given stays


def test_a_file_is_read_as_the_model_knows_its_series(home: Path, tmp_path: Path) -> None:
    """In another order of variables, without labels, and only as far as the season has come."""
    series = test_of(home)
    path = tmp_path / "new.csv"
    columns = [(v, t) for v in (1, 0) for t in range(12)]
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", *(f"{series.variables[v]}_{series.times[t]:g}" for v, t in columns)])
        for name, x_VT in zip(series.ids, series.x, strict=True):
            writer.writerow([name, *("" if np.isnan(x_VT[v, t]) else repr(float(x_VT[v, t])) for v, t in columns)])
    outs = tmp_path / "file.csv", tmp_path / "split.csv"
    assert run(home, "predict", "--input", str(path), "--out", str(outs[0])) == 0
    assert run(home, "predict", "--steps", "12", "--out", str(outs[1])) == 0
    assert outs[0].read_text() == outs[1].read_text()  # also in the last digit


def test_a_stream_decides_what_the_whole_series_decides(home: Path) -> None:
    who, series = trained(home), test_of(home)
    assert who.decided is not None
    p_NLK = who.decided.calibrated(who.probabilities(series.x, LENGTHS))
    whole = stopping.decide(who.decided.rule, p_NLK)
    stream = Stream(who, len(series))
    for step in range(series.steps):
        now = stream.update(series.x[:, :, step])
        if step + 1 in LENGTHS:
            assert now.p_NK is not None
            assert np.allclose(now.p_NK, p_NLK[:, LENGTHS.index(step + 1)], atol=1e-5)
        else:
            assert now.p_NK is None
    assert now.answers == tuple(who.about.classes[k] for k in whole.answer_N)
    assert now.steps_N.tolist() == [LENGTHS[k] for k in whole.stop_N]
    with pytest.raises(ValueError, match="all 37 steps are there"):
        stream.update(series.x[:, :, 0])


def test_a_stream_does_not_answer_before_it_is_decided(home: Path) -> None:
    who, series = trained(home), test_of(home)
    assert who.decided is not None
    never = {"rule": "confidence", "lengths": list(LENGTHS), "classes": 4, "threshold": 2.0, "agreement": 1}
    patient = replace(who.decided, rule=stopping.from_dict(never))
    who = subject.Trained(**{**vars(who), "decided": patient})
    stream = Stream(who, len(series), forced=False)
    said = [stream.update(series.x[:, :, step]).answers for step in range(series.steps)]
    assert said == [(None,) * len(series)] * series.steps
    with pytest.raises(ValueError, match="must be"):
        Stream(who, 3).update(series.x[:2, :, 0])


def test_nothing_after_a_step_moves_a_picture_or_an_answer_by_a_bit(home: Path) -> None:
    """The predecessor's early scores saw the pictures of the whole year."""
    who, series = trained(home), test_of(home)
    assert who.eyes is not None
    changed = series.x.copy()
    changed[:, :, 12:] = np.random.default_rng(0).normal(size=changed[:, :, 12:].shape)
    lengths = torch.full((len(series), 1), 12)
    rows = torch.arange(len(series))
    seen = [who.eyes.see(torch.from_numpy(x), lengths, rows)[1] for x in (series.x, changed)]
    assert torch.equal(*seen)
    before, after = who.probabilities(series.x, (12,)), who.probabilities(changed, (12,))
    assert np.array_equal(before, after)


@pytest.mark.parametrize("kind", ["language_only", "vision_only", "numeric"])
def test_every_type_trains_and_predicts(home: Path, kind: str) -> None:
    name = kind.replace("_", "-")
    assert run(home, "train", "--model_type", kind, "--epochs", "1", "--name", name) == 0
    assert run(home, "predict", "--run", name) == 0


def test_the_scale_is_fitted_on_training_series_alone(home: Path) -> None:
    config = APP.load(of_run(home, "config.yaml"))
    material = train.Material.load(config)
    x = material.part("train").x
    scale = trained(home).model.scales[0]
    assert np.allclose(scale.mean_V, np.nanmean(x, axis=(0, 2)), rtol=1e-4)
    assert np.allclose(scale.std_V, np.nanstd(x, axis=(0, 2)), rtol=1e-4)
    assert np.allclose(scale.low_V, np.nanquantile(x, 0.005, axis=(0, 2)), rtol=1e-3, atol=1e-3)


def test_a_resume_jumps_to_the_same_batches_and_stage(home: Path) -> None:
    """The lengths follow the epoch's stage, and nothing has to be replayed."""
    stages = ({"until": 1, "shortest": 0.9}, {"longest": 0.1})
    config = APP.load(of_run(home, "config.yaml"), {"curriculum.stages": stages, "augment.noise": 0.1})
    task = train.EarlyTask(config, Runtime.start(config.runtime, config.seed))
    first, second = ([*task.batches.epoch(epoch)] for epoch in (0, 1))
    assert min(int(batch["length"].min()) for batch in first) >= 33
    assert max(int(batch["length"].max()) for batch in second) <= 4
    again = train.EarlyTask(config, Runtime.start(config.runtime, config.seed))
    for batch, same in zip(second[1:], again.batches.epoch(1, start=1), strict=True):
        assert batch.keys() == same.keys() == {"x", "y", "length", "row", "seen"}
        assert all(torch.equal(batch[key].nan_to_num(-9.0), same[key].nan_to_num(-9.0)) for key in batch)


def test_a_second_target_needs_its_column(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "train", "--loss.also", "regoin", "--name", "also") == 2
    assert "loss.also: regoin is no column of data.groups" in error(capsys)
    assert run(home, "train", "--loss.also", "region", "--epochs", "1", "--logging.every", "1", "--name", "also") == 0
    assert any("train/also" in row for row in records.read_metrics(of_run(home).parent / "also"))
    assert json.loads((of_run(home).parent / "also/preprocessing/series.json").read_text())["also"]
    assert run(home, "predict", "--run", "also") == 0


def test_a_run_is_judged_on_the_data_and_the_split_it_was_trained_with(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else series that it learned from could be among those that judge it."""
    series = prepare.load(home / "data" / prepare.PACKAGE / "sample")
    source = tmp_path / "fields.npz"
    flags = ("--data.source", str(source), "--data.variables", "ndvi,lswi", "--name", "own")

    def write(rows: int) -> None:
        named = {"x": series.x, "y": np.array(series.classes)[series.y], "ids": series.ids}
        common = {"variables": series.variables, "times": series.times}
        np.savez(source, **{key: values[:rows] for key, values in named.items()}, **common)

    write(120)
    assert run(tmp_path, "prepare", *flags) == 0
    assert run(tmp_path, "train", *flags, "--epochs", "1") == 0
    assert run(tmp_path, "predict", *flags) == 0
    assert run(tmp_path, "predict", *flags, "--split.seed", "7") == 2
    assert "was trained with another split (seed: 42 -> 7)" in error(capsys)
    write(150)
    assert run(tmp_path, "train", *flags, "--resume", "never") == 2
    assert "has changed since it was prepared" in error(capsys)
    assert run(tmp_path, "prepare", *flags) == 0
    assert run(tmp_path, "predict", *flags) == 2
    assert "is another data set than" in error(capsys)
    assert run(tmp_path, "evaluate", *flags) == 2
    assert "is another data set than" in error(capsys)
    assert run(tmp_path, "predict", *flags, "--input", str(source)) == 0
    unfinished = tmp_path / "runs" / "timeseries-dualmodal" / "own"
    RunDir(unfinished).status("preempted")
    shutil.rmtree(unfinished / "preprocessing")
    assert run(tmp_path, "train", *flags, "--epochs", "2") == 2
    assert "has changed since the run was started" in error(capsys)
    assert run(tmp_path, "predict", *flags) == 2
    assert "is another data set than" in error(capsys)


def test_lengths_that_training_never_shows_are_told(home: Path) -> None:
    late = ({"shortest": 0.5},)
    config = APP.load(of_run(home, "config.yaml"), {"curriculum.stages": late})
    task = train.EarlyTask(config, Runtime.start(config.runtime, config.seed))
    [line] = task.warnings()
    assert line.startswith("training shows no prefix of fewer than 18 steps, and is asked after 2, 12")
    assert train.EarlyTask(APP.load(of_run(home, "config.yaml")), Runtime.start(config.runtime, 0)).warnings() == []


def test_damaged_files_of_a_run_are_named(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "runs" / "timeseries-dualmodal" / "tiny"
    shutil.copytree(of_run(home), copy)
    path = copy / "preprocessing" / "decision.json"
    for text in ("{", "[]", '{"temperatures": [1.0], "rule": {"rule": "magic"}}'):
        path.write_text(text)
        assert run(home, "predict", "--run", str(copy)) == 2
        assert "decision.json" in error(capsys)
    path.unlink()
    assert run(home, "predict", "--run", str(copy)) == 2
    assert "has no stopping rule yet; finish its training" in error(capsys)


def test_an_unprepared_or_changed_set_is_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "train") == 2
    assert "run `prepare` first" in error(capsys)
    assert run(home, "train", "--data.sample-seed", "5", "--name", "other") == 2
    assert "sample_seed 0 instead of 5" in error(capsys)
    assert not (of_run(home).parent / "other").exists()
    assert run(home, "predict", "--steps", "1") == 2
    assert "fewer than the 2 steps after which the model is first asked" in error(capsys)


def test_sets_are_found_under_their_name(home: Path) -> None:
    assert (home / "data" / prepare.PACKAGE / "sample" / "series.npz").is_file()
