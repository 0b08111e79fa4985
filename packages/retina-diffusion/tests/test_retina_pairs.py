"""Folders of photographs and masks, and the choice between layouts."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retina_diffusion import pairs, sources
from retina_diffusion.channels import CHANNELS
from retina_diffusion.data_config import Data
from shared_core import hub
from shared_core.errors import UserError


def put(path: Path, size: tuple[int, int] = (40, 30), at: int | None = None) -> Path:
    """A bright photograph, or a mask with one pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x = np.full(size[::-1], 200 if at is None else 0, np.uint8)
    if at is not None:
        x[at, at] = 255
    Image.fromarray(x).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b", "c_MA"):
        put(tmp_path / "images" / f"{name}.png")
    return tmp_path


def test_masks_by_name_and_by_folder(root: Path) -> None:
    by_name, by_folder = put(root / "masks" / "a_MA.png", at=3), put(root / "masks" / "EX" / "b.tif", at=4)
    a, b, c = pairs.read(root)
    assert (a.name, a.masks, a.known) == ("a", {"MA": by_name}, ("MA", "EX"))
    assert (b.name, b.masks, b.known) == ("b", {"EX": by_folder}, ("MA", "EX"))
    assert (c.name, c.masks, c.known) == ("c_MA", {}, ())  # nobody looked


def test_one_file_of_all_classes(root: Path) -> None:
    path = put(root / "masks" / "c_MA.png", at=3)
    *_, c = pairs.read(root)
    assert (c.labels, c.masks, c.known) == (path, {}, ())
    taken = sources.items(Data(source=str(root), mask_values=("HE",)))[2].read()
    assert taken.masks[CHANNELS.index("HE")].sum() == 1
    assert [name for name, known in zip(CHANNELS, taken.known, strict=True) if known] == ["HE", "FOV"]
    with pytest.raises(UserError, match=r"c_MA\.png: one mask of all classes; say what .* --data.mask_values"):
        sources.items(Data(source=str(root)))[2].read()


def test_a_field_of_view_says_nothing_of_lesions(root: Path) -> None:
    put(root / "masks" / "a_MA.png", at=3)
    for name in ("a", "b"):
        put(root / "masks" / f"{name}_FOV.png", at=3)
    a, b, c = pairs.read(root)
    assert (a.known, b.known, c.known) == (("MA", "FOV"), ("FOV",), ())


@pytest.mark.parametrize("other", ["metadata.csv", "features/x.parquet", "metadata.jsonl"])
def test_other_files_beside_photographs_and_masks_do_not_matter(other: str, root: Path) -> None:
    put(root / "masks" / "a_MA.png", at=3)
    (root / other).parent.mkdir(exist_ok=True)
    if other == "metadata.jsonl":
        (root / other).mkdir()
    else:
        (root / other).write_text("patient,age\n7,60\n")
    assert len(sources.items(Data(source=str(root)))) == 3


def test_masks_alone(tmp_path: Path) -> None:
    """To draw images of; nothing can be learned from them."""
    for name in ("a_MA.png", "a_OD.png", "b_MA.png", "EX/c.png"):
        put(tmp_path / "masks" / name, at=3)
    found = sources.items(Data(source=str(tmp_path)), alone=True)
    assert [(item.name, item.record.known) for item in found] == [  # type: ignore[union-attr]
        ("a", ("MA", "EX", "OD")), ("b", ("MA", "EX")), ("c", ("MA", "EX"))
    ]  # fmt: skip
    taken = found[0].read()
    assert taken.image.shape == (30, 40, 3) and not taken.image.any()
    field = taken.masks[CHANNELS.index("FOV")]
    assert taken.known[CHANNELS.index("FOV")] and field[0].sum() < field[15].sum() == 40
    with pytest.raises(UserError, match="holds neither IDRiD's folders"):
        sources.items(Data(source=str(tmp_path)))
    put(tmp_path / "masks" / "a_HE.png", size=(8, 8), at=3)
    with pytest.raises(UserError, match=r"(8 x 8|40 x 30) pixels, but another mask has"):
        sources.items(Data(source=str(tmp_path)), alone=True)[0].read()


def test_hidden_files_and_folders_are_no_pictures(root: Path) -> None:
    put(root / "masks" / "a_MA.png", at=3)
    (root / "images" / "._a.png").write_bytes(b"a Macintosh's")
    (root / "images" / "d.png").mkdir()
    assert len(pairs.read(root)) == 3


def test_names_that_are_there_twice(root: Path) -> None:
    put(root / "masks" / "a_MA.png", at=3)
    again = put(root / "masks" / "MA" / "a.png", at=3)
    with pytest.raises(UserError, match="is the same mask; remove one of them"):
        pairs.read(root)
    again.unlink()
    labels = put(root / "masks" / "a.png", at=3)
    with pytest.raises(UserError, match=r"a\.png: there are masks by class as well \(.*a_MA\.png\)"):
        pairs.read(root)
    labels.unlink()
    put(root / "images" / "a.jpg")
    with pytest.raises(UserError, match=r"a\.png: a\.jpg has the same name; rename or remove one of them"):
        pairs.read(root)


