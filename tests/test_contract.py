"""What every package's command promises."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from house import PACKAGES, Package

VERBS = [
    "prepare",
    "plan",
    "train",
    "evaluate",
    "predict",
    "report",
    "push",
    "pull",
    "launch",
    "export",
    "search",
    "demo",
]
PRESETS = [
    pytest.param(package, path, id=f"{package.name}/{path.stem}")
    for package in PACKAGES
    for path in sorted((package.source / "configs").glob("*.yaml"))
]
by_package = pytest.mark.parametrize("package", PACKAGES, ids=str)


def _run(package: Package, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", package.module, *arguments], cwd=cwd, capture_output=True, text=True)


def _words(text: str) -> set[str]:
    return set(re.findall(r"[\w\-]+", text))


@by_package
def test_app_names_the_package(package: Package) -> None:
    app = importlib.import_module(f"{package.module}.__main__").APP
    assert (app.command, app.package, app.module) == (package.command, package.name, package.module)


@by_package
def test_help_lists_the_verbs(package: Package) -> None:
    done = _run(package, "--help")
    assert done.returncode == 0
    assert set(VERBS) - _words(done.stdout) == set()


@by_package
@pytest.mark.parametrize("verb", VERBS)
def test_verb_has_help(package: Package, verb: str) -> None:
    done = _run(package, verb, "--help")
    assert done.returncode == 0, done.stderr
    assert "--config" in done.stdout


@by_package
def test_help_needs_no_torch(package: Package) -> None:
    """Heavy libraries are not imported for help: what keeps it under a second."""
    code = (
        f"import sys, runpy; sys.argv = ['x', 'train', '--help']\n"
        f"try: runpy.run_module({package.module!r}, run_name='__main__')\n"
        f"except SystemExit: pass\n"
        f"heavy = {{'torch', 'accelerate', 'matplotlib', 'sklearn', 'scipy', 'pandas', 'huggingface_hub'}}\n"
        f"print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "[]"


@by_package
def test_console_script_is_the_module(package: Package) -> None:
    script = Path(sys.executable).with_name(str(package.command))
    if not script.exists():
        pytest.skip(f"{package.command} is not installed beside {sys.executable}: `just install` does that")
    shown = subprocess.run([script, "--version"], capture_output=True, text=True)
    assert shown.returncode == 0
    assert shown.stdout == _run(package, "--version").stdout


@by_package
def test_mistakes_get_one_line_and_a_suggestion(package: Package, tmp_path: Path) -> None:
    for arguments, suggestion in [
        (["trian"], "train"),
        (["train", "--training.epoch", "3"], "training.epochs"),
        (["train", "--config", "no-such-preset"], "no-such-preset"),
    ]:
        done = _run(package, *arguments, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert suggestion in done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("package", "preset"), PRESETS)
def test_preset_validates_and_reloads(package: Package, preset: Path, tmp_path: Path) -> None:
    shown = _run(package, "train", "--config", preset.stem, "--print-config", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    again = tmp_path / "again.yaml"
    again.write_text(shown.stdout)
    reloaded = _run(package, "train", "--config", str(again), "--print-config", cwd=tmp_path)
    assert reloaded.stdout == shown.stdout, reloaded.stderr


@pytest.mark.parametrize(("package", "preset"), PRESETS)
def test_preset_opens_with_its_header(package: Package, preset: Path) -> None:
    lines = preset.read_text().splitlines()
    header = "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])
    for key in ("data", "hardware", "time", "metric", "command"):
        said = rf"^#\s*(expected )?{key}\b:?\s+\S"
        assert re.search(said, header, re.IGNORECASE | re.MULTILINE), f"{preset.name} does not say: {key}"
    assert re.search(rf"\b({package.command}|{package.name})\b", header)
