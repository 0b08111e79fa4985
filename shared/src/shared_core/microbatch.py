"""Splitting a batch into pieces that fit the device, with the gradient of the whole batch kept."""

from collections.abc import Iterator
from typing import Any

import torch


def size(batch: Any) -> int:
    """Samples in a nested batch: the first dimension of its first tensor."""
    for tensor in _tensors(batch):
        if tensor.ndim:
            return len(tensor)
    raise ValueError("a batch needs at least one tensor with a sample dimension")


def pieces(batch: Any, limit: int | None) -> Iterator[tuple[Any, float]]:
    """Pieces of at most `limit` samples and the share of the batch that each is; the shares add up to 1.

    A mean loss over the batch equals the sum of share x mean loss over the piece, and so do the gradients
    (except through batch normalisation, which sees the piece only).
    """
    n = size(batch)
    if limit is None or limit >= n:
        yield batch, 1.0
        return
    for first in range(0, n, limit):
        last = min(n, first + limit)
        yield _cut(batch, first, last, n), (last - first) / n


def is_out_of_memory(error: BaseException) -> bool:
    """Also the CPU allocator's, which has no class of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _tensors(batch: Any) -> Iterator[torch.Tensor]:
    if isinstance(batch, torch.Tensor):
        yield batch
    elif isinstance(batch, dict):
        for value in batch.values():
            yield from _tensors(value)
    elif isinstance(batch, list | tuple):
        for value in batch:
            yield from _tensors(value)


def _cut(batch: Any, first: int, last: int, n: int) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch[first:last] if batch.ndim and len(batch) == n else batch
    if isinstance(batch, dict):
        return {key: _cut(value, first, last, n) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        if len(batch) == n and not any(True for _ in _tensors(batch)):  # a list of n ids or captions
            return batch[first:last]
        return type(batch)(_cut(value, first, last, n) for value in batch)
    return batch
