"""Tiny images that play a package's, for tests: made of this machine's own shell, so that no registry is needed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

from shared_core import manifest
from shared_core.images import contents
from shared_core.images.engine import PACKAGE

NAME = f"smoke-test-{os.getpid()}"  # the package that the images play
_PROGRAMS = ("bash", "cat", "cp", "mkdir", "mv", "rm", "seq", "sleep", "touch", "id")
LAST_STEP = 12

ENTRYPOINT = r"""#!/bin/bash
# plays a package's entry point: --help, demo, train
verb=${1:-}
[ "$verb" = --help ] && { %(help)s; echo "usage: pretend VERB"; exit; }
run=runs/$PACKAGE/demo
while [ $# -gt 0 ]; do [ "$1" = --name ] && run=runs/$PACKAGE/$2; shift; done
checkpoints=$run/checkpoints
state() { echo "{\"state\": \"$1\"}" > $run/status.tmp; mv $run/status.tmp $run/status.json; }
finish() { cp -r /pretend/step-%(last)s $checkpoints; touch $run/report.html; state finished; }
mkdir -p $checkpoints || exit 1
if [ "$verb" = demo ]; then %(demo)s; echo "the demo's result"; finish; exit; fi
first=1; [ -d $checkpoints/step-6 ] && first=7
%(resume)s
trap '%(trap)s' TERM
state running
for step in $(seq $first %(last)s); do
    echo "{\"step\": $step, \"elapsed_s\": $SECONDS.$RANDOM}" >> $run/metrics.jsonl
    [ $step = 6 ] && sleep ${pause:-30} & wait
done
finish
"""
USUAL = {
    "help": ":", "demo": ":", "resume": ":", "last": str(LAST_STEP),
    "trap": "cp -r /pretend/step-6 $checkpoints; state preempted; exit 75",
}  # fmt: skip


def docker(*command: str, **more: object) -> str:
    return subprocess.run(["docker", *command], check=True, capture_output=True, text=True, **more).stdout.strip()  # type: ignore[call-overload]


def engine_or_skip(unproven: str) -> None:
    """Skip, saying what stays unproven, where no engine answers."""
    try:
        docker("info")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"no Docker engine answers `docker info`: NOT PROVEN: {unproven}")


def make_base(folder: Path) -> str:
    """An image of a shell and a few programs; returns its name."""
    for program in _PROGRAMS:
        path = shutil.which(program)
        if path is None:
            pytest.skip(f"{program} is not installed here: NOT PROVEN: that images are run and checked")
        _add(folder, Path(path), f"bin/{program}")
    shutil.copy(folder / "bin" / "bash", folder / "bin" / "sh")
    (folder / "bin" / "python").write_text("#!/bin/bash\necho No broken requirements found.\n")
    (folder / "bin" / "python").chmod(0o755)
    for name in ("tmp", "workspace/data", "workspace/runs", "pretend"):
        (folder / name).mkdir(parents=True)
        (folder / name).chmod(0o1777)
    for step in (6, LAST_STEP):
        _checkpoint(folder / "pretend" / f"step-{step}", step)
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        with tarfile.open(file.name, "w") as archive:
            archive.add(folder, ".")
        docker("import", file.name, f"{NAME}-base:latest")
    return f"{NAME}-base:latest"


def build(folder: Path, base: str, tag: str, more: str = "", user: str = "1000:1000", **script: str) -> str:
    """An image on the base: usual but for what `more` (lines of a Dockerfile), `user` or parts of the script change."""
    folder.mkdir(exist_ok=True)
    (folder / "entrypoint.sh").write_text(ENTRYPOINT % (USUAL | script))
    labels = "\n".join(f'LABEL {name}="{NAME if name == PACKAGE else "1"}"' for name in contents.LABELS)
    (folder / "Dockerfile").write_text(
        f"FROM {base}\nENV PATH=/bin PACKAGE={NAME}\nCOPY entrypoint.sh /entrypoint.sh\n{labels}\n{more}\n"
        f'WORKDIR /workspace\nUSER {user}\nENTRYPOINT ["bash", "/entrypoint.sh"]\n'
    )
    reference = f"{NAME}:{tag}"
    docker("build", "--quiet", "--tag", reference, str(folder))
    return reference


def forget() -> None:
    """Remove the images made here."""
    own = docker("images", "--quiet", "--filter", f"label={PACKAGE}={NAME}").splitlines()
    base = docker("images", "--quiet", f"{NAME}-base").splitlines()
    if own or base:
        docker("rmi", "--force", *dict.fromkeys(own + base))


def left_behind() -> list[str]:
    """Containers and volumes of the package played here that are still there."""
    containers = docker("ps", "--all", "--format", "{{.Image}} {{.Names}}").splitlines()
    volumes = docker("volume", "ls", "--format", "{{.Name}}").splitlines()
    return [name for name in [*containers, *volumes] if NAME in name]


def _add(folder: Path, program: Path, name: str) -> None:
    """A program and the libraries that it is linked to."""
    try:
        linked = subprocess.run(["ldd", str(program)], capture_output=True, text=True).stdout
    except OSError:
        pytest.skip("there is no ldd here: NOT PROVEN: that images are run and checked")
    for library in re.findall(r"(/\S+) \(0x", linked):
        target = folder / library.removeprefix("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy(library, target)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(program, folder / name)


def _checkpoint(folder: Path, step: int) -> None:
    folder.mkdir()
    header = json.dumps({"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes([step]))
    entries = {"model.safetensors": manifest.entry(folder / "model.safetensors")}
    manifest.write(folder, step, {"step": step, "best": False}, entries)
