"""How the scripts under benchmarks/ word what they measured, and on what."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def spread(values: Sequence[float], form: str) -> str:
    """`median (smallest..largest)`, each in the format `form`, such as ".3f"."""
    return f"{statistics.median(values):{form}} ({min(values):{form}}..{max(values):{form}})"


def load() -> str:
    """How many processes wanted a core, on average over the last minute; "unknown" where the system does not say."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def processor() -> str:
    """The model of the CPU, or its architecture where the model cannot be read."""
    information = Path("/proc/cpuinfo")  # Linux; elsewhere the architecture must do
    lines = information.read_text().splitlines() if information.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def device(device: torch.device) -> str:
    """Kind and model of what a network runs on, the threads it may take and the machine's load."""
    import torch

    model = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return f"{device.type} ({model}), {os.cpu_count()} cores, {torch.get_num_threads()} threads, load {load()}"


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long `work` takes, until the device has done all of it."""
    import torch

    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
