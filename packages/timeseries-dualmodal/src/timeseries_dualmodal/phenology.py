"""Generated crop seasons: what a satellite sees of a field in a year, without a download.

A field's green cover follows a double logistic (Beck et al. 2006), with the onset, peak and senescence that are
typical of its crop. Five surface reflectances are mixed linearly from green leaves, dry leaves, soil and water, and
nine indices are computed from them. Clouds leave gaps, haze and the sensor leave noise; regions and years shift the
season, and regions differ in soil and clouds. Crops overlap, so that a short prefix is ambiguous.

The shape is the predecessor's: 14 variables, 37 steps of 10 days, four classes of 12.1 / 21.8 / 23.2 / 43.0 %.
How hard the default set is (2,000 series, seed 0), as `benchmarks/difficulty.py` measured it: macro-F1 of
scikit-learn's HistGradientBoosting (balanced class weights) on the first t steps; the mean over three random splits of
80 / 20 %, and over the four regions, each held out in its turn:

| t              |   3 |   6 |   9 |  12 |  18 |  24 |  37 |
|----------------|-----|-----|-----|-----|-----|-----|-----|
| random         | .24 | .31 | .40 | .61 | .80 | .88 | .90 |
| held out, mean | .22 | .32 | .40 | .59 | .74 | .84 | .85 |
| held out, worst| .19 | .26 | .30 | .49 | .69 | .79 | .81 |

Shapes: N series, T steps, B bands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timeseries_dualmodal.series import SeriesSet

Floats = NDArray[np.float64]

BANDS = ("blue", "green", "red", "NIR", "SWIR1")
VARIABLES = (
    "NIR", "RVI", "SWIR1", "blue", "bsi", "evi", "gcvi", "green", "lswi", "ndsi", "ndvi", "ndwi", "ndyi", "red",
)  # fmt: skip
TIMES: Floats = np.arange(1.0, 371.0, 10.0)  # days of the year
CLASS_COUNTS = {"rice": 671, "soybean": 1210, "wheat": 1288, "maize": 2388}  # of the predecessor's 5,557

# Reflectance of pure surfaces in the order of BANDS; typical values of spectral libraries, rounded.
LEAF = np.array([0.03, 0.07, 0.035, 0.46, 0.19])
DRY = np.array([0.09, 0.14, 0.20, 0.32, 0.38])
SOIL = np.array([0.07, 0.11, 0.15, 0.22, 0.30])
WATER = np.array([0.05, 0.06, 0.05, 0.03, 0.015])


@dataclass(frozen=True)
class Crop:
    """What is typical of a crop; days are days of the year, and (mean, spread) between fields."""

    onset: tuple[float, float]  # steepest green-up
    senescence: tuple[float, float]  # steepest decline
    rise: float  # slopes of the two logistics, per day
    fall: float
    peak: float  # green cover at its height, share of the ground
    leaf: tuple[float, float]  # NIR and SWIR1 of its canopy, relative to LEAF
    flooded: float = 0.0  # share of the fields that are paddies
    second: float = 0.0  # share of the fields with a second crop in the summer


CROPS = {
    "rice": Crop((155, 11), (258, 10), 0.070, 0.080, 0.86, (0.95, 0.94), flooded=0.95),
    "soybean": Crop((155, 12), (255, 10), 0.075, 0.100, 0.90, (1.12, 0.98)),
    "wheat": Crop((77, 12), (162, 10), 0.060, 0.110, 0.85, (0.94, 0.98), second=0.4),
    "maize": Crop((135, 13), (246, 12), 0.070, 0.065, 0.85, (1.00, 0.97)),
}


@dataclass(frozen=True)
class Region:
    """What is typical of a place."""

    share: float
    shift: float  # of all seasons, days
    clouds: float  # share of the steps without an observation, over the year
    soil: float  # brightness of its soil, relative to SOIL


REGIONS = {
    "north": Region(0.30, 14, 0.38, 0.90),
    "plain": Region(0.35, 0, 0.22, 1.05),
    "delta": Region(0.20, -6, 0.28, 0.75),
    "south": Region(0.15, -18, 0.10, 1.25),
}
YEARS = {"2019": -5.0, "2020": 3.0, "2021": 8.0}  # shift of all seasons, days


def generate(n: int, seed: int) -> SeriesSet:
    """A set of `n` crop seasons: x (n, 14, 37), groups region, year and field; the same arguments give the same set.

    A field occurs in two years, so a split that goes by it must be grouped. Its crop changes from year to year.

    Raises:
        ValueError: fewer than 50 series, which would leave rare classes empty.
    """
    if n < 50:
        raise ValueError(f"n is {n}: give at least 50")
    random = np.random.default_rng(seed)
    y = random.permutation(np.repeat(np.arange(len(CROPS)), class_counts(n)))
    field_of = np.arange(n) % ((n + 1) // 2)
    fields = field_of.max() + 1
    region_of = random.choice(len(REGIONS), fields, p=[region.share for region in REGIONS.values()])[field_of]
    year_of = (random.integers(len(YEARS), size=fields)[field_of] + np.arange(n) // fields) % len(YEARS)
    place_N3 = np.array([(region.shift, region.soil, region.clouds) for region in REGIONS.values()])[region_of]
    shift_N = place_N3[:, 0] + np.array([*YEARS.values()])[year_of]
    soil_N = place_N3[:, 1] * random.normal(1, 0.12, fields)[field_of]
    bands_BNT = _bands(y, shift_N, np.clip(soil_N, 0.4, 1.8), random)
    x_NVT = variables(_observed(bands_BNT, random)).swapaxes(0, 1).astype(np.float32)
    x_NVT = np.where(_cloudy(place_N3[:, 2], random)[:, None, :], np.float32(np.nan), x_NVT)
    year, field = np.array([*YEARS])[year_of], np.array([f"field{number:05d}" for number in field_of])
    return SeriesSet(
        x=x_NVT,
        y=y,
        ids=np.array([f"{one}-{when}" for one, when in zip(field, year, strict=True)]),
        variables=VARIABLES,
        classes=tuple(CROPS),
        times=TIMES,
        groups={"region": np.array([*REGIONS])[region_of], "year": year, "field": field},
    )


def class_counts(n: int) -> NDArray[np.int64]:
    """Series of each class among `n`, in the order of CROPS, with the predecessor's shares (largest remainders)."""
    quota = n * np.array([CLASS_COUNTS[name] for name in CROPS]) / sum(CLASS_COUNTS.values())
    counts = np.floor(quota).astype(np.int64)
    counts[np.argsort(counts - quota)[: n - counts.sum()]] += 1
    return counts


