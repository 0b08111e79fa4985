"""What a run writes down: its folder, its metrics, its log and its state.

`runs/<package>/<name>/` holds config.yaml, run.json, status.json, metrics.jsonl, train.log, evaluation/, figures/,
predictions/ and checkpoints/. Every file is either replaced atomically or appended to line by line, so that a
process killed at any instant leaves nothing but, at worst, one torn last line, which readers drop.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import socket
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, Literal

from shared_core import files, progress, trackers
from shared_core.errors import UserError
from shared_core.settings import Logging

try:
    import fcntl
except ImportError:  # Windows has no POSIX locks; runs are then not guarded against a second writer
    fcntl = None  # type: ignore[assignment]

State = Literal["running", "preempted", "finished", "failed"]
WARNING = "WARNING"  # the word that marks a warning in train.log; reports collect these lines


class RunDir:
    """The folder of one run. `RunDir(path)` looks at an existing one; `RunDir.open` starts or resumes one."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._lock: IO[str] | None = None  # kept open as long as this process writes the run

    name = property(lambda self: self.path.name)
    checkpoints = property(lambda self: self.path / "checkpoints")
    figures = property(lambda self: self.path / "figures")
    predictions = property(lambda self: self.path / "predictions")
    evaluation = property(lambda self: self.path / "evaluation")
    metrics = property(lambda self: self.path / "metrics.jsonl")
    log = property(lambda self: self.path / "train.log")
