"""Prepared data sets: a folder with a `dataset.json` that says what it was made from.

A data set is current as long as its sources, its settings and its own files are what they were. Where they are not,
`changes` names what differs, so that a stale set is rebuilt and never silently used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shared_core import files as core_files
from shared_core.errors import UserError

NAME = "dataset.json"
_FORMAT = 1
_hashes: dict[tuple[str, int, int], str] = {}  # of (path, size, time of change): large sources are hashed once


def fingerprint(sources: Mapping[str, Path | str], settings: Mapping[str, Any]) -> str:
    """SHA-256 over the content of all sources and over all settings.

    Args:
        sources: name -> a file or folder, which counts with its content and not its place; or text, such as the
            revision of a data set on the Hub or the version of a generator.
        settings: all that shapes the result; JSON-able, paths count as text.

    Raises:
        UserError: a source is missing.
    """
    content = {"format": _FORMAT, "sources": _describe(sources), "settings": _plain(settings)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def is_current(folder: Path, fingerprint: str) -> bool:
    """Whether `folder` holds a complete data set with this fingerprint (its files are there with their sizes)."""
    try:
        manifest = read_manifest(folder)
    except UserError:
        return False
    return manifest["fingerprint"] == fingerprint and not _lost(Path(folder), manifest)


def changes(folder: Path, sources: Mapping[str, Path | str], settings: Mapping[str, Any]) -> list[str]:
    """What makes the data set in `folder` stale, a line each; nothing when it is current.

    Raises:
        UserError: `folder` holds no data set, or a source is missing.
    """
    manifest = read_manifest(folder)
    lines = []
    for kind, old, new in (
        ("source", manifest["sources"], _describe(sources)),
        ("setting", manifest["settings"], _plain(settings)),
    ):
        for key in sorted(old.keys() | new.keys()):
            if key not in new:
                lines.append(f"{kind} {key}: no longer used")
            elif key not in old:
                lines.append(f"{kind} {key}: new")
            elif old[key] != new[key]:
                lines.append(f"{kind} {key}: {_brief(old[key])} -> {_brief(new[key])}")
    return lines + _lost(Path(folder), manifest)


def write_manifest(
    folder: Path,
    fingerprint: str,
    sources: Mapping[str, Path | str],
    settings: Mapping[str, Any],
    counts: Mapping[str, Any],
    files: Iterable[Path | str],
) -> None:
    """Write ``dataset.json``, last of all: its presence says that the data set is whole.

    Args:
        fingerprint: of the same sources and settings.
        counts: what a reader wants to know, such as samples per split.
        files: the data set's files, relative to `folder` or inside it.

    Raises:
        UserError: a file is missing or the disk is full.
    """
    folder = Path(folder)
    manifest = {
        "format": _FORMAT,
        "fingerprint": fingerprint,
        "sources": _describe(sources),
        "settings": _plain(settings),
        "counts": _plain(counts),
        "files": {path.relative_to(folder).as_posix(): _entry(path) for path in (folder / name for name in files)},
    }
    core_files.atomic_write(folder / NAME, json.dumps(manifest, indent=1) + "\n")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The content of ``dataset.json``: fingerprint, sources, settings, counts, files.

    Raises:
        UserError: there is no prepared data set in `folder`, or its manifest is damaged.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / NAME).read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder}: holds no prepared data set ({NAME} is missing); run `prepare` first") from None
    except OSError as error:
        raise core_files.explain(error, folder / NAME) from error
    except ValueError:
        raise UserError(f"{folder / NAME}: is damaged; run `prepare` again") from None
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise UserError(f"{folder / NAME}: is of another version; run `prepare` again")
    return manifest


def require(folder: Path, settings: Mapping[str, Any]) -> Path:
    """`folder`, whose data set was prepared with these settings; its sources are not looked at.

    Raises:
        UserError: there is no prepared data set, or it was prepared with other settings, which are named.
    """
    there, wanted = read_manifest(folder)["settings"], _plain(settings)
    changed = [
        f"{key} {_shown(there.get(key))} instead of {_shown(wanted.get(key))}"
        for key in {**settings, **there}
        if there.get(key) != wanted.get(key)
    ]
    if changed:
        raise UserError(f"{folder}: prepared with {', '.join(changed)}; run `prepare` again or set data.name")
    return folder


def verify(folder: Path) -> None:
    """Compare every file with the hash in the manifest.

    Raises:
        UserError: a file is missing or has changed.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    for line in _lost(folder, manifest):
        raise UserError(f"{folder}: {line}; run `prepare` again")
    for name, entry in manifest["files"].items():
        if core_files.sha256(folder / name) != entry["sha256"]:
            raise UserError(f"{folder / name}: is damaged, its SHA-256 has changed; run `prepare` again")


def _lost(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, entry in manifest["files"].items():
        if not (folder / name).is_file():
            lines.append(f"file {name}: missing")
        elif (folder / name).stat().st_size != entry["bytes"]:
            lines.append(f"file {name}: {(folder / name).stat().st_size} bytes instead of {entry['bytes']}")
    return lines


def _describe(sources: Mapping[str, Path | str]) -> dict[str, str]:
    return {name: source if isinstance(source, str) else _content(name, source) for name, source in sources.items()}


def _content(name: str, source: Path) -> str:
    """``sha256:...`` of a file, or of the names and hashes of all files in a folder."""
    if source.is_dir():
        listing = [
            (path.relative_to(source).as_posix(), _hash(path)) for path in sorted(source.rglob("*")) if path.is_file()
        ]
        return "sha256:" + hashlib.sha256(json.dumps(listing).encode()).hexdigest()
    if not source.exists():
        raise UserError(f"{source}: the source {name} is missing; download it or correct the path")
    return "sha256:" + _hash(source)


def _hash(path: Path) -> str:
    status = path.stat()
    key = (str(path.resolve()), status.st_size, status.st_mtime_ns)
    if key not in _hashes:
        _hashes[key] = core_files.sha256(path)
    return _hashes[key]


def _entry(path: Path) -> dict[str, Any]:
    return {"sha256": core_files.sha256(path), "bytes": path.stat().st_size}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as they are after a round trip through JSON: lists for tuples, text for paths."""
    return dict(json.loads(json.dumps(dict(values), sort_keys=True, default=_text)))


def _text(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise ValueError(f"a {type(value).__name__} cannot be a setting of a data set; use numbers, text, lists and dicts")


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:17] + "..." if text.startswith("sha256:") else text


def _shown(value: Any) -> str:
    if value in (None, [], ""):
        return "not set"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
