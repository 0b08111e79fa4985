"""What runs, on what, and for how long: one validated plan for every place that a run may go to."""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from shared_core.errors import UserError
from shared_core.launch.options import Options, Target, duration, mebibytes, seconds
from shared_core.schema import did_you_mean

# GPUs of Modal and how many of one kind a container may have, as its guide on GPUs lists them (read in 2026; the number
# for RTX-PRO-6000 is not in it). The client sends whatever it is given, and the mistake comes back after the build.
MODAL_GPUS = {
    "T4": 8, "L4": 8, "A10": 4, "L40S": 8, "A100": 8, "A100-40GB": 8, "A100-80GB": 8, "RTX-PRO-6000": 8,
    "H100": 8, "H100!": 8, "H200": 8, "B200": 8, "B200+": 8,
}  # fmt: skip
_MODAL_NAMES = {"A10G": "A10"}  # Modal makes no difference between the two, and its list has the one name
MODAL_SECONDS = 24 * 3600
MODAL_MEBIBYTES = 2**20  # Modal has a limit that it does not publish; 1 TiB catches a slip of the unit (16384G)
VOLUME = "training-data"
WORKSPACE = PurePosixPath("/workspace")  # the image's working folder: data/ and runs/ lie in it
GRACE = 120  # seconds between SIGTERM and the end that a run has for its last checkpoint
# torchrun kills what has not ended so many seconds after SIGTERM; its own 30 may be too few for a checkpoint
SHUTDOWN = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(GRACE - 20)}

_ALWAYS = {"on", "verb", "arguments", "dry_run", "detach", "gpus", "timeout", "budget", "price_per_hour"}
_TAKES: dict[Target, set[str]] = {
    "local": {"restarts"},
    "nodes": {"nodes", "node_rank", "rendezvous", "restarts"},
    "slurm": {"nodes", "gpu", "image", "memory", "restarts", "scheduler", "secret"},
    "kubernetes": {"nodes", "gpu", "image", "memory", "volume", "secret", "namespace"},
    "modal": {"gpu", "image", "memory", "volume", "secret", "restarts", "checkpoints", "download", "out"},
}


@dataclass(frozen=True)
class Inner:
    """The command that is to run elsewhere."""

    command: str  # pair-compare
    package: str  # pair-compare-stacking
    module: str  # pair_compare_stacking
    verb: str
    flags: tuple[str, ...]  # as the verb takes them, without --config
    preset: str | None  # --config NAME
    config_file: Path | None  # or --config FILE
    name: str  # of the run
    runs: Path
    data: Path
    resume: str = "auto"

    def words(self, config_file: str | PurePosixPath | None = None) -> list[str]:
        """The verb and its flags; `config_file` is where the configuration's file will lie (as given, by default)."""
        source = self.preset or (str(config_file or self.config_file) if self.config_file else None)
        return [self.verb, *(["--config", source] if source else []), *self.flags]


