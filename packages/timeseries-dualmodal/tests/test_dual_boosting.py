"""Trees beside the networks: what they read, and what is stored of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from shared_core.errors import UserError
from timeseries_dualmodal import boosting, decision
from timeseries_dualmodal.boosting import Boosted
from timeseries_dualmodal.model_config import Trees

N, V, T, K = 160, 2, 6, 3
LENGTHS = (1, 3, T)
WANTED = Trees(rounds=8, min_leaf=4)


def series(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The class is in the change from the first step to the second; a fifth of the values is missing."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(N, V, T)).astype(np.float32)
    y = generator.integers(0, K, N)
    x[:, 0, 1] = x[:, 0, 0] + y - 1 + generator.normal(0, 0.1, N)
    x[generator.random(x.shape) < 0.2] = np.nan
    return x, y


@pytest.fixture(scope="module")
def grown() -> Boosted:
    x, y = series()
    return boosting.fit(WANTED, x, y, LENGTHS, K, 0)


@pytest.mark.parametrize("length", [1, 2, T])
def test_features_have_the_width_that_is_said(length: int) -> None:
    assert boosting.features(series()[0][:, :, :length]).shape == (N, boosting.width(V, length))


def test_features_say_what_is_known() -> None:
    x = np.array([[[1, np.nan, 4, 3]], [[np.nan] * 4]], np.float32)
    found = boosting.features(x)
    expected = [1, 1, 4, 3, 0, 3, -1, 4, 1, 8 / 3, 3, 1, 2, 3]
    np.testing.assert_allclose(found[0], expected)
    assert np.isnan(found[1, :-1]).all() and found[1, -1] == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, N - 1), st.integers(1, 5))
def test_features_of_a_series_do_not_depend_on_the_others(row: int, count: int) -> None:
    x = series(1)[0]
    together = boosting.features(x)[row : row + count]
    assert np.array_equal(boosting.features(x[row : row + count]), together, equal_nan=True)


def test_they_learn(grown: Boosted) -> None:
    x, y = series(1)
    p_NLK = grown.proba(x, LENGTHS)
    np.testing.assert_allclose(p_NLK.sum(axis=2), 1)
    right_L = (p_NLK.argmax(axis=2) == y[:, None]).mean(axis=0)
    assert right_L[0] < 0.5 and right_L[1] > 0.7


def test_what_comes_later_changes_nothing(grown: Boosted) -> None:
    x = series(1)[0]
    other = x.copy()
    other[:, :, 3:] = series(2)[0][:, :, 3:]
    assert np.array_equal(grown.proba(x, (1, 3)), grown.proba(other, (1, 3)))
    assert np.array_equal(grown.proba(x, (1, 3)), grown.proba(x[:, :, :3], (1, 3)))
    assert not np.array_equal(grown.proba(x, (T,)), grown.proba(other, (T,)))


def test_probabilities_are_lightgbms() -> None:
    import lightgbm

    x, y = series()
    made = boosting.fit(WANTED, x, y, (T,), K, 3)
    booster = lightgbm.train(
        {
            "objective": "multiclass", "num_class": K, "num_leaves": 31, "learning_rate": 0.08, "lambda_l2": 5.0,
            "min_data_in_leaf": 4, "extra_trees": True, "seed": 3, "deterministic": True, "force_col_wise": True,
            "num_threads": 1, "verbosity": -1,
        },
        lightgbm.Dataset(boosting.features(x), y),
        8,
    )  # fmt: skip
    raw_NK = booster.predict(boosting.features(series(1)[0]), raw_score=True)
    np.testing.assert_allclose(made.proba(series(1)[0], (T,))[:, 0], softmax(raw_NK, axis=1), rtol=1e-9)


def test_the_same_seed_grows_the_same_trees(grown: Boosted) -> None:
    x, y = series()
    again, other = (boosting.fit(WANTED, x, y, LENGTHS, K, seed) for seed in (0, 1))
    assert np.array_equal(again.proba(x, LENGTHS), grown.proba(x, LENGTHS))
    assert not np.array_equal(other.proba(x, LENGTHS), grown.proba(x, LENGTHS))


def test_gaps_that_training_never_had_are_no_zeros() -> None:
    """LightGBM reads them as 0; here that lies below every value of class 0, so all would be class 0."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 2, 300)
    x = (3 + 4 * y[:, None, None] + generator.random((300, 1, T))).astype(np.float32)
    made = boosting.fit(WANTED, x, y, (T,), 2, 0)
    later, never = x.copy(), np.full_like(x, np.nan)
    later[:, :, 1:] = np.nan  # keeps the first value
    assert ((made.proba(later, (T,))[:, 0].argmax(axis=1) == y).mean()) > 0.95
    at_first = x.copy()
    at_first[:, :, :4] = np.nan
    assert ((made.proba(at_first, (T,))[:, 0].argmax(axis=1) == y).mean()) > 0.9
    np.testing.assert_allclose(made.proba(never, (T,))[:, 0], 0.5, atol=0.45)


