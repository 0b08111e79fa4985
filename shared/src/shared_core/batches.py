"""Training batches as a pure function of (seed, epoch, batch, process): a resume jumps, it never replays."""

from __future__ import annotations

import atexit
import itertools
import signal
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from shared_core.errors import UserError
from shared_core.seeds import derive, seeded
from shared_core.signals import StopSignals

if TYPE_CHECKING:
    from shared_core.runtime import Runtime


class Batches(ABC):
    """The training data of one process."""

    batches_per_epoch: int
    batch_size: int  # samples per process and batch

    def steps_per_epoch(self, accumulation: int) -> int:
        """Optimizer steps of an epoch, of `accumulation` batches each. Raises UserError where there is not even one."""
        if self.batches_per_epoch < accumulation:
            raise UserError(
                f"training.accumulation: {accumulation} is more than the {self.batches_per_epoch} batches of an epoch; "
                "lower it or the batch size"
            )
        return self.batches_per_epoch // accumulation

    @abstractmethod
    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """Batches `start`, `start + 1`, ... of an epoch, on the device of the run."""


class StreamBatches(Batches):
    """An endless generated stream: `make(generator)` returns a batch and draws all randomness from `generator`."""

    def __init__(
        self,
        make: Callable[[torch.Generator], Any],
        *,
        batches_per_epoch: int,
        batch_size: int,
        runtime: Runtime,
        seed: int,
    ) -> None:
        self.make, self.runtime, self.seed = make, runtime, seed
        self.batches_per_epoch, self.batch_size = batches_per_epoch, batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        generator = torch.Generator(self.runtime.device)
        for k in range(epoch * self.batches_per_epoch + start, (epoch + 1) * self.batches_per_epoch):
            yield self.make(generator.manual_seed(derive(self.seed, "stream", self.runtime.rank, k)))


class SideBySide(Batches):
    """Several sources of batches at once, for models that learn together: batch k is the list of their batches k.

    Raises ValueError where they differ in length or batch size.
    """

    def __init__(self, sources: Sequence[Batches]) -> None:
        if len({(source.batches_per_epoch, source.batch_size) for source in sources}) != 1:
            raise ValueError("batches side by side must be equally many and equally large")
        self.sources = sources
        self.batches_per_epoch, self.batch_size = sources[0].batches_per_epoch, sources[0].batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Any]]:
        for batches in zip(*(source.epoch(epoch, start) for source in self.sources), strict=True):
            yield list(batches)