@dataclass(frozen=True)
class LaunchPlan:
    """A run and its place. Whatever is wrong about it is a UserError on making it, all of it at once."""

    on: Target
    inner: Inner
    nodes: int = 1
    gpus: int = 1
    gpu: str | None = None
    timeout: int | None = None  # seconds
    memory: int | None = None  # MiB
    restarts: int = 0
    detach: bool = False
    image: str | None = None
    volume: str | None = None
    secret: str | None = None
    node_rank: int | None = None
    rendezvous: str | None = None
    scheduler: tuple[str, ...] = ()
    namespace: str | None = None
    price_per_hour: float | None = None
    python: str = sys.executable

    def __post_init__(self) -> None:
        problems = list(dict.fromkeys(self._problems()))
        if problems:
            raise UserError("\n".join(problems))

    @property
    def processes(self) -> int:
        """Processes per machine."""
        return max(1, self.gpus)

    @property
    def attempts(self) -> int:
        """How often the whole of `timeout` may be spent."""
        return self.restarts + 1 if self.on in ("modal", "slurm") else 1

    @property
    def worst_case(self) -> float | None:
        """Price of all GPUs for all of the time that it may take; None where nobody has said one of them."""
        if self.price_per_hour is None or self.timeout is None:
            return None
        return self.price_per_hour * self.processes * self.nodes * self.timeout / 3600 * self.attempts

    @property
    def environment(self) -> dict[str, str]:
        """What torchrun has to be told; nothing where it does not run."""
        return SHUTDOWN if self.nodes * self.processes > 1 else {}

    def _problems(self) -> Iterator[str]:
        if not 1 <= self.nodes <= 1024:
            yield f"--nodes: {self.nodes}; give a number from 1 to 1024"
        if self.on == "local" and self.nodes != 1:
            yield f"--nodes: {self.nodes}, but --on local is this machine; use --on nodes"
        if not 0 <= self.gpus <= 64:
            yield f"--gpus: {self.gpus}; give a number from 0 (CPU) to 64"
        if self.nodes * self.processes > 1 and self.inner.verb != "train":
            yield f"--verb {self.inner.verb}: works in one process; leave out --nodes and --gpus"
        if self.timeout is not None and self.timeout < 1:
            yield f"--timeout: {self.timeout}s; give at least a second"
        if self.memory is not None and self.memory < 128:
            yield f"--memory: {self.memory} MiB; give at least 128 (a number alone counts MiB)"
        if not 0 <= self.restarts <= 100:
            yield f"--restarts: {self.restarts}; give a number from 0 to 100"
        if self.restarts and self.inner.resume != "auto":
            yield (
                f"--restarts: goes with --resume auto; with --resume {self.inner.resume} each start would begin where "
                "the first began"
            )
        if self.price_per_hour is not None and not 0 < self.price_per_hour < math.inf:
            yield f"--price-per-hour: {self.price_per_hour:g}; give what one GPU costs for an hour"
        if self.image is not None and not re.fullmatch(r"[\w./:@+-]+", self.image):
            yield f"--image: {self.image!r} is no reference of an image, such as registry.example.org/team/name:tag"
        yield from {
            "local": lambda: iter(()),
            "nodes": self._nodes_problems,
            "slurm": self._slurm_problems,
            "kubernetes": self._kubernetes_problems,
            "modal": self._modal_problems,
        }[self.on]()

    def _nodes_problems(self) -> Iterator[str]:
        if self.nodes > 1 and self.rendezvous is None:
            yield "--rendezvous: give HOST[:PORT] of node 0, as every node reaches it"
        elif self.rendezvous is not None:
            host, _, port = self.rendezvous.partition(":")
            if not re.fullmatch(r"[\w.-]+", host) or (port and not (port.isdecimal() and 0 < int(port) < 65536)):
                yield f"--rendezvous: {self.rendezvous!r}; give HOST or HOST:PORT, such as node0.example.org:29500"
        if self.node_rank is not None and not 0 <= self.node_rank < self.nodes:
            yield f"--node-rank: {self.node_rank}; the {self.nodes} nodes are numbered from 0 to {self.nodes - 1}"

    def _slurm_problems(self) -> Iterator[str]:
        if self.gpu is not None and not re.fullmatch(r"[A-Za-z][\w.-]*", self.gpu):
            yield f"--gpu: {self.gpu!r}; give the name of a kind of GPU as the cluster has it, such as a100"
        if self.timeout is not None and self.timeout < 2 * GRACE:
            yield f"--timeout: {duration(self.timeout)}; {duration(GRACE)} of it are for the last checkpoint: give more"
        for option in self.scheduler:
            name = option.partition("=")[0]
            if not re.fullmatch(r"[a-z][a-z-]*(=[\w.,:/%@+*-]+)?", option):
                yield f"--scheduler: {option!r}; write sbatch's options without the dashes, such as partition=gpu"
            elif name in _OWN_OF_SLURM:
                yield f"--scheduler {name}: say it with {_OWN_OF_SLURM[name]}"
        if re.search(r"\s", str(self.inner.runs)):
            yield f"paths.runs: {str(self.inner.runs)!r} has a space, which SLURM's directives cannot have"
        if self.image is not None:
            yield from self._paths_in_workspace()
            file = self.inner.config_file
            if file and (file.is_absolute() or ".." in file.parts):
                yield f"--config: {file} is not in this folder, which is all that the container sees"
        yield from self._no_token("--secret PATH names a file that only you can read")

    def _kubernetes_problems(self) -> Iterator[str]:
        for flag, value in (("--volume", self.volume), ("--secret", self.secret), ("--namespace", self.namespace)):
            if value is not None and not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", value):
                yield f"{flag}: {value!r} is no name of Kubernetes (lower-case letters, digits and dashes)"
        if self.gpu is not None and not re.fullmatch(r"[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?", self.gpu):
            yield f"--gpu: {self.gpu!r}; give the nodes' label nvidia.com/gpu.product, such as NVIDIA-A100-SXM4-80GB"
        yield from self._paths_in_workspace()
        yield from self._no_token("--secret names a secret with the key `token`")

    def _modal_problems(self) -> Iterator[str]:
        if self.nodes != 1:
            yield f"--nodes: {self.nodes}, but a run on Modal is one container; use --gpus, up to 8 of a kind"
        if self.gpus and self.gpu is None:
            yield f"--gpu: name one of {', '.join(MODAL_GPUS)}; or say --gpus 0 for a CPU"
        elif self.gpu is not None:
            most = MODAL_GPUS.get(modal_gpu(self.gpu))
            if most is None:
                meant = did_you_mean(self.gpu.upper(), MODAL_GPUS)
                yield f"--gpu: Modal has no {self.gpu!r}{meant}; there are {', '.join(MODAL_GPUS)}"
            elif not 1 <= self.gpus <= most:
                yield f"--gpus: {self.gpus}; a container has 1 to {most} {self.gpu}"
        if self.timeout is not None and self.timeout > MODAL_SECONDS:
            yield f"--timeout: {duration(self.timeout)}; Modal allows from 1s to 24h per attempt (see --restarts)"
        if self.memory is not None and self.memory > MODAL_MEBIBYTES:
            yield f"--memory: {self.memory} MiB is more than a machine of Modal has; write 16G, or a number of MiB"
        for flag, name in (("--volume", self.volume), ("--secret", self.secret)):
            if name is not None and not re.fullmatch(r"(?!ap-[a-zA-Z0-9]{22}$)[a-zA-Z0-9_.-]{1,64}", name):
                yield f"{flag}: {name!r} is no name on Modal (letters, digits, dashes, dots, underscores; at most 64)"
        yield from self._paths_in_workspace()
        yield from self._no_token("--secret names a secret of Modal with HF_TOKEN in it")

    def _paths_in_workspace(self) -> Iterator[str]:
        """Only what lies in the volume outlives the container."""
        for key, path in (("paths.data", self.inner.data), ("paths.runs", self.inner.runs)):
            inside = PurePosixPath(path).is_relative_to(WORKSPACE) or not PurePosixPath(path).is_absolute()
            if not inside or ".." in path.parts:
                yield f"{key}: {path} is not in {WORKSPACE}, all that outlives the container; give a relative path"

    def _no_token(self, instead: str) -> Iterator[str]:
        if self.secret is not None and self.secret.startswith("hf_"):
            yield f"--secret: takes no token, which would be kept in histories and logs; {instead}"


