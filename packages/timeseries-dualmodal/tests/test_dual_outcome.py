"""Intervals keep together what a split keeps together; tables, notes and figures of an evaluation are honest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from shared_core.errors import UserError
from shared_core.intervals import bootstrap
from shared_core.records import RunDir
from timeseries_dualmodal import costs, drawings, evaluate, outcome, tables, train
from timeseries_dualmodal.__main__ import APP
from timeseries_dualmodal.config import Config, EvaluateOptions
from timeseries_dualmodal.decision import Decided
from timeseries_dualmodal.decision_config import Decision
from timeseries_dualmodal.outcome import Outcome
from timeseries_dualmodal.series import SeriesSet

LENGTHS, N = (3, 6, 8), 80
GROUPED = Config.model_validate(
    {"split": {"kind": "grouped", "by": "field"}, "evaluation": {"lengths": [3, 6]}, "data": {"groups": ["field"]}}
)


def series(n: int = N) -> SeriesSet:
    """Two of each field, of the same class; two regions, and one of every year."""
    rows = np.arange(n)
    return SeriesSet(
        x=np.random.default_rng(0).normal(size=(n, 1, 8)).astype(np.float32),
        y=rows // 2 % 2,
        ids=rows.astype(str),
        variables=("ndvi",),
        classes=("maize", "rice"),
        times=np.arange(8.0),
        groups={
            "field": (rows // 2).astype(str),
            "region": np.where(rows < 50, "a", "b"),
            "year": (rows % 5).astype(str),
        },
    )


def probabilities(of: SeriesSet, seed: int = 0) -> np.ndarray:
    """The later the better, and the same for the two series of a field."""
    assert of.y is not None
    noise = np.repeat(np.random.default_rng(seed).normal(size=(len(of) // 2, len(LENGTHS), 2)), 2, axis=0)
    logit = noise + np.array([0.2, 1.0, 1.5])[:, None] * np.eye(2)[of.y][:, None]
    e = np.exp(logit)
    return e / e.sum(axis=2, keepdims=True)


def answered(seed: int = 0) -> Outcome:
    return evaluate.outcome_of(GROUPED, LENGTHS, probabilities(series(), seed), series())


def test_intervals_are_those_of_resampled_groups() -> None:
    def f1(y: np.ndarray, answer: np.ndarray) -> float:
        both = [(y == k).sum() + (answer == k).sum() for k in (0, 1)]
        return float(np.mean([2 * ((y == k) & (answer == k)).sum() / max(1, both[k]) for k in (0, 1)]))

    def gap(y: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> float:
        return f1(y, ours) - f1(y, theirs)

    def mean(y: np.ndarray, *answers: np.ndarray) -> float:
        return float(np.mean([f1(y, answer) for answer in answers]))

    one, other = answered(), answered(seed=1)
    field, at_6 = series().groups["field"], one.answers_NL[:, 1]
    half = np.arange(N) < 50
    pairs = [
        (one.macro_f1(6), bootstrap(f1, one.y, at_6, groups=field)),
        (one.less(other, 6), bootstrap(gap, one.y, at_6, other.answers_NL[:, 1], groups=field)),
        (one.mean_macro_f1(), bootstrap(mean, one.y, *one.answers_NL.T, groups=field)),
        (one.at((6,)).mean_less(other.at((6,))), one.less(other, 6)),
        (one.take(half).macro_f1(6), bootstrap(f1, one.y[half], at_6[half], groups=field[half])),
    ]
    for found, slow in pairs:
        assert (found.value, found.low, found.high) == pytest.approx((slow.value, slow.low, slow.high))
        assert found.method in ("bootstrap 95 % over 40 field", "bootstrap 95 % over 25 field")
    alone = Outcome(LENGTHS, one.p_NLK, one.y).macro_f1(6)
    wide, narrow = pairs[0][0].high - pairs[0][0].low, alone.high - alone.low
    assert alone.method == "bootstrap 95 %" and wide > 1.2 * narrow


def test_a_random_split_draws_series() -> None:
    assert evaluate.outcome_of(Config(), LENGTHS, probabilities(series()), series()).sources == (None, "groups")


def test_one_source_alone_has_an_interval_over_its_series() -> None:
    """Drawing the only region again and again would give the same macro-F1 each time."""
    inside = answered().take(series().groups["field"] == "0")
    assert inside.sources[0] is None
    one = Outcome(LENGTHS, probabilities(series()), series().y, np.full(N, "Fergana"), "region")
    found = one.macro_f1(6)
    assert found.low < found.value < found.high


def test_costs_keep_groups_together() -> None:
    found = costs.measure(Decision(), answered(seed=1), answered(), 8)
    for estimate in (found.average, found.fixed_average, *found.rule.values(), *found.fixed.values()):
        assert estimate.method == "bootstrap 95 % over 40 field"


def estimates(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every number with an interval in an evaluation, with where it stands."""
    if isinstance(value, dict) and "method" in value:
        yield path, value
    elif isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in parts:
            yield from estimates(part, f"{path}/{key}")


