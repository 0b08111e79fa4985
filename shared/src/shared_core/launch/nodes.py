"""A run over several machines that somebody starts by hand: the same command on each, joined by torchrun's rendezvous.

All machines need the same folders: each process writes its part of a checkpoint.
"""

from __future__ import annotations

from dataclasses import replace

from shared_core.errors import UserError
from shared_core.launch import local
from shared_core.launch.plan import LaunchPlan, shown

PORT = 29500


def command(plan: LaunchPlan) -> list[str]:
    """What runs on node `plan.node_rank`."""
    if plan.node_rank is None:
        raise UserError(
            f"--node-rank: say which of the {plan.nodes} nodes this is, from 0; --dry-run prints the command of each"
        )
    host, _, port = (plan.rendezvous or "localhost").partition(":")
    torchrun = [plan.python, "-m", "torch.distributed.run", "--nnodes", str(plan.nodes)]
    torchrun += ["--nproc-per-node", str(plan.processes), "--rdzv-backend", "c10d"]
    torchrun += ["--rdzv-endpoint", f"{host}:{port or PORT}", "--rdzv-id", plan.inner.name]
    # said, not guessed from the names of this machine: node 0 keeps the meeting place
    torchrun += ["--rdzv-conf", f"is_host={int(plan.node_rank == 0)}"]
    return local.watched(plan, [*torchrun, "-m", plan.inner.module, *plan.inner.words()])


def render(plan: LaunchPlan) -> str:
    """The command of this node, or of every node where none is named."""
    ranks = range(plan.nodes) if plan.node_rank is None else [plan.node_rank]
    lines = []
    for rank in ranks:
        on_node = replace(plan, node_rank=rank)
        output = f", output in {local.log_file(on_node)}" if plan.detach else ""
        lines += [f"# on node {rank}{output}", shown(command(on_node), plan.environment)]
    return "\n".join(lines)


def submit(plan: LaunchPlan) -> int:
    """Run this node's part; its exit status (torchrun's is 1 also for a preempted run, whose status.json says so)."""
    return local.start(plan, command(plan))
