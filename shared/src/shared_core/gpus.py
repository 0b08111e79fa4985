"""What vendors' data sheets say about GPUs, for planning on one that is not here."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal

from shared_core.errors import UserError

Precision = Literal["fp32", "bf16", "fp16"]

# Share of the data sheet's peak that training usually reaches. Large transformers come to 40-50 %, convolutional and
# small networks to 20-30 %; memory-bound kernels reach about 70 % of the bandwidth. Assumptions, and printed as such.
COMPUTE_UTILISATION = 0.35
BANDWIDTH_UTILISATION = 0.7
SECONDS_PER_OPERATION = 8e-6  # what Python and the driver need to issue one operation in eager mode
CONTEXT_BYTES = 0.6e9  # the CUDA context and its libraries, before the first tensor


@dataclass(frozen=True)
class Gpu:
    """Peaks of one GPU: dense, without structured sparsity; fp32 means TF32 where the GPU has it."""

    name: str
    memory: float  # bytes
    bandwidth: float  # bytes per second
    fp32: float  # FLOP per second
    fp16: float
    bf16: float | None  # None: the GPU only emulates it

    def peak(self, precision: Precision) -> float:
        """FLOP per second in a precision. Raises `UserError` for bf16 where there is none."""
        peak = {"fp32": self.fp32, "fp16": self.fp16, "bf16": self.bf16}[precision]
        if peak is None:
            raise UserError(f"runtime.precision: the {self.name} has no bf16 arithmetic; use auto, fp16 or fp32")
        return peak


def _gpu(name: str, gigabytes: float, gb_per_s: float, fp32: float, fp16: float, bf16: float | None) -> Gpu:
    return Gpu(name, gigabytes * 1e9, gb_per_s * 1e9, fp32 * 1e12, fp16 * 1e12, bf16 * 1e12 if bf16 else None)


# name, memory (GB), bandwidth (GB/s), then TFLOP/s of fp32 (TF32), fp16 and bf16. Where a sheet prints figures "with
# sparsity", half of them stands here. GeForce: with fp32 accumulation, which is what PyTorch uses.
GPUS = (
    # NVIDIA V100 Tensor Core GPU data sheet (SXM2)
    _gpu("V100", 16, 900, 15.7, 125, None),
    # NVIDIA T4 Tensor Core GPU data sheet
    _gpu("T4", 16, 300, 8.1, 65, None),
    # NVIDIA Ampere GA102 GPU Architecture white paper, appendix A
    _gpu("RTX 3090", 24, 936, 35.6, 71, 71),
    # NVIDIA A10G data sheet (AWS G5)
    _gpu("A10G", 24, 600, 35, 70, 70),
    # NVIDIA A100 Tensor Core GPU data sheet (SXM4)
    _gpu("A100-40", 40, 1555, 156, 312, 312),
    _gpu("A100-80", 80, 2039, 156, 312, 312),
    # NVIDIA Ada GPU Architecture white paper, appendix A
    _gpu("RTX 4090", 24, 1008, 82.6, 165.2, 165.2),
    # NVIDIA L4 Tensor Core GPU data sheet
    _gpu("L4", 24, 300, 60, 121, 121),
    # NVIDIA L40S data sheet
    _gpu("L40S", 48, 864, 183, 362, 362),
    # NVIDIA H100 Tensor Core GPU data sheet (SXM)
    _gpu("H100", 80, 3350, 494, 989, 989),
    # NVIDIA H200 Tensor Core GPU data sheet (SXM)
    _gpu("H200", 141, 4800, 494, 989, 989),
    # NVIDIA DGX B200 data sheet, an eighth of the system
    _gpu("B200", 180, 8000, 1125, 2250, 2250),
)


def find(name: str) -> Gpu:
    """The GPU that a name means: `a100-80gb`, `NVIDIA A100 80GB`, `rtx4090`, `NVIDIA H100 80GB HBM3`.

    Raises:
        UserError: no such GPU in the table.
    """
    wanted = _plain(name)
    for gpu in sorted(GPUS, key=lambda gpu: -len(gpu.name)):  # L40S before L4
        if _plain(gpu.name) in wanted:
            return gpu
    if "a100" in wanted:
        return find("A100-40")
    names = [gpu.name for gpu in GPUS]
    close = difflib.get_close_matches(wanted, [_plain(name) for name in names], n=1, cutoff=0.5)
    guess = f" (did you mean {next(name for name in names if _plain(name) == close[0])}?)" if close else ""
    raise UserError(f"--gpu {name}: not in the table{guess}; there are {', '.join(names)}")


def _plain(name: str) -> str:
    words = re.sub(r"[^a-z0-9]+", " ", name.lower()).split()
    return "".join(word for word in words if word not in ("nvidia", "tesla", "geforce", "sxm", "sxm4", "pcie"))
