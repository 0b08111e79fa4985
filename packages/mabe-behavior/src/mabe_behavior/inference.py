"""Probabilities of whole recordings from networks that see windows.

Windows overlap; a frame's logits are averaged over the windows that it is in, those where it is in the middle counting
more: at a window's border a network sees one side only.

Shapes: T frames, L frames of a window, F columns, K classes, M members, B windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

Halves = NDArray[np.float16]
Ask = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # x (B, L, F), lab (B,) -> logits (B, L, K) or (M, B, L, K)
AT_ONCE = 64  # windows


def starts(frames: int, length: int, overlap: float) -> list[int]:
    """First frames of windows that cover so many frames; the last ends with them."""
    if frames <= length:
        return [0]
    step = max(1, round(length * (1 - overlap)))
    return [*range(0, frames - length, step), frames - length]


def weights(length: int) -> NDArray[np.float32]:
    """(L,) of the frames of a window: from its borders up to its middle."""
    return np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1)).astype(np.float32)


@torch.no_grad()
def logits(
    ask: Ask, streams: Sequence[tuple[Halves, int]], length: int, overlap: float, device: torch.device
) -> Iterator[NDArray[np.float32]]:
    """(..., T, K) of each of some (features (T, F), number of the laboratory), in their order."""
    places = [(n, start) for n, (x_TF, _) in enumerate(streams) for start in starts(len(x_TF), length, overlap)]
    weight_L = weights(length)[:, None]
    total: NDArray[np.float32] | None = None
    count = np.empty(0, np.float32)
    current = 0
    for (n, start), found in zip(places, _asked(ask, streams, places, length, device), strict=True):
        frames = len(streams[n][0])
        if n != current:
            assert total is not None
            yield total / count
            total, current = None, n
        if total is None:
            total = np.zeros((*found.shape[:-2], frames, found.shape[-1]), np.float32)
            count = np.zeros((frames, 1), np.float32)
        stop = min(start + length, frames)
        total[..., start:stop, :] += found[..., : stop - start, :] * weight_L[: stop - start]
        count[start:stop] += weight_L[: stop - start]
    if total is not None:
        yield total / count


def _asked(
    ask: Ask,
    streams: Sequence[tuple[Halves, int]],
    places: Sequence[tuple[int, int]],
    length: int,
    device: torch.device,
) -> Iterator[NDArray[np.float32]]:
    """Logits (..., L, K) of each window, many at once."""
    for first in range(0, len(places), AT_ONCE):
        some = places[first : first + AT_ONCE]
        x_BLF = np.full((len(some), length, streams[some[0][0]][0].shape[1]), np.nan, np.float16)
        for row, (n, start) in enumerate(some):
            part = streams[n][0][start : start + length]
            x_BLF[row, : len(part)] = part
        lab_B = torch.tensor([streams[n][1] for n, _ in some], device=device)
        found = ask(torch.from_numpy(x_BLF).to(device), lab_B).float().cpu().numpy()
        yield from np.moveaxis(found, -3, 0)
