"""Checkpoints that survive a kill at any instant and cannot run code.

One checkpoint is one folder::

    checkpoints/
      step-1200/
        model.safetensors            weights
        ema.safetensors              averaged weights, where there are any
        optimizer.safetensors        the tensors of all optimizers (and any in the rest)
        state.json                   all else: parameter groups, schedule, position in the data, best value
        rng-00000.safetensors        random state of process 0, one file per process
        manifest.json                written last: sizes and SHA-256 of all of them, configuration, topology, versions
                                     (under FSDP, instead of the first three: shards/, written by all processes)
      latest                         text: name of the newest checkpoint
      best                           text: name of the best one

A save writes ``step-N.tmp-<id>/``, flushes it, writes the manifest, renames the folder, replaces the pointers and only
then removes old checkpoints. A reader trusts manifests alone: the newest checkpoint is the one whose manifest has the
highest sequence number and whose files match it. The pointers are for people and other tools.

Saving the same step twice (before and after an evaluation, say) gives ``step-N-2``: no checkpoint is ever overwritten.

With several processes every one of them calls `Checkpoints.save`. The barrier separates three phases: process 0 makes
the folder; each process writes its own files; process 0 publishes. A process that fails says so after the last
barrier, so that the others never wait for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared_core import files, manifest, tensorfile
from shared_core.errors import UserError
from shared_core.manifest import read as read_manifest
from shared_core.manifest import verify
from shared_core.rng import rng_state, set_rng_state
from shared_core.tensorfile import Tensors
from shared_core.weights import load_weights

__all__ = ["Checkpoints", "State", "load_weights", "read_manifest", "rng_state", "set_rng_state", "verify"]

_SHARED_DISK_SECONDS = 10.0  # how long another machine's new entries may take to become visible on a network disk


@dataclass
class State:
    """All that training needs to go on as if it had never stopped.

    `model` and `ema` are flat state dicts; `optimizers` are what each optimizer's ``state_dict()`` returns; `extra` is
    the rest (position in the data, schedule, best value, counters, offset in the metrics). `optimizers`, `extra` and
    `rng` may nest dicts, lists, tuples, numbers, text and tensors. `rng` is this process's `rng_state()`; it is None
    after loading a checkpoint of fewer processes.
    """

    model: Tensors
    ema: Tensors | None = None
    optimizers: list[dict[str, Any]] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    rng: dict[str, Any] | None = None


def _boundary(name: str) -> None:
    """Called between any two effects of a save on the disk; tests stop the process here."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: where they lie; made by the first save.
        keep: how many of the newest to keep (at least 2), besides the best and those kept for good.
        rank, world: this process and the number of processes.
        barrier: returns when all processes have called it.
    """

    def __init__(
        self, folder: Path, keep: int = 2, rank: int = 0, world: int = 1, barrier: Callable[[], None] = lambda: None
    ) -> None:
        if keep < 2:
            raise ValueError(f"keep must be at least 2, so that a damaged checkpoint has a predecessor; got {keep}")
        self.folder = Path(folder)
        self.keep = keep
        self.rank = rank
        self.world = world
        self.barrier = barrier
        self.in_use: set[Path] = set()  # being read by somebody else: not to be rotated away
        self._verified: Path | None = None  # found good by `find`: `load` need not hash it again
        self._damaged: set[Path] = set()  # found bad by `find`

    def save(
        self,
        step: int,
        state: State,
        *,
        config_digest: str,
        topology: dict[str, Any],
        best: bool = False,
        keep_for_good: bool = False,
    ) -> Path:
        """Write a checkpoint and return its folder. Every process calls this with the same arguments but its own `rng`.

        Raises:
            UserError: the disk is full, a folder is not writable, or another process failed. Earlier checkpoints and
                the pointers are as they were.
            ValueError: the state holds something that cannot be stored (see `tensorfile.split`).
        """
        about = {
            "step": step,
            "best": best,
            "keep": keep_for_good,
            "config_digest": config_digest,
            "topology": topology,
            "world": self.world,
        }
        saving = _Save(self, step, state, about)
        failure: Exception | None = None
        try:
            for phase in (saving.begin, saving.write, saving.publish):
                if failure is None:
                    try:
                        phase()
                    except Exception as error:
                        failure = error
                self.barrier()
            if isinstance(failure, OSError):
                raise files.explain(failure, self.folder) from failure
            if failure is not None:
                raise failure
            return saving.published()
        finally:
            saving.clear()

    def find(self, what: str = "auto") -> tuple[Path | None, list[str]]:
        """The checkpoint to go on from, and a line for each newer one that was skipped because it is damaged.

        Args:
            what: ``auto``: the newest one whose files match its manifest, None if there is none; ``never``: None; else
                the path of a checkpoint, or of a run, whose newest is meant.

        Raises:
            UserError: the path that was asked for holds no checkpoint, or a damaged one.
        """
        if what == "never":
            return None, []
        if what == "auto":
            found, damaged = manifest.newest_good(self.folder)
        elif manifest.is_checkpoint(path := Path(what)):
            found, damaged = path, {}
            manifest.require_good(path)
        else:
            found, damaged = manifest.newest_good(manifest.checkpoints_folder(path))
            if found is None:
                reason = "; ".join(f"{bad.name}: {why}" for bad, why in damaged.items()) or "holds no checkpoint"
                raise UserError(f"{path}: {reason}; give another path or use `auto`")
        self._verified = found
        self._damaged |= damaged.keys()
        return found, [f"skipped {bad.name}: {why}" for bad, why in damaged.items()]

    def load(self, path: Path, into: State | None = None) -> State:
        """The state in a checkpoint, on the CPU, with this process's own random state.

        Args:
            into: where the tensors of a sharded checkpoint go, each process's part; it must have all of them
                (`get_optimizer_state_dict` makes an optimizer's before its first step). All processes call this
                together. Without it, this process alone reads all of them whole.

        Raises:
            UserError: the files do not match the manifest.
        """
        path = Path(path)
        if path != self._verified:
            manifest.require_good(path)
        listed = read_manifest(path)["files"]
        structure = json.loads((path / "state.json").read_text())
        if "optimizer.safetensors" in listed:
            state = tensorfile.join(structure, tensorfile.read(path / "optimizer.safetensors")[0])
            state["model"] = tensorfile.read(path / "model.safetensors")[0]
            state["ema"] = tensorfile.read(path / "ema.safetensors")[0] if "ema.safetensors" in listed else None
        else:
            state = _load_shards(path, structure, into)
        rng_name = _rng_name(self.rank)
        rng = (tensorfile.read_tree(path / rng_name) or None) if rng_name in listed else None
        return State(**state, rng=rng)

    def _rotate(self) -> None:
        """Remove old checkpoints. Damaged ones are left for their owner to look at, and do not count as kept."""
        existing = [(path, about) for path, about in manifest.newest_first(self.folder) if about]
        best = next((path for path, about in existing if about["best"]), None)
        sound = [(path, about) for path, about in existing if path not in self._damaged]
        for path, about in sound[self.keep :]:
            if path == best or about["keep"] or path in self.in_use:
                continue
            doomed = path.with_name(f"{path.name}.tmp-{secrets.token_hex(4)}")  # never half of it under its own name
            with contextlib.suppress(OSError):  # the save itself has succeeded; the next one tries again
                os.rename(path, doomed)
                _boundary(f"rotating {path.name}")
                shutil.rmtree(doomed)
                _boundary(f"rotated {path.name}")

    def best(self) -> Path | None:
        """The checkpoint saved last with ``best=True``, or None."""
        return manifest.best(self.folder)

    def clean(self) -> None:
        """Remove what a killed save or rotation left behind. Only the process that trains may do this."""
        for leftover in self.folder.glob("*.tmp-*"):
            files.remove(leftover)


class _Save:
    """One save in progress, as seen by one process."""

    def __init__(self, owner: Checkpoints, step: int, state: State, about: dict[str, Any]) -> None:
        self.folder, self.rank, self.world = owner.folder, owner.rank, owner.world
        self.owner, self.step, self.state, self.about = owner, step, state, about
        self.temporary: Path | None = None
        self.final: Path | None = None
        self.names: list[str] = []
        self.files: dict[str, dict[str, Any]] = {}  # what the manifest says of each

    def begin(self) -> None:
        """Process 0 makes the temporary folder."""
        if self.rank != 0:
            return
        self.owner.clean()
        self.folder.mkdir(parents=True, exist_ok=True)
        files.require_space(self.folder, _bytes(self.state) + 2**20, f"the checkpoint of step {self.step}")
        _boundary("begin")
        temporary = self.folder / f"step-{self.step}.tmp-{secrets.token_hex(4)}"
        temporary.mkdir()
        self.temporary = temporary
        _boundary("made the folder")

    def write(self) -> None:
        """Each process writes its random state, and process 0 the rest."""
        if self.temporary is None:
            self.temporary = _await(self._made_by_another, f"{self.folder}: the folder that process 0 made")
        structure, tensors = tensorfile.split(_shared(self.state))
        if any(hasattr(tensor, "placements") for tensor in tensors.values()):  # a DTensor
            from shared_core import sharded

            # First of all: no process may fail before the others wait for it.
            names = sharded.save_sharded(self.temporary / "shards", tensors)
            self.names += [f"shards/{name}" for name in names]
            _boundary("shards written")
            if self.rank == 0:
                self._write("state.json", lambda path: path.write_text(_json(structure)))
        elif self.rank == 0:
            self._write_shared()
        self._write(_rng_name(self.rank), lambda path: tensorfile.write_tree(path, self.state.rng or {}))
        # Flushing waits for the disk and hashing for the processor: do both for all files at a time.
        with ThreadPoolExecutor(max_workers=4) as pool:
            entries = pool.map(manifest.entry, [self.temporary / name for name in self.names])
            self.files = dict(zip(self.names, entries, strict=True))
        _boundary("files flushed")
        if self.rank != 0:
            files.atomic_write(self.temporary / _record_name(self.rank), json.dumps(self.files))
            _boundary("record written")

    def _write_shared(self) -> None:
        """What is the same in all processes, unless it is sharded."""
        state = self.state
        self._write("model.safetensors", lambda path: tensorfile.write(path, state.model))
        if state.ema is not None:
            ema = state.ema
            self._write("ema.safetensors", lambda path: tensorfile.write(path, ema))
        structure, tensors = tensorfile.split({"optimizers": state.optimizers, "extra": state.extra})
        self._write("optimizer.safetensors", lambda path: tensorfile.write(path, tensors))
        self._write("state.json", lambda path: path.write_text(_json(structure)))

    def publish(self) -> None:
        """Process 0 writes the manifest, gives the folder its final name, moves the pointers and rotates."""
        if self.rank != 0:
            return
        assert self.temporary is not None
        for rank in range(1, self.world):
            self.files |= self._record_of(rank)
        existing = manifest.newest_first(self.folder)
        sequence = 1 + max((about["sequence"] for _, about in existing if about), default=0)
        about = {"id": self.temporary.name, **self.about}
        manifest.write(self.temporary, sequence, about, self.files)
        _boundary("manifest written")
        files.sync(self.temporary / "manifest.json")
        if (self.temporary / "shards").is_dir():
            files.sync(self.temporary / "shards")
        files.sync(self.temporary)
        _boundary("manifest flushed")
        matches = [match for path, _ in existing if (match := manifest.match(path))]
        attempts = [int(match[2] or 1) for match in matches if int(match[1]) == self.step]
        name = f"step-{self.step}" + (f"-{max(attempts) + 1}" if attempts else "")
        os.rename(self.temporary, self.folder / name)
        self.final = self.folder / name
        _boundary("renamed")
        files.atomic_write(self.folder / "latest", name + "\n")  # flushes the folder, and with it the rename
        _boundary("latest")
        if self.about["best"]:
            files.atomic_write(self.folder / "best", name + "\n")
            _boundary("best")
        self.owner._rotate()

    def published(self) -> Path:
        """The folder under its final name.

        Raises:
            UserError: process 0 did not publish it.
        """
        if self.final is None:
            self.final = _await(
                self._published_by_another, f"{self.folder}: step {self.step}, which process 0 should have published"
            )
        return self.final

    def clear(self) -> None:
        """Remove what is left of a save that failed."""
        if self.rank == 0 and self.temporary is not None and self.final is None:
            files.remove(self.temporary)

    def _write(self, name: str, write: Callable[[Path], object]) -> None:
        assert self.temporary is not None
        write(self.temporary / name)
        self.names.append(name)
        _boundary(f"{name} written")

    def _record_of(self, rank: int) -> dict[str, dict[str, Any]]:
        assert self.temporary is not None
        record = self.temporary / _record_name(rank)
        try:
            text = record.read_text()
            record.unlink()
        except FileNotFoundError:
            raise UserError(
                f"{self.folder}: process {rank} wrote no part of step {self.step}; see its own message, and give all "
                "processes the same folder on a shared disk"
            ) from None
        return dict(json.loads(text))

    def _made_by_another(self) -> Path | None:
        return next(iter(self.folder.glob(f"step-{self.step}.tmp-*")), None)

    def _published_by_another(self) -> Path | None:
        assert self.temporary is not None
        wanted = self.temporary.name
        return next(
            (path for path, about in manifest.newest_first(self.folder) if about and about["id"] == wanted), None
        )


def _rng_name(rank: int) -> str:
    return f"rng-{rank:05d}.safetensors"


def _record_name(rank: int) -> str:
    return f"record-{rank:05d}.json"


def _shared(state: State) -> dict[str, Any]:
    """All of a state but what each process has of its own."""
    return {name: getattr(state, name) for name in ("model", "ema", "optimizers", "extra")}


def _bytes(state: State) -> int:
    """Size of all tensors of a state."""
    return sum(tensor.nbytes for tensor in tensorfile.split(vars(state))[1].values())


def _json(structure: Any) -> str:
    return json.dumps(structure, indent=1, allow_nan=False)


def _load_shards(path: Path, structure: dict[str, Any], into: State | None) -> dict[str, Any]:
    from shared_core import sharded

    wanted = tensorfile.names(structure)
    if into is None:
        return dict(tensorfile.join(structure, sharded.read_whole(path / "shards", sorted(wanted))))
    _, tensors = tensorfile.split(_shared(into))
    if missing := wanted - tensors.keys():
        raise UserError(
            f"{path}: holds {min(missing)}, which this run does not have; was it written for another model?"
        )
    tensors = {name: tensors[name] for name in wanted}
    sharded.load_sharded(path / "shards", tensors)
    return dict(tensorfile.join(structure, tensors))


def _await(look: Callable[[], Path | None], what: str) -> Path:
    """What another process has made, which a network disk may show a little later."""
    deadline = time.monotonic() + _SHARED_DISK_SECONDS
    while (path := look()) is None:
        if time.monotonic() > deadline:
            raise UserError(
                f"{what} is not there; see that process's own message, and give all processes the same folder on a "
                "shared disk"
            )
        time.sleep(0.1)
    return path
