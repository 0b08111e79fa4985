"""A trace of a few training steps, for chrome://tracing or https://ui.perfetto.dev."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

SKIPPED, TRACED = 3, 3  # steps; the first ones allocate memory and pick kernels


@contextmanager
def profiler(folder: Path, enabled: bool) -> Iterator[Callable[[], None]]:
    """Yields a function to call after every step; writes `folder`/trace.json once the traced steps are over."""
    if not enabled:
        yield lambda: None
        return
    folder.mkdir(parents=True, exist_ok=True)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(
        activities=activities,
        schedule=torch.profiler.schedule(wait=SKIPPED - 1, warmup=1, active=TRACED, repeat=1),
        on_trace_ready=lambda trace: trace.export_chrome_trace(str(folder / "trace.json")),
        record_shapes=True,
    ) as profile:
        yield profile.step
