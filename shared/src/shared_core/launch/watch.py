"""Runs a command, and starts it again when it was preempted or killed; a signal goes on to it and ends the repeating.

`python -m shared_core.launch.watch --run RUNS/PACKAGE/NAME [--restarts N] [--seconds T] -- COMMAND ...`
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from shared_core.launch import restart


class Watch:
    """One command under watch: `run` is the folder of the run, `seconds` the time after which it is asked to stop."""

    def __init__(self, command: list[str], run: Path, restarts: int = 0, seconds: int | None = None) -> None:
        self.command, self.run, self.restarts = command, run, restarts
        self.until = time.monotonic() + seconds if seconds else None
        self.told_to_stop = False
        self.has_passed_it_on = False
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> int:
        """Run it, as often as needed; the last exit status."""
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            for left in range(self.restarts, -1, -1):
                since = time.time()
                status = self._attempt()
                why = None if self.told_to_stop else restart.reason(self.run.parent, self.run.name, since, status)
                if why is None or not left:
                    break
                print(f"{why}: starting again, {left} of {self.restarts} restarts left", file=sys.stderr, flush=True)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return status if status >= 0 else 128 - status

    def _attempt(self) -> int:
        # a session of its own: Ctrl-C reaches it through us alone, for a second signal would cut its checkpoint short
        self.process = subprocess.Popen(self.command, start_new_session=True)
        if self.told_to_stop and not self.has_passed_it_on:  # while there was no process
            self.process.terminate()
        try:
            return self.process.wait(None if self.until is None else max(0.0, self.until - time.monotonic()))
        except subprocess.TimeoutExpired:
            print("the time is over: asking for a checkpoint", file=sys.stderr, flush=True)
            self.told_to_stop = True
            self.process.terminate()
            return self.process.wait()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.told_to_stop = True
        if self.process is not None and self.process.returncode is None:
            self.has_passed_it_on = True
            self.process.send_signal(number)


def main(argv: list[str]) -> int:
    """The command line above."""
    parser = argparse.ArgumentParser(prog="python -m shared_core.launch.watch", description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--restarts", type=int, default=0)
    parser.add_argument("--seconds", type=int)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(argv)
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    return Watch(command, given.run, given.restarts, given.seconds).start()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
