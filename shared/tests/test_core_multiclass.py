"""Metrics of many classes against scikit-learn, their identities, and what their intervals are over."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_core import metrics, multiclass
from shared_core.errors import UserError
from shared_core.intervals import Resamples

sklearn = pytest.importorskip("sklearn.metrics")


def sample(n: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities, the first classes the more frequent ones, and labels drawn from them."""
    generator = np.random.default_rng(seed)
    p_NK = generator.dirichlet(np.linspace(1.0, 0.2, classes), n)
    return p_NK, (generator.random((n, 1)) > p_NK.cumsum(axis=1)[:, :-1]).sum(axis=1)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_scores_equal_scikit_learns(classes):
    p_NK, y = sample(1500, classes)
    ours = multiclass.scores(p_NK, y, n_resamples=20)
    q = p_NK.argmax(axis=1)
    oracle = {
        "accuracy": sklearn.accuracy_score(y, q),
        "macro_f1": sklearn.f1_score(y, q, average="macro"),
        "log_loss": sklearn.log_loss(y, p_NK),
        "brier": ((p_NK - np.eye(classes)[y]) ** 2).sum() / len(y),
    }
    assert list(ours) == [*oracle, "ece"]
    assert {name: ours[name].value for name in oracle} == pytest.approx(oracle, abs=1e-12)
    for name in oracle:
        assert ours[name].low < ours[name].value < ours[name].high and ours[name].n == 1500


def test_two_classes_are_what_the_metrics_of_two_say():
    p_NK, y = sample(800, 2)
    ours, theirs = multiclass.scores(p_NK, y), metrics.binary(p_NK[:, 1], y)
    assert ours["accuracy"] == theirs["accuracy"]
    assert ours["brier"].value == pytest.approx(2 * theirs["brier"].value)
    f1 = multiclass.per_class(p_NK.argmax(axis=1), y, 2)[1]
    assert (f1.f1, f1.precision, f1.recall) == (theirs["f1"], theirs["precision"], theirs["recall"])


def test_ece_is_that_of_the_answers_probability():
    p_NK, y = sample(1000, 4)
    ours = multiclass.scores(p_NK, y, n_resamples=50)["ece"]
    assert ours == metrics.calibration_error(p_NK.max(axis=1), p_NK.argmax(axis=1) == y, n_resamples=50)
    assert np.isnan(ours.low) and "of a calibrated model 95 % lie below" in ours.method
    sharp_NK = p_NK**3 / (p_NK**3).sum(axis=1, keepdims=True)
    assert multiclass.scores(sharp_NK, y)["ece"].value > 2 * ours.value


answered = st.integers(2, 5).flatmap(
    lambda k: st.tuples(
        st.just(k), st.lists(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)), min_size=1, max_size=30)
    )
)


@given(answered, st.integers(0, 99))
@settings(deadline=None)
def test_every_resample_is_scikit_learns_macro_f1_of_it(data, seed):
    """Also where classes have no label, no prediction or neither, in the sample or in the resample."""
    classes, rows = data
    q, y = np.array(rows).T
    drawn = np.random.default_rng(seed).integers(0, len(y), (3, len(y)))
    w_BN = np.array([np.bincount(d, minlength=len(y)) for d in drawn], dtype=float)
    labels = np.unique(y)  # of the whole sample
    oracle = [sklearn.f1_score(y[d], q[d], labels=labels, average="macro", zero_division=0) for d in drawn]
    assert multiclass.MacroF1(q, y, classes)(w_BN) == pytest.approx(oracle, abs=1e-12)


@given(answered)
@settings(deadline=None, max_examples=50)
def test_per_class_equals_scikit_learns(data):
    classes, rows = data
    q, y = np.array(rows).T
    ours = multiclass.per_class(q, y, classes, n_resamples=2)
    precision, recall, f1, support = sklearn.precision_recall_fscore_support(
        y, q, labels=np.arange(classes), zero_division=np.nan
    )
    assert [c.support for c in ours] == list(support)
    assert [c.precision.value for c in ours] == pytest.approx(list(precision), nan_ok=True)
    assert [c.recall.value for c in ours] == pytest.approx(list(recall), nan_ok=True)
    assert [c.f1.value for c in ours] == pytest.approx(list(f1), nan_ok=True)
    for k, found in enumerate(ours):
        assert found.recall.n == (y == k).sum() and found.precision.n == (q == k).sum()


