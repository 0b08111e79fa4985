"""Checkpoints of a model that FSDP splits over two processes, on the CPU."""

from __future__ import annotations

import copy
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import distributed, nn
from torch.distributed.checkpoint.filesystem import FileSystem
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from shared_core import checkpoint, fsdp, tensorfile
from shared_core.checkpoint import Checkpoints, State, load_weights, rng_state
from shared_core.errors import UserError

pytestmark = pytest.mark.skipif(not distributed.is_gloo_available(), reason="needs gloo")


def run(function: Callable[..., None], world: int, *arguments: object) -> None:
    """Call `function(rank, world, *arguments)` in `world` processes that form a group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_enter, (world, port, function, arguments), world)


def _enter(rank: int, world: int, port: int, function: Callable[..., None], arguments: tuple[object, ...]) -> None:
    torch.set_num_threads(1)
    store = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    try:
        function(rank, world, *arguments)
    finally:
        distributed.destroy_process_group()


def make(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 1))  # 7 and 1 rows do not divide by 2
    for layer in model:
        fully_shard(layer)
    fully_shard(model)
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 5)).square().mean().backward()
        optimizer.step()


def capture(model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    weights = get_model_state_dict(model)
    return State(
        model=weights,
        ema={name: tensor * 2 for name, tensor in weights.items()},
        optimizers=[get_optimizer_state_dict(model, optimizer)],
        extra={"epoch": 3},
        rng=rng_state(),
    )


def whole(tree: object) -> object:
    if isinstance(tree, DTensor):
        return tree.full_tensor()
    if isinstance(tree, dict):
        return {key: whole(value) for key, value in tree.items()}
    return [whole(value) for value in tree] if isinstance(tree, list | tuple) else tree


def flat(state: State) -> dict[str, torch.Tensor]:
    return tensorfile.split(whole([state.model, state.ema, state.optimizers]))[1]


def checkpoints(folder: str, rank: int, world: int) -> Checkpoints:
    return Checkpoints(Path(folder), 2, rank, world, distributed.barrier)


def save(rank: int, world: int, folder: str) -> None:
    model, optimizer = make(0)
    train(model, optimizer, 2)
    state = capture(model, optimizer)
    path = checkpoints(folder, rank, world).save(2, state, config_digest="", topology={"processes": world}, best=True)
    assert path == Path(folder) / "step-2"
    expected = flat(state)
    if rank == 0:
        torch.save(expected, Path(folder) / "expected.pt")


def resume(rank: int, world: int, folder: str) -> None:
    model, optimizer = make(1)
    into = capture(model, optimizer)
    mine = checkpoints(folder, rank, world)
    path, _ = mine.find("auto")
    assert path is not None
    loaded = mine.load(path, into)
    expected = torch.load(Path(folder) / "expected.pt", weights_only=True)
    for found in (flat(loaded), flat(mine.load(path))):  # every process its part; each process all of it
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert found[name].dtype == tensor.dtype and found[name].equal(tensor), name
    assert loaded.extra == {"epoch": 3}
    assert loaded.optimizers[0]["param_groups"] == into.optimizers[0]["param_groups"]
    assert (loaded.rng is None) == (rank >= 2)


def other_model(rank: int, world: int, folder: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7))
    fully_shard(model)
    into = capture(model, torch.optim.AdamW(model.parameters()))
    with pytest.raises(UserError, match="another model"):
        checkpoints(folder, rank, world).load(Path(folder) / "step-2", into)
    wider = nn.Sequential(nn.Linear(5, 9), nn.BatchNorm1d(9), nn.Linear(9, 1))
    fully_shard(wider)
    into = capture(wider, torch.optim.AdamW(wider.parameters()))
    with pytest.raises(UserError, match="another model"):
        checkpoints(folder, rank, world).load(Path(folder) / "step-2", into)


def fail(rank: int, world: int, folder: str) -> None:
    checkpoint._SHARED_DISK_SECONDS = 1.0
    model, optimizer = make(0)
    train(model, optimizer, 1)
    state = capture(model, optimizer)

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    if rank == 1:  # only one of the processes finds its disk full
        FileSystem.create_stream = full  # type: ignore[method-assign, assignment]
    with pytest.raises(UserError, match="disk is full"):
        checkpoints(folder, rank, world).save(3, state, config_digest="", topology={})


def gradients(rank: int, world: int, folder: str) -> None:
    """The processes' gradients of their halves of a batch, averaged, are the whole batch's, in any memory format."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(5 * 16, 2)).to(memory_format=torch.channels_last)
    split = copy.deepcopy(plain)
    fsdp.shard(split, torch.device("cpu"), world)
    x = torch.randn(2 * world, 3, 6, 6)
    plain(x).square().mean().backward()
    split(x[2 * rank : 2 * rank + 2]).square().mean().backward()
    for ours, theirs in zip(split.parameters(), plain.parameters(), strict=True):
        assert ours.to_local().numel() < theirs.numel()  # a part
        torch.testing.assert_close(fsdp.whole(ours.grad), theirs.grad)


def with_two_processes(rank: int, world: int, folder: str) -> None:
    """One after the other, because processes take seconds to start."""
    for function in (gradients, save, resume, other_model, fail):
        function(rank, world, folder)
        distributed.barrier()


@pytest.mark.slow
def test_a_sharded_state_comes_back_with_any_number_of_processes(tmp_path: Path) -> None:
    run(with_two_processes, 2, str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"step-2", "latest", "best", "expected.pt"}
    shards = sorted((tmp_path / "step-2" / "shards").iterdir())
    assert len(shards) == 2
    for file in shards:
        with safe_open(file, framework="pt") as opened:
            assert opened.keys()
    assert {file.name for file in (tmp_path / "step-2").iterdir()} == {
        "shards", "state.json", "rng-00000.safetensors", "rng-00001.safetensors", "manifest.json",
    }  # fmt: skip
    run(resume, 3, str(tmp_path))

    expected = torch.load(tmp_path / "expected.pt", weights_only=True)  # [model, ema, optimizers]
    for which, index in (("model", 0), ("ema", 1), ("auto", 1)):
        weights = load_weights(tmp_path / "step-2", which)  # type: ignore[arg-type]
        assert {f"{index}.{name}" for name in weights} == {name for name in expected if name.startswith(f"{index}.")}
        for name, tensor in weights.items():
            assert tensor.dtype == expected[f"{index}.{name}"].dtype and tensor.equal(expected[f"{index}.{name}"])

    with open(shards[1], "r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\x7f")
    found, skipped = Checkpoints(tmp_path).find("auto")
    assert found is None and "shards/shard-00002" in skipped[0]
