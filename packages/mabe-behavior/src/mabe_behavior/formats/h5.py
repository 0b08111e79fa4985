"""HDF5 files, read with h5py, which is only needed for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from shared_core import files
from shared_core.errors import UserError


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The open file. Raises UserError where h5py is not installed, or the file cannot be read."""
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"{path}: needs h5py to be read; install it: pip install h5py") from error
    try:
        with path.open("rb"):  # h5py's own errors do not tell a missing file from a damaged one
            pass
    except OSError as error:
        raise files.explain(error, path) from error
    try:
        stream = h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path}: is no whole HDF5 file; get or make it again") from error
    with stream:
        try:
            yield stream
        except (KeyError, RuntimeError, TypeError, UnicodeDecodeError) as error:  # h5py's, of a damaged file
            raise UserError(f"{path}: is damaged ({error}); get or make it again") from error


def array(group: Any, name: str, where: str) -> np.ndarray:
    """A dataset as it stands. Raises UserError where it is not there, holds Python objects, or is damaged."""
    found = group.get(name)
    if found is None or not hasattr(found, "dtype"):
        raise UserError(f"{where}: has no dataset {name}; it holds {', '.join(group) or 'nothing'}")
    try:
        return np.asarray(found[()])
    except OSError as error:
        raise UserError(f"{where}: {name} cannot be read; the file is damaged") from error


def texts(group: Any, name: str, where: str) -> list[str]:
    """A dataset of texts."""
    return [one.decode() if isinstance(one, bytes) else str(one) for one in array(group, name, where).ravel()]
