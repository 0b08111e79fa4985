"""Figures in one house style, legible at 600 pixels and on a phone.

Every function writes one PNG atomically and returns its path. The title and the caption travel inside the file (PNG
text chunks), so that a report finds them: see `describe`. Matplotlib is imported on first use, without pyplot and its
global state.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shared_core import files, metrics
from shared_core.errors import UserError
from shared_core.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A6D3B", "#555555")
INK, GRID = "#30363d", "#d8dde3"
WIDTH = 5.2  # inches: 780 pixels at 150 dpi
MANY = 4  # lines; the names of more stand beside the panel, where they hide none
LETTERS = 10  # of a title, to an inch
DPI = 150
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": "#8b949e",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "axes.formatter.limits": (-4, 6),
}


@dataclass(frozen=True)
class Description:
    """What a figure's file says about itself."""

    title: str
    caption: str
    is_chart: bool  # False for photographs and the like, whose colours must stay as they are
    width: int  # pixels
    height: int


def describe(path: Path) -> Description:
    """Title, caption and size of a PNG; one from elsewhere has its file's name as title.

    Raises:
        UserError: the file is missing or no PNG.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=["PNG"]) as image:
            text = {key: str(value) for key, value in image.info.items()}
            width, height = image.size
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise UserError(f"{path}: cannot be read as PNG ({error}); draw it again with `evaluate`") from error
    title = text.get("Title", path.stem.replace("_", " "))
    return Description(title, text.get("Description", ""), text.get("Comment") == "chart", width, height)


def curves(
    rows: Iterable[Mapping[str, Any]] | Mapping[str, Iterable[Mapping[str, Any]]],
    path: Path,
    keys: Sequence[str] = ("train/loss", "val/loss"),
    *,
    title: str = "",
    caption: str = "",
    x: str = "step",
    log: bool = False,
) -> Path:
    """Columns of metrics.jsonl over `x`.

    Args:
        rows: the rows of one run, or {name of run: its rows} to compare several.
        keys: columns to draw; one that a run lacks is left out. Of several runs, the last column is the solid line and
            the others are dotted. Rows without a key are no gap in its line. Numbers that are not finite are marked by
            a cross at the foot of the panel.
        log: logarithmic values.
    """
    runs = {name: list(found) for name, found in rows.items()} if isinstance(rows, Mapping) else {"": list(rows)}
    keys = [key for key in keys if any(key in row for found in runs.values() for row in found)]
    with chart(path, title, caption, height=3.1) as (_, axes):
        for i, (name, found) in enumerate(runs.items()):
            for j, key in enumerate(keys):
                if name:  # one colour per run; the last column (the evaluation) is the solid line and the legend's
                    style = {"color": COLOURS[i % len(COLOURS)], "linestyle": "-" if key == keys[-1] else ":"}
                    _curve(axes, found, key, x, name if key == keys[-1] else "", style)
                else:
                    _curve(axes, found, key, x, key, {"color": COLOURS[j % len(COLOURS)], "linestyle": "-"})
        axes.set_xlabel(x)
        if log and math.isfinite(axes.dataLim.minposy):  # there is a positive value
            axes.set_yscale("log")
        named = len(keys) if "" in runs else len(runs)
        if named > MANY:
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
        elif len(keys) * len(runs) > 1:
            axes.legend(loc="best", fontsize=9)
        if not keys:
            axes.text(0.5, 0.5, "nothing logged yet", ha="center", transform=axes.transAxes)
    return path


def reliability(
    probabilities: ArrayLike,
    labels: ArrayLike,
    path: Path,
    *,
    bins: int = 15,
    title: str = "",
    groups: ArrayLike | None = None,
) -> Path:
    """Reliability diagram of a binary classifier: frequency of class 1 over predicted probability, and a histogram.

    `groups` are the sources that samples share, as in `metrics.binary`.
    """
    r = metrics.reliability_bins(probabilities, labels, bins, groups)
    ece = metrics.expected_calibration_error(probabilities, labels, bins)
    caption = (
        f"Each point is a bin of predictions with the 95 % Wilson interval of its frequency; on the diagonal, "
        f"probabilities mean what they say. Expected calibration error ({bins} bins): {ece:.4f}."
    )
    with chart(path, title or "Reliability", caption, height=4.6, rows=(3.2, 1)) as (_, axes):
        top, bottom = axes
        top.plot([0, 1], [0, 1], color="#8b949e", linewidth=1, linestyle="--")
        errors = [r.frequency - r.low, r.high - r.frequency]
        top.errorbar(r.probability, r.frequency, errors, fmt="o-", markersize=5, capsize=2.5, linewidth=1.3)
        top.set(ylabel="frequency of class 1", xlim=(0, 1), ylim=(0, 1))
        bottom.hist(np.asarray(probabilities), bins=bins, range=(0, 1), color=COLOURS[0], alpha=0.75)
        bottom.set(xlabel="predicted probability of class 1", ylabel="samples", xlim=(0, 1))
    return path


def confusion(matrix: ArrayLike, names: Sequence[str], path: Path, *, title: str = "", caption: str = "") -> Path:
    """Confusion matrix `(classes, classes)` of counts, rows the truth; coloured by share of the row."""
    counts = np.asarray(matrix)
    if counts.shape != (len(names), len(names)):
        raise UserError(f"confusion matrix of shape {counts.shape} does not fit {len(names)} class names")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    caption = caption or "Counts; the colour is the share of the true class."
    with chart(path, title or "Confusion", caption, height=WIDTH * 0.85) as (_, axes):
        _cells(axes, shares, (0, 1), [[f"{count:,}" for count in row] for row in counts])
        crowded = _crowded(names)
        axes.set_xticks(range(len(names)), names, rotation=45 if crowded else 0, ha="right" if crowded else "center")
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="predicted", ylabel="true")
    return path


def heatmap(
    matrix: ArrayLike,
    names: Sequence[str],
    path: Path,
    *,
    title: str = "",
    caption: str = "",
    limits: tuple[float, float] | None = None,
) -> Path:
    """Square matrix `(n, n)` of numbers between named things (agreement, correlation), each cell with its number.

    Args:
        names: of rows and columns alike, a dozen at most; where they are long, columns are named by numbers.
        limits: the numbers of the palest and the darkest colour; default: the smallest and the largest. NaN is blank.
    """
    values = np.asarray(matrix, dtype=float)
    if values.shape != (len(names), len(names)):
        raise UserError(f"{path}: matrix of shape {values.shape} does not fit {len(names)} names")
    if limits is None:
        if not np.isfinite(values).any():
            raise UserError(f"{path}: no finite number in the matrix; there is nothing to draw")
        limits = float(np.nanmin(values)), float(np.nanmax(values))
    if not limits[0] <= limits[1]:
        raise UserError(f"{path}: limits {limits[0]:g} to {limits[1]:g}: give the lower one first")
    columns, rows, height = list(names), list(names), 0.85 * WIDTH
    if _crowded(names):
        columns = [str(i + 1) for i in range(len(names))]
        rows, height = [f"{name}  {number}" for name, number in zip(names, columns, strict=True)], 0.76 * WIDTH
    texts = [["" if math.isnan(value) else f"{value:.2f}" for value in row] for row in values]
    with chart(path, title, caption, height=height) as (_, axes):
        _cells(axes, values, limits, texts)
        axes.set_xticks(range(len(names)), columns, fontsize=9)
        axes.set_yticks(range(len(names)), rows, fontsize=9)
    return path


def bars_with_intervals(
    estimates: Mapping[str, Estimate],
    path: Path,
    *,
    title: str = "",
    caption: str = "",
    xlabel: str = "",
    reference: float | None = None,
) -> Path:
    """Named estimates below each other: a dot, its interval, the number and n.

    The bar is the interval; a bar from zero would hide the differences.

    Args:
        reference: drawn as a vertical line (a baseline, the overall value).
    """
    if not estimates:
        raise UserError(f"{path}: no estimates to draw")
    names, values = list(estimates), list(estimates.values())
    with chart(path, title, caption or "Bars: 95 % intervals.", height=0.9 + 0.34 * len(names)) as (_, axes):
        y = np.arange(len(names))[::-1]
        if reference is not None:
            axes.axvline(reference, color="#8b949e", linewidth=1, linestyle="--")
        for position, estimate in zip(y, values, strict=True):
            if math.isnan(estimate.value):
                continue
            if not math.isnan(estimate.low):
                axes.plot(
                    [estimate.low, estimate.high],
                    [position] * 2,
                    color=COLOURS[0],
                    linewidth=7,
                    alpha=0.3,
                    solid_capstyle="butt",
                )
            axes.plot(estimate.value, position, "o", color=COLOURS[0], markersize=6)
        axes.set_yticks(y, names)
        axes.grid(axis="y", visible=False)
        axes.set(xlabel=xlabel, ylim=(-0.7, len(names) - 0.3))
        axes.margins(x=0.08)
        for position, estimate in zip(y, values, strict=True):
            text = "undefined" if math.isnan(estimate.value) else f"{estimate.value:.3f}  (n={estimate.n:,})"
            axes.text(1.02, position, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8.5)
    return path


def estimates_over(
    x: Sequence[float],
    estimates: Mapping[str, Sequence[Estimate]],
    path: Path,
    *,
    title: str = "",
    caption: str = "",
    xlabel: str = "",
    ylabel: str = "",
) -> Path:
    """Named lines of estimates over a quantity, the first one bold and with its intervals as a band.

    Bands of all would hide each other; the others are there to be compared with.
    """
    with chart(path, title, caption or "Band: 95 % intervals.", height=3.3) as (_, axes):
        for index, (name, values) in enumerate(estimates.items()):
            colour = COLOURS[index % len(COLOURS)]
            value, low, high = np.array([(e.value, e.low, e.high) for e in values]).reshape(-1, 3).T
            if index == 0:
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            style = (
                {"linewidth": 2.4, "marker": "o", "zorder": 3} if index == 0 else {"linewidth": 1.2, "linestyle": "--"}
            )
            axes.plot(x, value, color=colour, label=name, markersize=4, **style)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.legend(loc="best", fontsize=8.5)
    return path


def image_grid(
    images: Sequence[ArrayLike],
    titles: Sequence[str],
    path: Path,
    *,
    columns: int | None = None,
    title: str = "",
    caption: str = "",
) -> Path:
    """Pictures with a line of text above each.

    Args:
        images: (H, W) grey or (H, W, 3) colour; uint8, or floats in 0..1.
        columns: pictures per row; default: as many as keep them legible.
    """
    pictures = [np.asarray(image) for image in images]
    if not pictures or len(pictures) != len(titles):
        raise UserError(
            f"{path}: {len(pictures)} pictures and {len(titles)} titles; give one title for each, at least one"
        )
    aspect = pictures[0].shape[0] / pictures[0].shape[1]
    per_row = min(len(pictures), columns or (6 if aspect > 0.75 else 4))
    rows = -(-len(pictures) // per_row)
    height = rows * (WIDTH / per_row * aspect * 0.92 + 0.3) + 0.3
    with figure(path, title, caption, (WIDTH, height), "pictures") as drawn:
        for i, (picture, text) in enumerate(zip(pictures, titles, strict=True)):
            axes = drawn.add_subplot(rows, per_row, i + 1)
            top = 255 if picture.dtype == np.uint8 else 1
            axes.imshow(picture, cmap="gray", vmin=0, vmax=top, interpolation="nearest")
            axes.set_axis_off()
            axes.set_title(text, fontsize=8, pad=3)
    return path


def risk_coverage(confidence: ArrayLike, correct: ArrayLike, path: Path, *, title: str = "") -> Path:
    """Error rate among the most confident answers, over the share that is answered."""
    curve = metrics.risk_coverage(confidence, correct)
    shown = _thin(len(curve.risk))
    everything, half = curve.risk[-1], curve.risk[max(0, len(curve.risk) // 2 - 1)]
    caption = (
        f"Error rate when only the most confident share is answered: {everything:.3f} over everything, {half:.3f} over "
        f"the more confident half. Area under the curve: {curve.area:.4f}."
    )
    with chart(path, title or "Risk and coverage", caption, height=3.1) as (_, axes):
        axes.plot(curve.coverage[shown], curve.risk[shown])
        axes.fill_between(curve.coverage[shown], curve.risk[shown], alpha=0.12)
        axes.set(xlabel="coverage: share answered", ylabel="risk: share wrong", xlim=(0, 1))
        axes.set_ylim(bottom=0)
    return path


def _cells(axes: Axes, shade: NDArray[np.float64], limits: tuple[float, float], texts: Sequence[Sequence[str]]) -> None:
    """A square of cells, each with its text as long as there is room; `shade` (n, n) is their colour within limits."""
    axes.imshow(shade, cmap="Blues", vmin=limits[0], vmax=limits[1])
    axes.set_anchor("NW")  # where the square is narrower than its place; in the middle, the layout would cut off names
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if len(texts) > 16:
        return
    dark, size = limits[0] + 0.55 * (limits[1] - limits[0]), 7.5 if len(texts) > 6 else 10
    for i, j in np.ndindex(*shade.shape):
        ink = "white" if shade[i, j] > dark else INK
        axes.text(j, i, texts[i][j], ha="center", va="center", color=ink, fontsize=size)


def _crowded(names: Sequence[str]) -> bool:
    """Whether names side by side would run into each other."""
    return sum(map(len, names)) > 40


def _curve(axes: Axes, rows: list[Mapping[str, Any]], key: str, x: str, label: str, style: Mapping[str, Any]) -> None:
    """Draw one column, if the rows have it."""
    points = np.array([(row[x], row[key]) for row in rows if x in row and key in row], dtype=float).reshape(-1, 2)
    if not len(points):
        return
    finite = np.isfinite(points[:, 1])
    at, values = points[finite].T
    shown = _thin(len(values))
    if len(values) > 60:
        if style["linestyle"] == "-":
            axes.plot(at[shown], values[shown], color=style["color"], alpha=0.25, linewidth=0.8)
        values = _smooth(values)
    marker = "o" if len(values) <= 40 else None
    axes.plot(at[shown], values[shown], label=label or None, marker=marker, markersize=3.5, **style)
    if not finite.all():
        lost, foot = points[~finite, 0], np.zeros((~finite).sum())
        axes.plot(lost, foot, "x", color=style["color"], transform=axes.get_xaxis_transform(), clip_on=False)


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred moving average over 1/30 of the points, shorter towards the ends."""
    half = max(1, len(values) // 60)
    total = np.concatenate([[0.0], np.cumsum(values)])
    i = np.arange(len(values))
    reach = np.minimum(half, np.minimum(i, len(values) - 1 - i))
    smoothed: NDArray[np.float64] = (total[i + reach + 1] - total[i - reach]) / (2 * reach + 1)
    return smoothed


def _thin(n: int, most: int = 2000) -> NDArray[np.int64]:
    """At most about `most` of n indices, the last among them: more points than pixels only cost time."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int)) if n else np.arange(0)


@contextmanager
def chart(
    path: Path, title: str, caption: str, height: float, rows: Sequence[float] = (1,)
) -> Iterator[tuple[Figure, Any]]:
    """A chart of one panel, or of several below each other with the given relative heights."""
    with figure(path, title, caption, (WIDTH, height), "chart") as drawn:
        yield drawn, drawn.subplots(len(rows), 1, height_ratios=list(rows), sharex=len(rows) > 1)


@contextmanager
def figure(path: Path, title: str, caption: str, size: tuple[float, float], kind: str) -> Iterator[Figure]:
    """A figure in the house style, written to `path` when the block ends well."""
    import matplotlib as mpl
    from cycler import cycler
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with mpl.rc_context({**_STYLE, "axes.prop_cycle": cycler(color=COLOURS)}):
        layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)  # inches
        drawn = Figure(figsize=size, layout=layout, facecolor="white")
        FigureCanvasAgg(drawn)
        yield drawn
        if title:
            lines = textwrap.fill(title, int(size[0] * LETTERS))
            drawn.suptitle(lines, x=0.02, ha="left", fontsize=11, fontweight="bold")
        texts = {"Title": title or path.stem.replace("_", " "), "Description": caption, "Comment": kind}
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic_path(path) as temporary:
            drawn.savefig(temporary, format="png", dpi=DPI, metadata={**texts, "Software": None})
