"""The whole command on a tiny set: prepare, train, resume, evaluate, predict, check, and what goes wrong."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import error

from mabe_behavior import metric, saved, streams, subject, submission, train
from mabe_behavior.__main__ import APP, main
from mabe_behavior.config import Config
from mabe_behavior.data import Material
from mabe_behavior.formats import calms21, mabe22
from mabe_behavior.saved import NETWORKS, TREES_ALONE
from mabe_behavior.simulation import labs, simulator
from mabe_behavior.subject import Trained
from shared_core import manifest, records
from shared_core.records import RunDir
from shared_core.runtime import Runtime
from shared_core.weights import load_weights

QUIET = (
    *("--logging.tracker", "none", "--logging.progress", "false", "--runtime.device", "cpu", "--runtime.threads", "1"),
    *("--features.workers", "1"),
)
TINY = (
    *("--data.labs", "resident,openfield,three", "--data.sample_videos", "4", "--data.sample_seconds", "10"),
    *("--split.folds", "2", "--model.width", "8", "--model.depth", "2", "--windows.length", "32"),
    *("--windows.jitter", "8", "--batch-size", "8", "--training.steps", "6", "--epochs", "2"),
    *("--trees.rounds", "3", "--trees.frames", "2000", "--name", "tiny", *QUIET),
)

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    for verb in ("prepare", "train", "evaluate", "predict"):
        assert run(folder, verb) == 0
    return folder


def run(folder: Path, verb: str, *flags: str, tiny: bool = True) -> int:
    """`tiny`: with the settings of the tiny run."""
    mine = TINY if tiny and verb != "benchmark" else QUIET
    return main([verb, "--paths.data", str(folder / "data"), "--paths.runs", str(folder / "runs"), *mine, *flags])


def of_run(folder: Path, *parts: str, name: str = "tiny") -> Path:
    return folder.joinpath("runs", "mabe-behavior", name, *parts)


def trained(folder: Path, name: str = "tiny") -> tuple[Trained, Material]:
    config = APP.load(of_run(folder, "config.yaml", name=name))
    assert isinstance(config, Config)
    device = Runtime.start(config.runtime, config.seed).device
    who = subject.of_run(RunDir(of_run(folder, name=name)), config, "best", device)
    return who, saved.material(who.run, config, who.about)


def evaluation(folder: Path, split: str = "test", name: str = "tiny") -> dict:
    return json.loads(of_run(folder, "evaluation", f"{split}.json", name=name).read_text())


def test_an_evaluation_is_the_official_score_of_what_is_predicted(home: Path) -> None:
    """`predict` and `evaluate` say the same, and the metric, called by itself, agrees."""
    _, material = trained(home)
    recordings = [material.recording(number) for number in material.parts.test.tolist()]
    said = submission.read(of_run(home, "predictions", "submission.csv"))
    labs_, looked = ({one.name: getattr(one, what) for one in recordings} for what in ("lab", "labeled"))
    rows = [row for one in recordings for row in one.bouts.rows]
    value = metric.score(streams.Bouts.of(rows), said, labs_, looked).value
    assert evaluation(home)["metrics"]["score"]["value"] == pytest.approx(value, abs=1e-9)


def test_an_evaluation_shows_its_parts_and_the_oracle(home: Path) -> None:
    about = evaluation(home)
    assert set(about["baselines"]) >= {"networks alone", "trees alone"}
    oracle = next(one for name, one in about["baselines"].items() if name.startswith("oracle"))
    assert oracle["score"]["value"] > about["metrics"]["score"]["value"]
    assert (of_run(home) / "report.html").is_file()


def test_folds_are_judged_by_the_models_that_did_not_see_them(home: Path) -> None:
    assert run(home, "evaluate", "--split", "folds") == 0
    about = evaluation(home, "folds")
    _, material = trained(home)
    assert about["n"] == len(material.parts.train)
    who, material = trained(home)
    said = subject.out_of_fold(who, material, who.forests)
    for name in (NETWORKS, TREES_ALONE):
        assert {one.video for one in said[name]} == {material.rows[n]["name"] for n in material.parts.train.tolist()}
    number, fold = int(material.parts.train[0]), int(material.parts.fold[0])
    relation = material.relations(number)[0]
    mine = next(one for one in said[TREES_ALONE] if one.video == material.rows[number]["name"])
    forest = who.forests[relation.kind][fold]
    p = forest.proba(material.x(number, relation))
    called = who.vocabulary.called(relation, material.labeled(number))
    assert mine.p_TK[0, 0] == pytest.approx(p[0, next(k for k, name in enumerate(called) if name)], abs=1e-6)


def test_a_run_that_is_stopped_goes_on_as_if_it_had_not(home: Path, tmp_path: Path) -> None:
    """Bit for bit: the windows, the noise and the dropped-out laboratories are those of an uninterrupted run."""
    shutil.copytree(home / "data", tmp_path / "data")
    constant = (
        "--scheduler.name",
        "constant",
        "--scheduler.warmup_steps",
        "0",
        "--windows.noise",
        "0.1",
        "--windows.mixup",
        "0.2",
    )
    assert run(tmp_path, "train", *constant, "--name", "whole") == 0
    parts = of_run(tmp_path, name="parts")
    for steps in ("2", "5", "6"):
        newest = manifest.newest_good(parts / "checkpoints")[0] if parts.exists() else "auto"
        flags = (*constant, "--name", "parts", "--training.steps", steps, "--resume", str(newest))
        assert run(tmp_path, "train", *flags) == 0
    first, second = (
        load_weights(manifest.newest_good(of_run(tmp_path, "checkpoints", name=name))[0]) for name in ("whole", "parts")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_submission_is_valid_and_is_checked(home: Path, capsys: Capture, tmp_path: Path) -> None:
    path = of_run(home, "predictions", "submission.csv")
    assert run(home, "predict", "--check", str(path)) == 0
    assert "valid" in capsys.readouterr().out
    rows = list(csv.reader(path.read_text().splitlines()))
    assert rows[0] == list(submission.HEADER)
    broken = tmp_path / "broken.csv"
    wrong = [rows[0], ["0", *rows[1][1:5], "9", "3"], ["1", *rows[1][1:4], "fly", "1", "3"]]
    broken.write_text("".join(",".join(row) + "\n" for row in wrong))
    assert run(home, "predict", "--check", str(broken)) == 1
    said = capsys.readouterr().out
    assert "line 2: stop_frame 3 lies before" in said and "line 3" in said and "2 problems" in said
    bouts = of_run(home, "predictions", "submission.bouts.csv").read_text().splitlines()
    assert len(bouts) == len(rows) and bouts[0].endswith("duration_s")


def test_tracks_of_a_file_are_predicted(home: Path, tmp_path: Path, capsys: Capture) -> None:
    """SLEAP's, DeepLabCut's and others' are read by their content; here DeepLabCut's table of two mice."""
    tracks = simulator.simulate(labs.lab("resident"), 7, 10.0).tracks
    header = [["scorer"], ["individuals"], ["bodyparts"], ["coords"]]
    columns = []
    for a, animal in enumerate(tracks.animals):
        for p, part in enumerate(tracks.parts):
            for x, axis in enumerate("xy"):
                for line, cell in zip(header, ("me", animal, part, axis), strict=True):
                    line.append(cell)
                columns.append(tracks.xy_TAPX[:, a, p, x])
    rows = [[t, *("" if np.isnan(v) else v for v in row)] for t, row in enumerate(np.column_stack(columns).tolist())]
    path = tmp_path / "mine.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([*header, *rows])
    assert run(home, "predict", "--input", str(path)) == 2
    assert "give --fps" in error(capsys)
    out = tmp_path / "out.csv"
    flags = ("--input", str(path), "--fps", "30", "--pixels_per_cm", "18.33", "--out", str(out), "--frames", "true")
    assert run(home, "predict", *flags) == 0
    said = submission.read(out)
    assert set(said.video.tolist()) == {"mine"} and said.stop.max() <= len(tracks)
    assert run(home, "predict", *flags, "--animations", "2") == 0
    assert len(list(tmp_path.glob("bout_mine_*.gif"))) == min(2, len(said))
    frames = list(csv.reader((tmp_path / "out.mine.frames.csv").read_text().splitlines()))
    assert len(frames) == len(tracks) + 1 and "mouse1 mouse2 sniff" in frames[0]
    assert run(home, "predict", *flags, "--lab", "resident") == 0
    assert run(home, "predict", *flags, "--lab", "nowhere") == 2
    assert "the model knows" in error(capsys)


@pytest.mark.skipif("TEST_DATA_DIR" not in os.environ, reason="set TEST_DATA_DIR to a folder with pose-deeplabcut")
@pytest.mark.parametrize(
    ("name", "identities"),
    [
        ("testDLC_csv_table_multi.csv", "B_=mouse1,W_=mouse2"),
        ("testDLC_h5_table_multi.h5", "B_=mouse1,W_=mouse2"),
        ("testDLC_h5_table_madlc.h5", "mouse_black_tail=mouse1,mouse_white_tail=mouse2"),
        ("testDLC_sleap.analysis.h5", None),
    ],
)
def test_real_tracks_are_predicted(home: Path, tmp_path: Path, name: str, identities: str | None) -> None:
    path = Path(os.environ["TEST_DATA_DIR"]) / "pose-deeplabcut" / name
    recordings = _read(path, identities)
    who, _ = trained(home)
    said = who.together(who.asked(recordings, judged=False))
    assert all(np.isfinite(one.p_TK).all() and len(one) == len(recordings[0].tracks) for one in said)
    assert {one.agent for one in said} == set(recordings[0].tracks.animals)


def _read(path: Path, identities: str | None) -> list:
    from mabe_behavior import inputs
    from mabe_behavior.config import PredictOptions

    return inputs.read(path, PredictOptions(fps=25.0, pixels_per_cm=15.0, identities=identities))


def test_another_split_or_set_is_refused(home: Path, tmp_path: Path, capsys: Capture) -> None:
    assert run(home, "evaluate", "--split.seed", "1", "--run", str(of_run(home))) == 2
    assert "split" in error(capsys)
    shutil.copytree(home / "data", tmp_path / "data")
    assert run(tmp_path, "prepare", "--data.sample_seed", "3") == 0
    assert run(tmp_path, "evaluate", "--run", str(of_run(home)), "--data.sample_seed", "3") == 2
    assert "prepare" in error(capsys)


def test_damage_beside_the_weights_gets_one_line(home: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copytree(home, tmp_path / "home")
    folder = tmp_path / "home"
    for name in (saved.TREES, saved.DECISION, saved.MODEL):
        path = of_run(folder, "preprocessing", name)
        before = path.read_text()
        for damaged in (before[: len(before) // 2], "[]", "{}"):
            path.write_text(damaged)
            assert run(folder, "predict") == 2
            assert name in error(capsys)
        path.write_text(before)


def test_training_needs_a_prepared_set(tmp_path: Path, capsys: Capture) -> None:
    assert run(tmp_path, "train") == 2
    assert "prepare" in error(capsys)
    assert not (tmp_path / "runs").exists()


def look_alike(folder: Path) -> Path:
    """Files in CalMS21's layout of simulated mice."""
    folder.mkdir()
    for part, numbers in (("train", range(1, 7)), ("test", range(71, 73))):
        sequences = {}
        for number in numbers:
            one = simulator.simulate(labs.lab("resident"), number, 10.0)
            xy = one.tracks.of_parts(calms21.PARTS).filled(10.0).xy_TAPX
            classes = np.full(len(xy), calms21.VOCABULARY["other"])
            for *_, action, start, stop in one.bouts.rows:
                name = {"sniff": "investigation"}.get(action, action)
                if name in calms21.VOCABULARY:
                    classes[start:stop] = calms21.VOCABULARY[name]
            sequences[f"task1/{part}/mouse{number:03d}_task1_annotator1"] = {
                "keypoints": np.nan_to_num(xy, nan=100.0).transpose(0, 1, 3, 2).tolist(),
                "scores": np.ones((len(xy), 2, 7)).tolist(),
                "annotations": classes.tolist(),
                "metadata": {"vocab": calms21.VOCABULARY},
            }
        (folder / f"calms21_task1_{part}.json").write_text(json.dumps({"annotator-id_0": sequences}))
    return folder


