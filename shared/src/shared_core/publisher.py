"""Publishing while training: checkpoints go to the Hub from a process of their own, one at a time.

A process, not a thread: it can be ended at any instant, so neither a step nor the end of a run ever waits for a Hub
that hangs, and it takes nothing of the training's interpreter, memory or GPU. It reads the checkpoint from disk; until
it is done, `Checkpoints.in_use` keeps that checkpoint from being rotated away. What came of it stands in hub.json, what
it printed in publish.log. `python -m shared_core.publisher` is that process; it ends with the training, however that
ends.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from shared_core import files, hubnotes, progress
from shared_core.errors import UserError
from shared_core.settings import Hub

if TYPE_CHECKING:
    from shared_core.records import RunDir

_LOOK_SECONDS = 0.05
_END_SECONDS = 5.0  # a killed process is gone long before


class Publisher:
    """Publishes one run's checkpoints as they come; a context manager, whose end ends what is under way.

    Args:
        wanted: what is asked for; nothing is ever published without `repo`.
        enabled: False in all but the main process.
        only_at_end: a run of several models, which can be published when all of them have been trained.
    """

    def __init__(self, wanted: Hub, run: RunDir, enabled: bool = True, only_at_end: bool = False) -> None:
        self.wanted, self.run, self.only_at_end = wanted, run, only_at_end
        self.enabled = enabled and wanted.repo is not None
        self.in_use: set[Path] = set()  # shared with the run's `Checkpoints`
        self.say: Callable[[str], None] = lambda text: None  # where a failure is told
        self._process: subprocess.Popen[bytes] | None = None
        self._current: Path | None = None
        self._next: Path | None = None
        self._told: str | None = None  # the failure that was told last

    def is_due(self, epoch: int | None, best: bool) -> bool:
        """Whether the checkpoint after so many epochs (None: within one) is to be published, the same on every process.

        `best`: it is the best so far."""
        if self.wanted.repo is None or self.only_at_end:
            return False
        every = self.wanted.every_epochs
        return best if every is None else epoch is not None and epoch % every == 0

    def offer(self, checkpoint: Path) -> None:
        """Publish a checkpoint as soon as nothing else is under way, unless a newer one comes before."""
        if not self.enabled or self.only_at_end:
            return
        if self._next is not None:
            self.in_use.discard(self._next)
        self._next = checkpoint
        self.in_use.add(checkpoint)
        self.poll()

    def resume(self, best: Path | None, newest: Path, epoch: int | None) -> None:
        """`offer` what was due when an earlier start ended, unless it has been published.

        Args:
            newest: the checkpoint that training goes on from.
            epoch: how many epochs are done; None inside one.
        """
        due = epoch is not None and self.is_due(epoch, best=False)
        checkpoint = best if self.wanted.every_epochs is None else (newest if due else None)
        pushed = [
            note.get("checkpoint")
            for note in hubnotes.read(self.run.path)
            if (note.get("state"), note.get("repo")) == ("pushed", self.wanted.repo)
        ]
        if checkpoint is not None and checkpoint.name not in pushed:
            self.offer(checkpoint)

    def poll(self) -> None:
        """Look whether the upload is over, and begin the next; takes no time."""
        if self._process is not None and self._process.poll() is not None:
            self._ended()
        if self._process is None and self._next is not None:
            self._start(self._next)
            self._next = None

    def finish(self, is_asked_to_stop: Callable[[], bool]) -> str | None:
        """Publish the run's best checkpoint with all that has been measured; None, or why that failed.

        Waits for at most `wait_minutes`, and not when asked to stop.
        """
        if not self.enabled:
            return None
        deadline = time.monotonic() + 60 * self.wanted.wait_minutes
        self._forget_next()
        for is_last in (False, True):  # what is under way has sent most of the weights already
            if is_last:
                self._told = None
                self._start(Path("best"))
            while self._process is not None and self._process.poll() is None:
                if (told := is_asked_to_stop()) or time.monotonic() > deadline:
                    late = f"not done within {self.wanted.wait_minutes:g} minutes (hub.wait_minutes)"
                    reason = "the process was told to stop" if told else late
                    self.stop(reason)
                    return reason
                time.sleep(_LOOK_SECONDS)
            if self._process is not None:
                self._ended()
        return self._told

    def stop(self, reason: str = "the training ended") -> None:
        """End what is under way at once; the Hub keeps what it has, and the next push goes on from there."""
        self._forget_next()
        if self._process is None:
            return
        checkpoint = self._current.name if self._current else ""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_END_SECONDS)
        pushed = self._process.returncode == 0
        self._release()
        files.remove(self.run.path / ".publication")
        if not pushed:
            note = {"repo": self.wanted.repo, "state": "interrupted", "checkpoint": checkpoint, "reason": reason}
            with contextlib.suppress(UserError):  # a full disk must not hide how the training ended
                hubnotes.add(self.run.path, note)

    def __enter__(self) -> Publisher:
        if self.enabled and self.only_at_end:
            progress.message(f"hub.repo: several models are published when all have been trained ({self.wanted.repo})")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self, checkpoint: Path) -> None:
        command = [sys.executable, "-m", "shared_core.publisher", str(self.run.path), str(self.wanted.repo)]
        command += [str(checkpoint), str(self.wanted.private)]
        try:
            with (self.run.path / "publish.log").open("ab") as log:
                # by its standard input it notices that the training is gone; its own session keeps Ctrl-C from it
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
                    env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
                )  # fmt: skip
            self._current = checkpoint
        except OSError as error:  # no memory for a process, no place for its log
            self.in_use.discard(checkpoint)
            self._tell(checkpoint, str(files.explain(error, self.run.path)))

    def _ended(self) -> None:
        """Take notice of an upload that is over."""
        assert self._process is not None
        status, checkpoint = self._process.returncode, self._current
        self._release()
        if status == 0:
            self._told = None
            return
        reason = f"its process ended with status {status}; see publish.log"
        if status == 2 and (lines := (self.run.path / "publish.log").read_text(errors="replace").splitlines()):
            reason = lines[-1].removeprefix("error: ")
        if hubnotes.last(self.run.path).get("reason") != reason:  # else it has noted this itself
            note = {"repo": self.wanted.repo, "state": "failed", "checkpoint": str(checkpoint), "reason": reason}
            with contextlib.suppress(UserError):
                hubnotes.add(self.run.path, note)
        self._tell(checkpoint, reason)

    def _tell(self, checkpoint: Path | None, reason: str) -> None:
        if reason != self._told:  # a Hub that is down for hours needs one line
            self._told = reason
            self.say(f"{checkpoint.name if checkpoint else 'checkpoint'} was not published: {reason}")

    def _release(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        if self._current is not None and self._current != self._next:
            self.in_use.discard(self._current)
        self._process = self._current = None

    def _forget_next(self) -> None:
        if self._next is not None:
            self.in_use.discard(self._next)
            self._next = None


def main(arguments: list[str]) -> int:
    """Push one checkpoint: run, repository, checkpoint, private."""
    from shared_core import hub

    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(OSError, AttributeError):  # not on every system
        os.nice(10)  # the training's own workers come first
    run, repo, checkpoint, private = arguments
    try:
        print(hub.push(Path(run), repo, private=private == "True", checkpoint=checkpoint), flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    return 0


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns when the other end is closed, as the kernel does for a killed process too
    os._exit(1)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
