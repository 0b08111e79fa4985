"""The batched degrader against Pillow: every step alone, the draws, and the whole with the same draws."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from pair_compare_stacking import degrade, generator
from shared_core.errors import UserError

SEEDS = st.integers(0, 2**32 - 1)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def strokes(n: int, seed: int, side: int = 28) -> np.ndarray:
    """Digit-like pictures of any grey, some of which touch the border; every fifth is pure noise."""
    rng = np.random.default_rng(seed)
    pictures = []
    for i in range(n):
        picture = Image.new("L", (side, side), 0)
        ends = rng.integers(0, side, 8).tolist()
        ImageDraw.Draw(picture).line(ends, fill=int(rng.integers(60, 256)), width=int(rng.integers(1, 5)))
        smooth = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.6)))
        pictures.append(rng.integers(0, 256, (side, side)).astype(np.uint8) if i % 5 == 0 else smooth)
    return np.stack(pictures)


def assert_greys(ours: torch.Tensor, pillows: list[np.ndarray] | np.ndarray, share: float) -> None:
    """Equal to Pillow's greys within 1, and different at all in no more than `share` of the pixels."""
    difference = np.abs(ours.numpy().astype(int) - np.asarray(pillows).astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() <= share


# --- each step, with the same parameters


@pytest.mark.parametrize("size", range(16, 41))
def test_resize_equals_pillows_on_the_canvas(size: int) -> None:
    images = strokes(20, size)
    expected = []
    for image in images:
        canvas = Image.new("L", (36, 36), 0)
        corner = (36 - size) // 2
        canvas.paste(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR), (corner, corner))
        expected.append(np.asarray(canvas))
    assert_greys(degrade.resize(torch.tensor(images).float(), torch.full((20,), size)), expected, share=0.002)


# Nearer to 0 most greys stay almost whole, and cutting off their fractions is decided by rounding errors.
ANGLES = st.floats(-45, 45).filter(lambda angle: angle == 0 or abs(angle) > 0.05)


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, angle=ANGLES, left=st.integers(0, 8), top=st.integers(0, 8))
def test_rotate_and_crop_equals_pillows(seed: int, angle: float, left: int, top: int) -> None:
    canvases = strokes(5, seed, side=36)
    expected = [
        np.asarray(Image.fromarray(c).rotate(angle, resample=Image.Resampling.BILINEAR, fillcolor=0))[
            top : top + 28, left : left + 28
        ]
        for c in canvases
    ]
    ours = degrade.rotate_and_crop(
        torch.tensor(canvases).float(), torch.full((5,), angle), torch.full((5,), left), torch.full((5,), top)
    )
    assert_greys(ours, expected, share=0.02)


@settings(max_examples=50, deadline=None)
@given(seed=SEEDS, contrast=st.floats(0.7, 1.3), brightness=st.floats(0.7, 1.3))
def test_enhance_equals_pillows(seed: int, contrast: float, brightness: float) -> None:
    images = strokes(5, seed)
    expected = []
    for image in images:
        picture = ImageEnhance.Contrast(Image.fromarray(image)).enhance(contrast)
        expected.append(np.asarray(ImageEnhance.Brightness(picture).enhance(brightness)))
    ours = degrade.enhance(torch.tensor(images).float(), torch.full((5,), contrast), torch.full((5,), brightness))
    assert_greys(ours, expected, share=0.001)


@pytest.mark.parametrize("severity", [3, 4, 5, 6])
def test_blur_equals_pillows(severity: int) -> None:
    images = strokes(200, severity)
    sigma = 0.2 * severity
    expected = [np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma))) for image in images]
    assert_greys(degrade.blur(torch.tensor(images).float(), sigma), expected, share=1e-4)


def some_parameters(n: int, **given: torch.Tensor) -> degrade.Parameters:
    return degrade.Parameters(
        **{name: torch.zeros(n) for name in ("size", "angle", "left", "top", "contrast", "brightness")},
        **{"line": None, "boxes": None, **given},
    )


def as_pixels(rows: torch.Tensor) -> torch.Tensor:
    return (rows[:, :, None] >> torch.arange(28)) & 1


@pytest.mark.parametrize("width", [1, 2, 3])
def test_lines_equal_pillows(width: int) -> None:
    ends = np.random.default_rng(width).integers(0, 28, (4000, 4))
    ends[:200, 2:] = ends[:200, :2]  # points
    ends[200:400, 2] = ends[200:400, 0]  # vertical lines
    ends[400:600, 3] = ends[400:600, 1]  # horizontal lines
    expected = []
    for line in ends:
        picture = Image.new("L", (28, 28), 0)
        ImageDraw.Draw(picture).line(line.tolist(), fill=1, width=width)
        expected.append(np.asarray(picture))
    lines = torch.tensor(np.column_stack([ends, np.full(len(ends), width)]))
    assert_greys(as_pixels(degrade.covered_rows(some_parameters(len(ends), line=lines))), expected, share=1e-6)


