"""Series as pictures: axes from training series, no look at the future, colours."""

from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from timeseries_dualmodal import raster_torch
from timeseries_dualmodal.pictures_config import Pictures
from timeseries_dualmodal.plots import Axes, Plots, colours, paint

STEPS = 11
TIMES = np.cumsum([0.0, 10, 10, 11, 8, 10, 10, 30, 10, 10, 10])
AXES = Axes(0.0, float(TIMES[-1]), np.zeros(3, np.float32), np.ones(3, np.float32))


def plots(**look: object) -> Plots:
    return Plots(AXES, TIMES, **{**Pictures(size=40).look, **look})


def series(count: int, seed: int = 0, missing: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x_BVT = torch.rand((count, 3, STEPS), generator=generator)
    x_BVT[torch.rand(x_BVT.shape, generator=generator) < missing] = torch.nan
    return x_BVT


def whole(x_BVT: torch.Tensor) -> torch.Tensor:
    return torch.full((len(x_BVT),), x_BVT.shape[2])


def test_axes_are_the_quantiles_of_what_was_measured() -> None:
    rng = np.random.default_rng(0)
    x_NVT = rng.normal([[[0.0], [50.0]]], [[[1.0], [9.0]]], (400, 2, STEPS)).astype(np.float32)
    x_NVT[rng.random(x_NVT.shape) < 0.3] = np.nan
    axes = Axes.fit(x_NVT, TIMES, 0.01)
    assert (axes.time_low, axes.time_high) == (0.0, TIMES[-1])
    assert axes.low_V == pytest.approx([-2.33, 50 - 9 * 2.33], rel=0.1)
    assert axes.high_V == pytest.approx([2.33, 50 + 9 * 2.33], rel=0.1)
    exact = Axes.fit(x_NVT, TIMES, 0.0)
    assert np.array_equal(exact.low_V, np.nanmin(x_NVT, (0, 2)))
    assert np.array_equal(exact.high_V, np.nanmax(x_NVT, (0, 2)))


@pytest.mark.parametrize("value", [0.0, 7.5, -3e6, 1e-30, np.nan])
def test_a_variable_that_never_changes_is_drawn_in_the_middle(value: float) -> None:
    x_NVT = np.full((5, 1, STEPS), value, np.float32)
    fitted = Axes.fit(x_NVT, TIMES)
    assert fitted.low_V[0] < fitted.high_V[0]
    _, y_BVP = replace(plots(), axes=fitted).points(torch.from_numpy(x_NVT), torch.full((5,), STEPS))
    assert y_BVP.isnan().all() if np.isnan(value) else torch.allclose(y_BVP, torch.tensor(20.0), atol=1e-3)


def test_a_variable_that_seldom_changes_spans_its_extremes() -> None:
    x_NVT = np.zeros((500, 1, STEPS), np.float32)
    x_NVT[3, 0, 4] = 5
    fitted = Axes.fit(x_NVT, TIMES, 0.01)
    assert (fitted.low_V[0], fitted.high_V[0]) == (0, 5)


def test_one_step_is_drawn_in_the_middle() -> None:
    fitted = Axes.fit(np.array([[[1.0]], [[3.0]]], np.float32), TIMES[:1], 0.0)
    x_BVP, y_BVP = Plots(fitted, TIMES[:1], 40, 1.0).points(torch.tensor([[[1.0]], [[3.0]]]), torch.ones(2))
    assert x_BVP.flatten().tolist() == [20, 20]
    assert y_BVP.flatten().tolist() == pytest.approx([38, 2])


def test_points_lie_where_the_axes_say() -> None:
    """Up is more, time runs to the right with its true distances, 5 % are left free on each side."""
    x_BVT = torch.linspace(0, 1, STEPS).expand(1, 3, STEPS)
    x_BVP, y_BVP = plots().points(x_BVT, whole(x_BVT))
    expected = torch.tensor(2 + 36 * TIMES / TIMES[-1], dtype=torch.float32)
    assert torch.allclose(x_BVP[0], expected.expand(3, STEPS))
    assert torch.allclose(y_BVP[0], torch.linspace(38, 2, STEPS).expand(3, STEPS))


def test_values_outside_the_axis_are_drawn_at_the_border() -> None:
    x_BVT = torch.full((1, 3, STEPS), 1e9)
    x_BVT[0, 1] = -1e9
    picture = plots(line_width=1.5).coverage(x_BVT, whole(x_BVT))[0].float()
    assert picture[0].sum() == picture[1].sum() == picture[2].sum() > 0
    assert picture[0, :2].sum() == picture[0].sum()
    assert picture[1, -2:].sum() == picture[1].sum()


LOOKS = st.fixed_dictionaries(
    {
        "scaling": st.sampled_from(["fixed", "autoscale"]),
        "gaps": st.sampled_from(["bridge", "break"]),
        "marker": st.sampled_from([0.0, 4.0]),
        "margin": st.sampled_from([0.0, 0.05, 0.2]),
    }
)
ANYTHING = st.sampled_from([0.0, 0.7, -5.0, 1e30, float("inf"), float("-inf"), float("nan")])


@given(
    look=LOOKS, seed=st.integers(0, 99), lengths=st.lists(st.integers(0, STEPS), min_size=4, max_size=4), later=ANYTHING
)
@settings(max_examples=40, deadline=None)
def test_what_comes_later_does_not_move_a_bit(
    look: dict[str, object], seed: int, lengths: list[int], later: float
) -> None:
    """The predecessor's early pictures showed the whole year."""
    drawn, x_BVT, length_B = plots(**look), series(4, seed, 0.3), torch.tensor(lengths)
    changed = x_BVT.masked_fill(torch.arange(STEPS) >= length_B[:, None, None], later)
    for before, after in zip(drawn.points(x_BVT, length_B), drawn.points(changed, length_B), strict=True):
        assert torch.equal(before.nan_to_num(-1), after.nan_to_num(-1))
    picture = drawn.coverage(x_BVT, length_B)
    assert torch.equal(picture, drawn.coverage(changed, length_B))
    cut = max(1, *lengths)  # a batch may as well end where its longest prefix does
    assert torch.equal(picture, drawn.coverage(x_BVT[..., :cut], length_B))


@given(look=LOOKS, seed=st.integers(0, 99), order=st.permutations(range(5)), threads=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_a_picture_is_its_own_series(look: dict[str, object], seed: int, order: list[int], threads: int) -> None:
    """The predecessor's pictures belonged to other samples once its loader shuffled."""
    drawn, x_BVT, length_B = plots(**look), series(5, seed, 0.3), torch.tensor([11, 3, 7, 1, 0])
    alone = torch.cat([drawn.coverage(x_BVT[i : i + 1], length_B[i : i + 1]) for i in range(5)])
    assert torch.equal(drawn.coverage(x_BVT[order], length_B[order], threads), alone[order])


def test_a_prefix_is_the_left_of_the_whole_picture() -> None:
    x_BVT = series(20)
    drawn = plots(size=64)
    picture = drawn.coverage(x_BVT, whole(x_BVT))
    x_BVP, _ = drawn.points(x_BVT, whole(x_BVT))
    for length in range(1, STEPS):
        edge = int(x_BVP[0, 0, length - 1] - drawn.line_width / 2)
        early = drawn.coverage(x_BVT, torch.full((20,), length))
        assert torch.equal(early[..., :edge], picture[..., :edge])
        assert early[..., edge + 5 :].sum() == 0


def test_gaps_are_bridged_or_left_open() -> None:
    x_BVT = torch.full((1, 1, STEPS), 0.5)
    x_BVT[0, 0, 4:6] = torch.nan
    axes = replace(AXES, low_V=AXES.low_V[:1], high_V=AXES.high_V[:1])
    bridged = replace(plots(), axes=axes).coverage(x_BVT, whole(x_BVT))[0, 0]
    broken = replace(plots(gaps="break"), axes=axes).coverage(x_BVT, whole(x_BVT))[0, 0]
    assert torch.equal(bridged, replace(plots(), axes=axes).coverage(x_BVT.nan_to_num(0.5), whole(x_BVT))[0, 0])
    middle = int(2 + 36 * (TIMES[4] + TIMES[5]) / 2 / TIMES[-1])
    assert bridged[:, middle].sum() > 0 and broken[:, middle].sum() == 0
    assert torch.equal(bridged[:, : middle - 4], broken[:, : middle - 4])


def test_autoscale_fills_the_picture_with_the_prefix() -> None:
    x_BVT = 0.4 + 0.01 * series(6, missing=0.2)
    drawn = plots(scaling="autoscale")
    length_B = torch.tensor([2, 3, 5, 8, 11, 11])
    for axis in drawn.points(x_BVT, length_B):
        several = axis.isfinite().sum(2) > 1
        assert several.any()
        low, high = axis.nan_to_num(torch.inf).amin(2), axis.nan_to_num(-torch.inf).amax(2)
        assert torch.allclose(low[several], torch.tensor(2.0), atol=1e-4)
        assert torch.allclose(high[several], torch.tensor(38.0), atol=1e-4)
    level = torch.full((1, 3, STEPS), 0.3)
    assert torch.equal(drawn.points(level, torch.tensor([4]))[1][:, :, :4], torch.full((1, 3, 4), 20.0))


def test_the_torch_path_agrees() -> None:
    x_BVT, drawn = series(9, missing=0.2), plots(marker=3.0, gaps="break")
    length_B = torch.arange(9) + 2
    ours = drawn.coverage(x_BVT, length_B).int()
    x_NP, y_NP = (points.flatten(0, 1) for points in drawn.points(x_BVT, length_B))
    theirs = raster_torch.draw(x_NP, y_NP, 40, drawn.line_width, 3.0).view(9, 3, 40, 40).int()
    assert (ours - theirs).abs().max() <= 1


def test_no_value_is_an_empty_picture() -> None:
    x_BVT = torch.full((2, 3, STEPS), torch.nan)
    for scaling in ("fixed", "autoscale"):
        assert plots(scaling=scaling).coverage(x_BVT, whole(x_BVT)).sum() == 0
        assert plots(scaling=scaling).coverage(series(2), torch.zeros(2)).sum() == 0
        assert plots(scaling=scaling).coverage(series(0), torch.zeros(0)).shape == (0, 3, 40, 40)


def test_colours_are_matplotlibs() -> None:
    expected = [matplotlib.colormaps["tab20"](v % 20)[:3] for v in range(43)]
    assert torch.allclose(colours(43), torch.tensor(expected, dtype=torch.float32), atol=1e-6)
    assert colours(0).shape == (0, 3)


def test_paint_puts_coloured_ink_on_white() -> None:
    coverage_BVHW = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(2, 3, 4, 3)
    colours_V3 = torch.tensor([[1.0, 0.0, 0.5], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    picture = paint(coverage_BVHW, colours_V3)
    assert picture.shape == (2, 3, 3, 4, 3) and picture.dtype == torch.float32
    assert torch.equal(picture[..., 0], torch.ones(2, 3, 3, 4))
    assert torch.allclose(picture[..., 2], colours_V3[None, :, :, None].expand(2, 3, 3, 4), atol=1e-6)
    assert torch.allclose(picture[..., 1], 0.8 + 0.2 * picture[..., 2], atol=1e-6)


def test_the_settings_say_how_plots_look() -> None:
    """Every field that shapes a picture of given axes is handed on."""
    fields = set(Pictures.model_fields) - {"tail", "cache", "embeddings", "beyond"}
    assert {"scaling" if name == "axes" else name for name in fields} == set(Pictures().look)
