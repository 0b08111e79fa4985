"""A run on this machine: in one process, or in several by torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from shared_core import files
from shared_core.errors import UserError
from shared_core.launch.plan import LaunchPlan, shown


def command(plan: LaunchPlan) -> list[str]:
    """What runs: the package itself in one process, so that SIGTERM reaches it, and torchrun for several."""
    words = plan.inner.words()
    if plan.processes == 1:
        return watched(plan, [plan.python, "-m", plan.inner.module, *words])
    several = ["--standalone", "--nproc-per-node", str(plan.processes), "-m", plan.inner.module]
    return watched(plan, [plan.python, "-m", "torch.distributed.run", *several, *words])


def render(plan: LaunchPlan) -> str:
    """The command as --dry-run prints it."""
    remark = [f"# in a session of its own, output in {log_file(plan)}"] if plan.detach else []
    return "\n".join([*remark, shown(command(plan), plan.environment)])


def submit(plan: LaunchPlan) -> int:
    """Run it; the exit status of the run."""
    return start(plan, command(plan))


def watched(plan: LaunchPlan, words: list[str]) -> list[str]:
    """`words` under `shared_core.launch.watch`, where there is something to watch for."""
    if not plan.restarts and not plan.timeout:
        return words
    run = plan.inner.runs / plan.inner.package / plan.inner.name
    limits = ["--restarts", str(plan.restarts)] if plan.restarts else []
    limits += ["--seconds", str(plan.timeout)] if plan.timeout else []
    return [plan.python, "-m", "shared_core.launch.watch", "--run", str(run), *limits, "--", *words]


def start(plan: LaunchPlan, words: list[str]) -> int:
    """Become `words`, or leave them running."""
    environment = {**os.environ, **plan.environment}
    if plan.detach:
        return _detach(words, environment, log_file(plan))
    sys.stdout.flush()
    os.execve(words[0], words, environment)


def log_file(plan: LaunchPlan) -> Path:
    """Where the output of a detached run goes."""
    node = f"-node{plan.node_rank}" if plan.node_rank is not None else ""
    return plan.inner.runs / plan.inner.package / f"{plan.inner.name}{node}.launch.log"


def _detach(words: list[str], environment: dict[str, str], log: Path) -> int:
    """Leave it running without a terminal; says how to look at it and how to stop it."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        output = log.open("ab")
    except OSError as error:
        raise files.explain(error, log) from error
    with output:
        environment["PYTHONUNBUFFERED"] = "1"
        process = subprocess.Popen(
            words, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        if status := process.wait(timeout=1.0):  # long enough for a mistake in the command itself
            raise UserError(f"--detach: it ended at once with status {status}; see {log}")
    except subprocess.TimeoutExpired:
        pass
    print(f"running as process {process.pid}; output: {log}")
    print(f"to stop it with a checkpoint: kill -TERM {process.pid}")
    return 0