class LoaderBatches(Batches):
    """Shuffled batches of a map-style data set through `torch.utils.data.DataLoader`.

    The epoch's order depends on (seed, epoch) only; process `rank` takes its share of every global batch, and the
    incomplete last one is dropped. Each batch is fetched under its own seed, so augmentation inside the data set
    does not depend on the number of workers or on where a run was resumed.

    Args:
        dataset: has `__len__` and `__getitem__`, or `__getitems__` for a whole list of indices. One with `set_epoch`
            is told the epoch (from 0) of what it is asked for, in whichever process it is asked.
        batch_size: samples per process and batch.
        collate: list of samples -> batch; default: PyTorch's.
        weights: sampling weights per row (drawn with replacement); default: every row once.
    Raises:
        UserError: fewer rows than one batch over all processes.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        batch_size: int,
        runtime: Runtime,
        seed: int,
        num_workers: int = 0,
        collate: Callable[[list[Any]], Any] = default_collate,
        weights: Sequence[float] | torch.Tensor | None = None,
    ) -> None:
        rows, over_all = len(dataset), batch_size * runtime.world  # type: ignore[arg-type]
        if rows < over_all:
            raise UserError(
                f"training.batch_size: {batch_size} x {runtime.world} processes needs {over_all} training rows, "
                f"the data set has {rows}; lower --batch-size"
            )
        self.batches_per_epoch, self.batch_size = rows // over_all, batch_size
        self.runtime = runtime
        self._order = _Order(rows, batch_size, runtime.rank, runtime.world, seed, weights)
        self._loader: DataLoader[Any] = DataLoader(
            _SeededFetch(dataset, collate),
            sampler=self._order,
            batch_size=None,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=_leave_signals_alone,
            pin_memory=runtime.device.type == "cuda",
            generator=torch.Generator(),  # else every iterator would draw a number from the model's random stream
        )
        # one iterator through all epochs: while an epoch ends, workers fetch the next one's first batches
        self._running: Iterator[Any] | None = None
        self._next: tuple[int, int] | None = None  # epoch and batch that the iterator comes to
        self._asked = 0  # how many times for an epoch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """As of `Batches`; one at a time: raises RuntimeError where another one has begun meanwhile."""
        self._asked += 1
        mine = self._asked
        if self._running is None or self._next != (epoch, start):
            self._running = self._from(epoch, start)
        for k in range(start, self.batches_per_epoch):
            if mine != self._asked:
                raise RuntimeError("batches: another epoch has begun")
            self._next = None  # wherever an error leaves the iterator
            batch = next(self._running)
            self._next = (epoch, k + 1) if k + 1 < self.batches_per_epoch else (epoch + 1, 0)
            yield to_device(batch, self.runtime.device)

    def _from(self, epoch: int, start: int) -> Iterator[Any]:
        self._order.epoch, self._order.start, self._next = epoch, start, None
        running = iter(self._loader)
        if self._loader.num_workers and running is not self._running:
            atexit.register(_end, weakref.ref(running))
        return running


class _Order:
    """Yields (epoch, seed of the batch, its row indices) for one process, epoch after epoch without end."""

    def __init__(
        self,
        rows: int,
        batch_size: int,
        rank: int,
        world: int,
        seed: int,
        weights: Sequence[float] | torch.Tensor | None,
    ) -> None:
        self.rows, self.batch_size, self.rank, self.world, self.seed = rows, batch_size, rank, world, seed
        self.weights = None if weights is None else torch.as_tensor(weights, dtype=torch.float64)
        self.epoch = self.start = 0

    def __iter__(self) -> Iterator[tuple[int, int, list[int]]]:
        start = self.start
        for epoch in itertools.count(self.epoch):
            yield from self._of(epoch, start)
            start = 0

    def _of(self, epoch: int, start: int) -> Iterator[tuple[int, int, list[int]]]:
        generator = torch.Generator().manual_seed(derive(self.seed, "order", epoch))
        if self.weights is None:
            order = torch.randperm(self.rows, generator=generator)
        else:
            order = torch.multinomial(self.weights, self.rows, replacement=True, generator=generator)
        for k in range(start, self.rows // (self.batch_size * self.world)):
            first = (k * self.world + self.rank) * self.batch_size
            rows = order[first : first + self.batch_size].tolist()
            yield epoch, derive(self.seed, "batch", epoch, k, self.rank), rows


def _leave_signals_alone(worker: int) -> None:
    """A terminal and many schedulers send a signal to all processes; the training one then asks for a last checkpoint,
    for which it needs its workers. These end when they are told (`_end`), or when it is gone."""
    for number in StopSignals.watched:
        signal.signal(number, signal.SIG_IGN)


def _end(running: weakref.ref[Any]) -> None:
    """Tell workers that the process ends, before Python's own way does, a SIGTERM, and waits for them for ever."""
    if (iterator := running()) is not None:
        iterator._shutdown_workers()


class _SeededFetch(Dataset[Any]):
    def __init__(self, dataset: Dataset[Any], collate: Callable[[list[Any]], Any]) -> None:
        self.dataset, self.collate = dataset, collate

    def __getitem__(self, item: tuple[int, int, list[int]]) -> Any:
        epoch, seed, rows = item
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)
        with seeded(seed):
            if hasattr(self.dataset, "__getitems__"):
                return self.collate(self.dataset.__getitems__(rows))
            return self.collate([self.dataset[row] for row in rows])


def to_device(batch: Any, device: torch.device) -> Any:
    """Move the tensors of nested dicts, lists and tuples, without waiting for the copy."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch
