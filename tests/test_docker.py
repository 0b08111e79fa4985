"""What the containers are made of, read without an engine: locks, launch files, Compose services, the entrypoint."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from house import CORE, FIVE, PACKAGES, ROOT, Package
from packaging.requirements import Requirement

DOCKER = ROOT / "docker"
VERBS = ["prepare", "train", "evaluate", "predict", "demo"]
LAUNCH_FILES = sorted((DOCKER / "accelerate").glob("*.yaml"))
TOPOLOGY = {"compute_environment", "distributed_type", "num_machines", "num_processes", "machine_rank", "gpu_ids",
            "main_process_ip", "main_process_port", "rdzv_backend", "same_network"}  # fmt: skip


class _Compose(yaml.SafeLoader):
    """Reads Compose's own tags as their values."""


_Compose.add_constructor("!reset", lambda loader, node: "reset")


def _services(path: Path) -> dict[str, Any]:
    return yaml.load(path.read_text(), _Compose)["services"]


# locks


def _locked(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9][\w.\-]*)==([\w.]+)", path.read_text(), re.MULTILINE))


LOCKS = [pytest.param(path, id=path.stem) for path in sorted((DOCKER / "locks").glob("*.txt"))]


def test_each_layer_has_a_lock() -> None:
    names = {path.stem for path in (DOCKER / "locks").iterdir()}
    assert names == {"torch", CORE.name} | {package.name for package in PACKAGES}


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_holds_the_tested_versions_with_checksums_and_no_pytorch(lock: Path) -> None:
    pins = dict(line.split("==") for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line)
    locked = _locked(lock)
    foreign = {"colorama", "httpx2-jsfetch"}  # of other systems than Linux, where requirements.txt has no line for them
    assert {name: version for name, version in locked.items() if pins.get(name, version) != version} == {}
    assert set(locked) - set(pins) - foreign == set()
    assert [name for name in locked if re.match(r"(torch|triton|nvidia|cuda)\b", name)] == []
    blocks = re.split(r"\n(?=\w)", lock.read_text().split("\n", 1)[1])
    assert [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block] == []


@pytest.mark.parametrize("package", PACKAGES, ids=str)
def test_locks_hold_what_the_package_and_the_core_need(package: Package) -> None:
    locked = _locked(DOCKER / "locks" / f"{package.name}.txt")
    for room in (package, CORE):
        project = tomllib.loads((room.folder / "pyproject.toml").read_text())["project"]
        for wanted in map(Requirement, project["dependencies"]):
            name = wanted.name.lower().replace("_", "-")
            if name not in ("torch", CORE.name):
                assert wanted.specifier.contains(locked[name]), f"{wanted}: run `just lock`"


