"""One process at a time: a lock on a file, which the kernel drops when its owner dies, however it dies."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from shared_core import files
from shared_core.errors import UserError

try:
    import fcntl
except ImportError:  # not on this system: nobody is kept out
    fcntl = None  # type: ignore[assignment]


def take(path: Path, refusal: Callable[[str], str]) -> TextIO:
    """The locked file `path`, with its owner in it; closing it gives the lock up.

    POSIX record locks are used because forked data-loader workers do not inherit them: an orphaned worker cannot keep
    a killed run locked.

    Args:
        refusal: what to tell the user, given the owner ("process 123 on somewhere").

    Raises:
        UserError: another living process has it (`refusal`), or the file cannot be written.
    """
    try:
        lock = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise files.explain(error, path) from error
    if fcntl is not None:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            lock.seek(0)
            owner = lock.read().strip() or "another process"
            lock.close()
            raise UserError(refusal(owner)) from None
        except OSError:
            pass  # a file system without locks: go on unguarded
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}")
    lock.flush()
    return lock