# what a script of ours says itself, and the flag that it comes from
_OWN_OF_SLURM = {
    "nodes": "--nodes", "gpus": "--gpus", "gpus-per-node": "--gpus and --gpu", "gres": "--gpus and --gpu",
    "time": "--timeout", "mem": "--memory", "requeue": "--restarts", "no-requeue": "--restarts 0",
    "job-name": "--name", "ntasks": "--nodes", "ntasks-per-node": "--gpus",
}  # fmt: skip


def modal_gpu(name: str) -> str:
    """A GPU's name as Modal writes it."""
    return _MODAL_NAMES.get(name.upper(), name.upper())


def make(options: Options, inner: Inner) -> LaunchPlan:
    """The plan that the flags of `launch` ask for.

    Raises UserError: anything about it is wrong, contradictory, or without meaning in that place.
    """
    problems = [
        f"--{name.replace('_', '-')}: has no meaning with --on {options.on}; leave it out"
        for name in sorted(options.model_fields_set - _ALWAYS - _TAKES[options.on])
    ]
    if options.budget is not None and options.price_per_hour is None:
        problems.append("--budget: needs --price-per-hour, what one GPU costs you for an hour")
    if options.budget is not None and not 0 < options.budget < math.inf:
        problems.append(f"--budget: {options.budget:g}; give an amount above zero")
    timeout = _read(seconds, options.timeout, problems)
    memory = _read(mebibytes, options.memory, problems)
    default = 0 if inner.resume != "auto" or options.on in ("local", "nodes", "kubernetes") else 3
    plan = None
    try:
        plan = LaunchPlan(
            on=options.on,
            inner=inner,
            nodes=1 if options.nodes is None else options.nodes,
            gpus=_gpus(options, inner),
            gpu=options.gpu,
            timeout=4 * 3600 if timeout is None and options.on == "modal" else timeout,
            memory=memory,
            restarts=default if options.restarts is None else options.restarts,
            detach=options.detach,
            image=options.image or (f"{inner.package}:latest" if options.on == "kubernetes" else None),
            volume=options.volume or (VOLUME if options.on in ("modal", "kubernetes") else None),
            secret=options.secret,
            node_rank=options.node_rank,
            rendezvous=options.rendezvous,
            scheduler=options.scheduler,
            namespace=options.namespace,
            price_per_hour=options.price_per_hour,
        )
    except UserError as error:
        problems += str(error).splitlines()
    if problems or plan is None:
        raise UserError("\n".join(dict.fromkeys(problems)))
    return _within(plan, options)


