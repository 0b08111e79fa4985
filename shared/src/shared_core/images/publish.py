"""Pushing a package's image to a registry, under its version and commit: what `just publish-image` does."""

from __future__ import annotations

import re
from collections.abc import Callable

from shared_core.errors import UserError
from shared_core.images import contents
from shared_core.images.engine import Engine, Image, reference
from shared_core.images.sdk import explained

_REGISTRY = re.compile(r"[a-z0-9][a-z0-9.\-]*(:\d+)?(/[a-z0-9][a-z0-9._\-]*)*")


def publish(engine: Engine, package: str, registry: str, out: Callable[[str], None]) -> list[str]:
    """Push a package's image as REGISTRY/PACKAGE:VERSION-COMMIT and REGISTRY/PACKAGE:VERSION.

    What is published can be traced and holds no secret: an image of changes that nobody has committed is refused, and
    one with something in it that looks like a token.

    Args:
        registry: host, with the port and the path below it if there are any, such as registry.example.org/team.
        out: gets a line for each thing that is done.

    Returns:
        ``REGISTRY/PACKAGE@sha256:...`` of each name, by which exactly this image can be had.

    Raises:
        UserError: the image is not built or may not be published, or the registry refuses it.
    """
    if not _REGISTRY.fullmatch(registry):
        raise UserError(f"{registry}: is no registry; write HOST or HOST:PORT/PATH, without https:// and in lower case")
    image = engine.image(reference(package))
    version, commit = _origin(image)
    _refuse_secrets(engine, image, out)
    pushed = []
    for tag in (f"{version}-{commit[:12]}", version):
        repository = f"{registry}/{package}"
        out(f"pushing {repository}:{tag}")
        with explained(image.reference):
            engine.client.api.tag(image.id, repository, tag)
            pushed.append(f"{repository}@{_push(engine, repository, tag)}")
    return pushed


def _origin(image: Image) -> tuple[str, str]:
    """(version, commit) of an image that can be traced to a commit."""
    version = image.labels.get("org.opencontainers.image.version", "unknown")
    commit = image.labels.get("org.opencontainers.image.revision", "unknown")
    if not re.fullmatch(r"[0-9a-f]{40,64}", commit) or version == "unknown":
        package = image.reference.partition(":")[0]
        raise UserError(
            f"{image.reference}: was built from {commit}, which nobody else has; commit, then run "
            f"`just build {package}`"
        )
    return version, commit


def _refuse_secrets(engine: Engine, image: Image, out: Callable[[str], None]) -> None:
    out(f"looking for secrets in {image.reference} ({contents.gigabytes(image.size)})")
    found = contents.secrets_in_settings(image) or contents.secrets_in_layers(engine.archive(image.reference))
    if found:
        raise UserError(
            f"{image.reference}: holds a secret ({found[0]}); revoke it, remove it and build the image again"
        )


def _push(engine: Engine, repository: str, tag: str) -> str:
    """Push one name; returns the manifest's digest."""
    digest = ""
    for answer in engine.client.api.push(repository, tag, stream=True, decode=True):
        if "error" in answer:
            raise UserError(f"{repository}:{tag}: {_advice(str(answer['error']), repository.partition('/')[0])}")
        digest = answer.get("aux", {}).get("Digest", digest)
    return digest


def _advice(said: str, host: str) -> str:
    line = said.strip().splitlines()[0]
    if re.search(r"unauthorized|authentication required|no basic auth|denied", line):
        return f"the registry wants to know who you are ({line}); run `docker login {host}`"
    if re.search(r"no such host|connection refused|timeout|i/o|EOF|reset", line):
        return f"the registry cannot be reached ({line}); check its name and the connection, then repeat the command"
    return f"the registry refuses it ({line}); repeat the command, what has been sent is kept"
