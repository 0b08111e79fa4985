"""Is this machine ready for containers: one finding per check, and for every problem what to do about it.

Each check is a function of what it has to know, so that it can be asked about machines that are not here; only
`findings` looks at this one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shared_core.errors import UserError
from shared_core.images import gpu
from shared_core.images.contents import cuda_version, gigabytes
from shared_core.images.engine import Engine, Image, connect, reference
from shared_core.images.sdk import UnreachableError

OLDEST_ENGINE = (23, 0)  # the first that builds with BuildKit by itself
OLDEST_COMPOSE = (2, 24)  # docker/compose.cpu.yaml needs `!reset`
DISK = 25e9  # an image with CUDA's libraries, its layers while they are built, and the cache of wheels
MEMORY = 4e9  # PyTorch, a small data set and two loaders
TENSORBOARD_PORT = 6006
# what goes into an image (.dockerignore), besides its package
_SOURCES = ("docker/Dockerfile", "docker/entrypoint.sh", "docker/accelerate", "docker/locks", "shared/src")
_TOOLKIT = "install the NVIDIA Container Toolkit, then `sudo nvidia-ctk runtime configure --runtime=docker`"


@dataclass(frozen=True)
class Finding:
    """`note`: worth knowing, nothing to be done."""

    name: str
    state: Literal["ok", "note", "problem"]
    text: str
    advice: str = ""

    def __str__(self) -> str:
        line = f"{self.state:<8} {self.name:<14} {self.text}"
        return f"{line}\n{'':<8} {'':<14} -> {self.advice}" if self.advice else line


def findings(root: Path | None) -> Iterator[Finding]:
    """All checks of this machine, each as soon as it is done.

    Args:
        root: the checkout with docker/ and compose.yaml; None: checks that need them are left out.
    """
    yield check_buildx(_output("docker", "buildx", "version"))
    yield check_compose(_output("docker", "compose", "version", "--short"))
    try:
        engine = connect()
    except UnreachableError as error:
        yield Finding("engine", "problem", error.what, error.advice)
        engine = None
    except UserError as error:
        what, _, advice = str(error).partition("; ")
        yield Finding("engine", "problem", what, advice)
        engine = None
    said = None
    if root:
        said = _output("docker", "compose", "--profile", "*", "config", "--format", "json", folder=root)
        yield check_compose_files(said)
    composed = compose_settings(said)
    if engine is None:
        yield check_port(composed.port, port_is_free(composed.port), ours=False)
        return
    info = engine.info()
    yield check_engine(engine.version(), engine.address)
    images = dict(_images(engine, root)) if root else {}
    yield from _check_gpus(engine, info, root, images)
    yield check_disk(info, free_bytes(info) if engine.is_local else None)
    yield check_memory(info["MemTotal"], info["NCPU"])
    yield check_shared_memory(composed.shared_memory, info["MemTotal"])
    yield check_port(composed.port, port_is_free(composed.port), has_tensorboard(engine))
    for package, image in images.items():
        assert root is not None  # there are no images without it
        yield check_image(package, image, lambda revision, name=package: changed_files(root, name, revision))  # type: ignore[misc]


def check_buildx(said: str | None) -> Finding:
    """`said`: the output of ``docker buildx version``, None where it cannot run."""
    if said is None:
        return Finding(
            "buildx", "problem", "`docker buildx` does not work; images cannot be built",
            "install Docker's buildx plugin (package docker-buildx-plugin or docker-buildx)",
        )  # fmt: skip
    return Finding("buildx", "ok", _version_text(said))


def check_compose(said: str | None) -> Finding:
    """`said`: the output of ``docker compose version --short``."""
    advice = "install Docker's Compose plugin (package docker-compose-plugin or docker-compose-v2)"
    if said is None:
        return Finding("compose", "problem", "`docker compose` does not work", advice)
    if _numbers(said) < OLDEST_COMPOSE:
        wanted = ".".join(map(str, OLDEST_COMPOSE))
        return Finding("compose", "problem", f"{_version_text(said)} is older than {wanted}", advice)
    return Finding("compose", "ok", _version_text(said))


def check_engine(version: Mapping[str, Any], address: str) -> Finding:
    """`version`: what ``docker version`` says of the server."""
    text = f"{version['Version']}, API {version['ApiVersion']}, at {address}"
    if _numbers(version["Version"]) < OLDEST_ENGINE:
        wanted = ".".join(map(str, OLDEST_ENGINE))
        return Finding("engine", "problem", f"{text}: older than {wanted}", "install a newer Docker Engine")
    return Finding("engine", "ok", text)


def check_gpu(gpus: Sequence[gpu.Gpu], info: Mapping[str, Any], has_toolkit: bool) -> Finding:
    """`info`: ``docker info``; `has_toolkit`: NVIDIA's hook is in the path; the engine uses it unconfigured."""
    if not gpus:
        return Finding("gpu", "note", "no NVIDIA GPU here: `just` adds docker/compose.cpu.yaml, all runs on the CPU")
    text = f"{len(gpus)} x {gpus[0].name} ({gpus[0].memory}), driver {gpus[0].driver}"
    if not gpu.engine_knows_gpus(info) and not has_toolkit:
        return Finding("gpu", "problem", f"{text}, but the engine cannot hand them to containers", _TOOLKIT)
    return Finding("gpu", "ok", text)