@pytest.mark.parametrize("name", ["d.png", "d_MA.png", "a_ma.png", "MA/d.png"])
def test_a_mask_of_no_photograph(name: str, root: Path) -> None:
    put(root / "masks" / name, at=3)
    with pytest.raises(
        UserError, match=r"belongs to no photograph in .*images; name it NAME_CHANNEL or NAME, where .* OD"
    ):
        pairs.read(root)


def test_a_mask_of_another_size(root: Path) -> None:
    path = put(root / "masks" / "a_MA.png", size=(30, 40), at=3)
    with pytest.raises(UserError) as caught:
        sources.items(Data(source=str(root)))[0].read()
    assert str(caught.value) == (
        f"{path}: 30 x 40 pixels, but {root / 'images' / 'a.png'} has 40 x 30; a mask must have its photograph's size"
    )


def test_an_empty_field_of_view(root: Path) -> None:
    path = put(root / "masks" / "a_FOV.png", at=3)
    assert sources.items(Data(source=str(root)))[0].read().masks[CHANNELS.index("FOV")].sum() == 1
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(path)
    with pytest.raises(UserError, match=r"a_FOV\.png: the field of view \(FOV\) is empty; leave it out"):
        sources.items(Data(source=str(root)))[0].read()


def test_a_folder_without_pictures(root: Path) -> None:
    with pytest.raises(UserError, match="masks: no such folder; must hold pictures"):
        pairs.read(root)
    (root / "masks").mkdir()
    with pytest.raises(UserError, match="masks: holds no pictures"):
        pairs.read(root)
    (root / "masks").rmdir()
    (root / "masks").write_bytes(b"")
    with pytest.raises(UserError, match="masks: is a file; must hold pictures"):
        pairs.read(root)


def test_layouts_are_told_apart(root: Path) -> None:
    put(root / "masks" / "a_MA.png", at=3)
    assert len(sources.items(Data(source=str(root)))) == 3
    (root / "list.jsonl").write_text('{"image_path": "images/b.png"}\n')
    for source, layout, count in ((root, "auto", 1), (root / "list.jsonl", "auto", 1), (root, "pairs", 3)):
        assert len(sources.items(Data(source=str(source), layout=layout))) == count


def test_a_source_of_no_layout(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds neither IDRiD's folders, nor .jsonl files, nor images/ and masks/"):
        sources.items(Data(source=str(tmp_path)))
    with pytest.raises(UserError, match="nowhere: no such file or folder; give one, or `sample`"):
        sources.items(Data(source=str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match=r"a\.png: must be a \.jsonl or \.json list, or a folder; give the file's"):
        sources.items(Data(source=str(put(tmp_path / "a.png"))))
    (tmp_path / "b.parquet").write_bytes(b"")
    with pytest.raises(UserError, match=r"b\.parquet: must be a \.jsonl or \.json list, or a folder"):
        sources.items(Data(source=str(tmp_path / "b.parquet")))


def test_two_sources_are_two_splits(tmp_path: Path) -> None:
    for part in ("one", "two"):
        put(tmp_path / part / "images" / f"{part}.png")
        put(tmp_path / part / "masks" / f"{part}_MA.png", at=3)
    data = Data(train_data_path=str(tmp_path / "one"), val_data_path=str(tmp_path / "two"))
    found = sources.items(data)
    assert [(item.name, item.record.split) for item in found] == [("train-one", "train"), ("val-two", "val")]  # type: ignore[union-attr]
    put(tmp_path / "two" / "images" / "one.png")  # another photograph of the same name
    assert [item.name for item in sources.items(data)] == ["train-one", "val-one", "val-two"]


def test_a_data_set_of_the_hub_is_a_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(root / "masks" / "a_MA.png", at=3)
    asked: list[tuple[str, str | None, str]] = []

    def snapshot(name: str, revision: str | None, kind: str) -> Path:
        asked.append((name, revision, kind))
        return root

    monkeypatch.setattr(hub, "snapshot", snapshot)
    data = Data(source="hub:somebody/fundus.v2@main", size=32)
    assert [item.name for item in sources.items(data)] == ["a", "b", "c_MA"]
    sources.items(Data(source="hub:somebody/fundus"))
    assert asked == [("somebody/fundus.v2", "main", "dataset"), ("somebody/fundus", None, "dataset")]
    assert data.folder == "somebody-fundus.v2-32"
    with pytest.raises(UserError, match="OWNER/NAME"):
        sources.items(Data(source="hub:fundus"))
