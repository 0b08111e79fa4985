"""Ready files of pairs: the whole way without the digits that they were made of."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pair_compare_stacking import given, pairfile, prepare
from pair_compare_stacking.__main__ import main
from pair_compare_stacking.pairs import PairNPZDataset
from pair_compare_stacking.pairs_config import Data
from shared_core.errors import UserError

FLAGS = [
    *("--stream.kind", "file", "--epochs", "1", "--batch-size", "16", "--model.widths", "8", "--model.layers", "1"),
    *("--model.feat_dim", "8", "--model.hidden", "4", "--logging.tracker", "none", "--logging.progress", "false"),
    *("--runtime.device", "cpu", "--runtime.threads", "1", "--name", "from-files"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What somebody has: the course's files, no truth, no digits."""
    folder = tmp_path_factory.mktemp("made")
    data = Data.model_validate({"n_train": 200, "n_val": 60, "n_test_public": 30, "severity": 2})
    prepare.prepare(data, folder, bar=False)
    for path in [*folder.glob("*.truth.npz"), *folder.glob("pool*"), folder / "dataset.json"]:
        path.unlink()
    return folder


@pytest.fixture
def source(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "source"))


def taken(source: Path, folder: Path) -> dict[str, object]:
    return given.take(Data(source="pairs", path=str(source)), folder)


def run(folder: Path, verb: str, source: Path, *flags: str) -> int:
    paths = ["--paths.data", str(folder / "data"), "--paths.runs", str(folder / "runs")]
    return main([verb, *paths, "--source", "pairs", "--data", str(source), *FLAGS, *flags])


def test_from_files_to_answers(made: Path, tmp_path: Path) -> None:
    for verb in ("prepare", "train", "evaluate", "predict"):
        assert run(tmp_path, verb, made) == 0, verb
    of_run = tmp_path / "runs" / "pair-compare-stacking" / "from-files"
    for split, n in (("val", 60), ("test_public", 30)):
        about = json.loads((of_run / "evaluation" / f"{split}.json").read_text())
        assert about["n"] == n and 0 <= about["metrics"]["accuracy"]["value"] <= 1
        assert not about["baselines"]  # trees learn digits, which nobody knows here
    assert (of_run / "predictions" / "pred_public.csv").read_text().count("PUB_") == 30


def test_file_without_labels_is_left_out(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "test_public_labels.csv").unlink()
    for verb in ("prepare", "train", "evaluate", "predict"):
        assert run(tmp_path, verb, source) == 0, verb
    assert "test_public: not evaluated, its labels are unknown" in capsys.readouterr().err
    of_run = tmp_path / "runs" / "pair-compare-stacking" / "from-files"
    assert [path.stem for path in (of_run / "evaluation").glob("*.json")] == ["val"]
    assert run(tmp_path, "evaluate", source, "--split", "test_public") == 2
    assert "test_public.npz: has no labels" in capsys.readouterr().err


def test_labels_beside_the_public_test_come_along(source: Path, tmp_path: Path) -> None:
    taken(source, tmp_path / "set")
    test = PairNPZDataset(tmp_path / "set" / "test_public.npz")
    lines = (source / "test_public_labels.csv").read_text().splitlines()[1:]
    assert (
        test.y is not None
        and [f"{name},{label}" for name, label in zip(test.ids or [], test.y.tolist(), strict=True)] == lines
    )


def test_truth_comes_along_and_shared_images_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Data.model_validate({"n_train": 90, "n_val": 60, "n_test_public": 30, "protocol": "course"})
    prepare.prepare(data, tmp_path / "source", bar=False)
    capsys.readouterr()
    taken(tmp_path / "source", tmp_path / "set")
    assert "of the halves of val show a source image of train" in capsys.readouterr().err
    ours, theirs = (pairfile.read_truth(tmp_path / folder / "val.npz") for folder in ("set", "source"))
    np.testing.assert_array_equal(ours.sources, theirs.sources)


def test_unknown_origin_is_said(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken(source, tmp_path / "set")
    assert "which source images they show is unknown" in capsys.readouterr().err


def test_second_time_nothing_is_done_and_changed_files_are_taken_anew(source: Path, tmp_path: Path) -> None:
    first = taken(source, tmp_path / "set")
    written = (tmp_path / "set" / "train.npz").stat().st_mtime_ns
    assert taken(source, tmp_path / "set") == first
    assert (tmp_path / "set" / "train.npz").stat().st_mtime_ns == written
    shutil.copy(source / "val.npz", source / "train.npz")
    taken(source, tmp_path / "set")
    assert len(PairNPZDataset(tmp_path / "set" / "train.npz")) == 60


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda folder: (folder / "val.npz").unlink(), "val.npz: no such file; data.path is a folder with"),
        (lambda folder: (folder / "val.npz").write_bytes(b"PK garbage"), "val.npz: damaged or no .npz"),
        (lambda folder: shutil.copy(folder / "test_public.npz", folder / "val.npz"), "val.npz: has no labels"),
        (
            lambda folder: (folder / "test_public_labels.csv").write_text("id,label\nPUB_9999999,1\n"),
            "test_public_labels.csv: no valid submission: 1 unknown id",
        ),
    ],
    ids=["missing", "damaged", "no-labels", "other-ids"],
)
def test_files_that_cannot_be_used_are_named(source: Path, tmp_path: Path, spoil: object, complaint: str) -> None:
    spoil(source)  # type: ignore[operator]
    with pytest.raises(UserError, match=complaint):
        taken(source, tmp_path / "set")
    assert not (tmp_path / "set" / "dataset.json").exists()


def test_files_of_others_are_not_overwritten(source: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.npz").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"holds train.npz, which `prepare` did not write"):
        taken(source, tmp_path / "set")
    with pytest.raises(UserError, match="is where the prepared set goes"):
        taken(source, source)


def test_what_cannot_be_is_said(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "prepare", Path("nowhere")) == 2
    assert "data.path: nowhere: no such folder" in capsys.readouterr().err
    assert run(tmp_path, "prepare", made) == 0
    assert run(tmp_path, "train", made, "--stream.kind", "generator") == 2
    assert "source pairs has no single digits to make pairs of" in capsys.readouterr().err


def test_stage_4_says_which_protocol_goes_with_files(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "prepare", made) == 0
    seeds = ["--seeds", "1,2"]
    assert run(tmp_path, "train", made, *seeds) == 0
    assert run(tmp_path, "train", made, *seeds, "--stage", "4") == 2
    assert "train with --stacking.protocol out_of_fold" in capsys.readouterr().err
