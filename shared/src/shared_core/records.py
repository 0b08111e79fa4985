"""What a run writes down: its folder, its metrics, its log and its state.

`runs/<package>/<name>/` holds config.yaml, run.json, status.json, metrics.jsonl, train.log, evaluation/, figures/,
predictions/ and checkpoints/. Every file is either replaced atomically or appended to line by line, so that a
process killed at any instant leaves nothing but, at worst, one torn last line, which readers drop.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import math
import os
import re
import socket
import time
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal

from shared_core import files, locks, progress, trackers, yamlfile
from shared_core.errors import UserError
from shared_core.settings import Logging

State = Literal["running", "preempted", "finished", "failed"]
MODELS = "models"  # folder of a run with several models: each in one of its own, in the form of a publication
WARNING = "WARNING"  # marks a warning in train.log; reports collect these lines


class RunDir:
    """The folder of one run. `RunDir(path)` looks at an existing one; `RunDir.open` starts or resumes one."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.figures = self.path / "figures"
        self.predictions = self.path / "predictions"
        self.evaluation = self.path / "evaluation"
        self.preprocessing = self.path / "preprocessing"  # what was fitted on the training data; published with the run
        self.models = self.path / MODELS
        self.metrics = self.path / "metrics.jsonl"
        self.log = self.path / "train.log"
        self._lock: IO[str] | None = None  # held as long as this process writes the run

    @property
    def name(self) -> str:
        return self.path.name

    @classmethod
    def open(cls, root: Path, package: str, name: str, resume: str) -> RunDir:
        """Start or go on with a run, as this process's; a new one is marked as running.

        Only the first process of a run calls this; the others build `RunDir(path)` from the path it found.

        Args:
            resume: "auto": the newest of NAME, NAME-2, NAME-3 ... if it is unfinished, else the next number.
                "never": a new folder. Anything else: the path of a run, or of a checkpoint inside one.

        Raises:
            UserError: the folder cannot be written, another process is writing it, or the path is no run.
        """
        if resume in ("auto", "never"):
            run = cls(choose(Path(root) / package, name, fresh=resume == "never"))
        else:
            run = find(Path(resume))
        new = not run.path.exists()
        try:
            run._start()
        except UserError:
            if new:
                run.discard()
            raise
        return run

    def write_config(self, yaml: str) -> None:
        """Keep the whole configuration as config.yaml."""
        files.atomic_write(self.path / "config.yaml", yaml)

    def write_run(self, info: dict[str, Any]) -> None:
        """Keep `info` (versions, git commit, device, topology, argv) as run.json.

        What was written at earlier starts of a resumed run stays, as the list `earlier_starts`.
        """
        earlier = self.read_run()
        starts = earlier.pop("earlier_starts", [])
        if earlier:
            starts.append(earlier)
        _write_json(self.path / "run.json", {"started": _now(), **info, "earlier_starts": starts})

    def read_run(self) -> dict[str, Any]:
        """run.json, or an empty dictionary."""
        return _read_object(self.path / "run.json")

    def status(self, state: State, **more: Any) -> None:
        """Write status.json: the state and what else says how far the run is (a launcher's exit code says nothing)."""
        now = {"state": state, "updated": _now(), "host": socket.gethostname(), "pid": os.getpid(), **more}
        _write_json(self.path / "status.json", now)

    def read_status(self) -> dict[str, Any]:
        """status.json, or an empty dictionary for a folder that has none."""
        return _read_object(self.path / "status.json")

    def close(self) -> None:
        """Let another process write this run."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _start(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for folder in self._folders():
                folder.mkdir(exist_ok=True)
            self._lock = locks.take(self.path / ".lock", self._written_by)
        except OSError as error:
            raise files.explain(error, self.path) from error
        if not self.read_status():
            self.status("running")  # a new run; one that goes on is marked once its checkpoint fits

    def _written_by(self, owner: str) -> str:
        return f"{self.path}: being written by {owner}; wait for it or choose another --name"

    def _folders(self) -> tuple[Path, ...]:
        return self.checkpoints, self.figures, self.predictions, self.evaluation

    def discard(self) -> None:
        """Take away a run that never came to begin: what marks it as one, and its folders as far as they are empty."""
        self.close()
        with contextlib.suppress(OSError):
            (self.path / "status.json").unlink(missing_ok=True)
            (self.path / ".lock").unlink(missing_ok=True)
            for folder in (*self._folders(), self.path):
                if folder.is_dir():
                    folder.rmdir()


def find(path: Path) -> RunDir:
    """The existing run at `path`: its folder, or a checkpoint inside it.

    Raises:
        UserError: there is no run there.
    """
    for folder in (path, path.parent.parent if path.parent.name == "checkpoints" else path):
        if any((folder / name).is_file() for name in ("status.json", "config.yaml", "run.json")):
            return RunDir(folder)
    what = "is no run folder (no config.yaml or status.json in it)" if path.exists() else "no such folder"
    raise UserError(f"{path}: {what}; give the folder of a run, such as runs/PACKAGE/NAME")


def series(parent: Path, name: str) -> list[tuple[int, Path]]:
    """The entries NAME, NAME-2, NAME-3 ... of a folder with their numbers (1 for NAME itself), in no order.

    A run that its owner called NAME-7 is none of them; its own config.yaml says so.
    """
    pattern = re.compile(rf"{re.escape(name)}(?:-(\d+))?")
    try:
        entries = list(parent.iterdir()) if parent.is_dir() else []
    except OSError as error:
        raise files.explain(error, parent) from error
    matches = [(int(match[1] or 1), entry) for entry in entries if (match := pattern.fullmatch(entry.name))]
    return [(number, entry) for number, entry in matches if entry.name == name or _configured_name(entry) != entry.name]


def _configured_name(run: Path) -> str | None:
    """The name that a run's config.yaml gives, if it can be read."""
    try:
        return str(yamlfile.read(run / "config.yaml").data.get("name"))
    except UserError:
        return None


