"""The READMEs' commands are the ones that work."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from house import PACKAGES, ROOT, tracked_files

FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
MODULES = {package.command: package.module for package in PACKAGES}
COMMANDS = {module: command for command, module in MODULES.items()}
LAUNCHED = re.compile(r"^(?:torchrun|accelerate launch|python) .*?-m (\w+)")


def _commands(path: Path) -> list[str]:
    """What runs one of our programs: lines of fenced blocks, joined if continued, without prompt, comment or launcher;
    and whole commands in the text and its tables, where no dots stand for the rest."""
    text = path.read_text()
    inline = [span for span in INLINE.findall(FENCE.sub("", text)) if " " in span and "..." not in span]
    text = "\n".join([*FENCE.findall(text), *inline]).replace("\\\n", " ")
    lines = (re.sub(r"^\$ |\s+#.*$", "", line.strip()) for line in text.splitlines())
    lines = (LAUNCHED.sub(lambda found: COMMANDS.get(found[1], found[0]), line) for line in lines)
    return list(dict.fromkeys(line for line in lines if Path(line.split(" ")[0]).name in MODULES))


SHOWN = [
    pytest.param(command, id=f"{path.relative_to(ROOT)}: {command}")
    for path in tracked_files()
    if path.suffix == ".md"
    for command in _commands(path)
]


def test_first_block_is_the_two_commands() -> None:
    [first, *_] = FENCE.findall((ROOT / "README.md").read_text())
    assert first.splitlines() == [
        "python3 -m venv .venv && .venv/bin/pip install rust-just && .venv/bin/just demo",
        ".venv/bin/just test",
    ]


def test_local_links_lead_somewhere() -> None:
    broken = []
    for path in tracked_files():
        if path.suffix == ".md":
            targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", path.read_text())
            broken += [f"{path.relative_to(ROOT)}: {name}" for name in targets if not (path.parent / name).exists()]
    assert broken == []


def test_recipes_shown_exist() -> None:
    recipes = set(re.findall(r"^([a-z]\w*)\b[^:\n]*:(?!=)", (ROOT / "justfile").read_text(), re.MULTILINE))
    text = "\n".join(path.read_text() for path in tracked_files() if path.suffix == ".md")
    shown = set(re.findall(r"(?:^|`|/bin/)just ([a-z]\w*)", text, re.MULTILINE))
    assert {"demo", "test"} <= shown
    assert shown - recipes == set()


@pytest.mark.parametrize("command", SHOWN)
def test_shown_command_parses(command: str) -> None:
    """The program accepts the command: with --print-config it checks every flag and stops before the work."""
    program, *arguments = shlex.split(command)
    verb = next((word for word in arguments if not word.startswith("-")), None)
    arguments += ["--print-config"] if verb and "--help" not in arguments else []
    module = MODULES[Path(program).name]
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-500:]}{done.stderr[-500:]}"