def test_the_benchmark_prints_published_numbers_beside_its_own(tmp_path: Path, capsys: Capture) -> None:
    small = (
        "--model.width",
        "8",
        "--model.depth",
        "2",
        "--windows.length",
        "32",
        "--windows.jitter",
        "8",
        "--batch-size",
        "8",
    )
    flags = ("--data", str(look_alike(tmp_path / "calms21")), *small, "--training.steps", "3", "--epochs", "1")
    assert (
        run(
            tmp_path,
            "benchmark",
            "calms21",
            *flags,
            "--split.folds",
            "2",
            "--trees.rounds",
            "2",
            "--trees.frames",
            "2000",
        )
        == 0
    )
    said = capsys.readouterr().out
    for number in ("0.793", "0.856", "0.829", "0.889", "0.840", "this run"):
        assert number in said
    # names of CalMS21's videos hold slashes
    assert run(tmp_path, "predict", "--run", str(of_run(tmp_path, name="calms21")), "--frames", "true", tiny=False) == 0
    names = {path.name for path in of_run(tmp_path, "predictions", name="calms21").iterdir()}
    assert "submission.task1_test_mouse071_task1_annotator1.frames.csv" in names
    about = evaluation(tmp_path, "calms21", "calms21")
    assert set(about["metrics"]) == {"mean_f1", "mean_ap"} and 0 <= about["metrics"]["mean_f1"]["value"] <= 1


