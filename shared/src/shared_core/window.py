"""Training numbers between two log rows, summed on the device and read once."""

import time

import torch


class Window:
    """Logged scalars of each step; `read` is the only place where the host waits for the device.

    Steps whose gradient was not finite are counted and left out of the means.
    """

    FOLD = 256  # rows kept before they are summed up, so that a long window takes no memory

    def __init__(self) -> None:
        self._names: list[str] = []
        self.restart()

    def restart(self) -> None:
        self._rows: list[torch.Tensor] = []
        self._sums: torch.Tensor | None = None
        self._steps, self._samples, self._waited = 0, 0, 0.0
        self._began = time.perf_counter()

    def waited(self, seconds: float) -> None:
        """Time spent waiting for the next batch."""
        self._waited += seconds

    def add(self, values: dict[str, torch.Tensor], bad: torch.Tensor, samples: int) -> None:
        """One optimizer step: scalars on the device, the flag (0 or 1) of a skipped step, samples of all processes."""
        self._names = list(values)
        # a copy: a task may log a parameter, which the next step changes in place
        self._rows.append(torch.stack([*(v.detach().float() for v in values.values()), bad]))
        self._steps, self._samples = self._steps + 1, self._samples + samples
        if len(self._rows) == self.FOLD:
            self._fold()

    def _fold(self) -> None:
        """Sum the rows up, on the device: a few operations for many steps, not a few for each."""
        rows = torch.stack(self._rows)
        values, bad = rows[:, :-1], rows[:, -1:]
        sums = torch.cat([torch.where(bad > 0, 0.0, values), bad], dim=1).sum(dim=0)
        self._rows, self._sums = [], sums if self._sums is None else self._sums + sums

    def read(self) -> tuple[dict[str, float], int]:
        """Means since `restart`, with samples/s and the share of time waited for data; and the skipped steps."""
        if self._rows:
            self._fold()
        if self._sums is None:
            return {}, 0
        *sums, bad = self._sums.tolist()
        counted = self._steps - int(bad)
        values = {name: total / counted for name, total in zip(self._names, sums, strict=True)} if counted else {}
        seconds = max(time.perf_counter() - self._began, 1e-9)
        values |= {"samples_per_s": self._samples / seconds, "data_wait": self._waited / seconds}
        self.restart()
        return values, int(bad)