def choose(parent: Path, name: str, fresh: bool) -> Path:
    """The folder NAME or NAME-n that an `auto` (or, if `fresh`, a `never`) run writes."""
    matches = series(parent, name)
    if not (parent / name).exists():
        return parent / name
    number, newest = max(matches)
    if not fresh and newest.is_dir() and RunDir(newest).read_status().get("state") != "finished":
        return newest
    later = (parent / f"{name}-{n}" for n in itertools.count(number + 1))
    return next(path for path in later if not path.exists())


class Recorder:
    """Writes metrics.jsonl and train.log, and feeds the tracker. With `enabled=False` every call does nothing.

    A metrics row is `{"step": 120, "epoch": 2, "elapsed_s": 12.3, "train/loss": 0.31, ...}`; evaluations come as rows
    with `val/...` keys. Numbers that are not finite are kept, as the strings "nan", "inf" and "-inf", because JSON has
    none and hiding them would hide the very thing one looks for. `elapsed_s` goes on counting over resumes.

    Raises:
        UserError: the tracker's package is missing, or the folder cannot be written.
    """

    def __init__(self, run: RunDir, logging: Logging, enabled: bool = True) -> None:
        self._run, self._enabled = run, enabled
        if not enabled:
            return
        trackers.check(logging.tracker)
        self._tracker_name = logging.tracker
        self._tracker: trackers.Tracker | None = None  # opened by the first row, when the step to go on from is known
        self._metrics = _append(run.metrics)
        self._log = _append(run.log)
        self.truncate(os.fstat(self._metrics.fileno()).st_size)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Append one row; the line is handed to the kernel whole before this returns."""
        if not self._enabled:
            return
        elapsed = round(self._elapsed_before + time.monotonic() - self._began, 3)
        row: dict[str, Any] = {"step": int(step), "elapsed_s": elapsed, **{key: _plain(v) for key, v in values.items()}}
        self._write(self._metrics, json.dumps(encode(row), allow_nan=False) + "\n", self._run.metrics)
        numbers = "  ".join(f"{key} {progress.number(v)}" for key, v in row.items() if isinstance(v, int | float))
        self._write(self._log, f"{_now()} {numbers}\n", self._run.log)
        self._tracked().log(int(step), {key: value for key, value in row.items() if isinstance(value, int | float)})

    def pictures(self, step: int, pictures: dict[str, Any]) -> None:
        """Keep pictures, (height, width, 3) uint8 tensors, as samples/NAME-STEP.png; trackers get them as well."""
        if not self._enabled:
            return
        for name, picture in pictures.items():
            path = self._run.path / "samples" / f"{name}-{step:07d}.png"
            path.parent.mkdir(exist_ok=True)
            files.atomic_write(path, _png(picture))
            self._tracked().picture(step, f"samples/{name}", picture)

    def _tracked(self) -> trackers.Tracker:
        """The tracker, opened when there is something for it."""
        if self._tracker is None:
            self._tracker = trackers.start(self._tracker_name, self._run.path, self._first_step)
        return self._tracker

    def message(self, text: str, *, warning: bool = False) -> None:
        """Append to train.log, with the time, and print. Warnings also appear in the report."""
        if not self._enabled:
            return
        level = f" {WARNING}" if warning else ""
        lines = text.replace("\n", "\n    ")
        self._write(self._log, f"{_now()}{level} {lines}\n", self._run.log)
        progress.message(f"warning: {text}" if warning else text)

    def offset(self) -> int:
        """Length of metrics.jsonl in bytes, all of it safely on disk; a checkpoint stores it."""
        if not self._enabled:
            return 0
        os.fsync(self._metrics.fileno())
        return os.fstat(self._metrics.fileno()).st_size

    def truncate(self, offset: int) -> None:
        """Forget the rows after `offset`: a run resumed from a checkpoint writes them again.

        A torn line at the end is dropped, and an offset beyond the end (rows lost with the power) counts as the end.
        """
        if not self._enabled:
            return
        with self._run.metrics.open("rb") as file:
            kept = file.read(max(0, offset))
        kept = kept[: kept.rfind(b"\n") + 1]
        self._metrics.truncate(len(kept))
        rows = _parse(kept)
        self._first_step = int(rows[-1]["step"]) + 1 if rows else 0
        self._elapsed_before = float(rows[-1].get("elapsed_s", 0.0)) if rows else 0.0
        self._began = time.monotonic()

    def close(self) -> None:
        if not self._enabled:
            return
        if self._tracker is not None:
            self._tracker.close()
        self._metrics.close()
        self._log.close()
        self._enabled = False

    def _write(self, file: Any, line: str, path: Path) -> None:
        data = line.encode()
        try:
            if file.write(data) != len(data):  # unbuffered: one write call, which a full disk can cut short
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise files.explain(error, path) from error


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics.jsonl (or of the run folder `path`), a torn last line dropped; no file: no rows."""
    path = path / "metrics.jsonl" if path.is_dir() else path
    try:
        return _parse(path.read_bytes())
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise UserError(f"{path}: {error}; the file was changed by hand or is damaged") from error


