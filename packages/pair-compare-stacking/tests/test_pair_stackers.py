"""Laws of the meta-learners, and the same numbers from elsewhere."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pair_compare_stacking import blends, calibration, stackers
from shared_core.errors import UserError

ALL = (*stackers.METHODS, stackers.BEST_SINGLE)
FOLDS = 3


def problem(seed: int, n: int = 120, models: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Models that see the truth through noise of their own and noise in common, each on a scale of its own."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    seen = (2 * y - 1)[:, None] + rng.normal(size=(n, 1)) + rng.normal(size=(n, models)) * rng.uniform(0.5, 2, models)
    return seen * rng.uniform(0.5, 4, models), y, np.arange(n) % FOLDS, [f"model_{m}" for m in range(models)]


def fitted(method: str, seed: int = 0, n: int = 120, models: int = 3) -> tuple[Any, np.ndarray, np.ndarray]:
    logit_NM, y, fold, names = problem(seed, n, models)
    return stackers.fit(method, logit_NM, y, fold, names), logit_NM, y


@settings(max_examples=10, deadline=None)
@given(t=st.floats(0.3, 5.0), seed=st.integers(0, 1000), scale=st.floats(0.5, 2.0))
def test_temperature_is_recovered_and_scales_with_the_logits(t: float, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logit = 2 * t * rng.normal(size=20_000)
    y = rng.random(len(logit)) < calibration.sigmoid(logit / t)
    found = calibration.temperature(logit, y)
    assert found == pytest.approx(t, rel=0.08)
    assert calibration.temperature(scale * logit, y) == pytest.approx(scale * found, rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_temperature_is_the_reciprocal_of_scikit_learns_coefficient(seed: int) -> None:
    from sklearn.linear_model import LogisticRegression

    logit_NM, y, _, _ = problem(seed, 500, 1)
    regression = LogisticRegression(C=1e9, fit_intercept=False, tol=1e-10, max_iter=1000).fit(logit_NM, y)
    assert calibration.temperature(logit_NM[:, 0], y) == pytest.approx(1 / regression.coef_[0, 0], rel=1e-4)


def test_temperature_is_bounded_for_models_that_know_everything_or_nothing() -> None:
    y = np.arange(100) % 2
    low, high = stackers.TEMPERATURES
    assert calibration.temperature(2.0 * y - 1, y) == pytest.approx(low, rel=1e-3)
    assert calibration.temperature(1 - 2.0 * y, y) == pytest.approx(high, rel=1e-3)
    assert calibration.temperature(1000 * (1 - 2.0 * y), y) == pytest.approx(high, rel=1e-3)  # nothing overflows


@pytest.mark.parametrize("method", ALL)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000), models=st.integers(1, 4))
def test_swapping_the_halves_swaps_the_answer(method: str, seed: int, models: int) -> None:
    stacker, logit_NM, _ = fitted(method, seed, models=models)
    new_NM = np.concatenate([logit_NM, problem(seed + 1, 50, models)[0], np.zeros((1, models))])
    np.testing.assert_allclose(stacker.predict(-new_NM), 1 - stacker.predict(new_NM), rtol=0, atol=1e-9)
    assert stacker.predict(new_NM)[-1] == pytest.approx(0.5, abs=1e-12)  # no opinion anywhere, none here


@pytest.mark.parametrize("method", [method for method in ALL if method != "lightgbm"])  # which draws bags of rows
def test_swapping_pairs_of_the_fitting_rows_changes_nothing(method: str) -> None:
    logit_NM, y, fold, names = problem(5)
    swap = np.arange(len(y)) % 4 == 0
    other = stackers.fit(method, np.where(swap[:, None], -logit_NM, logit_NM), np.where(swap, 1 - y, y), fold, names)
    same = stackers.fit(method, logit_NM, y, fold, names)
    np.testing.assert_allclose(other.predict(logit_NM), same.predict(logit_NM), atol=1e-6)


@pytest.mark.parametrize("method", ALL)
def test_one_label_only_is_enough(method: str) -> None:
    """Pairs can be turned so that the left digit is always the larger one."""
    logit_NM, y, fold, names = problem(6)
    turned_NM = np.where(y[:, None] == 1, logit_NM, -logit_NM)
    p = stackers.fit(method, turned_NM, np.ones_like(y), fold, names).predict(turned_NM)
    assert (p > 0.5).mean() > 0.6


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("copies", [1, 3])
def test_one_model_or_copies_of_one_are_that_model(method: str, copies: int) -> None:
    logit_NM, y, fold, _ = problem(1, 300, 1)
    copied_NM = np.repeat(logit_NM, copies, axis=1)
    p = stackers.fit(method, copied_NM, y, fold, [f"copy_{m}" for m in range(copies)]).predict(copied_NM)
    single = calibration.sigmoid(logit_NM[:, 0] / calibration.temperature(logit_NM[:, 0], y))
    if method == "lightgbm":  # steps, not a curve
        assert np.corrcoef(p, single)[0, 1] > 0.8
    else:
        np.testing.assert_allclose(p, single, atol=0.02 if method == "logistic" else 1e-9)
        assert np.array_equal(p > 0.5, single > 0.5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), data=st.data())
def test_mean_does_not_depend_on_the_order_of_the_models(seed: int, data: st.DataObject) -> None:
    logit_NM, y, fold, names = problem(seed, models=4)
    order = data.draw(st.permutations(range(4)))
    p = stackers.fit("mean", logit_NM, y, fold, names).predict(logit_NM)
    other = stackers.fit("mean", logit_NM[:, order], y, fold, [names[m] for m in order]).predict(logit_NM[:, order])
    np.testing.assert_allclose(p, other, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), models=st.integers(1, 6))
def test_blends_are_as_good_on_the_fitting_rows_as_they_must_be(seed: int, models: int) -> None:
    """No method may lose to what it can imitate; the order of the losses is a law."""
    logit_NM, y, fold, names = problem(seed, models=models)
    found = {name: stackers.fit(name, logit_NM, y, fold, names) for name in ("mean", "weighted_mean", "greedy")}
    loss = {name: calibration.nll(stacker.predict(logit_NM), y) for name, stacker in found.items()}
    calibrated_NM = calibration.sigmoid(logit_NM / np.array(found["mean"].temperatures))
    singles = [calibration.nll(column, y) for column in calibrated_NM.T]
    assert loss["weighted_mean"] <= loss["mean"] + 1e-9
    assert loss["greedy"] <= min(*singles, loss["mean"]) + 1e-9
    assert loss["weighted_mean"] <= loss["greedy"] + blends.GAP + 1e-9 <= loss["weighted_mean"] + 2e-3


def test_weighted_mean_is_scipys_optimum() -> None:
    from scipy.optimize import minimize

    logit_NM, y, _, _ = problem(3, 400, 4)
    true_NM = calibration.sigmoid(np.where(y[:, None] == 1, logit_NM, -logit_NM))
    found = minimize(
        lambda w: -np.log(true_NM @ w).mean(),
        np.full(4, 0.25),
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-12},
    )
    weight_M = blends.best(true_NM)
    assert weight_M.min() >= 0 and weight_M.sum() == pytest.approx(1)
    assert -np.log(true_NM @ weight_M).mean() <= found.fun + blends.GAP
    np.testing.assert_allclose(weight_M, found.x, atol=0.03)


def test_greedy_selects_with_replacement() -> None:
    """Two models whose best mixture is 3 to 1: no start from the k best has these weights."""
    true_NM = np.tile([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.1, 0.9]], (5, 1))
    # the likelihood of w is highest where 3 * .8 / (.1 + .8 w) = .8 / (.9 - .8 w)
    assert blends.greedy(true_NM)[0] == pytest.approx(0.8125, abs=0.02)
    assert blends.best(true_NM)[0] == pytest.approx(0.8125, abs=0.002)


def test_greedy_takes_the_best_state_on_its_way() -> None:
    """Three models that make up for each other: only equal weights are best, and most selections pass them by."""
    true_NM = np.array([[0.9, 0.9, 0.1], [0.9, 0.1, 0.9], [0.1, 0.9, 0.9]])
    np.testing.assert_allclose(blends.greedy(true_NM), [1 / 3] * 3)


def test_best_single_is_the_most_accurate_and_calibrated() -> None:
    stacker, logit_NM, y = fitted(stackers.BEST_SINGLE, 4, 300, 5)
    right_M = ((logit_NM >= 0) == (y == 1)[:, None]).mean(axis=0)
    best = int(right_M.argmax())
    assert np.array_equal(stacker.weights, np.eye(5)[best])
    p = calibration.sigmoid(logit_NM[:, best] / calibration.temperature(logit_NM[:, best], y))
    np.testing.assert_allclose(stacker.predict(logit_NM), p, atol=1e-12)


def test_best_single_is_not_the_one_of_the_lowest_loss() -> None:
    """One is right on 80 of 100 with the same confidence in all; the other on 78, and unsure of the rest."""
    row = np.arange(100)
    logit_NM = np.stack([np.where(row < 80, 1.0, -1.0), np.where(row < 78, 5.0, -0.01)], axis=1)
    stacker = stackers.fit(stackers.BEST_SINGLE, logit_NM, np.ones(100, int), row % FOLDS, ["accurate", "sharp"])
    assert stacker.describe()["weights"] == {"accurate": 1.0, "sharp": 0.0}


def test_best_single_among_equally_accurate_has_the_lower_loss() -> None:
    logit_NM, y, fold, _ = problem(8, 200, 1)
    flat_NM = np.concatenate([np.sign(logit_NM), logit_NM], axis=1)  # the same answers, once without confidence
    stacker = stackers.fit(stackers.BEST_SINGLE, flat_NM, y, fold, ["flat", "whole"])
    assert stacker.describe()["weights"] == {"flat": 0.0, "whole": 1.0}


@pytest.mark.parametrize("seed", range(3))
def test_logistic_is_scikit_learns_grid_search(seed: int) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, PredefinedSplit

    logit_NM, y, fold, names = problem(seed, 300, 4)
    stacker = stackers.fit("logistic", logit_NM, y, fold, names)
    calibrated_NM = logit_NM / np.array(stacker.temperatures)
    search = GridSearchCV(
        LogisticRegression(fit_intercept=False, tol=1e-10, max_iter=1000),
        {"C": stackers.PENALTIES},
        scoring="neg_log_loss",
        cv=PredefinedSplit(fold),
    ).fit(calibrated_NM, y)
    assert stacker.penalty == search.best_params_["C"]
    np.testing.assert_allclose(stacker.coefficients, search.best_estimator_.coef_[0], atol=1e-4)
    np.testing.assert_allclose(stacker.predict(logit_NM), search.predict_proba(calibrated_NM)[:, 1], atol=1e-4)


def test_logistic_can_do_with_one_fold() -> None:
    logit_NM, y, fold, names = problem(0)
    assert stackers.fit("logistic", logit_NM, y, np.zeros_like(fold), names).describe()["C"] == 1


@pytest.mark.parametrize("models", [1, 3])
def test_trees_answer_as_lightgbm_does(models: int) -> None:
    import lightgbm

    stacker, logit_NM, _ = fitted("lightgbm", 2, 400, models)
    x_NM = np.concatenate([logit_NM, 3 * problem(3, 100, models)[0]]) / np.array(stacker.temperatures)
    booster = lightgbm.Booster(model_str=stacker.text)
    read = stackers.parse_trees(stacker.text, models)
    x_NM[: len(read), 0] = read.threshold[:, 0]  # exactly on a threshold
    p_N = calibration.sigmoid(read.values(x_NM).sum(axis=1))
    np.testing.assert_allclose(p_N, booster.predict(x_NM), rtol=1e-12)
    expected = (booster.predict(x_NM) + 1 - booster.predict(-x_NM)) / 2
    np.testing.assert_allclose(stacker.predict(x_NM * np.array(stacker.temperatures)), expected, atol=1e-9)
    looked_at = booster.feature_importance("split").tolist()
    assert list(stacker.describe()["splits"].values()) == looked_at
    assert stacker.describe()["trees"] == 100


def test_lightgbm_is_repeatable_and_seeded() -> None:
    logit_NM, y, fold, names = problem(0, 200)
    first, again, other = (stackers.fit("lightgbm", logit_NM, y, fold, names, seed).to_dict() for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("n", [1, 12])
def test_too_few_rows_for_a_split_give_no_opinion(n: int) -> None:
    stacker, logit_NM, _ = fitted("lightgbm", 0, n)
    assert np.array_equal(stacker.predict(logit_NM), np.full(n, 0.5))


@pytest.mark.parametrize("method", ALL)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10_000), models=st.integers(1, 4))
def test_what_went_through_json_predicts_the_same(method: str, seed: int, models: int) -> None:
    stacker, logit_NM, _ = fitted(method, seed, 100, models)
    text = json.dumps(stacker.to_dict(), allow_nan=False)
    back = stackers.from_dict(json.loads(text), stacker.models)
    assert back == stacker
    assert np.array_equal(back.predict(logit_NM), stacker.predict(logit_NM))
    about = json.loads(json.dumps(back.describe(), allow_nan=False))
    assert about["method"] == method and list(about["temperatures"]) == list(stacker.models)


KINDS = ("mean", "logistic", "lightgbm")  # of stored stackers


@functools.cache
def stored_text(method: str) -> str:
    return json.dumps(fitted(method, 0, 60)[0].to_dict())


@pytest.mark.parametrize(
    ("method", "changed", "words"),
    [
        ("mean", {"method": "median"}, "method is 'median'"),
        ("mean", {"method": ["mean"]}, "method is"),
        ("mean", {"models": "abc"}, "models is no list"),
        ("mean", {"models": []}, "models is no list"),
        ("mean", {"models": ["a", 1, "b"]}, "models is no list"),
        ("mean", {"models": ["a", "a", "b"]}, "occurs twice"),
        ("mean", {"models": ["a", "b"]}, "temperatures must be 2 numbers"),
        ("mean", {"temperatures": [1, 1, 0]}, r"temperatures must lie in 0\.05\.\.20, found 0"),
        ("mean", {"temperatures": [1, 1, float("nan")]}, "found nan"),
        ("mean", {"temperatures": [1, 1, 10**400]}, "found 1000"),
        ("mean", {"temperatures": [1, 1, True]}, "found True"),
        ("mean", {"weights": [0.5, 0.5, 0.5]}, "add up to 1.5"),
        ("mean", {"weights": [2, -1, 0]}, "found 2"),
        ("mean", {"weights": None}, "weights must be 3 numbers"),
        ("mean", {"extra": 1}, "'extra' is missing or too much"),
        ("logistic", {"coefficients": [1, 1, float("inf")]}, "found inf"),
        ("logistic", {"coefficients": [1, 1, "two\nlines"]}, "found 'two"),
        ("logistic", {"C": None}, "found None"),
        ("lightgbm", {"lightgbm": 3}, "lightgbm is no text"),
        ("lightgbm", {"lightgbm": ""}, "num_class is 'missing'"),
        ("lightgbm", {"models": ["a", "b"], "temperatures": [1, 1]}, "max_feature_idx is '2', expected '1'"),
    ],
)
def test_what_fits_no_stacker_is_refused_in_one_line(method: str, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        stackers.from_dict(json.loads(stored_text(method)) | changed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", KINDS)
def test_every_key_is_needed(method: str) -> None:
    whole = json.loads(stored_text(method))
    for key in whole:
        with pytest.raises(UserError):
            stackers.from_dict({k: v for k, v in whole.items() if k != key})
    for no_mapping in (None, [], "mean", 3):
        with pytest.raises(UserError, match="no mapping"):
            stackers.from_dict(no_mapping)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(method=st.sampled_from(KINDS), junk=ANYTHING, data=st.data())
def test_junk_is_refused_or_harmless(method: str, junk: Any, data: st.DataObject) -> None:
    stored = json.loads(stored_text(method))
    key = data.draw(st.sampled_from([*stored, "other"]))
    inside = isinstance(stored.get(key), list) and data.draw(st.booleans())
    stored[key] = [*stored[key][:-1], junk] if inside else junk
    check_harmless(stored)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_text_of_lightgbm_is_refused_or_harmless(data: st.DataObject) -> None:
    """LightGBM itself would end the process for many of these, or never come back."""
    stored = json.loads(stored_text("lightgbm"))
    lines = stored["lightgbm"].split("\n")
    end = lines.index("end of trees")
    row = data.draw(st.integers(0, end))
    kind = data.draw(st.sampled_from(["cut", "drop", "twice", "number", "swap"]))
    if kind == "cut":
        lines = lines[:row]
    elif kind == "drop":
        del lines[row]
    elif kind == "twice":
        lines.insert(row, lines[row])
    elif kind == "swap":
        other = data.draw(st.integers(0, end))
        lines[row], lines[other] = lines[other], lines[row]
    else:
        new = data.draw(st.sampled_from(["0", "-1", "-99", "99", "1e9", "nan", "", "x"]))
        numbers = [match.span() for match in re.finditer(r"-?\d[\d.e+-]*", lines[row])]
        if numbers:
            start, stop = data.draw(st.sampled_from(numbers))
            lines[row] = lines[row][:start] + new + lines[row][stop:]
    stored["lightgbm"] = "\n".join(lines)
    check_harmless(stored)


def check_harmless(stored: Any) -> None:
    """Refused in one line, or a stacker like any other."""
    try:
        stacker = stackers.from_dict(stored)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 400
        return
    logit_NM = problem(9, 20, len(stacker.models))[0]
    p = stacker.predict(logit_NM)
    assert ((p >= 0) & (p <= 1)).all()
    np.testing.assert_allclose(stacker.predict(-logit_NM), 1 - p, atol=1e-9)
    json.dumps(stacker.describe(), allow_nan=False)


@pytest.mark.parametrize("method", KINDS)
def test_other_base_models_or_another_order_are_refused(method: str) -> None:
    stored = json.loads(stored_text(method))
    names = stored["models"]
    for here in (names[::-1], names[:-1], [*names, "one_more"], []):
        with pytest.raises(UserError, match="model_0, model_1, model_2, in this order; here are"):
            stackers.from_dict(stored, here)
    with pytest.raises(UserError, match=r"shape \(5, 2\).*3 base models"):
        stackers.from_dict(stored, names).predict(np.zeros((5, 2)))


def test_rows_that_do_not_fit_are_refused() -> None:
    logit_NM, y, fold, names = problem(0)
    nan_NM = logit_NM.copy()
    nan_NM[3, 1] = np.nan
    for change, words in [
        ({"logit_NM": nan_NM}, "base model model_1: 1 of 120 logits are NaN"),
        ({"logit_NM": logit_NM[:, :2]}, r"shape \(120, 2\)"),
        ({"logit_NM": logit_NM[:5]}, "5 rows of logits"),
        ({"logit_NM": logit_NM[:0], "y": y[:0], "fold": fold[:0]}, "0 rows of logits"),
        ({"y": y + 1}, "labels must be 0 or 1"),
        ({"y": y[:, None]}, r"labels \(120, 1\)"),
        ({"fold": fold / 2}, "folds whole numbers"),
        ({"models": ["a", "b", "a"]}, "a name of its own"),
        ({"models": []}, "need one or more"),
        ({"method": "magic"}, "'magic': choose one of mean, weighted_mean"),
    ]:
        given = {"method": "mean", "logit_NM": logit_NM, "y": y, "fold": fold, "models": names} | change
        with pytest.raises(UserError, match=words) as caught:
            stackers.fit(**given)
        assert "\n" not in str(caught.value)