@pytest.fixture
def evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `evaluate` makes of a split, without figures."""
    monkeypatch.setattr(evaluate, "_figures", lambda *_: [])
    monkeypatch.setattr(drawings, "decisions", lambda *_: tmp_path / "decisions.png")
    given = series()
    assert given.y is not None
    decided = Decided.fit(GROUPED.decision, probabilities(given, 1), given.y, LENGTHS, 8)
    who: Any = SimpleNamespace(
        run=RunDir(tmp_path),
        name="best",
        config=GROUPED,
        lengths=LENGTHS,
        decided=decided,
        about=SimpleNamespace(times=range(given.steps)),
    )

    def of(split: str) -> dict[str, Any]:
        every = evaluate.decided(who, probabilities(given), given)
        about = evaluate.evaluate(who, given, every, {"random_forest": (answered(2), answered(3))}, split)
        evaluate.add_parts(about, who, every, {"networks": answered(4), "trees": answered(5)})
        evaluate.add_costs(about, who, every, every, given.steps)
        return about

    return of


def test_every_interval_of_an_evaluation_is_over_the_groups_of_the_split(evaluated: Any) -> None:
    found = dict(estimates(evaluated("test")))
    assert len(found) > 40
    assert {"/metrics/macro_f1", "/metrics/accuracy_full", "/metrics/steps_saved", "/metrics/decision_accuracy"} < set(
        found
    )
    # the calibration error has a limit of another kind instead of an interval
    without = [path for path, one in found.items() if " field" not in one["method"] and not path.endswith("ece_full")]
    assert not without


def test_numbers_of_validation_series_are_called_too_good(evaluated: Any) -> None:
    assert evaluate.CHOSEN_HERE in evaluated("val")["notes"]
    assert evaluate.CHOSEN_HERE not in evaluated("test")["notes"]


def test_a_column_of_small_groups_has_no_table(evaluated: Any) -> None:
    titles = [title for title in evaluated("test")["tables"] if title.startswith("By ")]
    assert titles == ["By region"]  # 16 series of each year, 2 of each field


def test_rows_of_small_groups_have_the_columns_of_the_others() -> None:
    values = np.where(np.arange(N) < 75, "large", "small")
    large, small = tables.by_group(answered(), values, "region", LENGTHS)
    assert list(large) == list(small) == ["region", "series", "3 steps", "6 steps", "8 steps"]
    assert (large["series"], small["series"], small["3 steps"]) == (75, 5, "too few")
    assert tables.by_group(answered(), series().groups["field"], "field", LENGTHS) == []


@pytest.mark.parametrize("lengths", [(8,), (6, 8), (3, 6, 8), (2, 3, 6, 8), tuple(range(1, 38))])
def test_a_figure_shows_each_length_once(
    lengths: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(drawings, "curve", lambda *_: tmp_path)
    monkeypatch.setattr(drawings, "confusion", lambda *_: tmp_path)
    monkeypatch.setattr(drawings, "seen", lambda pictures, lengths, *_: drawn.append(lengths) or tmp_path)
    eyes = SimpleNamespace(see=lambda x, asked, rows: (x, torch.zeros(1, asked.shape[1], 1, 4, 4)))
    who: Any = SimpleNamespace(run=RunDir(tmp_path), eyes=eyes, device=torch.device("cpu"))
    evaluate._figures(who, Outcome(lengths, np.empty((0, len(lengths), 2)), np.empty(0, int)), {}, series(), "test")
    [shown] = drawn
    assert len(set(shown)) == len(shown) == min(4, len(lengths)) and shown[-1] == lengths[-1]


def test_a_length_without_a_fit_is_refused_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.model_validate({"evaluation": {"lengths": [2, 5]}, "runtime": {"device": "cpu"}})
    who = SimpleNamespace(config=config, lengths=(2, 6, 12, 18, 24, 30, 36, 37), about=SimpleNamespace(times=range(37)))
    monkeypatch.setattr(evaluate.subject, "find", lambda *_: who)
    monkeypatch.setattr(train.Material, "load", lambda *_: pytest.fail("goes on"))
    with pytest.raises(UserError, match=r"evaluation\.lengths: 5 is none .* \(2, 6, 12, .*\); leave the flag out") as e:
        evaluate.run(APP, config, EvaluateOptions())
    assert "\n" not in str(e.value)
    evaluate.check_lengths((2, 36, 37), who.lengths)


def test_the_best_is_that_of_the_largest_mean() -> None:
    good, bad = answered(), Outcome(LENGTHS, 1 - answered().p_NLK, answered().y)
    assert outcome.best({"bad": bad, "good": good}) == "good"
