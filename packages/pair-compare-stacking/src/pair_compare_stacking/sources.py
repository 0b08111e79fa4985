"""Where the single digits come from: scikit-learn, MNIST in its usual containers, PNG folders, the Hub.

Whatever the container, a source is two pools of 28x28 grey digits, bright on black: `train` and `test`, as MNIST has
60,000 and 10,000. A source without such a division is divided here, by image.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from pair_compare_stacking import idx, pairfile
from pair_compare_stacking.generator import DIGITS, SIDE
from shared_core import splits
from shared_core.errors import UserError

FORMS = "an .npz, a folder of the four IDX files, a folder of PNGs by class, or hub:OWNER/NAME"
HUB_MNIST = "hub:ylecun/mnist@77f3279092a1c1579b2250db8eafed0ad422088c"
TEST_SHARE = 1 / 6  # of a source that comes undivided; MNIST's own is 1 / 7
NPZ_LAYOUTS = (("Xt", "Yt", "Xe", "Ye"), ("x_train", "y_train", "x_test", "y_test"))
MAX_BYTES = 2 * 2**30  # unpacked; MNIST has 55 MB


@dataclass(frozen=True)
class Pool:
    """Digits of one part of a source."""

    images: np.ndarray  # uint8 (M, 28, 28)
    labels: np.ndarray  # int8 (M,), 0..9
    ids: np.ndarray  # str (M,): unique over the whole source; an array's row or a file's path

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> Pool:
        """The digits in `rows`, in that order."""
        return Pool(self.images[rows], self.labels[rows], self.ids[rows])

    def sha256(self) -> str:
        """Hash of the content; two containers of the same digits have the same one."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images).tobytes())
        digest.update(np.ascontiguousarray(self.labels, np.int8).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Source:
    """A named source: two pools that share no image."""

    name: str
    train: Pool
    test: Pool


def load_source(source: str, path: str | None = None) -> Source:
    """Load `source`: ``digits``, ``mnist`` (at `path`, else from the Hub), a path, or ``hub:OWNER/NAME[@REVISION]``.

    Raises UserError for anything missing, damaged or of another shape.
    """
    if source == "mnist":
        if path is not None:
            return _load(path, "mnist")
        try:
            return _load(HUB_MNIST, "mnist")
        except UserError as error:
            raise UserError(f"{error}; or set data.path to a local copy") from error
    if path is not None:
        raise UserError(f"data.path {path} goes with source mnist only: leave it out, or give the path as the source")
    if source == "digits":
        return _digits()
    return _load(source, source)


def _load(where: str, name: str) -> Source:
    if where.startswith("hub:"):
        train, test = _hub(where)
        return Source(name, train, test)
    path = Path(where).expanduser()
    if path.is_dir():
        files = idx.find(path)
        train, test = _idx(files) if files else _pngs(path)
    elif path.suffix == ".npz" and path.exists():
        train, test = _npz(path)
    elif path.exists():
        raise UserError(f"{path}: no source of digits: give {FORMS}")
    else:
        owner_name = re.fullmatch(r"[\w.\-]+/[\w.\-]+", where)
        hint = f"hub:{where} if a data set on the Hub is meant" if owner_name else FORMS
        raise UserError(f"{where}: no such source of digits: give {hint}")
    return Source(name, train, test)


def _pool(images: np.ndarray, labels: np.ndarray, ids: np.ndarray, where: str) -> Pool:
    """A checked pool; `where` names the file in the errors."""
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (SIDE, SIDE):
        raise UserError(f"{where}: images are {images.dtype} {images.shape}, expected uint8 (N, {SIDE}, {SIDE})")
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (len(images),):
        raise UserError(
            f"{where}: labels are {labels.dtype} {labels.shape}, expected integers ({len(images)},), one per image"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < DIGITS:
        raise UserError(f"{where}: labels run from {labels.min()} to {labels.max()}, expected digits 0 to 9")
    missing = sorted(set(range(DIGITS)) - set(labels.tolist()))
    if missing:
        raise UserError(f"{where}: no image of digit {', '.join(map(str, missing))}: pairs need all ten")
    if images[:, [0, -1], :].mean() > 127:
        raise UserError(f"{where}: the digits are dark on a bright ground: invert them (255 - pixel)")
    return Pool(images, labels.astype(np.int8), ids)


def _numbered(images: np.ndarray, labels: np.ndarray, part: str, where: str) -> Pool:
    """A pool of arrays, whose ids are the rows."""
    return _pool(images, labels, np.array([f"{part}-{row:05d}" for row in range(len(images))]), where)


def _divided(pool: Pool, where: str) -> tuple[Pool, Pool]:
    """Train and test pools of a source that comes as one: stratified by digit, by image, always the same."""
    rows = splits.stratified(pool.labels, {"train": 1 - TEST_SHARE, "test": TEST_SHARE}, seed=0)
    train, test = pool.take(rows["train"]), pool.take(rows["test"])
    if len(np.unique(train.labels)) < DIGITS or len(np.unique(test.labels)) < DIGITS:
        raise UserError(f"{where}: too few images of some digit for a train and a test part: give at least 12 of each")
    return train, test


def _digits() -> Source:
    """scikit-learn's 1,797 real 8x8 digits, enlarged to MNIST's geometry: 20x20, centred on 28x28."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.zeros((len(bunch.target), SIDE, SIDE), np.uint8)
    for row, small in enumerate(bunch.images):
        picture = Image.fromarray(np.round(small * (255 / 16)).astype(np.uint8))
        images[row, 4:24, 4:24] = np.asarray(picture.resize((20, 20), Image.Resampling.BICUBIC))
    where = "scikit-learn's digits"
    return Source("digits", *_divided(_numbered(images, bunch.target, "digits", where), where))


def _npz(path: Path) -> tuple[Pool, Pool]:
    names = pairfile.names(path)
    layout = next((layout for layout in NPZ_LAYOUTS if set(layout) <= set(names)), None)
    if layout is None:
        wanted = " or ".join("/".join(layout) for layout in NPZ_LAYOUTS)
        raise UserError(f"{path}: arrays {', '.join(names) or 'none'}; a source of digits has {wanted}")
    arrays = pairfile.read_npz(path, layout, MAX_BYTES)
    x_train, y_train, x_test, y_test = (arrays[key] for key in layout)
    return _numbered(x_train, y_train, "train", f"{path}: {layout[0]}"), _numbered(
        x_test, y_test, "test", f"{path}: {layout[2]}"
    )


def _idx(files: idx.Files) -> tuple[Pool, Pool]:
    train = _numbered(
        idx.read(files.train_images, 3), idx.read(files.train_labels, 1), "train", str(files.train_images)
    )
    test = _numbered(idx.read(files.test_images, 3), idx.read(files.test_labels, 1), "test", str(files.test_images))
    return train, test


def _pngs(folder: Path) -> tuple[Pool, Pool]:
    """``{train,test}/{digit}/*.png``, or ``{digit}/*.png``, which is then divided."""
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        return _png_pool(folder / "train", folder), _png_pool(folder / "test", folder)
    if any((folder / str(digit)).is_dir() for digit in range(DIGITS)):
        return _divided(_png_pool(folder, folder), str(folder))
    raise UserError(
        f"{folder}: neither the four IDX files nor PNGs by class ({{train,test}}/0..9/*.png or 0..9/*.png) are here"
    )


def _png_pool(part: Path, folder: Path) -> Pool:
    images, labels, ids = [], [], []
    for digit in range(DIGITS):
        for file in sorted((part / str(digit)).glob("*.png"), key=_natural):
            images.append(_png(file))
            labels.append(digit)
            ids.append(file.relative_to(folder).as_posix())
    if not images:
        raise UserError(f"{part}: no PNG in the folders 0 to 9")
    return _pool(np.stack(images), np.array(labels), np.array(ids), str(part))


def _png(file: Path) -> np.ndarray:
    """One grey image. The size is looked at before a pixel is unpacked."""
    try:
        with Image.open(file, formats=["PNG"]) as picture:
            if picture.size != (SIDE, SIDE):
                width, height = picture.size
                raise UserError(f"{file}: {width}x{height} pixels, expected {SIDE}x{SIDE}: resize it")
            return np.asarray(picture.convert("L"))
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(f"{file}: no readable PNG ({error}): replace or remove it") from error


def _natural(file: Path) -> list[int | str]:
    """Order by number where the name holds one, so that 9.png comes before 10.png."""
    return [int(word) if word.isdigit() else word for word in re.split(r"(\d+)", file.name)]


def _hub(where: str) -> tuple[Pool, Pool]:
    """A data set on the Hub with columns image and label and splits train and test (or train only)."""
    from shared_core import hub

    name, _, revision = where.removeprefix("hub:").partition("@")
    table = hub.dataset(name, revision or None)
    if "train" not in table:
        raise UserError(f"{where}: splits {', '.join(table)}; a source of digits needs train (and test)")
    train = _hub_pool(table["train"], "train", where)
    return (train, _hub_pool(table["test"], "test", where)) if "test" in table else _divided(train, where)


def _hub_pool(table: Iterable[Mapping[str, Any]], part: str, where: str) -> Pool:
    images: list[np.ndarray] = []
    labels: list[int] = []
    for row in table:
        if not {"image", "label"} <= set(row):
            raise UserError(f"{where}: columns {', '.join(row)}; a source of digits has image and label")
        image = row["image"]
        pixels = np.asarray(image.convert("L") if isinstance(image, Image.Image) else image, np.uint8)
        if pixels.shape != (SIDE, SIDE):
            raise UserError(f"{where}: row {len(images)} of {part} is {pixels.shape}, expected {SIDE}x{SIDE} grey")
        images.append(pixels)
        labels.append(row["label"])
    if not images:
        raise UserError(f"{where}: split {part} is empty")
    return _numbered(np.stack(images), np.array(labels), part, where)
