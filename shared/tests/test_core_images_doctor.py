"""The preflight, asked about machines that are not here; and once about this one."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import engine_images as images
import pytest

from shared_core.errors import UserError
from shared_core.images import doctor, gpu
from shared_core.images.__main__ import main
from shared_core.images.engine import Image

H100 = gpu.Gpu("NVIDIA H100", "580.95.05", "81559 MiB")
OLD = gpu.Gpu("Tesla T4", "535.104.05", "15360 MiB")
NVIDIA = {"Runtimes": {"nvidia": {}, "runc": {}}}
CDI = {"Runtimes": {"runc": {}}, "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]}
PLAIN = {"Runtimes": {"runc": {}}}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("finding", "state", "said"),
    [
        (doctor.check_buildx(None), "problem", "cannot be built"),
        (doctor.check_buildx("github.com/docker/buildx v0.13.1 7884339"), "ok", "0.13.1"),
        (doctor.check_compose(None), "problem", "does not work"),
        (doctor.check_compose("2.9.0"), "problem", "older than 2.24"),
        (doctor.check_compose("v2.24.0-desktop.1"), "ok", "2.24.0"),
        (doctor.check_compose("5.0.1"), "ok", "5.0.1"),
        (doctor.check_engine({"Version": "20.10.21", "ApiVersion": "1.41"}, "unix:///x"), "problem", "older than 23.0"),
        (doctor.check_engine({"Version": "23.0.0", "ApiVersion": "1.42"}, "unix:///x"), "ok", "API 1.42"),
        (doctor.check_gpu([], NVIDIA, True), "note", "on the CPU"),
        (doctor.check_gpu([H100, H100], PLAIN, False), "problem", "cannot hand them"),
        (doctor.check_gpu([H100, H100], NVIDIA, False), "ok", "2 x NVIDIA H100 (81559 MiB)"),
        (doctor.check_gpu([H100], CDI, False), "ok", "580.95.05"),
        (doctor.check_gpu([H100], PLAIN, True), "ok", ""),
        (doctor.check_driver([H100], (13, 0), "x"), "ok", "needs 580"),
        (doctor.check_driver([OLD], (13, 0), "x"), "problem", "535.104.05 is too old for CUDA 13.0 of x"),
        (doctor.check_driver([OLD], (12, 9), "x"), "ok", "needs 525"),
        (doctor.check_driver([H100], (14, 0), "x"), "note", "not in the table"),
        (doctor.check_driver([H100], None, "x"), "note", "does not say"),
        (doctor.check_disk({"DockerRootDir": "/d"}, 24_999_999_999), "problem", "takes 25.0 GB"),
        (doctor.check_disk({"DockerRootDir": "/d"}, 25_000_000_000), "ok", "in /d"),
        (doctor.check_disk({"DockerRootDir": "/d"}, None), "note", "/d"),
        (doctor.check_memory(2_000_000_000, 2), "problem", "needs 4.0 GB"),
        (doctor.check_memory(8_000_000_000, 2), "ok", "8.0 GB, 2 cores"),
        (doctor.check_shared_memory(2**31, 4 * 10**9), "problem", "2.1 GB"),
        (doctor.check_shared_memory(2**31, 16 * 10**9), "ok", "2.1 GB"),
        (doctor.check_shared_memory(None, 16 * 10**9), "note", "compose.yaml"),
        (doctor.check_port(6006, free=True, ours=False), "ok", "6006"),
        (doctor.check_port(6006, free=False, ours=False), "problem", "taken"),
        (doctor.check_port(6006, free=False, ours=True), "ok", "http://localhost:6006"),
    ],
)
def test_checks(finding: doctor.Finding, state: str, said: str) -> None:
    assert finding.state == state, finding
    assert said in finding.text
    assert bool(finding.advice) == (state == "problem")
    assert str(finding).count("\n") == bool(finding.advice)  # one line, and one of advice


def test_nothing_is_said_about_the_driver_of_no_gpu() -> None:
    assert doctor.check_driver([], (13, 0), "x") is None


def test_advises_an_older_cuda_that_the_driver_runs() -> None:
    finding = doctor.check_driver([OLD], (13, 0), "x")
    assert finding is not None
    assert finding.advice == "install driver 580 or newer, or build on CUDA 12: BASE_IMAGE=nvidia/cuda:12..."
    finding = doctor.check_driver([gpu.Gpu("K80", "470.57.02", "1 MiB")], (13, 0), "x")
    assert finding is not None
    assert finding.advice == "install driver 580 or newer"  # there is no PyTorch for CUDA 11


def built(revision: str) -> Image:
    return Image("x:latest", "sha256:0", "1000", {"org.opencontainers.image.revision": revision}, {}, (), 10**9)


@pytest.mark.parametrize(
    ("image", "changed", "state", "said"),
    [
        (None, 0, "note", "not built yet"),
        (built(COMMIT), 0, "ok", "up to date"),
        (built(COMMIT), 1, "note", "stale: 1 of its files has changed"),
        (built(COMMIT), 3, "note", "stale: 3 of its files have changed"),
        (built(COMMIT), None, "note", "does not know"),
        (built(f"{COMMIT}+changes"), 0, "note", "not committed"),
        (built("unknown"), 0, "note", "does not know"),
    ],
)
def test_images(image: Image | None, changed: int | None, state: str, said: str) -> None:
    finding = doctor.check_image("x", image, lambda revision: changed)
    assert (finding.state, said in finding.text) == (state, True), finding
    assert finding.advice == ("" if state == "ok" else "`just build x`")


def test_changed_files_are_those_that_go_into_the_image(tmp_path: Path) -> None:
    def git(*command: str) -> str:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        return subprocess.run(
            ["git", *identity, *command], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    for name in ("docker/Dockerfile", "shared/src/a.py", "packages/x/src/b.py", "packages/y/src/c.py", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "x")
    commit = git("rev-parse", "HEAD")
    for name in ("README.md", "packages/y/src/c.py"):
        (tmp_path / name).write_text("2")
    git("commit", "-qam", "y")
    assert doctor.changed_files(tmp_path, "x", commit) == 0
    (tmp_path / "packages/x/src/b.py").write_text("2")
    (tmp_path / "docker/Dockerfile").write_text("2")
    assert doctor.changed_files(tmp_path, "x", commit) == 2
    assert doctor.changed_files(tmp_path, "x", COMMIT) is None


def test_compose_files_that_cannot_be_read_are_a_problem() -> None:
    found = doctor.check_compose_files(None)
    assert found.state == "problem"
    assert "docker compose config --quiet" in found.advice
    assert doctor.check_compose_files("{}").state == "ok"


def test_reads_what_compose_comes_to() -> None:
    services = {
        "a": {"shm_size": "2147483648"},
        "b": {"shm_size": "1024"},
        "tensorboard": {"ports": [{"target": 6006, "published": "7007"}]},
    }
    assert doctor.compose_settings(json.dumps({"services": services})) == doctor.Composed(2**31, 7007)
    assert doctor.compose_settings(None) == doctor.Composed(None, 6006)


def test_sees_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not doctor.port_is_free(port)
    assert doctor.port_is_free(port)


def test_finds_the_base_image() -> None:
    dockerfile = (Path(__file__).parents[2] / "docker" / "Dockerfile").read_text()
    base = doctor.base_image(dockerfile, {})
    assert (gpu.cuda_of_tag(base) or (0, 0))[0] in gpu.LEAST_DRIVER
    assert doctor.base_image(dockerfile, {"BASE_IMAGE": "mine:1"}) == "mine:1"
    assert gpu.cuda_of_tag("debian:12") is None


def test_reads_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pretend(script: str) -> None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    pretend("echo 'NVIDIA H100, 580.95.05, 81559 MiB'")
    assert gpu.here() == [H100]
    assert H100.driver_major == 580
    pretend("echo 'No devices were found'; exit 6")
    assert gpu.here() == []
    pretend("echo 'NVIDIA-SMI has failed because it could not communicate with the driver.'; exit 9")
    with pytest.raises(UserError, match=r"could not communicate with the driver\.; reboot"):
        gpu.here()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert gpu.here() == []


def test_without_an_engine_doctor_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "problem  engine         no Docker engine runs here: there is no socket" in said
    assert "-> install Docker, or start it" in said
    assert "TensorBoard" in said


def test_on_this_machine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    images.engine_or_skip("that doctor understands a real engine")
    monkeypatch.chdir(Path(__file__).parent)  # anywhere in the checkout
    status = main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    names = [line[9:23].strip() for line in lines if line[:1] in "onp" and line[8:9] == " "]
    expected = ["buildx", "compose", "compose files", "engine", "gpu", "disk", "memory", "shared memory", "port"]
    expected.append("image")
    assert [name for name in dict.fromkeys(names) if name != "driver"] == expected
    assert status == any(line.startswith("problem") for line in lines)
    assert any("GB for each container" in line for line in lines)  # compose.yaml was read
