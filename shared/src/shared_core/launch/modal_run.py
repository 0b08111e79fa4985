"""What happens in a container on Modal: the run, and after every checkpoint the volume's commit that makes it last."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from shared_core.launch import restart
from shared_core.launch.plan import SHUTDOWN, WORKSPACE

CONFIG = PurePosixPath("/tmp/launch")  # where a configuration that was sent along is put
_EVERY = 5.0  # seconds between looks at the checkpoints
_LAST = 25.0  # seconds to end in when Modal takes the container away, of the 30 that it gives


class InterruptedRunError(Exception):
    """The run was preempted or killed: worth another attempt, which goes on from the last checkpoint."""


def start(
    words: list[str],
    module: str,
    run: Path,
    processes: int,
    config: dict[str, str],
    seconds: int,
    commit: Callable[[], object],
    folder: Path = Path(WORKSPACE),
) -> int:
    """Run `words` of a module in `folder`, and commit whenever `latest` of the run `run` (NAME, NAME-2 ...) moves.

    After `seconds` the run is asked for a checkpoint, before Modal ends the attempt without asking.

    Returns the exit status of a run that there is no use in repeating, good or bad.

    Raises InterruptedRunError: it ended, but is neither finished nor mistaken.
    """
    for name, text in config.items():
        Path(CONFIG).mkdir(parents=True, exist_ok=True)
        (Path(CONFIG) / Path(name).name).write_text(text)
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(several if processes > 1 else []), "-m", module, *words]
    since = time.time()
    # a session of its own: it gets one SIGTERM from here, and no signal that is meant for Modal's own program
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, **SHUTDOWN}, start_new_session=True)
    try:
        status = _wait(process, folder / run, time.monotonic() + seconds, commit)
    finally:
        if process.poll() is None:  # the container is being taken away
            process.terminate()
            try:
                process.wait(timeout=_LAST)
            except subprocess.TimeoutExpired:
                process.kill()
        commit()
    home = (folder / run).parent
    if why := restart.reason(home, run.name, since, status):
        raise InterruptedRunError(f"{why}; the next attempt goes on from the last checkpoint")
    return status if status >= 0 else 128 - status


def _wait(process: subprocess.Popen[bytes], run: Path, until: float, commit: Callable[[], object]) -> int:
    seen, is_asked = _pointers(run), False
    while True:
        try:
            return process.wait(timeout=_EVERY)
        except subprocess.TimeoutExpired:
            if time.monotonic() > until and not is_asked:
                process.terminate()
                is_asked = True
            now = _pointers(run)
            if now != seen:
                commit()
            seen = now


def _pointers(run: Path) -> dict[Path, str]:
    """What `latest` says in every folder that the run may have; it is written after the whole checkpoint."""
    found = {}
    for file in run.parent.glob(f"{run.name}*/checkpoints/latest"):
        try:
            found[file] = file.read_text()
        except OSError:  # replaced at this instant
            continue
    return found
