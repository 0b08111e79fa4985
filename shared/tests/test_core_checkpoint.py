"""Checkpoints: bit-exact, never half-written, never lost, no code inside."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickletools
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from shared_core import checkpoint, files, manifest, tensorfile
from shared_core.checkpoint import Checkpoints, State, load_weights, rng_state, set_rng_state, verify
from shared_core.errors import UserError

ABOUT: dict[str, Any] = {"config_digest": "c0ffee", "topology": {"processes": 1}}


def state(value: float = 0.0) -> State:
    """A small state of every part, recognisable by `value`."""
    weights = {"layer.weight": torch.full((3, 4), value), "layer.bias": torch.full((3,), value)}
    return State(
        model=weights,
        ema={name: tensor + 0.5 for name, tensor in weights.items()},
        optimizers=[
            {"state": {0: {"step": torch.tensor(value), "exp_avg": torch.full((3, 4), -value)}}, "param_groups": []}
        ],
        extra={"cursor": {"epoch": 1, "batches_done": int(value)}, "best": float("inf")},
        rng=rng_state(),
    )


def assert_equal(one: object, other: object) -> None:
    """Equal values, types, dtypes, shapes and bits, all the way down."""
    assert type(one) is type(other), (one, other)
    if isinstance(one, torch.Tensor):
        assert isinstance(other, torch.Tensor)
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.stride() == other.stride() or (one.is_contiguous() and other.is_contiguous())
        assert one.contiguous().reshape(-1).view(torch.uint8).equal(other.contiguous().reshape(-1).view(torch.uint8))
    elif isinstance(one, dict):
        assert isinstance(other, dict)
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert isinstance(other, list | tuple)
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    elif isinstance(one, State):
        assert_equal(vars(one), vars(other))
    else:
        assert one == other or (one != one and other != other)


# ---- round trips


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    saved = state(3.25)
    path = checkpoints.save(7, saved, **ABOUT)
    assert path == tmp_path / "step-7"
    assert_equal(checkpoints.load(path), saved)
    assert (tmp_path / "latest").read_text() == "step-7\n"


def test_a_state_without_averages_optimizers_and_random_state(tmp_path: Path) -> None:
    saved = State(model={"w": torch.ones(2)})
    path = Checkpoints(tmp_path).save(0, saved, **ABOUT)
    assert_equal(Checkpoints(tmp_path).load(path), saved)


DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool, torch.uint8, torch.int8, torch.int16,
    torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.complex64,
]  # fmt: skip


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Any dtype, 0 to 3 dimensions, any of them empty, any bits, perhaps transposed."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    size = int(np.prod(shape)) * dtype.itemsize
    raw = draw(st.binary(min_size=size, max_size=size))
    if dtype is torch.bool:
        raw = bytes(byte & 1 for byte in raw)
    flat = torch.frombuffer(bytearray(raw), dtype=torch.uint8) if size else torch.empty(0, dtype=torch.uint8)
    tensor = flat.view(dtype).reshape(shape)
    return tensor.mT if tensor.ndim >= 2 and draw(st.booleans()) else tensor


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(exclude_categories=["Cs"])), tensors()
)
TREES = st.recursive(
    LEAVES,
    lambda child: st.one_of(
        st.lists(child, max_size=3),
        st.lists(child, max_size=3).map(tuple),
        st.dictionaries(st.one_of(NAMES, st.integers(), st.sampled_from(["$tensor", "$tuple", "a.b", "a"])), child),
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES)
def test_any_tree_comes_back(tmp_path: Path, tree: object) -> None:
    tensorfile.write_tree(tmp_path / "tree.safetensors", tree)
    assert_equal(tensorfile.read_tree(tmp_path / "tree.safetensors"), tree)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.dictionaries(NAMES.filter(lambda name: name != "__metadata__"), tensors(), max_size=5))
def test_any_tensors_come_back(tmp_path: Path, values: dict[str, torch.Tensor]) -> None:
    tensorfile.write(tmp_path / "t.safetensors", values)
    read = tensorfile.read(tmp_path / "t.safetensors")[0]
    assert_equal(read, values)


def test_views_of_one_storage_come_back_apart_and_tied_weights_tied(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    values = {"all": base, "tied": base, "head": base[:4], "tail": base[8:], "grid": base.view(3, 4)}
    tensorfile.write(tmp_path / "t.safetensors", values)
    read = tensorfile.read(tmp_path / "t.safetensors")[0]
    assert_equal(read, values)
    assert read["tied"] is read["all"]
    read["head"].zero_()
    assert read["all"][0] == base[0] and read["all"][1] == 1.0
    assert (tmp_path / "t.safetensors").stat().st_size < 2000


def test_loaded_tensors_do_not_hang_on_the_file(tmp_path: Path) -> None:
    tensorfile.write(tmp_path / "t.safetensors", {"w": torch.ones(4)})
    read = tensorfile.read(tmp_path / "t.safetensors")[0]["w"]
    with open(tmp_path / "t.safetensors", "r+b") as stream:
        stream.seek(-16, os.SEEK_END)
        stream.write(b"\0" * 16)
    assert read.equal(torch.ones(4))


@pytest.mark.parametrize("value", [torch.eye(3).to_sparse(), torch.zeros(2, dtype=torch.complex128)])
def test_what_cannot_be_stored_is_refused_by_name(tmp_path: Path, value: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"layer\.odd"):
        tensorfile.write(tmp_path / "t.safetensors", {"layer.odd": value})
    with pytest.raises(ValueError, match=r"extra\.hook.*function"):
        tensorfile.split({"extra": {"hook": assert_equal}})


def make_optimizers(model: nn.Module) -> dict[str, torch.optim.Optimizer]:
    parameters = list(model.parameters())
    return {
        "adamw-fused": torch.optim.AdamW(parameters, lr=0.01, fused=True),
        "adamw-amsgrad": torch.optim.AdamW(
            [{"params": parameters[:1], "lr": 0.1}, {"params": parameters[1:]}], amsgrad=True
        ),
        "sgd": torch.optim.SGD(parameters, lr=0.01, momentum=0.9, nesterov=True),
        "sgd-plain": torch.optim.SGD(parameters, lr=0.01),
        "adagrad": torch.optim.Adagrad(parameters, lr=0.01),
    }


def make_schedules(optimizer: torch.optim.Optimizer) -> list[torch.optim.lr_scheduler.LRScheduler]:
    return [
        torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1),
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20),
    ]


@pytest.mark.parametrize("name", ["adamw-fused", "adamw-amsgrad", "sgd", "sgd-plain", "adagrad"])
def test_training_goes_on_bit_for_bit(tmp_path: Path, name: str) -> None:
    """Ten steps in one go equal five, a save, a load into fresh objects, and five more."""

    def fresh(seed: int) -> tuple[nn.Module, torch.optim.Optimizer, list[torch.optim.lr_scheduler.LRScheduler]]:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(0.3), nn.Linear(27, 2))
        model = model.to(memory_format=torch.channels_last)
        optimizer = make_optimizers(model)[name]
        return model, optimizer, make_schedules(optimizer)

    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, schedules: list, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            loss = model(torch.randn(4, 2, 5, 5)).square().mean()
            loss.backward()
            optimizer.step()
            schedules[0].step(loss.item())
            schedules[1].step()

    def capture(model: nn.Module, optimizer: torch.optim.Optimizer, schedules: list) -> State:
        extra = {"schedules": [schedule.state_dict() for schedule in schedules]}
        return State(model.state_dict(), optimizers=[optimizer.state_dict()], extra=extra, rng=rng_state())

    straight = fresh(0)
    steps(*straight, 5)
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.save(5, capture(*straight), **ABOUT)
    steps(*straight, 5)

    resumed = fresh(1)
    steps(*resumed, 1)
    loaded = checkpoints.load(path)
    resumed[0].load_state_dict(loaded.model)
    resumed[1].load_state_dict(loaded.optimizers[0])
    for schedule, saved in zip(resumed[2], loaded.extra["schedules"], strict=True):
        schedule.load_state_dict(saved)
    assert loaded.rng is not None
    set_rng_state(loaded.rng)
    steps(*resumed, 5)
    assert_equal(capture(*resumed), capture(*straight))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_state_on_a_gpu_comes_back(tmp_path: Path) -> None:
    """Its random state too, and a fused optimizer takes the state in the parameters' memory layout."""
    model = nn.Conv2d(3, 4, 3).cuda().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    images = torch.randn(2, 3, 8, 8, device="cuda")

    def step() -> None:
        model(images).square().mean().backward()
        optimizer.step()

    step()
    checkpoints = Checkpoints(tmp_path)
    before = optimizer.state_dict()["state"][0]["exp_avg"].clone()
    path = checkpoints.save(1, State(model.state_dict(), optimizers=[optimizer.state_dict()], rng=rng_state()), **ABOUT)
    expected = torch.randn(5, device="cuda")
    loaded = checkpoints.load(path)
    assert loaded.rng is not None
    set_rng_state(loaded.rng)
    assert torch.randn(5, device="cuda").equal(expected)
    optimizer.load_state_dict(loaded.optimizers[0])
    restored = optimizer.state_dict()["state"][0]["exp_avg"]
    assert restored.equal(before) and restored.stride() == before.stride() and restored.is_cuda
    step()


