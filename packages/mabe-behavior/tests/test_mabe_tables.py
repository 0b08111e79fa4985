"""Tables say what was counted, on an example that can be counted by hand."""

import json

from mabe_behavior import measures, metric, tables
from mabe_behavior.actions import Behaviour
from mabe_behavior.bouts import Bouts
from mabe_behavior.measures import Found
from shared_core.intervals import Estimate

LAB_OF, FPS_OF = {"v": "a", "w": "a", "x": "b"}, {"v": 10.0, "w": 20.0, "x": 30.0}
SNIFF, REAR = Behaviour("mouse1", "mouse2", "sniff"), Behaviour("mouse1", "self", "rear")
LABELED = {video: (SNIFF, REAR) for video in LAB_OF}
TRUTH = Bouts.of(
    [
        ("v", *SNIFF, 0, 10),
        ("w", *SNIFF, 0, 10),
        ("w", *REAR, 20, 40),
        ("x", *SNIFF, 0, 30),
    ]
)
PREDICTED = Bouts.of([("v", *SNIFF, 5, 15), ("x", *SNIFF, 0, 30), ("x", *REAR, 0, 30)])
SCORE = metric.score(TRUTH, PREDICTED, LAB_OF, LABELED)


def test_by_action() -> None:
    assert tables.by_action(SCORE, TRUTH, LAB_OF, FPS_OF) == [
        # 5 of 10 predicted frames are right, 5 of 20 true ones found; F1 = 10 / 30
        {"lab": "a", "action": "sniff", "bouts": 2, "seconds": 1.5, "precision": 0.5, "recall": 0.25, "F1": 0.333},
        {"lab": "a", "action": "rear", "bouts": 1, "seconds": 1.0, "precision": "", "recall": 0.0, "F1": 0.0},
        {"lab": "b", "action": "sniff", "bouts": 1, "seconds": 1.0, "precision": 1.0, "recall": 1.0, "F1": 1.0},
        {"lab": "b", "action": "rear", "bouts": 0, "seconds": 0.0, "precision": 0.0, "recall": "", "F1": 0.0},
    ]


def test_by_lab() -> None:
    one, mean = Estimate(0.5, 0.4, 0.6, 1, "bootstrap 95 %"), Estimate(1 / 3, 0.2, 0.4, 3, "bootstrap 95 %")
    oracle = metric.score(TRUTH, TRUTH, LAB_OF, LABELED)
    rows = tables.by_lab(SCORE, {"b": one}, mean, {"oracle": oracle})
    name = "F1, mean over actions"
    assert rows == [
        {"lab": "b", "actions": 2, name: one.as_dict(), "oracle": 1.0},
        {"lab": "a", "actions": 2, name: 0.167, "oracle": 1.0},
        {"lab": "mean", "actions": "", name: mean.as_dict(), "oracle": 1.0},
    ]
    assert tables.by_lab(SCORE)[-1] == {"lab": "mean", "actions": "", name: round((0.5 + 1 / 6) / 2, 3)}
    only_b = metric.score(TRUTH.take(TRUTH.video == "x"), PREDICTED, LAB_OF, LABELED)
    assert [row["trees"] for row in tables.by_lab(SCORE, beside={"trees": only_b})] == [0.5, "", 0.5]
    json.dumps(rows, allow_nan=False)


def test_by_bout() -> None:
    assert tables.by_bout({"sniff": Found(4, 2, 1, 3, 2), "rear": Found(0, 0, 0, 0, 0)}) == [
        {
            "action": "rear",
            "bouts": 0,
            "predicted": 0,
            "F1 of matched bouts": "",
            "share of bouts hit": "",
            "share of predicted right": "",
        },
        {
            "action": "sniff",
            "bouts": 4,
            "predicted": 2,
            "F1 of matched bouts": 0.333,
            "share of bouts hit": 0.75,
            "share of predicted right": 1.0,
        },
    ]


def test_by_frame() -> None:
    """Of both labs together: 35 of 40 predicted frames of sniff are right, 35 of 50 true ones found; no rear is."""
    assert tables.by_frame(measures.frames(SCORE)) == [
        {"action": "rear", "precision": 0.0, "recall": 0.0, "F1": 0.0},
        {"action": "sniff", "precision": 0.875, "recall": 0.7, "F1": 0.778},
    ]
