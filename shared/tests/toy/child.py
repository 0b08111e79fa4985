"""What a forked training process runs."""

import os
from pathlib import Path

import accelerate.data_loader  # noqa: F401  with the next line: what training imports late
import torch.utils.tensorboard  # noqa: F401

from shared_core import report, trainer, verbs  # noqa: F401
from toy import APP


def main(argv: list[str], output: Path) -> None:
    """Run one command line, its output in a file; never returns."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    raise SystemExit(APP.main(argv))
