"""Sources of digits: the same digits from every container, and a clear line for every unusable one."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pair_compare_stacking import sources
from pair_compare_stacking.sources import Source, load_source
from shared_core import hub
from shared_core.errors import UserError

RNG = np.random.default_rng(0)
Y_TRAIN, Y_TEST = np.repeat(np.arange(10), 3).astype(np.uint8), np.arange(10, dtype=np.uint8)
X_TRAIN, X_TEST = (np.zeros((n, 28, 28), np.uint8) for n in (30, 10))
X_TRAIN[:, 4:24, 4:24] = RNG.integers(0, 256, (30, 20, 20))
X_TEST[:, 4:24, 4:24] = RNG.integers(0, 256, (10, 20, 20))


def as_npz(folder: Path, keys: tuple[str, ...] = sources.NPZ_LAYOUTS[0], **change: np.ndarray) -> Path:
    arrays = dict(zip(keys, (X_TRAIN, Y_TRAIN, X_TEST, Y_TEST), strict=True)) | change
    path = folder / "digits.npz"
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()


def as_idx(folder: Path, packed: bool = False, dotted: bool = False) -> Path:
    for part, x, y in (("train", X_TRAIN, Y_TRAIN), ("t10k", X_TEST, Y_TEST)):
        for what, array in (("images", x), ("labels", y)):
            name = f"{part}-{what}{'.' if dotted else '-'}idx{array.ndim}-ubyte"
            data = idx_bytes(array)
            (folder / (name + ".gz" if packed else name)).write_bytes(gzip.compress(data) if packed else data)
    return folder


def as_pngs(folder: Path, divided: bool = True, prefix: str = "") -> Path:
    for part, x, y in (("train", X_TRAIN, Y_TRAIN), ("test", X_TEST, Y_TEST)):
        for row, (image, digit) in enumerate(zip(x, y, strict=True)):
            file = (
                (folder / part if divided else folder)
                / str(digit)
                / (f"{row}.png" if divided else f"{prefix}{part}{row}.png")
            )
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
    return folder


@pytest.fixture
def as_hub(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set on the Hub, as `shared_core.hub.dataset` returns it."""
    table = {
        part: [{"image": Image.fromarray(image), "label": int(digit)} for image, digit in zip(x, y, strict=True)]
        for part, x, y in (("train", X_TRAIN, Y_TRAIN), ("test", X_TEST, Y_TEST))
    }
    asked: list[tuple] = []

    def dataset(name: str, revision: str | None = None) -> dict:
        asked.append((name, revision))
        return table

    monkeypatch.setattr(hub, "dataset", dataset)
    table["asked"] = asked  # type: ignore[assignment]
    return table  # type: ignore[return-value]


def same(source: Source) -> bool:
    return (
        np.array_equal(source.train.images, X_TRAIN)
        and np.array_equal(source.train.labels, Y_TRAIN)
        and np.array_equal(source.test.images, X_TEST)
        and np.array_equal(source.test.labels, Y_TEST)
    )


@pytest.mark.parametrize("keys", sources.NPZ_LAYOUTS)
def test_npz_layouts(keys: tuple[str, ...], tmp_path: Path) -> None:
    source = load_source(str(as_npz(tmp_path, keys)))
    assert same(source) and source.train.ids[3] == "train-00003"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dotted", [False, True])
def test_idx_files(packed: bool, dotted: bool, tmp_path: Path) -> None:
    assert same(load_source(str(as_idx(tmp_path, packed, dotted))))


def test_idx_files_where_torchvision_puts_them(tmp_path: Path) -> None:
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    as_idx(tmp_path / "MNIST" / "raw")
    assert same(load_source(str(tmp_path)))


def test_pngs_by_class(tmp_path: Path) -> None:
    source = load_source(str(as_pngs(tmp_path)))
    assert same(source) and source.test.ids[7] == "test/7/7.png"


def test_undivided_pngs_are_divided_by_image(tmp_path: Path) -> None:
    for copy in range(4):
        as_pngs(tmp_path, divided=False, prefix=f"{copy}-")
    source = load_source(str(tmp_path))
    assert len(source.train) + len(source.test) == 160
    assert not set(source.train.ids) & set(source.test.ids)
    assert set(source.test.labels.tolist()) == set(range(10))
    again = load_source(str(tmp_path))
    assert np.array_equal(source.test.ids, again.test.ids)


