"""The promises of a built image, checked on the image: what `just smoke NAME` does.

Every container runs on a read-only root with what a run may write to in volumes, under names that nothing else has;
all of it is removed again, whatever happens.
"""

from __future__ import annotations

import hashlib
import json
import struct
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared_core import manifest, records
from shared_core.errors import UserError
from shared_core.images import contents
from shared_core.images.containers import Container, Options, Result
from shared_core.images.engine import Engine, Image, reference

WORKSPACE = "/workspace"
# a fast machine may be through before it can be stopped; then the run is made longer
_RUNS: tuple[tuple[str, ...], ...] = (("smoke",), ("smoke-longer", "--training.epochs", "200"))
_STEPS = 5  # made before training is stopped
_KILLED = 137  # exit status of what SIGKILL ended


class CheckFailedError(Exception):
    """A check that did not pass; says what was found."""


@dataclass(frozen=True)
class Passed:
    name: str
    seconds: float
    detail: str


@dataclass
class Smoke:
    """The checks of one image, in their order; each returns what it found.

    Attributes:
        grace: seconds that a container has between SIGTERM and SIGKILL, as in compose.yaml.
        limit: seconds after which a container counts as stuck.
        out: gets every line that is to be seen.
    """

    engine: Engine
    image: Image
    gpu: bool = False
    grace: int = 120
    limit: float = 1800
    out: Callable[[str], None] = print
    passed: list[Passed] = field(default_factory=list)

    def run(self) -> bool:
        """Run all checks up to the first that fails; whether all passed. Prints a table at the end."""
        device = "with all GPUs" if self.gpu else "on the CPU"
        self.out(f"{self.image.reference} ({contents.gigabytes(self.image.size)}), {device}")
        try:
            with tempfile.TemporaryDirectory(prefix="smoke-") as folder:
                self._folder = Path(folder)
                failure = self._run_all()
        finally:
            self.engine.remove_own()
        self._print_table(failure)
        return failure is None

    def _run_all(self) -> tuple[str, str] | None:
        """Name of the first check that fails and what it found; None when all pass."""
        checks: list[tuple[str, Callable[[], str]]] = [
            ("user", self.user),
            ("labels", self.labels),
            ("secrets in settings", self.settings),
            ("secrets in layers", self.layers),
            ("--help", self.help),
            ("pip check", self.dependencies),
            ("demo", self.demo),
            ("stop", self.stop),
            ("resume", self.resume),
            ("same weights", self.weights),
        ]
        for name, check in checks:
            self.out(f"-- {name}")
            began = time.monotonic()
            try:
                detail = check()
            except (CheckFailedError, UserError) as error:
                return name, str(error)
            self.passed.append(Passed(name, time.monotonic() - began, detail))
        return None

    def user(self) -> str:
        if contents.runs_as_root(self.image):
            raise CheckFailedError(f"its user is {self.image.user or 'root'!r}; it has to be a number other than 0")
        return self.image.user

    def labels(self) -> str:
        if missing := contents.missing_labels(self.image):
            raise CheckFailedError(f"without the labels {', '.join(missing)}")
        return f"revision {self.image.labels['org.opencontainers.image.revision'][:12]}"

    def settings(self) -> str:
        if found := contents.secrets_in_settings(self.image):
            raise CheckFailedError("; ".join(found))
        return f"{len(self.image.environment)} variables, {len(self.image.history)} lines of history"

    def layers(self) -> str:
        if found := contents.secrets_in_layers(self.engine.archive(self.image.reference)):
            raise CheckFailedError("; ".join(found[:5]))
        return contents.gigabytes(self.image.size)

    def help(self) -> str:
        result = self.engine.run(self.image.reference, ["--help"], limit=self.limit)
        if result.code != 0 or not result.logs.strip():
            raise CheckFailedError(f"without network and on a read-only root: {_ending(result)}")
        return f"{len(result.logs.splitlines())} lines, without network, on a read-only root"

    def dependencies(self) -> str:
        options = Options(entrypoint=["python", "-m", "pip", "check"])
        result = self.engine.run(self.image.reference, [], options, self.limit)
        if result.code != 0:
            raise CheckFailedError(_ending(result))
        return result.logs.strip().splitlines()[-1] if result.logs.strip() else "clean"

    def demo(self) -> str:
        self._volumes = {
            self.engine.volume(f"smoke-{self.image.package}-{name}"): f"{WORKSPACE}/{name}" for name in ("data", "runs")
        }
        container = self.engine.start(self.image.reference, ["demo"], self._options())
        try:
            result = container.wait(self.limit, self._line)
            if result.code != 0:
                raise CheckFailedError(_ending(result))
            self._demo = records.RunDir(container.copy_out(self._inside("demo"), self._folder / "demo"))
        finally:
            container.remove()
        self._require_state(self._demo, "finished")
        if not (self._demo.path / "report.html").is_file():
            raise CheckFailedError(f"{self._inside('demo')} has no report.html")
        return "finished, with a report"

    def stop(self) -> str:
        """SIGTERM in the middle of training: a whole checkpoint, and a status that says so."""
        for self._name, *more in _RUNS:
            self._command = ["train", "--config", "demo", "--name", self._name, "--logging.every", "1", *more]
            container = self.engine.start(self.image.reference, self._command, self._options())
            try:
                if not self._has_made_steps(container):
                    continue
                result = container.stop(self.grace)
                self._print(result)
                if result.code == _KILLED:
                    raise CheckFailedError(f"SIGTERM did not end training within {self.grace} s; it had to be killed")
                self._stopped = records.RunDir(self._copy_run(container, "stopped"))
            finally:
                container.remove()
            if self._stopped.read_status().get("state") != "finished":
                return self._preempted(result)
        raise CheckFailedError("training is over before it can be stopped; give the preset `demo` more steps")

    def resume(self) -> str:
        """The same command again goes on where the first stopped, and ends."""
        container = self.engine.start(self.image.reference, self._command, self._options())
        try:
            result = container.wait(self.limit, self._line)
            if result.code != 0:
                raise CheckFailedError(_ending(result))
            self._finished = records.RunDir(self._copy_run(container, "finished"))
        finally:
            container.remove()
        self._require_state(self._finished, "finished")
        step = self._step
        # rows carry the time they took: those of a run that started over would differ
        before = [row for row in records.read_metrics(self._stopped.path) if row["step"] <= step]
        after = [row for row in records.read_metrics(self._finished.path) if row["step"] <= step]
        if before != after:
            raise CheckFailedError(f"the second run did not go on from step {step}, it started over")
        last = max(row["step"] for row in records.read_metrics(self._finished.path))
        if last <= step:
            raise CheckFailedError(f"the second run has made no step after step {step}")
        return f"from step {step} to step {last}"

    def weights(self) -> str:
        """The stopped and resumed run ends with the weights of the demo's run, which nobody has stopped."""
        demo, resumed = (_weights(run) for run in (self._demo, self._finished))
        if self._name != _RUNS[0][0] or demo is None:
            return "not compared: " + ("they are sharded" if demo is None else "training was made longer")
        if demo == resumed:
            return "bit for bit those of the run that was not stopped"
        if self.gpu:
            return "not those of the run that was not stopped, as GPUs do not promise it"
        raise CheckFailedError("stopped and resumed, it ends with other weights than the demo's uninterrupted run")

    def _preempted(self, result: Result) -> str:
        self._require_state(self._stopped, "preempted")
        found, damaged = manifest.newest_good(self._stopped.checkpoints)
        if damaged:
            path, reason = next(iter(damaged.items()))
            raise CheckFailedError(f"its checkpoint {path.name} does not verify: {reason}")
        if found is None:
            raise CheckFailedError("stopped by SIGTERM, it left no checkpoint")
        self._step = int(manifest.read(found)["step"])
        ended = f"in {result.seconds:.1f} s with exit status {result.code}"
        return f"preempted at step {self._step} {ended}; {found.name} is whole"

    def _has_made_steps(self, container: Container) -> bool:
        """Wait for the first steps of training; False where the run is over before it was seen."""
        inside, until = self._inside(self._name), time.monotonic() + self.limit
        while time.monotonic() < until:
            running = container.is_running()
            status = _json(container.read(f"{inside}/status.json"))
            rows = container.read(f"{inside}/metrics.jsonl") or b""
            if status.get("state") == "finished":
                return False
            if not running:
                raise CheckFailedError(f"training ended by itself: {_ending(container.wait(self.limit))}")
            if status.get("state") == "running" and rows.count(b"\n") >= _STEPS:
                return True
            time.sleep(0.1)
        raise CheckFailedError(f"training has not made {_STEPS} steps within {self.limit:g} s")

    def _copy_run(self, container: Container, name: str) -> Path:
        return container.copy_out(self._inside(self._name), self._folder / name)

    def _options(self) -> Options:
        return Options(volumes=self._volumes, gpu=self.gpu)

    def _inside(self, run: str) -> str:
        return f"{WORKSPACE}/runs/{self.image.package}/{run}"

    def _require_state(self, run: records.RunDir, wanted: str) -> None:
        state = run.read_status().get("state", "missing")
        if state != wanted:
            raise CheckFailedError(f"status.json of {self._inside(run.name)} says {state!r}, not {wanted!r}")

    def _line(self, line: str) -> None:
        self.out(f"   | {line}")

    def _print(self, result: Result) -> None:
        for line in result.logs.splitlines():
            self._line(line)

    def _print_table(self, failure: tuple[str, str] | None) -> None:
        self.out("")
        for step in self.passed:
            self.out(f"passed  {step.name:<20} {step.seconds:7.1f} s  {step.detail}")
        if failure:
            self.out(f"FAILED  {failure[0]:<20} {'':7}    {failure[1]}")


def find(engine: Engine, name: str) -> Image:
    """The image of a package (`engine.reference`), or of any tag that `name` says.

    Raises:
        UserError: it is not built, or is none of ours.
    """
    return engine.image(reference(name))


def _ending(result: Result) -> str:
    """Exit status and the last that was said."""
    lines = result.logs.strip().splitlines()
    return f"exit status {result.code}" + (f", and said last: {lines[-1]}" if lines else ", without a word")


def _json(content: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(content or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _weights(run: records.RunDir) -> tuple[dict[str, Any], str] | None:
    """Names, shapes and places of a run's last weights, and the SHA-256 of their bytes; None where they are sharded.

    The header's metadata are left out: the library writes them in an order that changes from process to process.
    """
    found, _ = manifest.newest_good(run.checkpoints)
    path = None if found is None else found / "model.safetensors"
    if path is None or not path.is_file():
        return None
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        return header, hashlib.file_digest(file, "sha256").hexdigest()


def smoke(engine: Engine, name: str, gpu: bool, out: Callable[[str], None] = print, **more: Any) -> bool:
    """Check the image of a package; whether it keeps all promises."""
    return Smoke(engine, find(engine, name), gpu, out=out, **more).run()
