"""The app that runs on Modal.

    modal run -m shared_core.launch.modal_app::train --help
    modal run --detach -m shared_core.launch.modal_app::train --package pair-compare-stacking --preset course --gpu A10

`COMMAND launch --on modal` writes such a line. What a container is like has to be known when the app is built, which is
on importing this module, before `modal run` has looked at the options: so they are read from the command line here, and
a wrong one ends it before anything is sent. In the container the module is imported again; nothing of the plan is
needed there, but the function must have as many secrets as it was built with.
"""

from __future__ import annotations

import argparse
import atexit
import inspect
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import modal

from shared_core import runs as run_folders
from shared_core.errors import UserError
from shared_core.launch import modal_image, modal_run
from shared_core.launch.modal_call import APP as MODULE
from shared_core.launch.modal_call import app_name
from shared_core.launch.options import mebibytes, seconds
from shared_core.launch.plan import GRACE, VOLUME, WORKSPACE, Inner, LaunchPlan, modal_gpu, read_config

Gpu = Literal[
    "none", "T4", "L4", "A10", "A10G", "L40S", "A100", "A100-40GB", "A100-80GB", "RTX-PRO-6000",
    "H100", "H100!", "H200", "B200", "B200+",
]  # fmt: skip
Count = Literal[1, 2, 3, 4, 5, 6, 7, 8]
_SECRET = "LAUNCH_SECRET"  # tells the container whether the function has a secret, and which


def train(
    package: str,
    command: str = "train",
    preset: str = "",
    config_file: str = "",
    name: str = "default",
    runs: str = "runs",
    gpu: Gpu = "A10",
    gpus: Count = 1,
    timeout: str = "4h",
    memory: str = "",
    restarts: int = 3,
    volume: str = VOLUME,
    secret: str = "",
    image: str = "",
    wait: bool = True,
) -> None:
    """Run a verb of a package in a container; with --no-wait (and `modal run --detach`) leave it running."""
    if PLAN is None:
        raise UserError(f"--package: call this as `modal run -m {MODULE}::train --package NAME`")
    inner = PLAN.inner
    file = inner.config_file
    words = inner.words(modal_run.CONFIG / file.name if file else None)
    run = str(inner.runs / inner.package / inner.name)
    config = {file.name: read_config(file)} if file else {}
    seconds = PLAN.timeout or 0
    seconds -= min(GRACE, seconds // 2)
    if wait:
        raise SystemExit(in_container.remote(words, inner.module, run, PLAN.processes, config, seconds))
    call = in_container.spawn(words, inner.module, run, PLAN.processes, config, seconds)
    print(f"left running as {call.object_id}")


OPTIONS = inspect.signature(train).parameters


def parse(words: Sequence[str]) -> LaunchPlan | None:
    """The plan in the words of a `modal run` of this module; None where they are none (--help, another program).

    Raises UserError: it is not one that Modal could carry out.
    """
    at = next((i for i, word in enumerate(words) if word.partition("::")[0] == MODULE), None)
    if at is None or "--help" in words[at:]:
        return None
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option in OPTIONS.values():
        flag, default = f"--{option.name.replace('_', '-')}", option.default
        if isinstance(default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default)
        elif default is option.empty:
            parser.add_argument(flag)
        else:
            parser.add_argument(flag, type=type(default), default=default)
    try:
        given, unknown = parser.parse_known_args(list(words[at + 1 :]))
    except argparse.ArgumentError as error:
        raise UserError(f"{error.argument_name}: {error.message}") from error
    if unknown:
        raise UserError(f"{unknown[0]}: no such option of {MODULE}::train; see its --help")
    return None if given.package is None else plan(given)  # Modal says itself that an option is missing


def plan(given: argparse.Namespace) -> LaunchPlan:
    """The plan that `train`'s options ask for."""
    verb, *flags = shlex.split(given.command) or [""]
    inner = Inner(
        command=given.package,
        package=given.package,
        module=given.package.replace("-", "_"),
        verb=verb,
        flags=tuple(flags),
        preset=given.preset or None,
        config_file=Path(given.config_file) if given.config_file else None,
        name=given.name,
        runs=Path(given.runs),
        data=Path("data"),
    )
    if inner.config_file:
        read_config(inner.config_file)
    is_cpu = given.gpu == "none"
    return LaunchPlan(
        on="modal",
        inner=inner,
        gpus=0 if is_cpu else given.gpus,
        gpu=None if is_cpu else given.gpu,
        timeout=seconds(given.timeout),
        memory=mebibytes(given.memory) if given.memory else None,
        restarts=given.restarts,
        image=given.image or None,
        volume=given.volume,
        secret=given.secret or None,
    )


def build_image(plan: LaunchPlan) -> modal.Image:
    """The image of a registry, or one that Modal builds from docker/Dockerfile."""
    if plan.image:
        return modal.Image.from_registry(plan.image).dockerfile_commands(["USER root", "ENTRYPOINT []"])
    root = modal_image.repository()
    folder = tempfile.mkdtemp(prefix="launch-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = Path(folder) / "Dockerfile"
    file.write_text(modal_image.dockerfile(root, plan.inner.package))
    arguments = {"PACKAGE": plan.inner.package, "REVISION": run_folders.commit(root) or "unknown"}
    return modal.Image.from_dockerfile(
        file, context_dir=root, build_args=arguments, ignore=modal.FilePatternMatcher.from_file(root / ".dockerignore")
    )


def _of_this_process() -> tuple[LaunchPlan | None, modal.Image | None]:
    """The plan and the image that the command line asks for; a wrong one ends the process."""
    try:
        found = parse(sys.argv) if modal.is_local() else None
        return found, build_image(found) if found else None
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


PLAN, IMAGE = _of_this_process()
SECRET = (PLAN.secret if PLAN else os.environ.get(_SECRET)) or ""
STORE = modal.Volume.from_name(PLAN.volume if PLAN and PLAN.volume else VOLUME, create_if_missing=True)
app = modal.App(app_name(PLAN.inner.package) if PLAN else "training", include_source=False)


@app.function(
    image=IMAGE or modal.Image.debian_slim(),
    gpu=f"{modal_gpu(PLAN.gpu)}:{PLAN.gpus}" if PLAN and PLAN.gpu else None,
    timeout=PLAN.timeout or 300 if PLAN else 300,
    memory=PLAN.memory if PLAN else None,
    retries=modal.Retries(max_retries=PLAN.restarts if PLAN else 0, initial_delay=10.0, backoff_coefficient=1.0),
    volumes={str(WORKSPACE): STORE},
    secrets=[modal.Secret.from_name(SECRET)] if SECRET else [],
    env={_SECRET: SECRET},
    max_containers=1,
)
def in_container(words: list[str], module: str, run: str, processes: int, config: dict[str, str], seconds: int) -> int:
    """The run itself; its exit status. Raises `modal_run.InterruptedRunError`, upon which Modal starts it again."""
    return modal_run.start(words, module, Path(run), processes, config, seconds, STORE.commit)


train = app.local_entrypoint()(train)