@pytest.mark.parametrize("groups", [None, np.arange(300) // 7])
def test_the_interval_is_that_of_resampled_rows(groups):
    p_NK, y = sample(300, 5)
    q, labels = p_NK.argmax(axis=1), np.unique(y)

    def plain(y: np.ndarray, q: np.ndarray) -> float:
        return sklearn.f1_score(y, q, labels=labels, average="macro", zero_division=0)

    slow = metrics.bootstrap(plain, y, q, n_resamples=50, groups=groups)
    fast = multiclass.macro_f1(q, y, 5, groups, n_resamples=50)
    assert (fast.value, fast.low, fast.high) == pytest.approx((slow.value, slow.low, slow.high), abs=1e-12)
    assert fast.method == slow.method


def test_samples_of_one_group_are_not_independent_evidence():
    p_NK, y = sample(100, 4)
    p_NK, y, group = np.repeat(p_NK, 10, axis=0), np.repeat(y, 10), np.repeat(np.arange(100), 10)
    alone, grouped = multiclass.scores(p_NK, y), multiclass.scores(p_NK, y, group, "fields")
    for name in ("accuracy", "macro_f1", "log_loss", "brier"):
        assert grouped[name].value == pytest.approx(alone[name].value)
        assert grouped[name].high - grouped[name].low > 2 * (alone[name].high - alone[name].low), name
        assert "over 100 fields" in grouped[name].method


def test_a_paired_difference_is_narrower_than_two_intervals_and_changes_its_sign():
    p_NK, y = sample(600, 4)
    a = p_NK.argmax(axis=1)
    b = np.where(np.arange(600) % 40 == 0, y, a)  # the same answers, some of them mended
    there, back = multiclass.macro_f1_difference(a, b, y, 4), multiclass.macro_f1_difference(b, a, y, 4)
    first, second = multiclass.macro_f1(a, y, 4), multiclass.macro_f1(b, y, 4)
    assert there.value == pytest.approx(second.value - first.value) and there.low >= 0
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low))
    assert there.high - there.low < (first.high - first.low) / 2
    same = multiclass.macro_f1_difference(a, a, y, 4)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_macro_f1_interval_covers_the_truth():
    """Of 100 samples of a known population, 95 % intervals hold its macro-F1 about 95 times."""
    p_NK, y = sample(200_000, 3, seed=5)
    q = p_NK.argmax(axis=1)
    truth = sklearn.f1_score(y, q, average="macro")
    parts = [slice(start, start + 400) for start in range(0, 40_000, 400)]
    held = [multiclass.macro_f1(q[part], y[part], 3, n_resamples=300) for part in parts]
    assert 87 <= sum(e.low <= truth <= e.high for e in held) <= 100  # of a binomial with p 0.95, 99.9 % lie here


def test_a_class_that_is_predicted_only_does_not_enter_the_mean():
    y, q = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    assert multiclass.macro_f1(q, y, 3).value == pytest.approx((2 / 3 + 1) / 2)
    found = multiclass.per_class(q, y, 4)
    assert found[2].f1.value == 0 and found[2].recall.method == "undefined: no label of this class"
    assert found[3].support == 0 and np.isnan(found[3].f1.value)


def test_without_a_bootstrap_values_come_without_bounds():
    p_NK, y = sample(50, 3)
    found = multiclass.scores(p_NK, y, n_resamples=0)
    assert np.isnan(found["macro_f1"].low) and found["macro_f1"].value > 0 and found["accuracy"].low > 0


def test_a_certain_wrong_answer_costs_a_finite_log_loss():
    found = multiclass.scores([[1.0, 0.0], [1.0, 0.0]], [0, 1], n_resamples=10)
    assert found["log_loss"].value == pytest.approx(-np.log(multiclass.FLOOR) / 2)


@pytest.mark.parametrize(
    ("p", "y", "message"),
    [
        ([[0.5, 0.5]], [2], "labels: must lie in 0..1, found 2"),
        ([[0.5, 0.5]], [0.5], "labels: must lie in 0..1, found 0.5"),
        ([[0.5, np.nan]], [0], "1 of 1 rows hold NaN"),
        ([[2.0, -1.0]], [0], "pass logits through a softmax"),
        ([[0.5, 0.2]], [0], "do not add up to 1"),
        ([0.5], [0], r"must be \(samples, classes\)"),
        ([[0.5, 0.5]], [0, 1], "different lengths"),
        (np.empty((0, 2)), [], "no samples"),
    ],
)
def test_what_is_no_answer_is_refused_in_one_line(p, y, message):
    with pytest.raises(UserError, match=message) as error:
        multiclass.scores(p, y)
    assert "\n" not in str(error.value)


def test_answers_outside_the_classes_are_refused():
    with pytest.raises(UserError, match=r"answers: must lie in 0..2, found -1"):
        multiclass.macro_f1([0, -1], [0, 1], 3)


def test_a_statistic_takes_the_weights_of_resamples():
    p_NK, y = sample(100, 3)
    statistic = multiclass.MacroF1(p_NK.argmax(axis=1), y, 3)
    assert Resamples(100).estimate(statistic).value == multiclass.scores(p_NK, y)["macro_f1"].value
    assert statistic.per_class(np.ones((2, 100))).shape == (2, 3)
