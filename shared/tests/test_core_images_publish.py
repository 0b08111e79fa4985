"""Pushing images: a real engine against a registry on loopback."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import engine_images
import pytest
from registry_server import Registry, serve

from shared_core.errors import UserError
from shared_core.images.engine import Engine, connect
from shared_core.images.publish import publish

PACKAGE = "published-by-a-test"
OPENCONTAINERS = "org.opencontainers.image"
TEST = "training.published-by-a-test"
COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture
def engine() -> Engine:
    engine_images.engine_or_skip("that images are pushed, and that those with secrets or without a commit are refused")
    return connect()


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve() as running:
        yield running


@pytest.fixture
def build(engine: Engine, tmp_path: Path) -> Iterator[Any]:
    """Builds an image of one file that plays the package's."""

    def make(content: str = "nothing secret", revision: str = COMMIT) -> None:
        (tmp_path / "file").write_text(content)
        labels = {
            TEST: "yes",
            "org.opencontainers.image.version": "1.2.3",
            "org.opencontainers.image.revision": revision,
        }
        lines = ["FROM scratch", "COPY file /file", *(f'LABEL {name}="{value}"' for name, value in labels.items())]
        (tmp_path / "Dockerfile").write_text("\n".join(lines) + "\n")
        command = ["docker", "build", "--quiet", "--tag", f"{PACKAGE}:latest", str(tmp_path)]
        subprocess.run(command, check=True, capture_output=True)

    yield make
    listed = subprocess.run(["docker", "image", "ls", "--quiet", "--filter", f"label={TEST}"], capture_output=True)
    subprocess.run(["docker", "image", "rm", "--force", *listed.stdout.decode().split()], capture_output=True)


def said(line: str) -> None:
    """Nobody listens."""


def test_image_is_pushed_under_its_version_and_commit(engine: Engine, registry: Registry, build: Any) -> None:
    build()
    pushed = publish(engine, PACKAGE, f"{registry.host}/team", said)
    assert sorted(registry.manifests) == [f"team/{PACKAGE}:1.2.3", f"team/{PACKAGE}:1.2.3-{COMMIT[:12]}"]
    [manifest] = set(registry.manifests.values())
    config = json.loads(registry.blobs[json.loads(manifest)["config"]["digest"]])
    assert config["config"]["Labels"][f"{OPENCONTAINERS}.revision"] == COMMIT
    assert len(set(pushed)) == 1 and pushed[0].startswith(f"{registry.host}/team/{PACKAGE}@sha256:")


@pytest.mark.parametrize("revision", [f"{COMMIT}+changes", "unknown"])
def test_what_nobody_has_committed_is_refused(engine: Engine, registry: Registry, build: Any, revision: str) -> None:
    build(revision=revision)
    with pytest.raises(UserError, match=rf"was built from .*; commit, then run `just build {PACKAGE}`"):
        publish(engine, PACKAGE, registry.host, said)
    assert registry.blobs == {}


def test_image_with_a_token_in_a_layer_is_refused(engine: Engine, registry: Registry, build: Any) -> None:
    build("hf_" + "aB3dE5gH7j" * 4)
    with pytest.raises(UserError, match=r"holds a secret \(/file: hf_aB3\.\.\.\); revoke it"):
        publish(engine, PACKAGE, registry.host, said)
    assert registry.blobs == {}


def test_registry_that_wants_a_login(engine: Engine, registry: Registry, build: Any) -> None:
    build()
    registry.password = "ada:secret"
    with pytest.raises(UserError, match=rf"run `docker login {registry.host}`"):
        publish(engine, PACKAGE, registry.host, said)


def test_registry_that_is_not_there(engine: Engine, build: Any) -> None:
    build()
    with pytest.raises(UserError, match="cannot be reached"):
        publish(engine, PACKAGE, "127.0.0.1:9", said)


def test_fault_of_the_registry_is_overcome_by_trying_again(engine: Engine, registry: Registry, build: Any) -> None:
    build()
    registry.faults = [500]
    publish(engine, PACKAGE, registry.host, said)  # the engine itself tries again
    assert registry.faults == []
    assert len(registry.manifests) == 2


@pytest.mark.parametrize("name", ["https://registry.example.org", "Registry.example.org", "", "a b", "host/"])
def test_names_that_are_no_registry(engine: Engine, name: str) -> None:
    with pytest.raises(UserError, match="is no registry"):
        publish(engine, PACKAGE, name, said)


def test_image_that_is_not_built(engine: Engine) -> None:
    with pytest.raises(UserError, match="run `just build never-built`"):
        publish(engine, "never-built", "127.0.0.1:9", said)
