"""Temperatures per length: found again, smooth where rows are few, and without effect on answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from timeseries_dualmodal import temperature


def overconfident(
    n: int, t_L: np.ndarray, classes: int = 4, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities whose logits are `t_L` times too large, the true ones, and labels that all lengths share."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    seen_NLK = rng.normal(size=(n, len(t_L), classes)) + 1.5 * np.eye(classes)[y][:, None]
    logit_NLK = 1.5 * seen_NLK  # log p(y | seen) of unit noise around 1.5 e_y, but for a constant
    return softmax(logit_NLK * t_L[:, None]), softmax(logit_NLK), y


def softmax(logit: np.ndarray) -> np.ndarray:
    e = np.exp(logit - logit.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def nll(p_NLK: np.ndarray, y: np.ndarray) -> float:
    return float(-np.log(p_NLK[np.arange(len(y)), :, y]).mean())


def test_known_temperatures_are_found_again_and_mend_the_probabilities() -> None:
    t_L = np.array([0.5, 0.7, 1.0, 2.0, 3.0])
    p_NLK, true_NLK, y = overconfident(10_000, t_L)
    found = temperature.fit(p_NLK, y)
    assert found == pytest.approx(t_L, rel=0.08)
    mended_NLK = temperature.apply(p_NLK, found)
    assert np.abs(mended_NLK - true_NLK).mean() < 0.01
    assert nll(mended_NLK, y) < nll(p_NLK, y) - 0.05


def test_the_optimum_is_that_of_a_search_without_derivatives() -> None:
    from scipy.optimize import minimize

    p_NLK, _, y = overconfident(80, np.array([1.0, 2.0, 4.0]))

    def minus_log_posterior(log_t_L: np.ndarray) -> float:
        prior = (log_t_L**2).sum() / 2 / temperature.LEVEL**2 + (np.diff(log_t_L) ** 2).sum() / 2 / temperature.STEP**2
        return nll(temperature.apply(p_NLK, np.exp(log_t_L)), y) * p_NLK[:, :, 0].size + prior

    oracle = minimize(minus_log_posterior, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9})
    assert np.log(temperature.fit(p_NLK, y)) == pytest.approx(oracle.x, abs=1e-3)


def test_few_rows_borrow_from_the_lengths_beside_them() -> None:
    t_L = np.full(12, 2.0)
    few, many = (np.log(temperature.fit(*overconfident(n, t_L, seed=3)[::2])) for n in (25, 5000))
    alone = [
        np.log(temperature.fit(overconfident(25, t_L, seed=3)[0][:, [k]], overconfident(25, t_L, seed=3)[2]))
        for k in range(12)
    ]
    assert np.std(few) < np.std(alone) / 2
    assert np.abs(many - np.log(2)).max() < 0.1


@pytest.mark.parametrize("right", [True, False])
def test_a_model_that_is_always_right_or_always_wrong_gets_a_finite_temperature(right: bool) -> None:
    y = np.arange(40) % 2
    p_NLK = np.repeat(np.eye(2)[y if right else 1 - y][:, None], 3, axis=1)
    found = temperature.fit(p_NLK, y)
    assert all(0.05 < t < 1 for t in found) if right else all(1 < t < 1000 for t in found)


shapes = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(2, 5))
weights = st.one_of(st.integers(0, 3).map(float), st.floats(0, 1, width=32))


@given(shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=weights)), st.floats(0.05, 20))
@settings(deadline=None)
def test_answers_never_change(weight_NLK: np.ndarray, t: float) -> None:
    total = weight_NLK.sum(axis=2, keepdims=True)
    p_NLK = np.where(total > 1e-3, weight_NLK / np.maximum(total, 1e-3), 1 / weight_NLK.shape[2])
    found = temperature.apply(p_NLK, [t] * p_NLK.shape[1])
    assert np.array_equal(found.argmax(axis=2), p_NLK.argmax(axis=2))
    assert found.sum(axis=2) == pytest.approx(1) and (found > 0).all()


def test_answers_stay_where_rounding_would_make_a_tie() -> None:
    p_K = np.array([0.4, np.nextafter(0.4, 1), 0.2])
    for t in (0.5, 1.0, 1.7, 5.0, 20.0):
        assert temperature.apply(p_K[None, None], [t])[0, 0].argmax() == 1


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_temperature_one_changes_nothing_and_temperatures_multiply(seed: int) -> None:
    p_NLK = np.random.default_rng(seed).dirichlet(np.ones(4), (6, 3)) * 0.99 + 0.0025
    assert temperature.apply(p_NLK, [1.0] * 3) == pytest.approx(p_NLK, abs=1e-12)
    twice = temperature.apply(temperature.apply(p_NLK, [2.0] * 3), [0.6] * 3)
    assert twice == pytest.approx(temperature.apply(p_NLK, [1.2] * 3), abs=1e-12)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one per length"):
        temperature.apply(np.full((2, 3, 2), 0.5), [1.0, 1.0])
    with pytest.raises(ValueError, match="N at least 1"):
        temperature.fit(np.empty((0, 3, 2)), np.empty(0, np.int64))
