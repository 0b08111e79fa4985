"""Principal components and scaling: fitted once, kept as arrays, never upset by what is missing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA as Reference

from mabe_behavior.features import pca, scaling
from mabe_behavior.model import Reader

SHAPE = np.diag([5.0, 3.0, 1.0, 0.2]) @ np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]


def scaled(x: np.ndarray) -> np.ndarray:
    """As networks see it; the second half says where a value was missing."""
    fitted, reader = scaling.fit([x]), Reader(x.shape[1], lab_width=0, indicators=True)
    reader.fit(fitted.mean_F, fitted.spread_F)
    return reader(torch.from_numpy(x[None]), torch.zeros(1, dtype=torch.long))[0].numpy()


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 4)) @ SHAPE + [100, -3, 0, 7]


def test_components_are_those_of_scikit_learn() -> None:
    x = rows(500)
    found = pca.fit([x[:100], x[100:]], 3)
    reference = Reference(3, svd_solver="full").fit(x)
    expected, ours = reference.transform(x), found.transform(x)
    sign = np.sign((expected * ours).sum(axis=0))
    assert ours * sign == pytest.approx(expected, rel=2e-3, abs=2e-3)
    assert found.variance_K == pytest.approx(reference.explained_variance_ * 499 / 500)  # which divides by N - 1
    assert found.directions_KF @ found.directions_KF.T == pytest.approx(np.eye(3), abs=1e-9)


@given(st.lists(st.integers(1, 59), min_size=0, max_size=5))
def test_blocks_do_not_matter(cuts: list[int]) -> None:
    x = rows(60)
    x[np.random.default_rng(2).random(x.shape) < 0.2] = np.nan
    blocks = np.split(x, sorted(cuts))
    one, many = pca.fit([x], 2), pca.fit(blocks, 2)
    assert many.transform(x) == pytest.approx(one.transform(x), abs=1e-4)
    once, often = scaling.fit([x]), scaling.fit(blocks)
    assert often.mean_F == pytest.approx(once.mean_F) and often.spread_F == pytest.approx(once.spread_F)


def test_missing_values_hide_little() -> None:
    x = rows(20_000)
    whole = pca.fit([x], 2)
    holes = np.where(np.random.default_rng(3).random(x.shape) < 0.2, np.nan, x)
    found = pca.fit([holes], 2)
    assert np.abs((found.directions_KF * whole.directions_KF).sum(axis=1)) == pytest.approx(1, abs=1e-2)
    assert found.variance_K == pytest.approx(whole.variance_K, rel=0.05)
    assert np.isfinite(found.transform(holes[np.isfinite(holes).any(axis=1)])).all()
    assert np.isnan(found.transform(np.full((1, 4), np.nan))).all()
    assert found.transform(found.mean_F[None]) == pytest.approx(0, abs=1e-6)


def test_a_column_that_a_laboratory_lacks_serves_with_the_others() -> None:
    x = rows(300)
    x[:100, 2] = np.nan
    x[100:200, 0] = np.nan
    assert np.isfinite(pca.fit([x[:100], x[100:200], x[200:]], 4).transform(x)).all()


def test_scaled_columns_have_mean_zero_and_spread_one() -> None:
    x = np.column_stack((rows(5000), np.full(5000, 0.1), np.full(5000, np.nan)))
    x[::7, 0] = np.nan
    both = scaled(x)
    assert both.shape == (5000, 12) and both.dtype == np.float32 and np.isfinite(both).all()
    seen, found = np.isfinite(x), both[:, :6]
    for k in range(4):
        assert found[seen[:, k], k].mean() == pytest.approx(0, abs=1e-4)
        assert found[seen[:, k], k].std() == pytest.approx(1, abs=1e-3)
    assert (found[::7, 0] == 0).all() and np.abs(found[:, 4:]).max() < 1e-3
    assert np.array_equal(both[:, 6:], ~seen)


def test_jumps_are_kept_within_the_limit() -> None:
    x = rows(100)
    x[0, 0], x[1, 1] = 1e9, -1e9
    found = scaled(x)
    assert found[0, 0] == 8 and found[1, 1] == -8 and np.abs(found).max() == 8


def test_arrays_are_all_there_is_to_keep() -> None:
    x = rows(50)
    fitted = pca.fit([x], 3)
    state = fitted.state()
    assert all(isinstance(value, np.ndarray) for value in state.values())
    assert np.array_equal(pca.of_state(state).transform(x), fitted.transform(x))


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ValueError, match=r"components: 5; must lie in 1\.\.4"):
        pca.fit([rows(9)], 5)
    with pytest.raises(ValueError, match="pca: no rows with any value"):
        pca.fit([np.full((3, 4), np.nan)], 2)
    with pytest.raises(ValueError, match="scaling: no rows with any value"):
        scaling.fit([])
    with pytest.raises(ValueError, match=r"pca: shape \(2, 3\); must be \(rows, 4\)"):
        pca.fit([rows(9), np.zeros((2, 3))], 2)
    with pytest.raises(ValueError, match="was fitted to 4 columns"):
        pca.fit([rows(9)], 2).transform(np.zeros((2, 3)))
