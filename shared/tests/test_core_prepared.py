"""Prepared data sets: what makes one stale is found and named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from shared_core import prepared
from shared_core.errors import UserError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "raw" / "sub").mkdir(parents=True)
    (tmp_path / "raw" / "a.npz").write_bytes(b"images")
    (tmp_path / "raw" / "sub" / "b.npz").write_bytes(b"labels")
    return tmp_path / "raw"


SETTINGS = {"size": 28, "shares": (0.8, 0.2), "path": Path("x/y"), "noise": 0.1, "name": None}


def prepare(folder: Path, sources: dict[str, Path | str], settings: dict[str, Any] = SETTINGS) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "train.npz").write_bytes(b"result")
    mark = prepared.fingerprint(sources, settings)
    prepared.write_manifest(folder, mark, sources, settings, {"train": 6}, ["train.npz"])
    return mark


def test_a_fresh_set_is_current(tmp_path: Path, source: Path) -> None:
    sources = {"raw": source, "generator": "v3"}
    mark = prepare(tmp_path / "set", sources)
    assert prepared.is_current(tmp_path / "set", mark)
    assert prepared.changes(tmp_path / "set", sources, SETTINGS) == []
    prepared.verify(tmp_path / "set")
    manifest = prepared.read_manifest(tmp_path / "set")
    assert manifest["counts"] == {"train": 6}
    assert manifest["settings"]["shares"] == [0.8, 0.2] and manifest["settings"]["path"] == "x/y"
    assert manifest["files"]["train.npz"]["bytes"] == 6


def test_the_place_of_a_source_does_not_matter_its_content_does(tmp_path: Path, source: Path) -> None:
    mark = prepared.fingerprint({"raw": source}, SETTINGS)
    moved = source.rename(tmp_path / "moved")
    assert prepared.fingerprint({"raw": moved}, SETTINGS) == mark
    os.rename(moved / "a.npz", moved / "c.npz")
    assert prepared.fingerprint({"raw": moved}, SETTINGS) != mark


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"size": 32}, "setting size: 28 -> 32"),
        ({"shares": (0.5, 0.5)}, "setting shares: [0.8, 0.2] -> [0.5, 0.5]"),
        ({"name": "x"}, "setting name: null -> x"),
        ({"extra": 1}, "setting extra: new"),
    ],
)
def test_changed_settings_are_named(tmp_path: Path, source: Path, change: dict[str, Any], line: str) -> None:
    sources: dict[str, Path | str] = {"raw": source}
    prepare(tmp_path / "set", sources)
    changed = SETTINGS | change
    assert not prepared.is_current(tmp_path / "set", prepared.fingerprint(sources, changed))
    assert prepared.changes(tmp_path / "set", sources, changed) == [line]


def test_changed_sources_are_named(tmp_path: Path, source: Path) -> None:
    sources: dict[str, Path | str] = {"raw": source, "generator": "v3"}
    prepare(tmp_path / "set", sources)
    (source / "sub" / "b.npz").write_bytes(b"LABELS")  # the same size
    os.utime(source / "sub" / "b.npz", ns=(1, 1))
    lines = prepared.changes(tmp_path / "set", {"raw": source, "generator": "v4", "more": "1"}, SETTINGS)
    assert len(lines) == 3
    assert lines[0] == "source generator: v3 -> v4"
    assert lines[1] == "source more: new"
    assert lines[2].startswith("source raw: sha256:") and "->" in lines[2]
    lines = prepared.changes(tmp_path / "set", {"generator": "v3"}, {k: v for k, v in SETTINGS.items() if k != "size"})
    assert lines == ["source raw: no longer used", "setting size: no longer used"]


def test_lost_and_damaged_files(tmp_path: Path, source: Path) -> None:
    sources: dict[str, Path | str] = {"raw": source}
    mark = prepare(tmp_path / "set", sources)
    file = tmp_path / "set" / "train.npz"
    file.write_bytes(b"RESULT")
    assert prepared.is_current(tmp_path / "set", mark)  # sizes only: hashing all data at each start would be slow
    with pytest.raises(UserError, match=r"train\.npz: is damaged.*run `prepare` again"):
        prepared.verify(tmp_path / "set")
    file.write_bytes(b"half")
    assert not prepared.is_current(tmp_path / "set", mark)
    assert prepared.changes(tmp_path / "set", sources, SETTINGS) == ["file train.npz: 4 bytes instead of 6"]
    file.unlink()
    assert prepared.changes(tmp_path / "set", sources, SETTINGS) == ["file train.npz: missing"]
    with pytest.raises(UserError, match=r"file train\.npz: missing; run `prepare` again"):
        prepared.verify(tmp_path / "set")


def test_no_set_or_a_damaged_manifest(tmp_path: Path, source: Path) -> None:
    assert not prepared.is_current(tmp_path / "none", "x")
    with pytest.raises(UserError, match=r"none: holds no prepared data set .*run `prepare` first"):
        prepared.read_manifest(tmp_path / "none")
    mark = prepare(tmp_path / "set", {"raw": source})
    for text in ("", "{", "[]", '{"format": 99}'):
        (tmp_path / "set" / "dataset.json").write_text(text)
        assert not prepared.is_current(tmp_path / "set", mark)
        with pytest.raises(UserError, match="run `prepare` again"):
            prepared.read_manifest(tmp_path / "set")


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.npz: the source raw is missing"):
        prepared.fingerprint({"raw": tmp_path / "gone.npz"}, {})


def test_a_setting_that_json_does_not_know() -> None:
    with pytest.raises(ValueError, match="a set cannot be a setting"):
        prepared.fingerprint({}, {"odd": {1, 2}})
