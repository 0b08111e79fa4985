"""Figures of an evaluation.

Shapes: N series, L lengths, K classes, V variables, T steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from shared_core import figures, metrics
from shared_core.intervals import Estimate
from timeseries_dualmodal import plots
from timeseries_dualmodal.outcome import Outcome
from timeseries_dualmodal.series import SeriesSet

EXAMPLES, VARIABLES = 4, 4  # shown at most


def curve(model: Outcome, baselines: Mapping[str, Outcome], series: SeriesSet, split: str, folder: Path) -> Path:
    """Macro-F1 after each of the reported lengths, of the model and of what stands beside it."""
    estimates: dict[str, Sequence[Estimate]] = {
        name: [outcome.macro_f1(length) for length in outcome.lengths]
        for name, outcome in {"model": model, **baselines}.items()
    }
    return figures.estimates_over(
        list(model.lengths),
        estimates,
        folder / f"{split}_curve.png",
        title=f"How well, how early: macro-F1 on {split}",
        caption=f"After each number of steps, of {series.steps}. The band is the model's 95 % bootstrap interval.",
        xlabel="steps seen",
        ylabel="macro-F1",
    )


def confusion(outcome: Outcome, classes: Sequence[str], length: int, split: str, folder: Path) -> Path:
    """Which classes are taken for which after a number of steps."""
    answers = outcome.answers_NL[:, outcome.lengths.index(length)]
    return figures.confusion(
        metrics.confusion_matrix(outcome.y, answers, len(classes)),
        classes,
        folder / f"{split}_confusion_{length}.png",
        title=f"After {length} steps on {split}",
    )


def decisions(
    outcome: Outcome,
    stop_N: NDArray[np.int64],
    series: SeriesSet,
    classes: Sequence[str],
    split: str,
    folder: Path,
) -> Path:
    """Some series: their values, the probability of each class as the season goes on, and when the rule answered.

    A right and a wrong early answer, and a right and a wrong late one, as far as there are such.
    """
    rows = _examples(outcome, stop_N)
    size = (figures.WIDTH, 1.55 * len(rows) + 0.6)
    caption = (
        "Left: the first variables, each scaled to its own range. Right: the classes' probabilities after each step. "
        "The upright line is when the answer was given."
    )
    with figures.figure(
        folder / f"{split}_decisions.png", f"When the rule answers, on {split}", caption, size, "chart"
    ) as drawn:
        axes = drawn.subplots(len(rows), 2, sharex=True, squeeze=False)
        for (left, right), row in zip(axes, rows, strict=True):
            stop = int(stop_N[row])
            stopped = series.times[outcome.lengths[stop] - 1]
            for name, values in zip(series.variables[:VARIABLES], series.x[row], strict=False):
                seen = ~np.isnan(values)
                left.plot(series.times[seen], _spread(values[seen]), linewidth=1.1, label=name)
            left.axvline(stopped, color=figures.INK, linewidth=1)
            asked = series.times[np.asarray(outcome.lengths) - 1]
            for index, name in enumerate(classes):
                right.plot(asked, outcome.p_NLK[row, :, index], linewidth=1.3, label=name)
            right.axvline(stopped, color=figures.INK, linewidth=1)
            answer, truth = (classes[k] for k in (outcome.p_NLK[row, stop].argmax(), outcome.y[row]))
            verdict = "right" if answer == truth else f"is {truth}"
            left.set_title(str(series.ids[row]), fontsize=8, loc="left")
            right.set_title(f"{answer} after {outcome.lengths[stop]} steps ({verdict})", fontsize=8, loc="left")
            left.set_yticks([])
            right.set_ylim(0, 1)
        for panel in axes[0]:
            panel.legend(fontsize=6, loc="best")
        for panel in axes[-1]:
            panel.set_xlabel("time")
        for panel in axes.flat:
            panel.tick_params(labelsize=8)
    return folder / f"{split}_decisions.png"


def seen(
    pictures_KVHW: torch.Tensor, lengths: Sequence[int], series: SeriesSet, row: int, split: str, folder: Path
) -> Path:
    """What the vision tower is shown of one series: its variables after some lengths, in the variables' colours."""
    shown = min(VARIABLES, len(series.variables))
    painted = plots.paint(pictures_KVHW[:, :shown], plots.colours(shown)).permute(1, 0, 3, 4, 2).numpy()
    return figures.image_grid(
        [painted[v, k] for v in range(shown) for k in range(len(lengths))],
        [f"{name}, {length} steps" for name in series.variables[:shown] for length in lengths],
        folder / f"{split}_pictures.png",
        columns=len(lengths),
        title="What the model sees",
        caption=f"Series {series.ids[row]}, as it is drawn for the vision tower.",
    )


def _spread(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values (T,) from 0 to 1; nothing of nothing."""
    return (values - values.min()) / max(np.ptp(values), 1e-9) if len(values) else values


def _examples(outcome: Outcome, stop_N: NDArray[np.int64]) -> list[int]:
    """Rows of the earliest and the latest answers, right and wrong ones; the first of equals."""
    answered = outcome.p_NLK[np.arange(len(stop_N)), stop_N].argmax(axis=1)
    order = np.argsort(stop_N, kind="stable")
    right = order[(answered == outcome.y)[order]]
    wrong = order[(answered != outcome.y)[order]]
    found = [*right[:1], *wrong[:1], *right[-1:], *wrong[-1:]]
    return list(dict.fromkeys(int(row) for row in found))[:EXAMPLES]