def test_too_few_images_to_divide_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too few images of some digit"):
        load_source(str(as_pngs(tmp_path, divided=False)))


def test_the_hub_through_its_one_door(as_hub: dict) -> None:
    assert same(load_source("hub:someone/digits@abc123")) and same(load_source("hub:someone/digits"))
    assert as_hub["asked"] == [("someone/digits", "abc123"), ("someone/digits", None)]


def test_mnist_lies_at_its_path_or_on_the_hub(as_hub: dict, tmp_path: Path) -> None:
    assert same(load_source("mnist", str(as_npz(tmp_path)))) and as_hub["asked"] == []
    assert load_source("mnist").name == "mnist" and as_hub["asked"][0][0] == "ylecun/mnist"


def test_without_the_hub_a_local_copy_is_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    def dataset(name: str, revision: str | None) -> dict:
        raise UserError("the Hub cannot be reached")

    monkeypatch.setattr(hub, "dataset", dataset)
    with pytest.raises(UserError, match=r"cannot be reached; or set data\.path to a local copy"):
        load_source("mnist")


def test_every_container_of_the_same_digits_has_one_fingerprint(tmp_path: Path) -> None:
    for name in ("idx", "png"):
        (tmp_path / name).mkdir()
    paths = as_npz(tmp_path), as_idx(tmp_path / "idx"), as_pngs(tmp_path / "png")
    assert len({load_source(str(path)).train.sha256() for path in paths}) == 1


def test_scikit_learns_digits() -> None:
    source = load_source("digits")
    assert len(source.train) + len(source.test) == 1797
    assert len(source.test) == pytest.approx(1797 / 6, abs=6)
    assert not set(source.train.ids) & set(source.test.ids)
    images = source.train.images
    assert images.dtype == np.uint8 and images.max() == 255
    assert images[:, :4].max() == images[:, :, 24:].max() == 0  # MNIST's margin of four pixels
    first = np.flatnonzero(source.train.labels == 0)[:20]
    assert images[first, 12:16, 12:16].mean() < 60 < images[first, 6:22, 6:22].mean()  # a zero is hollow


def test_real_mnist_pngs() -> None:
    folder = Path(os.environ.get("TEST_DATA_DIR", "")) / "mnist-png"
    if "TEST_DATA_DIR" not in os.environ or not folder.is_dir():
        pytest.skip("set TEST_DATA_DIR to a folder with mnist-png to read real PNGs")
    source = load_source(str(folder))
    assert (len(source.train), len(source.test)) == (1500, 400)
    rows = [int(Path(name).stem) for name in source.train.ids[source.train.labels == 3]]
    assert rows == sorted(rows)  # the original order within a digit, which is what the generator draws from


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"Xt": X_TRAIN.astype(np.float32)}, "float32"),
        ({"Xt": X_TRAIN[:, :20]}, r"\(30, 20, 28\)"),
        ({"Xt": X_TRAIN.reshape(30, 784)}, r"\(30, 784\)"),
        ({"Yt": Y_TRAIN[:-1]}, r"\(29,\)"),
        ({"Yt": Y_TRAIN.astype(np.float64)}, "labels are float64"),
        ({"Yt": Y_TRAIN + 1}, "run from 1 to 10"),
        ({"Ye": np.where(Y_TEST == 4, 5, Y_TEST)}, "Xe: no image of digit 4"),
        ({"Xe": 255 - X_TEST}, "invert"),
        ({"Yt": np.array([None] * 30, object)}, "Yt"),
    ],
)
def test_unusable_arrays_are_named(change: dict[str, np.ndarray], words: str, tmp_path: Path) -> None:
    path = as_npz(tmp_path, **change)
    with pytest.raises(UserError, match=words) as caught:
        load_source(str(path))
    assert str(path) in str(caught.value)


