"""The order of the data: a pure function of seed, epoch, batch and process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_core.batches import LoaderBatches, StreamBatches
from shared_core.errors import UserError


class Rows(torch.utils.data.Dataset):
    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {"row": torch.tensor(row), "noise": torch.rand(())}


def runtime(rank: int = 0, world: int = 1) -> Any:
    return SimpleNamespace(rank=rank, world=world, device=torch.device("cpu"))


def loader(n: int, size: int, rank: int = 0, world: int = 1, seed: int = 0, **more: Any) -> LoaderBatches:
    return LoaderBatches(Rows(n), batch_size=size, runtime=runtime(rank, world), seed=seed, **more)


def rows(batches: LoaderBatches, epoch: int, start: int = 0) -> list[list[int]]:
    return [batch["row"].tolist() for batch in batches.epoch(epoch, start)]


SHAPES = {"n": st.integers(8, 40), "size": st.integers(1, 4), "world": st.integers(1, 2), "epoch": st.integers(0, 3)}


@settings(max_examples=25, deadline=None)
@given(**SHAPES)
def test_every_row_once_and_no_two_processes_share_one(n: int, size: int, world: int, epoch: int) -> None:
    parts = [rows(loader(n, size, rank, world), epoch) for rank in range(world)]
    seen = [row for part in parts for batch in part for row in batch]
    assert len(seen) == len(set(seen)) == n // (size * world) * size * world
    assert all(len(part) == loader(n, size, 0, world).batches_per_epoch for part in parts)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(8, 40), size=st.integers(1, 4), epoch=st.integers(0, 3))
def test_two_processes_see_the_global_batches_of_one(n: int, size: int, epoch: int) -> None:
    first, second = (rows(loader(n, size, rank, 2), epoch) for rank in range(2))
    assert [a + b for a, b in zip(first, second, strict=True)] == rows(loader(n, 2 * size), epoch)


@settings(max_examples=25, deadline=None)
@given(start=st.integers(0, 9), **SHAPES)
def test_resume_jumps_to_the_same_batches_and_noise(n: int, size: int, world: int, epoch: int, start: int) -> None:
    whole = list(loader(n, size, 0, world).epoch(epoch))
    start = min(start, len(whole))
    rest = list(loader(n, size, 0, world).epoch(epoch, start))
    assert len(rest) == len(whole) - start
    for ours, theirs in zip(rest, whole[start:], strict=True):
        assert torch.equal(ours["row"], theirs["row"])
        assert torch.equal(ours["noise"], theirs["noise"])


def test_epochs_and_seeds_differ() -> None:
    one = loader(40, 4)
    assert rows(one, 0) == rows(one, 0) != rows(one, 1)
    assert rows(one, 0) != rows(loader(40, 4, seed=1), 0)


def test_iterating_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    list(loader(40, 4).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_choose_rows() -> None:
    weights = torch.zeros(20)
    weights[[3, 7]] = 1
    assert {row for batch in rows(loader(20, 4, weights=weights), 0) for row in batch} == {3, 7}


def test_too_little_data_for_a_batch() -> None:
    with pytest.raises(UserError, match=r"training\.batch_size: 8 x 2 processes needs 16 training rows"):
        loader(15, 8, world=2)


def stream(rank: int = 0, seed: int = 0) -> StreamBatches:
    def make(generator: torch.Generator) -> torch.Tensor:
        return torch.rand(3, generator=generator)

    return StreamBatches(make, batches_per_epoch=5, batch_size=3, runtime=runtime(rank, 2), seed=seed)


def test_stream_is_a_function_of_seed_rank_and_position() -> None:
    whole = torch.stack([batch for epoch in range(3) for batch in stream().epoch(epoch)])
    assert len(whole.unique()) == whole.numel()  # nothing ever comes twice
    assert torch.equal(torch.stack(list(stream().epoch(1, 2))), whole[7:10])
    assert not torch.equal(next(iter(stream(rank=1).epoch(0))), whole[0])
    assert not torch.equal(next(iter(stream(seed=1).epoch(0))), whole[0])


class Epochs(Rows):
    def set_epoch(self, epoch: int) -> None:
        self.seen = epoch

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {"epoch": torch.tensor(self.seen)}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_set_is_told_the_epoch_wherever_it_is_asked(workers: int) -> None:
    batches = LoaderBatches(Epochs(6), batch_size=2, runtime=runtime(), seed=0, num_workers=workers)
    for epoch in (3, 0):
        assert [batch["epoch"].tolist() for batch in batches.epoch(epoch)] == [[epoch] * 2] * 3


class Noted(Rows):
    """Writes down what it was asked for, from whichever process."""

    def __init__(self, n: int, folder: Path) -> None:
        super().__init__(n)
        self.folder = folder

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        (self.folder / f"{self.epoch}-{row}").touch()
        return super().__getitem__(row)


def test_workers_fetch_the_next_epoch_while_one_ends(tmp_path: Path) -> None:
    batches = LoaderBatches(Noted(4, tmp_path), batch_size=2, runtime=runtime(), seed=0, num_workers=2)
    first = rows(batches, 0)
    until = time.monotonic() + 60
    while not list(tmp_path.glob("1-*")):
        assert time.monotonic() < until, "nobody asked for rows of epoch 1"
        time.sleep(0.01)
    alone = loader(4, 2)
    assert [first, *(rows(batches, epoch) for epoch in (1, 2, 0))] == [rows(alone, epoch) for epoch in (0, 1, 2, 0)]
    assert rows(batches, 3, start=1) == rows(alone, 3, start=1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_workers_outlive_the_signals_that_ask_for_a_checkpoint(number: signal.Signals) -> None:
    batches = loader(40, 2, num_workers=2)
    running = batches.epoch(0)
    assert len([next(running), next(running)]) == 2  # one of each worker, so both are there
    workers = torch.multiprocessing.active_children()
    assert len(workers) >= 2
    for worker in workers:
        os.kill(worker.pid, number)
    time.sleep(0.5)
    assert len(list(running)) == 18


@pytest.mark.parametrize("ending", ["raise RuntimeError('in training')", "batches.itself = batches", "pass"])
def test_a_process_with_workers_ends(ending: str) -> None:
    """Also where an error, or a cycle of references, keeps the iterator until the end."""
    code = f"""
