"""A run as a batch job of SLURM: one script, which asks for its machines, runs, and is queued again when preempted.

Two minutes before its time is over SLURM sends the script SIGUSR1; the script asks the run for a checkpoint, waits for
it, and puts the job back into the queue. Taken away or cancelled, the run gets SIGTERM from SLURM itself, which is why
the script has another signal for the time: a second SIGTERM would end the run without its checkpoint. Checked with
stand-ins for sbatch, srun and scontrol that run everything on one machine, not yet on a cluster.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from shared_core import files
from shared_core.errors import UserError
from shared_core.launch.plan import GRACE, WORKSPACE, LaunchPlan


def render(plan: LaunchPlan) -> str:
    """The batch script."""
    return "\n".join(["#!/usr/bin/env bash", *_directives(plan), "", *_body(plan)])


def submit(plan: LaunchPlan) -> int:
    """Give the script to sbatch.

    Raises UserError: there is no sbatch here, or it refuses.
    """
    if shutil.which("sbatch") is None:
        raise UserError(
            "--on slurm: there is no sbatch here; run this on a login node, or print the script with --dry-run"
        )
    folder = _home(plan)
    try:
        folder.mkdir(parents=True, exist_ok=True)  # SLURM does not make the folder of --output, and then the job fails
    except OSError as error:
        raise files.explain(error, folder) from error
    done = subprocess.run(["sbatch"], input=render(plan), text=True, capture_output=True)
    sys.stderr.write(done.stderr)
    if done.returncode:
        raise UserError(f"--on slurm: sbatch refused the script (status {done.returncode}); see its message above")
    print(done.stdout.strip())
    print(f"output: {folder}/slurm-JOB.log; to see it in the queue: squeue --me; to stop it: scancel JOB")
    return 0


def _home(plan: LaunchPlan) -> Path:
    return plan.inner.runs / plan.inner.package


def _directives(plan: LaunchPlan) -> list[str]:
    name = re.sub(r"[^\w.-]", "-", f"{plan.inner.command}-{plan.inner.name}")
    lines = [f"--job-name={name}", f"--nodes={plan.nodes}", "--ntasks-per-node=1"]
    if plan.gpus:
        lines.append(f"--gpus-per-node={plan.gpu + ':' if plan.gpu else ''}{plan.gpus}")
    if plan.timeout:
        lines.append(f"--time={_clock(plan.timeout)}")
    if plan.memory:
        lines.append(f"--mem={plan.memory}M")
    # an attempt writes on where the one before it ended
    lines += [f"--output={_home(plan)}/slurm-%j.log", "--open-mode=append"]
    lines += [f"--signal=B:USR1@{GRACE}", "--requeue" if plan.restarts else "--no-requeue"]
    return [f"#SBATCH {line}" for line in [*lines, *(f"--{option}" for option in plan.scheduler)]]


def _body(plan: LaunchPlan) -> list[str]:
    again = shlex.join(["-m", "shared_core.launch.restart", str(plan.inner.runs), plan.inner.package, plan.inner.name])
    python = "python" if plan.image else shlex.quote(plan.python)
    exports = [f"export {name}={value}" for name, value in plan.environment.items()]
    if plan.secret:
        exports.append(f"export HF_TOKEN_PATH={shlex.quote(os.path.abspath(os.path.expanduser(plan.secret)))}")
    if plan.nodes > 1:
        exports += [
            'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            "export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))",
        ]
    return [
        "set -uo pipefail",
        *exports,
        "since=$(date +%s)",
        f"srun --kill-on-bad-exit=0 {_container(plan)}{_task(plan, python)} &",
        "step=$!",
        "trap 'kill -TERM \"$step\"' USR1  # srun hands it on to the tasks",
        "trap : TERM  # which the tasks get as well",
        'wait "$step"; status=$?',
        "# a signal ends `wait` early",
        'while kill -0 "$step" 2>/dev/null; do wait "$step"; status=$?; done',
        *(_requeue(plan, f"srun --nodes=1 --ntasks=1 {_container(plan)}{python} {again}") if plan.restarts else []),
        'exit "$status"',
        "",
    ]


def _requeue(plan: LaunchPlan, again: str) -> list[str]:
    return [
        f"if ((status != 0 && ${{SLURM_RESTART_COUNT:-0}} < {plan.restarts})) &&",
        f'    why=$({again} "$since" "$status"); then',
        '    echo "$why: back into the queue, to go on from the last checkpoint"',
        '    scontrol requeue "$SLURM_JOB_ID"',
        "fi",
    ]


def _task(plan: LaunchPlan, python: str) -> str:
    """What each node runs: the package itself, or torchrun for several processes."""
    words = shlex.join(["-m", plan.inner.module, *plan.inner.words()])
    if plan.nodes * plan.processes == 1:
        return f"{python} {words}"
    if plan.nodes == 1:
        return f"{python} -m torch.distributed.run --standalone --nproc-per-node {plan.processes} {words}"
    torchrun = (
        f"exec {python} -m torch.distributed.run --nnodes {plan.nodes} --nproc-per-node {plan.processes} "
        '--rdzv-backend c10d --rdzv-endpoint "$MASTER_ADDR:$MASTER_PORT" '
        '--rdzv-id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" '
        f'--rdzv-conf "is_host=$((SLURM_NODEID == 0))" {words}'
    )
    return f"bash -c {shlex.quote(torchrun)}"  # SLURM_NODEID differs from task to task


def _container(plan: LaunchPlan) -> str:
    """Options of pyxis, SLURM's plugin for images: this folder is the image's working folder."""
    if not plan.image:
        return ""
    token = ',"$HF_TOKEN_PATH:$HF_TOKEN_PATH"' if plan.secret else ""
    mounts = f'"$PWD:{WORKSPACE}"{token}'
    return f"--container-image={shlex.quote(plan.image)} --container-mounts={mounts} --container-workdir={WORKSPACE} "


def _clock(number: int) -> str:
    """Seconds as SLURM writes them: D-HH:MM:SS."""
    days, rest = divmod(number, 86_400)
    return f"{days}-{rest // 3600:02}:{rest % 3600 // 60:02}:{rest % 60:02}"
