"""The rules of the house, read from the source."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
from house import CORE, PACKAGES, ROOT, Package, imports_any, sources, tracked_files

LONGEST_FILE = 420
# the rooms that may know of files, YAML and the trainer; every other module of a package is model or science
KNOWN_ROOMS = {
    "__init__", "__main__", "config", "data", "train", "evaluate", "predict", "prepare",
    "members", "stages", "saved", "ensemble", "stack", "subject", "teacher", "plan", "finetune", "export", "benchmark",
}  # fmt: skip
OUTSIDE = {
    "yaml", "shared_core.yamlfile", "shared_core.config", "shared_core.trainer", "shared_core.records",
    "shared_core.checkpoint", "shared_core.runtime", "shared_core.cli", "argparse",
}  # fmt: skip
ONE_DOOR = {
    "accelerate": {"runtime"},
    "huggingface_hub": {"hub", "hubfaults", "card"},
    "datasets": {"hub"},
    "transformers": {"hub"},
    "diffusers": {"hub"},
    "modal": {"launch/modal_app", "launch/modal_files"},
    "docker": {"images/sdk"},
}


def test_core_imports_no_package() -> None:
    packages = {package.module for package in PACKAGES}
    assert [hit for path in sources(CORE) for hit in imports_any(path, packages)] == []


@pytest.mark.parametrize("package", PACKAGES, ids=str)
def test_package_imports_no_other(package: Package) -> None:
    others = {other.module for other in PACKAGES} - {package.module}
    assert [hit for path in sources(package) for hit in imports_any(path, others)] == []


@pytest.mark.parametrize("library", ONE_DOOR)
def test_library_has_one_door(library: str) -> None:
    doors = {CORE.source / f"{name}.py" for name in ONE_DOOR[library]}
    files = [path for package in [CORE, *PACKAGES] for path in sources(package) if path not in doors]
    assert [hit for path in files for hit in imports_any(path, {library})] == []


@pytest.mark.parametrize("package", PACKAGES, ids=str)
def test_model_knows_neither_files_nor_trainer(package: Package) -> None:
    """`model.py` and what it imports from its own package."""
    model = package.source / "model.py"
    assert model.is_file(), f"{package.name} has no model.py"
    seen: set[Path] = set()
    todo = [model]
    while todo:
        path = todo.pop()
        seen.add(path)
        own = [hit.split(": ")[1].split(".")[1:] for hit in imports_any(path, {package.module}) if hit.count(".") > 1]
        files = {package.source.joinpath(*names[:depth]).with_suffix(".py") for names in own for depth in (1, 2)}
        todo += [file for file in files if file.is_file() and file not in seen]
    banned = OUTSIDE | {"pathlib", "os", "json", "shutil", "io"}
    assert [hit for path in seen for hit in imports_any(path, banned)] == []
    assert [f"{path.name}:{line}" for path in seen for line in _calls(path, {"open"})] == []


@pytest.mark.parametrize("package", PACKAGES, ids=str)
def test_science_knows_neither_yaml_nor_trainer(package: Package) -> None:
    science = [path for path in sources(package) if path.stem not in KNOWN_ROOMS]
    assert [hit for path in science for hit in imports_any(path, OUTSIDE)] == []


def test_files_fit_a_room() -> None:
    """Of the code; a test file may list as many cases as there are."""
    files = [path for path in tracked_files() if path.suffix == ".py" and "tests" not in path.parts]
    lengths = {path: path.read_text().count("\n") for path in files}
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > LONGEST_FILE} == {}


# two data sets are pickles: this file opens them with an unpickler that knows arrays and plain containers only
RESTRICTED = "mabe_behavior/formats/pickles.py"


def test_unpickling_is_impossible() -> None:
    """Every `torch.load` says `weights_only=True`, nothing says `allow_pickle`, one file alone imports pickle."""
    wrong = []
    for path in tracked_files():
        if path.suffix != ".py" or "tests" in path.parts:
            continue
        if not path.as_posix().endswith(RESTRICTED):
            wrong += imports_any(path, {"pickle", "dill", "joblib", "cloudpickle", "shelve"})
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if ast.unparse(node.func) == "torch.load" and said.get("weights_only") != "True":
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: torch.load without weights_only=True")
            if said.get("allow_pickle", "False") != "False":
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: allow_pickle")
            if ast.unparse(node.func).endswith(".extractall") and path.name != "archives.py":
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: extractall outside shared_core.archives")
    assert wrong == []


def test_no_addresses_of_machines_or_indexes() -> None:
    """Package indexes, absolute paths of somebody's machine and tokens do not belong here."""
    banned = re.compile(
        r"https?://[^\s\"']*(pypi|pythonhosted|download\.pytorch)|--(extra-)?index-url|--find-links|/simple\b"
        r"|(?<![\w.:/])/(root|home|Users|work|mnt|var/cache)/\w|\bhf_[A-Za-z0-9]{30,}"
    )
    hits = []
    for path in tracked_files():
        if path == Path(__file__) or path.suffix in {".png", ".npz", ".gz"}:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if banned.search(line):
                hits.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert hits == []


def test_requirements_are_exact_pins() -> None:
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9][\w.\-]*==[\w.]+", line)] == []
    pins = dict(line.split("==") for line in lines)
    assert pins["torch"] == "2.13.0"
    wanted = {
        re.split(r"[\[<>=~!; ]", requirement)[0].lower().replace("_", "-")
        for package in [CORE, *PACKAGES]
        for requirement in tomllib.loads((package.folder / "pyproject.toml").read_text())["project"]["dependencies"]
    }
    assert wanted - set(pins) - {CORE.name} == set()


def test_names_of_test_files_are_unique() -> None:
    names = [path.name for path in tracked_files() if path.name.startswith("test_")]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("package", PACKAGES, ids=str)
def test_package_has_the_rooms(package: Package) -> None:
    rooms = ["__init__", "__main__", "config", "model", "train", "evaluate", "predict"]
    missing = [room for room in rooms if not (package.source / f"{room}.py").is_file()]
    missing += [name for name in ("README.md", "tests", "benchmarks") if not (package.folder / name).exists()]
    assert missing == []
    assert list((package.source / "configs").glob("*.yaml")), "no presets"


def _calls(path: Path, names: set[str]) -> list[int]:
    tree = ast.walk(ast.parse(path.read_text()))
    return [node.lineno for node in tree if isinstance(node, ast.Call) and ast.unparse(node.func) in names]
