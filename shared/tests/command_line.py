"""A package's command, as its tests call it."""

from __future__ import annotations

import pytest


def error(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of error that a command has printed."""
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    return line
