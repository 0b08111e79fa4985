"""Line plots per second on one core: ours, and the ways there are to draw with matplotlib or to read what was drawn.

    python packages/timeseries-dualmodal/benchmarks/render.py [--size 224] [--steps 37] [--repeats 7]

All draw the same series: smooth seasons with a little noise, and noise over the full height. "predecessor" is what the
project did whose guide this package re-implements: a new figure for every picture, saved as PNG, opened and resized.
"its PNG" is the loader of its cache, "the cache" that of ours (`coding`), both without the disk. Ours is timed from
values to coverage (`Plots.coverage`), in batches, and so are prefixes, which training draws. Seconds are the process's
own CPU seconds, on one thread; all take turns, so that whatever else the machine does hits them alike, and ratios are
taken within each turn.

Then, how far the pictures are from those of matplotlib's renderer, which is asked for the same lines.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from statistics import median

import matplotlib

matplotlib.use("agg")

import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.transforms import IdentityTransform
from PIL import Image

from shared_core.measured import load, processor
from timeseries_dualmodal import coding, raster_torch
from timeseries_dualmodal.plots import Axes, Plots

WIDTH = 2 * 100 / 72  # pixels: the predecessor's two points at 100 dots per inch
FEW, MANY = 12, 256  # pictures of a turn, for what is slow and for what is not
Work = tuple[int, Callable[[], object]]  # how many pictures, and what draws them


def season(count: int, steps: int) -> np.ndarray:
    """Double-logistic curves with a little noise, (count, steps)."""
    rng = np.random.default_rng(0)
    when = np.linspace(0, 1, steps)
    up = rng.uniform(0.2, 0.4, (count, 1))
    down = up + rng.uniform(0.2, 0.4, (count, 1))
    rates = rng.uniform(12, 30, (2, count, 1))
    curve = 1 / (1 + np.exp((up - when) * rates[0])) - 1 / (1 + np.exp((down - when) * rates[1]))
    return 0.15 + rng.uniform(0.4, 0.75, (count, 1)) * curve + rng.normal(0, 0.015, curve.shape)


def noise(count: int, steps: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, (count, steps))


def predecessor(values: np.ndarray, size: int) -> Image.Image:
    """A new figure of 4 inches at 100 dots per inch, saved as PNG without its frame, opened and resized."""
    figure, axes = pyplot.subplots(figsize=(4, 4), dpi=100)
    axes.plot(values, linewidth=2, color="#1f77b4")
    axes.axis("off")
    pyplot.tight_layout(pad=0)
    png = io.BytesIO()
    figure.savefig(png, bbox_inches="tight", pad_inches=0)
    pyplot.close(figure)
    return Image.open(png).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)


def cached(picture: Image.Image) -> bytes:
    """The PNG that lies in its cache."""
    png = io.BytesIO()
    picture.save(png, "PNG", optimize=True)
    return png.getvalue()


def tensor(picture: Image.Image) -> torch.Tensor:
    """Float32 (3, H, W) in 0..1."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).contiguous().float() / 255


def reused_figure(values: np.ndarray, size: int) -> Callable[[], None]:
    """One figure whose line is moved, drawn and read."""
    figure = Figure(figsize=(size / 100, size / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, values.shape[1] - 1), ylim=(0, 1))
    axes.axis("off")
    (line,) = axes.plot(values[0], linewidth=2)

    def draw() -> None:
        for series in values:
            line.set_ydata(series)
            canvas.draw()
            np.asarray(canvas.buffer_rgba())

    return draw


def agg(x_NP: np.ndarray, y_NP: np.ndarray, size: int) -> np.ndarray:
    """Coverage by matplotlib's renderer alone, of points in pixels: uint8 (N, size, size)."""
    renderer = RendererAgg(size, size, 72)
    pen = renderer.new_gc()
    pen.set_linewidth(WIDTH)
    pen.set_capstyle("round")
    pen.set_joinstyle("round")
    picture_NHW = np.empty((len(x_NP), size, size), np.uint8)
    for picture, x_P, y_P in zip(picture_NHW, x_NP, y_NP, strict=True):
        renderer.clear()
        renderer.draw_path(pen, Path(np.column_stack([x_P, size - y_P])), IdentityTransform())
        picture[:] = np.asarray(renderer.buffer_rgba())[..., 3]
    return picture_NHW