def test_images_take_the_tested_pytorch() -> None:
    [pinned] = re.findall(r"^torch==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert f"ARG TORCH_VERSION={pinned}\n" in (DOCKER / "Dockerfile").read_text()


def test_base_image_is_pinned_and_no_secret_is_an_argument() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    assert re.search(r"FROM \$\{BASE_IMAGE:-nvidia/cuda:\d+\.\d+\.\d+-base-ubuntu24\.04\}", text)
    assert not re.findall(r"^(?:ARG|ENV).*(?:TOKEN|SECRET|PASSWORD|KEY)\b", text, re.MULTILINE)


# Compose


def test_every_package_has_its_services() -> None:
    services = _services(ROOT / "compose.yaml")
    wanted = {f"{short}-{verb}" for short in FIVE.values() for verb in VERBS} | {*FIVE.values(), "tensorboard"}
    assert set(services) == wanted
    for name, short in FIVE.items():
        for verb in VERBS:
            service = services[f"{short}-{verb}"]
            assert service["image"] == f"${{PREFIX:-}}{name}:${{TAG:-latest}}"
            assert service["build"]["args"]["PACKAGE"] == name
            assert service["entrypoint"] == ["bash", "/opt/entrypoint.sh", verb]
            assert service["init"] is True
            assert {"shm_size", "stop_grace_period"} <= set(service)
            assert service["secrets"] == ["hf_token"]
            assert {"HF_ENDPOINT", "HF_HUB_OFFLINE", "HTTPS_PROXY", "https_proxy"} <= set(service["environment"])
            assert service["environment"]["HF_TOKEN_PATH"] == "/run/secrets/hf_token"


def test_cpu_override_takes_the_gpu_out_of_every_service_that_reserves_one() -> None:
    reserving = {name for name, service in _services(ROOT / "compose.yaml").items() if "deploy" in service}
    assert _services(DOCKER / "compose.cpu.yaml") == {name: {"deploy": "reset"} for name in reserving}


def test_training_on_several_machines_uses_their_network() -> None:
    assert _services(DOCKER / "compose.nodes.yaml") == {
        f"{short}-train": {"network_mode": "host"} for short in FIVE.values()
    }


def test_launcher_ends_before_compose_loses_patience() -> None:
    [grace] = re.findall(r"stop_grace_period: (\d+)m", (ROOT / "compose.yaml").read_text())
    [shutdown] = re.findall(r"TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-(\d+)", (DOCKER / "entrypoint.sh").read_text())
    assert int(shutdown) < 60 * int(grace)


def test_just_and_compose_agree_on_the_services() -> None:
    text = (ROOT / "justfile").read_text()
    lists = [re.search(rf'^{name} := "(.*)"', text, re.MULTILINE) for name in ("packages", "services")]
    assert [found[1].split() for found in lists if found] == [list(FIVE), list(FIVE.values())]


def test_bake_has_a_target_per_package() -> None:
    [listed] = re.findall(r"matrix\s*= \{ package = (\[.*\]) \}", (DOCKER / "bake.hcl").read_text())
    assert json.loads(listed) == list(FIVE)


# launch files


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.stem)
def test_launch_files_hold_topology_only(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    assert set(yaml.safe_load(path.read_text())) <= TOPOLOGY
    assert load_config_from_file(str(path)).mixed_precision in (None, "no")


def test_there_is_a_launch_file_for_every_topology() -> None:
    assert [path.stem for path in LAUNCH_FILES] == ["cpu", "fsdp", "multi_gpu", "multi_node", "single"]


# the entrypoint, with programs that only say how they were called


@pytest.fixture
def enter(tmp_path: Path) -> Any:
    """Calls the entrypoint with so many GPUs; returns (exit status, what would run or the complaint)."""
    for name in ("python", "accelerate", "nvidia-smi"):
        program = tmp_path / name
        said = 'for n in $(seq "$GPUS"); do echo "GPU $n: one"; done' if name == "nvidia-smi" else f'echo {name} "$@"'
        said += '; [[ "$*" != *--mistake* ]] || { echo "error: --mistake: no such flag" >&2; exit 2; }'
        program.write_text(f"#!/usr/bin/env bash\n{said}\n")
        program.chmod(0o755)

    def run(*words: str, gpus: int = 0, **environment: str) -> tuple[int, str]:
        known = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "GPUS": str(gpus), "PACKAGE": "mabe-behavior"}
        done = subprocess.run(
            ["bash", str(DOCKER / "entrypoint.sh"), *words],
            env={**known, "ACCELERATE_FILES": str(DOCKER / "accelerate"), **environment},
            capture_output=True, text=True,
        )  # fmt: skip
        return done.returncode, (done.stdout + done.stderr).strip()

    return run


@pytest.mark.parametrize("gpus", [0, 1])
def test_one_process_is_the_program_itself(enter: Any, gpus: int) -> None:
    assert enter("train", "--epochs", "5", gpus=gpus) == (0, "python -m mabe_behavior train --epochs 5")
    assert enter("train", gpus=gpus, NPROC="", NNODES="") == (0, "python -m mabe_behavior train")


@pytest.mark.parametrize("verb", ["evaluate", "--help", "demo"])
def test_other_verbs_are_one_process_everywhere(enter: Any, verb: str) -> None:
    assert enter(verb, gpus=4, NNODES="2", MASTER_ADDR="a") == (0, f"python -m mabe_behavior {verb}")


def test_several_processes_are_launched(enter: Any) -> None:
    status, said = enter("train", "a b", gpus=4)
    assert status == 0
    assert re.fullmatch(r"accelerate launch --config_file \S+/multi_gpu\.yaml --num_processes 4 "
                        r"--main_process_port 29500 --module mabe_behavior train a b", said)  # fmt: skip
    assert "/cpu.yaml --num_processes 2 " in enter("train", NPROC="2")[1]
    assert "/multi_gpu.yaml --num_processes 2 " in enter("train", gpus=4, NPROC="2")[1]
    assert enter("train", gpus=4, NPROC="1")[1].startswith("python ")
    assert "/fsdp.yaml " in enter("train", gpus=4, TOPOLOGY="fsdp")[1]


