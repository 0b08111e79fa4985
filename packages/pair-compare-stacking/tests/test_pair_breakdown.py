"""Accuracy taken apart, and models set against each other: against counting by hand and scipy."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from pair_compare_stacking import breakdown, drawings, tables
from pair_compare_stacking.comparison import HEADS, Comparison
from pair_compare_stacking.model import Prediction
from pair_compare_stacking.outcome import Outcome
from shared_core import figures


def outcome(
    right: np.ndarray, ink: np.ndarray | None = None, confidence: np.ndarray | None = None, **truth: Any
) -> Outcome:
    """Pairs whose left digit is larger; `ink`: bright pixels of their left halves, the right ones are full."""
    n = len(right)
    x = np.full((n, 28, 56), 255, np.uint8)
    if ink is not None:
        bright = np.arange(28 * 28)[None] < ink[:, None]
        x[:, :, :28] = np.where(bright, 255, 0).reshape(n, 28, 28)
    p = 0.5 + np.where(right, 1, -1) * (np.full(n, 0.3) if confidence is None else confidence)
    logit = torch.from_numpy(np.log(p) - np.log1p(-p))
    return Outcome("val", Prediction(logit, torch.zeros(n, 2, 10)), x, np.ones(n, int), **truth)


def drawn(n: int = 400, seed: int = 0) -> Outcome:
    """Pairs of all kinds, harder where there is less ink, which share 90 source images."""
    rng = np.random.default_rng(seed)
    ink = rng.integers(0, 90, n)
    a = rng.integers(1, 10, n)
    digits = np.stack([a, a - 1 - (rng.random(n) < 0.2) * rng.integers(0, a)], axis=1)
    left = rng.integers(0, 90, n)
    sources = np.stack([left, (left + rng.integers(1, 90, n)) % 90], axis=1)
    return outcome(rng.random(n) < 0.5 + ink / 200, ink, digits=digits, sources=sources)


def test_accuracy_by_ink() -> None:
    ink, right = np.repeat([0, 90], [10, 30]), np.array([True, False] * 5 + [True] * 27 + [False] * 3)
    found = breakdown.by_ink(outcome(right, ink))
    assert {key: (e.value, e.n) for key, e in found.items()} == {"0 to 7": (0.5, 10), "80 or more": (0.9, 30)}
    sources = np.arange(80).reshape(40, 2) % 17  # shared ones: less evidence
    grouped = breakdown.by_ink(outcome(right, ink, sources=sources))
    assert grouped["0 to 7"].method != found["0 to 7"].method and "images" in grouped["0 to 7"].method


def test_accuracy_of_the_most_confident() -> None:
    right = np.arange(100) >= 20  # the 20 least confident answers are wrong
    found = breakdown.at_coverage(outcome(right, confidence=np.arange(1, 101) / 250))
    assert {share: e.n for share, e in found.items()} == {0.5: 50, 0.8: 80, 0.9: 90, 0.95: 95, 1.0: 100}
    assert [e.value for e in found.values()] == pytest.approx([1, 1, 80 / 90, 80 / 95, 0.8])


def test_the_order_of_equal_confidences_does_not_matter() -> None:
    # of one sign each, so that rounding makes no order
    confidence, right = np.repeat([0.4, 0.1], 5), np.repeat([True, False], 5)
    forth = breakdown.at_coverage(outcome(right, confidence=confidence))
    back = breakdown.at_coverage(outcome(right[::-1], confidence=confidence[::-1]))
    assert forth == back and forth[0.5].n == 5 and forth[0.8].n == 10


def test_a_single_pair_is_answered() -> None:
    assert {e.n for e in breakdown.at_coverage(outcome(np.array([True]))).values()} == {1}


def test_what_pairs_with_little_ink_cost() -> None:
    """Ten pairs, of which four cannot be read: half of those are wrong, and one of the others."""
    ink = np.array([0, 0, 7, 7, 15, 30, 50, 90, 90, 90])
    right = np.array([0, 1, 0, 1, 1, 0, 1, 1, 1, 1], bool)
    rows = breakdown.elsewhere_right(outcome(right, ink))
    assert [row["bright pixels of the emptier half"] for row in rows] == [f"fewer than {t}" for t in (8, 20, 40)]
    shares, accuracies, wholes = (
        [e["value"] for e in list(zip(*map(dict.values, rows), strict=True))[k]] for k in (1, 2, 3)
    )
    assert shares == [0.4, 0.5, 0.6] and accuracies == [0.5, 0.6, 0.5] and wholes == [0.8, 0.8, 0.7]
    assert not breakdown.elsewhere_right(outcome(right, np.full(10, 40)))
    assert breakdown.ELSEWHERE_RIGHT not in breakdown.tables(outcome(right, np.full(10, 40)))[0]


def test_estimate_for_the_whole_is_share_times_accuracy_and_the_rest() -> None:
    found = drawn()
    rows = breakdown.elsewhere_right(found)
    for row, threshold in zip(rows, (8, 20, 40), strict=True):
        share, accuracy, whole = (row[key] for key in list(row)[1:])
        emptier = (found.x.reshape(-1, 28, 2, 28) > 60).sum(axis=(1, 3)).min(axis=1)
        assert share["value"] == (emptier < threshold).mean() and accuracy["n"] == (emptier < threshold).sum()
        assert whole["value"] == pytest.approx(share["value"] * accuracy["value"] + 1 - share["value"])
        assert whole["low"] < whole["value"] < whole["high"] and "over 90 images" in whole["method"]
        assert whole["value"] > found.accuracy().value
    wholes = [row[list(row)[3]]["value"] for row in rows]
    assert wholes == sorted(wholes, reverse=True)  # the more pairs count as they are answered, the less is granted
    _, notes = breakdown.tables(found)
    (note,) = [note for note in notes if breakdown.ELSEWHERE_RIGHT in note]
    assert "given this model's accuracy" in note and "no bound of what any model can do" in note


def test_errors_are_divided_by_distance_and_by_ink() -> None:
    found = drawn()
    rows = {row["pairs with"]: row for row in breakdown.where_errors_are(found)}
    assert found.digits is not None
    wrong = [int(abs(a - b)) for (a, b), right in zip(found.digits, found.right, strict=True) if not right]
    for distance, errors in Counter(wrong).items():
        row = rows[f"|a - b| = {distance}"]
        assert row["errors"] == errors
        assert row["share of the errors"]["value"] == pytest.approx(errors / len(wrong))
        assert row["share of the errors"]["n"] == len(wrong) and row["share of the pairs"]["n"] == len(found.y)
    by_ink = [row for name, row in rows.items() if "pixels" in name]
    for column in ("share of the pairs", "share of the errors"):
        for part in (by_ink, [row for row in rows.values() if row not in by_ink]):
            assert sum(row[column]["value"] for row in part) == pytest.approx(1)
    assert (
        rows["0 to 7 bright pixels"]["share of the errors"]["value"]
        > rows["0 to 7 bright pixels"]["share of the pairs"]["value"]
    )


def test_without_digits_errors_are_divided_by_ink_alone_and_without_errors_not_at_all() -> None:
    rows = breakdown.where_errors_are(outcome(np.array([True, False]), np.array([3, 90])))
    assert [(row["pairs with"], row["errors"]) for row in rows] == [
        ("0 to 7 bright pixels", 0),
        ("80 or more bright pixels", 1),
    ]
    assert breakdown.where_errors_are(outcome(np.array([True, True]))) == []
    assert breakdown.ERRORS not in breakdown.tables(outcome(np.array([True, True])))[0]


def models(seed: int, n: int, count: int) -> tuple[dict[str, Prediction], np.ndarray, np.ndarray]:
    """Models of rising quality that answer the same pairs, their labels, and the pairs' source images."""
    rng = np.random.default_rng(seed)
    y, sources = rng.integers(0, 2, n), np.arange(2 * n).reshape(n, 2)
    logits = [(2 * y - 1) * (k + 1) / count + rng.normal(size=n) for k in range(count)]
    return (
        {f"model_{k}": Prediction(torch.from_numpy(z), torch.zeros(n, 2, 10)) for k, z in enumerate(logits)},
        y,
        sources,
    )