def check_driver(gpus: Sequence[gpu.Gpu], cuda: tuple[int, int] | None, source: str) -> Finding | None:
    """Whether the driver runs the CUDA that `source` (an image) is made for; None where nothing is to be said."""
    if not gpus:
        return None
    if cuda is None:
        return Finding("driver", "note", f"{source} does not say which CUDA it is made for")
    named = f"CUDA {cuda[0]}.{cuda[1]} of {source}"
    least = gpu.LEAST_DRIVER.get(cuda[0])
    if least is None:
        return Finding("driver", "note", f"{named} is not in the table of drivers; yours is {gpus[0].driver}")
    if gpus[0].driver_major < least:
        older = max((major for major, needs in gpu.LEAST_DRIVER.items() if needs <= gpus[0].driver_major), default=None)
        base = f", or build on CUDA {older}: BASE_IMAGE=nvidia/cuda:{older}..." if older and older >= 12 else ""
        return Finding(
            "driver", "problem", f"{gpus[0].driver} is too old for {named}, which needs {least}",
            f"install driver {least} or newer{base}",
        )  # fmt: skip
    return Finding("driver", "ok", f"{gpus[0].driver} runs {named} (needs {least})")


def check_disk(info: Mapping[str, Any], free: int | None) -> Finding:
    """`free`: bytes where the engine keeps its data; None where that is not on this machine."""
    folder = info.get("DockerRootDir", "")
    if free is None:
        return Finding("disk", "note", f"the engine keeps its data in {folder}, which cannot be looked at from here")
    text = f"{gigabytes(free)} free in {folder}"
    if free < DISK:
        return Finding(
            "disk", "problem", f"{text}; building an image for CUDA takes {gigabytes(DISK)}",
            "`docker system df` shows what takes it, `docker builder prune` and `docker image prune` free some",
        )  # fmt: skip
    return Finding("disk", "ok", text)


def check_compose_files(said: str | None) -> Finding:
    """`said`: what ``docker compose config`` prints, None where it fails."""
    if said is None:
        advice = "run `docker compose config --quiet`, which says what is wrong; look at .env and COMPOSE_FILE"
        return Finding("compose files", "problem", "cannot be read, so no service can be started", advice)
    return Finding("compose files", "ok", "valid")


def check_memory(total: int, cores: int) -> Finding:
    """`total`: the engine's memory in bytes, which is a virtual machine's under Docker Desktop."""
    text = f"{gigabytes(total)}, {cores} cores"
    if total < MEMORY:
        advice = "give Docker's virtual machine more (its settings: Resources), or take a larger machine"
        return Finding("memory", "problem", f"{text}; training needs {gigabytes(MEMORY)}", advice)
    return Finding("memory", "ok", text)


def check_shared_memory(wanted: int | None, total: int) -> Finding:
    """`wanted`: compose's shm_size in bytes. It is taken from the memory when it is used, up to all of it."""
    if wanted is None:
        return Finding("shared memory", "note", "compose.yaml could not be read, so its shm_size is not known")
    text = f"{gigabytes(wanted)} for each container"
    if wanted > total / 2:
        advice = f"put SHM_SIZE={max(1, int(total / 4e9))}gb into the file .env"
        return Finding("shared memory", "problem", f"{text}, of {gigabytes(total)} of memory", advice)
    return Finding("shared memory", "ok", text)


def check_port(port: int, free: bool, ours: bool) -> Finding:
    """TensorBoard's port; `ours`: it is our TensorBoard that has it."""
    if ours:
        return Finding("port", "ok", f"TensorBoard runs at http://localhost:{port}")
    if not free:
        advice = f"put TENSORBOARD_PORT={port + 1} into the file .env"
        return Finding("port", "problem", f"TensorBoard's port {port} is taken by another program", advice)
    return Finding("port", "ok", f"{port} is free for TensorBoard")


