"""Metrics against scikit-learn and SciPy, their identities, and intervals that cover what they claim to."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_core import metrics
from shared_core.errors import UserError
from shared_core.intervals import Sources
from shared_core.metrics import Estimate

sklearn = pytest.importorskip("sklearn.metrics")
stats = pytest.importorskip("scipy.stats")


def scores(n: int, seed: int = 0, decimals: int = 15) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities (rounded, so that there are ties) and labels drawn from them."""
    generator = np.random.default_rng(seed)
    p = generator.beta(0.7, 0.9, n).round(decimals)
    return p, (generator.random(n) < p).astype(int)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 50), (50, 50), (1, 50), (887, 1000), (8874, 10000)])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_wilson_equals_scipys(k, n, level):
    estimate = metrics.wilson(k, n, level)
    oracle = stats.binomtest(k, n).proportion_ci(level, method="wilson")
    assert estimate.value == k / n
    assert (estimate.low, estimate.high) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_contains_its_value_and_mirrors(pair):
    k, n = pair
    there, mirrored = metrics.wilson(k, n), metrics.wilson(n - k, n)
    assert 0 <= there.low <= there.value <= there.high <= 1
    assert there.low == pytest.approx(1 - mirrored.high, abs=1e-9)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_proportion(k, n):
    with pytest.raises(UserError, match="is no proportion"):
        metrics.wilson(k, n)


@pytest.mark.parametrize("decimals", [15, 1])
@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_binary_metrics_equal_scikit_learns(decimals, threshold):
    p, y = scores(3000, seed=1, decimals=decimals)
    ours = metrics.binary(p, y, threshold, n_resamples=20)
    q = (p >= threshold).astype(int)
    oracle = {
        "accuracy": sklearn.accuracy_score(y, q),
        "f1": sklearn.f1_score(y, q),
        "precision": sklearn.precision_score(y, q),
        "recall": sklearn.recall_score(y, q),
        "roc_auc": sklearn.roc_auc_score(y, p),
        "brier": sklearn.brier_score_loss(y, p),
    }
    assert list(ours) == ["accuracy", "f1", "precision", "recall", "roc_auc", "ece", "brier"]
    assert {name: ours[name].value for name in oracle} == pytest.approx(oracle, abs=1e-12)
    for name in oracle:
        assert ours[name].low <= ours[name].value <= ours[name].high


def test_the_n_of_a_proportion_is_its_denominator():
    p, y = scores(500)
    ours = metrics.binary(p, y, n_resamples=10)
    assert ours["precision"].n == (p >= 0.5).sum() and ours["recall"].n == y.sum() and ours["f1"].n == 500


def test_ece_equals_its_definition():
    p, y = scores(2000, decimals=2)  # many values exactly on the edges of ten bins
    total = 0.0
    for k in range(10):
        inside = (p >= np.linspace(0, 1, 11)[k]) & ((p < np.linspace(0, 1, 11)[k + 1]) | (k == 9))
        if inside.any():
            total += inside.mean() * abs(p[inside].mean() - y[inside].mean())
    assert metrics.expected_calibration_error(p, y, bins=10) == pytest.approx(total, abs=1e-12)
    assert metrics.expected_calibration_error([0.0, 1.0], [0, 1]) == 0
    assert metrics.expected_calibration_error([0.0, 1.0], [1, 0]) == 1


def test_one_in_twenty_calibrated_models_shows_more_than_the_limit():
    generator = np.random.default_rng(0)
    above = 0
    for seed in range(200):
        p = generator.beta(0.6, 0.6, 400)
        found = metrics.calibration_error(p, generator.random(400) < p, n_resamples=200, seed=seed)
        above += found.value > float(found.method.rpartition(" ")[2])
    assert 3 <= above <= 20  # of a binomial distribution with n 200 and p 0.05, 99.9 % lie here


def test_ece_has_no_interval_and_says_what_chance_would_show():
    p, y = scores(2000, seed=3)
    ece = metrics.binary(p, y)["ece"]
    assert ece.value == metrics.expected_calibration_error(p, y)
    assert np.isnan(ece.low) and "nan" not in str(ece)
    worse = metrics.calibration_error(np.clip(p * 1.3, 0, 1), y)
    assert worse.value > float(worse.method.rpartition(" ")[2])


binary_data = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 1)), min_size=2, max_size=60).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


