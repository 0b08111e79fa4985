"""Figures of an evaluation: of the answers to one split, and of several models that answered it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pair_compare_stacking import breakdown, ink, stacking
from pair_compare_stacking.outcome import Outcome
from shared_core import figures, metrics

WORST_SHOWN = 12
MOST_SHOWN = 12  # models in a figure
COLOURS = "The colours run from the smallest to the largest number shown."


def of_split(outcome: Outcome, folder: Path) -> list[Path]:
    """All figures that the split has what it takes for."""
    name, groups = outcome.split, outcome.sources
    return [
        figures.reliability(
            outcome.p, outcome.y, folder / f"{name}_reliability.png", title=f"Reliability on {name}", groups=groups
        ),
        figures.risk_coverage(
            outcome.confidence,
            outcome.right,
            folder / f"{name}_risk_coverage.png",
            title=f"Risk and coverage on {name}",
        ),
        *([] if outcome.digits is None else [by_distance(outcome, folder), digits(outcome, folder)]),
        by_ink(outcome, folder),
        worst(outcome, folder),
    ]


def by_distance(outcome: Outcome, folder: Path) -> Path:
    """Accuracy by distance of the digits."""
    return figures.bars_with_intervals(
        {f"|a - b| = {key}": estimate for key, estimate in breakdown.by_distance(outcome).items()},
        folder / f"{outcome.split}_by_distance.png",
        title=f"Accuracy by distance of the digits on {outcome.split}",
        xlabel="accuracy",
        reference=outcome.accuracy().value,
    )


def digits(outcome: Outcome, folder: Path) -> Path:
    """Which digits are taken for which."""
    assert outcome.digits is not None  # `of_split`
    answered = outcome.prediction.digit_logits.argmax(dim=-1).numpy()
    return figures.confusion(
        metrics.confusion_matrix(outcome.digits.ravel(), answered.ravel(), 10),
        [str(digit) for digit in range(10)],
        folder / f"{outcome.split}_digits.png",
        title=f"Digits of single halves on {outcome.split}",
    )


def by_ink(outcome: Outcome, folder: Path) -> Path:
    """What accuracy is worth where there is little to see."""
    return figures.bars_with_intervals(
        breakdown.by_ink(outcome),
        folder / f"{outcome.split}_by_ink.png",
        title=f"Accuracy by visible ink on {outcome.split}",
        caption=f"Pixels brighter than {ink.BRIGHT} in the emptier half of a pair. Bars: 95 % intervals.",
        xlabel="accuracy",
        reference=outcome.accuracy().value,
    )


def worst(outcome: Outcome, folder: Path) -> Path:
    """The pairs whose true answer the model found least likely."""
    order = np.argsort(np.where(outcome.y == 1, outcome.p, 1 - outcome.p), kind="stable")[:WORST_SHOWN]
    return figures.image_grid(
        [outcome.x[row] for row in order],
        [f"{_truth(outcome, row)}, p(left) {outcome.p[row]:.2f}" for row in order],
        folder / f"{outcome.split}_worst.png",
        columns=3,
        title="Worst errors",
        caption="Pairs whose true answer the model found least likely: the true digits, and its probability that the "
        "left one is larger.",
    )


def of_models(logit_NM: np.ndarray, models: list[str], y: np.ndarray, split: str, folder: Path) -> list[Path]:
    """How alike M models answer, and how alike they err; nothing of one, or of too many for a figure."""
    if not 1 < len(models) <= MOST_SHOWN:
        return []
    agreement = _beside_diagonal(stacking.agreement(logit_NM))
    drawn = [
        figures.heatmap(
            agreement,
            models,
            folder / f"{split}_agreement.png",
            title=f"Agreement on {split}",
            caption=f"Share of the pairs of {split} that two models answer alike. {COLOURS}",
        )
    ]
    correlation = _beside_diagonal(stacking.error_correlation(logit_NM, y))
    if np.isfinite(correlation).any():
        drawn.append(
            figures.heatmap(
                correlation,
                models,
                folder / f"{split}_error_correlation.png",
                title=f"Correlation of errors on {split}",
                caption=f"Pearson's correlation, over the pairs of {split}, of whether two models are wrong. The lower "
                f"it is, the more there is to gain by combining them. {COLOURS}",
            )
        )
    return drawn


def _beside_diagonal(matrix: np.ndarray) -> np.ndarray:
    """Without the ones of every model with itself, which would take the colours from the rest."""
    return np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix)


def _truth(outcome: Outcome, row: int) -> str:
    if outcome.digits is None:
        return "left" if outcome.y[row] else "right"
    left, right = outcome.digits[row].tolist()
    return f"{left} {'>' if left > right else '<'} {right}"
