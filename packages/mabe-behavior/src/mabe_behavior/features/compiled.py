"""Machine code out of Python: how this package has Numba compile what is called for every frame.

What is compiled is kept on the disk for the next process, where a folder can be written. Importing Numba takes about a
second; the modules that import this one are imported when features are first made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, vectorize

# constants of single precision, which do not make doubles of what they are used with
NAN, ZERO, HALF, ONE = (np.float32(number) for number in (np.nan, 0, 0.5, 1))

BLOCK = 1024  # frames that are gone through several times: so many stay in the fastest cache


def compiled(function: Callable[..., Any]) -> Any:
    """Of loops over arrays; other threads may run meanwhile."""
    return _cached(lambda cache: njit(function, cache=cache, nogil=True, error_model="numpy"))


def elementwise(function: Callable[..., Any]) -> Any:
    """Of a formula of numbers: a NumPy ufunc, with its broadcasting and `out`, in the precision of what it is given."""
    return _cached(lambda cache: vectorize(cache=cache)(function))


def _cached(made: Callable[[bool], Any]) -> Any:
    try:
        return made(True)
    except RuntimeError:  # Numba found no such folder: a read-only container without NUMBA_CACHE_DIR
        return made(False)
