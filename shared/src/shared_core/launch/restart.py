"""Whether a run that ended is worth starting again: it was preempted or killed, not finished and not mistaken.

`python -m shared_core.launch.restart RUNS PACKAGE NAME SINCE STATUS` says so to a shell: status 0 and the reason, or 1.
A launcher's status says little (torchrun gives 1 for everything), so the run's own status.json counts as well.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from shared_core import records
from shared_core.signals import EXIT_PREEMPTED

_BY_HAND = {signal.SIGINT, signal.SIGQUIT}


def reason(home: Path, name: str, since: float, status: int) -> str | None:
    """Why to start run `name` below `home` (runs/PACKAGE) again, or None.

    `status` is the exit status of what ran it (negative, or above 128: the signal that ended it); a status.json from
    before `since` (seconds since the epoch) speaks of an earlier attempt.
    """
    if status in (0, 2, 128 + signal.SIGINT):
        return None
    if status == EXIT_PREEMPTED:
        return "preempted"
    number = -status if status < 0 else status - 128
    if 0 < number < signal.NSIG:
        return None if number in _BY_HAND else f"killed by signal {number}"
    return _by_status_file(home, name, since)


def _by_status_file(home: Path, name: str, since: float) -> str | None:
    found = records.series(home, name)
    if not found:
        return None
    run = records.RunDir(max(found)[1])
    file = run.path / "status.json"
    if not file.is_file() or file.stat().st_mtime < since:
        return None
    about = run.read_status()
    state, why = about.get("state"), str(about.get("reason", ""))
    if state == "preempted":
        return "preempted"
    if state == "running":
        return "killed"
    return "lost a process" if state == "failed" and why.startswith("lost another process") else None


def main(argv: list[str]) -> int:
    """RUNS PACKAGE NAME SINCE STATUS."""
    runs, package, name, since, status = argv
    why = reason(Path(runs) / package, name, float(since), int(status))
    if why:
        print(why)
    return 0 if why else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
