"""The generated crop seasons: their shape, their shares, and that they behave like crops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timeseries_dualmodal import phenology
from timeseries_dualmodal.phenology import BANDS, CLASS_COUNTS, CROPS, TIMES, VARIABLES, generate
from timeseries_dualmodal.series import SeriesSet


@pytest.fixture(scope="module")
def seasons() -> SeriesSet:
    return generate(2_000, 0)


def course(seasons: SeriesSet, variable: str, crop: str) -> np.ndarray:
    """Mean over the fields of a crop, (T,)."""
    rows = seasons.y == seasons.classes.index(crop)
    return np.nanmean(seasons.x[rows, VARIABLES.index(variable)], axis=0)


def test_the_shape_is_the_predecessors(seasons: SeriesSet) -> None:
    assert seasons.x.shape == (2_000, 14, 37) and seasons.x.dtype == np.float32
    named = {
        "NIR",
        "RVI",
        "SWIR1",
        "blue",
        "bsi",
        "evi",
        "gcvi",
        "green",
        "lswi",
        "ndsi",
        "ndvi",
        "ndwi",
        "ndyi",
        "red",
    }
    assert set(seasons.variables) == named
    assert np.array_equal(np.diff(seasons.times), np.full(36, 10)) and seasons.times[0] == 1
    assert len(set(seasons.ids.tolist())) == 2_000
    assert not np.isinf(seasons.x).any()


def test_the_predecessors_number_of_series_has_its_class_counts() -> None:
    counts = phenology.class_counts(5_557)
    assert counts.tolist() == list(CLASS_COUNTS.values()) == [671, 1210, 1288, 2388]
    assert counts.max() / counts.min() == pytest.approx(3.56, abs=0.005)


@given(st.integers(50, 20_000))
def test_class_counts_add_up_and_keep_the_shares(n: int) -> None:
    counts = phenology.class_counts(n)
    assert counts.sum() == n
    assert np.abs(counts - n * np.array([*CLASS_COUNTS.values()]) / 5_557).max() < 1


def test_the_same_seed_gives_the_same_set_and_another_one_another() -> None:
    first, again, other = generate(60, 3), generate(60, 3), generate(60, 4)
    assert np.array_equal(first.x, again.x, equal_nan=True) and np.array_equal(first.ids, again.ids)
    assert not np.array_equal(first.x, other.x, equal_nan=True)


def test_too_few_series_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 50"):
        generate(49, 0)


def test_a_field_occurs_in_two_years_and_one_region() -> None:
    seasons = generate(2_000, 0)
    _, which, counts = np.unique(seasons.groups["field"], return_inverse=True, return_counts=True)
    assert set(counts.tolist()) == {2}
    for field in range(0, counts.size, 97):
        rows = which == field
        assert len(set(seasons.groups["year"][rows])) == 2 and len(set(seasons.groups["region"][rows])) == 1


@settings(max_examples=50)
@given(st.lists(st.floats(0.01, 0.9), min_size=5, max_size=5))
def test_indices_follow_their_formulas(reflectances: list[float]) -> None:
    """Written a second time, in the form of the papers."""
    blue, green, red, nir, swir = reflectances
    found = dict(zip(VARIABLES, phenology.variables(np.array(reflectances).reshape(5, 1, 1)).ravel(), strict=True))
    assert [found[name] for name in BANDS] == reflectances
    expected = {
        "RVI": nir / red,
        "ndvi": (nir - red) / (nir + red),
        "evi": 2.5 * (nir - red) / (nir + 6 * red - 7.5 * blue + 1),
        "gcvi": nir / green - 1,
        "lswi": (nir - swir) / (nir + swir),
        "ndwi": (green - nir) / (green + nir),
        "ndsi": (green - swir) / (green + swir),
        "ndyi": (green - blue) / (green + blue),
        "bsi": ((swir + red) - (nir + blue)) / ((swir + red) + (nir + blue)),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_a_season_is_half_way_at_onset_and_at_senescence() -> None:
    onset, senescence = np.array([[101.0]]), np.array([[251.0]])
    season = phenology.double_logistic(onset, senescence, 0.1, 0.1)[0]
    assert season[TIMES == 101] == pytest.approx(0.5, abs=1e-4) and season[TIMES == 251] == pytest.approx(0.5, abs=1e-4)
    assert season.max() > 0.99 and season[0] < 1e-4 and season[-1] < 1e-4


def test_crops_grow_when_they_should(seasons: SeriesSet) -> None:
    peak = {crop: TIMES[np.argmax(course(seasons, "ndvi", crop))] for crop in CROPS}
    assert 91 <= peak["wheat"] <= 151 and all(peak[crop] >= 171 for crop in ("rice", "soybean", "maize"))
    assert all(course(seasons, "ndvi", crop).max() > 0.6 > 0.4 > course(seasons, "ndvi", crop)[0] for crop in CROPS)


def test_paddies_are_flooded_before_the_rice_is_green(seasons: SeriesSet) -> None:
    """Water absorbs the short-wave infrared: LSWI is high while NDVI is low (Xiao et al. 2005)."""
    before = (TIMES >= 111) & (TIMES <= 141)
    wetness = {crop: (course(seasons, "lswi", crop) - course(seasons, "ndvi", crop))[before].mean() for crop in CROPS}
    assert wetness["rice"] > max(wetness["soybean"], wetness["maize"]) + 0.05


def test_regions_differ_in_onset_and_in_clouds(seasons: SeriesSet) -> None:
    region, ndvi = seasons.groups["region"], seasons.x[:, VARIABLES.index("ndvi")]
    maize = seasons.y == seasons.classes.index("maize")
    may = (TIMES >= 111) & (TIMES <= 151)
    assert (
        np.nanmean(ndvi[maize & (region == "south")][:, may])
        > np.nanmean(ndvi[maize & (region == "north")][:, may]) + 0.1
    )
    missing = {name: np.isnan(ndvi[region == name]).mean() for name in phenology.REGIONS}
    assert missing["north"] > missing["plain"] > missing["south"] > 0


def test_a_cloud_hides_all_variables(seasons: SeriesSet) -> None:
    gaps = np.isnan(seasons.x)
    assert np.array_equal(gaps.all(axis=1), gaps.any(axis=1)) and 0.1 < gaps.mean() < 0.5


@pytest.mark.slow
def test_prefixes_get_easier_and_a_new_region_is_harder() -> None:
    """What the docstring's table says, by a faster model; the table itself is by benchmarks/difficulty.py."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.metrics import f1_score

    from shared_core import splits

    seasons = generate(1_500, 1)
    assert seasons.y is not None
    parts = splits.stratified(seasons.y, {"train": 0.7, "test": 0.3}, 0)
    north = seasons.groups["region"] == "north"

    def score(steps: int, train: np.ndarray, test: np.ndarray) -> float:
        features = np.nan_to_num(seasons.x[:, :, :steps], nan=-1.0).reshape(len(seasons), -1)
        trees = ExtraTreesClassifier(150, class_weight="balanced", min_samples_leaf=2, random_state=0)
        trees.fit(features[train], seasons.y[train])
        return f1_score(seasons.y[test], trees.predict(features[test]), average="macro")

    at = {steps: score(steps, parts["train"], parts["test"]) for steps in (3, 12, 37)}
    assert at[3] < 0.35 and 0.4 < at[12] < 0.75 and 0.75 < at[37] < 0.96
    assert score(18, np.flatnonzero(~north), np.flatnonzero(north)) < score(18, parts["train"], parts["test"])