def double_logistic(onset: Floats, senescence: Floats, rise: Floats | float, fall: Floats | float) -> Floats:
    """Course of a season between 0 and 1 at TIMES, (N, T), from columns (N, 1).

    Beck et al. (2006), "Improved monitoring of vegetation dynamics at very high latitudes: A new method using MODIS
    NDVI", Remote Sensing of Environment 100, eq. 1, without its amplitude and offset.
    """
    return np.clip(_logistic(rise * (TIMES - onset)) + _logistic(-fall * (TIMES - senescence)) - 1, 0, None)


def variables(bands_BNT: Floats) -> Floats:
    """The 14 VARIABLES, (V, N, T), of the reflectances in the order of BANDS.

    RVI Jordan (1969); NDVI Rouse et al. (1974); EVI Huete et al. (2002); GCVI Gitelson et al. (2003); NDWI McFeeters
    (1996); LSWI Xiao et al. (2004); NDSI, of snow, Hall et al. (1995); BSI Rikimaru et al. (2002); NDYI Sulik and Long
    (2016).
    """
    blue, green, red, nir, swir1 = bands_BNT
    found = {
        "NIR": nir,
        "RVI": nir / red,
        "SWIR1": swir1,
        "blue": blue,
        "bsi": _difference(swir1 + red, nir + blue),
        "evi": 2.5 * (nir - red) / (nir + 6 * red - 7.5 * blue + 1),
        "gcvi": nir / green - 1,
        "green": green,
        "lswi": _difference(nir, swir1),
        "ndsi": _difference(green, swir1),
        "ndvi": _difference(nir, red),
        "ndwi": _difference(green, nir),
        "ndyi": _difference(green, blue),
        "red": red,
    }
    return np.stack([found[name] for name in VARIABLES])


def _bands(y: NDArray[np.int64], shift_N: Floats, soil_N: Floats, random: np.random.Generator) -> Floats:
    """Reflectances without clouds and noise, (B, N, T)."""
    onset = _column(random.normal(*_typical("onset", y).T) + shift_N)
    senescence = _column(random.normal(*_typical("senescence", y).T) + shift_N)
    rise = _column(_typical("rise", y) * random.normal(1, 0.15, len(y)))
    fall = _column(_typical("fall", y) * random.normal(1, 0.15, len(y)))
    peak = _column(_typical("peak", y) * random.normal(1, 0.08, len(y)))
    harvest = senescence + _column(random.normal(22, 8, len(y)))  # until then the dry crop stands
    dry_NT = 0.7 * peak * _logistic(fall * (TIMES - senescence)) * _logistic(-0.2 * (TIMES - harvest))
    green_NT = peak * double_logistic(onset, senescence, rise, fall) + _other_green(y, harvest, shift_N, random)
    green_NT = np.clip(green_NT, 0, 0.97)
    dry_NT = np.clip(dry_NT, 0, 1 - green_NT)
    bare_NT = 1 - green_NT - dry_NT
    paddy_N = random.random(len(y)) < _typical("flooded", y)
    water_NT = bare_NT * _column(paddy_N) * _flood(onset, random)
    leaf_NB = LEAF * random.normal(1, 0.06, (len(y), len(BANDS)))
    leaf_NB[:, 3:] *= _typical("leaf", y)
    # rain darkens the soil, the more so in winter
    wet_NT = np.clip(random.normal(0.10 + 0.08 * _winter(), 0.06, bare_NT.shape), 0, 0.5)
    soil_NT = (bare_NT - water_NT) * _column(soil_N) * (1 - wet_NT)
    leaf_BN1, dry_B11, soil_B11, water_B11 = (
        leaf_NB.T[:, :, None],
        *(pure[:, None, None] for pure in (DRY, SOIL, WATER)),
    )
    return green_NT * leaf_BN1 + dry_NT * dry_B11 + soil_NT * soil_B11 + water_NT * water_B11