def test_of_many_series_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = series()
    few = WANTED.model_copy(update={"series": 90})
    seen: list[int] = []
    grow = boosting._fit
    monkeypatch.setattr(
        boosting, "_fit", lambda wanted, x_NVT, *rest: seen.append(len(x_NVT)) or grow(wanted, x_NVT, *rest)
    )
    first, again, other = (boosting.fit(few, x, y, (3,), K, seed).proba(x, (3,)) for seed in (0, 0, 1))
    assert seen == [90, 90, 90]
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_blocks_of_rows_answer_as_one(grown: Boosted, monkeypatch: pytest.MonkeyPatch) -> None:
    x = series(1)[0]
    whole = grown.proba(x, LENGTHS)
    monkeypatch.setattr(boosting, "ROWS", 7)
    assert np.array_equal(grown.proba(x, LENGTHS), whole)
    assert grown.proba(x[:0], LENGTHS).shape == (0, len(LENGTHS), K)


def test_the_plan_extrapolates_rounds_and_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round takes 2 s here, what comes before 1 s, and loading LightGBM a minute."""
    took, began = iter([60.0, 1 + 2 * 3.0, 1 + 2 * 9.0]), []
    monkeypatch.setattr(boosting, "seconds", lambda work, device: began.append(work) or next(took))
    monkeypatch.setattr(boosting.os, "cpu_count", lambda: 2)
    note = boosting.plan_note(Trees(rounds=100), *series(), LENGTHS, K)
    assert note.endswith("trees for 3 lengths are grown on the CPU: about 5:02")  # 201 s x 3 / 2
    assert len(began) == 3


def test_stored_trees_answer_alike(grown: Boosted, tmp_path: Path) -> None:
    grown.save(tmp_path / "trees.safetensors")
    read = boosting.load(tmp_path / "trees.safetensors", V, K, LENGTHS)
    x = series(1)[0]
    assert np.array_equal(read.proba(x, LENGTHS), grown.proba(x, LENGTHS))


@pytest.mark.parametrize(
    ("variables", "classes", "lengths", "words"),
    [(1, K, LENGTHS, "feature outside"), (V, 5, LENGTHS, "each of 5 classes"), (V, K, (2,), "2.leaves")],
)
def test_trees_of_another_model_are_refused(
    variables: int, classes: int, lengths: tuple[int, ...], words: str, grown: Boosted, tmp_path: Path
) -> None:
    grown.save(tmp_path / "trees.safetensors")
    with pytest.raises(UserError, match=words) as caught:
        boosting.load(tmp_path / "trees.safetensors", variables, classes, lengths)
    assert "\n" not in str(caught.value)


def test_damaged_trees_are_refused(grown: Boosted, tmp_path: Path) -> None:
    of_length = grown.by_length[T]
    endless = replace(of_length, made=replace(of_length.made, child=np.zeros_like(of_length.made.child)))
    replace(grown, by_length={**grown.by_length, T: endless}).save(tmp_path / "trees.safetensors")
    with pytest.raises(UserError, match="form no tree"):
        boosting.load(tmp_path / "trees.safetensors", V, K, LENGTHS)
    with pytest.raises(UserError, match="is missing; train the model again, or pull it again"):
        boosting.load(tmp_path / "other.safetensors", V, K, LENGTHS)
    (tmp_path / "trees.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError):
        boosting.load(tmp_path / "trees.safetensors", V, K, LENGTHS)


@pytest.mark.parametrize(("networks", "trees", "low", "high"), [(0.9, 0.3, 0, 0.2), (0.3, 0.9, 0.8, 1)])
def test_the_better_part_counts_for_more(networks: float, trees: float, low: float, high: float) -> None:
    y = np.arange(30) % K
    said = [np.where(np.eye(K)[y] == 1, p, (1 - p) / (K - 1))[:, None] for p in (networks, trees)]
    assert low <= decision.share(*said, y) <= high


def test_parts_that_err_on_other_series_count_both() -> None:
    y = np.arange(60) % K
    sure = np.where(np.eye(K)[y] == 1, 0.9, 0.05)
    wrong = np.where(np.eye(K)[y] == 1, 0.05, 0.475)
    first, second = (np.where((np.arange(60) % 2 == odd)[:, None], wrong, sure)[:, None] for odd in (0, 1))
    assert 0.3 < decision.share(first, second, y) < 0.7
