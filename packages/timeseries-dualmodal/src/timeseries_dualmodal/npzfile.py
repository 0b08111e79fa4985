"""Series in an `.npz`, without pickles.

x (N, V, T) numbers, NaN where one is missing; if wanted y (N,) class numbers or names, ids (N,), variables (V,),
times (T,), classes (K,) the names behind the numbers in y, and columns of groups (N,) under their names or group_NAME.

Shapes: N series, V variables, T steps, K classes.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared_core import files
from shared_core.errors import UserError
from shared_core.schema import did_you_mean
from timeseries_dualmodal.data_config import Data
from timeseries_dualmodal.raw import Raw, brief, pick, refuse_double
from timeseries_dualmodal.series import Known

MAX_BYTES = 8 * 2**30  # unpacked
OPTIONAL = ("y", "ids", "variables", "times", "classes")


def read(path: Path, data: Data, labelled: bool, like: Known | None) -> Raw:
    """The content of the file; without y where it is not `labelled`, which may lack groups too.

    Raises:
        UserError: it is missing, damaged, bloated or holds objects; arrays are missing or of shapes that do not fit.
    """
    present = names(path)
    groups = _groups(data, present, path, labelled and like is None)
    optional = (key for key in OPTIONAL if key in present and (labelled or key != "y"))
    arrays = files.read_npz(path, ["x", *optional, *groups.values()], MAX_BYTES)
    x = arrays["x"]
    if x.ndim != 3 or x.dtype.kind not in "fiu":
        raise UserError(f"{path}: x is {x.dtype} {x.shape}, expected numbers (N series, V variables, T steps)")
    n, v, t = x.shape
    for key, length in {"y": n, "ids": n, "variables": v, "times": t, **dict.fromkeys(groups.values(), n)}.items():
        if key in arrays and arrays[key].shape != (length,):
            raise UserError(
                f"{path}: {key} is {arrays[key].shape}, expected ({length},) beside x {x.shape}; correct it"
            )
    variables = _variables(arrays, data, like, v, path)
    chosen = pick(variables, data, like, str(path))
    with np.errstate(over="ignore"):  # infinite values are named later
        values = x[:, [variables.index(name) for name in chosen]].astype(np.float32)
    return Raw(
        str(path),
        values,
        chosen,
        _times(arrays, path),
        arrays["ids"].astype(np.str_) if "ids" in arrays else None,
        _labels(arrays, path),
        lambda row: f"row {row + 1}",
        {name: arrays[key].astype(np.str_) for name, key in groups.items()},
    )


def names(path: Path) -> list[str]:
    """Names of the arrays in the file. Raises UserError where it is missing or no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UserError(f"{path}: is no whole .npz archive ({error}); get or make it again") from error
    except OSError as error:
        raise files.explain(error, path) from error


def _groups(data: Data, present: list[str], path: Path, needed: bool) -> dict[str, str]:
    """The arrays of the group columns, by column. Raises UserError for one that is `needed` and not there."""
    arrays = set(present) - {"x", *OPTIONAL}
    found = {name: key for name in data.groups for key in (f"group_{name}", name) if key in arrays}
    for name in data.groups:
        if needed and name not in found:
            raise UserError(
                f"{path}: has no array {name!r}{did_you_mean(name, present)}, which --data.groups names; it has "
                f"{brief(tuple(present))}"
            )
    return found


def _variables(
    arrays: dict[str, np.ndarray], data: Data, like: Known | None, count: int, path: Path
) -> tuple[str, ...]:
    """Names of all variables in x: the file's own, else those that are asked for, else numbers."""
    if "variables" in arrays:
        names = tuple(str(name) for name in arrays["variables"])
        refuse_double(names, f"{path}: variables")
        return names
    wanted = data.variables or (() if like is None else like.variables)
    if wanted and len(wanted) != count:
        raise UserError(
            f"{path}: x has {count} variables without names, where {len(wanted)} are asked for; add an array variables"
        )
    return tuple(wanted) or tuple(f"variable{number}" for number in range(count))


def _times(arrays: dict[str, np.ndarray], path: Path) -> NDArray[np.float64] | None:
    if "times" not in arrays:
        return None
    times = arrays["times"]
    if times.dtype.kind not in "fiu" or not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
        raise UserError(f"{path}: times are {times.dtype}, {brief(tuple(map(str, times)))}; expected ascending numbers")
    return times.astype(np.float64)


def _labels(arrays: dict[str, np.ndarray], path: Path) -> NDArray[np.str_] | None:
    """The name of each series' class."""
    if "y" not in arrays:
        return None
    y = arrays["y"]
    if "classes" not in arrays or y.dtype.kind not in "iu":
        return y.astype(np.str_)
    classes = arrays["classes"].astype(np.str_)
    refuse_double(tuple(classes.ravel().tolist()), f"{path}: classes")
    if classes.ndim != 1 or (len(y) and not 0 <= y.min() <= y.max() < len(classes)):
        raise UserError(
            f"{path}: y runs from {y.min()} to {y.max()}, where {len(classes)} classes have names; correct it"
        )
    return classes[y]
