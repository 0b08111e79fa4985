"""What the tests of this folder know about the repository: its packages, its files, who imports what."""

from __future__ import annotations

import ast
import subprocess
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Package:
    """An installable folder of the repository."""

    folder: Path
    name: str  # pair-compare-stacking
    module: str  # pair_compare_stacking
    command: str | None  # pair-compare

    @property
    def source(self) -> Path:
        return self.folder / "src" / self.module

    def __str__(self) -> str:  # the name of the test case
        return self.name


def _package(folder: Path) -> Package:
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    name = project["name"]
    return Package(folder, name, name.replace("-", "_"), next(iter(project.get("scripts", {})), None))


# the packages there are to be, and the service of compose.yaml that each is
FIVE = {
    "timeseries-dualmodal": "dualmodal",
    "retina-diffusion": "retina",
    "pair-compare-stacking": "pair",
    "mabe-behavior": "mabe",
    "multimodal-fusion": "fusion",
}
CORE = _package(ROOT / "shared")
PACKAGES = [_package(path.parent) for path in sorted(ROOT.glob("packages/*/pyproject.toml"))]


@cache
def tracked_files() -> tuple[Path, ...]:
    """Files that are in the repository or would be after `git add .`."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    paths = sorted({ROOT / name for name in listed.split("\0") if name})
    return tuple(path for path in paths if path.is_file())


def sources(package: Package) -> list[Path]:
    return [path for path in tracked_files() if path.suffix == ".py" and path.is_relative_to(package.source)]


def imports(path: Path) -> dict[str, int]:
    """Full names of the modules and members that a file imports, anywhere in it, with a line each.

    ``from a import b`` counts as both ``a`` and ``a.b``; relative imports are resolved against the folder ``src``.
    """
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name: node.lineno for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = path.parts[path.parts.index("src") + 1 : -1]
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
            found |= {base: node.lineno} | {f"{base}.{alias.name}": node.lineno for alias in node.names}
    return found


def imports_any(path: Path, modules: set[str]) -> list[str]:
    """``file:line: module`` for each import of one of `modules` or of something inside one."""
    return [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for name, line in imports(path).items()
        if any(name == module or name.startswith(f"{module}.") for module in modules)
    ]
