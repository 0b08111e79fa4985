"""Honest stacking: no leakage, no gain that is none, and a gain where there is one."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pair_compare_stacking import stackers, stacking, tables
from shared_core.errors import UserError

QUICK = ("mean", "weighted_mean", "logistic")


def names(logit_NM: np.ndarray) -> list[str]:
    return [f"model_{m}" for m in range(logit_NM.shape[1])]


def images(fold: np.ndarray, seed: int = 0, per_fold: int = 300) -> np.ndarray:
    """Two different source images for each pair, from those of its fold: (N, 2)."""
    rng = np.random.default_rng(seed)
    left = rng.integers(0, per_fold, len(fold))
    right = (left + rng.integers(1, per_fold, len(fold))) % per_fold
    return np.stack([left, right], axis=1) + per_fold * fold[:, None]


def alike(seed: int, n: int, models: int) -> tuple[np.ndarray, np.ndarray]:
    """Models of the same quality with noise of their own: their mean cannot be beaten."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    return (2 * y - 1)[:, None] + rng.normal(size=(n, 1)) + rng.normal(size=(n, models)), y


def cliques(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Two good models, and six bad ones that make the same errors and outvote them in the mean."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    truth = (2 * y - 1)[:, None]
    good = truth + 0.8 * rng.normal(size=(n, 2))
    return np.concatenate([good, truth + 2 * rng.normal(size=(n, 1)) + 0.1 * rng.normal(size=(n, 6))], axis=1), y


def test_noise_is_not_learned_though_it_looks_so_in_sample() -> None:
    """The predecessor's headline was its stacker scored on the rows it was fitted on; here labels are coin flips."""
    rng = np.random.default_rng(0)
    n, models = 900, 4
    logit_NM, y, fold = rng.normal(size=(n, models)), rng.integers(0, 2, n), np.arange(n) % 3
    in_sample = stackers.fit("lightgbm", logit_NM, y, fold, names(logit_NM)).predict(logit_NM)
    assert ((in_sample >= 0.5) == y).mean() > 0.75
    found = stacking.cross_validate(logit_NM, y, fold, names(logit_NM), images(fold))
    assert set(found.p) == {*stackers.METHODS, stackers.BEST_SINGLE, stacking.NESTED}
    for method in found.p:
        assert abs(found.right(method).mean() - 0.5) < 4 * 0.5 / math.sqrt(n), method
        assert found.nll(method) > math.log(2) - 0.01, method
    assert stacking.decide(found).method == "mean"


def test_answers_to_a_fold_do_not_depend_on_its_labels() -> None:
    """Neither the answers of any method, nor which method is chosen for the fold; those to other folds do."""
    logit_NM, y = cliques(1, 150)
    fold = np.arange(len(y)) % 3
    held = fold == 1
    before = stacking.cross_validate(logit_NM, y, fold, names(logit_NM))
    after = stacking.cross_validate(logit_NM, np.where(held, 1 - y, y), fold, names(logit_NM))
    assert after.chosen[1] == before.chosen[1]
    for method in before.p:
        assert np.array_equal(after.p[method][held], before.p[method][held]), method
        assert not np.array_equal(after.p[method][~held], before.p[method][~held]), method


def test_nested_answers_are_those_of_stackers_fitted_by_hand() -> None:
    logit_NM, y = cliques(2, 300)
    fold = np.array([7, 2, 5, 5])[np.arange(len(y)) % 4]  # numbers and sizes of folds are free
    found = stacking.cross_validate(logit_NM, y, fold, names(logit_NM), methods=QUICK)
    assert sorted(found.chosen) == [2, 5, 7]
    for k, method in found.chosen.items():
        rest = fold != k
        stacker = stackers.fit(method, logit_NM[rest], y[rest], fold[rest], names(logit_NM))
        assert np.array_equal(found.p[stacking.NESTED][~rest], stacker.predict(logit_NM[~rest]))
        inner: dict[str, float] = {}
        for name in QUICK:
            p = np.empty(rest.sum())
            for j in {2, 5, 7} - {k}:
                part = fold[rest] != j
                rows = [array[rest][part] for array in (logit_NM, y, fold)]
                p[~part] = stackers.fit(name, *rows, names(logit_NM)).predict(logit_NM[rest][~part])
            inner[name] = -np.log(np.where(y[rest] == 1, p, 1 - p)).mean()
        assert method == min(inner, key=lambda name: inner[name])


def test_copies_of_one_model_are_averaged() -> None:
    """All methods but LightGBM are equal then, and the simplest is taken."""
    logit_NM, y = alike(0, 600, 1)
    logit_NM, fold = np.repeat(logit_NM, 3, axis=1), np.arange(len(y)) % 3
    found = stacking.cross_validate(logit_NM, y, fold, names(logit_NM), methods=("greedy", "weighted_mean", "mean"))
    assert set(found.chosen.values()) == {"mean"}
    decision = stacking.decide(found)
    assert (decision.method, decision.candidate, decision.significant, decision.p_value) == ("mean", "mean", False, 1)
    assert decision.sentence == (
        "Stacking uses the mean of the probabilities: no other method has a lower loss out of fold, over 600 pairs."
    )


@pytest.mark.parametrize("known", [True, False])
def test_mean_is_used_where_nothing_is_significantly_better(known: bool) -> None:
    """Logistic regression has the lower loss, being sharper, but gives the same answers."""
    logit_NM, y = alike(1, 900, 5)
    fold = np.arange(len(y)) % 3
    sources = images(fold) if known else None
    decision = stacking.decide(stacking.cross_validate(logit_NM, y, fold, names(logit_NM), sources, QUICK))
    assert (decision.method, decision.candidate, decision.significant) == ("mean", "logistic", False)
    assert decision.p_value > 0.05 and decision.difference.low <= 0
    assert decision.sentence.startswith("Stacking uses the mean of the probabilities: logistic regression")
    assert decision.sentence.endswith("no significant gain.")
    assert ("allowing for shared source images" in decision.sentence) == known
    assert ("images" in decision.difference.method) == known


def test_stacking_is_used_where_it_helps() -> None:
    logit_NM, y = cliques(0, 900)
    fold = np.arange(len(y)) % 3
    found = stacking.cross_validate(logit_NM, y, fold, names(logit_NM), images(fold))
    decision = stacking.decide(found)
    assert decision.method == decision.candidate != "mean"
    assert decision.significant and decision.p_value < 0.05 and decision.difference.low > 0
    gain = found.right(stacking.NESTED).mean() - found.right("mean").mean()
    assert decision.difference.value == pytest.approx(gain) and gain > 0.03
    assert decision.sentence.endswith("a significant gain over the mean of the probabilities.")
    assert f"from {100 * found.right('mean').mean():.2f} to" in decision.sentence
    assert f"p = {decision.p_value:.2g}" in decision.sentence
    stored = json.loads(json.dumps(decision.as_dict(), allow_nan=False))
    assert stored["difference"]["low"] == decision.difference.low


def by_hand(better: np.ndarray, worse: np.ndarray, sources: np.ndarray | None) -> stacking.CrossValidation:
    """Pairs whose true answer is "left"; the mean errs on `better`, the nested procedure on `worse`."""
    y = np.ones(len(better), int)
    nested = np.where(worse, 0.4, 0.9)
    p = {"mean": np.where(better, 0.4, 0.7), "logistic": nested, stacking.NESTED: nested}
    return stacking.CrossValidation(y, np.arange(len(y)) % 3, sources, p, dict.fromkeys(range(3), "logistic"))


def test_gain_from_one_source_image_is_not_significant() -> None:
    """Twelve pairs all made with image 0: by McNemar twelve independent gains, in truth one."""
    better = np.arange(200) < 12
    sources = np.stack([np.where(better, 0, 1 + np.arange(200)), 1000 + np.arange(200)], axis=1)
    alone = stacking.decide(by_hand(better, ~better & False, None))
    shared = stacking.decide(by_hand(better, ~better & False, sources))
    assert alone.p_value == shared.p_value == pytest.approx(2 * 0.5**12)
    assert alone.significant and alone.method == "logistic" and alone.difference.low > 0
    assert not shared.significant and shared.method == "mean" and shared.difference.low <= 0


def test_few_gains_are_not_significant_whatever_the_interval() -> None:
    """Five pairs: the bootstrap excludes 0, McNemar's exact test does not."""
    better = np.arange(200) < 5
    decision = stacking.decide(by_hand(better, ~better & False, None))
    assert decision.difference.low > 0 and decision.p_value > 0.05
    assert (decision.method, decision.candidate) == ("mean", "logistic")


def test_loss_of_accuracy_is_no_reason() -> None:
    """However significant: the lower NLL alone does not make a method the one to use."""
    worse = np.arange(200) < 12
    decision = stacking.decide(by_hand(~worse & False, worse, None))
    assert decision.candidate == "logistic" and decision.p_value < 0.05 and decision.difference.high < 0
    assert decision.method == "mean" and not decision.significant


def test_gain_is_that_of_the_procedure_not_of_the_method_it_ends_with() -> None:
    """The method of the lowest loss on all folds was picked by these very answers."""
    better = np.arange(200) < 12
    found = by_hand(better, ~better & False, None)
    found.p[stacking.NESTED] = found.p["mean"]  # without each fold, the others would have chosen the mean
    decision = stacking.decide(found)
    assert (decision.method, decision.candidate, decision.difference.value) == ("mean", "logistic", 0)


def test_among_equal_losses_the_simplest_method_is_chosen() -> None:
    p = {"lightgbm": np.full(9, 0.7 + 1e-9), "greedy": np.full(9, 0.7 + 1e-8), "weighted_mean": np.full(9, 0.7)}
    p |= {"mean": np.full(9, 0.69), stacking.NESTED: np.full(9, 0.7)}
    found = stacking.CrossValidation(np.ones(9, int), np.arange(9) % 3, None, p, {})
    assert stacking.decide(found).candidate == "weighted_mean"


def test_accuracies_of_folds_add_up() -> None:
    logit_NM, y = cliques(3, 240)
    fold = np.arange(len(y)) % 3
    found = stacking.cross_validate(logit_NM, y, fold, names(logit_NM), images(fold), QUICK)
    for method in found.p:
        by_fold = found.fold_accuracies(method)
        assert by_fold == [((found.p[method] >= 0.5) == (y == 1))[fold == k].mean() for k in range(3)]
        assert np.mean(by_fold) == pytest.approx(found.accuracy(method).value)


def test_table_says_what_the_nested_procedure_chose() -> None:
    found = by_hand(np.zeros(9, bool), np.zeros(9, bool), None)
    found.chosen[2] = "mean"
    rows = tables.cross_validation(found)
    assert [row["method"] for row in rows] == [
        "the mean of the probabilities",
        "logistic regression",
        "whatever the other folds choose (logistic 2x, mean 1x)",
    ]
    assert [row["by fold"] for row in rows] == ["1.000, 1.000, 1.000"] * 3


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), models=st.integers(1, 4))
def test_agreement_and_correlation_of_errors_are_what_they_say(seed: int, models: int) -> None:
    logit_NM, y = alike(seed, 200, models)
    left_NM = logit_NM >= 0
    wrong_NM = left_NM != (y == 1)[:, None]
    share, correlation = stacking.agreement(logit_NM), stacking.error_correlation(logit_NM, y)
    for a in range(models):
        for b in range(models):
            assert share[a, b] == pytest.approx((left_NM[:, a] == left_NM[:, b]).mean())
            assert correlation[a, b] == pytest.approx(np.corrcoef(wrong_NM[:, a], wrong_NM[:, b])[0, 1])


