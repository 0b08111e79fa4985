"""Text files: what keeps them from being read is said in one line."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from shared_core import files
from shared_core.errors import UserError


@contextmanager
def opened(path: Path, what: str = "text file", encoding: str = "utf-8-sig") -> Iterator[TextIO]:
    """The open file, with the ends of its lines as they are. Raises UserError where it cannot be read, or is no `what`.

    That is also raised for what goes wrong while it is read, and for a `csv.Error`.
    """
    try:
        with path.open(newline="", encoding=encoding) as stream:
            yield stream
    except OSError as error:
        raise files.explain(error, path) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is no {what} ({getattr(error, 'reason', error)})") from error
