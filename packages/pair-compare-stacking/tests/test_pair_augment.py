"""Augmentation of pairs: every option does something, against Pillow and SciPy, and as laws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from pair_compare_stacking import augment
from pair_compare_stacking.augment import Motion
from pair_compare_stacking.training_config import Augment
from shared_core.errors import UserError
from shared_core.userdefined import UserFunction

SIDE = 28
OFF = Augment(swap=False)
GEOMETRY = [{"rotation": 15.0}, {"translate": 0.1}, {"resized_crop": 0.8}]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def generator(seed: int = 0, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def pairs(n: int = 16, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random pixels, labels and digits of n pairs; the digits say which half is which."""
    x = torch.rand(n, 2, SIDE, SIDE, generator=generator(seed))
    left = torch.randint(0, 9, (n,), generator=generator(seed + 1))
    digits = torch.stack((left, left + 1), dim=1)
    digits = torch.where((torch.arange(n) % 3 == 0)[:, None], digits.flip(1), digits)
    return x, (digits[:, 0] > digits[:, 1]).long(), digits


def smooth(n: int = 1, seed: int = 0) -> torch.Tensor:
    """Blurred random pixels (n, 28, 28), which bilinear methods agree about."""
    noise = np.random.default_rng(seed).random((n, SIDE, SIDE))
    return torch.from_numpy(np.stack([ndimage.gaussian_filter(image, 1.5) for image in noise])).float()


def motion(n: int = 1, **parts: Any) -> Motion:
    """The same motion of n halves; what is not given is none."""
    nothing = {"angle": 0.0, "shift": (0.0, 0.0), "side": 1.0, "centre": (0.0, 0.0), "applies": True}
    made = {name: torch.tensor(value) for name, value in {**nothing, **parts}.items()}
    return Motion(**{name: value[..., None].expand(*value.shape, n) for name, value in made.items()})


# what is asked for happens


def test_everything_off_returns_what_it_got() -> None:
    x, y, digits = pairs()
    state = (source := generator()).get_state()
    made = augment.augment(x, y, digits, OFF, source)
    assert made[0] is x and made[1] is y and made[2] is digits
    assert torch.equal(source.get_state(), state)


@pytest.mark.parametrize("option", GEOMETRY, ids=str)
def test_every_option_changes_every_half(option: dict[str, float]) -> None:
    """The predecessor's flag was on, its kind "none", and nothing happened."""
    x, y, digits = pairs(64)
    before = x.clone()
    made, y_after, digits_after = augment.augment(x, y, digits, Augment(swap=False, **option), generator())
    changed = (made != x).any(dim=(2, 3))
    assert changed.all()
    assert made.shape == x.shape and made.dtype == x.dtype and made.min() >= 0 and made.max() <= 1
    assert y_after is y and digits_after is digits and torch.equal(x, before)


@pytest.mark.parametrize("option", GEOMETRY, ids=str)
def test_the_halves_are_moved_independently(option: dict[str, float]) -> None:
    one = smooth().expand(32, 2, SIDE, SIDE)
    made, _, _ = augment.augment(one, torch.zeros(32), None, Augment(swap=False, **option), generator())
    assert len(torch.unique(made.flatten(0, 1).flatten(1), dim=0)) == 64


def test_swap_changes_pairs_with_their_answers() -> None:
    x, y, digits = pairs(400)
    made, y_after, digits_after = augment.augment(x, y, digits, Augment(), generator())
    assert digits_after is not None
    swapped = (made == x.flip(1)).all(dim=(1, 2, 3))
    kept = (made == x).all(dim=(1, 2, 3))
    assert torch.equal(swapped, ~kept) and 160 < int(swapped.sum()) < 240
    assert torch.equal(y_after, torch.where(swapped, 1 - y, y)) and y_after.dtype == y.dtype
    assert torch.equal(digits_after, torch.where(swapped[:, None], digits.flip(1), digits))
    assert torch.equal(y_after, (digits_after[:, 0] > digits_after[:, 1]).long())


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(0, 10_000))
def test_swapping_twice_is_nothing(n: int, seed: int) -> None:
    x, y, digits = pairs(n, seed)
    once = augment.swap(x, y, digits, generator(seed))
    twice = augment.swap(*once, generator(seed))
    assert torch.equal(twice[0], x) and torch.equal(twice[1], y)
    assert twice[2] is not None and torch.equal(twice[2], digits)


def test_unknown_digits_stay_unknown() -> None:
    x, y, _ = pairs()
    assert augment.augment(x, y, None, Augment(rotation=5), generator())[2] is None


def test_probability_is_a_share_of_the_halves() -> None:
    x, y, digits = pairs(1000)
    wanted = Augment(rotation=15, translate=0.1, resized_crop=0.9, probability=0.3, swap=False)
    made, _, _ = augment.augment(x, y, digits, wanted, generator())
    changed = (made != x).any(dim=(2, 3))
    assert 0.25 < float(changed.float().mean()) < 0.35
    both = float((changed[:, 0] & changed[:, 1]).float().mean())
    assert 0.05 < both < 0.13  # .3 squared: each half on its own