def test_a_mistake_about_input_gets_one_line(home: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("?")
    (tmp_path / "b.h5").write_bytes(b"no hdf5")
    (tmp_path / "c.csv").write_text("a,b\n1,2\n")
    for name, said in (
        ("none", "no such"),
        ("empty", "no file of tracks"),
        ("a.txt", "--format"),
        ("b.h5", "b.h5"),
        ("c.csv", "Nose_1_x"),
    ):
        assert run(home, "predict", "--input", str(tmp_path / name), "--fps", "30", "--pixels_per_cm", "10") == 2
        assert said in error(capsys)


def test_unfinished_training_says_so(home: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copytree(home, tmp_path / "home")
    of_run(tmp_path / "home", "preprocessing", saved.DECISION).unlink()
    assert run(tmp_path / "home", "evaluate") == 0
    assert any("has not finished" in note for note in evaluation(tmp_path / "home")["notes"])
    assert run(tmp_path / "home", "predict") in (0, 2)  # 2: nothing reaches 0.5 after six steps
    assert "has not finished" in capsys.readouterr().err


def test_missing_trees_are_none(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "data", tmp_path / "data")
    assert run(tmp_path, "train", "--trees.rounds", "0") == 0
    who, material = trained(tmp_path)
    assert who.forests == {} and who.decided is not None
    assert set(who.asked([material.recording(int(material.parts.test[0]))], judged=True)) == {NETWORKS}


@pytest.mark.parametrize("form", ["state_dict", "onnx", "torch_export"])
def test_networks_are_exported(home: Path, form: str) -> None:
    """`export` compares what it wrote with PyTorch's answers before the file gets its name."""
    assert run(home, "export", "--format", form) == 0
    ends = {"state_dict": "tiny.pt", "onnx": "tiny.onnx", "torch_export": "tiny.pt2"}
    assert of_run(home, ends[form]).stat().st_size > 10_000


def test_a_plan_is_made_before_anything_is_trained(home: Path, capsys: Capture) -> None:
    assert run(home, "plan") == 0
    said = capsys.readouterr().out
    assert "parameters" in said and "trees are grown" in said.replace("\n", " ")


def test_an_action_of_a_single_fold_is_known_by_the_others_alone(home: Path) -> None:
    """With folds of whole labs the model of the fold that has it has never seen it: its opinion neither tunes a
    threshold nor takes part in the mean."""
    who, material = trained(home)
    actions = [names[0] for names in who.vocabulary.pair]
    sniff = actions.index("sniff")
    assert who.about.learned["pair"][:, sniff].all()
    learned = {kind: known.copy() for kind, known in who.about.learned.items()}
    learned["pair"][0, sniff] = False
    about = dataclasses.replace(who.about, learned=learned)
    less = dataclasses.replace(who, about=about)
    said, other = (subject.out_of_fold(one, material, one.forests)[TREES_ALONE] for one in (who, less))
    fold_of = dict(
        zip(
            (material.rows[n]["name"] for n in material.parts.train.tolist()), material.parts.fold.tolist(), strict=True
        )
    )
    for one, changed in zip(said, other, strict=True):
        gone = {"sniff"} if fold_of[one.video] == 0 and not one.alone else set()
        assert set(changed.actions) == set(one.actions) - gone
    recordings = [material.recording(int(material.parts.test[0]))]
    x = np.zeros((2, who.forests["pair"][0].columns), np.float16)
    assert np.allclose(less._trees("pair", x)[:, sniff], who.forests["pair"][1].proba(x)[:, sniff])
    decided = saved.decide(who.config, {TREES_ALONE: other, NETWORKS: other}, actions)
    assert set(decided.rules[saved.BLEND].pooled) >= set(actions)
    assert less.asked(recordings, judged=True)[NETWORKS]


def test_actions_that_were_not_learned_count_as_missed(home: Path, tmp_path: Path) -> None:
    """A model of one action is judged by the same truth as one of all; what it reaches on its own is said beside."""
    shutil.copytree(home / "data", tmp_path / "data")
    assert run(tmp_path, "train", "--actions", "sniff", "--trees.rounds", "0") == 0
    flags = ("--run", str(of_run(tmp_path)))
    assert run(tmp_path, "evaluate", *flags, tiny=False) == 0
    about = evaluation(tmp_path)
    _, material = trained(tmp_path)
    recordings = [material.recording(number) for number in material.parts.test.tolist()]
    labs_, looked = ({one.name: getattr(one, what) for one in recordings} for what in ("lab", "labeled"))
    rows = [row for one in recordings for row in one.bouts.rows]
    assert run(tmp_path, "predict", *flags, tiny=False) == 0
    said = submission.read(of_run(tmp_path, "predictions", "submission.csv"))
    value = metric.score(streams.Bouts.of(rows), said, labs_, looked).value
    assert about["metrics"]["score"]["value"] == pytest.approx(value, abs=1e-9)
    assert about["metrics"]["score_of_learned"]["value"] > value
    assert any("not learned" in note for note in about["notes"])


def test_a_member_is_asked_about_a_lab_of_its_own_fold_as_about_an_unknown_one(home: Path) -> None:
    who, material = trained(home)
    assert who.about.labs["pair"].all()  # here every fold has recordings of every lab
    labs_ = {kind: known.copy() for kind, known in who.about.labs.items()}
    labs_["pair"][:, 1:] = False
    with torch.no_grad():
        for member in who.model.members:
            member.readers["pair"].lab_embedding.weight.normal_()
    number = int(material.parts.test[0])
    recording = material.recording(number)
    less = dataclasses.replace(who, about=dataclasses.replace(who.about, labs=labs_), forests={})
    pooled = less.asked([recording], judged=False)[NETWORKS]
    unknown = less.asked([dataclasses.replace(recording, lab="unknown")], judged=False)[NETWORKS]
    known = dataclasses.replace(who, forests={}).asked([recording], judged=False)[NETWORKS]
    pairs = [k for k, one in enumerate(pooled) if not one.alone]
    assert all(np.array_equal(pooled[k].p_TK, unknown[k].p_TK) for k in pairs)
    assert any(not np.array_equal(pooled[k].p_TK, known[k].p_TK) for k in pairs)


def test_points_of_unknown_confidence_stay() -> None:
    tracks = simulator.simulate(labs.lab("openfield"), 0, 5.0).tracks
    assert tracks.confidence_TAP is not None
    nothing = dataclasses.replace(tracks, confidence_TAP=np.full_like(tracks.confidence_TAP, np.nan))
    assert nothing.where_sure(0.5).seen_TAP.sum() == tracks.seen_TAP.sum()
    assert tracks.where_sure(0.5).seen_TAP.sum() <= tracks.seen_TAP.sum()
    assert tracks.where_sure(0.99).seen_TAP.sum() < tracks.seen_TAP.sum()


def test_a_submission_of_a_trackers_file_is_valid(home: Path, tmp_path: Path, capsys: Capture) -> None:
    """Its file says nothing of what is looked for: everything counts."""
    tracks = simulator.simulate(labs.lab("resident"), 7, 10.0).tracks
    path, out = tmp_path / "simba.csv", tmp_path / "out.csv"
    names = [
        f"{part}_{a + 1}_{x}"
        for a in range(2)
        for part in ("Nose", "Ear_left", "Ear_right", "Tail_base")
        for x in "xyp"
    ]
    four = tracks.of_parts(("nose", "ear_left", "ear_right", "tail_base")).filled(10.0).xy_TAPX
    table = np.concatenate([np.nan_to_num(four, nan=50.0), np.ones((*four.shape[:3], 1))], axis=-1).reshape(
        len(four), -1
    )
    path.write_text("\n".join([",".join(names), *(",".join(f"{value:.2f}" for value in row) for row in table)]) + "\n")
    flags = ("--input", str(path), "--fps", "30", "--pixels_per_cm", "18.33")
    assert run(home, "predict", *flags, "--out", str(out)) == 0
    assert run(home, "predict", *flags, "--check", str(out)) == 0
    assert "valid" in capsys.readouterr().out
    assert run(home, "predict", *flags, "--identities", "a=mouse1") == 2
    assert "leave it out" in error(capsys)


def test_one_model_is_judged_on_its_fold(home: Path, tmp_path: Path) -> None:
    """A plain validation split: recordings of other folds have no predictions, and count for nothing."""
    shutil.copytree(home / "data", tmp_path / "data")
    one = ("--split.folds", "3", "--split.models", "1")
    assert run(tmp_path, "train", *one) == 0
    flags = ("--run", str(of_run(tmp_path)))
    for split in ("folds", "test"):
        assert run(tmp_path, "evaluate", *flags, "--split", split, tiny=False) == 0
    who, material = trained(tmp_path)
    about = evaluation(tmp_path, "folds")
    assert len(who.model) == 1 and about["n"] == (material.parts.fold == 0).sum() < len(material.parts.train)
    assert any("too good" in note for note in about["notes"])


@pytest.mark.slow
def test_two_processes_train_one_run(home: Path, tmp_path: Path) -> None:
    """What both found of the training recordings is what one finds with the same weights."""
    shutil.copytree(home / "data", tmp_path / "data")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    where = ["--paths.data", str(tmp_path / "data"), "--paths.runs", str(tmp_path / "runs")]
    command = [*launcher, "-m", "mabe_behavior", "train", *where, *TINY, "--batch-size", "4"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(of_run(tmp_path, "run.json").read_text())["processes"] == 2
    rows = [row for row in records.read_metrics(of_run(tmp_path)) if "val/score" in row]
    config = APP.load(of_run(tmp_path, "config.yaml"))
    assert isinstance(config, Config)
    runtime = Runtime.start(config.runtime, config.seed)
    task = train.build_task(config, runtime)
    newest, _ = manifest.newest_good(of_run(tmp_path, "checkpoints"))
    assert newest is not None
    task.model.load_state_dict(load_weights(newest))
    with torch.no_grad():
        found = task.evaluate(task.model.eval(), runtime)
    for name in ("val/score", "val/loss"):
        assert found[name] == pytest.approx(rows[-1][name], rel=1e-5)


def test_without_any_true_bout_rules_are_plain(home: Path) -> None:
    who, material = trained(home)
    said = subject.out_of_fold(who, material, who.forests)[NETWORKS]
    nothing = [dataclasses.replace(one, y_TK=np.zeros_like(one.truth_TK)) for one in said]
    found = saved.decide(who.config, {NETWORKS: nothing}, ["sniff", "rear"])
    assert set(found.rules[saved.BLEND].pooled) == {"sniff", "rear"}
    assert {rule.threshold for rule in found.rules[saved.BLEND].pooled.values()} == {0.5}


def test_mabe22_is_prepared_and_predicted(home: Path, tmp_path: Path, capsys: Capture) -> None:
    """Its clips have no behaviours to learn from: the set says so, and a model trained elsewhere answers."""
    clips = {}
    for seed in range(2):
        tracks = simulator.simulate(labs.lab("three"), seed, 6.0).tracks.of_parts(mabe22.PARTS).filled(10.0)
        clips[f"clip{seed}"] = {"keypoints": np.nan_to_num(tracks.xy_TAPX[:150]), "annotations": np.zeros((1, 150))}
    (tmp_path / "download").mkdir()
    path = tmp_path / "download" / "mouse_triplet_train.npy"
    np.save(path, np.array({"sequences": clips, "vocabulary": ["chases"]}, dtype=object), allow_pickle=True)
    assert run(tmp_path, "prepare", "--source", "mabe22", "--data", str(path.parent), tiny=False) == 0
    assert "2 recordings of 1 laboratory" in capsys.readouterr().err
    assert run(tmp_path, "train", "--source", "mabe22", tiny=False) == 2
    assert "no recording has annotations" in error(capsys)
    who, _ = trained(home)
    said = who.asked(mabe22.read(path), judged=False)[NETWORKS]
    assert {one.agent for one in said} == {"mouse1", "mouse2", "mouse3"} and all(len(one) == 150 for one in said)