def plots(steps: int, size: int) -> Plots:
    unit = Axes(0.0, steps - 1.0, np.zeros(1, np.float32), np.ones(1, np.float32))
    return Plots(unit, np.arange(steps, dtype=np.float64), size, WIDTH)


def works(values: np.ndarray, size: int) -> dict[str, Work]:
    """What is timed, by the name of its row; the predecessor comes first."""
    steps = values.shape[1]
    ours, few = plots(steps, size), values[:FEW]
    x_BVT, whole = torch.from_numpy(values).float()[:, None], torch.full((len(values),), steps)
    x_NP, y_NP = (points.flatten(0, 1) for points in ours.points(x_BVT, whole))
    some_x, some_y = x_NP[:64], y_NP[:64]
    pngs = [cached(predecessor(series, size)) for series in few]
    found: dict[str, Work] = {
        "predecessor": (FEW, lambda: [tensor(predecessor(series, size)) for series in few]),
        "matplotlib, one figure reused": (64, reused_figure(values[:64], size)),
        "matplotlib's renderer alone": (64, lambda: agg(some_x.numpy(), some_y.numpy(), size)),
        "reading its PNG": (5 * FEW, lambda: [tensor(Image.open(io.BytesIO(png))) for _ in range(5) for png in pngs]),
        "ours in torch, on the CPU": (64, lambda: raster_torch.draw(some_x, some_y, size, WIDTH)),
        "ours": (MANY, lambda: ours.coverage(x_BVT, whole)),
    }
    drawn = ours.coverage(x_BVT, whole)[:, 0].numpy()
    data = np.empty(coding.MOST_PER_PIXEL * drawn.size + coding.MOST_BESIDES, np.uint8)
    ends = coding.pack(drawn, data)
    places = (np.concatenate([[0], ends[:-1]]), ends, np.arange(len(drawn)))
    found["reading ours from the cache"] = (MANY, lambda: coding.unpack(data, *places, np.empty_like(drawn)))
    for length in (steps // 3, steps // 2):
        early = torch.full((len(values),), length)
        found[f"ours, the first {length} steps"] = (MANY, lambda early=early: ours.coverage(x_BVT, early))
    return found


def rates(todo: dict[str, Work], repeats: int) -> dict[str, list[float]]:
    """Pictures per CPU second of each, turn by turn, after one to warm up."""
    found: dict[str, list[float]] = {name: [] for name in todo}
    for turn in range(repeats + 1):
        for name, (count, work) in todo.items():
            times = 1 if count < MANY else 8
            began = time.process_time()
            for _ in range(times):
                work()
            if turn:
                found[name].append(times * count / (time.process_time() - began))
    return found


def table(found: dict[str, list[float]]) -> str:
    wide = max(map(len, found))
    first = next(iter(found.values()))
    lines = [f"{'':{wide}} {'best':>9} {'median':>9} {'ratio':>8}"]
    for name, speeds in found.items():
        ratio = median(speed / slow for speed, slow in zip(speeds, first, strict=True))
        lines.append(f"{name:{wide}} {max(speeds):9,.0f} {median(speeds):9,.0f} {ratio:8,.1f}")
    return "\n".join(lines)


def fidelity(values: np.ndarray, size: int) -> str:
    """How far our pictures are from Agg's, over the pixels that either inks; decibels are over all pixels."""
    ours = plots(values.shape[1], size)
    x_BVT, whole = torch.from_numpy(values).float()[:, None], torch.full((len(values),), values.shape[1])
    picture = ours.coverage(x_BVT, whole)[:, 0].numpy().astype(float)
    expected = agg(*(points[:, 0].numpy() for points in ours.points(x_BVT, whole)), size)
    error, inked = np.abs(picture - expected), (picture > 0) | (expected > 0)
    decibels = 10 * np.log10(255**2 / (error**2).mean())
    return (
        f"mean error of inked pixels {error[inked].mean():.2f}/255, largest {error.max():.0f}, PSNR {decibels:.1f} dB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--size", type=int, default=224, help="width and height in pixels")
    parser.add_argument("--steps", type=int, default=37)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{processor()}, one thread, load {load()}; {options.size} x {options.size} pixels, {options.steps} steps")
    for name, make in (("seasons", season), ("full-range noise", noise)):
        values = make(MANY, options.steps)
        print(f"\n{name}: pictures per second, {options.repeats} turns; ratio to the predecessor")
        print(table(rates(works(values, options.size), options.repeats)))
        print(f"against Agg: {fidelity(values, options.size)}")


if __name__ == "__main__":
    main()