def read_warnings(run: RunDir) -> list[str]:
    """Warnings of train.log, oldest first, each with its time."""
    try:
        lines = run.log.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [line.replace(f" {WARNING}", "", 1) for line in lines if line.split(" ")[1:2] == [WARNING]]


def write_evaluation(run: RunDir, split: str, evaluation: dict[str, Any]) -> Path:
    """Keep an evaluation as evaluation/<split>.json.

    `evaluation` has "checkpoint", "n", "headline" (a key of "metrics"), "metrics" {name: Estimate.as_dict()} and, where
    there are any, "baselines" {name: {metric: Estimate.as_dict(), "what": text, "differences": {metric:
    Estimate.as_dict() of the run less the baseline on the same samples}}}, "tables" {title: [row dictionaries]},
    "figures" [paths relative to the run] and "notes" [text].

    Raises:
        UserError: a metric has no value, or the headline is none of the metrics.
    """
    headline, metrics = evaluation.get("headline"), evaluation.get("metrics", {})
    if headline not in metrics:
        raise UserError(f"evaluation of {split}: headline {headline!r} is none of its metrics ({', '.join(metrics)})")
    if bad := [name for name, metric in metrics.items() if "value" not in metric]:
        raise UserError(f"evaluation of {split}: metric {bad[0]!r} has no value")
    path = run.evaluation / f"{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_json(path, {"split": split, **evaluation})
    return path


def read_evaluations(run: RunDir) -> dict[str, dict[str, Any]]:
    """The evaluations of a run by split, in the order of their names."""
    if not run.evaluation.is_dir():
        return {}
    return {path.stem: _read_object(path) for path in sorted(run.evaluation.glob("*.json"))}


def _parse(data: bytes) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            row = json.loads(line)
            row["step"] = int(row["step"])
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"line {number} is no metrics row") from None
        rows.append({key: _NON_FINITE.get(item, item) if isinstance(item, str) else item for key, item in row.items()})
    return rows


_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def encode(value: Any) -> Any:
    """`value` as JSON can hold it: numbers that JSON lacks become strings, NumPy scalars and paths plain values."""
    if isinstance(value, dict):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    value = _plain(value)
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Any) -> Any:
    """A NumPy or torch scalar as a Python number."""
    return value.item() if hasattr(value, "item") else value


def _png(picture: Any) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture.numpy()).save(stream, format="PNG")
    return stream.getvalue()


def _write_json(path: Path, data: dict[str, Any]) -> None:
    files.atomic_write(path, json.dumps(encode(data), indent=2, allow_nan=False) + "\n")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); restore or delete it") from error
    if not isinstance(data, dict):
        raise UserError(f"{path}: holds no JSON object; restore or delete it")
    return data


def _append(path: Path) -> Any:
    try:
        return path.open("ab", buffering=0)
    except OSError as error:
        raise files.explain(error, path) from error


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
