"""A run on Modal: one `modal run` of the app in `modal_app`, which gets the plan as its options.

Nobody has had an account for it yet: what is checked is that the app builds, that its options are refused by us where
Modal would not take them, and what is sent of the repository; not that Modal carries it out.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

from shared_core.errors import UserError
from shared_core.launch.plan import LaunchPlan, modal_gpu, shown

APP = "shared_core.launch.modal_app"
# the oldest of Modal's ways to build an image that installs nothing of its own into it
ENVIRONMENT = {"MODAL_IMAGE_BUILDER_VERSION": "2025.06"}


def command(plan: LaunchPlan) -> list[str]:
    """The call of Modal's command line."""
    inner = plan.inner
    words = [plan.python, "-m", "modal", "run", *(["--detach"] if plan.detach else []), "-m", f"{APP}::train"]
    words += ["--package", inner.package, "--command", shown([inner.verb, *inner.flags])]
    if inner.preset or inner.config_file:
        words += ["--config-file", str(inner.config_file)] if inner.config_file else ["--preset", str(inner.preset)]
    words += ["--name", inner.name, "--runs", str(inner.runs)]
    words += ["--gpu", modal_gpu(plan.gpu), "--gpus", str(plan.gpus)] if plan.gpu else ["--gpu", "none"]
    words += ["--timeout", str(plan.timeout), "--restarts", str(plan.restarts), "--volume", str(plan.volume)]
    for flag, value in (("--memory", plan.memory), ("--secret", plan.secret), ("--image", plan.image)):
        words += [flag, str(value)] if value is not None else []
    return [*words, "--no-wait"] if plan.detach else words


def render(plan: LaunchPlan) -> str:
    """The call as --dry-run prints it."""
    return shown(command(plan), ENVIRONMENT)


def submit(plan: LaunchPlan) -> int:
    """Call Modal; its exit status.

    Raises UserError: Modal's library is not installed.
    """
    require_library()
    if plan.image is None:
        from shared_core.launch import modal_image

        modal_image.dockerfile(modal_image.repository(), plan.inner.package)
    sys.stdout.flush()
    status = subprocess.run(command(plan), env={**os.environ, **ENVIRONMENT}).returncode
    if status == 0 and plan.detach:
        name = app_name(plan.inner.package)
        print(f"output: modal app logs {name}; state: modal app list; to stop it: modal app stop {name}")
        print(f"checkpoints: {plan.inner.command} launch --on modal --checkpoints --name {plan.inner.name}")
    return status


def app_name(package: str) -> str:
    """What the app of a package is called on Modal."""
    return f"{package}-training"


def require_library() -> None:
    """Raises UserError where Modal's library is not installed."""
    if importlib.util.find_spec("modal") is None:
        raise UserError(
            "--on modal: its library is not installed; pip install 'shared-core[modal]', then `modal setup`"
        )
