"""The manifests of checkpoints: what their files are, what made them, and whether they are still the same."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import re
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from shared_core import files
from shared_core.errors import UserError

_FORMAT = 1
_NAME = re.compile(r"step-(\d+)(?:-(\d+))?")


def write(folder: Path, sequence: int, about: dict[str, Any], entries: dict[str, dict[str, Any]]) -> None:
    """Write ``manifest.json`` over files already described by `entry`; not flushed.

    Args:
        sequence: higher than that of every earlier checkpoint of the run.
        about: what else readers may want to know (step, best, configuration, topology).
        entries: name -> `entry`.
    """
    manifest = {
        "format": _FORMAT,
        "sequence": sequence,
        "saved": datetime.now(UTC).isoformat(timespec="seconds"),
        **about,
        "versions": _versions(),
        "files": entries,
    }
    manifest["digest"] = _digest(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))


def read(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint: step, best, config_digest, topology, world, versions, files and more.

    Raises:
        UserError: it is missing, damaged or of another format.
    """
    path = Path(path)
    try:
        manifest = json.loads((path / "manifest.json").read_text())
    except OSError as error:
        raise UserError(f"{path}: manifest.json: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:
        raise UserError(f"{path}: manifest.json is damaged") from error
    if not isinstance(manifest, dict) or manifest.get("digest") != _digest(manifest):
        raise UserError(f"{path}: manifest.json is damaged")
    if manifest["format"] != _FORMAT:
        raise UserError(f"{path}: has checkpoint format {manifest['format']}, this version reads {_FORMAT}")
    return manifest


def verify(path: Path) -> str | None:
    """None when every file of a checkpoint matches its manifest, else what is wrong with it."""
    try:
        listed = read(path)["files"]
        return next((reason for name in listed if (reason := damage(path, name, listed[name]))), None)
    except UserError as error:
        return str(error).removeprefix(f"{path}: ")


def require_good(path: Path) -> None:
    """`verify`, as an error.

    Raises:
        UserError: the checkpoint is damaged.
    """
    reason = verify(path)
    if reason is not None:
        raise UserError(f"{path}: {reason}; give another checkpoint or use `auto`")


def entry(file: Path) -> dict[str, Any]:
    """Flush a file; what a manifest says of it."""
    files.sync(file)
    return {"bytes": file.stat().st_size, "sha256": files.sha256(file)}


def damage(path: Path, name: str, expected: dict[str, Any]) -> str | None:
    """What is wrong with one listed file, or None."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return f"the manifest lists {name}, outside the checkpoint"
    file = path / name
    if not file.is_file():
        return f"{name} is missing"
    size = file.stat().st_size
    if size != expected["bytes"]:
        return f"{name} has {size} bytes, not {expected['bytes']}"
    if files.sha256(file) != expected["sha256"]:
        return f"{name} is damaged: its SHA-256 differs from the manifest's"
    return None


def newest_first(folder: Path) -> list[tuple[Path, dict[str, Any] | None]]:
    """Checkpoints and their manifests, last saved first; those without a readable manifest (None) before all others."""
    found: list[tuple[Path, dict[str, Any] | None]] = []
    for path in folder.glob("step-*"):
        if match(path) and path.is_dir():
            try:
                found.append((path, read(path)))
            except UserError:
                found.append((path, None))
    return sorted(found, key=lambda item: (item[1] is None, item[1]["sequence"] if item[1] else 0), reverse=True)


def newest_good(folder: Path) -> tuple[Path | None, dict[Path, str]]:
    """The newest checkpoint that verifies, or None, and those skipped on the way with what is wrong with them."""
    damaged: dict[Path, str] = {}
    for path, _ in newest_first(folder):
        reason = verify(path)
        if reason is None:
            return path, damaged
        damaged[path] = reason
    return None, damaged


def best(folder: Path) -> Path | None:
    """The checkpoint last saved as the best, or None."""
    return next((path for path, about in newest_first(folder) if about and about["best"]), None)


def is_checkpoint(path: Path) -> bool:
    """Whether a path is meant as one checkpoint (and not as a run or a folder of checkpoints)."""
    return bool(match(path)) or (path / "manifest.json").is_file()


def checkpoints_folder(path: Path) -> Path:
    """The folder of checkpoints of a run, or the path itself.

    Raises:
        UserError: there is no such folder.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such checkpoint or run; check the path")
    return path / "checkpoints" if (path / "checkpoints").is_dir() else path


def match(path: Path) -> re.Match[str] | None:
    """A checkpoint folder's name: groups 1 and 2 are the step and, from the second save of a step on, which one."""
    return _NAME.fullmatch(path.name)


def _digest(manifest: dict[str, Any]) -> str:
    """SHA-256 of all else in the manifest, so that a flipped bit in it is found too."""
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("torch", "numpy", "safetensors", "accelerate"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