def test_correlation_with_a_model_that_never_errs_is_undefined() -> None:
    logit_NM, y = alike(0, 100, 1)
    correlation = stacking.error_correlation(np.concatenate([logit_NM, 2.0 * y[:, None] - 1], axis=1), y)
    assert correlation[0, 0] == pytest.approx(1)
    assert np.isnan([correlation[0, 1], correlation[1, 0], correlation[1, 1]]).all()


def test_models_trained_on_what_is_stacked_are_named() -> None:
    pairs = np.array([["train/1", "train/2"], ["train/2", "train/9"]])
    stacking.check_unseen(pairs, {"fpn": {"train/3"}, "seed_42": ["train/4", "train/5"]})
    with pytest.raises(UserError) as caught:
        stacking.check_unseen(
            pairs, {"fpn": {"train/3"}, "seed_42": ["train/9", "train/2"], "small": np.array(["train/1"])}
        )
    assert str(caught.value) == (
        "stacking: of its 3 source images, base models were trained on some: seed_42 on 2 (such as train/2), small on "
        "1 (such as train/1); stack on images withheld from all of them"
    )
    with pytest.raises(UserError, match=r"fpn on 1 \(such as 7\)"):
        stacking.check_unseen(np.array([[7, 8]], np.int32), {"fpn": {7, 9}})


