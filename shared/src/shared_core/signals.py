"""SIGTERM and Ctrl-C: the first asks for a checkpoint, the second stops at once."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

EXIT_PREEMPTED = 75  # EX_TEMPFAIL: "try again", what schedulers restart on


class StopSignals:
    """While active, `requested` turns true at the first signal; a second one ends the process by its default action.

    Handlers only set a flag: the trainer looks at it between steps, where a checkpoint is whole. One inside another
    begins with what the outer one was asked, and hands back what it was asked itself.
    """

    watched = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self._before = {number: signal.signal(number, self._handle) for number in self.watched}
            self.requested |= any(outer.requested for outer in self._outer())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for outer in self._outer():
            outer.requested |= self.requested

    def _outer(self) -> "list[StopSignals]":
        owners = (getattr(handler, "__self__", None) for handler in self._before.values())
        return [owner for owner in owners if isinstance(owner, StopSignals)]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.requested = True