def test_every_model_is_set_against_the_mean_and_the_best_single_model() -> None:
    """Which is the one that was the best elsewhere: here another is better."""
    of_models, y, sources = models(0, 300, 3)
    p = {name: torch.sigmoid(prediction.logit).numpy() for name, prediction in of_models.items()}
    methods = {"mean": np.mean(list(p.values()), axis=0), "best_single": p["model_1"]}
    rows = {row["model"]: row for row in tables.every_model(of_models, methods, y, sources)}
    assert list(rows) == [*p, "all: the mean of the probabilities", "all: the best single model"]
    mean = "all: the mean of the probabilities"
    for name, answer in {**p, mean: methods["mean"]}.items():
        right = (answer >= 0.5) == y
        for word, reference in (("mean", methods["mean"]), ("best single", p["model_1"])):
            if answer is reference:
                continue
            other = (reference >= 0.5) == y
            gains, losses = int((right & ~other).sum()), int((other & ~right).sum())
            assert rows[name][f"less the {word}"]["value"] == pytest.approx((gains - losses) / 300)
            expected = stats.binomtest(gains, gains + losses).pvalue if gains + losses else 1.0
            assert rows[name][f"p ({word})"] == pytest.approx(expected, rel=0.05)
    assert rows["model_2"]["less the best single"]["value"] > 0
    assert (
        rows[mean]["less the mean"] == tables.SAME and rows[mean]["p (mean)"] == ""
    )  # nothing is compared with itself
    rows = tables.every_model(of_models, {"mean": methods["mean"]}, y, sources)  # stage 4 has not been run
    assert "less the mean" in rows[0] and not any("best single" in key for row in rows for key in row)