HEADERS = {
    "strides that overlap": {"strides": '{"w": [0, 1]}'},
    "strides of a petabyte": {"strides": '{"w": [1, 1000000000000000]}'},
    "strides of another rank": {"strides": '{"w": [1]}'},
    "strides that are none": {"strides": "7"},
    "an alias of nothing": {"aliases": '{"v": "x"}'},
    "aliases that are none": {"aliases": '["v"]'},
    "broken JSON": {"aliases": "{"},
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_header_from_elsewhere_is_not_believed(tmp_path: Path, header: dict[str, str]) -> None:
    save_file({"w": torch.zeros(2, 3)}, tmp_path / "w.safetensors", metadata=header)
    with pytest.raises(UserError, match=r"w\.safetensors"):
        load_weights(tmp_path / "w.safetensors")


def test_random_state_comes_back(tmp_path: Path) -> None:
    def draw() -> tuple[object, ...]:
        return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.randn(3).tolist()

    random.gauss(0, 1), np.random.randn()  # both keep a second normal number for the next call
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.save(1, state(), **ABOUT)
    expected = [draw() for _ in range(3)]
    loaded = checkpoints.load(path).rng
    assert loaded is not None
    set_rng_state(loaded)
    assert [draw() for _ in range(3)] == expected


def test_nothing_in_a_checkpoint_is_a_pickle(tmp_path: Path) -> None:
    path = Checkpoints(tmp_path).save(1, state(), **ABOUT, best=True)
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.name for file in written} == {
        "model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json", "rng-00000.safetensors",
        "manifest.json", "latest", "best",
    }  # fmt: skip
    for file in written:
        data = file.read_bytes()
        assert data[:2] != b"PK", f"{file} is a zip, as torch.save writes"
        with pytest.raises(Exception):  # noqa: B017 - whatever pickletools makes of it, it is no pickle
            for _ in pickletools.genops(data):
                pass
    for file in path.glob("*.safetensors"):
        size = int.from_bytes(file.read_bytes()[:8], "little")
        json.loads(file.read_bytes()[8 : 8 + size])
    for file in path.glob("*.json"):
        json.loads(file.read_text(), parse_constant=pytest.fail)  # NaN and Infinity are no JSON


