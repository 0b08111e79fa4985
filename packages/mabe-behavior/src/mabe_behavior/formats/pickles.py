"""Pickles of arrays, opened without running what is in them.

CalMS21 and MABe22 come as `.npy` files that hold a pickled dictionary. A pickle is a program: this one may make NumPy
arrays, their scalars and Python's plain containers, and nothing else.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from shared_core import files
from shared_core.errors import UserError

_ARRAYS = {
    **{("numpy", name): getattr(np, name) for name in ("ndarray", "dtype")},
    ("collections", "OrderedDict"): OrderedDict,
}
_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")
_MAKERS = ("_reconstruct", "scalar", "_frombuffer")


class _Arrays(pickle.Unpickler):
    """Knows arrays only."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ARRAYS:
            return _ARRAYS[module, name]
        if module in _MODULES and name in _MAKERS:
            return getattr(np._core.multiarray if name != "_frombuffer" else np._core.numeric, name)
        if (module, name) == ("_codecs", "encode"):  # how old pickles hold bytes
            return _encoded
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _encoded(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding}")
    return text.encode("latin1")


def loads(data: bytes, where: str) -> Any:
    """The object of a pickle in a file of another kind. Raises UserError as `load` does."""
    try:
        return _Arrays(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a damaged pickle may raise anything
        raise UserError(f"{where}: holds a pickle that is damaged, or more than arrays ({error})") from error


def load(path: Path) -> Any:
    """What an `.npy` file holds: an array, or the object of a pickled one.

    Raises UserError where it cannot be read, is no such file, or would make anything but arrays and plain containers.
    """
    try:
        with path.open("rb") as stream:
            version = npy.read_magic(stream)
            header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = header(stream)
            if not dtype.hasobject:
                return np.load(path, allow_pickle=False)
            found = _Arrays(stream, encoding="latin1").load()
    except OSError as error:
        raise files.explain(error, path) from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: holds a pickle that is more than arrays ({error}); it could run anything, so it is not opened. "
            "Take the data set's JSON, or convert the file where you trust it"
        ) from error
    except Exception as error:  # a truncated or damaged pickle may raise anything
        raise UserError(f"{path}: is no .npy file, or damaged ({type(error).__name__}: {error})") from error
    return found.item() if isinstance(found, np.ndarray) and shape == () else found
