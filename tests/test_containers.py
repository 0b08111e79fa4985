"""The images and Compose services, built from a clean clone and run on a real engine, as a user runs them."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from house import FIVE, PACKAGES, ROOT, Package
from hub_server import TOKEN, serve

from shared_core import records, tensorfile
from shared_core.checkpoint import Checkpoints
from shared_core.images import __main__ as images
from shared_core.signals import EXIT_PREEMPTED

PAIR = "pair-compare-stacking"
TAG = "tested"
LOOKS_LIKE_A_TOKEN = "hf_" + "aB3dE5gH7j" * 4  # what `smoke` finds in a layer
by_package = pytest.mark.parametrize("package", PACKAGES, ids=str)


def _engine_answers() -> bool:
    return bool(shutil.which("docker")) and subprocess.run(["docker", "info"], capture_output=True).returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not _engine_answers(),
        reason="no engine answers `docker info`: NOTHING about images, Compose, docker stop, two nodes is proven here",
    ),
]


def run(*command: str | Path, cwd: Path = ROOT, check: int | None = 0, **environment: str) -> str:
    """What a command prints (both streams); fails with it where the exit status is not `check`."""
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env={**os.environ, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1500,
    )  # fmt: skip
    assert check is None or done.returncode == check, f"{command} ended with {done.returncode}:\n{done.stdout[-3000:]}"
    return done.stdout


@dataclass(frozen=True)
class House:
    """A clean clone whose images are built, and a Compose project of its own with folders of the host."""

    clone: Path
    folder: Path
    say: Callable[[str], None]
    secret: Path

    @property
    def runs(self) -> Path:
        return self.folder / "runs" / PAIR

    def environment(self, **more: str) -> dict[str, str]:
        return {
            "TAG": TAG,
            "COMPOSE_PROJECT_NAME": "tested",
            "COMPOSE_FILE": f"compose.yaml:docker/compose.cpu.yaml{more.pop('override', '')}",
            "DATA": str(self.folder / "data"),
            "RUNS": str(self.folder / "runs"),
            "CACHE": str(self.folder / "cache"),
            "HF_TOKEN_FILE": str(self.secret),
            **more,
        }

    def compose(self, *words: str, check: int | None = 0, **more: str) -> str:
        return run("docker", "compose", *words, cwd=self.clone, check=check, **self.environment(**more))

    def start(self, name: str, *words: str, **more: str) -> subprocess.Popen[str]:
        """`docker compose run` in the background, as the container `name`."""
        return subprocess.Popen(
            ["docker", "compose", "run", "--rm", "--name", name, *words], cwd=self.clone,
            env={**os.environ, **self.environment(**more)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def wait_for_step(self, name: str, step: int) -> None:
        """Until the run has logged that step."""
        for _ in range(1200):
            rows = records.read_metrics(self.runs / name / "metrics.jsonl") if (self.runs / name).exists() else []
            if any(row["step"] >= step for row in rows):
                return
            time.sleep(0.1)
        raise AssertionError(f"{name} has not come to step {step}")


@pytest.fixture(scope="module")
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Prints a measured figure past pytest's capture, for it belongs into the log of every run."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def print_it(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n  {line}", end="")

    return print_it


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, say: Callable[[str], None]) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    clone = folder / "clone"
    run("git", "clone", "--quiet", "--no-local", ROOT, clone)
    # what a careless user leaves lying about must stay out of every layer
    secret = clone / "token.token"
    secret.write_text(TOKEN)
    (clone / ".env").write_text(f"HF_TOKEN={TOKEN}\n")
    for place in ("docker/accelerate", "docker/locks", "shared/src/shared_core", f"packages/{PAIR}/src"):
        for name in (".env", "my.token"):
            (clone / place / name).write_text(f"{TOKEN} {LOOKS_LIKE_A_TOKEN}")
    for name in ("data", "runs", "cache"):
        (folder / name).mkdir()
        (folder / name).chmod(0o777)  # the container's user is another than ours
    started = time.monotonic()
    built = run("bash", "docker/build.sh", "all", cwd=clone, TAG=TAG, BUILDKIT_PROGRESS="plain")
    say(f"first build: {time.monotonic() - started:.0f} s ({built.count(' CACHED')} layers were there already)")
    house = House(clone, folder, say, secret)
    yield house
    house.compose("down", "--volumes", "--remove-orphans", check=None)
    # what containers wrote belongs to their user
    run("docker", "run", "--rm", "--user", "0", "--entrypoint", "rm", "-v", f"{folder}:/folder", f"{PAIR}:{TAG}",
        "-rf", "/folder/data", "/folder/runs", "/folder/cache", check=None)  # fmt: skip
    run("docker", "image", "rm", *(f"{package.name}:{TAG}" for package in PACKAGES), check=None)


@pytest.fixture(scope="module")
def prepared(house: House) -> House:
    mounted = house.folder / "mounted.yaml"  # the way the README mounts a file
    mounted.write_text("name: demo\ndata: {source: digits, severity: 3}\n")
    mount = f"{mounted}:/workspace/mounted.yaml:ro"
    house.compose("run", "--rm", "-v", mount, "pair-prepare", "--config", "mounted.yaml")
    return house


TRAIN = ("--config", "demo", "--epochs", "4", "--runtime.threads", "1", "--training.eval_every", "4")


def _inspect(package: str) -> dict[str, Any]:
    return json.loads(run("docker", "image", "inspect", f"{package}:{TAG}"))[0]


# 1. images


def test_a_change_of_source_rebuilds_only_the_last_layers(house: House) -> None:
    source = house.clone / "packages" / PAIR / "src" / "pair_compare_stacking" / "model.py"
    text = source.read_text()
    source.write_text(f"{text}\n# changed at {time.time_ns()}\n")  # as nobody has built it before
    started = time.monotonic()
    said = run("bash", "docker/build.sh", PAIR, cwd=house.clone, TAG="changed", BUILDKIT_PROGRESS="plain")
    house.say(f"second build, one source file changed: {time.monotonic() - started:.1f} s")
    source.write_text(text)
    run("docker", "image", "rm", f"{PAIR}:changed")
    steps = dict(re.findall(r"^#(\d+) (\[[\w-]+ .*\] .*)$", said, re.MULTILINE))
    cached = set(re.findall(r"^#(\d+) CACHED$", said, re.MULTILINE))
    again = [step for number, step in steps.items() if number not in cached and not step.startswith("[internal")]
    assert all("packages/" in step or "WORKDIR" in step or "FROM" in step for step in again), again
    assert any("packages/" in step for step in again)
    assert len([step for number, step in steps.items() if number in cached and "pip install" in step]) >= 4


@by_package
def test_image_has_a_plain_user_labels_and_sound_packages(house: House, package: Package) -> None:
    about = _inspect(package.name)
    house.say(f"{package.name}: {about['Size'] / 1e9:.2f} GB")
    assert about["Config"]["User"] == "1000:1000"
    labels = about["Config"]["Labels"]
    commit = run("git", "rev-parse", "HEAD", cwd=house.clone).strip()
    assert labels["org.opencontainers.image.revision"] == commit
    assert labels["org.opencontainers.image.version"] == "0.1.0"
    assert labels["org.opencontainers.image.title"] == labels["training.package"] == package.name
    image = f"{package.name}:{TAG}"
    assert "No broken requirements" in run("docker", "run", "--rm", "--entrypoint", "pip", image, "check")
    assert run("docker", "run", "--rm", "--entrypoint", "id", image, "-u").strip() == "1000"


def test_every_image_is_layers_on_top_of_the_cores(house: House) -> None:
    """Those of the system, PyTorch and what the core needs: an engine stores them once."""
    image = f"core-of-all:{TAG}"
    to_core = ("docker", "build", "--quiet", "--target", "core", "--file", "docker/Dockerfile")
    run(*to_core, "--tag", image, *_arguments(), ".", cwd=house.clone)
    below = json.loads(run("docker", "image", "inspect", image))[0]["RootFS"]["Layers"]
    run("docker", "image", "rm", image)
    assert len(below) >= 6
    for package in PACKAGES:
        layers = _inspect(package.name)["RootFS"]["Layers"]
        assert layers[: len(below)] == below
        assert len(layers) > len(below)


def _arguments() -> list[str]:
    return ["--build-arg", f"BASE_IMAGE={os.environ['BASE_IMAGE']}"] if os.environ.get("BASE_IMAGE") else []


def test_modes_of_a_checkout_do_not_matter(house: House) -> None:
    """With the umask 077 a clone's files are its owner's alone; in the image another user reads them."""
    careful = [house.clone / "docker" / "entrypoint.sh", *(house.clone / "docker" / "accelerate").iterdir()]
    for path in careful:
        path.chmod(0o600)
    run("bash", "docker/build.sh", PAIR, cwd=house.clone, TAG="modes")
    assert "verbs:" in run("docker", "run", "--rm", f"{PAIR}:modes", "--help")
    said = run("docker", "run", "--rm", "-e", "NPROC=2", f"{PAIR}:modes", "train", "--epochz", "3", check=2)
    assert len(said.strip().splitlines()) == 1  # one line, not the launcher's traceback
    run("docker", "image", "rm", f"{PAIR}:modes")
    for path in careful:
        path.chmod(0o644)


@by_package
def test_image_keeps_its_promises(house: House, package: Package, capsys: pytest.CaptureFixture[str]) -> None:
    """What `just smoke` checks: help and demo without network on a read-only root, SIGTERM, resume, no secret."""
    assert images.main(["smoke", f"{package.name}:{TAG}", "--cpu"]) == 0, capsys.readouterr().out[-3000:]
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("passed "):
            house.say(line)


def test_image_runs_as_any_user(house: House) -> None:
    said = run("docker", "run", "--rm", "--user", "4321:4321", f"{PAIR}:{TAG}", "prepare", "--config", "demo")
    assert "train 2,000" in said


# 2. the demo


@by_package
def test_compose_demo_is_the_demo_of_the_host(house: House, package: Package, tmp_path: Path) -> None:
    house.compose("run", "--rm", f"{FIVE[package.name]}-demo", "--runtime.threads", "2", "--name", "container")
    command = [sys.executable, "-m", package.module, "demo", "--runtime.threads", "2", "--name", "container"]
    run(*command, cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    there, here = (
        records.read_evaluations(records.find(folder / "runs" / package.name / "container"))
        for folder in (house.folder, tmp_path)
    )
    assert there
    assert {split: found["metrics"] for split, found in there.items()} == {
        split: found["metrics"] for split, found in here.items()
    }
    about = json.loads((house.folder / "runs" / package.name / "container" / "run.json").read_text())
    assert about["commit"] == run("git", "rev-parse", "HEAD", cwd=house.clone).strip()


# 3. docker stop


def test_stopped_container_leaves_a_checkpoint_and_goes_on_to_the_same_weights(prepared: House) -> None:
    prepared.compose("run", "--rm", "pair-train", *TRAIN, "--name", "whole")
    stopped = prepared.start("tested-stopped", "pair-train", *TRAIN, "--name", "stopped")
    prepared.wait_for_step("stopped", 40)
    run("docker", "stop", "tested-stopped")
    said, _ = stopped.communicate(timeout=60)
    assert stopped.returncode == EXIT_PREEMPTED, said
    here = prepared.runs / "stopped"
    assert json.loads((here / "status.json").read_text())["state"] == "preempted"
    path, skipped = Checkpoints(here / "checkpoints").find("auto")
    assert path is not None and skipped == []
    assert 40 <= int(path.name.removeprefix("step-")) < 128
    prepared.compose("run", "--rm", "pair-train", *TRAIN, "--name", "stopped")
    assert json.loads((here / "status.json").read_text())["state"] == "finished"
    _assert_same_weights(here, prepared.runs / "whole")


def _assert_same_weights(one: Path, other: Path) -> None:
    a, b = (Checkpoints(path / "checkpoints").find("auto")[0] for path in (one, other))
    assert a is not None and b is not None
    assert a.name == b.name == f"step-{_last_step(one)}"
    for file in ("model", "ema", "optimizer"):
        ours, theirs = (tensorfile.read(path / f"{file}.safetensors")[0] for path in (a, b))
        assert set(ours) == set(theirs)
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


def _last_step(folder: Path) -> int:
    return max(row["step"] for row in records.read_metrics(folder / "metrics.jsonl"))


# 4. two nodes


def _losses(folder: Path) -> dict[int, float]:
    return {
        row["step"]: row["train/loss"] for row in records.read_metrics(folder / "metrics.jsonl") if "train/loss" in row
    }


def _two_nodes(house: House, name: str) -> list[subprocess.Popen[str]]:
    """Two containers on one network; the first is where they meet."""
    return [
        house.start(f"tested-node{rank}", "pair-train", *TRAIN, "--name", name,
                    NNODES="2", NODE_RANK=str(rank), MASTER_ADDR="tested-node0", NPROC="1")
        for rank in (0, 1)
    ]  # fmt: skip


def test_two_containers_are_two_nodes(prepared: House) -> None:
    prepared.compose("run", "--rm", "pair-train", *TRAIN, "--name", "two-in-one", NPROC="2")
    nodes = _two_nodes(prepared, "two-nodes")
    said = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(said)
    assert _losses(prepared.runs / "two-nodes") == _losses(prepared.runs / "two-in-one") != {}
    _assert_same_weights(prepared.runs / "two-nodes", prepared.runs / "two-in-one")

    # one of them is killed: the other must not wait for ever, and the pair goes on
    nodes = _two_nodes(prepared, "killed")
    prepared.wait_for_step("killed", 24)
    run("docker", "kill", "tested-node1")
    started = time.monotonic()
    said = [node.communicate(timeout=120)[0] for node in nodes]
    prepared.say(f"node 0 ended {time.monotonic() - started:.1f} s after node 1 was killed")
    assert [node.returncode for node in nodes] == [1, 137], "\n".join(said)
    assert "lost another process of this run" in said[0]
    nodes = _two_nodes(prepared, "killed")
    said = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(said)
    assert re.search(r"resumed from step-", (prepared.runs / "killed" / "train.log").read_text())
    _assert_same_weights(prepared.runs / "killed", prepared.runs / "two-in-one")


# 5. a token


def test_token_is_used_and_kept_nowhere(prepared: House, tmp_path: Path) -> None:
    prepared.compose("run", "--rm", "pair-train", *TRAIN, "--epochs", "1", "--name", "published")
    prepared.compose("run", "--rm", "pair-evaluate", "--run", "published")
    on_host_network = tmp_path / "host.yaml"
    on_host_network.write_text("services: {pair: {network_mode: host, environment: {HF_HUB_DISABLE_XET: '1'}}}\n")
    with serve() as hub:
        more = {"HF_ENDPOINT": hub.url, "override": f":{on_host_network}"}
        pushing = prepared.start("tested-push", "pair", "push", "ada/digits", "--run", "published", **more)
        container = ""
        while pushing.poll() is None and not container:
            container = run("docker", "inspect", "tested-push", check=None) if pushing.poll() is None else ""
            container = container if '"Id"' in container else ""
        said, _ = pushing.communicate(timeout=120)
        assert pushing.returncode == 0, said
        published = hub.repo("ada/digits").files()
        assert any("/commit/" in request for request in hub.requests)
    assert "model.safetensors" in published and "README.md" in published
    assert '"Id"' in container
    history = run("docker", "history", "--no-trunc", f"{PAIR}:{TAG}")
    image = run("docker", "image", "inspect", f"{PAIR}:{TAG}")
    for where, text in {"history": history, "image": image, "container": container, "log": said}.items():
        assert TOKEN not in text, where
    assert [name for name, data in published.items() if TOKEN.encode() in data] == []
    kept = [path for path in prepared.folder.rglob("*") if path.is_file() and prepared.clone not in path.parents]
    assert len(kept) > 20
    assert [path for path in kept if TOKEN.encode() in path.read_bytes()] == []


def test_tensorboard_shows_the_runs(prepared: House, tmp_path: Path) -> None:
    """It serves what lies in the folder of runs, without their packages."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    prepared.compose("run", "--rm", "pair-train", *TRAIN, "--epochs", "1", "--name", "shown")
    prepared.compose("up", "--detach", "tensorboard", TENSORBOARD_PORT=str(port))
    for _ in range(300):
        try:
            shown = urllib.request.urlopen(f"http://127.0.0.1:{port}/data/runs", timeout=5).read().decode()
            break
        except OSError:
            time.sleep(0.2)
    prepared.compose("rm", "--stop", "--force", "tensorboard")
    assert f"{PAIR}/shown/events" in json.loads(shown)