# numbers are drawn as said


def test_what_is_drawn() -> None:
    wanted = Augment(rotation=15, translate=0.1, resized_crop=0.5)
    drawn = augment.draw(40_000, wanted, generator())
    assert drawn.applies.all()
    shares = {
        "angle": drawn.angle / 30 + 0.5,
        "x": drawn.shift[0] / 2 / 0.2 + 0.5,  # in half sides: 0.1 of the side is 0.2
        "y": drawn.shift[1] / 2 / 0.2 + 0.5,
        "area": (drawn.side.square() - 0.5) / 0.5,
        "left": drawn.centre[0] / (1 - drawn.side) / 2 + 0.5,
        "top": drawn.centre[1] / (1 - drawn.side) / 2 + 0.5,
    }
    for name, share in shares.items():
        # Kolmogorov-Smirnov: the distance of 40,000 uniform numbers from the diagonal exceeds .0098 once in a thousand
        distance = (share.sort().values - torch.linspace(0, 1, len(share))).abs().max()
        assert float(distance) < 0.0098, name
    assert (torch.corrcoef(torch.stack(list(shares.values()))) - torch.eye(6)).abs().max() < 0.02
    edges = drawn.centre.abs() + drawn.side
    assert float(edges.max()) <= 1 + 1e-6  # the crop lies inside


def test_what_is_off_is_not_drawn() -> None:
    for option in GEOMETRY:
        drawn = augment.draw(50, Augment(**option), generator())
        moved = {"rotation": drawn.angle.any(), "translate": drawn.shift.any(), "resized_crop": (drawn.side != 1).any()}
        assert {name for name, moves in moved.items() if moves} == set(option)
        assert "resized_crop" in option or not drawn.centre.any()


# against independent oracles


@pytest.mark.parametrize("angle", [-90.0, -33.0, -5.0, 12.5, 45.0, 90.0, 180.0])
def test_rotation_is_scipys(angle: float) -> None:
    image = smooth()
    expected = ndimage.rotate(image[0].numpy(), angle, reshape=False, order=1, mode="grid-constant")
    made = augment.move(image, motion(angle=angle))
    torch.testing.assert_close(made[0], torch.from_numpy(expected), atol=2e-5, rtol=0)


@pytest.mark.parametrize("angle", [-40.0, 15.0, 90.0])
def test_rotation_is_pillows(angle: float) -> None:
    """In the same direction: counter-clockwise. Pillow fills the edge otherwise, so the inside is compared."""
    image = smooth()
    expected = np.asarray(Image.fromarray(image[0].numpy()).rotate(angle, Image.Resampling.BILINEAR))
    made = augment.move(image, motion(angle=angle))[0].numpy()
    row, column = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    inside = np.hypot(row, column) < 12
    np.testing.assert_allclose(made[inside], expected[inside], atol=2e-5)


def test_a_quarter_turn_and_whole_pixels_are_exact_places() -> None:
    image = torch.rand(1, SIDE, SIDE, generator=generator())
    torch.testing.assert_close(
        augment.move(image, motion(angle=90.0)), torch.rot90(image, 1, (1, 2)), atol=1e-4, rtol=0
    )
    shifted = augment.move(image, motion(shift=(3 / 14, -2 / 14)))  # 3 pixels to the right, 2 up; half a side is 14
    expected = torch.zeros_like(image)
    expected[:, : SIDE - 2, 3:] = image[:, 2:, : SIDE - 3]
    torch.testing.assert_close(shifted, expected, atol=1e-4, rtol=0)


@settings(deadline=None, max_examples=40)
@given(
    st.floats(-180, 180),
    st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
    st.floats(0.2, 1),
    st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
)
def test_every_motion_is_scipys(
    angle: float, shift: tuple[float, float], side: float, corner: tuple[float, float]
) -> None:
    """Rotation, then translation, then crop and resize, composed by SciPy's rules as one affine map in pixels."""
    centre = ((1 - side) * corner[0], (1 - side) * corner[1])
    half = SIDE / 2
    middle = np.full(2, (SIDE - 1) / 2)
    turn = np.deg2rad(angle)
    # output (row, column) -> input: enlarge back, undo the shift, undo the counter-clockwise rotation
    rotate = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    matrix = rotate * side
    moved = rotate @ (half * np.array([centre[1] - shift[1], centre[0] - shift[0]]))
    image = smooth(seed=3).double()
    expected = ndimage.affine_transform(
        image[0].numpy(), matrix, middle + moved - matrix @ middle, order=1, mode="grid-constant"
    )
    given_ = motion(angle=angle, shift=shift, side=side, centre=centre)
    made = augment.move(
        image, Motion(*(part.double() if part.is_floating_point() else part for part in vars(given_).values()))
    )
    np.testing.assert_allclose(made[0].numpy(), expected, atol=1e-5)


