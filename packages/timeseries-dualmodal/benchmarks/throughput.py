"""Training samples per second by where the pictures come from: drawn when needed, our cache, PNG files.

    python packages/timeseries-dualmodal/benchmarks/throughput.py [--setups default large vit] [--turns 5]

All three train the same model on the same batches of generated seasons, whose prefixes have lengths that the caches
have. They take turns, so that whatever else the machine does hits them alike, and ratios are taken within each turn. On
a CPU seconds are the process's own CPU seconds, on one thread.

The PNG files are those of the project whose guide this package re-implements: coloured lines, RGB, optimised,
``time_6/sample_0_variate_0.png``, opened one by one by the process that trains (PIL, RGB, float (3, H, W)). The model
is then shown their red channel, as it takes one; it makes no difference to the time. All files are in memory after the
first turn, which does not count: a disk would only add to the time of those that read.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from shared_core import measured
from shared_core.measured import spread
from shared_core.runtime import Runtime
from shared_core.settings import Runtime as Settings
from timeseries_dualmodal import cachewriter, division, imagecache, readers, train
from timeseries_dualmodal.config import Config
from timeseries_dualmodal.data_config import Data, Split
from timeseries_dualmodal.plots import Plots, colours, paint
from timeseries_dualmodal.prefixes import Seen
from timeseries_dualmodal.sight import Cached, Eyes

SERIES, SCALES = 50, (6, 12, 18)  # the least that prepare generates; every batch is then shown from memory
Batch = dict[str, torch.Tensor]


class Setup(NamedTuple):
    """A model and its pictures."""

    what: str
    batch: int
    steps: int  # in a turn
    config: dict[str, object]


SMALL_VIT = {"tower": "small_vit", "patch": 16, "dim": 192, "depth": 12, "heads": 3}
SETUPS = {
    "default": Setup("the default model, 64 pixels", 16, 6, {}),
    "large": Setup("the default model, 224 pixels", 8, 2, {"pictures": {"size": 224, "line_width": 2.78}}),
    "vit": Setup(
        "a vision transformer of 12 layers, 224 pixels",
        4,
        1,
        {"pictures": {"size": 224, "line_width": 2.78}, "model": {"vision": SMALL_VIT}},
    ),
}


class Png:
    """Reads pictures as the predecessor's loader did."""

    def __init__(self, folder: Path, row_N: torch.Tensor) -> None:
        self.folder, self.row_N = folder, row_N

    def see(
        self, x_BVT: torch.Tensor, length_BK: torch.Tensor, row_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        series, variables = self.row_N[row_B.cpu()].tolist(), range(x_BVT.shape[1])
        pairs = zip(series, length_BK.tolist(), strict=True)
        wanted = [(row, length, v) for row, lengths in pairs for length in lengths for v in variables]
        rgb_N3HW = torch.stack([self._tensor(*one) for one in wanted]).to(x_BVT.device)
        red_NHW = (rgb_N3HW[:, 0] * 255).to(torch.uint8)
        return length_BK, red_NHW.view(*length_BK.shape, x_BVT.shape[1], *red_NHW.shape[1:])

    def _tensor(self, row: int, length: int, variable: int) -> torch.Tensor:
        path = self.folder / f"time_{length}" / f"sample_{row}_variate_{variable}.png"
        with Image.open(path) as picture:
            rgb_HW3 = np.array(picture.convert("RGB"))
        return torch.from_numpy(rgb_HW3).permute(2, 0, 1).contiguous().float() / 255


def write_png(folder: Path, plots: Plots, x_NVT: np.ndarray) -> None:
    palette_V3 = colours(x_NVT.shape[1])
    for scale in SCALES:
        (folder / f"time_{scale}").mkdir(parents=True)
        for row, x_VT in enumerate(torch.from_numpy(x_NVT)):
            rgb_V3HW = paint(plots.coverage(x_VT[None], torch.tensor([scale])), palette_V3)[0]
            for v, rgb_3HW in enumerate(rgb_V3HW):
                picture = Image.fromarray((rgb_3HW.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())
                picture.save(folder / f"time_{scale}" / f"sample_{row}_variate_{v}.png", "PNG", optimize=True)


def sources(task: train.EarlyTask, home: Path) -> dict[str, Eyes]:
    """What is compared, by the name of its row; the predecessor's comes last."""
    assert task.eyes is not None
    live, x_NVT, row_N = task.eyes, task.material.series.x, torch.from_numpy(task.material.parts["train"])
    cachewriter.write(home / "packed", live.plots, x_NVT, SCALES, "benchmark", bar=False)
    write_png(home / "png", live.plots, x_NVT)
    cache = imagecache.open_cache(home / "packed", "benchmark", live.plots)
    return {"drawn": live, "our cache": Cached(cache, row_N, live), "PNG files": Png(home / "png", row_N)}


def batches(task: train.EarlyTask) -> Iterator[Batch]:
    """Without pictures; every prefix is as long as one of the scales."""
    assert isinstance(task.batches, Seen)
    generator = torch.Generator().manual_seed(0)
    for epoch in itertools.count():
        for batch in task.batches.source.epoch(epoch):
            index_BK = torch.randint(len(SCALES), batch["length"].shape, generator=generator)
            yield {**batch, "length": torch.tensor(SCALES)[index_BK].to(batch["x"].device)}


def run(
    task: train.EarlyTask, optimizer: torch.optim.Optimizer, some: list[Batch], eyes: Eyes, device: torch.device
) -> tuple[float, float]:
    """(seconds of training steps, those of them until the pictures were there)."""
    pictures, began = 0.0, _now(device)
    for batch in some:
        started = _now(device)
        length, seen = eyes.see(batch["x"], batch["length"], batch["row"])
        pictures += _now(device) - started
        task.loss(task.model, {**batch, "length": length, "seen": seen})[0].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return _now(device) - began, pictures


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def measure(setup: Setup, runtime: Runtime, turns: int, home: Path) -> None:
    config = Config.model_validate({**setup.config, "training": {"batch_size": setup.batch}})
    series = readers.read(Data(sample_size=SERIES))
    material = train.Material(series, division.divide(series, Split()))
    task = train.EarlyTask(config, runtime, material)
    task.model.to(runtime.device).train()
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=0.0)
    found = sources(task, home)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
    stream = batches(task)
    for turn in range(turns + 1):
        some = list(itertools.islice(stream, setup.steps))
        for name, eyes in found.items():
            spent = run(task, optimizer, some, eyes, runtime.device)
            if turn:
                taken[name].append(spent)
    pictures = setup.batch * setup.steps * series.x.shape[1]
    print(
        f"\n{setup.what}; {turns} turns of {setup.steps} batches of {setup.batch} series "
        f"({setup.batch * series.x.shape[1]} pictures)"
    )
    print(table(taken, setup.batch * setup.steps, pictures))


def table(taken: dict[str, list[tuple[float, float]]], samples: int, pictures: int) -> str:
    png = taken["PNG files"]
    lines = [f"{'':10} {'samples/s':>22} {'ratio to PNG files':>24} {'share of pictures':>18} {'pictures/s':>11}"]
    for name, spent in taken.items():
        rate = spread([samples / whole for whole, _ in spent], ".1f")
        ratio = spread([theirs / ours for (ours, _), (theirs, _) in zip(spent, png, strict=True)], ".2f")
        share = median(part / whole for whole, part in spent)
        speed = median(pictures / part for _, part in spent)
        lines.append(f"{name:10} {rate:>22} {ratio:>24} {share:18.2%} {speed:11,.0f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--setups", nargs="+", choices=SETUPS, default=list(SETUPS))
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    runtime = Runtime.start(Settings(device=options.device, threads=1), seed=0)
    print(f"{measured.device(runtime.device)}; medians (smallest..largest)")
    for name in options.setups:
        with tempfile.TemporaryDirectory() as home:
            measure(SETUPS[name], runtime, options.turns, Path(home))


if __name__ == "__main__":
    main()
