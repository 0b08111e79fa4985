"""One container: running it, reading it, stopping it."""

from __future__ import annotations

import contextlib
import io
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared_core import archives
from shared_core.errors import UserError
from shared_core.images.sdk import BusyError, MissingError, TooLongError, explained

_LAST_LINES_SECONDS = 10
_TAR_BYTES = 2**20  # headers and padding of a few files; of many, at most as much again as the files


@dataclass(frozen=True)
class Options:
    """How a container runs: as its image's user, under an init, on a read-only root unless said otherwise."""

    volumes: Mapping[str, str] = field(default_factory=dict)  # volume (or folder of this machine) -> path inside
    environment: Mapping[str, str] = field(default_factory=dict)
    entrypoint: Sequence[str] | None = None
    network: str = "none"
    read_only: bool = True
    writable: Sequence[str] = ("/tmp", "/cache")  # in memory, gone with the container
    gpu: bool = False
    shared_memory: str = "1g"  # loaders' workers hand batches over in it


@dataclass(frozen=True)
class Result:
    """How a container ended."""

    code: int
    logs: str
    seconds: float


@dataclass(frozen=True)
class Container:
    """One container that was started here."""

    handle: Any  # the SDK's
    image: str

    def wait(self, limit: float = 600, out: Callable[[str], None] | None = None) -> Result:
        """Wait for the end.

        Args:
            limit: seconds after which it is killed.
            out: gets every line of the logs as it comes.

        Raises:
            TooLongError: the limit has passed.
        """
        began = time.monotonic()
        follower = threading.Thread(target=_follow, args=(self.handle, out), daemon=True) if out else None
        if follower:
            follower.start()
        try:
            with explained(self.image):
                code = self.handle.wait(timeout=limit)["StatusCode"]
        except TooLongError:
            with contextlib.suppress(BusyError), explained(self.image):  # it may just have ended
                self.handle.kill()
            raise TooLongError(f"{self.image}: did not end within {limit:g} s and was killed; see its logs") from None
        seconds = time.monotonic() - began
        if follower:
            follower.join(_LAST_LINES_SECONDS)
        return Result(code, self.logs(), seconds)

    def stop(self, grace: int) -> Result:
        """`docker stop`: SIGTERM, and SIGKILL after `grace` seconds."""
        began = time.monotonic()
        with explained(self.image):
            self.handle.stop(timeout=grace)
            code = self.handle.wait()["StatusCode"]
        return Result(code, self.logs(), time.monotonic() - began)

    def is_running(self) -> bool:
        with explained(self.image):
            self.handle.reload()
        return self.handle.status in ("created", "running", "restarting")

    def follow(self, out: Callable[[str], None]) -> None:
        """Hand every line of the logs to `out`, what was said and what is being said, until it ends."""
        with explained(self.image):
            for block in self.handle.logs(stream=True, follow=True):
                for line in block.decode(errors="replace").splitlines():
                    out(line)

    def logs(self) -> str:
        with explained(self.image):
            return self.handle.logs().decode(errors="replace")

    def read(self, path: str, limit: int = 2**24) -> bytes | None:
        """Content of a file inside, running or not; None while there is none. UserError beyond `limit` bytes."""
        stream = self._archive(path)
        if stream is None:
            return None
        packed = io.BytesIO()
        for block in stream:
            packed.write(block)
            if packed.tell() > limit + 2**16:
                raise UserError(f"{self.image}: {path} has more than {limit} bytes; copy it out instead")
        packed.seek(0)
        with tarfile.open(fileobj=packed) as opened:
            member = next(iter(opened))
            content = opened.extractfile(member)
            return content.read() if content is not None else None

    def copy_out(self, path: str, folder: Path, max_bytes: int = 8 * 2**30) -> Path:
        """Copy a file or folder (of the container or of a volume in it) into `folder`; returns where it lies.

        Links are refused, as in every archive from elsewhere (`archives.extract`).

        Raises:
            UserError: there is nothing at `path`, or it has more than `max_bytes`.
        """
        stream = self._archive(path)
        if stream is None:
            raise UserError(f"{self.image}: there is no {path} in its container; check the path")
        with tempfile.NamedTemporaryFile(suffix=".tar") as file:
            with explained(self.image):
                for block in stream:
                    file.write(block)
                    if file.tell() > 2 * max_bytes + _TAR_BYTES:
                        raise UserError(f"{self.image}: {path} has more than {max_bytes} bytes; raise the limit")
            file.flush()
            archives.extract(Path(file.name), folder, max_bytes)
        return Path(folder) / Path(path).name

    def remove(self) -> None:
        """Kill it if it runs, and forget it; nothing if it is gone already."""
        with contextlib.suppress(MissingError, BusyError), explained(self.image):
            self.handle.remove(force=True, v=True)

    def _archive(self, path: str) -> Iterable[bytes] | None:
        try:
            with explained(self.image):
                return self.handle.get_archive(path)[0]
        except MissingError:
            return None


def _follow(handle: Any, out: Callable[[str], None]) -> None:
    """Hand the logs on line by line until the container ends or is removed."""
    rest = b""
    with contextlib.suppress(Exception):  # a lost connection shows in `wait`
        for block in handle.logs(stream=True, follow=True):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                out(line.decode(errors="replace"))
        if rest:
            out(rest.decode(errors="replace"))
