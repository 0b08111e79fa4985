"""One line that says how far a run is and how long it will still take.

On a terminal the line is redrawn in place. Anywhere else (a pipe, `nohup ... > log`) a plain line comes about
every ten seconds, so that `tail -f` shows the same thing.
"""

from __future__ import annotations

import math
import shutil
import sys
import time
from types import TracebackType
from typing import TextIO

REDRAW_SECONDS = 0.1
LINE_SECONDS = 10.0
_MEASURED_SECONDS = 0.5  # a shorter interval says nothing about the speed
_MEMORY_SECONDS = 30.0  # the speed shown is that of about this long

_active: Bar | None = None  # the bar that owns the last terminal line, if there is one


def message(text: str) -> None:
    """Print `text` to standard error, above the bar where one is drawn."""
    if _active is not None:
        _active.message(text)
    else:
        print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """`75.2 -> "1:15"`, `3675 -> "1:01:15"`, more than two days: `"3d 04h"`."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    if hours >= 48:
        return f"{hours // 24}d {hours % 24:02d}h"
    if hours:
        return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
    return f"{rest // 60}:{rest % 60:02d}"


def number(value: float | str) -> str:
    """A number in at most about seven characters; strings pass as they are."""
    if isinstance(value, str):
        return value
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 1e-3:
        return f"{value:.4g}"
    return f"{value:.2e}"


class Bar:
    """Progress over `total` steps; usable as a context manager.

    Args:
        total: number of steps at the end, or None where it is not known (then there is no ETA).
        enabled: False draws nothing (every process but the first, `logging.progress: false`); messages still print.
        description: the word in front.
        start: steps already done before this process began (a resumed run), which took none of its time.
        unit: what is counted, for the speed.
        stream: standard error by default, so that standard output stays clean for results.
    """

    def __init__(
        self,
        total: int | None,
        enabled: bool = True,
        description: str = "",
        *,
        start: int = 0,
        unit: str = "steps",
        stream: TextIO | None = None,
    ) -> None:
        self._total, self._enabled, self._description, self._unit = total, enabled, description, unit
        self._stream = stream or sys.stderr
        self._tty = bool(getattr(self._stream, "isatty", lambda: False)())
        self._interval = REDRAW_SECONDS if self._tty else LINE_SECONDS
        self._blocks = "━─" if _can_encode(self._stream, "━─") else "#-"
        self._step, self._numbers = start, dict[str, float | str]()
        self._began = self._marked = time.monotonic()
        self._start = self._marked_step = start
        self._recent_steps = self._recent_seconds = 0.0
        self._drawn_at = self._began - self._interval  # the first update draws at once
        self._drawn_step: int | None = None
        self._closed = False
        global _active
        if enabled and self._tty:
            _active = self

    def update(self, step: int, **numbers: float | str) -> None:
        """`step` steps are done; `numbers` are shown beside the bar and stay until they are replaced.

        A name that repeats the description (`train/loss` of the bar "train") is shown without it.
        """
        self._step = step
        self._numbers.update(numbers)
        if self._enabled and time.monotonic() - self._drawn_at >= self._interval:
            self._draw()

    def message(self, text: str) -> None:
        """Print a line without tearing the bar."""
        if self._enabled and self._tty and not self._closed:
            self._stream.write("\r\x1b[K")
        print(text, file=self._stream, flush=True)
        if self._enabled and self._tty and not self._closed and self._drawn_step is not None:
            self._draw()

    def close(self) -> None:
        """Draw the last state and leave it on the screen. Further calls do nothing."""
        global _active
        if self._closed:
            return
        if self._enabled and (self._tty or self._drawn_step != self._step):
            self._draw()
        if self._enabled and self._tty:
            self._stream.write("\n")
            self._stream.flush()
        self._closed = True
        if _active is self:
            _active = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _draw(self) -> None:
        now = time.monotonic()
        self._measure(now)
        self._drawn_at, self._drawn_step = now, self._step
        line = self._line(now)
        self._stream.write(f"\r{line}\x1b[K" if self._tty else f"{line}\n")
        self._stream.flush()

    def _measure(self, now: float) -> None:
        """Add what was done since the last measurement to the recent steps and seconds.

        Both fade with time, so an interval counts by its length: an early first update weighs next to nothing.
        """
        steps, seconds = self._step - self._marked_step, now - self._marked
        if steps <= 0 or seconds < _MEASURED_SECONDS:
            return
        kept = math.exp(-seconds / _MEMORY_SECONDS)
        self._recent_steps = kept * self._recent_steps + steps
        self._recent_seconds = kept * self._recent_seconds + seconds
        self._marked, self._marked_step = now, self._step

    def _rate(self, now: float) -> float:
        """Steps per second: the recent ones, at the end those of all the time of this process; 0 where unknown."""
        steps, seconds = self._recent_steps, self._recent_seconds
        if self._step == self._total:
            steps, seconds = self._step - self._start, now - self._began
        return steps / seconds if seconds else 0.0

    def _line(self, now: float) -> str:
        elapsed = duration(now - self._began)
        names = {name: name.removeprefix(f"{self._description}/").replace("_", " ") for name in self._numbers}
        parts = [f"{names[name]} {number(value)}" for name, value in self._numbers.items()]
        rate = self._rate(now)
        if rate:
            slow = f"{number(1 / rate)} s/{self._unit.removesuffix('s')}"
            parts.append(f"{number(rate)} {self._unit}/s" if rate >= 1 else slow)
        if self._total is None:
            return self._fit([self._description, f"{self._step:,}", *parts, elapsed])
        left = max(0, self._total - self._step)
        if left == 0:
            parts.append(f"took {elapsed}")
        elif rate:
            parts.append(f"ETA {duration(left / rate)}")
        share = min(1.0, self._step / self._total) if self._total else 1.0
        head = [self._description] if self._description else []
        if self._tty:
            head.append(self._drawing(share))
        return self._fit([*head, f"{share:4.0%}", f"{self._step:,}/{self._total:,}", *parts])

    def _drawing(self, share: float) -> str:
        cells = 20
        done = int(share * cells)
        return self._blocks[0] * done + self._blocks[1] * (cells - done)

    def _fit(self, parts: list[str]) -> str:
        """Join the parts; on a narrow terminal the ones before the last (the ETA) give way."""
        parts = [part for part in parts if part]
        if not self._tty:
            return "  ".join(parts)
        width = shutil.get_terminal_size().columns - 1
        while len("  ".join(parts)) > width and len(parts) > 2:
            del parts[-2]
        return "  ".join(parts)[:width]


def _can_encode(stream: TextIO, text: str) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