def test_weights_of_heads_of_models_that_have_several() -> None:
    def weights(*heads: str, mixture: list[float] | None = None) -> dict[str, float]:
        comparison = Comparison(heads, 8, 4, None)
        if comparison.mixture is not None and mixture:
            comparison.mixture.data = torch.tensor(mixture)
        return comparison.weights()

    two = weights("residual", "product", mixture=[0.0, float(np.log(3))])
    assert tables.head_weights({"one": weights("l2"), "two": two}) == [
        {"model": "two", "product": 0.75, "residual": 0.25}
    ]
    rows = tables.head_weights({"two": two, "six": weights(*HEADS)})
    assert all(list(row) == ["model", *HEADS] for row in rows)  # in one order, whatever the configuration's
    assert [rows[0][head] for head in HEADS] == ["", "", 0.75, "", "", 0.25]
    assert [rows[1][head] for head in HEADS] == [0.167] * 6
    assert tables.head_weights({"one": weights("l2")}) == []


def test_figures_of_models_are_the_matrices_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[np.ndarray] = []

    def heatmap(matrix: np.ndarray, names: list[str], path: Path, **about: Any) -> Path:
        shown.append(matrix)
        return path

    monkeypatch.setattr(figures, "heatmap", heatmap)
    of_models, y, _ = models(1, 200, 3)
    logit_NM = np.stack([prediction.logit.numpy() for prediction in of_models.values()], axis=1)
    names = [path.name for path in drawings.of_models(logit_NM, list(of_models), y, "val", tmp_path)]
    assert names == ["val_agreement.png", "val_error_correlation.png"]
    wrong_MN = ((logit_NM >= 0) != (y == 1)[:, None]).T
    agreement, correlation = shown
    for matrix in shown:  # the ones of each with itself would take the colours from the rest
        assert np.isnan(np.diag(matrix)).all()
    beside = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(correlation[beside], np.corrcoef(wrong_MN)[beside])
    assert agreement[0, 1] == (wrong_MN[0] == wrong_MN[1]).mean()
    perfect = (2.0 * y - 1)[:, None].repeat(2, axis=1)
    assert len(drawings.of_models(perfect, ["a", "b"], y, "val", tmp_path)) == 1  # no errors, no correlation
    assert drawings.of_models(logit_NM[:, :1], ["alone"], y, "val", tmp_path) == []
    assert drawings.of_models(np.zeros((4, 13)), list("abcdefghijklm"), np.ones(4), "val", tmp_path) == []