# ---- choosing, rotating


def test_keeps_the_newest_the_best_and_those_for_good(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in range(1, 9):
        checkpoints.save(step, state(step), **ABOUT, best=step in (2, 3), keep_for_good=step == 5)
    assert {path.name for path in tmp_path.iterdir()} == {"step-3", "step-5", "step-7", "step-8", "latest", "best"}
    assert checkpoints.best() == tmp_path / "step-3"
    assert (tmp_path / "best").read_text() == "step-3\n"
    assert checkpoints.find("auto") == (tmp_path / "step-8", [])


def test_saving_a_step_again_overwrites_nothing(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    first = checkpoints.save(4, state(1), **ABOUT)
    second = checkpoints.save(4, state(2), **ABOUT, best=True)
    third = checkpoints.save(4, state(3), **ABOUT)
    assert [path.name for path in (first, second, third)] == ["step-4", "step-4-2", "step-4-3"]
    assert checkpoints.find("auto")[0] == third
    assert checkpoints.load(third).model["layer.bias"][0] == 3
    assert checkpoints.best() == second


def test_newest_means_saved_last_also_after_going_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (100, 200):
        checkpoints.save(step, state(step), **ABOUT)
    checkpoints.save(150, state(150), **ABOUT)  # a run resumed from step 100
    assert checkpoints.find("auto")[0] == tmp_path / "step-150"
    assert not (tmp_path / "step-100").exists()


def test_find_by_path(tmp_path: Path) -> None:
    run = tmp_path / "run"
    checkpoints = Checkpoints(run / "checkpoints")
    first, second = (checkpoints.save(step, state(step), **ABOUT) for step in (1, 2))
    other = Checkpoints(tmp_path / "elsewhere")
    assert other.find("auto") == (None, [])
    assert other.find("never") == (None, [])
    assert other.find(str(first)) == (first, [])
    assert other.find(str(run)) == (second, [])
    assert other.find(str(run / "checkpoints")) == (second, [])
    (tmp_path / "empty").mkdir()
    for wrong in ("missing", "empty", "run/checkpoints/step-3"):
        with pytest.raises(UserError, match=wrong):
            other.find(str(tmp_path / wrong))
    (first / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        other.find(str(first))


def test_load_weights_takes_averages_where_there_are_any(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    best = checkpoints.save(1, state(1), **ABOUT, best=True)
    newest = checkpoints.save(2, State(model=state(2).model), **ABOUT)
    assert load_weights(best)["layer.bias"][0] == 1.5
    assert load_weights(best, "model")["layer.bias"][0] == 1
    assert load_weights(newest)["layer.bias"][0] == 2
    assert load_weights(tmp_path / "run")["layer.bias"][0] == 1.5
    assert load_weights(best / "model.safetensors")["layer.bias"][0] == 1
    with pytest.raises(UserError, match="no averaged weights"):
        load_weights(newest, "ema")
    pulled = tmp_path / "pulled"
    pulled.mkdir()
    shutil.copy(newest / "model.safetensors", pulled)
    assert load_weights(pulled)["layer.bias"][0] == 2
    with pytest.raises(UserError, match="nowhere"):
        load_weights(tmp_path / "nowhere")
    flip(best / "ema.safetensors", -1)
    with pytest.raises(UserError, match=r"ema\.safetensors is damaged"):
        load_weights(best)


# ---- damage


def flip(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


FILES = ["model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json", "rng-00000.safetensors"]


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove", "zeros"])
def test_damaged_checkpoints_are_skipped_and_named(tmp_path: Path, name: str, damage: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    good = checkpoints.save(1, state(1), **ABOUT)
    bad = checkpoints.save(2, state(2), **ABOUT)
    file = bad / name
    size = file.stat().st_size
    if damage == "flip":
        flip(file, size // 2)
    elif damage == "truncate":
        os.truncate(file, size - 1)
    elif damage == "empty":
        os.truncate(file, 0)
    elif damage == "remove":
        file.unlink()
    else:  # what a file system may leave after a power failure
        file.write_bytes(bytes(size))
    found, skipped = checkpoints.find("auto")
    assert found == good
    assert len(skipped) == 1 and "step-2" in skipped[0] and name in skipped[0]
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        Checkpoints(tmp_path).load(bad)


def test_a_damaged_checkpoint_does_not_push_out_the_last_good_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2):
        checkpoints.save(step, state(step), **ABOUT)
    flip(tmp_path / "step-2" / "model.safetensors", -1)
    resumed = Checkpoints(tmp_path, keep=2)
    assert resumed.find("auto")[0] == tmp_path / "step-1"
    resumed.save(2, state(2), **ABOUT)
    assert verify(tmp_path / "step-1") is None
    assert verify(tmp_path / "step-2-2") is None


def test_a_manifest_cannot_point_outside(tmp_path: Path) -> None:
    path = Checkpoints(tmp_path).save(1, state(), **ABOUT)
    content = manifest.read(path)
    content["files"]["../latest"] = {"bytes": 7, "sha256": files.sha256(tmp_path / "latest")}
    content["digest"] = manifest._digest(content)
    (path / "manifest.json").write_text(json.dumps(content))
    assert "outside" in (verify(path) or "")


def test_the_manifest_says_what_made_it(tmp_path: Path) -> None:
    content = checkpoint.read_manifest(Checkpoints(tmp_path).save(12, state(), **ABOUT, best=True))
    assert (content["step"], content["best"], content["config_digest"], content["world"]) == (12, True, "c0ffee", 1)
    assert content["topology"] == {"processes": 1}
    # without the build, +cpu or +cu130, which wheels of the package index keep out of their metadata
    assert content["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]


# ---- kill -9


def killed_child(folder: Path, kill_at: int, where: str) -> int:
    """Save step 2 in a forked process that kills itself at the n-th boundary; its exit code."""
    child = multiprocessing.get_context("fork").Process(target=_save_and_die, args=(folder, kill_at, where))
    child.start()
    child.join(60)
    assert child.exitcode is not None, "the save hangs"
    return child.exitcode


def _save_and_die(folder: Path, kill_at: int, where: str) -> None:
    count = 0

    def die_at_the_nth(*_: object) -> None:
        nonlocal count
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def before_system_calls(event: str, arguments: tuple[Any, ...]) -> None:
        reads_a_file = event == "open" and arguments[1] == "r"
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir") and not reads_a_file:
            die_at_the_nth()

    if where == "boundary":
        checkpoint._boundary = die_at_the_nth
    else:
        sys.addaudithook(before_system_calls)  # cannot be removed: only ever in this child
    Checkpoints(folder, keep=2).save(2, state(2), **ABOUT, best=True)
    os._exit(0)


@pytest.mark.parametrize("where", ["boundary", "system call"])
def test_killed_at_every_instant_of_a_save(tmp_path: Path, where: str) -> None:
    """At whichever write the process dies: what `auto` finds is whole, and is the old or the new state."""
    template = tmp_path / "template"
    for step in (0, 1):
        Checkpoints(template).save(step, state(step), **ABOUT, best=step == 0)  # step 0 will be rotated away
    old, new = state(1).model, state(2).model
    outcomes = []
    for kill_at in range(1, 500):
        folder = tmp_path / f"run-{kill_at}"
        shutil.copytree(template, folder)
        code = killed_child(folder, kill_at, where)
        assert code in (0, -signal.SIGKILL), f"the save failed by itself, at {kill_at}"
        found, skipped = Checkpoints(folder).find("auto")
        assert found is not None and verify(found) is None and skipped == []
        loaded = Checkpoints(folder).load(found).model
        is_new = loaded["layer.bias"].equal(new["layer.bias"])
        assert is_new or loaded["layer.bias"].equal(old["layer.bias"])
        outcomes.append(is_new)
        for path in folder.glob("step-*"):  # nothing half-written under a final name
            assert ".tmp-" in path.name or verify(path) is None
        for pointer in ("latest", "best"):
            assert verify(folder / (folder / pointer).read_text().strip()) is None
        resumed = Checkpoints(folder, keep=2)  # and the next save works and cleans up
        resumed.save(3, state(3), **ABOUT)
        assert not list(folder.glob("*.tmp-*")) and not list(folder.glob(".*"))
        assert resumed.find("auto")[0] == folder / "step-3"
        shutil.rmtree(folder)
        if code == 0:
            break
    else:
        pytest.fail("the save never ended")
    assert outcomes == sorted(outcomes), "once the new state is there it stays"
    assert len(outcomes) > (12 if where == "boundary" else 25)
    assert outcomes[0] is False and outcomes[-1] is True


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """A process that saves without pause, killed after a random time, again and again."""
    generator = random.Random(0)
    last = 0
    for _ in range(25):
        child = multiprocessing.get_context("fork").Process(target=_save_forever, args=(tmp_path, last))
        child.start()
        time.sleep(generator.uniform(0.05, 0.5))
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        found, skipped = Checkpoints(tmp_path).find("auto")
        assert skipped == []
        if found is None:
            assert last == 0
            continue
        step = checkpoint.read_manifest(found)["step"]
        assert step >= last
        assert Checkpoints(tmp_path).load(found).model["layer.bias"][0] == step
        last = step
    assert last > 10


def _save_forever(folder: Path, start: int) -> None:
    checkpoints = Checkpoints(folder)
    for step in range(start + 1, 10**9):
        checkpoints.save(step, state(step), **ABOUT, best=step % 3 == 0)


# ---- a full disk, and other failures


@pytest.mark.parametrize("failing", ["sync", "atomic_write", "save_file", "mkdir", "rename", "entry"])
def test_a_failed_write_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, state(step), **ABOUT)
    before = {path.name for path in tmp_path.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if failing == "sync":
            patch.setattr(files, "sync", full)
        elif failing == "atomic_write":  # the pointer cannot be written, the checkpoint itself could
            patch.setattr(files, "sync", lambda path: full() if "latest" in path.name else None)
        elif failing == "save_file":
            patch.setattr(tensorfile, "save_file", full)
        elif failing == "entry":
            patch.setattr(manifest, "write", full)
        else:
            patch.setattr(os if failing == "rename" else Path, failing, full)
        with pytest.raises(UserError, match="disk is full") as caught:
            checkpoints.save(3, state(3), **ABOUT)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
    assert (tmp_path / "latest").read_text() == "step-2\n"
    assert verify(tmp_path / "step-1") is None and verify(tmp_path / "step-2") is None
    expected = before | {"step-3"} if failing == "atomic_write" else before
    assert {path.name for path in tmp_path.iterdir()} == expected
    assert checkpoints.save(4, state(4), **ABOUT) == tmp_path / "step-4"


def test_too_little_space_is_seen_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda path: 1000)
    with pytest.raises(UserError, match=r"checkpoint of step 1 needs 1\.0 MiB but only 1000 B are free"):
        Checkpoints(tmp_path).save(1, state(), **ABOUT)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> object:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a small disk: {getattr(error, 'stderr', '') or error}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_during_a_save(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill the disk to every degree: the save ends well or with one clear line, and the last one stays whole."""
    checkpoints = Checkpoints(small_disk)
    big = State(model={"w": torch.randn(2**17)}, optimizers=[{"state": {0: torch.randn(2**17)}}], rng=rng_state())
    checkpoints.save(1, big, **ABOUT)
    monkeypatch.setattr(files, "require_space", lambda *_: None)  # as if another process took the space meanwhile
    outcomes = []
    for free in (0, 4096, 16384, 2**18, 2**19 + 8192, 2**20, 2**20 + 2**14, 2**20 + 2**19):
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(files.free_bytes(small_disk) - free))
        try:
            checkpoints.save(2, big, **ABOUT)
            outcomes.append("saved")
        except UserError as error:
            assert "disk is full" in str(error)
            outcomes.append("full")
            assert {path.name for path in small_disk.iterdir()} == {"step-1", "latest", "ballast"}
        assert verify(small_disk / "step-1") is None
        assert checkpoints.find("auto")[0] is not None
        ballast.unlink()
        if outcomes[-1] == "saved":
            break
    assert outcomes[0] == "full" and outcomes[-1] == "saved"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_writable(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="permission denied"):
        Checkpoints(tmp_path / "checkpoints").save(1, state(), **ABOUT)


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(UserError, match=r"checkpoints: .*file is where a folder should be"):
        Checkpoints(tmp_path / "checkpoints").save(1, state(), **ABOUT)


# ---- several processes


def in_parallel(folder: Path, world: int, step: int, broken: int | None = None) -> list[object]:
    """The result or exception of `save` in each of `world` threads that stand for processes."""
    barrier = threading.Barrier(world)
    results: list[object] = [None] * world

    def run(rank: int) -> None:
        own = state(step)
        own.rng = {"rank": rank, "torch": torch.full((4,), rank)}
        if rank == broken:
            own.rng = {"rank": object()}
        try:
            results[rank] = Checkpoints(folder, 2, rank, world, lambda: void(barrier.wait(30))).save(step, own, **ABOUT)
        except Exception as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def void(_: object) -> None:
    return None


def test_each_process_keeps_its_own_random_state(tmp_path: Path) -> None:
    assert in_parallel(tmp_path, 3, 5) == [tmp_path / "step-5"] * 3
    assert in_parallel(tmp_path, 3, 5) == [tmp_path / "step-5-2"] * 3
    assert {path.name for path in (tmp_path / "step-5").glob("rng-*")} == {f"rng-0000{k}.safetensors" for k in range(3)}
    assert not list(tmp_path.rglob("record-*"))
    for rank in range(3):
        loaded = Checkpoints(tmp_path, rank=rank, world=3).load(tmp_path / "step-5")
        assert loaded.rng is not None and loaded.rng["rank"] == rank
        assert loaded.model["layer.bias"][0] == 5
    assert Checkpoints(tmp_path, rank=3, world=4).load(tmp_path / "step-5").rng is None


@pytest.mark.parametrize("broken", [0, 1])
def test_when_one_process_fails_all_of_them_say_so_and_none_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    monkeypatch.setattr(checkpoint, "_SHARED_DISK_SECONDS", 0.5)
    in_parallel(tmp_path, 2, 1)
    results = in_parallel(tmp_path, 2, 2, broken=broken)
    assert isinstance(results[broken], ValueError)
    assert isinstance(results[1 - broken], UserError)
    assert {path.name for path in tmp_path.iterdir()} == {"step-1", "latest"}
    assert in_parallel(tmp_path, 2, 3) == [tmp_path / "step-3"] * 2
