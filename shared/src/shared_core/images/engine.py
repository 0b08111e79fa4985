"""A Docker engine: its images, and the containers and volumes that are started on it.

What is started here carries the label `SMOKE`, whose value says who started it, so that `Engine.prune` finds what a
killed process has left. (Containers also carry the labels of their image, as every container of it does.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from shared_core.errors import UserError
from shared_core.images import sdk
from shared_core.images.containers import Container, Options, Result
from shared_core.images.sdk import explained

PACKAGE = "training.package"  # label of an image: the package in it
SMOKE = "training.smoke"  # label of containers and volumes that are to go when their maker is done


@dataclass(frozen=True)
class Image:
    """What an image says about itself."""

    reference: str
    id: str
    user: str
    labels: Mapping[str, str]
    environment: Mapping[str, str]
    history: tuple[str, ...]  # the instruction behind each layer, oldest first
    size: int  # bytes, all layers

    @property
    def package(self) -> str:
        """The package in it, as its label says; "" without one."""
        return self.labels.get(PACKAGE, "")


@dataclass(frozen=True)
class Engine:
    """A Docker engine that answers."""

    client: Any  # the SDK's
    address: str
    owner: str = field(default_factory=lambda: f"{os.getpid()}-{os.urandom(4).hex()}")  # value of the label SMOKE

    @property
    def is_local(self) -> bool:
        """Whether it runs on this machine (or in a virtual machine on it)."""
        return self.address.startswith(("unix:", "npipe:"))

    def info(self) -> dict[str, Any]:
        with explained("docker info"):
            return self.client.info()

    def version(self) -> dict[str, Any]:
        with explained("docker version"):
            return self.client.version()

    def image(self, reference: str) -> Image:
        """An image by name; UserError where it is not built."""
        with explained(reference):
            found = self.client.images.get(reference)
            config = found.attrs["Config"]
            return Image(
                reference=reference,
                id=found.id,
                user=config.get("User") or "",
                labels=config.get("Labels") or {},
                environment=dict(entry.partition("=")[::2] for entry in config.get("Env") or []),
                history=tuple(reversed([layer["CreatedBy"] or layer["Comment"] for layer in found.history()])),
                size=found.attrs["Size"],
            )

    def archive(self, reference: str) -> Iterator[bytes]:
        """The whole image as `docker save` writes it, block by block."""
        with explained(reference):
            yield from self.client.images.get(reference).save(chunk_size=2**21)

    def run(
        self,
        image: str,
        command: Sequence[str],
        options: Options | None = None,
        limit: float = 600,
        out: Callable[[str], None] | None = None,
    ) -> Result:
        """Run a container to its end, remove it, and say how it ended; `limit` and `out` as in `Container.wait`."""
        container = self.start(image, command, options)
        try:
            return container.wait(limit, out)
        finally:
            container.remove()

    def start(self, image: str, command: Sequence[str], options: Options | None = None) -> Container:
        """Start a container, which the caller removes.

        Raises:
            UserError: the image is not built, or the engine has no way to give a container GPUs.
        """
        container = self.create(image, command, options)
        try:
            with explained(image):
                container.handle.start()
        except BaseException:
            container.remove()
            raise
        return container

    def create(self, image: str, command: Sequence[str] = (), options: Options | None = None) -> Container:
        """A container that does not run yet; files can be copied out of it and its volumes all the same."""
        options = options or Options()
        with explained(image):
            handle = self.client.containers.create(
                image,
                list(command),
                entrypoint=None if options.entrypoint is None else list(options.entrypoint),
                environment=dict(options.environment),
                volumes={name: {"bind": path, "mode": "rw"} for name, path in options.volumes.items()},
                # `exec`: compiled kernels are loaded from the cache
                tmpfs={path: "rw,exec,mode=1777" for path in options.writable} if options.read_only else None,
                read_only=options.read_only,
                network_mode=options.network,
                init=True,
                shm_size=options.shared_memory,
                device_requests=[sdk.all_gpus()] if options.gpu else None,
                labels={SMOKE: self.owner},
            )
        return Container(handle, image)

    def newest(self, package: str) -> Container:
        """The container of a package that was made last, running or not; UserError where there is none."""
        with explained("docker ps"):
            found = self.client.containers.list(all=True, filters={"label": f"{PACKAGE}={package}"})
        if not found:
            raise UserError(f"{package}: has no container; start one: `just train {package}`")
        newest = max(found, key=lambda container: container.attrs["Created"])
        return Container(newest, newest.name)

    def volume(self, name: str) -> str:
        """Make an empty volume; returns its full name, which no other volume has."""
        full = f"{name}-{self.owner}"
        with explained(f"volume {full}"):
            self.client.volumes.create(full, labels={SMOKE: self.owner})
        return full

    def remove_own(self) -> list[str]:
        """Remove the containers and volumes that this object has made; their names."""
        return self._remove(f"{SMOKE}={self.owner}")

    def prune(self, images: bool = False) -> list[str]:
        """Remove what the label `SMOKE` marks, whoever made it and running or not; returns the names.

        Args:
            images: also the images of packages, those that no container uses.
        """
        removed = self._remove(SMOKE)
        if images:
            with explained("docker image prune"):
                pruned = self.client.images.prune({"dangling": False, "label": PACKAGE})
            removed += [entry["Untagged"] for entry in pruned["ImagesDeleted"] or [] if "Untagged" in entry]
        return removed

    def _remove(self, label: str) -> list[str]:
        removed = []
        with explained("docker rm"):
            for container in self.client.containers.list(all=True, filters={"label": label}):
                Container(container, "").remove()
                removed.append(container.name)
            for volume in self.client.volumes.list(filters={"label": label}):
                volume.remove(force=True)
                removed.append(volume.name)
        return removed


def reference(package: str, folder: Path = Path()) -> str:
    """The image of a package as `just build` and Compose call it: PREFIX and TAG count, in the environment or in .env.

    Args:
        package: its name; one with a tag is taken as it is.
    """
    if ":" in package.rpartition("/")[2]:
        return package
    said = {**dotenv_values(folder / ".env"), **os.environ}
    return f"{said.get('PREFIX') or ''}{package}:{said.get('TAG') or 'latest'}"


def connect() -> Engine:
    """The engine that the command line would talk to; raises as `sdk.connect`."""
    return Engine(*sdk.connect())