def test_width_zero_is_no_line() -> None:
    lines = torch.tensor([[3, 4, 20, 22, 0]])
    assert not degrade.covered_rows(some_parameters(1, line=lines)).any()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_boxes_equal_pillows(data: st.DataObject) -> None:
    boxes, picture = [], Image.new("L", (28, 28), 0)
    for _ in range(3):
        w, h = data.draw(st.integers(2, 20)), data.draw(st.integers(2, 20))
        x, y = data.draw(st.integers(0, 28 - w)), data.draw(st.integers(0, 28 - h))
        ImageDraw.Draw(picture).rectangle([x, y, x + w, y + h], fill=1)
        boxes.append([x, y, w, h])
    ours = as_pixels(degrade.covered_rows(some_parameters(1, boxes=torch.tensor([boxes]))))
    assert_greys(ours[0], np.asarray(picture), share=0)


# --- the whole, with the same draws


class Recorder:
    """A `random.Random` that remembers what it answered."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.answers: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        def ask(*arguments: float) -> float:
            self.answers.append(getattr(self._rng, name)(*arguments))
            return self.answers[-1]

        return ask


def parameters_of(answers: list[Any], severity: int) -> tuple[degrade.Parameters, torch.Tensor]:
    """What `generator.degrade` drew for one image, as the batched degrader's parameters and noise."""
    scale, angle, right, down = answers[:4]
    contrast, brightness = answers[4:6] if severity > 0 else (0, 0)
    noise_seed, *rest = answers[6:] if severity > 0 else answers[4:]
    line = None
    if severity >= 3:
        drawn, rest = rest[0] <= 0.35 + 0.05 * severity, rest[1:]
        line = torch.tensor([rest[:5] if drawn else [0, 0, 0, 0, 0]])
        rest = rest[5:] if drawn else rest
    boxes = [[x, y, w, h] for w, h, x, y in zip(*[iter(rest)] * 4, strict=True)]
    noise = np.random.RandomState(noise_seed).normal(0, 3 * severity, (28, 28))
    parameters = degrade.Parameters(
        size=torch.tensor([round(28 * (1 + scale))]),
        angle=torch.tensor([angle]),
        left=torch.tensor([min(8, max(0, 4 + right))]),
        top=torch.tensor([min(8, max(0, 4 + down))]),
        contrast=torch.tensor([1 + contrast * severity / 3]),
        brightness=torch.tensor([1 + brightness * severity / 3]),
        line=line,
        boxes=torch.tensor([boxes]) if boxes else None,
    )
    return parameters, torch.tensor(noise, dtype=torch.float32)[None]


@pytest.mark.parametrize("severity", range(7))
def test_same_draws_give_the_same_picture(severity: int) -> None:
    """The steps agree in order, meaning and rounding: replay what the sequential generator drew."""
    images = strokes(60, severity)
    differences = []
    for i, image in enumerate(images):
        rng = Recorder(i)
        expected = generator.degrade(image, severity, rng)  # type: ignore[arg-type]
        parameters, noise = parameters_of(rng.answers, severity)
        ours = degrade.distort(torch.tensor(image)[None], parameters, noise, severity)
        ours *= 1 - as_pixels(degrade.covered_rows(parameters))
        differences.append(np.abs(ours[0].numpy() - expected.astype(int)))
    assert np.max(differences) <= 2  # a grey level lost in rotation can become two through the enhancements
    assert np.mean(np.array(differences) > 0) < 0.002


# --- the draws


def columns(drawn: degrade.Parameters) -> dict[str, torch.Tensor]:
    """Everything drawn, as float64 by name; lines: their share, and those that are there; boxes one by one."""
    found = {name: value.double() for name, value in vars(drawn).items() if value is not None}
    if "line" in found:
        found["lined"] = (found["line"][:, 4] > 0).double()
        found["line"] = found["line"][found["lined"] > 0]
    if "boxes" in found:
        found["boxes"] = found["boxes"].flatten(0, 1)
    return found


