"""Archives from elsewhere: nothing leaves the folder, nothing fills the disk."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared_core import archives, files
from shared_core.errors import UserError

Maker = Callable[[Path, dict[str, bytes]], Path]


def make_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return path


MAKERS: list[Maker] = [make_tar, make_zip]
LIMIT = 10**6


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_unpacks_every_kind(tmp_path: Path, suffix: str) -> None:
    members = {"b/c.txt": b"two", "a.txt": b"one", "b/empty": b""}
    path = tmp_path / f"data.{suffix}"
    if suffix == "zip":
        make_zip(path, members)
    else:
        make_tar(path, members, "w:" + suffix.removeprefix("tar").lstrip("."))
    written = archives.extract(path, tmp_path / "out", LIMIT)
    assert written == [tmp_path / "out" / name for name in members]
    assert tree(tmp_path / "out") == members
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([path.name, "out"])


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path) -> None:
    """As a run is that keeps an .npz: near the end of the file lies what zip readers look for there."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as file:
        file.writestr("ids.npy", "x" * 100)
    path = tmp_path / "run.tar"
    with tarfile.open(path, "w") as tar:
        for name, data in (("run/status.json", b"{}"), ("run/ids.npz", inner.getvalue())):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert zipfile.is_zipfile(path)
    archives.extract(path, tmp_path / "out", 2**20)
    assert (tmp_path / "out" / "run" / "status.json").read_bytes() == b"{}"
    assert (tmp_path / "out" / "run" / "ids.npz").read_bytes() == inner.getvalue()


@pytest.mark.parametrize("make", MAKERS)
def test_adds_to_an_existing_folder(tmp_path: Path, make: Maker) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_bytes(b"1")
    (tmp_path / "out" / "a").write_bytes(b"old")
    archives.extract(make(tmp_path / "x", {"a": b"new", "sub/b": b"2"}), tmp_path / "out", LIMIT)
    assert tree(tmp_path / "out") == {"mine": b"1", "a": b"new", "sub/b": b"2"}


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    "name",
    ["/abs", "../up", "a/../../up", "..", "a/../b", "..\\up", "C:\\x", "C:/x", "\\\\host\\share", "a\\..\\..\\b"],
)
def test_paths_that_lead_outside(tmp_path: Path, make: Maker, name: str) -> None:
    archive = make(tmp_path / "x", {"good": b"1", name: b"2"})
    with pytest.raises(UserError, match="outside the folder"):
        archives.extract(archive, tmp_path / "deep" / "out", LIMIT)
    assert tree(tmp_path) == {"x": archive.read_bytes()}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(st.sampled_from("./\\:ab\u2025 ~"), min_size=1, max_size=8), zipped=st.booleans())
def test_no_name_leads_outside(tmp_path: Path, name: str, zipped: bool) -> None:
    archive = (make_zip if zipped else make_tar)(tmp_path / "x", {name: b"1"})
    out = tmp_path / "out"
    try:
        written = archives.extract(archive, out, LIMIT)
    except UserError:
        written = []
    for path in written:
        assert path.resolve().is_relative_to(out.resolve())
    assert {entry.name for entry in tmp_path.iterdir()} <= {"x", "out"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "x", "w") as archive:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(UserError, match="link is a link or a device"):
        archives.extract(tmp_path / "x", tmp_path / "out", LIMIT)
    assert not (tmp_path / "out").exists()


def test_links_in_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="link is a link or a device"):
        archives.extract(tmp_path / "x", tmp_path / "out", LIMIT)


@pytest.mark.parametrize("make", MAKERS)
def test_too_large_and_bombs(tmp_path: Path, make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make(tmp_path / "x", {"a": bytes(600), "b": bytes(600)})
    with pytest.raises(UserError, match="more than the 1000 bytes"):
        archives.extract(archive, tmp_path / "out", 1000)
    assert not (tmp_path / "out").exists()
    archives.extract(archive, tmp_path / "out", 1200)
    monkeypatch.setattr(files, "_MUCH", 1000)
    bomb = make_zip(tmp_path / "bomb", {"a": bytes(10**6)})
    with pytest.raises(UserError, match="as no real data does"):
        archives.extract(bomb, tmp_path / "out2", 10**9)
    assert not (tmp_path / "out2").exists()


def test_a_zip_that_lies_about_its_size(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x", {"a": bytes(5000)})
    raw = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = raw.index(signature) + offset
        raw[at : at + 4] = (10).to_bytes(4, "little")
    archive.write_bytes(raw)
    with pytest.raises(UserError):
        archives.extract(archive, tmp_path / "out", 1000)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", ["zip", "tar.gz", "tar.xz", "tar"])
def test_truncated(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"w.{suffix}"
    members = {"a": os.urandom(3000), "b": os.urandom(3000)}
    if suffix == "zip":
        make_zip(whole, members)
    else:
        make_tar(whole, members, "w:" + suffix.removeprefix("tar").lstrip("."))
    data = whole.read_bytes()
    for length in (0, 1, 100, 2000, 5000):
        cut = tmp_path / "cut"
        cut.write_bytes(data[:length])
        with pytest.raises(UserError, match="cut: is"):
            archives.extract(cut, tmp_path / "out", LIMIT)
        assert not (tmp_path / "out").exists()


def test_neither_kind_and_not_there(tmp_path: Path) -> None:
    (tmp_path / "page.zip").write_text("<html>not found</html>")
    with pytest.raises(UserError, match="neither a zip nor a tar"):
        archives.extract(tmp_path / "page.zip", tmp_path / "out", LIMIT)
    with pytest.raises(UserError, match="gone: no such file"):
        archives.extract(tmp_path / "gone", tmp_path / "out", LIMIT)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_same_name_twice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        archive.writestr("a", b"1")
        archive.writestr("./a", b"2")
    with pytest.raises(UserError, match="in it twice"):
        archives.extract(tmp_path / "x", tmp_path / "out", LIMIT)
