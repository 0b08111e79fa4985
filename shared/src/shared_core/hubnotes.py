"""hub.json: what has passed between a run and the Hub, one note for each attempt; and the lock around each.

A note has "time", "repo", "state" (pushed, failed, interrupted or pulled) and, as far as known, "checkpoint", "commit",
"tag", "revision" and "reason". There is never a token in it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from shared_core import files, locks
from shared_core.errors import UserError


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
    """One process at a time publishes a run.

    Raises:
        UserError: another process is publishing it, or the folder cannot be written.
    """

    def busy(owner: str) -> str:
        return f"{run}: is being published by {owner}; wait for it, then repeat the command"

    with locks.take(run / ".publishing", busy):
        yield