@pytest.mark.parametrize("severity", [1, 3, 6])
def test_parameters_follow_the_sequential_generators(severity: int) -> None:
    """Means, spreads and extremes of everything drawn agree between the two generators."""
    blank, drawn = np.zeros((28, 28), np.uint8), []
    for i in range(1500):
        rng = Recorder(i)
        generator.degrade(blank, severity, rng)  # type: ignore[arg-type]
        drawn.append(parameters_of(rng.answers, severity)[0])
    joined = {
        name: None if value is None else torch.cat([vars(one)[name] for one in drawn])
        for name, value in vars(drawn[0]).items()
    }
    theirs = columns(degrade.Parameters(**joined))
    ours = columns(degrade.draw_parameters(60_000, severity, seeded(severity)))
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        mine = ours[name]
        error = expected.std(0) / len(expected) ** 0.5 + 1e-6
        assert torch.all((mine.mean(0) - expected.mean(0)).abs() < 4.5 * error), name
        assert torch.all((mine.std(0) - expected.std(0)).abs() < 4.5 * error), name
        reach = expected.amax(0) - expected.amin(0)
        assert torch.all((mine.amax(0) - expected.amax(0)).abs() <= 0.05 * reach + 1e-6), name
        assert torch.all((mine.amin(0) - expected.amin(0)).abs() <= 0.05 * reach + 1e-6), name


@pytest.mark.parametrize("weight", [0.0, 0.8, 1.0])
def test_digits_follow_the_prior(weight: float) -> None:
    n = 200_000
    left, right = degrade.sample_digits(n, weight, seeded(1))
    counts = torch.bincount(10 * left + right, minlength=100).view(10, 10).double().numpy()
    expected = n * generator.digit_prior(weight)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    chi_square = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    freedom = possible.sum() - 1
    assert chi_square < freedom + 5 * (2 * freedom) ** 0.5


# --- the functions' promises


def test_a_batch_is_a_function_of_the_generators_state() -> None:
    images = torch.tensor(strokes(300, 0))
    before = images.clone()
    first = degrade.degrade(images, 6, seeded(3))
    assert torch.equal(first, degrade.degrade(images, 6, seeded(3)))
    assert torch.equal(first, degrade.degrade(images.float(), 6, seeded(3)))
    assert not torch.equal(first, degrade.degrade(images, 6, seeded(4)))
    assert torch.equal(images, before)
    assert first.dtype == torch.uint8


def test_severity_zero_changes_nothing_and_no_images_are_no_images() -> None:
    images = torch.tensor(strokes(30, 0))
    assert torch.equal(degrade.degrade(images, 0, seeded(0)), images)
    assert degrade.degrade(images[:0], 6, seeded(0)).shape == (0, 28, 28)


def test_pairs_hold_what_their_labels_say() -> None:
    labels = torch.arange(500) % 10
    images = torch.tensor(strokes(500, 2))
    batch = degrade.sample_pairs_batch(images, degrade.DigitIndex.of(labels), 257, 0, 0.8, seeded(5))
    assert batch["x"].shape == (257, 28, 56)
    assert torch.equal(batch["x"][:, :, :28], images[batch["left_source"]])
    assert torch.equal(batch["x"][:, :, 28:], images[batch["right_source"]])
    assert torch.equal(labels[batch["left_source"]], batch["left_digit"])
    assert torch.equal(labels[batch["right_source"]], batch["right_digit"])
    assert torch.equal(batch["y"] == 1, batch["left_digit"] > batch["right_digit"])
    assert not (batch["left_digit"] == batch["right_digit"]).any()


def test_every_image_of_a_digit_is_chosen_equally_often() -> None:
    labels = torch.tensor([7] * 5 + list(range(10)) * 2 + [0])
    chosen = degrade.DigitIndex.of(labels).choose(torch.full((70_000,), 7), seeded(0))
    counts = torch.bincount(chosen, minlength=len(labels))
    assert torch.equal(counts > 0, labels == 7)
    assert (counts[labels == 7] - 10_000).abs().max() < 500


@pytest.mark.parametrize("severity", [-1, 7])
def test_an_unknown_severity_is_refused(severity: int) -> None:
    with pytest.raises(UserError, match="severity"):
        degrade.degrade(torch.zeros(1, 28, 28), severity, seeded(0))


def test_other_shapes_weights_and_labels_are_refused() -> None:
    with pytest.raises(UserError, match=r"\(1, 8, 8\)"):
        degrade.degrade(torch.zeros(1, 8, 8), 6, seeded(0))
    with pytest.raises(UserError, match=r"weight_diff1 1\.5"):
        degrade.sample_digits(5, 1.5, seeded(0))
    with pytest.raises(UserError, match="digit 9"):
        degrade.DigitIndex.of(torch.arange(9))
    with pytest.raises(UserError, match="0 to 9"):
        degrade.DigitIndex.of(torch.arange(11))
