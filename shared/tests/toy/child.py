"""What a forked training process runs."""

import os
from collections.abc import Mapping
from pathlib import Path

from toy import APP


def main(argv: list[str], output: Path, environment: Mapping[str, str]) -> None:
    """Run one command line, its output in a file; never returns."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(environment)
    raise SystemExit(APP.main(argv))