def test_several_machines_are_launched(enter: Any) -> None:
    _, said = enter("train", gpus=4, NNODES="2", NODE_RANK="1", MASTER_ADDR="first", MASTER_PORT="4000")
    assert "/multi_node.yaml --num_processes 8 " in said
    assert "--num_machines 2 --machine_rank 1 --main_process_ip first --main_process_port 4000 " in said
    assert "--num_processes 2 --num_machines 2 " in enter("train", NNODES="2", MASTER_ADDR="first")[1]


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"NPROC": "two"}, "NPROC=two: give a whole number"),
        ({"NPROC": "0"}, "NPROC=0: give a whole number from 1 to 1024"),
        ({"NNODES": "-1"}, "NNODES=-1: give a whole number"),
        ({"NNODES": "2"}, "MASTER_ADDR: NNODES=2 needs the name or address of machine 0"),
        ({"NNODES": "2", "NODE_RANK": "2"}, "NODE_RANK=2: the machines are numbered from 0 to 1"),
        ({"NPROC": "2", "TOPOLOGY": "../ring"}, "TOPOLOGY=../ring: there are cpu, multi_gpu, multi_node and fsdp"),
        ({"NPROC": "2", "TOPOLOGY": "single"}, "TOPOLOGY=single: there are cpu, multi_gpu, multi_node and fsdp"),
        ({"NPROC": "99999999999999999999"}, "NPROC=99999999999999999999: give a whole number from 1 to 1024"),
        ({"NPROC": "2", "MASTER_PORT": "99999"}, "MASTER_PORT=99999: give a whole number from 1 to 65535"),
    ],
)
def test_contradictions_are_one_line(enter: Any, environment: dict[str, str], complaint: str) -> None:
    status, said = enter("train", **environment)
    assert status == 2
    assert said.startswith(f"entrypoint: {complaint}")
    assert len(said.splitlines()) == 1


def test_mistake_in_the_flags_is_found_before_several_processes_start(enter: Any) -> None:
    status, said = enter("train", "--mistake", NPROC="2")
    assert (status, said) == (2, "error: --mistake: no such flag")
    assert enter("train", "--help", NPROC="2") == (0, "python -m mabe_behavior train --help")


# launch files, with the real launcher


@pytest.mark.slow
def test_launch_files_start_what_they_say(tmp_path: Path) -> None:
    def launch(file: str, name: str, *flags: str) -> subprocess.Popen[str]:
        words = ["--config_file", str(DOCKER / "accelerate" / f"{file}.yaml"), *flags, "--module", "toy", "train"]
        program = Path(sys.executable).with_name("accelerate")
        return subprocess.Popen(
            [program, "launch", *words, "--batch-size", "16", "--name", name, *TOY.get(name, ())],
            env={**os.environ, "PYTHONPATH": str(ROOT / "shared" / "tests"), "OMP_NUM_THREADS": "1"},
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def end(process: subprocess.Popen[str], status: int = 0) -> str:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == status, said
        return said

    for name in ("single", "cpu", "multi_gpu", "fsdp"):
        end(launch(name, name, *(() if name == "single" else ("--main_process_port", "0"))))
    port = _free_port()
    meet = ("--main_process_ip", "127.0.0.1", "--main_process_port", str(port))
    for node in [launch("multi_node", "multi_node", "--machine_rank", str(rank), *meet) for rank in (0, 1)]:
        end(node)
    assert "contradicts runtime.fsdp=false" in end(launch("fsdp", "not-sharded", "--main_process_port", "0"), 1)

    runs = tmp_path / "runs" / "toy-package"
    processes = {
        path.stem: json.loads((runs / path.stem / "run.json").read_text())["processes"] for path in LAUNCH_FILES
    }
    assert processes == {"single": 1, "cpu": 2, "multi_gpu": 2, "fsdp": 2, "multi_node": 2}
    losses = {name: (runs / name / "metrics.jsonl").read_text().splitlines()[-1] for name in ("cpu", "multi_node")}
    assert len({json.loads(line)["val/loss"] for line in losses.values()}) == 1


TOY = {"fsdp": ("--runtime.fsdp", "true")}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
