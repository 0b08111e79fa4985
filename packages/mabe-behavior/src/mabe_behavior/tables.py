"""Tables of an evaluation: rows of dictionaries, an `Estimate` as its dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mabe_behavior.bouts import Bouts
from mabe_behavior.measures import Found
from mabe_behavior.metric import Counts, Score
from shared_core.intervals import Estimate

Rows = list[dict[str, Any]]
NOTHING = ""  # of a share of nothing


def by_action(score: Score, truth: Bouts, lab_of: Mapping[str, str], fps_of: Mapping[str, float]) -> Rows:
    """Each action of each lab: how much of it there is, and how well its frames are found, the best first.

    Args:
        truth: the bouts that were scored.
        lab_of: the lab of each of their videos.
        fps_of: frames a second of each of their videos.
    """
    bouts: dict[tuple[str, str], int] = {}
    seconds: dict[tuple[str, str], float] = {}
    for video, _, _, action, start, stop in truth.rows:
        key = lab_of[video], action
        bouts[key] = bouts.get(key, 0) + 1
        seconds[key] = seconds.get(key, 0.0) + (stop - start) / fps_of[video]
    rows = []
    for lab, of_lab in sorted(score.counts.items()):
        for action, count in sorted(of_lab.items(), key=lambda item: (-item[1].f1, item[0])):
            rows.append(
                {
                    "lab": lab,
                    "action": action,
                    "bouts": bouts.get((lab, action), 0),
                    "seconds": round(seconds.get((lab, action), 0.0), 1),
                    "precision": _share(count.hit, count.hit + count.invented),
                    "recall": _share(count.hit, count.hit + count.missed),
                    "F1": round(count.f1, 3),
                }
            )
    return rows


def by_lab(
    score: Score,
    estimates: Mapping[str, Estimate] | None = None,
    mean: Estimate | None = None,
    beside: Mapping[str, Score] | None = None,
) -> Rows:
    """The score of each lab, the best first, and their mean.

    Args:
        estimates: the labs' scores with intervals; a lab without one has its score alone.
        mean: the mean with its interval.
        beside: what stands beside it, such as the oracle: name -> its score on the same videos.
    """
    name = "F1, mean over actions"
    others = {what: (of.labs, of.value) for what, of in (beside or {}).items()}
    rows: Rows = []
    for lab, value in sorted(score.labs.items(), key=lambda item: (-item[1], item[0])):
        row: dict[str, Any] = {"lab": lab, "actions": len(score.counts[lab])}
        row[name] = estimates[lab].as_dict() if estimates and lab in estimates else round(value, 3)
        rows.append(row | {what: round(of[lab], 3) if lab in of else NOTHING for what, (of, _) in others.items()})
    last = {"lab": "mean", "actions": NOTHING, name: mean.as_dict() if mean is not None else round(score.value, 3)}
    return [*rows, last | {what: round(value, 3) for what, (_, value) in others.items()}]


def by_frame(found: Mapping[str, Counts]) -> Rows:
    """Each action's frames over all labs: what share of what is said is there, and of what is there is said."""
    return [
        {
            "action": action,
            "precision": _share(one.hit, one.hit + one.invented),
            "recall": _share(one.hit, one.hit + one.missed),
            "F1": _share(2 * one.hit, 2 * one.hit + one.missed + one.invented),
        }
        for action, one in sorted(found.items())
    ]


def by_bout(found: Mapping[str, Found]) -> Rows:
    """Each action's bouts: how many were found, and how many of the predicted ones are there."""
    return [
        {
            "action": action,
            "bouts": one.true,
            "predicted": one.predicted,
            "F1 of matched bouts": _share(2 * one.matched, one.true + one.predicted),
            "share of bouts hit": _share(one.hit, one.true),
            "share of predicted right": _share(one.right, one.predicted),
        }
        for action, one in sorted(found.items())
    ]


def _share(part: int, whole: int) -> float | str:
    return round(part / whole, 3) if whole else NOTHING
