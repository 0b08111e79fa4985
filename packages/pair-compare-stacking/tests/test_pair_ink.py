"""What is visible of a half."""

import os
from pathlib import Path

import numpy as np
import pytest

from pair_compare_stacking import generator, ink


def pictures(counts: list[tuple[int, int]], value: int = 255) -> np.ndarray:
    """Pairs whose halves have so many pixels of one value, the others black; the right half's fill from its end."""
    x = np.zeros((len(counts), 28, 56), np.uint8)
    for picture, (left, right) in zip(x, counts, strict=True):
        halves = np.zeros((2, 28 * 28), np.uint8)
        halves[0, :left] = value
        halves[1, 28 * 28 - right :] = value
        picture[:, :28], picture[:, 28:] = halves.reshape(2, 28, 28)
    return x


def test_pixels_of_each_half_are_counted() -> None:
    counts = [(0, 784), (5, 300), (29, 1), (8, 7)]
    assert ink.visible(pictures(counts)).tolist() == [list(pair) for pair in counts]
    assert ink.visible(pictures(counts, 61)).tolist() == [list(pair) for pair in counts]
    assert not ink.visible(pictures(counts, 60)).any()


def test_every_pair_is_in_the_bin_of_its_emptier_half() -> None:
    counts = [(0, 784), (7, 8), (8, 9), (100, 19), (20, 20), (79, 80), (80, 81), (784, 784)]
    found = {name: np.flatnonzero(rows).tolist() for name, rows in ink.bins(np.array(counts)).items()}
    assert found == {"0 to 7": [0, 1], "8 to 19": [2, 3], "20 to 39": [4], "60 to 79": [5], "80 or more": [6, 7]}


def test_pairs_with_less_ink_than_each_threshold() -> None:
    counts = np.array([(0, 784), (7, 8), (8, 9), (100, 19), (20, 20), (39, 80), (40, 40)])
    found = {threshold: np.flatnonzero(rows).tolist() for threshold, rows in ink.fewer(counts).items()}
    assert found == {8: [0, 1], 20: [0, 1, 2, 3], 40: [0, 1, 2, 3, 4, 5]}
    assert list(ink.fewer(counts[4:])) == [40] and not ink.fewer(counts[6:])


@pytest.mark.slow
def test_how_much_of_the_courses_validation_cannot_be_read() -> None:
    """The shares that the ceiling of any model rests on, from the course's own 10,000 pairs."""
    path = Path(os.environ.get("TEST_DATA_DIR", "")) / "mnist" / "mnist.npz"
    if "TEST_DATA_DIR" not in os.environ or not path.exists():
        pytest.skip("set TEST_DATA_DIR to a folder with mnist/mnist.npz to draw the course's pairs")
    with np.load(path) as mnist:
        pairs = generator.sample_pairs(mnist["Xt"], mnist["Yt"], 10_000, 43, 0.8, 6)
    said = ink.summary(ink.visible(pairs.x))
    assert said.startswith("9.6% of the halves have fewer than 8 pixels brighter than 60")
    assert said.endswith("35.5% of the pairs contain a half with fewer than 20")
