"""Unpacking tar and zip archives from elsewhere: nothing leaves the folder, nothing fills the disk."""

from __future__ import annotations

import os
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO

from shared_core import files
from shared_core.errors import UserError

_MAX_MEMBERS = 2_000_000
_BLOCK = 2**20


@dataclass(frozen=True)
class _Member:
    name: str
    size: int  # as the archive says
    open: Callable[[], IO[bytes]]


def extract(archive: Path, folder: Path, max_bytes: int) -> list[Path]:
    """Unpack a `.zip` or a (compressed) tar into `folder` and return its files, in the archive's order.

    Files appear in `folder` only after the whole archive has been unpacked beside it; existing ones are replaced.

    Args:
        max_bytes: the most that the files may take together.

    Raises:
        UserError: the archive is missing, damaged, encrypted or of another kind; has more than `max_bytes` or is a
            bomb; or has a member that is a link or a device, or whose path is absolute, has a ``..`` or appears twice.
    """
    archive, folder = Path(archive), Path(folder)
    try:
        packed = archive.stat().st_size
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.tmp-", dir=folder.parent) as name:
            temporary = Path(name)
            written = _unpack(archive, temporary, packed, max_bytes)
            for relative in written:
                (folder / relative).parent.mkdir(parents=True, exist_ok=True)
                os.replace(temporary / relative, folder / relative)
        return [folder / relative for relative in written]
    except OSError as error:
        raise files.explain(error, Path(error.filename or folder)) from error
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError, RuntimeError, ValueError) as error:
        raise UserError(f"{archive}: is no whole archive ({error}); get it again") from error


def _unpack(archive: Path, folder: Path, packed: int, max_bytes: int) -> list[Path]:
    written: dict[Path, None] = {}  # an ordered set
    total = 0
    with _members(archive) as members:
        for count, member in enumerate(members):
            relative = _safe(archive, member.name)
            if relative in written:
                raise UserError(f"{archive}: {member.name} is in it twice; get it from its source")
            if count >= _MAX_MEMBERS:
                raise UserError(f"{archive}: holds more than {_MAX_MEMBERS} files; get it from its source")
            _require_room(archive, total + member.size, packed, max_bytes)  # before anything is written
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, open(folder / relative, "wb") as target:
                while block := source.read(_BLOCK):
                    total += len(block)
                    _require_room(archive, total, packed, max_bytes)  # what the archive says may be a lie
                    target.write(block)
            written[relative] = None
    return list(written)


def _require_room(archive: Path, total: int, packed: int, max_bytes: int) -> None:
    if total > max_bytes:
        raise UserError(f"{archive}: unpacks to more than the {max_bytes} bytes allowed; raise the limit or check it")
    files.check_ratio(archive, total, packed)


def _safe(archive: Path, name: str) -> Path:
    """A member's path inside the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    drive = ":" in (path.parts[0] if path.parts else "")
    if not path.parts or path.is_absolute() or drive or ".." in path.parts or "\0" in name:
        raise UserError(f"{archive}: {name!r} would be written outside the folder; get the archive from its source")
    return Path(*path.parts)


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[_Member]]:
    """The regular files of an archive of either kind; folders are made where files need them."""
    if tarfile.is_tarfile(archive):  # first: a tar with a zip (an .npz) near its end looks like a zip as well
        with tarfile.open(archive) as opened_tar:
            yield _tar_members(archive, opened_tar)
    elif zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened_zip:
            yield _zip_members(archive, opened_zip)
    else:
        raise UserError(f"{archive}: is neither a zip nor a tar archive; check the file, it may be an error page")


def _zip_members(archive: Path, opened: zipfile.ZipFile) -> Iterator[_Member]:
    for info in opened.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UserError(f"{archive}: {info.filename} is a link or a device; get the archive from its source")
        if info.flag_bits & 1:
            raise UserError(f"{archive}: is encrypted; unpack it by hand")
        if not info.is_dir():
            yield _Member(info.filename, info.file_size, lambda info=info: opened.open(info))  # type: ignore[misc]


def _tar_members(archive: Path, opened: tarfile.TarFile) -> Iterator[_Member]:
    def reader(info: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
        def open_it() -> IO[bytes]:
            stream = opened.extractfile(info)
            assert stream is not None  # only None for what is not a regular file
            return stream

        return open_it

    for info in opened:
        if info.isdir():
            continue
        if not info.isreg():
            raise UserError(f"{archive}: {info.name} is a link or a device; get the archive from its source")
        yield _Member(info.name, info.size, reader(info))
