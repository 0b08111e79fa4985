"""The generator: the properties every pair has. That it makes the course's very files: `test_pair_prepare`."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pair_compare_stacking import generator
from pair_compare_stacking.generator import degrade, digit_prior, draw_digits, sample_pairs
from shared_core.errors import UserError


def digits(per_class: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Bright squares whose level tells the source image."""
    labels = np.repeat(np.arange(10), per_class)
    images = np.zeros((len(labels), 28, 28), np.uint8)
    images[:, 8:20, 8:20] = (200 + np.arange(len(labels)))[:, None, None]
    return images, labels


IMAGES, LABELS = digits()


@given(
    n=st.integers(2, 12),
    seed=st.integers(0, 2**31 - 1),
    weight=st.floats(0, 1),
    severity=st.integers(0, 6),
)
@settings(max_examples=60, deadline=None)
def test_the_label_says_which_digit_is_larger(n: int, seed: int, weight: float, severity: int) -> None:
    pairs = sample_pairs(IMAGES, LABELS, n, seed, weight, severity)
    assert pairs.x.shape == (n, 28, 56) and pairs.x.dtype == np.uint8
    left, right = pairs.digits.T
    assert np.array_equal(pairs.y == 1, left > right)
    assert not (left == right).any()
    assert pairs.y.sum() == n // 2
    assert np.array_equal(LABELS[pairs.sources], pairs.digits)


@given(seed=st.integers(0, 2**31 - 1), y=st.sampled_from([0, 1]), weight=st.floats(0, 1))
def test_drawn_digits_are_digits_in_the_right_order(seed: int, y: int, weight: float) -> None:
    left, right = draw_digits(y, weight, random.Random(seed))
    assert min(left, right) >= 0 and max(left, right) <= 9
    assert (left > right) == (y == 1) and left != right


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.8, 1.0])
def test_the_prior_is_what_is_drawn(weight: float) -> None:
    rng = random.Random(5)
    n = 20_000
    counts = np.zeros((10, 10))
    for k in range(n):
        counts[draw_digits(k % 2, weight, rng)] += 1
    prior = digit_prior(weight)
    assert prior.sum() == pytest.approx(1)
    assert np.abs(counts / n - prior).max() < 5 * np.sqrt(prior.max() / n)


def test_the_courses_weight_makes_86_percent_neighbours() -> None:
    prior = digit_prior(0.8)
    adjacent = sum(prior[i, i + 1] + prior[i + 1, i] for i in range(9))
    assert adjacent == pytest.approx(0.864, abs=0.0015)  # 86.4 % were counted in the course's train.npz


def test_same_seed_same_pairs_and_another_seed_others() -> None:
    first, again, other = (sample_pairs(IMAGES, LABELS, 20, seed, 0.8, 6) for seed in (1, 1, 2))
    assert np.array_equal(first.x, again.x) and np.array_equal(first.sources, again.sources)
    assert not np.array_equal(first.x, other.x)


def test_severity_0_leaves_the_digits_as_they_are() -> None:
    pairs = sample_pairs(IMAGES, LABELS, 10, 3, 0.8, severity=0)
    assert np.array_equal(pairs.x[:, :, :28], IMAGES[pairs.sources[:, 0]])
    assert np.array_equal(pairs.x[:, :, 28:], IMAGES[pairs.sources[:, 1]])


def test_the_source_rows_say_where_each_half_comes_from() -> None:
    """At severity 1 the level of the square still tells the image."""
    images, labels = np.zeros((10, 28, 28), np.uint8), np.arange(10)
    images[:, 6:22, 6:22] = (25 * np.arange(10))[:, None, None]
    pairs = sample_pairs(images, labels, 40, 3, 0.5, severity=1)
    seen = np.stack(
        [np.median(pairs.x[:, 9:19, 9:19], axis=(1, 2)), np.median(pairs.x[:, 9:19, 37:47], axis=(1, 2))], 1
    )
    assert np.array_equal(np.argmin(np.abs(seen[..., None] - 25 * np.arange(10)), -1), pairs.sources)


def test_more_severity_destroys_more() -> None:
    kept = []
    for severity in range(7):
        rng = random.Random(0)
        kept.append(
            np.mean(
                [np.corrcoef(degrade(IMAGES[0], severity, rng).ravel(), IMAGES[0].ravel())[0, 1] for _ in range(60)]
            )
        )
    assert kept == sorted(kept, reverse=True) and kept[0] == pytest.approx(1) and kept[6] < 0.6


def test_progress_counts_every_pair() -> None:
    steps: list[int] = []
    sample_pairs(IMAGES, LABELS, 7, 0, 0.8, 2, advance=steps.append)
    assert steps == [1] * 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"severity": 7}, "severity 7"),
        ({"weight_diff1": 1.5}, "weight_diff1 1.5"),
        ({"images": IMAGES.astype(np.float32)}, "float32"),
        ({"images": IMAGES[:, :20]}, "(30, 20, 28)"),
        ({"labels": LABELS[:-1]}, "29 labels"),
        ({"labels": np.where(LABELS == 4, 5, LABELS)}, "digit 4"),
    ],
)
def test_bad_settings_and_sources_are_named(change: dict, words: str) -> None:
    good = {"images": IMAGES, "labels": LABELS, "n": 4, "seed": 0, "weight_diff1": 0.8, "severity": 6}
    with pytest.raises(UserError, match=words.replace("(", r"\(").replace(")", r"\)")):
        sample_pairs(**{**good, **change})


def test_the_module_needs_no_torch() -> None:
    assert "torch" not in vars(generator)