def test_no_motion_keeps_the_exact_pixels() -> None:
    x = torch.rand(5, SIDE, SIDE, generator=generator())
    assert torch.equal(augment.move(x, motion(5)), x)
    assert torch.equal(augment.move(x, motion(5, angle=30.0, shift=(0.1, 0.0), applies=False)), x)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_turning_back_restores_the_inside(seed: int) -> None:
    angle = float(torch.rand((), generator=generator(seed))) * 360 - 180
    image = torch.from_numpy(ndimage.gaussian_filter(smooth(seed=seed).numpy(), (0, 3, 3)))
    back = augment.move(augment.move(image, motion(angle=angle)), motion(angle=-angle))
    assert (back - image)[0, 8:20, 8:20].abs().max() < 0.02


# a function of its arguments and the generator


ALL = Augment(rotation=15, translate=0.1, resized_crop=0.9, probability=0.8)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("drawn_on", DEVICES)
def test_it_is_a_function_of_the_generator(device: str, drawn_on: str) -> None:
    if drawn_on == "cuda" and device == "cpu":
        pytest.skip("a generator lives on the pairs' device or on the CPU")
    x, y, digits = (part.to(device) for part in pairs())
    torch.manual_seed(1)
    first = augment.augment(x, y, digits, ALL, generator(4, drawn_on))
    torch.manual_seed(2)
    again = augment.augment(x, y, digits, ALL, generator(4, drawn_on))
    other = augment.augment(x, y, digits, ALL, generator(5, drawn_on))
    assert all(part.device.type == device for part in first)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_does_the_same() -> None:
    x, y, digits = pairs(64)
    here = augment.augment(x, y, digits, ALL, generator())
    there = augment.augment(x.cuda(), y.cuda(), digits.cuda(), ALL, generator())
    torch.testing.assert_close(there[0].cpu(), here[0], atol=1e-4, rtol=0)
    assert torch.equal(there[1].cpu(), here[1])


def test_pairs_that_are_not_contiguous() -> None:
    x, y, digits = pairs()
    strided = x.transpose(2, 3).contiguous().transpose(2, 3)
    assert not strided.is_contiguous()
    assert torch.equal(
        augment.augment(strided, y, digits, ALL, generator())[0], augment.augment(x, y, digits, ALL, generator())[0]
    )


def test_a_single_pair() -> None:
    x, y, digits = pairs(1)
    assert augment.augment(x, y, digits, ALL, generator())[0].shape == x.shape


# the user's own


def test_the_users_own_comes_last() -> None:
    seen: list[torch.Tensor] = []

    def brighten(x: torch.Tensor, source: torch.Generator) -> torch.Tensor:
        seen.append(x.clone())
        return (x + 0.1 * torch.rand(x.shape, generator=source)).clamp(max=1)

    x, y, digits = pairs()
    without = augment.augment(x, y, digits, ALL, generator())
    made, y_after, _ = augment.augment(x, y, digits, ALL, generator(), brighten)
    assert torch.equal(seen[0], without[0]) and torch.equal(y_after, without[1])
    assert not torch.equal(made, without[0])
    assert torch.equal(augment.augment(x, y, digits, ALL, generator(), brighten)[0], made)


@pytest.mark.parametrize("wanted", [OFF, ALL])
def test_the_users_own_may_work_in_place(wanted: Augment) -> None:
    x, y, digits = pairs()
    before = x.clone()
    made, _, _ = augment.augment(x, y, digits, wanted, generator(), lambda x, source: x.zero_())
    assert not made.any() and torch.equal(x, before)


@pytest.mark.parametrize(
    ("mine", "complaint"),
    [
        (lambda x, source: None, "must return a tensor, not NoneType"),
        (
            lambda x, source: x[:, :1],
            r"must return pairs like those it gets \(shape \(16, 2, 28, 28\), torch.float32 on ",
        ),
        (lambda x, source: x[:3], r"must return pairs .*, not shape \(3, 2, 28, 28\), torch.float32 on cpu"),
        (lambda x, source: x.double(), "must return pairs .*, not .*torch.float64 on cpu"),
        (lambda x, source: x.to("meta"), "must return pairs .*, not .* on meta"),
        (lambda x: x, "TypeError: .* takes 1 positional argument but 2 were given"),
    ],
)
def test_a_wrong_one_of_the_users_is_named(mine: Callable[..., Any], complaint: str) -> None:
    function = UserFunction("augment.function", "mine:mine", mine)
    with pytest.raises(UserError, match=rf"^augment\.function: mine:mine: {complaint}") as caught:
        augment.augment(*pairs(), OFF, generator(), function)
    assert "\n" not in str(caught.value)
