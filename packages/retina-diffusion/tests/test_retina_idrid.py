"""IDRiD's official folders: the real ones are read right, and incomplete ones are not taken for whole."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retina_diffusion import idrid, sources
from retina_diffusion.data_config import Data
from shared_core.errors import UserError

CSV_HEAD = "Image name,Retinopathy grade,Risk of macular edema ,,,"  # with the file's own space and nameless columns


@pytest.fixture(scope="module")
def real() -> Path:
    folder = Path(os.environ.get("TEST_DATA_DIR", "")) / "idrid-715px"
    if "TEST_DATA_DIR" not in os.environ or not folder.is_dir():
        pytest.skip("set TEST_DATA_DIR to a folder with idrid-715px to read the real data set")
    return folder


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8), 200, np.uint8)).save(path)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two photographs in each split of each part; masks of the first."""
    for split, folder in idrid.SPLITS.items():
        part = tmp_path / "A. Segmentation"
        for number in (1, 2):
            put(part / idrid.IMAGES / folder / f"IDRiD_{number:02d}.jpg")
            put(tmp_path / "B. Disease Grading" / idrid.IMAGES / folder / f"IDRiD_{number:03d}.jpg")
        for name, channel in idrid.MASKS.items():
            put(part / idrid.MASKED / folder / name / f"IDRiD_01_{channel}.tif")
        labels(tmp_path, split).parent.mkdir(exist_ok=True)
        labels(tmp_path, split).write_text(f"{CSV_HEAD}\nIDRiD_001,2,1,,,\nIDRiD_002,0,0,,,\n,,,,,\n")
    return tmp_path


def labels(root: Path, split: str = "train") -> Path:
    return root / "B. Disease Grading" / idrid.TRUTHS / idrid.GRADES[split]


def test_counts_of_the_real_set(real: Path) -> None:
    segmented, graded = idrid.segmented(real), idrid.graded(real)
    assert Counter(record.split for record in segmented) == {"train": 54, "test": 27}
    assert Counter(record.split for record in graded) == {"train": 413, "test": 103}
    grades = {split: Counter(x.grade for x in graded if x.split == split) for split in ("train", "test")}
    assert grades["train"] == {0: 134, 1: 20, 2: 136, 3: 74, 4: 49}
    assert grades["test"] == {0: 34, 1: 5, 2: 32, 3: 19, 4: 13}
    masks = {split: Counter(name for x in segmented if x.split == split for name in x.masks) for split in grades}
    assert masks["train"] == {"MA": 54, "HE": 53, "EX": 54, "SE": 26, "OD": 54}
    assert masks["test"] == {"MA": 27, "HE": 27, "EX": 27, "SE": 14, "OD": 27}


def test_a_missing_mask_says_that_there_is_none(real: Path) -> None:
    record = next(record for record in idrid.segmented(real) if record.image.stem == "IDRiD_43")
    assert "HE" not in record.masks and "HE" in record.known
    assert all(record.known == () for record in idrid.graded(real))  # nobody looked


def test_the_same_name_in_two_parts_is_two_photographs(real: Path) -> None:
    found = sources.items(Data(source=str(real)))
    assert len({item.name for item in found}) == len(found) == 597
    one, two = (next(item for item in found if item.name == f"B-{split}-IDRiD_001") for split in ("train", "test"))
    assert not np.array_equal(one.read().image, two.read().image)


@pytest.mark.parametrize(("part", "count"), [("all", 8), ("segmentation", 4), ("grading", 4)])
def test_parts(part: str, count: int, small: Path) -> None:
    assert len(sources.items(Data(source=str(small), part=part))) == count


def test_a_part_that_is_not_there(small: Path) -> None:
    (small / "B. Disease Grading").rename(small / "elsewhere")
    assert len(sources.items(Data(source=str(small), part="segmentation"))) == 4
    with pytest.raises(
        UserError, match=r"no folder 'B. Disease Grading'; unpack it there, or read --data.part segment"
    ):
        sources.items(Data(source=str(small)))


def test_masks_that_were_not_unpacked_are_not_taken_for_empty(small: Path) -> None:
    folder = small / "A. Segmentation" / idrid.MASKED / idrid.SPLITS["train"] / "4. Soft Exudates"
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"4\. Soft Exudates: holds no pictures"):
        idrid.segmented(small)
    folder.rmdir()
    with pytest.raises(UserError, match=r"4\. Soft Exudates: no such folder"):
        idrid.segmented(small)


@pytest.mark.parametrize("name", ["IDRiD_03_MA.tif", "IDRiD_01_HE.tif"])
def test_a_mask_that_belongs_to_no_photograph(name: str, small: Path) -> None:
    put(small / "A. Segmentation" / idrid.MASKED / idrid.SPLITS["test"] / "1. Microaneurysms" / name)
    with pytest.raises(UserError, match=f"{name}: belongs to no photograph; name it as that is named, with _MA behind"):
        idrid.segmented(small)


WRONG = {
    "a grade beyond": (f"{CSV_HEAD}\nIDRiD_001,5,0\nIDRiD_002,0,0\n", "line 2 has the grade '5'; there are 0 to 4"),
    "a short line": (f"{CSV_HEAD}\nIDRiD_001\nIDRiD_002,0,0\n", "line 2 has the grade ''"),
    "other columns": ("name,grade\nIDRiD_001,2\n", "has no row for IDRiD_001"),
    "a photograph too few": (f"{CSV_HEAD}\nIDRiD_001,2,1\n", "has no row for IDRiD_002"),
    "a photograph too many": (
        f"{CSV_HEAD}\nIDRiD_001,2,1\nIDRiD_002,0,0\nIDRiD_003,0,0\n",
        "names IDRiD_003, which is",
    ),
    "two grades": (
        f"{CSV_HEAD}\nIDRiD_001,2,1\nIDRiD_002,0,0\nIDRiD_001,3,1\n",
        "line 4 gives IDRiD_001 the grade 3, an",
    ),
    "nothing": ("", "has no row for IDRiD_001"),
    "not UTF-8": ("Image name,Retinopathy grade\nIDRiD_é,2\n", "is no UTF-8 text"),
    "no CSV": (f'{CSV_HEAD}\n"{"x" * 200_000}"\n', "is no CSV"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_labels_are_named(what: str, small: Path) -> None:
    content, message = WRONG[what]
    labels(small).write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=message) as caught:
        idrid.graded(small)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(labels(small)))


def test_labels_that_are_not_there(small: Path) -> None:
    labels(small).unlink()
    with pytest.raises(UserError, match="no such file or folder"):
        idrid.graded(small)
    labels(small).mkdir()
    with pytest.raises(UserError, match="a file is where a folder should be, or the other way round"):
        idrid.graded(small)
