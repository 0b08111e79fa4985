"""A run as a TrainJob of Kubeflow Trainer: one manifest, applied by kubectl.

Written for the API `trainer.kubeflow.org/v1alpha1` as Kubeflow Trainer v2.2 to v2.4 have it (runtimePatches; v2.0 and
v2.1 had podTemplateOverrides in their place) and the runtime `torch-distributed` that comes with it. The manifest is
checked against the fields of that version's definition, not on a cluster.

The runtime's Job starts a failed pod again, up to six times; a preempted run then goes on from its last checkpoint.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import PurePosixPath
from typing import Any

from shared_core import yamlfile
from shared_core.errors import UserError
from shared_core.launch.plan import WORKSPACE, LaunchPlan, read_config

API = "trainer.kubeflow.org/v1alpha1"
RUNTIME = "torch-distributed"
MANAGER = "shared-core/launch"  # who wrote this patch of the runtime
CONFIG = PurePosixPath("/config")
TOKEN = PurePosixPath("/run/secrets/hub")
_NODE = "node"  # the job, and the container in it, that the runtime trains in
_LONGEST = 40  # the names of pods are made from the job's, and end at 63


def render(plan: LaunchPlan) -> str:
    """The manifests, as YAML documents."""
    return "---\n".join(yamlfile.dump(document) for document in manifests(plan))


def submit(plan: LaunchPlan) -> int:
    """Give the manifests to kubectl.

    Raises UserError: there is no kubectl here, or it refuses.
    """
    if shutil.which("kubectl") is None:
        raise UserError(
            "--on kubernetes: there is no kubectl on this machine; install it, or print the manifest with --dry-run"
        )
    done = subprocess.run(["kubectl", "apply", "-f", "-"], input=render(plan), text=True)
    if done.returncode:
        raise UserError(
            f"--on kubernetes: kubectl refused the manifest (status {done.returncode}); see its message above"
        )
    name, space = job_name(plan), f" -n {plan.namespace}" if plan.namespace else ""
    print(f"output: kubectl logs{space} -f -l jobset.sigs.k8s.io/jobset-name={name}")
    print(f"state: kubectl get trainjob {name}{space}; to stop it: kubectl delete trainjob {name}{space}")
    return 0


def job_name(plan: LaunchPlan) -> str:
    """Name of the job: letters, digits and dashes of the command's and the run's."""
    name = re.sub(r"[^a-z0-9]+", "-", f"{plan.inner.command}-{plan.inner.name}".lower()).strip("-")
    return re.sub(r"^[^a-z]+", "", name)[:_LONGEST].rstrip("-") or "run"


def manifests(plan: LaunchPlan) -> list[dict[str, Any]]:
    """A ConfigMap, where the configuration is a file of this machine, and the TrainJob."""
    metadata = {"name": job_name(plan), **({"namespace": plan.namespace} if plan.namespace else {})}
    found: list[dict[str, Any]] = []
    if file := plan.inner.config_file:
        config = {**metadata, "name": f"{metadata['name']}-config"}
        data = {file.name: read_config(file)}
        found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": config, "data": data})
    spec: dict[str, Any] = {"runtimeRef": {"name": RUNTIME}, "trainer": _trainer(plan)}
    if plan.timeout:
        spec["activeDeadlineSeconds"] = plan.timeout
    replicated = [{"name": _NODE, "template": {"spec": {"template": {"spec": _pod(plan, metadata["name"])}}}}]
    patch = {"template": {"spec": {"replicatedJobs": replicated}}}
    spec["runtimePatches"] = [{"manager": MANAGER, "trainingRuntimeSpec": patch}]
    labels = {"training.package": plan.inner.package}
    return [*found, {"apiVersion": API, "kind": "TrainJob", "metadata": {**metadata, "labels": labels}, "spec": spec}]


def _trainer(plan: LaunchPlan) -> dict[str, Any]:
    file = plan.inner.config_file
    words = ["-m", plan.inner.module, *plan.inner.words(CONFIG / file.name if file else None)]
    # torchrun reads where the others are from the PET_* variables that the runtime sets
    program = ["torchrun"] if plan.nodes * plan.processes > 1 else ["python"]
    environment = dict(plan.environment)
    if plan.secret:
        environment["HF_TOKEN_PATH"] = str(TOKEN / "token")
    amounts = {"nvidia.com/gpu": plan.gpus} if plan.gpus else {}
    resources: dict[str, Any] = {**amounts, **({"memory": f"{plan.memory}Mi"} if plan.memory else {})}
    return {
        "image": plan.image,
        "command": program,  # instead of the image's entrypoint, which is for machines without such a runtime
        "args": words,
        "numNodes": plan.nodes,
        "numProcPerNode": plan.processes,
        **({"env": [{"name": name, "value": value} for name, value in environment.items()]} if environment else {}),
        **({"resourcesPerNode": {"requests": resources, "limits": resources}} if resources else {}),
    }


def _pod(plan: LaunchPlan, name: str) -> dict[str, Any]:
    """What pods have beyond the runtime's: the folders, shared memory for loaders, the token, the kind of GPU."""
    volumes: list[dict[str, Any]] = [
        {"name": "workspace", "persistentVolumeClaim": {"claimName": plan.volume}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "workspace", "mountPath": str(WORKSPACE)},
        {"name": "shared-memory", "mountPath": "/dev/shm"},
    ]
    if plan.inner.config_file:
        volumes.append({"name": "config", "configMap": {"name": f"{name}-config"}})
        mounts.append({"name": "config", "mountPath": str(CONFIG), "readOnly": True})
    if plan.secret:
        volumes.append({"name": "hub-token", "secret": {"secretName": plan.secret}})
        mounts.append({"name": "hub-token", "mountPath": str(TOKEN), "readOnly": True})
    return {
        "volumes": volumes,
        "containers": [{"name": _NODE, "volumeMounts": mounts}],
        # the image's user; the group makes the volume writable for it
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000},
        **({"nodeSelector": {"nvidia.com/gpu.product": plan.gpu}} if plan.gpu else {}),
    }