def check_image(package: str, image: Image | None, changed: Callable[[str], int | None]) -> Finding:
    """`changed`: how many files that go into the image differ from those of a revision; None: it is not known here."""
    if image is None:
        return Finding("image", "note", f"{package}: not built yet", f"`just build {package}`")
    revision = image.labels.get("org.opencontainers.image.revision", "unknown")
    commit, _, changes = revision.partition("+")
    text, advice = f"{package}: {gigabytes(image.size)}, of {commit[:12]}", f"`just build {package}`"
    if changes:
        unclear = f"{text} and changes that were not committed, so nobody can tell whether it is up to date"
        return Finding("image", "note", unclear, advice)
    files = changed(commit) if re.fullmatch(r"[0-9a-f]{7,64}", commit) else None
    if files is None:
        return Finding("image", "note", f"{text}, a commit that this checkout does not know", advice)
    if files:
        changed_since = f"{files} of its files {'has' if files == 1 else 'have'} changed since"
        return Finding("image", "note", f"{text}, stale: {changed_since}", advice)
    return Finding("image", "ok", f"{text}, up to date")


@dataclass(frozen=True)
class Composed:
    """What compose.yaml, with .env and the environment, comes to."""

    shared_memory: int | None  # bytes, the largest of all services
    port: int  # TensorBoard's


def compose_settings(said: str | None) -> Composed:
    """`said`: the output of ``docker compose --profile "*" config --format json``."""
    services = json.loads(said)["services"] if said else {}
    sizes = [int(service["shm_size"]) for service in services.values() if "shm_size" in service]
    ports = [int(port["published"]) for port in services.get("tensorboard", {}).get("ports", []) if "published" in port]
    return Composed(max(sizes, default=None), next(iter(ports), TENSORBOARD_PORT))


def free_bytes(info: Mapping[str, Any]) -> int | None:
    """Free bytes where a local engine keeps its data; None where that is in a virtual machine."""
    try:
        return shutil.disk_usage(info["DockerRootDir"]).free
    except OSError:
        return None


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection that is just closing does not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def has_tensorboard(engine: Engine) -> bool:
    """Whether the service `tensorboard` of compose.yaml runs."""
    return bool(engine.client.containers.list(filters={"label": "com.docker.compose.service=tensorboard"}))


def changed_files(root: Path, package: str, revision: str) -> int | None:
    """How many files of a package's image differ between a revision and the checkout; None: unknown revision."""
    listed = _output("git", "diff", "--name-only", revision, "--", *_SOURCES, f"packages/{package}/src", folder=root)
    return None if listed is None else len(listed.splitlines())


def base_image(dockerfile: str, environment: Mapping[str, str]) -> str:
    """The image that docker/Dockerfile builds on, unless BASE_IMAGE names another."""
    default = re.search(r"\$\{BASE_IMAGE:-([^}]+)\}", dockerfile) or re.search(r"(?m)^ARG BASE_IMAGE=(\S+)", dockerfile)
    return environment.get("BASE_IMAGE") or (default[1] if default else "")


def _check_gpus(
    engine: Engine, info: Mapping[str, Any], root: Path | None, images: Mapping[str, Image | None]
) -> Iterator[Finding]:
    if not engine.is_local:
        yield Finding("gpu", "note", f"the engine is on another machine ({engine.address}); its GPUs are not seen here")
        return
    try:
        gpus = gpu.here()
    except UserError as error:
        what, _, advice = str(error).rpartition("; ")
        yield Finding("gpu", "problem", what, advice)
        return
    yield check_gpu(gpus, info, shutil.which("nvidia-container-runtime-hook") is not None)
    for package, image in images.items():
        if image is not None and (finding := check_driver(gpus, cuda_version(image.environment), package)):
            yield finding
    if root and not any(images.values()):
        base = base_image((root / "docker" / "Dockerfile").read_text(encoding="utf-8"), os.environ)
        if finding := check_driver(gpus, gpu.cuda_of_tag(base), base):
            yield finding


def _images(engine: Engine, root: Path) -> Iterator[tuple[str, Image | None]]:
    """The packages of the checkout and their images."""
    for package in sorted(path.parent.name for path in root.glob("packages/*/pyproject.toml")):
        try:
            yield package, engine.image(reference(package, root))
        except UserError:
            yield package, None


def _output(*command: str, folder: Path | None = None) -> str | None:
    """What a command prints; None where it is missing or fails."""
    try:
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ran.stdout.strip() if ran.returncode == 0 else None


def _version_text(said: str) -> str:
    match = re.search(r"\d+(\.\d+)+\S*", said)
    return match[0] if match else said


def _numbers(version: str) -> tuple[int, ...]:
    """`26.1.5+dfsg1 -> (26, 1)`."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
