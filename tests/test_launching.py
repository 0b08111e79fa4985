"""The commands of docker/LAUNCHING.md are ones that `launch` accepts to the end, not only as far as their flags."""

from __future__ import annotations

import importlib
import shlex

import pytest
from house import PACKAGES, ROOT
from test_readme import FENCE

APPS = {package.command: package.module for package in PACKAGES}
LINES = "\n".join(FENCE.findall((ROOT / "docker" / "LAUNCHING.md").read_text())).splitlines()
SHOWN = [line for line in LINES if line.split(" ")[0] in APPS]


def test_every_place_is_shown() -> None:
    shown = {line.partition("--on ")[2].split(" ")[0] for line in SHOWN}
    assert shown == {"local", "nodes", "slurm", "kubernetes", "modal"}


@pytest.mark.parametrize("line", [line for line in SHOWN if "--checkpoints" not in line and "--download" not in line])
def test_shown_launch_makes_a_plan(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, *words = shlex.split(line)
    app = importlib.import_module(f"{APPS[command]}.__main__").APP
    assert app.run([*words, "--dry-run"]) == 0
    assert APPS[command] in capsys.readouterr().out.replace("-", "_")
