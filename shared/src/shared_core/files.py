"""Files that are whole or absent: atomic writes, hashes, verified downloads, guarded `.npz` archives.

A file appears under its final name only when every byte of it is on the disk. Whatever can go wrong with a disk or a
download ends in a `UserError` that names the path.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import secrets
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any

import numpy as np

from shared_core.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_MAX_RATIO = 200  # what real data seldom compresses by; only looked at where much memory or disk is at stake
_MUCH = 256 * 2**20
_ATTEMPTS = 5
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


def explain(error: OSError, path: Path) -> UserError:
    """The one line a user can act on, for a failed write or read of `path`."""
    if error.errno in _FULL:
        return UserError(f"{path}: the disk is full; free some space or choose a folder on another disk")
    if error.errno in _DENIED:
        return UserError(f"{path}: permission denied; choose a folder this user can write to, or change its owner")
    if error.errno == errno.ENOENT:
        return UserError(f"{path}: no such file or folder; check the path")
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
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


def remove(path: Path) -> None:
    """Remove a file or a whole folder, as far as that is possible."""
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
        remove(temporary)


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
        remove(temporary)
        if path.exists():  # otherwise a crash of the second rename left the only copy under `old`
            remove(old)


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


def check_ratio(path: Path, unpacked: int, packed: int) -> None:
    """Refuse an archive that unpacks to so much more than its own size that it must be meant as a bomb.

    Raises:
        UserError: it is over 256 MiB unpacked and over 200 times its packed size.
    """
    if unpacked > _MUCH and unpacked > _MAX_RATIO * max(packed, 1):
        raise UserError(
            f"{path}: {_human(packed)} would unpack to {_human(unpacked)}, as no real data does; get it from its source"
        )


def read_npz(path: Path, keys: Sequence[str], max_bytes: int = 8 * 2**30) -> dict[str, np.ndarray]:
    """The named arrays of an `.npz` archive. Nothing is unpickled, and no size is believed before it is checked.

    Raises:
        UserError: the file is missing, truncated or no `.npz`; a key is missing; an array holds Python objects; the
            arrays take more than `max_bytes`; the archive is a zip bomb.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            missing = [key for key in keys if key not in members]
            if missing:
                held = ", ".join(sorted(members)) or "nothing"
                raise UserError(f"{path}: has no array {', '.join(missing)}; it holds {held}")
            wanted = [members[key] for key in keys]
            unpacked = sum(info.file_size for info in wanted)
            if unpacked > max_bytes:
                raise UserError(
                    f"{path}: its arrays take {_human(unpacked)}, more than the {_human(max_bytes)} allowed; "
                    "use a smaller file or raise the limit"
                )
            check_ratio(path, unpacked, sum(info.compress_size for info in wanted))
            return {key: _read_array(archive, members[key], path, key) for key in keys}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{path}: is no whole .npz archive ({error}); get or make it again") from error
    except OSError as error:
        raise explain(error, path) from error


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, key: str) -> np.ndarray:
    """One member, whose `.npy` header must agree with its size: NumPy allocates what the header asks for."""
    with archive.open(info) as member:
        shape, dtype, header_bytes = _npy_header(member)
    if dtype.hasobject:
        raise UserError(f"{path}: array {key} holds Python objects, which could run code; save it as numbers or text")
    if header_bytes + math.prod(shape) * dtype.itemsize != info.file_size:
        raise UserError(f"{path}: array {key} has another size than its header says; get or make the file again")
    with archive.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _npy_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    return shape, dtype, member.tell()


