"""Trees read from LightGBM's text, against LightGBM itself; damaged ones."""

import re
from dataclasses import replace
from functools import cache

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_core import trees
from shared_core.trees import Trees

MULTICLASS = ("multiclass num_class:3", 3)


def rows(seed: int, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Four features, a third of the values missing, and a class."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, 4))
    y = (x[:, 0] + x[:, 1] > 0).astype(int) + (x[:, 2] > 0.5)
    x[generator.random(x.shape) < 0.3] = np.nan
    return x.astype(np.float32), y


@cache
def booster(objective: str, **settings: int | float | bool) -> lightgbm.Booster:
    x, y = rows(0)
    about = {"objective": objective, "num_threads": 1, "verbose": -1, "seed": 0, "min_data_in_leaf": 3, **settings}
    if objective == "multiclass":
        return lightgbm.train({**about, "num_class": 3}, lightgbm.Dataset(x, y), 12)
    return lightgbm.train(about, lightgbm.Dataset(x, y > 0), 12)


@pytest.mark.parametrize("options", [{}, {"extra_trees": True}, {"use_missing": False}], ids=str)
def test_several_classes_and_missing_values_as_in_lightgbm(options: dict) -> None:
    made = booster("multiclass", **options)
    read = trees.parse(made.model_to_string(), 4, *MULTICLASS)
    x = np.concatenate([rows(1, 3000)[0], np.full((1, 4), np.nan)])
    x[: len(read), 0] = read.threshold[:, 0]  # on a threshold
    x[-40:-1] = np.resize([0.0, -0.0, 1e-35, -1e-35, 2e-35, -1e-36, np.inf, -np.inf], (39, 4))
    score_NK = read.values(x).reshape(len(x), -1, 3).sum(axis=1)
    np.testing.assert_allclose(score_NK, made.predict(x, raw_score=True), rtol=1e-12, atol=1e-12)
    assert read.splits(4).tolist() == made.feature_importance("split").tolist()


def test_no_rows_have_no_values() -> None:
    read = trees.parse(booster("binary").model_to_string(), 4)
    assert read.values(np.empty((0, 4))).shape == (0, 12)


def test_trees_without_a_split() -> None:
    made = booster("multiclass", min_data_in_leaf=200)
    read = trees.parse(made.model_to_string(), 4, *MULTICLASS)
    assert read.splits(4).sum() == 0
    score_NK = read.values(rows(1)[0]).reshape(300, -1, 3).sum(axis=1)
    np.testing.assert_allclose(score_NK, made.predict(rows(1)[0], raw_score=True), rtol=1e-12)


@pytest.mark.parametrize(
    ("pattern", "new", "words"),
    [
        (r"left_child=(-?\d+)", "left_child=0", "no tree"),
        (r"right_child=(-?\d+)", "right_child=-1", "no tree"),
        (r"split_feature=\d+", "split_feature=4", r"feature outside 0\.\.3"),
        (r"split_feature=\d+", "split_feature=-1", r"feature outside 0\.\.3"),
        (r"threshold=\S+", "threshold=nan", "infinite value"),
        (r"leaf_value=\S+", "leaf_value=inf", "infinite value"),
        (r"leaf_value=\S+", "leaf_value=ten", "no number"),
        (r"leaf_value=\S+ ", "leaf_value=", "has not"),
        (r"decision_type=\d+", "decision_type=1", "another kind"),
        (r"num_leaves=\d+", "num_leaves=1", "has not 1 leaves"),
        (r"num_leaves=\d+", "num_leaves=99999999999", "has not 99999999999 leaves"),
        (r"num_cat=0", "num_cat=1", "something else"),
        (r"is_linear=0", "is_linear=1", "something else"),
        (r"Tree=1\n", "Tree=2\n", "where tree 1"),
        (r"objective=binary sigmoid:1", "objective=poisson", "objective is 'poisson'"),
        (r"end of trees", "", "not ended"),
        (r"num_class=1", "num_class=1\nnum_class=1", "occurs twice"),
    ],
)
def test_damaged_trees_are_named(pattern: str, new: str, words: str) -> None:
    text = booster("binary").model_to_string()
    with pytest.raises(ValueError, match=words) as caught:
        trees.parse(re.sub(pattern, new, text, count=1), 4)
    assert "\n" not in str(caught.value)


def test_splits_that_are_each_others_parents_form_no_tree() -> None:
    """Every node and leaf has one parent here, but the second and third split hang from nothing."""
    text = (
        "tree\nnum_class=1\nnum_tree_per_iteration=1\nmax_feature_idx=0\nobjective=binary sigmoid:1\n\nTree=0\n"
        "num_leaves=4\nnum_cat=0\nsplit_feature=0 0 0\nthreshold=0 1 2\ndecision_type=2 2 2\nleft_child=-1 2 1\n"
        "right_child={}\nleaf_value=1 2 3 4\nis_linear=0\n\nend of trees\n"
    )
    with pytest.raises(ValueError, match="no tree"):
        trees.parse(text.format("-2 -3 -4"), 1)
    tree = trees.parse(text.replace("left_child=-1 2 1", "left_child=-1 -2 -3").format("1 2 -4"), 1)
    x_N1 = np.array([-1, 0, 0.5, 1, 1.5, 2, 9])[:, None]
    assert tree.values(x_N1)[:, 0].tolist() == [1, 1, 2, 2, 3, 3, 4]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_arrays_that_pass_can_be_evaluated(data: st.DataObject) -> None:
    read = trees.parse(booster("binary").model_to_string(), 4)
    name = data.draw(st.sampled_from(["leaves", "feature", "child"]))
    changed = getattr(read, name).copy()
    place = tuple(data.draw(st.integers(0, size - 1)) for size in changed.shape)
    changed[place] = data.draw(st.integers(-40, 40))
    damaged = replace(read, **{name: changed})
    try:
        damaged.check(4)
    except ValueError:
        return
    assert np.isfinite(damaged.values(rows(1)[0])).all()


@pytest.mark.parametrize("name", ["leaves", "feature", "threshold", "missing_left", "child", "value"])
def test_arrays_that_do_not_fit_are_refused(name: str) -> None:
    read: Trees = trees.parse(booster("binary").model_to_string(), 4)
    with pytest.raises(ValueError, match="fit each other"):
        replace(read, **{name: getattr(read, name)[1:]}).check(4)