@pytest.mark.parametrize(
    ("pairs", "trained_on", "words"),
    [
        ([], {"fpn": {1}}, "no source images given"),
        ([[1, 2]], {"fpn": set()}, "base model fpn: which source images it was trained on is unknown"),
        ([[1, 2]], {"fpn": {"1", "2"}}, "base model fpn: .* written in another way"),
    ],
)
def test_what_cannot_be_compared_is_not_taken_for_unseen(pairs: Any, trained_on: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        stacking.check_unseen(pairs, trained_on)


def test_folds_that_share_an_image_are_refused() -> None:
    logit_NM, y = alike(0, 90, 2)
    fold = np.arange(90) % 3
    sources = images(fold)
    sources[3] = sources[4, 1], sources[3, 1]
    with pytest.raises(UserError, match=rf"1 of \d+ source images occur in more than one, such as {sources[4, 1]}"):
        stacking.cross_validate(logit_NM, y, fold, names(logit_NM), sources)
    with pytest.raises(UserError, match=r"such as shared"):
        stacking.check_folds(np.array([0, 1]), np.array([["a", "shared"], ["shared", "b"]]))
    with pytest.raises(UserError, match=r"shape \(90,\): must be \(90, 2\)"):
        stacking.cross_validate(logit_NM, y, fold, names(logit_NM), sources[:, 0])


def test_too_few_folds_and_unknown_methods_are_refused() -> None:
    logit_NM, y = alike(0, 30, 2)
    fold = np.arange(30) % 2
    with pytest.raises(UserError, match=r"2 fold\(s\): nested cross-validation needs 3"):
        stacking.cross_validate(logit_NM, y, fold, names(logit_NM))
    for methods in (("greedy",), ("mean", "magic"), ("mean", "best_single")):
        with pytest.raises(UserError, match="must be mean, against which all are judged"):
            stacking.cross_validate(logit_NM, y, np.arange(30) % 3, names(logit_NM), methods=methods)
