"""The NVIDIA GPUs of this machine, and which driver the CUDA in an image asks for."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared_core.errors import UserError

# The least driver that runs every minor version of a CUDA release: NVIDIA, "CUDA Compatibility", table 1 of the chapter
# on minor version compatibility, https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
LEAST_DRIVER = {11: 450, 12: 525, 13: 580}
QUERY = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")


@dataclass(frozen=True)
class Gpu:
    name: str
    driver: str  # 580.95.05
    memory: str  # 81559 MiB

    @property
    def driver_major(self) -> int:
        return int(self.driver.partition(".")[0])


def here() -> list[Gpu]:
    """The GPUs of this machine; none where there is no nvidia-smi.

    Raises:
        UserError: nvidia-smi is there and cannot talk to the driver.
    """
    if shutil.which(QUERY[0]) is None:
        return []
    try:
        asked = subprocess.run(QUERY, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"nvidia-smi: {error}; reboot, or install the driver anew") from error
    if asked.returncode != 0:
        said = (asked.stdout + asked.stderr).strip().splitlines() or [f"exit status {asked.returncode}"]
        if "No devices were found" in said[0]:
            return []
        raise UserError(f"nvidia-smi: {said[0]}; reboot, or install the driver anew")
    return parse(asked.stdout)


def parse(listing: str) -> list[Gpu]:
    """What nvidia-smi answers to `QUERY`; lines that do not look like it are left out."""
    rows = [[part.strip() for part in line.split(",")] for line in listing.splitlines()]
    return [Gpu(*row) for row in rows if len(row) == 3 and re.match(r"\d+\.", row[1])]


def engine_knows_gpus(info: Mapping[str, Any]) -> bool:
    """Whether ``docker info`` shows a way to hand out GPUs: NVIDIA's runtime, or their devices found by CDI."""
    devices = [str(device.get("ID", "")) for device in info.get("DiscoveredDevices") or []]
    return "nvidia" in (info.get("Runtimes") or {}) or any(name.startswith("nvidia.com/gpu") for name in devices)


def cuda_of_tag(image: str) -> tuple[int, int] | None:
    """CUDA's (major, minor) in the name of a base image, ``nvidia/cuda:13.0.3-base-ubuntu24.04``; None for others."""
    match = re.search(r"\bcuda:(\d+)\.(\d+)", image)
    return (int(match[1]), int(match[2])) if match else None
