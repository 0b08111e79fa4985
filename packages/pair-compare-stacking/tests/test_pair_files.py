"""Files of pairs: what is written is read back, and every bad file gets one clear line."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from pair_compare_stacking import pairfile
from pair_compare_stacking.pairfile import PairFile, Truth
from pair_compare_stacking.pairs import PairNPZDataset, halves
from shared_core.errors import UserError


def made(n: int = 6, seed: int = 0, labelled: bool = True) -> PairFile:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (n, 28, 56), np.uint8)
    digits = np.array([rng.choice(10, 2, replace=False) for _ in range(n)], np.int8)
    y = (digits[:, 0] > digits[:, 1]).astype(np.int8)
    rows = rng.integers(0, 60, (n, 2)).astype(np.int32)
    truth = Truth(digits, np.char.add("train-", rows.astype(str)), rows, "train")
    if labelled:
        return PairFile(x, y, truth=truth)
    return PairFile(x, ids=np.array([f"PUB_{row:07d}" for row in range(n)]), truth=truth)


def save(path: Path, **arrays: object) -> Path:
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


X = made().x
Y = np.array([0, 1, 0, 1, 0, 1], np.int8)
IDS = np.array([f"PUB_{row:07d}" for row in range(6)])


@given(n=st.integers(1, 9), seed=st.integers(0, 2**32 - 1), labelled=st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_file_is_read_back(n: int, seed: int, labelled: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("pairs") / "set.npz"
    written = made(n, seed, labelled)
    pairfile.write(path, written)
    read = pairfile.read(path)
    assert np.array_equal(read.x, written.x)
    assert (read.y is None) == (not labelled) and (read.ids is None) == labelled
    assert np.array_equal(read.y if labelled else read.ids, written.y if labelled else written.ids)
    assert read.truth is not None and written.truth is not None
    for name in ("digits", "sources", "rows", "pool"):
        assert np.array_equal(getattr(read.truth, name), getattr(written.truth, name))


def test_the_file_has_the_courses_keys_and_dtypes(tmp_path: Path) -> None:
    pairfile.write(tmp_path / "train.npz", made())
    pairfile.write(tmp_path / "test_public.npz", made(labelled=False))
    with np.load(tmp_path / "train.npz") as train, np.load(tmp_path / "test_public.npz") as test:
        assert {key: str(train[key].dtype) for key in train} == {"x": "uint8", "y": "int8"}
        assert {key: str(test[key].dtype) for key in test} == {"x": "uint8", "id": "<U11"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "test_public.npz", "test_public.truth.npz", "train.npz", "train.truth.npz",
    ]  # fmt: skip


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        pairfile.write(tmp_path / name, made())
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_items_of_a_labelled_file(tmp_path: Path) -> None:
    content = made()
    pairfile.write(tmp_path / "val.npz", content)
    data = PairNPZDataset(tmp_path / "val.npz")
    item = data[2]
    assert len(data) == 6 and set(item) == {"x", "y", "digits"}
    assert item["x"].dtype == torch.float32 and item["x"].shape == (2, 28, 28)
    assert np.array_equal((item["x"][0] * 255).round().numpy(), content.x[2, :, :28])
    assert np.array_equal((item["x"][1] * 255).round().numpy(), content.x[2, :, 28:])
    assert item["y"] == (item["digits"][0] > item["digits"][1])
    batch = next(iter(DataLoader(data, batch_size=4)))
    assert batch["x"].shape == (4, 2, 28, 28) and batch["y"].shape == (4,) and batch["digits"].shape == (4, 2)


def test_items_of_a_test_file_have_ids_and_no_label(tmp_path: Path) -> None:
    path = save(tmp_path / "test_public.npz", x=X, id=IDS)
    data = PairNPZDataset(path, form="picture")
    assert set(data[0]) == {"x", "id"} and data[5]["id"] == "PUB_0000005"
    assert data[0]["x"].dtype == torch.uint8 and data[0]["x"].shape == (28, 56)
    assert data.y is None and data.truth is None and data.digits is None


def test_halves_of_a_batch_and_of_one_agree() -> None:
    pictures = torch.from_numpy(X)
    assert torch.equal(halves(pictures)[3], halves(pictures[3]))
    assert halves(pictures).shape == (6, 2, 28, 28)


OBJECTS = np.array([None, 1, "a", {}, [], 2], object)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": Y}, "arrays y"),
        ({"x": X}, "x and y"),
        ({"images": X, "labels": Y}, "arrays images, labels"),
        ({"x": X.astype(np.float32), "y": Y}, "float32"),
        ({"x": X[:, :, :28], "y": Y}, r"\(6, 28, 28\)"),
        ({"x": X[0], "y": Y}, r"\(28, 56\)"),
        ({"x": X[:0], "y": Y[:0]}, "no pair"),
        ({"x": X, "y": Y[:5]}, r"y is int8 \(5,\)"),
        ({"x": X, "y": Y[:, None]}, r"y is int8 \(6, 1\)"),
        ({"x": X, "y": Y.astype(np.float64)}, "y is float64"),
        ({"x": X, "y": np.where(Y == 1, np.nan, 0)}, "y is float64"),
        ({"x": X, "y": Y * 2}, r"3 labels are neither 0 nor 1, the first is y\[1\] = 2"),
        ({"x": X, "y": -Y}, r"y\[1\] = -1"),
        ({"x": X, "y": OBJECTS}, "y"),
        ({"x": OBJECTS, "y": Y}, "x"),
        ({"x": X, "id": OBJECTS}, "id"),
        ({"x": X, "id": np.arange(6)}, "id is int64"),
        ({"x": X, "id": IDS[:4]}, "id is"),
        ({"x": X, "id": IDS[[0, 1, 2, 3, 4, 2]]}, "duplicate ids, PUB_0000002 occurs 2 times"),
    ],
)
def test_bad_content_is_named(arrays: dict[str, np.ndarray], words: str, tmp_path: Path) -> None:
    path = save(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError, match=words) as caught:
        PairNPZDataset(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_object_arrays_are_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "sprung",))

    trap = np.empty(6, object)
    trap[0] = Trap()
    path = save(tmp_path / "trap.npz", x=X, y=trap)
    with pytest.raises(UserError):
        pairfile.read(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_file_is_named(keep: float, tmp_path: Path) -> None:
    path = save(tmp_path / "cut.npz", x=X, y=Y)
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(UserError, match=r"cut\.npz"):
        pairfile.read(path)


def test_flipped_bytes_are_found(tmp_path: Path) -> None:
    path = save(tmp_path / "flip.npz", x=X, y=Y)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"flip\.npz"):
        pairfile.read(path)


@pytest.mark.parametrize("name", ["none.npz", "folder"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=name):
        pairfile.read(tmp_path / name)


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """12 GB of zeros in a few MB would otherwise be one np.load away."""
    path = tmp_path / "bomb.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (512, 28, 56)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("x.npy", "w") as member:
            member.write(header.getvalue())
            for _ in range(512):
                member.write(bytes(2**20))
        with archive.open("y.npy", "w") as member:
            np.lib.format.write_array(member, Y)
    with pytest.raises(UserError, match=r"bomb\.npz"):
        pairfile.read(path)


@pytest.mark.parametrize("change", ["fewer", "labels", "digit", "dtype", "truncated"])
def test_a_sidecar_of_another_file_is_refused(change: str, tmp_path: Path) -> None:
    path = tmp_path / "val.npz"
    pairfile.write(path, made())
    sidecar = pairfile.truth_path(path)
    with np.load(sidecar) as archive:
        arrays = {key: archive[key] for key in archive.files}
    if change == "fewer":
        arrays = {key: array[:5] if array.ndim else array for key, array in arrays.items()}
    elif change == "labels":
        arrays["digits"] = arrays["digits"][:, ::-1]
    elif change == "digit":
        arrays["digits"][0] = (11, 10) if arrays["digits"][0, 0] > arrays["digits"][0, 1] else (10, 11)
    elif change == "dtype":
        arrays["sources"] = arrays["rows"]
    save(sidecar, **arrays)
    if change == "truncated":
        sidecar.write_bytes(sidecar.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"val\.truth\.npz"):
        pairfile.read(path)
