"""Which class macro-F1 wants answered."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from timeseries_dualmodal import weighing


def rare(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities of three classes, the third rare, and what came true."""
    generator = np.random.default_rng(seed)
    p_NK = generator.dirichlet([4, 2, 0.3], n)
    y = (generator.random((n, 1)) > p_NK.cumsum(axis=1)).sum(axis=1)
    return p_NK, y


def answers(p_NK: np.ndarray, weights_LK: np.ndarray) -> np.ndarray:
    return weighing.answers(p_NK[:, None], weights_LK)[:, 0]


@given(st.integers(0, 2**31))
def test_two_classes_get_the_best_of_all_cuts(seed: int) -> None:
    """With two classes one weight decides, so every answer that weights can give is a cut of the sorted series."""
    p_NK = np.random.default_rng(seed).dirichlet([2, 1], 9)
    found = weighing.expected_macro_f1(p_NK, answers(p_NK, weighing.fit(p_NK[:, None])))
    cuts = [np.where(p_NK[:, 1] >= level, 1, 0) for level in [*np.unique(p_NK[:, 1]), 2.0]]
    assert found == pytest.approx(max(weighing.expected_macro_f1(p_NK, cut) for cut in cuts), abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 2))
def test_no_single_weight_can_be_bettered(seed: int, k: int) -> None:
    p_NK = np.random.default_rng(seed).dirichlet([3, 2, 0.5], 12)
    weights_LK = weighing.fit(p_NK[:, None])
    found = weighing.expected_macro_f1(p_NK, answers(p_NK, weights_LK))
    assert found >= weighing.expected_macro_f1(p_NK, p_NK.argmax(axis=1)) - 1e-9
    for factor in (0.3, 0.8, 1.3, 3.0):
        other_LK = weights_LK.copy()
        other_LK[:, k] *= factor
        assert found >= weighing.expected_macro_f1(p_NK, answers(p_NK, other_LK)) - 1e-9


def test_expectation_is_that_of_many_draws() -> None:
    """The ratio of expectations, of a sample large enough to have little spread."""
    p_NK, y = rare(20_000, 0)
    chosen = p_NK.argmax(axis=1)
    assert weighing.expected_macro_f1(p_NK, chosen) == pytest.approx(f1_score(y, chosen, average="macro"), abs=0.02)


def test_other_series_gain_as_well() -> None:
    fitted, _ = rare(2_000, 1)
    p_NK, y = rare(20_000, 2)
    weights_LK = weighing.fit(fitted[:, None])
    gain = f1_score(y, answers(p_NK, weights_LK), average="macro") - f1_score(y, p_NK.argmax(axis=1), average="macro")
    assert gain > 0.03
    assert weights_LK[0, 2] > weights_LK[0, :2].max()


def test_each_length_has_its_own_weights() -> None:
    p_NK, _ = rare(500, 3)
    sure_NK = 0.98 * np.eye(3)[p_NK.argmax(axis=1)] + 0.02 / 3
    both_LK = weighing.fit(np.stack([p_NK, sure_NK], axis=1))
    for index, single in enumerate((p_NK, sure_NK)):
        np.testing.assert_array_equal(both_LK[index], weighing.fit(single[:, None])[0])
    assert np.array_equal(answers(sure_NK, both_LK[1:]), p_NK.argmax(axis=1))


@pytest.mark.parametrize("n", [1, 2])
def test_few_series_and_certain_ones_give_finite_weights(n: int) -> None:
    weights_LK = weighing.fit(np.tile([[[1.0, 0.0, 0.0]]], (n, 1, 1)))
    assert np.isfinite(weights_LK).all() and (weights_LK > 0).all()
    np.testing.assert_allclose(np.log(weights_LK).mean(axis=1), 0, atol=1e-9)


def test_no_series_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        weighing.fit(np.empty((0, 2, 3)))