import torch
from types import SimpleNamespace
from shared_core.batches import LoaderBatches
if __name__ == "__main__":
    runtime = SimpleNamespace(rank=0, world=1, device=torch.device("cpu"))
    batches = LoaderBatches(torch.arange(40), batch_size=2, runtime=runtime, seed=0, num_workers=2)
    for batch in batches.epoch(0):
        break
    {ending}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == ("raise" in ending), done.stderr


def test_one_epoch_at_a_time() -> None:
    batches = loader(8, 2)
    first = batches.epoch(0)
    next(first)
    assert rows(batches, 1) == rows(loader(8, 2), 1)
    with pytest.raises(RuntimeError, match="another epoch has begun"):
        next(first)


def test_nothing_of_an_epoch_leaves_the_next_one_alone() -> None:
    batches = loader(8, 2)
    rows(batches, 0)
    assert rows(batches, 4, start=4) == []
    assert rows(batches, 1) == rows(loader(8, 2), 1)


class Broken(Rows):
    """Cannot read a row the first time."""

    failed = False

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        if row == 3 and not self.failed:
            self.failed = True
            raise OSError("row 3")
        return super().__getitem__(row)


def test_after_an_error_an_epoch_goes_on_with_the_batch_that_was_asked_for() -> None:
    batches, expected = LoaderBatches(Broken(8), batch_size=2, runtime=runtime(), seed=0), rows(loader(8, 2), 0)
    seen = []
    with pytest.raises(OSError, match="row 3"):
        for batch in batches.epoch(0):
            seen.append(batch["row"].tolist())
    assert seen == expected[: len(seen)] and len(seen) < 4
    assert rows(batches, 0, start=len(seen)) == expected[len(seen) :]