def _other_green(y: NDArray[np.int64], harvest: Floats, shift_N: Floats, random: np.random.Generator) -> Floats:
    """Green cover that is not the crop's: weeds and catch crops over the winter, a second crop after the first."""
    # spring weeds and catch crops look like young wheat, and are ploughed in before the summer crop is sown
    height = _column(random.gamma(1.2, 0.10, len(y)))
    ploughed = _column(random.normal(112, 14, len(y)) + shift_N)
    spring_NT = height * _logistic(0.06 * (TIMES - (ploughed - 42))) * _logistic(-0.25 * (TIMES - ploughed))
    winter_NT = _column(random.gamma(2.0, 0.04, len(y))) * (1 - _logistic(0.05 * (TIMES - ploughed)))
    planted = _column(random.random(len(y)) < _typical("second", y))
    second_NT = 0.7 * double_logistic(harvest + 25, harvest + 95, 0.1, 0.09)
    autumn_NT = _column(random.gamma(1.5, 0.06, len(y))) * _logistic(0.06 * (TIMES - 300))
    return spring_NT + winter_NT + planted * second_NT + autumn_NT


def _flood(onset: Floats, random: np.random.Generator) -> Floats:
    """Share of the bare ground under water, (N, T): paddies are flooded weeks before the rice closes over them."""
    begin = onset - _column(random.normal(52, 10, len(onset)))
    end = onset + _column(random.normal(45, 10, len(onset)))
    depth = _column(random.uniform(0.15, 0.8, len(onset)))
    return depth * _logistic(0.25 * (TIMES - begin)) * _logistic(-0.15 * (TIMES - end))


def _observed(bands_BNT: Floats, random: np.random.Generator) -> Floats:
    """What the sensor reports: haze that the cloud mask missed, and noise that grows with the signal."""
    shape = bands_BNT.shape[1:]
    haze_NT = np.where(random.random(shape) < 0.06, random.uniform(0.02, 0.15, shape), 0)
    scatter_B = np.array([1.0, 0.85, 0.75, 0.5, 0.35])[:, None, None]
    noisy = bands_BNT * random.normal(1, 0.05, bands_BNT.shape) + random.normal(0, 0.006, bands_BNT.shape)
    return np.clip(noisy + haze_NT * scatter_B, 0.01, 0.9)


def _cloudy(clouds_N: Floats, random: np.random.Generator) -> NDArray[np.bool_]:
    """Steps without an observation, (N, T): more of them in winter, in spells of a few steps."""
    share_NT = np.clip(clouds_N[:, None] * (1 + 0.8 * _winter()), 0, 0.95)
    fresh_NT = random.random(share_NT.shape) < share_NT
    again_NT = random.random(share_NT.shape) < 0.4  # the weather of the step before holds on
    cloudy_NT = fresh_NT.copy()
    for step in range(1, len(TIMES)):
        cloudy_NT[:, step] = np.where(again_NT[:, step], cloudy_NT[:, step - 1], fresh_NT[:, step])
    return cloudy_NT


def _typical(name: str, y: NDArray[np.int64]) -> Floats:
    """A number, or pair of numbers, of each series' crop, (N,) or (N, 2)."""
    return np.array([getattr(crop, name) for crop in CROPS.values()])[y]


def _winter() -> Floats:
    """1 in the middle of January, -1 in the middle of July, (T,)."""
    return np.cos(2 * np.pi * (TIMES - 15) / 365)


def _logistic(values: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(values, -60, 60)))


def _difference(first: Floats, second: Floats) -> Floats:
    """The normalised difference (first - second) / (first + second)."""
    return (first - second) / (first + second)


def _column(values_N: NDArray) -> Floats:
    return np.asarray(values_N, np.float64)[:, None]
