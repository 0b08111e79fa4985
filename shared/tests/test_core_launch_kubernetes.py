"""`launch --on kubernetes`: the manifest, compared with what Kubeflow Trainer's definition of a TrainJob knows."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import toy
import yaml

from shared_core.errors import UserError

ANY: dict[str, Any] = {}  # Kubernetes' own types, or a mapping of texts
ENV = [{"name": str, "value": str}]
POD = {
    "serviceAccountName": str,
    "volumes": [{"name": str, "persistentVolumeClaim": ANY, "configMap": ANY, "secret": ANY, "emptyDir": ANY}],
    "containers": [
        {"name": str, "volumeMounts": [{"name": str, "mountPath": str, "readOnly": bool}], "securityContext": ANY}
    ],
    "securityContext": {"runAsUser": int, "runAsGroup": int, "fsGroup": int},
    "nodeSelector": ANY,
    "tolerations": [ANY],
}
JOBS = [{"name": str, "template": {"metadata": ANY, "spec": {"template": {"metadata": ANY, "spec": POD}}}}]
# trainer.kubeflow.org/v1alpha1 of Kubeflow Trainer v2.2 to v2.4, as far as a user writes it
TRAIN_JOB = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str, "namespace": str, "labels": ANY},
    "spec": {
        "runtimeRef": {"name": str, "apiGroup": str, "kind": str},
        "trainer": {
            "image": str,
            "command": [str],
            "args": [str],
            "env": ENV,
            "numNodes": int,
            "numProcPerNode": int,
            "resourcesPerNode": {"requests": ANY, "limits": ANY},
        },
        "runtimePatches": [
            {"manager": str, "trainingRuntimeSpec": {"template": {"metadata": ANY, "spec": {"replicatedJobs": JOBS}}}}
        ],
        "suspend": bool,
        "activeDeadlineSeconds": int,
        "managedBy": str,
    },
}


def misfits(value: Any, schema: Any, at: str = "") -> list[str]:
    """Where a value has other types or keys than a schema."""
    if schema is ANY:
        return [] if isinstance(value, dict) else [f"{at}: {value!r}"]
    if isinstance(schema, type):
        return [] if type(value) is schema else [f"{at}: {value!r}"]
    if isinstance(schema, list):
        if not isinstance(value, list):
            return [f"{at}: {value!r}"]
        return [line for i, item in enumerate(value) for line in misfits(item, schema[0], f"{at}[{i}]")]
    if not isinstance(value, dict):
        return [f"{at}: {value!r}"]
    unknown = [f"{at}.{key}" for key in value.keys() - schema.keys()]
    return unknown + [
        line for key in value.keys() & schema.keys() for line in misfits(value[key], schema[key], f"{at}.{key}")
    ]


def manifests(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert toy.APP.run(["launch", "--on", "kubernetes", "--dry-run", *words]) == 0
    return list(yaml.safe_load_all(capsys.readouterr().out))


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--gpus", "0", "--verb", "evaluate"],
        ["--nodes", "2", "--gpus", "4", "--gpu", "NVIDIA-A100-SXM4-80GB", "--timeout", "4h", "--memory", "64G"],
        ["--secret", "hub", "--namespace", "ml", "--volume", "big", "--image", "registry.example.org/toy:1"],
        ["--name", "on", "--config", "mine.yaml"],
    ],
    ids=str,
)
def test_manifest_has_only_fields_that_exist(words: list[str], capsys: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("training:\n  epochs: 3\n")
    *others, job = manifests(capsys, *words)
    assert (job["apiVersion"], job["kind"]) == ("trainer.kubeflow.org/v1alpha1", "TrainJob")
    assert misfits(job, TRAIN_JOB) == []
    [patch] = job["spec"]["runtimePatches"]
    [replicated] = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = replicated["template"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert (replicated["name"], container["name"]) == ("node", "node"), "the names that the runtime has"
    assert "env" not in container, "refused there: it belongs to the trainer"
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert [other["kind"] for other in others] == (["ConfigMap"] if "--config" in words else [])


def test_check_of_fields_finds_strangers() -> None:
    job = {"apiVersion": "v1", "spec": {"trainer": {"image": 3, "restarts": 2}, "podTemplateOverrides": []}}
    assert sorted(misfits(job, TRAIN_JOB)) == [
        ".spec.podTemplateOverrides",
        ".spec.trainer.image: 3",
        ".spec.trainer.restarts",
    ]


def test_one_process_is_the_package_and_several_are_torchruns(capsys: pytest.CaptureFixture[str]) -> None:
    [one], [two] = manifests(capsys, "--lr", "0.1"), manifests(capsys, "--nodes", "2", "--lr", "0.1")
    assert one["spec"]["trainer"]["command"] == ["python"]
    assert two["spec"]["trainer"]["command"] == ["torchrun"]
    assert one["spec"]["trainer"]["args"] == ["-m", "toy", "train", "--optimizer.lr", "0.1"]
    assert one["spec"]["trainer"]["resourcesPerNode"]["limits"] == {"nvidia.com/gpu": 1}
    assert one["spec"]["trainer"]["image"] == "toy-package:latest"


def test_configuration_file_travels_along(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("# ümlaut\ntraining:\n  epochs: 3\n")
    config, job = manifests(capsys, "--config", str(file))
    assert config["data"] == {"mine.yaml": file.read_text()}
    assert job["spec"]["trainer"]["args"][3:] == ["--config", "/config/mine.yaml"]
    assert str(tmp_path) not in yaml.dump(job), "the path of a file that is not there"
    assert job["metadata"]["name"] == "toy-mine", "named as it would be here"


@pytest.mark.parametrize("name", ["9_Läufe", "A" * 80, "x.-_", "日本"])
def test_names_are_names_of_kubernetes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    [job] = manifests(capsys, "--name", name)
    assert len(job["metadata"]["name"]) <= 50
    assert job["metadata"]["name"].replace("-", "").isalnum()
    assert job["metadata"]["name"].isascii()
    assert not job["metadata"]["name"].endswith("-")


def test_kubectl_gets_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    fake = tmp_path / "kubectl"
    fake.write_text(f'#!/bin/sh\n[ "$*" = "apply -f -" ] && cat > {tmp_path}/applied\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert toy.APP.run(["launch", "--on", "kubernetes", "--namespace", "ml"]) == 0
    assert "kubectl delete trainjob toy-default -n ml" in capsys.readouterr().out
    assert list(yaml.safe_load_all((tmp_path / "applied").read_text())) == manifests(capsys, "--namespace", "ml")
    fake.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(UserError, match="kubectl refused"):
        toy.APP.run(["launch", "--on", "kubernetes"])
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="--dry-run"):
        toy.APP.run(["launch", "--on", "kubernetes"])


def test_launch_imports_no_client_at_start() -> None:
    code = (
        "import sys, shared_core.launch.verb, shared_core.launch.options; print({'modal', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
