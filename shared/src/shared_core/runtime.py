"""Where a run computes: device, precision, processes. The only module that knows Accelerate."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from shared_core import settings
from shared_core.errors import UserError
from shared_core.seeds import seed_all

# What a launcher may say about precision and the like, and which key owns it here. A launcher's
# file describes topology only: machines, processes, rendezvous.
OWNED = {
    "ACCELERATE_MIXED_PRECISION": ("runtime.precision", {"no": "fp32"}),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("training.accumulation", {}),
    "ACCELERATE_DYNAMO_BACKEND": ("runtime.compile", {"no": "false"}),
}
LAUNCHER_DEFAULTS = {"no", "1", "false", ""}  # `accelerate launch` sets these when nobody asked for anything
UNSUPPORTED = ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM", "ACCELERATE_USE_TP")


@dataclass(frozen=True)
class Runtime:
    """Device and processes of this run, around one `accelerate.Accelerator`."""

    accelerator: Accelerator
    device: torch.device
    precision: str  # fp32, bf16 or fp16
    rank: int
    world: int

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @classmethod
    def start(cls, wanted: settings.Runtime, seed: int, accumulation: int = 1) -> "Runtime":
        """Pick the device, join the other processes, seed everything.

        Raises UserError where a device or precision is not to be had, or where an `ACCELERATE_*` variable says
        something else than the configuration.
        """
        precision = choose_precision(wanted)
        guard_environment(os.environ, wanted, precision, accumulation)
        name = wanted.device
        here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        if not here.get(name, True):
            raise UserError(f"runtime.device: {name}, but this machine has no {name} device; use --runtime.device auto")
        torch.set_num_threads(wanted.threads or threads_per_process())
        if wanted.deterministic != torch.are_deterministic_algorithms_enabled():  # the call itself imports for a second
            torch.use_deterministic_algorithms(wanted.deterministic)
        os.environ.pop("ACCELERATE_USE_FSDP", None)  # agreed to above; Accelerate would shard in a way of its own
        AcceleratorState._reset_state(reset_partial_state=False)  # one process may train, then evaluate in fp32
        accelerator = Accelerator(
            mixed_precision={"fp32": "no"}.get(precision, precision),
            cpu=wanted.device == "cpu" or not any(here.values()),  # or several processes would not find each other
        )
        accelerator.gradient_accumulation_steps = 1  # the trainer accumulates; a launcher's variable would divide again
        announced = int(os.environ.get("WORLD_SIZE", "1"))
        if announced != accelerator.num_processes:
            raise UserError(
                f"WORLD_SIZE={announced}, but {accelerator.num_processes} process joined; start several with "
                "`accelerate launch --multi_gpu` or `torchrun`"
            )
        if accelerator.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True
        seed_all(seed)
        return cls(accelerator, accelerator.device, precision, accelerator.process_index, accelerator.num_processes)

    def share(self, n: int) -> slice:
        """The rows of `n` that this process works on (contiguous, at most ceil(n / world))."""
        size = -(-n // self.world)
        return slice(min(n, self.rank * size), min(n, (self.rank + 1) * size))

    def gather(self, rows: torch.Tensor, n: int) -> torch.Tensor:
        """Put every process's `share(n)` of rows (first dimension) together again, in order, on every process."""
        if self.world == 1:
            return rows
        size = -(-n // self.world)
        padded = rows.new_zeros((size, *rows.shape[1:]))
        padded[: len(rows)] = rows
        # padding lies only behind row n: every share before the last non-empty one is full
        return self.accelerator.gather(padded.to(self.device))[:n].to(rows.device)

    def reduce_max(self, values: list[float]) -> list[float]:
        """Element-wise largest value over processes."""
        if self.world == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MAX)
        return [float(v) for v in tensor.tolist()]

    def broadcast(self, tensors: Iterable[torch.Tensor]) -> None:
        """Overwrite every process's tensors with the main one's."""
        if self.world > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor, src=0)

    def agree(self, value: Any) -> Any:
        """The main process's value, on every process."""
        if self.world == 1:
            return value
        shared = [value]
        torch.distributed.broadcast_object_list(shared, src=0)
        return shared[0]

    def barrier(self) -> None:
        self.accelerator.wait_for_everyone()

    def describe(self) -> dict[str, Any]:
        """Topology for run.json and the checkpoint manifest."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return {
            "device": name,
            "precision": self.precision,
            "processes": self.world,
            "threads": torch.get_num_threads(),
        }


def threads_per_process() -> int:
    """All cores, shared out over the processes of this machine."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return torch.get_num_threads() if local == 1 else max(1, (os.cpu_count() or 1) // local)


def choose_precision(wanted: settings.Runtime) -> str:
    """bf16 where the device computes in it, else fp32; an explicit choice is kept or refused."""
    cuda = wanted.device in ("auto", "cuda") and torch.cuda.is_available()
    if wanted.precision == "auto":
        # is_bf16_supported() counts emulation on old cards; compute capability 8 is where the units begin
        return "bf16" if cuda and torch.cuda.get_device_capability()[0] >= 8 else "fp32"
    if wanted.precision == "fp16" and not cuda:
        raise UserError("runtime.precision: fp16 needs a CUDA device; use fp32 or bf16 here")
    return wanted.precision


def guard_environment(env: Mapping[str, str], wanted: settings.Runtime, precision: str, accumulation: int) -> None:
    """Refuse `ACCELERATE_*` variables that would silently change what the configuration says."""
    elsewhere = wanted.device != "cpu" and (wanted.device != "auto" or torch.cuda.is_available())
    if env.get("ACCELERATE_USE_CPU", "").lower() not in LAUNCHER_DEFAULTS and elsewhere:
        raise UserError(
            f"ACCELERATE_USE_CPU contradicts runtime.device={wanted.device}; set --runtime.device cpu, or launch "
            "without --cpu"
        )
    if env.get("ACCELERATE_USE_FSDP", "").lower() not in LAUNCHER_DEFAULTS and not wanted.fsdp:
        raise UserError(
            f"ACCELERATE_USE_FSDP={env['ACCELERATE_USE_FSDP']} contradicts runtime.fsdp=false; the configuration owns "
            "this: set --runtime.fsdp true, or launch without FSDP"
        )
    if wanted.fsdp and precision == "fp16":
        raise UserError("runtime.fsdp: does not go with runtime.precision fp16, whose scale is one for all; use bf16")
    for name in UNSUPPORTED:
        if env.get(name, "").lower() not in LAUNCHER_DEFAULTS:
            raise UserError(f"{name}={env[name]}: not supported here; unset it in the launcher's configuration file")
    ours = {
        "runtime.precision": precision,
        "training.accumulation": str(accumulation),
        "runtime.compile": str(wanted.compile).lower(),
    }
    for name, (key, spelled) in OWNED.items():
        theirs = env.get(name, "").lower()
        if theirs in LAUNCHER_DEFAULTS or spelled.get(theirs, theirs) == ours[key]:
            continue
        if key == "runtime.compile" and wanted.compile:
            continue
        raise UserError(
            f"{name}={env[name]} contradicts {key}={ours[key]}; the configuration owns this: "
            f"set --{key} and take the setting out of the launcher's file"
        )
