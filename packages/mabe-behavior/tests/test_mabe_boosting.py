"""Trees: what they learn from, and that nothing but a whole model is handed to LightGBM."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mabe_behavior import boosting
from mabe_behavior.boosting import Forest
from mabe_behavior.model_config import Trees

WANTED = Trees(rounds=10, frames=2000, min_leaf=5, columns=1.0)


def streams(n: int = 3, frames: int = 800) -> list[tuple[np.ndarray, np.ndarray]]:
    """The first class is there where the first feature is above 1; the second nobody looked for; the third never."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(n):
        x = rng.normal(size=(frames, 4)).astype(np.float16)
        y = np.stack([x[:, 0] > 1, np.full(frames, -1), np.zeros(frames)], axis=1).astype(np.int8)
        found.append((x, y))
    return found


@pytest.fixture(scope="module")
def forest() -> Forest:
    return boosting.fit(WANTED, streams(), 0)


def test_it_sees_what_can_be_seen(forest: Forest) -> None:
    x, y = streams()[0]
    p = forest.proba(x)
    assert p.shape == (800, 3) and p.dtype == np.float32
    assert ((p[:, 0] > 0.5) == (y[:, 0] == 1)).mean() > 0.98
    assert (p[:, 1] == 0).all()  # nothing was known
    assert (p[:, 2] == 0).all()  # it was never there
    assert forest.texts[1] is None and forest.texts[2] is None


def test_probabilities_are_those_of_all_frames_and_not_of_the_chosen_ones(forest: Forest) -> None:
    """Frames without the action are thinned out, and then stand for more: the mean is the share in the recordings."""
    few = boosting.fit(WANTED.model_copy(update={"frames": 1000, "negatives": 0.5}), streams(), 0)
    x = np.concatenate([x for x, _ in streams()])
    share = np.concatenate([y for _, y in streams()])[:, 0].mean()
    assert few.proba(x)[:, 0].mean() == pytest.approx(share, rel=0.15)


def test_chosen_frames_are_no_more_than_wanted_and_all_known() -> None:
    y = np.zeros(100_000, bool)
    y[:300] = True
    chosen = boosting._some(WANTED, y, 0)
    assert len(np.unique(chosen)) == len(chosen) <= WANTED.frames
    assert y[chosen].sum() == 300
    many = boosting._some(WANTED, ~y, 0)
    assert len(many) <= WANTED.frames * 1.5


def test_the_same_seed_grows_the_same_trees() -> None:
    assert boosting.fit(WANTED, streams(), 1).texts == boosting.fit(WANTED, streams(), 1).texts


def test_a_damaged_text_is_refused_before_lightgbm_sees_it(forest: Forest) -> None:
    text = forest.texts[0]
    assert text is not None
    elsewhere = re.sub(r"left_child=\S+", "left_child=77", text, count=1)
    for damaged in (text[: len(text) // 2], elsewhere, "tree", text + "x=1\n"):
        with pytest.raises(ValueError):
            Forest((damaged,), (0.1,), 4)
    with pytest.raises(ValueError, match="3 columns"):
        forest.proba(np.zeros((2, 3), np.float16))


def test_no_frame_no_answer(forest: Forest) -> None:
    assert forest.proba(np.zeros((0, 4), np.float16)).shape == (0, 3)
