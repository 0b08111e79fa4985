"""The metrics of grading against scikit-learn; what a comparison of two ways to train promises."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

from retina_diffusion import downstream


def answers(seed: int, n: int, seeds: int = 3, right: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and answers (seeds, n), of which a share is right."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 5, n)
    found = np.where(random.random((seeds, n)) < right, labels, random.integers(0, 5, (seeds, n)))
    return labels, found


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 999), st.integers(8, 60))
def test_metrics_are_those_of_sklearn(seed: int, n: int) -> None:
    labels, (first, second, third) = answers(seed, n)
    once = np.stack([first, second, third])
    found = downstream.compared(once, once[::-1], labels, 5, n_resamples=0)
    occurring = np.unique(labels)
    for name, oracle in {
        "kappa": lambda q: cohen_kappa_score(labels, q, weights="quadratic", labels=range(5)),
        "accuracy": lambda q: accuracy_score(labels, q),
        "macro_f1": lambda q: f1_score(labels, q, labels=occurring, average="macro", zero_division=0),
    }.items():
        expected = [oracle(q) for q in once]
        assert found[name].real.value == pytest.approx(np.mean(expected))
        assert found[name].gain.value == pytest.approx(0, abs=1e-12)
        np.testing.assert_allclose(
            found[name].by_seed, [expected[2] - expected[0], 0, expected[0] - expected[2]], atol=1e-12
        )


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 999))
def test_kappa_of_weights_is_that_of_repeated_photographs(seed: int) -> None:
    labels, (given_answers, *_) = answers(seed, 30)
    weights = np.random.default_rng(seed).integers(0, 4, 30)
    of_weights = downstream.Kappa(given_answers, labels, 5)(weights[None].astype(float))[0]
    repeated = cohen_kappa_score(np.repeat(labels, weights), np.repeat(given_answers, weights), weights="quadratic")
    assert of_weights == pytest.approx(repeated)


def test_kappa_of_one_grade_only_is_undefined() -> None:
    same = np.full(6, 2)
    assert np.isnan(downstream.Kappa(same, same, 5)(np.ones((1, 6)))[0])


def test_the_interval_covers_what_other_photographs_and_seeds_show() -> None:
    """Two ways to train of which neither is better: 95 % of the intervals hold 0, however few the seeds."""
    held, random = [], np.random.default_rng(0)
    for seed in range(150):
        labels = random.integers(0, 5, 60)
        skill = 0.5 + 0.1 * random.normal(size=(2, 3, 1))  # of each training
        given_answers = np.where(random.random((2, 3, 60)) < skill, labels, random.integers(0, 5, (2, 3, 60)))
        gain = downstream.compared(*given_answers, labels, 5, n_resamples=100, seed=seed)["accuracy"].gain
        held.append(gain.low <= 0 <= gain.high)
    assert np.mean(held) >= 0.92


def test_groups_widen_the_interval() -> None:
    labels, found = answers(0, 40)
    many = [np.tile(x, 4) for x in (found, labels)]  # each photograph four times
    first = np.roll(many[0], 1, axis=0)
    of_copies = downstream.compared(first, many[0], many[1], 5)
    of_sources = downstream.compared(first, many[0], many[1], 5, groups=np.tile(np.arange(40), 4))
    for name in downstream.METRICS:
        assert of_sources[name].real.low < of_copies[name].real.low
        assert of_sources[name].real.value == pytest.approx(of_copies[name].real.value)


def photographs(seed: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Grey (n, 3, 16, 16) with as many bright spots as the grade says, in two grades: 0 and 4."""
    draw = torch.Generator().manual_seed(seed)
    grades = 4 * torch.randint(0, 2, (n,), generator=draw)
    images = 0.05 * torch.randn(n, 3, 16, 16, generator=draw)
    for image, grade in zip(images, grades, strict=True):
        for row, column in torch.randint(2, 14, (int(grade), 2), generator=draw):
            image[:, row : row + 2, column : column + 2] = 0.9
    return images, grades


def test_right_examples_help_and_wrong_ones_harm() -> None:
    """Few real photographs of which half the grades are wrong; generated ones with right grades, or with opposite."""
    (real, grades), (made, made_grades), (test, test_grades) = (
        photographs(s, n) for s, n in ((0, 8), (1, 60), (2, 60))
    )
    grades = grades.roll(1)
    right, wrong = (
        downstream.gain(
            real, grades, 3 * [(made, marks)], test, test_grades, steps=25, batch=16, share=0.75, n_resamples=100
        )
        for marks in (made_grades, 4 - made_grades)
    )
    assert right.metrics["accuracy"].both.value > 0.8 and right.metrics["kappa"].gain.value > 0.2
    assert wrong.metrics["accuracy"].both.value < 0.4
    np.testing.assert_array_equal(right.real_answers_SN, wrong.real_answers_SN)  # the same trainings, to the bit


def test_each_seed_learns_from_its_own_generated_photographs() -> None:
    (real, grades), (made, marks), (test, test_grades) = (photographs(s, n) for s, n in ((0, 8), (1, 20), (2, 30)))
    sets = [(made, marks), (made, 4 - marks), (made, marks)]
    found = downstream.gain(real, grades, sets, test, test_grades, steps=25, batch=16, share=0.9, n_resamples=10)
    right = (found.both_answers_SN == test_grades.numpy()).mean(axis=1)
    assert right[1] < 0.4 < right[0]
    same = downstream.gain(real, grades, 3 * sets[:1], test, test_grades, steps=25, batch=16, share=0.9, n_resamples=10)
    np.testing.assert_array_equal(same.both_answers_SN[0], found.both_answers_SN[0])


def test_what_proves_nothing_is_refused() -> None:
    images, grades = photographs(0, 4)
    data = (images, grades, 3 * [(images, grades)], images, grades)
    for changed, message in (
        ({"seeds": (0, 1, 1)}, "three different"),
        ({"seeds": (0, 1, 2, 3)}, "3 sets for 4 seeds"),
        ({"share": 1.0}, "no real"),
        ({"classes": 4}, "0..3"),
    ):
        with pytest.raises(ValueError, match=message):
            downstream.gain(*data, **changed)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="test: photographs and grades"):
        downstream.gain(*data[:4], grades[:3])
