"""A file of pairs: the course's ``.npz`` and, beside it, a sidecar with the truth.

``train.npz``, ``val.npz``  x uint8 (N, 28, 56), y int8 (N,): 1 iff the left digit is larger
``test_public.npz``         x, and id str (N,) ``PUB_0000000`` instead of y
``*.truth.npz``             digits int8 (N, 2), sources str (N, 2) and rows int32 (N, 2): for the left and the right
                            half the digit, and the id and row of its image in the pool; pool str (): train or test
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pair_compare_stacking.generator import DIGITS, SIDE
from shared_core import files
from shared_core.errors import UserError

MAX_BYTES = 8 * 2**30


@dataclass(frozen=True)
class Truth:
    """What a pair was made of."""

    digits: np.ndarray  # int8 (N, 2)
    sources: np.ndarray  # str (N, 2): id of the source image
    rows: np.ndarray  # int32 (N, 2): its row in the pool it was drawn from
    pool: str  # train or test


@dataclass(frozen=True)
class PairFile:
    """The content of a file of pairs: labels, ids or both, and the truth where its sidecar is there."""

    x: np.ndarray  # uint8 (N, 28, 56)
    y: np.ndarray | None = None  # int8 (N,)
    ids: np.ndarray | None = None  # str (N,)
    truth: Truth | None = None

    def __len__(self) -> int:
        return len(self.x)


def truth_path(path: Path) -> Path:
    """``val.npz`` -> ``val.truth.npz``."""
    return path.with_name(f"{path.stem}.truth.npz")


def write(path: Path, pairs: PairFile) -> None:
    """Write the sidecar, then the file, each whole or not at all. The bytes depend on the content alone."""
    if pairs.truth is not None:
        truth = pairs.truth
        arrays = {"digits": truth.digits, "sources": truth.sources, "rows": truth.rows, "pool": np.array(truth.pool)}
        _write(truth_path(path), arrays)
    columns = {"x": pairs.x, "y": pairs.y, "id": pairs.ids}
    _write(path, {key: array for key, array in columns.items() if array is not None})


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with files.atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def read(path: Path) -> PairFile:
    """Read and check a file of pairs, and its sidecar where there is one.

    Raises UserError for a missing, truncated or bloated archive, wrong shapes or dtypes, objects, labels outside
    {0, 1}, duplicate ids, and a sidecar that contradicts its file.
    """
    present = names(path)
    if "x" not in present or not {"y", "id"} & set(present):
        raise UserError(
            f"{path}: arrays {', '.join(present) or 'none'}; a file of pairs has x and y, or x and id (a test set)"
        )
    arrays = read_npz(path, [key for key in ("x", "y", "id") if key in present])
    x = arrays["x"]
    if x.dtype != np.uint8 or x.ndim != 3 or x.shape[1:] != (SIDE, 2 * SIDE):
        raise UserError(f"{path}: x is {x.dtype} {x.shape}, expected uint8 (N, {SIDE}, {2 * SIDE})")
    if len(x) == 0:
        raise UserError(f"{path}: no pair in it")
    y = _labels(arrays["y"], len(x), path) if "y" in arrays else None
    ids = _ids(arrays["id"], len(x), path) if "id" in arrays else None
    return PairFile(x, y, ids, _truth(path, len(x), y) if truth_path(path).exists() else None)


def read_truth(path: Path) -> Truth:
    """The truth behind the pairs in `path`, without reading the pairs."""
    return _truth(path, None, None)


def _labels(y: np.ndarray, n: int, path: Path) -> np.ndarray:
    if y.shape != (n,) or not (np.issubdtype(y.dtype, np.integer) or y.dtype == bool):
        raise UserError(f"{path}: y is {y.dtype} {y.shape}, expected integers ({n},), one label per pair")
    wrong = np.flatnonzero((y != 0) & (y != 1))
    if len(wrong):
        raise UserError(
            f"{path}: {len(wrong)} labels are neither 0 nor 1, the first is y[{wrong[0]}] = {y[wrong[0]]}: "
            "1 means that the left digit is larger, 0 the right one"
        )
    return y.astype(np.int8)


def _ids(ids: np.ndarray, n: int, path: Path) -> np.ndarray:
    if ids.shape != (n,) or ids.dtype.kind != "U":
        raise UserError(f"{path}: id is {ids.dtype} {ids.shape}, expected strings ({n},), one per pair")
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) != n:
        raise UserError(
            f"{path}: duplicate ids, {unique[counts > 1][0]} occurs {counts.max()} times: each pair needs its own"
        )
    return ids


def _truth(path: Path, n: int | None, y: np.ndarray | None) -> Truth:
    """Read the sidecar of `path`; `n` and `y` are what it must agree with."""
    sidecar = truth_path(path)
    arrays = read_npz(sidecar, ("digits", "sources", "rows", "pool"))
    digits, sources, rows, pool = (arrays[key] for key in ("digits", "sources", "rows", "pool"))
    shape = (len(digits) if n is None else n, 2)
    whole = (
        digits.shape == sources.shape == rows.shape == shape
        and digits.dtype.kind == rows.dtype.kind == "i"
        and sources.dtype.kind == pool.dtype.kind == "U"
        and pool.shape == ()
        and np.isin(digits, np.arange(DIGITS)).all()
    )
    if not whole or (y is not None and not np.array_equal(digits[:, 0] > digits[:, 1], y == 1)):
        raise UserError(f"{sidecar}: does not belong to {path.name}: delete it, or prepare the set again")
    return Truth(digits.astype(np.int8), sources, rows.astype(np.int32), str(pool))


def names(path: Path) -> list[str]:
    """Names of the arrays in an ``.npz``. Raises UserError where it is missing or no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file: prepare the data set, or correct the path") from error
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise UserError(f"{path}: damaged or no .npz ({error}): prepare or download it again") from error


def read_npz(path: Path, keys: Sequence[str], max_bytes: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """`shared_core.files.read_npz` with this package's limit."""
    return files.read_npz(path, keys, max_bytes)