@given(binary_data)
@settings(deadline=None)
def test_auc_identities(rows):
    p, y = np.array([row[0] for row in rows]) / 20, np.array([row[1] for row in rows])
    auc = metrics.roc_auc(p, y)
    assert auc == pytest.approx(sklearn.roc_auc_score(y, p), abs=1e-12)
    assert metrics.roc_auc(-p, y) == pytest.approx(1 - auc, abs=1e-12)  # reversed order
    assert metrics.roc_auc(p, 1 - y) == pytest.approx(1 - auc, abs=1e-12)  # swapped classes
    assert metrics.roc_auc(np.exp(3 * p), y) == pytest.approx(auc, abs=1e-12)  # order is all that counts


@given(binary_data)
@settings(deadline=None)
def test_f1_is_the_harmonic_mean_and_brier_bounds_ece(rows):
    p, y = np.array([row[0] for row in rows]) / 20, np.array([row[1] for row in rows])
    m = metrics.binary(p, y, n_resamples=5)
    if m["precision"].value > 0:
        harmonic = 2 / (1 / m["precision"].value + 1 / m["recall"].value)
        assert m["f1"].value == pytest.approx(harmonic, abs=1e-12)
    assert m["ece"].value ** 2 <= m["brier"].value + 1e-12  # Jensen: (mean gap)^2 <= mean squared gap


PAIRS = np.random.default_rng(4).permuted(np.tile(np.arange(25), (300, 1)), axis=1)[:, :2]  # of 25 images


@pytest.mark.parametrize("groups", [None, np.arange(300) // 7, PAIRS])
def test_weighted_and_plain_bootstrap_are_the_same_resamples(groups):
    p, y = scores(300, decimals=2)
    plain = metrics.bootstrap(lambda p, y: sklearn.roc_auc_score(y, p), p, y, n_resamples=50, groups=groups)
    fast = metrics.binary(p, y, groups=groups, n_resamples=50)["roc_auc"]
    assert (fast.value, fast.low, fast.high) == pytest.approx((plain.value, plain.low, plain.high), abs=1e-12)
    assert fast.method == plain.method


def test_bootstrap_equals_scipys_percentile_interval_up_to_chance():
    x = np.random.default_rng(0).exponential(size=400)
    ours = metrics.bootstrap(np.mean, x, n_resamples=4000)
    oracle = stats.bootstrap((x,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((oracle.low, oracle.high), abs=0.01)


def test_bootstrap_is_reproducible_and_its_seed_counts():
    p, y = scores(200)
    assert metrics.binary(p, y, n_resamples=50) == metrics.binary(p, y, n_resamples=50)
    assert metrics.binary(p, y, n_resamples=50) != metrics.binary(p, y, n_resamples=50, seed=1)


def test_samples_of_one_group_are_not_independent_evidence():
    generator = np.random.default_rng(0)
    group = np.repeat(np.arange(40), 50)
    right = np.repeat(generator.random(40) < 0.7, 50)  # a group is right or wrong as a whole
    p, y = np.where(right, 0.9, 0.1), np.ones(2000, int)
    alone, grouped = metrics.binary(p, y)["accuracy"], metrics.binary(p, y, groups=group)["accuracy"]
    assert grouped.value == alone.value
    assert grouped.high - grouped.low > 4 * (alone.high - alone.low)
    assert "40 groups" in grouped.method


def test_pairs_that_share_an_image_are_not_independent_evidence():
    """Both the design effect and the bootstrap of a mean have the variance of Aronow, Samii and Assenova (2015)."""
    generator = np.random.default_rng(0)
    left = np.repeat(np.arange(60), 10)
    right = (left + np.tile([1, 2, 3, 4, 57, 58, 59, 5, 1, 2], 60)) % 60  # every image equally often, some pairs twice
    difficulty = generator.normal(size=60)
    x = difficulty[left] + difficulty[right] + generator.normal(size=600)
    e = x - x.mean()
    shared = sum(a[:, None] == b for a in (left, right) for b in (left, right)) > 0
    formula, independent = float(e @ shared @ e) / 600**2, float(e @ e) / 600**2
    assert formula > 4 * independent
    groups = np.stack([left, right], axis=1)
    assert Sources(600, groups, "images").design_effect(x) == pytest.approx(formula / independent)
    mean = metrics.Resamples(600, 20_000, groups=groups).estimate(metrics.Ratio(x, np.ones(600)))
    assert (mean.high - mean.low) / 2 / 1.96 == pytest.approx(math.sqrt(formula), rel=0.03)  # 20 000 resamples: 1 %


@given(st.lists(st.booleans(), min_size=300, max_size=300))
@settings(deadline=None, max_examples=20)
def test_the_side_of_an_image_does_not_matter(swapped):
    p, y = scores(300)
    other = np.where(np.array(swapped)[:, None], PAIRS[:, ::-1], PAIRS)
    ours, theirs = (metrics.binary(p, y, groups=groups, n_resamples=30) for groups in (PAIRS, other))
    for name, e in ours.items():
        assert (e.low, e.high) == pytest.approx((theirs[name].low, theirs[name].high), abs=1e-9, nan_ok=True), name


def test_balanced_groups_do_not_narrow_an_interval():
    """Each image is in as many right as wrong pairs: the dyadic variance is negative, and nothing to believe."""
    image = np.arange(100)
    pairs = np.concatenate([np.stack([image, (image + step) % 100], axis=1) for step in (1, 2)])
    right = np.repeat([True, False], 100)
    independent, grouped = metrics.proportion(right), metrics.proportion(right, pairs)
    assert (grouped.low, grouped.high) == (independent.low, independent.high)
    brier, alone = (metrics.binary(np.where(right, 0.8, 0.2), right * 0 + 1, groups=g)["brier"] for g in (pairs, None))
    assert brier.high - brier.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_a_perfect_score_on_few_groups_is_worth_as_many_samples():
    right = np.ones(200, bool)
    bound = metrics.wilson(10, 10).low
    assert metrics.proportion(right, np.arange(200) // 20).low == pytest.approx(bound)
    assert metrics.proportion(right, np.arange(400).reshape(200, 2) % 20).low == pytest.approx(bound)  # 20 images
    assert metrics.proportion(~right, np.arange(200) // 20).high == pytest.approx(1 - bound)
    assert metrics.proportion(right, np.arange(200)).low == pytest.approx(metrics.wilson(200, 200).low)


def test_design_effect_makes_samples_worth_less():
    assert metrics.wilson(80, 100, design_effect=1.0) == metrics.wilson(80, 100)
    wide, few = metrics.wilson(80, 100, design_effect=4.0), metrics.wilson(20, 25)
    assert (wide.value, wide.low, wide.high) == (few.value, few.low, few.high) and wide.n == 100


def test_difference_on_the_same_samples_uses_that_they_are_the_same():
    generator = np.random.default_rng(0)
    a = generator.random(2000) < 0.8
    b = a ^ (generator.random(2000) < 0.03)  # they mostly err together
    paired, unpaired = metrics.paired_difference(a, b), metrics.difference(*map(metrics.proportion, (a, b)))
    assert paired.value == pytest.approx(unpaired.value)
    assert paired.high - paired.low < 0.5 * (unpaired.high - unpaired.low)
    resampled = stats.bootstrap((1.0 * b - a,), np.mean, n_resamples=4000, method="percentile", rng=1)
    oracle = resampled.confidence_interval
    assert (paired.low, paired.high) == pytest.approx((oracle.low, oracle.high), abs=1e-3)
    assert "over 25 images" in metrics.paired_difference(a[:300], b[:300], PAIRS, "images").method


@pytest.mark.parametrize(
    ("groups", "message"),
    [(np.zeros((300, 3)), r"groups: shape \(300, 3\); must be \(300,\) or \(300, 2\)"), (PAIRS[:9], "lengths")],
)
def test_groups_that_fit_no_samples_are_refused(groups, message):
    with pytest.raises(UserError, match=message):
        metrics.binary(*scores(300), groups=groups)


def pairs_of_images(n_images: int, n: int, effect: float, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Probabilities, labels and images of n pairs, where hard images make all pairs hard that they are in."""
    left = generator.integers(0, n_images, n)
    right = (left + generator.integers(1, n_images, n)) % n_images
    ease, own = generator.normal(size=n_images), generator.normal(size=n)
    margin = 1.4 + effect * (ease[left] + ease[right]) + math.sqrt(2 - 2 * effect**2) * own
    y = generator.integers(0, 2, n)
    return 1 / (1 + np.exp(-margin * (2 * y - 1))), y, np.stack([left, right], axis=1)


def plausible(covered: int, trials: int) -> bool:
    """Whether so many of `trials` intervals cover the truth; where each does with 95 %, wrong once in 10 000 times."""
    low, high = stats.binom.ppf([0.5e-4, 1 - 0.5e-4], trials, 0.95)
    return bool(low <= covered <= high)


@pytest.mark.parametrize("effect", [0.9, 0.0])
def test_intervals_of_pairs_cover_what_is_true_of_new_images(effect):
    generator = np.random.default_rng(3)
    truth = stats.norm.cdf(1.4 / math.sqrt(2))  # of a pair of new images
    covered, widths = {"independent": 0, "grouped": 0}, []
    for _ in range(200):
        p, y, images = pairs_of_images(299, 1000, effect, generator)
        right = (p >= 0.5) == y
        found = {"independent": metrics.proportion(right), "grouped": metrics.proportion(right, images)}
        for name, e in found.items():
            covered[name] += e.low <= truth <= e.high
        grouped, independent = (e.high - e.low for e in (found["grouped"], found["independent"]))
        widths.append(grouped / independent)
    assert plausible(covered["grouped"], 200), covered
    assert plausible(covered["independent"], 200) == (not effect), covered
    assert np.median(widths) > 1.5 if effect else 1 <= np.median(widths) < 1.1, np.median(widths)


@pytest.mark.slow
@pytest.mark.parametrize("effect", [0.9, 0.0])
def test_every_metric_of_pairs_covers_what_is_true_of_new_images(effect):
    generator = np.random.default_rng(3)
    truth = metrics.binary(*pairs_of_images(10**6, 10**6, effect, generator)[:2], n_resamples=0)
    names = ("accuracy", "f1", "precision", "recall", "roc_auc", "brier")
    covered = {kind: dict.fromkeys(names, 0) for kind in ("independent", "grouped")}
    for _ in range(150):
        p, y, images = pairs_of_images(299, 1000, effect, generator)
        for kind, groups in (("independent", None), ("grouped", images)):
            estimates = metrics.binary(p, y, groups=groups, n_resamples=200)
            for name in names:
                covered[kind][name] += estimates[name].low <= truth[name].value <= estimates[name].high
    assert all(plausible(count, 150) for count in covered["grouped"].values()), covered
    if effect:
        assert all(covered["independent"][name] < covered["grouped"][name] for name in names), covered
        assert not plausible(covered["independent"]["roc_auc"], 150), covered
    else:
        assert all(plausible(count, 150) for count in covered["independent"].values()), covered


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    p, y = scores(400_000, seed=9)
    truth = metrics.binary(p, y, n_resamples=0)
    covered = dict.fromkeys(("accuracy", "f1", "precision", "recall", "roc_auc", "brier"), 0)
    for trial in range(200):
        part = slice(trial * 2000, trial * 2000 + 300)
        estimates = metrics.binary(p[part], y[part], n_resamples=200)
        for name in covered:
            covered[name] += estimates[name].low <= truth[name].value <= estimates[name].high
    # 95 % of 200 is 190; outside these bounds with a chance of about 1 in 10 000
    assert all(178 <= count <= 199 for count in covered.values()), covered


def test_a_thousand_resamples_of_ten_thousand_samples_are_quick():
    p, y = scores(10_000)
    start = time.process_time()
    metrics.binary(p, y)
    assert time.process_time() - start < 9  # all seven metrics; about 1 s on one core of 2024


@pytest.mark.parametrize(
    ("p", "y", "message"),
    [
        ([0.5, math.nan], [0, 1], "1 of 2 are NaN"),
        ([0.5, math.inf], [0, 1], "NaN or infinite"),
        ([0.5, 3.0], [0, 1], "found 3; pass logits through a sigmoid"),
        ([0.5, 0.5], [0, 2], "must be 0 or 1, found 2"),
        ([0.5, 0.5], [-1, 1], "must be 0 or 1, found -1"),
        ([0.5, 0.5], [0, math.nan], "must be 0 or 1, found nan"),
        ([0.5], [0, 1], "different lengths"),
        ([], [], "no samples"),
    ],
)
def test_bad_input_is_one_clear_line(p, y, message):
    with pytest.raises(UserError, match=message) as caught:
        metrics.binary(p, y)
    assert "\n" not in str(caught.value)


def test_without_resamples_there_are_values_and_no_bootstrap_intervals():
    p, y = scores(300)
    quick, full = metrics.binary(p, y, n_resamples=0), metrics.binary(p, y)
    assert {name: m.value for name, m in quick.items()} == {name: m.value for name, m in full.items()}
    assert math.isnan(quick["roc_auc"].low) and quick["accuracy"] == full["accuracy"]


def test_undefined_metrics_say_so_instead_of_inventing_a_number():
    m = metrics.binary([0.1, 0.2, 0.3], [0, 0, 0], n_resamples=10)
    assert m["accuracy"].value == 1
    for name in ("precision", "recall", "roc_auc", "f1"):
        assert math.isnan(m[name].value) and m[name].method.startswith("undefined: ")
    assert m["recall"].as_dict()["value"] is None and str(m["recall"]) == "undefined: no positive label"


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200))
def test_mcnemar_equals_the_exact_binomial_test(rows):
    a, b = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    oracle = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert metrics.mcnemar(a, b) == pytest.approx(oracle, rel=1e-9)
    assert metrics.mcnemar(a, b) == metrics.mcnemar(b, a)


def test_mcnemar_with_many_samples():
    a, b = np.zeros(300_000, bool), np.zeros(300_000, bool)
    a[:100_500], b[100_500:200_000] = True, True
    assert metrics.mcnemar(a, b) == pytest.approx(stats.binomtest(100_500, 200_000).pvalue, rel=1e-6)


def test_difference_and_overlap():
    a, b = metrics.wilson(56, 70), metrics.wilson(48, 80)
    d = metrics.difference(b, a)  # Newcombe 1998, table II, example (a): 0.2, 0.0524 to 0.3339
    assert (d.value, d.low, d.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    back = metrics.difference(a, b)
    assert (back.value, back.low, back.high) == pytest.approx((-d.value, -d.high, -d.low))
    assert metrics.overlap(a, b) and not metrics.overlap(metrics.wilson(90, 100), metrics.wilson(10, 100))


def test_reliability_bins_add_up():
    p, y = scores(1000)
    r = metrics.reliability_bins(p, y, bins=12)
    clustered = metrics.reliability_bins(p, y, bins=12, groups=y * 20 + np.arange(1000) % 20)  # each of one class
    assert (clustered.frequency == r.frequency).all() and (clustered.high - clustered.low > r.high - r.low).all()
    assert r.size.sum() == 1000 and (r.low <= r.frequency).all() and (r.frequency <= r.high).all()
    gap = (r.size * np.abs(r.probability - r.frequency)).sum() / 1000
    assert gap == pytest.approx(metrics.expected_calibration_error(p, y, bins=12), abs=1e-12)
    assert len(metrics.reliability_bins([0.05, 0.95], [0, 1]).size) == 2  # empty bins are left out


def test_risk_coverage():
    curve = metrics.risk_coverage([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 0])
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve.risk.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 2])
    assert curve.area == pytest.approx(5 / 24)
    one, other = metrics.risk_coverage([0.5] * 4, [1, 0, 1, 0]), metrics.risk_coverage([0.5] * 4, [0, 0, 1, 1])
    assert one.risk.tolist() == other.risk.tolist() == [0.5] * 4  # order among ties does not matter


def test_confusion_matrix_equals_scikit_learns():
    generator = np.random.default_rng(0)
    y, q = generator.integers(0, 5, 300), generator.integers(0, 5, 300)
    assert (metrics.confusion_matrix(y, q, 5) == sklearn.confusion_matrix(y, q)).all()
    with pytest.raises(UserError, match=r"predictions: must lie in 0\.\.4; found 7"):
        metrics.confusion_matrix([0, 1], [0, 7], 5)


def test_estimates_print_and_survive_json():
    estimate = Estimate(0.8931, 0.8869, 0.899, 10000, "Wilson 95 %")
    assert str(estimate) == "0.893 [0.887, 0.899] (n=10000, Wilson 95 %)"
    assert Estimate.from_dict(estimate.as_dict()) == estimate
    assert math.isnan(Estimate.from_dict({"value": 0.5}).low)


@pytest.mark.parametrize("ways", [0, 1, 2])
def test_ratio_by_sums_over_sources_is_the_ratio_by_weights(ways: int) -> None:
    generator = np.random.default_rng(ways)
    numerator, denominator = generator.normal(size=300), generator.uniform(1, 2, size=300)
    first = generator.integers(0, 40, 300)
    groups = [None, first, np.stack([first, (first + generator.integers(1, 40, 300)) % 40], axis=1)][ways]
    statistic = metrics.Ratio(numerator, denominator)
    resamples = metrics.Resamples(300, 200, groups=groups)
    by_sums, by_weights = resamples.estimate(statistic), resamples.estimate(lambda w_Bn: statistic(w_Bn))
    for bound in ("value", "low", "high"):
        assert getattr(by_sums, bound) == pytest.approx(getattr(by_weights, bound), rel=1e-9)
    assert by_sums.low < by_sums.value < by_sums.high
