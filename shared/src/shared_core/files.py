"""Files that are whole or absent: atomic writes, hashes, verified downloads, guarded `.npz` archives.

A file appears under its final name only when every byte of it is on the disk. Whatever can go wrong with a disk or a
download ends in a `UserError` that names the path.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from shared_core.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


def explain(error: OSError, path: Path) -> UserError:
    """The one line a user can act on, for a failed write or read of `path`."""
    if error.errno in _FULL:
        return UserError(f"{path}: the disk is full; free some space or choose a folder on another disk")
    if error.errno in _DENIED:
        return UserError(f"{path}: permission denied; choose a folder this user can write to, or change its owner")
    if error.errno == errno.ENOENT:
        return UserError(f"{path}: no such file or folder; check the path")
    if error.errno in (errno.ENOTDIR, errno.EISDIR):
        return UserError(f"{path}: a file is where a folder should be, or the other way round; move it away")
    return UserError(f"{path}: {error.strerror or error}; check the disk and the path")


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    """A hidden name in the same folder, hence on the same file system, so that a rename is atomic."""
    return path.with_name(f".{path.name}.tmp-{secrets.token_hex(4)}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path to write to; it replaces `path` when the block ends well and is removed when it does not.

    The temporary name keeps `path`'s suffixes at its end, for writers that look at them (NumPy, Pillow).

    Raises:
        UserError: the disk is full, the folder is not writable, or the block raised another `OSError`.
    """
    path = Path(path)
    temporary = _beside(path)
    temporary = temporary.with_name(temporary.name + "".join(path.suffixes))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise explain(error, path) from error
    finally:
        _remove(temporary)


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a whole file (text as UTF-8) or leave what was there before untouched.

    Raises:
        UserError: the disk is full or the folder is not writable.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """A temporary folder to fill; it becomes `path` when the block ends well and is removed when it does not.

    An existing `path` is moved aside first and deleted last, so that no reader ever sees a mixture of old and new.

    Raises:
        UserError: the disk is full, the folder is not writable, or the block raised another `OSError`.
    """
    path = Path(path)
    temporary, old = _beside(path), _beside(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for entry in sorted(temporary.rglob("*")):
            if not entry.is_symlink():
                sync(entry)
        sync(temporary)
        if path.exists():
            os.rename(path, old)
        try:
            os.rename(temporary, path)
        except OSError:
            if old.exists():
                os.rename(old, path)
            raise
        sync(path.parent)
    except OSError as error:
        raise explain(error, path) from error
    finally:
        _remove(temporary)
        if path.exists():  # otherwise a crash of the second rename left the only copy under `old`
            _remove(old)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    return _digest(path, "sha256")


def git_blob_id(path: Path) -> str:
    """The id git gives to this content: SHA-1 over ``blob <size>\\0`` and the bytes (the Hub's id of small files)."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise explain(error, path) from error
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _digest(path: Path, algorithm: str) -> str:
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, algorithm).hexdigest()
    except OSError as error:
        raise explain(error, path) from error


def free_bytes(path: Path) -> int:
    """Bytes this user can still write on the disk that holds `path`, which need not exist yet."""
    path = Path(path).absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def require_space(path: Path, bytes_needed: int, what: str) -> None:
    """Refuse to begin writing `what` where it cannot fit.

    Raises:
        UserError: fewer than `bytes_needed` bytes are free on the disk of `path`.
    """
    free = free_bytes(path)
    if free < bytes_needed:
        raise UserError(
            f"{path}: {what} needs {_human(bytes_needed)} but only {_human(free)} are free; "
            "free some space or choose a folder on another disk"
        )


def _human(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
