"""Data sets in tables, through the library that the Hub's data sets are read with."""

import io
import math
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from retina_diffusion import prepare, sources, unpacked
from retina_diffusion.channels import CHANNELS
from retina_diffusion.data_config import Data, Split
from shared_core import hub
from shared_core.errors import UserError

FOLDERS = ["Mild", "Moderate", "No_DR", "Proliferate_DR", "Severe"]  # as the alphabet has them


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(hub, "cache", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "library"))
    return tmp_path / "cache" / "retina-diffusion"


def photograph(number: int) -> Image.Image:
    x = np.random.default_rng(number).integers(0, 255, (40, 48, 3), np.uint8)
    return Image.fromarray(x)


def mask(at: int) -> Image.Image:
    x = np.zeros((40, 48), np.uint8)
    x[at, at] = 255
    return Image.fromarray(x)


def written(folder: Path, **parts: dict[str, list]) -> Path:
    """A folder of Parquet files, as the Hub's data sets are stored."""
    for split, columns in parts.items():
        kinds = datasets.Features(
            {
                name: datasets.ClassLabel(names=FOLDERS)
                if name == "label"
                else datasets.Value("string")
                if name in ("text", "id")
                else datasets.Image()
                for name in columns
            }
        )
        made = datasets.Dataset.from_dict(columns, features=kinds)
        made.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def test_rows_become_photographs(tmp_path: Path, cache: Path) -> None:
    root = written(
        tmp_path / "set",
        train={
            "image": [photograph(k) for k in range(3)],
            "label": [2, 4, None],
            "text": ["An eye.", None, None],
            "mask_MA": [mask(3), None, None],
            "EX": [None, None, mask(5)],
            "OD": [None, mask(6), None],
        },
        validation={"image": [photograph(3)], "label": [0]},
        test={"image": [photograph(4)], "label": [3]},
    )
    found = sources.items(Data(source=str(root)))
    records = [item.record for item in found]  # type: ignore[union-attr]
    assert [(one.split, one.grade, one.caption) for one in records] == [
        ("train", 0, "An eye."),
        ("train", 3, None),
        ("train", None, None),
        ("val", 1, None),
        ("test", 4, None),
    ]
    assert [one.known for one in records] == [("MA", "EX"), ("OD",), ("MA", "EX"), (), ()]
    taken = [item.read() for item in found]
    for number, one in enumerate(taken):
        assert (one.image == np.asarray(photograph(number))).all()
    assert taken[0].masks[CHANNELS.index("MA")].sum() == 1 and taken[0].masks[CHANNELS.index("EX")].sum() == 0
    assert taken[2].masks[CHANNELS.index("EX"), 5, 5] == 1
    again = sources.items(Data(source=str(root)))
    assert sources.fingerprint(again) == sources.fingerprint(found)
    assert len([path for path in cache.rglob("*") if path.is_file()]) == 8


def test_a_table_is_prepared(tmp_path: Path) -> None:
    numbers = range(12)
    root = written(
        tmp_path / "set", train={"image": [photograph(k) for k in numbers], "mask": [mask(k + 10) for k in numbers]}
    )
    data = Data(source=str(root), size=16, mask_values=("HE",))
    counts = prepare.prepare(data, Split(test=0.3, val=0.3), tmp_path / "made", bar=False)["counts"]
    assert counts["photographs"] == 12 and counts["with masks of"]["HE"] == 12


def test_folders_of_images_are_grades_by_their_names(tmp_path: Path) -> None:
    for number, name in enumerate(FOLDERS):
        folder = tmp_path / "set" / "train" / name
        folder.mkdir(parents=True)
        photograph(number).save(folder / "a.png")
    with pytest.raises(UserError, match=r"holds neither .* nor \.parquet; .* --data\.layout table"):
        sources.items(Data(source=str(tmp_path / "set")))
    found = unpacked.read(tmp_path / "set")
    assert {one.image.parent.name: one.grade for one in found} == {
        "No_DR": 0, "Mild": 1, "Moderate": 2, "Severe": 3, "Proliferate_DR": 4
    }  # fmt: skip
    assert len(sources.items(Data(source=str(tmp_path / "set"), layout="table"))) == 5


@pytest.mark.parametrize(
    "label, grade",
    [
        (None, None), (-1, None), (3, 3), ("4", 4), ("no diabetic retinopathy", 0), ("Normal", 0), ("NoDR", 0),
        ("Mild non-proliferative diabetic retinopathy", 1), ("Severe NPDR", 3), ("severe", 3), ("PDR", 4),
        ("proliferative", 4), (2.0, 2), (math.nan, None), ("No apparent retinopathy", 0), ("Proliferate_DR", 4),
    ],
)  # fmt: skip
def test_names_of_grades(label: object, grade: int | None) -> None:
    assert unpacked.grade_of(label) == grade


@pytest.mark.parametrize("label", [5, -2, "", "non-proliferative", "cataract", True, 1.5, math.inf,
                                    "Severe PDR", "PDR, severe haemorrhage", "severe glaucoma", "no mild DR",
                                    "mild cataract"])  # fmt: skip
def test_other_labels_are_refused(label: object) -> None:
    with pytest.raises(UserError, match=r"no grade of diabetic retinopathy \(0 to 4"):
        unpacked.grade_of(label, "row 1")


def test_wrong_tables(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has the columns text; one must be `image`"):
        unpacked.read(written(tmp_path / "a", train={"text": ["x"]}))
    with pytest.raises(UserError, match="train, row 1: there is no image"):
        unpacked.read(written(tmp_path / "b", train={"image": [photograph(0), None]}))
    with pytest.raises(UserError, match="split 'extra': must be train, validation or test"):
        root = written(tmp_path / "c", extra={"image": [photograph(0)]})
        files = "configs:\n- config_name: default\n  data_files:\n  - split: extra\n    path: data/*.parquet\n"
        (root / "README.md").write_text(f"---\n{files}---\n")
        unpacked.read(root)


def test_what_the_library_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.parquet").write_bytes(b"no table")
    with pytest.raises(UserError, match="`datasets` cannot read it"):
        sources.items(Data(source=str(tmp_path / "set")))


def test_a_column_of_text_is_no_image(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    datasets.Dataset.from_dict({"image": ["a.png"]}).to_parquet(folder / "train.parquet")
    with pytest.raises(UserError, match="train, row 0: image: is str, must be an image"):
        unpacked.read(folder)


def test_columns_that_nobody_uses_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unpacked.read(written(tmp_path / "set", train={"image": [photograph(0)], "id": ["x"]}))
    assert "columns that are not used: id" in capsys.readouterr().err


def test_what_cannot_be_read_is_named_by_its_row(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    pictures = [photograph(0), photograph(1)]
    streams = [io.BytesIO() for _ in pictures]
    for picture, stream in zip(pictures, streams, strict=True):
        picture.save(stream, "PNG")
    cells = [{"bytes": stream.getvalue()[: None if k == 0 else 90], "path": None} for k, stream in enumerate(streams)]
    datasets.Dataset.from_dict({"image": cells}).to_parquet(folder / "train.parquet")
    good, bad = sources.items(Data(source=str(folder)))
    assert good.read().image.shape == (40, 48, 3)
    with pytest.raises(UserError, match=r"set: train, row 1: .* cannot be read as a picture"):
        bad.read()


@pytest.mark.parametrize("path", ["/etc/hostname", "../outside.png", "nowhere.png"])
def test_files_outside_the_folder_are_no_images(path: str, tmp_path: Path) -> None:
    """A data set of the Hub could name any file of this machine."""
    photograph(0).save(tmp_path / "outside.png")
    datasets.Dataset.from_dict({"image": [{"bytes": None, "path": path}]}).to_parquet(tmp_path / "set/train.parquet")
    with pytest.raises(UserError, match=rf"train, row 0: image: {path}: no such file in"):
        unpacked.read(tmp_path / "set")


def test_a_damaged_copy_in_the_cache_is_written_again(tmp_path: Path, cache: Path) -> None:
    root = written(tmp_path / "set", train={"image": [photograph(0)]})
    (item,) = sources.items(Data(source=str(root)))
    (copy,) = (path for path in cache.rglob("*") if path.is_file())
    copy.write_bytes(bytes(copy.stat().st_size))  # of the same length
    (item,) = sources.items(Data(source=str(root)))
    assert (item.read().image == np.asarray(photograph(0))).all()


@pytest.mark.parametrize("name", ["metadata.jsonl", "train/metadata.jsonl", "metadata.csv"])
def test_lists_that_the_library_knows(name: str, tmp_path: Path) -> None:
    path = tmp_path / "set" / name
    path.parent.mkdir(parents=True)
    photograph(0).save(path.parent / "a.png")
    line = '{"file_name": "a.png", "text": "An eye."}' if name.endswith("jsonl") else "file_name,text\na.png,An eye."
    path.write_text(line + "\n")
    (item,) = sources.items(Data(source=str(tmp_path / "set")))
    assert item.record.caption == "An eye." and item.record.split == "train"  # type: ignore[union-attr]


def test_masks_of_all_classes_and_of_one(tmp_path: Path) -> None:
    root = written(tmp_path / "set", train={"image": [photograph(0)], "mask": [mask(1)], "OD": [mask(2)]})
    with pytest.raises(UserError, match="row 0: has a mask of all classes and one of OD"):
        unpacked.read(root)


@pytest.mark.parametrize("caption", ["", "  "])
def test_an_empty_caption(caption: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"row 0: caption '{caption}': must be text"):
        unpacked.read(written(tmp_path / "set", train={"image": [photograph(0)], "text": [caption]}))


def test_masks_of_another_size_are_named_by_their_row(tmp_path: Path) -> None:
    small = Image.fromarray(np.zeros((4, 4), np.uint8))
    root = written(tmp_path / "set", train={"image": [photograph(0)], "MA": [small]})
    (item,) = sources.items(Data(source=str(root)))
    with pytest.raises(UserError, match=r"set: train, row 0: .* 4 x 4 pixels, but"):
        item.read()


def test_archives_are_to_be_unpacked(tmp_path: Path) -> None:
    stream = io.BytesIO()
    photograph(0).save(stream, "PNG")
    (tmp_path / "set").mkdir()
    with zipfile.ZipFile(tmp_path / "set" / "train.zip", "w") as archive:
        archive.writestr("a.png", stream.getvalue())
        archive.writestr("metadata.csv", "file_name,text\na.png,An eye.\n")
    with pytest.raises(UserError, match=r"row 0: image: lies in an archive, .*train\.zip; unpack it"):
        unpacked.read(tmp_path / "set")


def test_a_cache_that_cannot_be_written(tmp_path: Path, cache: Path) -> None:
    root = written(tmp_path / "set", train={"image": [photograph(0)]})
    cache.parent.mkdir(parents=True)
    cache.write_text("a file is in its place")
    with pytest.raises(UserError, match="cache/retina-diffusion/"):
        unpacked.read(root)


def test_errors_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(datasets, "load_dataset", fails)
    with pytest.raises(UserError, match=r"`datasets` cannot read it \(NotImplementedError\)"):
        unpacked.read(tmp_path)
