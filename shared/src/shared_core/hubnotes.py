"""hub.json: what has passed between a run and the Hub, one note for each attempt; and the lock around each.

A note has "time", "repo", "state" (pushed, failed, interrupted or pulled) and, as far as known, "checkpoint", "commit",
"tag", "revision" and "reason". There is never a token in it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from shared_core import files
from shared_core.errors import UserError

try:
    import fcntl
except ImportError:  # Windows has no POSIX locks; two pushes of a run at once are then not prevented
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def noted(run: Path, repo: str) -> Iterator[dict[str, Any]]:
    """Appends to the run's hub.json how the attempt inside the block ended; the block fills in what it knows."""
    note: dict[str, Any] = {"repo": repo, "state": "failed"}
    try:
        yield note
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            note["state"] = "interrupted"
        note["reason"] = str(error) if isinstance(error, UserError) else type(error).__name__
        with contextlib.suppress(UserError):  # the reason itself is what the user has to see
            add(run, note)
        raise
    add(run, note)


def add(run: Path, note: dict[str, Any]) -> None:
    """Append one note."""
    time = datetime.now().astimezone().isoformat(timespec="seconds")
    files.atomic_write(run / "hub.json", json.dumps([*read(run), {"time": time, **note}], indent=2) + "\n")


def read(run: Path) -> list[dict[str, Any]]:
    """All notes, oldest first; none where the file is missing or is none of ours."""
    try:
        notes = json.loads((run / "hub.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [note for note in notes if isinstance(note, dict)] if isinstance(notes, list) else []


def last(run: Path) -> dict[str, Any]:
    """The newest note, or an empty dictionary."""
    return next(reversed(read(run)), {})


@contextlib.contextmanager
def alone(run: Path) -> Iterator[None]:
    """One process at a time publishes a run. The kernel drops the lock when its owner dies, however it dies.

    Raises:
        UserError: another process is publishing it, or the folder cannot be written.
    """
    path = run / ".publishing"
    try:
        lock = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise files.explain(error, path) from error
    with lock:
        if fcntl is not None:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                lock.seek(0)
                owner = lock.read().strip() or "another process"
                raise UserError(f"{run}: is being published by {owner}; wait for it, then repeat the command") from None
            except OSError:
                pass  # a file system without locks: go on unguarded
        lock.truncate(0)
        lock.write(f"process {os.getpid()}")
        lock.flush()
        yield
