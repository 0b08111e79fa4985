"""Figures of an evaluation: what was done when, what is taken for what, and how well each lab is read.

Shapes: R rows (agent, target and action), C columns of a row, N behaviours, L labs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mabe_behavior import palette
from mabe_behavior.actions import SELF, Behaviour
from mabe_behavior.bouts import Bouts
from shared_core import figures
from shared_core.figures import COLOURS, GRID, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Doubles = NDArray[np.float64]
MOST_ROWS = 20  # of an ethogram; of more, those with most to be seen
COLUMNS = 640  # of a row; finer than pixels
PALEST = 0.6  # how solid a column is that has next to nothing in it
SMALL = 7.5  # points
MARKERS = ("D", "x", "^", "s")
_SAID, _TRUE = (0.08, 0.30), (0.36, 0.90)  # from where to where bars lie in a row


def ethogram(
    truth: Bouts | None,
    predicted: Bouts,
    labeled: Sequence[Behaviour],
    path: Path,
    *,
    video: str,
    fps: float,
    seconds: float,
    title: str = "",
) -> Path:
    """What was annotated and predicted in a video over time, a row for each agent, target and action.

    Where a column of the figure is longer than a bout, it is the paler the less of it is done.

    Args:
        truth: None where nobody annotated the video.
        labeled: what was looked for; predictions of anything else are grey. Empty: everything.
        fps: frames a second of the bouts' frames.
        seconds: of the video.

    Raises ValueError for no time.
    """
    if not seconds > 0:
        raise ValueError(f"seconds: {seconds:g}; must be above 0")
    tables = {"annotated": truth, "predicted": predicted} if truth is not None else {"predicted": predicted}
    edges = np.linspace(0.0, seconds, COLUMNS + 1)
    found = {
        name: coverage(table.take(table.video == video), fps, edges)
        for name, table in tables.items()
        if table is not None
    }
    rows, left_out = _rows(found)
    looked_for = set(labeled) or set(rows)
    size = (figures.WIDTH, 1.25 + 0.27 * max(len(rows), 1))
    caption = _told(video, rows, left_out, len(looked_for - {row for one in found.values() for row in one}), found)
    with figures.figure(path, title or f"What is done in {video}", caption, size, "chart") as drawn:
        axes = drawn.subplots()
        for place, row in enumerate(rows):
            colour = palette.colour(row.action) if row in looked_for else palette.OTHER
            for name, bars in found.items():
                if row in bars:
                    low, high = (_TRUE if name == "annotated" else _SAID) if truth is not None else (0.15, 0.85)
                    _bar(axes, bars[row], colour, (0.0, seconds, place + 1 - high, place + 1 - low))
        for place in range(1, len(rows)):
            same = rows[place][:2] == rows[place - 1][:2]
            axes.axhline(place, color=GRID, linewidth=0.5 if same else 1.4)
        axes.set(xlim=(0, seconds), ylim=(max(len(rows), 1), 0), aspect="auto", xlabel="seconds")
        axes.set_yticks(np.arange(len(rows)) + 0.5, [_named(row) for row in rows], fontsize=SMALL + 0.5)
        for text, row in zip(axes.get_yticklabels(), rows, strict=True):
            text.set_color(INK if row in looked_for else "#8b949e")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        if not rows:
            axes.text(0.5, 0.5, "nothing", ha="center", va="center", transform=axes.transAxes)
        if truth is not None:
            _legend_of_bars(drawn)
    return path


def confusion(matrix: ArrayLike, names: Sequence[str], path: Path) -> Path:
    """What is taken for what: of each true behaviour (row) the share in % that was said to be each (column).

    Args:
        matrix: (N, N) frames, rows the truth.
        names: of rows and columns, 2 to 20; "none" among them as any other.

    Raises ValueError for a matrix of another shape.
    """
    count_NN = np.asarray(matrix)
    n = len(names)
    if count_NN.shape != (n, n):
        raise ValueError(f"confusion matrix of shape {count_NN.shape}; must be ({n}, {n}), as there are {n} names")
    total_N = count_NN.sum(axis=1)
    share_NN = count_NN / np.maximum(total_N, 1)[:, None]
    caption = "Of each true behaviour the % that was said to be each; on the left, how many frames."
    few = n <= 6
    cell = 0.62 if few else 0.44 if n <= 9 else 0.3
    size = (figures.WIDTH, 1.35 + cell * n)
    with figures.figure(path, "What is taken for what", caption, size, "chart") as drawn:
        axes = drawn.subplots()
        axes.imshow(share_NN, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        for i, j in np.argwhere(count_NN > 0):
            share = share_NN[i, j]
            text = "<1" if share < 0.01 else f"{int(100 * share + 0.5)}"
            if few:
                text = f"{text} %\n{count_NN[i, j]:,}"
            ink = "white" if share > 0.55 else INK
            axes.text(j, i, text, ha="center", va="center", color=ink, fontsize=8.5 if few else 8)
        tilted = sum(map(len, names)) > 40
        axes.set_xticks(range(n), names, rotation=45 if tilted else 0, ha="right" if tilted else "center")
        axes.set_yticks(range(n), [f"{name}  {total:,}" for name, total in zip(names, total_N, strict=True)])
        axes.tick_params(labelsize=9 if n <= 9 else 8)
        axes.set(xlabel="predicted", ylabel="true, frames")
    return path


def labs(
    names: Sequence[str],
    score: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    path: Path,
    *,
    marks: Mapping[str, ArrayLike] | None = None,
) -> Path:
    """The score of each lab with its interval, below each other, beside what else is known of the lab.

    Args:
        names: of the L labs; a mean over labs may stand among them.
        score, low, high: (L,); NaN where there is none.
        marks: what stands beside it, such as the oracle's score or a baseline's: name -> (L,), NaN for none; 4 at most.

    Raises ValueError for no lab, lengths that differ, or more marks than can be told apart.
    """
    given = {"score": score, "low": low, "high": high, **(marks or {})}
    columns = {name: np.asarray(values, np.float64) for name, values in given.items()}
    if not names or any(column.shape != (len(names),) for column in columns.values()):
        shapes = ", ".join(f"{name} {column.shape}" for name, column in columns.items())
        raise ValueError(f"{len(names)} labs, {shapes}; must be one of each lab, and one lab at least")
    if len(columns) - 3 > len(MARKERS):
        raise ValueError(f"marks: {', '.join(marks or ())}; must be {len(MARKERS)} at most")
    y = np.arange(len(names))
    size = (figures.WIDTH, 1.35 + 0.32 * len(names))
    caption = "Bars: 95 % intervals of the model's score."
    with figures.figure(path, "Score of each lab", caption, size, "chart") as drawn:
        axes = drawn.subplots()
        axes.hlines(y, columns["low"], columns["high"], color=COLOURS[0], linewidth=7, alpha=0.3)
        axes.plot(columns["score"], y, "o", color=COLOURS[0], markersize=6.5, label="model", zorder=3)
        for marker, (name, colour) in zip(MARKERS, zip(marks or (), COLOURS[1:], strict=False), strict=False):
            hollow: dict[str, Any] = {} if marker == "x" else {"markerfacecolor": "white"}
            axes.plot(columns[name], y, marker, color=colour, markersize=5.5, label=name, **hollow)
        axes.set_yticks(y, names)
        axes.set(xlabel="F1 by frame, mean over actions", ylim=(len(names) - 0.4, -0.6))
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.06)
        for place, value in enumerate(columns["score"]):
            text = "none" if np.isnan(value) else f"{value:.3f}"
            axes.text(1.02, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
        drawn.legend(loc="outside lower center", ncols=5, fontsize=8.5)
    return path


def coverage(table: Bouts, fps: float, edges: Doubles) -> dict[Behaviour, Doubles]:
    """Of each behaviour (C,) which share of the time between two edges it is done; none of it: not among them.

    Args:
        table: bouts of one video.
        edges: (C + 1,) seconds, growing.
    """
    found: dict[Behaviour, Doubles] = {}
    for _, agent, target, action, start, stop in table.rows:
        share_C = np.clip(np.minimum(stop / fps, edges[1:]) - np.maximum(start / fps, edges[:-1]), 0, None)
        if share_C.any():
            row = Behaviour(agent, target, action)
            found[row] = found.get(row, 0) + share_C / np.diff(edges)
    return {row: np.minimum(share_C, 1) for row, share_C in found.items()}


def _rows(found: Mapping[str, Mapping[Behaviour, Doubles]]) -> tuple[list[Behaviour], int]:
    """The rows that are drawn, from top to bottom, and how many are not."""
    amount: dict[Behaviour, float] = {}
    for of in found.values():
        for row, share_C in of.items():
            amount[row] = amount.get(row, 0.0) + float(share_C.sum())
    most = sorted(amount, key=lambda row: -amount[row])[:MOST_ROWS]
    place = {action: k for k, action in enumerate(palette.COLOUR_OF)}
    order = sorted(most, key=lambda row: (row.agent, row.target == SELF, row.target, place.get(row.action, len(place))))
    return order, len(amount) - len(most)


def _told(
    video: str, rows: Sequence[Behaviour], left_out: int, idle: int, found: Mapping[str, Mapping[Behaviour, Doubles]]
) -> str:
    """The caption of an ethogram."""
    told = f"Video {video}. "
    if rows:
        told += f'"{_named(rows[0])}": {" ".join(rows[0][:1])} does it '
        told += "alone. " if rows[0].target == SELF else f"to {rows[0].target}. "
    if "annotated" in found:
        told += "Thick bars were annotated, thin ones predicted; in grey what nobody looked for. "
    else:
        told += "Nobody annotated this video; all bars are predicted. "
    if idle:
        told += f"{idle} other behaviours were looked for, and are neither annotated nor predicted. "
    if left_out:
        told += f"{left_out} rows with less in them are left out. "
    return told.strip()


def _named(row: Behaviour) -> str:
    """Short enough for a row: `1 → 2 sniff`, `1 rear`."""
    agent, target = (name.removeprefix("mouse") for name in row[:2])
    return f"{agent}  {row.action}" if row.target == SELF else f"{agent} → {target}  {row.action}"


def _bar(axes: Axes, share_C: Doubles, colour: str, extent: tuple[float, float, float, float]) -> None:
    from matplotlib.colors import to_rgb

    rgba = np.empty((1, len(share_C), 4))
    rgba[..., :3] = to_rgb(colour)
    rgba[..., 3] = np.where(share_C > 0, PALEST + (1 - PALEST) * share_C, 0)
    begin, end, top, bottom = extent
    axes.imshow(rgba, extent=(begin, end, bottom, top), aspect="auto", interpolation="nearest", zorder=2)


def _legend_of_bars(drawn: Figure) -> None:
    from matplotlib.lines import Line2D

    bars = [
        Line2D([], [], color=INK, linewidth=width, solid_capstyle="butt", label=name)
        for name, width in (("annotated", 7.5), ("predicted", 3.5))
    ]
    drawn.legend(handles=bars, loc="outside lower center", ncols=2, fontsize=8.5)
