"""The compiled part of `kinematics`: a weighted sum of the frames around each frame.

Shapes: T frames, N series, W frames of a window.
"""

from __future__ import annotations

from mabe_behavior.features.columns import Doubles
from mabe_behavior.features.compiled import compiled


@compiled
def applied(kernel_WW: Doubles, x_NT: Doubles, out_NT: Doubles) -> None:
    """With the middle row of weights, and near the ends, where the window is the first or the last, with the others.

    Each row of weights must have the sum 0: values are taken relative to the frame's own, so that what is subtracted is
    small and keeps its digits. Arrays are of either precision, which must be the same.
    """
    width, frames = len(kernel_WW), x_NT.shape[1]
    half = width // 2
    for n in range(len(x_NT)):
        x_T, out_T = x_NT[n], out_NT[n, half : frames - half]
        out_T[:] = 0
        for w in range(width):
            add(kernel_WW[half, w], x_T[w : w + len(out_T)], x_T[half : half + len(out_T)], out_T)
        for k in range(half):
            last = frames - half + k
            out_NT[n, k] = at(kernel_WW[k], x_T[:width], x_T[k])
            out_NT[n, last] = at(kernel_WW[half + 1 + k], x_T[frames - width :], x_T[last])


@compiled
def add(weight: float, x_T: Doubles, own_T: Doubles, out_T: Doubles) -> None:
    for t in range(len(out_T)):
        out_T[t] += weight * (x_T[t] - own_T[t])


@compiled
def at(weight_W: Doubles, x_W: Doubles, own: float) -> float:
    total = 0.0
    for w in range(len(weight_W)):
        total += weight_W[w] * (x_W[w] - own)
    return total
