"""The accuracy on one split, taken apart: where it is high, where the errors are, and what unreadable halves cost.

Rows of tables are dictionaries, as `shared_core.records.write_evaluation` takes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pair_compare_stacking import ink
from pair_compare_stacking.outcome import Outcome
from shared_core.metrics import Estimate

Rows = list[dict[str, Any]]

COVERAGES = (0.5, 0.8, 0.9, 0.95, 1.0)  # shares of the pairs that are answered, in the table beside the curve
DISTANCE = "Accuracy by distance of the digits"
INGREDIENTS = "What the answer is made of"
INK = "Accuracy by visible ink"
ELSEWHERE_RIGHT = "If every pair with more ink were answered rightly"
ERRORS = "Where the errors are"
COVERAGE = "Risk against coverage"


def tables(outcome: Outcome) -> tuple[dict[str, Rows], list[str]]:
    """All tables that the split has what it takes for, by their titles, and the notes that explain them."""
    shown: dict[str, Rows] = {}
    notes = [what_intervals_are_over(outcome)]
    if outcome.distance is not None:
        shown[DISTANCE] = _accuracies("|a - b|", by_distance(outcome))
        shown[INGREDIENTS], note = ingredients(outcome)
        notes.append(note)
    shown[INK] = _accuracies("bright pixels of the emptier half", by_ink(outcome))
    notes.append(ink.summary(outcome.ink))
    if gap := elsewhere_right(outcome):
        shown[ELSEWHERE_RIGHT] = gap
        notes.append(
            f"the last column of the table “{ELSEWHERE_RIGHT}” is share x accuracy + (1 - share): if every pair with "
            "more ink were right, at most so much, given this model's accuracy on those with less; it is no bound of "
            "what any model can do"
        )
    if errors := where_errors_are(outcome):
        shown[ERRORS] = errors
        notes.append(
            f"in the table “{ERRORS}”, the shares by distance add up to 1, and so do those by ink: each divides the "
            "same errors in its own way"
        )
    shown[COVERAGE] = _accuracies("most confident", {f"{share:.0%}": e for share, e in at_coverage(outcome).items()})
    return shown, notes


def by_distance(outcome: Outcome) -> dict[str, Estimate]:
    """Accuracy for |a - b| = 1, 2, ..., as far as there are pairs."""
    distances = [] if outcome.distance is None else np.unique(outcome.distance).tolist()
    return {str(distance): outcome.accuracy(outcome.distance == distance) for distance in distances}


def by_ink(outcome: Outcome) -> dict[str, Estimate]:
    """Accuracy by the bright pixels of the emptier half, as far as there are pairs."""
    return {name: outcome.accuracy(rows) for name, rows in ink.bins(outcome.ink).items()}


def at_coverage(outcome: Outcome) -> dict[float, Estimate]:
    """Accuracy of the most confident pairs, by the share that is answered; equal confidences are answered together."""
    confidence, found = outcome.confidence, {}
    for share in COVERAGES:
        least = np.sort(confidence)[::-1][max(1, round(share * len(confidence))) - 1]
        found[share] = outcome.accuracy(confidence >= least)
    return found


def ingredients(outcome: Outcome) -> tuple[Rows, str]:
    """The combined answer beside one from the digits alone, which does not know that neighbours are common."""
    posteriors = torch.softmax(outcome.prediction.digit_logits.double(), dim=-1)
    expected = posteriors @ torch.arange(10, dtype=torch.float64)
    digits_only = (expected[:, 0] > expected[:, 1]).numpy() == outcome.y
    rows = [
        {"answer": "comparison and digits, with the pairs' prior", "accuracy": outcome.accuracy().as_dict()},
        {"answer": "larger expected digit, without the prior", "accuracy": outcome.share(digits_only).as_dict()},
    ]
    return rows, (
        f"the two answers of the table “{INGREDIENTS}”, first less second on the same pairs: "
        f"{outcome.less(digits_only)}"
    )


def elsewhere_right(outcome: Outcome) -> Rows:
    """What pairs with little ink cost: accuracy on them, and on the whole if all other pairs were answered rightly.

    The last is share x accuracy + (1 - share), an upper estimate for this model's reading of those pairs. No rows
    where every half has more ink.
    """
    return [
        {
            "bright pixels of the emptier half": f"fewer than {threshold}",
            "share of the pairs": outcome.share(rows).as_dict(),
            "accuracy on them": outcome.accuracy(rows).as_dict(),
            "accuracy on all, if the others were right": outcome.share(outcome.right | ~rows).as_dict(),
        }
        for threshold, rows in ink.fewer(outcome.ink).items()
    ]


def where_errors_are(outcome: Outcome) -> Rows:
    """Share of all errors by distance of the digits and by ink, beside the share of the pairs. No errors: no rows."""
    wrong = ~outcome.right
    if not wrong.any():
        return []
    parts: dict[str, np.ndarray] = {}
    if outcome.distance is not None:
        parts |= {f"|a - b| = {distance}": outcome.distance == distance for distance in np.unique(outcome.distance)}
    parts |= {f"{name} bright pixels": rows for name, rows in ink.bins(outcome.ink).items()}
    return [
        {
            "pairs with": name,
            "share of the pairs": outcome.share(rows).as_dict(),
            "share of the errors": outcome.share(rows, wrong).as_dict(),
            "errors": int((rows & wrong).sum()),
        }
        for name, rows in parts.items()
    ]


def what_intervals_are_over(outcome: Outcome) -> str:
    """The note that says what the intervals take into account."""
    if outcome.sources is None:
        return (
            "which source images the pairs are made of is unknown; the intervals take the pairs as independent, and "
            "are too narrow where an image occurs in several"
        )
    return (
        f"the {len(outcome.y):,} pairs are made of {len(np.unique(outcome.sources)):,} source images; the intervals "
        "allow for pairs that share an image, and so are about new pairs of new images"
    )


def _accuracies(of: str, estimates: dict[str, Estimate]) -> Rows:
    return [{of: key, "accuracy": e.as_dict(), "pairs": e.n} for key, e in estimates.items()]