# 6. files


def test_compose_and_bake_files_validate(house: House) -> None:
    house.compose("--profile", "verbs", "config", "--quiet")
    house.compose("--profile", "verbs", "config", "--quiet", COMPOSE_FILE="compose.yaml")
    services = house.compose("--profile", "verbs", "config", "--services").split()
    assert len(services) == 31
    config = house.compose("--profile", "verbs", "config", "--format", "json", override=":docker/compose.nodes.yaml")
    modes = {name: service.get("network_mode") for name, service in json.loads(config)["services"].items()}
    assert {name for name, mode in modes.items() if mode == "host"} == {f"{name}-train" for name in FIVE.values()}
    plan = run("docker", "buildx", "bake", "--file", "docker/bake.hcl", "--print", "all", cwd=house.clone)
    targets = json.loads(plan[plan.index("{") :])["target"]
    assert sorted(targets) == sorted(FIVE)
    assert all(target["args"]["PACKAGE"] == name for name, target in targets.items())


def test_contradicting_launcher_is_refused_with_both_names(prepared: House) -> None:
    words = ("run", "--rm", "-e", "ACCELERATE_MIXED_PRECISION=bf16", "pair-train", *TRAIN, "--name", "refused")
    said = prepared.compose(*words, check=2)
    assert "ACCELERATE_MIXED_PRECISION=bf16 contradicts runtime.precision=fp32" in said
    assert not (prepared.runs / "refused").exists()
