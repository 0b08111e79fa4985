"""Towers: every option changes the network, the pyramid is one, attention attends."""

import pytest
import torch

from pair_compare_stacking import blocks
from pair_compare_stacking.tower import Pyramid, Tower

OPTIONS = [
    {},
    {"block": "bottleneck"},
    {"attention": "se"},
    {"attention": "cbam"},
    {"stem_stride": 1},
    {"pyramid": True},
    {"pyramid": True, "attention": "cbam", "block": "bottleneck", "stem_stride": 1},
]


def tower(**options: object) -> Tower:
    torch.manual_seed(0)
    return Tower((16, 32, 64), (2, 2, 2), 24, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_parameter_learns(options: dict[str, object]) -> None:
    net = tower(**options)
    features = net(torch.rand(6, 1, 28, 28))
    assert features.shape == (6, 24)
    features.square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_every_option_changes_the_network() -> None:
    x = torch.rand(2, 1, 28, 28)
    seen = [tower(**options).eval()(x) for options in OPTIONS]
    for i, one in enumerate(seen):
        assert not any(torch.allclose(one, other) for other in seen[:i])


def test_layers_and_widths_are_those_asked_for() -> None:
    net = Tower((8, 24), (1, 3), 5)
    assert [len(stage) for stage in net.stages] == [1, 3]
    assert [stage[-1].convolutions[-1].out_channels for stage in net.stages] == [8, 24]
    with_se = Tower((8, 24), (1, 3), 5, attention="se")
    assert [type(stage[-1]) for stage in with_se.stages] == [blocks.SqueezeExcitation] * 2


def test_pyramid_passes_down_what_only_the_top_sees() -> None:
    """A change of the coarsest stage reaches every level; one of the finest, only its own."""
    torch.manual_seed(0)
    net = Pyramid((4, 8, 16), 6)
    stages = [torch.rand(1, c, s, s) for c, s in ((4, 14), (8, 7), (16, 4))]
    before = net(list(stages))
    assert [level.shape for level in before] == [(1, 6, s, s) for s in (14, 7, 4)]
    for changed, reached in ((2, [True, True, True]), (1, [True, True, False]), (0, [True, False, False])):
        other = list(stages)
        other[changed] = other[changed] + 1
        after = net(other)
        assert [not torch.allclose(x, y) for x, y in zip(before, after, strict=True)] == reached


def test_squeeze_excitation_scales_channels_by_the_whole_image() -> None:
    torch.manual_seed(0)
    net, x = blocks.SqueezeExcitation(8), torch.rand(2, 8, 5, 5) + 0.1
    scale = net(x) / x
    torch.testing.assert_close(scale, scale[:, :, :1, :1].expand_as(scale))
    changed = x.clone()
    changed[:, :, 0, 0] += 5
    assert not torch.allclose((net(changed) / changed)[:, :, 1, 1], scale[:, :, 1, 1])


def test_cbam_scales_channels_and_places() -> None:
    torch.manual_seed(0)
    net, x = blocks.CBAM(8), torch.rand(2, 8, 6, 6) + 0.1
    scale = net(x) / x
    by_channel, by_place = scale.mean(dim=(2, 3)), scale.mean(dim=1)
    assert by_channel.std() > 1e-3 and by_place.std() > 1e-3
    outer = scale[:, :1] * scale[:, :, :1, :1] / scale[:, :1, :1, :1]
    torch.testing.assert_close(scale, outer)  # a factor of the channel times one of the place


@pytest.mark.parametrize("stride", [1, 2])
def test_bottleneck_narrows_to_a_quarter(stride: int) -> None:
    block = blocks.Bottleneck(16, 32, stride)
    assert [c.out_channels for c in block.convolutions] == [8, 8, 32]
    assert block(torch.rand(1, 16, 8, 8)).shape == (1, 32, 8 // stride, 8 // stride)