def test_an_npz_of_something_else_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=X_TRAIN, b=Y_TRAIN)
    with pytest.raises(UserError, match=r"arrays a, b; .*Xt/Yt/Xe/Ye or x_train"):
        load_source(str(tmp_path / "other.npz"))


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("train-images-idx3-ubyte", lambda data: data[:-1], "header promises"),
        ("train-images-idx3-ubyte", lambda data: data + b"\0", "header promises"),
        ("train-images-idx3-ubyte", lambda data: data[:9], "no IDX file"),
        ("train-images-idx3-ubyte", lambda data: b"", "no IDX file"),
        ("t10k-labels-idx1-ubyte", lambda data: b"\0\0\x0d\1" + data[4:], "no IDX file"),
        ("t10k-labels-idx1-ubyte", lambda data: idx_bytes(X_TEST), "no IDX file"),
        ("t10k-images-idx3-ubyte", lambda data: data[:4] + b"\xff" * 12 + data[16:], "header promises"),
        ("t10k-labels-idx1-ubyte", lambda data: idx_bytes(Y_TEST[:9]), "one per image"),
    ],
)
def test_damaged_idx_files_are_named(name: str, damage: object, words: str, tmp_path: Path) -> None:
    file = as_idx(tmp_path) / name
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    with pytest.raises(UserError, match=words):
        load_source(str(tmp_path))


def test_a_missing_idx_file_is_named(tmp_path: Path) -> None:
    (as_idx(tmp_path) / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte \(or \.gz\) is missing"):
        load_source(str(tmp_path))


def test_damaged_gzip_and_gzip_bombs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = as_idx(tmp_path, packed=True) / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    for damaged in (whole[:-10], b"plain" + whole, whole[:50] + b"\0" * 20 + whole[70:]):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be read"):
            load_source(str(tmp_path))
    file.write_bytes(gzip.compress(bytes(2**21)))
    monkeypatch.setattr("pair_compare_stacking.idx.MAX_BYTES", 2**20)
    with pytest.raises(UserError, match="more than 1 MiB"):
        load_source(str(tmp_path))


@pytest.mark.parametrize("damage", ["size", "text", "cut", "gap", "empty"])
def test_damaged_pngs_are_named(damage: str, tmp_path: Path) -> None:
    file = as_pngs(tmp_path) / "train" / "3" / "10.png"
    if damage == "size":
        Image.new("L", (32, 32)).save(file)
    elif damage == "text":
        file.write_text("no picture")
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:60])
    elif damage == "gap":
        for one in file.parent.glob("*.png"):
            one.unlink()
    else:
        for one in (tmp_path / "train").glob("*/*.png"):
            one.unlink()
    words = {"size": "32x32", "text": "no readable PNG", "cut": "no readable PNG", "gap": "digit 3", "empty": "no PNG"}
    with pytest.raises(UserError, match=words[damage]):
        load_source(str(tmp_path))


@pytest.mark.parametrize(
    ("source", "path", "words"),
    [
        ("nowhere.npz", None, "no such source of digits"),
        ("someone/digits", None, "hub:someone/digits if"),
        ("digits", "somewhere", "source mnist only"),
        ("mnist", "nowhere", "no such source"),
    ],
)
def test_sources_that_are_not_there(source: str, path: str | None, words: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        load_source(source, path)


def test_files_and_folders_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match=r"no source of digits: give an \.npz"):
        load_source(str(tmp_path / "notes.txt"))
    with pytest.raises(UserError, match="neither the four IDX files nor PNGs"):
        load_source(str(tmp_path))


@pytest.mark.parametrize("what", ["columns", "shape", "splits", "empty"])
def test_unusable_hub_data_sets_are_named(what: str, as_hub: dict) -> None:
    if what == "columns":
        as_hub["train"] = [{"text": "a", "label": 1}]
    elif what == "shape":
        as_hub["test"][4]["image"] = Image.new("L", (32, 32))
    elif what == "splits":
        as_hub["all"] = as_hub.pop("train")
    else:
        as_hub["test"] = []
    words = {
        "columns": "columns text, label",
        "shape": "row 4 of test",
        "splits": "needs train",
        "empty": "split test is empty",
    }
    with pytest.raises(UserError, match=words[what]):
        load_source("hub:someone/digits")
