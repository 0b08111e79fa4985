"""Training numbers between two log rows, summed on the device and read once."""

import time

import torch


class Window:
    """Sums of logged scalars; `read` is the only place where the host waits for the device.

    Steps whose gradient was not finite are counted and left out of the means.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._names: list[str] = []
        self._sums: torch.Tensor | None = None
        self.restart()

    def restart(self) -> None:
        self._sums, self._steps, self._samples, self._waited = None, 0, 0, 0.0
        self._began = time.perf_counter()

    def waited(self, seconds: float) -> None:
        """Time spent waiting for the next batch."""
        self._waited += seconds

    @torch.no_grad()
    def add(self, values: dict[str, torch.Tensor], bad: torch.Tensor, samples: int) -> None:
        """One optimizer step: scalars on the device, the flag (0 or 1) of a skipped step, samples of all processes."""
        if self._names != list(values):
            self._names = list(values)
        row = torch.stack([*(v.detach().float() for v in values.values()), bad])
        row = torch.where(bad > 0, self._skipped_row(len(row)), row)
        self._sums = row if self._sums is None else self._sums + row
        self._steps, self._samples = self._steps + 1, self._samples + samples

    def _skipped_row(self, length: int) -> torch.Tensor:
        row = torch.zeros(length, device=self.device)
        row[-1] = 1.0
        return row

    def read(self) -> tuple[dict[str, float], int]:
        """Means of this process since `restart`, with samples/s and the share of time waited for data; skipped steps."""
        if self._sums is None:
            return {}, 0
        *sums, bad = self._sums.tolist()
        counted = self._steps - int(bad)
        values = {name: total / counted for name, total in zip(self._names, sums, strict=True)} if counted else {}
        seconds = max(time.perf_counter() - self._began, 1e-9)
        values |= {"samples_per_s": self._samples / seconds, "data_wait": self._waited / seconds}
        self.restart()
        return values, int(bad)