def _read(read: Callable[[str], int], text: str | None, problems: list[str]) -> int | None:
    """The number that `text` writes; None where there is none, or, with a problem noted, where it is wrong."""
    try:
        return None if text is None else read(text)
    except UserError as error:
        problems.append(str(error))
        return None


def _gpus(options: Options, inner: Inner) -> int:
    """As many as were asked for. Only training needs one unasked, and a machine of our own has what it has."""
    if options.gpus is not None:
        return options.gpus
    if options.gpu is not None or (inner.verb == "train" and not (options.checkpoints or options.download)):
        return 1
    return 0


def _within(plan: LaunchPlan, options: Options) -> LaunchPlan:
    """The plan with no more time than the budget pays for."""
    if options.budget is None:
        return plan
    assert plan.price_per_hour is not None
    per_second = plan.price_per_hour * plan.processes * plan.nodes * plan.attempts / 3600
    affordable = int(options.budget / per_second)
    if affordable < 60:
        raise UserError(
            f"--budget: {options.budget:g} pays for {affordable}s of {plan.nodes * plan.processes} x "
            f"{plan.price_per_hour:g} an hour in {plan.attempts} attempts; raise it, or ask for less"
        )
    if options.timeout is None and plan.on != "modal":
        return replace(plan, timeout=affordable)
    return replace(plan, timeout=min(affordable, plan.timeout or affordable))


def cost(plan: LaunchPlan) -> list[str]:
    """What is to be said about the price, as lines."""
    worst = plan.worst_case
    if plan.price_per_hour is None:
        return []
    if worst is None or plan.timeout is None:
        return ["worst case: unlimited, for there is no --timeout"]
    what = f"{plan.attempts} x " if plan.attempts > 1 else ""
    gpus = f"{plan.nodes * plan.processes} GPU{'s' * (plan.nodes * plan.processes > 1)}"
    return [f"worst case: {worst:.2f} = {what}{duration(plan.timeout)} x {gpus} x {plan.price_per_hour:g} an hour"]


def read_config(file: Path) -> str:
    """The text of a configuration's file, for places where the file itself is not."""
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--config: cannot read {file}: {error}") from error


def shown(command: list[str], environment: dict[str, str] | None = None) -> str:
    """A command, with variables that are set for it, as one line for a shell."""
    variables = [f"{name}={shlex.quote(value)}" for name, value in (environment or {}).items()]
    return " ".join([*variables, shlex.join(command)])