def download(
    url: str,
    path: Path,
    sha256: str | None = None,
    md5: str | None = None,
    size: int | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Path:
    """Fetch a file over HTTP(S) unless it is there already, and verify it before it gets its name.

    Bytes go to ``<name>.part``. An interrupted download goes on from there, if there is a checksum to tell whether
    the halves fit together. Connection failures and overloaded servers are tried again, with growing pauses.

    Args:
        url: messages show it without credentials and query.
        sha256, md5, size: what the file must match.
        progress: called with the bytes so far and in all (None: unknown).

    Raises:
        UserError: the server refuses, stays away, or sends something else; the disk is full.
    """
    path = Path(path)
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"{_public(url)}: only http and https addresses can be downloaded; check the address")
    if path.exists():
        reason = _mismatch(path, sha256, md5, size)
        if reason is None:
            return path
        raise UserError(f"{path}: {reason}; remove it to download it again")
    part = path.with_name(path.name + ".part")
    trouble = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(min(2.0 ** (attempt - 1), 30.0))
            resume = part.stat().st_size if part.exists() and (sha256 or md5) else 0
            try:
                _fetch(url, part, resume, progress)
            except _TryAgain as error:
                trouble = str(error)
                continue
            reason = _mismatch(part, sha256, md5, size)
            if reason is None:
                sync(part)
                os.replace(part, path)
                sync(path.parent)
                return path
            part.unlink()
            trouble = f"what it sends {reason}"
            if not resume:
                break
    except OSError as error:
        raise explain(error, path) from error
    raise UserError(f"{_public(url)}: {trouble}; try again later, or fetch it by hand to {path}")


class _TryAgain(Exception):
    """A failure that may be gone in a moment."""


def _fetch(url: str, part: Path, resume: int, progress: Callable[[int, int | None], None] | None) -> None:
    """One request; appends to `part` from byte `resume` on where the server agrees, else starts anew."""
    headers = {"User-Agent": "shared-core", "Accept-Encoding": "identity"}
    if resume:
        headers["Range"] = f"bytes={resume}-"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as response:
            if response.status != 206 or not response.headers.get("Content-Range", "").startswith(f"bytes {resume}-"):
                resume = 0
            length = response.headers.get("Content-Length")
            total = resume + int(length) if length and length.isdigit() else None
            require_space(part, (total or 0) - resume, "the download")
            _copy(response, part, resume, total, progress)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing lies beyond what we have; let the checksum decide about that
            return
        if error.code in (408, 425, 429) or error.code >= 500:
            raise _TryAgain(f"the server answers {error.code} {error.reason}") from None
        hint = {401: "log in or ask for access", 403: "ask for access", 404: "check the address"}.get(error.code, "")
        raise UserError(
            f"{_public(url)}: the server answers {error.code} {error.reason}; {hint or 'check the address'}"
        ) from None
    except urllib.error.URLError as error:
        raise _TryAgain(f"cannot be reached ({error.reason})") from None
    except (HTTPException, ConnectionError, TimeoutError) as error:
        raise _TryAgain(f"the connection broke ({error})") from None


def _copy(
    response: Any, part: Path, resume: int, total: int | None, progress: Callable[[int, int | None], None] | None
) -> None:
    done = resume
    with open(part, "ab" if resume else "wb") as stream:
        while True:
            try:
                block = response.read(2**20)
            except (HTTPException, OSError) as error:
                raise _TryAgain(f"the connection broke after {_human(done)} ({error})") from None
            if not block:
                break
            stream.write(block)
            done += len(block)
            if progress is not None:
                progress(done, total)
    if total is not None and done < total:
        raise _TryAgain(f"the connection closed after {_human(done)} of {_human(total)}")


def _mismatch(path: Path, sha256: str | None, md5: str | None, size: int | None) -> str | None:
    """How a file differs from what is expected of it, or None."""
    if size is not None and path.stat().st_size != size:
        return f"has {path.stat().st_size} bytes instead of {size}"
    for algorithm, expected in (("sha256", sha256), ("md5", md5)):
        if expected is not None and _digest(path, algorithm) != expected.lower():
            return f"does not have the expected {algorithm} {expected}"
    return None


def _public(url: str) -> str:
    """An address without the parts that may hold a token."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
