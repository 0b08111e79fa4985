"""The flags of `launch`, and how lengths of time and amounts of memory are written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field

from shared_core.errors import UserError
from shared_core.settings import Section

Target = Literal["local", "nodes", "slurm", "kubernetes", "modal"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MEBIBYTES = {"": 1, "m": 1, "mi": 1, "mib": 1, "mb": 1, "g": 1024, "gi": 1024, "gib": 1024, "gb": 1024}


class Options(Section):
    """Where, on what and for how long."""

    on: Target = Field(description="where to run")
    verb: str = Field("train", description="what to run there")
    arguments: str = Field("", description="the verb's own flags, in one word: --arguments='--sample' for prepare")
    dry_run: bool = Field(False, description="print what would run, and do nothing")
    nodes: int | None = Field(None, description="machines; default: 1")
    gpus: int | None = Field(None, description="GPUs, and so processes, per machine; 0: one on its CPU; default: 1")
    gpu: str | None = Field(
        None, description="kind of GPU, as the place calls it: A10G on modal, a100 on slurm, a label on kubernetes"
    )
    timeout: str | None = Field(
        None, description="longest time, such as 90m, 4h or 1h30m; of each attempt on modal and slurm; modal: 4h"
    )
    memory: str | None = Field(None, description="main memory per machine, such as 16G")
    budget: float | None = Field(None, description="most that it may cost; shortens --timeout; needs --price-per-hour")
    price_per_hour: float | None = Field(
        None, description="what you pay for one GPU (or CPU machine) and hour, in the budget's currency"
    )
    restarts: int | None = Field(
        None, description="times that a preempted or killed run is started again; default: 3 on modal and slurm, else 0"
    )
    detach: bool = Field(False, description="return at once and leave it running")
    image: str | None = Field(
        None, description="container image; default: PACKAGE:latest on kubernetes, docker/Dockerfile on modal"
    )
    volume: str | None = Field(
        None, description="modal's volume or a Kubernetes claim, with data/ and runs/ in it; default: training-data"
    )
    secret: str | None = Field(
        None, description="token for the Hub: name of a secret on modal or kubernetes, path of a file on slurm"
    )
    node_rank: int | None = Field(None, description="nodes: which of them this is, from 0")
    rendezvous: str | None = Field(None, description="nodes: HOST[:PORT] of node 0, as all reach it")
    scheduler: tuple[str, ...] = Field((), description="slurm: more options of sbatch, such as partition=gpu")
    namespace: str | None = Field(None, description="kubernetes: namespace; default: kubectl's")
    checkpoints: bool = Field(False, description="modal: only list the run's checkpoints on the volume")
    download: str | None = Field(None, description="modal: only fetch a checkpoint (best, latest or step-N), verified")
    out: Path | None = Field(None, description="where --download puts it; default: the run's folder here")


def seconds(text: str) -> int:
    """`90`, `90s`, `15m`, `4h`, `1h30m`, `2d` as seconds.

    Raises UserError: it is none of these.
    """
    if not re.fullmatch(r"\d+|(\d+d)?(\d+h)?(\d+m)?(\d+s)?", text.lower()) or not text:
        raise UserError(f"--timeout: {text!r} is no length of time; write 90m, 4h, 1h30m or a number of seconds")
    return sum(int(n) * _UNITS[unit or "s"] for n, unit in re.findall(r"(\d+)([smhd]?)", text.lower()))


def mebibytes(text: str) -> int:
    """`16G`, `16GiB` or `16384` (MiB) as MiB.

    Raises UserError: it is none of these.
    """
    match = re.fullmatch(r"(\d+)\s*([a-z]*)", text.lower())
    if not match or match[2] not in _MEBIBYTES:
        raise UserError(f"--memory: {text!r} is no amount of memory; write 16G, or a number of MiB")
    return int(match[1]) * _MEBIBYTES[match[2]]


def duration(number: int) -> str:
    """Seconds for people: `4h`, `1h30m`, `90s`."""
    if number < 120:
        return f"{number}s"
    hours, rest = divmod(number, 3600)
    minutes, left = divmod(rest, 60)
    return "".join(f"{n}{unit}" for n, unit in ((hours, "h"), (minutes, "m"), (left, "s")) if n)
