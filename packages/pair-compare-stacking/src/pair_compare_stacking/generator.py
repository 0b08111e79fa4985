"""Degraded digit pairs, bit for bit as the course made them.

A pair is two 28x28 grey digits side by side; ``y = 1`` iff the left digit is larger than the right one, and
the two are never equal. Every random number comes from one `random.Random` (and one `numpy.random.RandomState`
seeded from it per digit), so the *order of the draws* below is part of the format: from MNIST, with the
course's seeds, the pixels are identical to the course's files.

Shapes: N pairs, 28x28 pixels per half, 28x56 per pair.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from shared_core.errors import UserError

SIDE = 28  # pixels per side of a half
CANVAS = 36  # the digit is scaled, rotated and shifted on a larger canvas before the crop
MARGIN = (CANVAS - SIDE) // 2
MAX_SEVERITY = 6
DIGITS = 10


@dataclass(frozen=True)
class Pairs:
    """Pairs and the truth behind them, in file order."""

    x: np.ndarray  # uint8 (N, 28, 56): left half, right half
    y: np.ndarray  # int8 (N,): 1 iff left > right
    digits: np.ndarray  # int8 (N, 2): true digit of the left and right half
    sources: np.ndarray  # int32 (N, 2): row of the source image of each half

    def __len__(self) -> int:
        return len(self.y)


def sample_pairs(
    images: np.ndarray,
    labels: np.ndarray,
    n: int,
    seed: int,
    weight_diff1: float,
    severity: int,
    advance: Callable[[int], None] | None = None,
) -> Pairs:
    """Draw `n` pairs (the first ``n // 2`` of them with y = 1) and shuffle them.

    `images` is uint8 (M, 28, 28), `labels` (M,) holds digits 0..9. With probability `weight_diff1` the two
    digits are neighbours. `advance` is called with 1 after every pair (a progress bar).

    Raises UserError where a digit has no image, or a setting is out of its range.
    """
    if not 0 <= severity <= MAX_SEVERITY:
        raise UserError(f"severity {severity} is out of range: choose 0 to {MAX_SEVERITY}")
    if not 0 <= weight_diff1 <= 1:
        raise UserError(f"weight_diff1 {weight_diff1} is out of range: choose a probability, 0 to 1")
    rows = _rows_by_digit(images, labels)
    rng = random.Random(seed)
    halves: list[tuple[np.ndarray, np.ndarray]] = []
    truth: list[tuple[int, int, int, int, int]] = []
    for k in range(n):
        y = 1 if k < n // 2 else 0
        left, right = draw_digits(y, weight_diff1, rng)
        i, j = rng.choice(rows[left]), rng.choice(rows[right])
        halves.append((degrade(images[i], severity, rng), degrade(images[j], severity, rng)))
        truth.append((y, left, right, i, j))
        if advance is not None:
            advance(1)
    order = list(range(n))
    rng.shuffle(order)
    x = np.empty((n, SIDE, 2 * SIDE), np.uint8)
    for k, source in enumerate(order):
        x[k, :, :SIDE], x[k, :, SIDE:] = halves[source]
    facts = np.array(truth, np.int64).reshape(n, 5)[order]
    return Pairs(x, facts[:, 0].astype(np.int8), facts[:, 1:3].astype(np.int8), facts[:, 3:].astype(np.int32))


def draw_digits(y: int, weight_diff1: float, rng: random.Random) -> tuple[int, int]:
    """Digits (left, right) with left > right iff `y`; neighbours with probability `weight_diff1`.

    Otherwise they are as far apart as chance has it, which is often 1 again: at .8, 86 % are neighbours.
    """
    neighbours = rng.random() < weight_diff1
    if y == 1:
        left = rng.randint(1, 9)
        return left, left - 1 if neighbours else rng.randint(0, left - 1)
    left = rng.randint(0, 8)
    return left, left + 1 if neighbours else rng.randint(left + 1, 9)


def digit_prior(weight_diff1: float) -> np.ndarray:
    """The exact joint distribution of (left, right) that `draw_digits` samples, both labels equally often: (10, 10)."""
    prior = np.zeros((DIGITS, DIGITS))
    for left in range(1, DIGITS):
        prior[left, left - 1] += weight_diff1 / 9
        prior[left, :left] += (1 - weight_diff1) / 9 / left
    for left in range(DIGITS - 1):
        prior[left, left + 1] += weight_diff1 / 9
        prior[left, left + 1 :] += (1 - weight_diff1) / 9 / (9 - left)
    return prior / 2


def degrade(image: np.ndarray, severity: int, rng: random.Random) -> np.ndarray:
    """Degrade one digit: uint8 (28, 28) -> uint8 (28, 28). Severity 0 leaves it as it is."""
    picture = _place(Image.fromarray(image), severity, rng)
    if severity > 0:
        contrast = 1 + rng.uniform(-0.15, 0.15) * severity / 3
        brightness = 1 + rng.uniform(-0.15, 0.15) * severity / 3
        picture = ImageEnhance.Contrast(picture).enhance(contrast)
        picture = ImageEnhance.Brightness(picture).enhance(brightness)
    picture = _add_noise(picture, severity, rng)
    if severity >= 3:
        picture = picture.filter(ImageFilter.GaussianBlur(0.2 * severity))
        if rng.random() <= 0.35 + 0.05 * severity:
            _draw_line(picture, severity, rng)
    for _ in range(severity // 2):
        _draw_box(picture, severity, rng)
    return np.asarray(picture, np.uint8)


def _place(digit: Image.Image, severity: int, rng: random.Random) -> Image.Image:
    """Scale, rotate and shift on the larger canvas, then crop to 28x28."""
    scale = 1 + rng.uniform(-0.05 * severity, 0.05 * severity)
    size = min(40, max(16, round(SIDE * scale)))
    canvas = Image.new("L", (CANVAS, CANVAS), 0)
    corner = (CANVAS - size) // 2
    canvas.paste(digit.resize((size, size), Image.Resampling.BILINEAR), (corner, corner))
    angle = rng.uniform(-6 * severity, 6 * severity)
    canvas = canvas.rotate(angle, resample=Image.Resampling.BILINEAR, fillcolor=0)
    reach = min(8, 2 * severity)
    left = min(2 * MARGIN, max(0, MARGIN + rng.randint(-reach, reach)))
    top = min(2 * MARGIN, max(0, MARGIN + rng.randint(-reach, reach)))
    return canvas.crop((left, top, left + SIDE, top + SIDE))


def _add_noise(picture: Image.Image, severity: int, rng: random.Random) -> Image.Image:
    noise = np.random.RandomState(rng.randint(0, 2**31 - 1)).normal(0, 3 * severity, (SIDE, SIDE))
    pixels = np.asarray(picture, np.float32) + noise
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _draw_line(picture: Image.Image, severity: int, rng: random.Random) -> None:
    ends = [rng.randint(0, SIDE - 1) for _ in range(4)]
    width = rng.randint(1, max(1, severity // 2))
    ImageDraw.Draw(picture).line(ends, fill=0, width=width)


def _draw_box(picture: Image.Image, severity: int, rng: random.Random) -> None:
    """A black rectangle of (w + 1) x (h + 1) pixels: PIL includes the far corner."""
    w, h = rng.randint(2, 2 + 3 * severity), rng.randint(2, 2 + 3 * severity)
    x, y = rng.randint(0, max(0, SIDE - w)), rng.randint(0, max(0, SIDE - h))
    ImageDraw.Draw(picture).rectangle([x, y, x + w, y + h], fill=0)


def _rows_by_digit(images: np.ndarray, labels: np.ndarray) -> list[list[int]]:
    """Rows of each digit's images, in file order. Raises UserError for a digit without any."""
    if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE) or len(images) != len(labels):
        raise UserError(
            f"source images must be uint8 (N, {SIDE}, {SIDE}) with one label each: "
            f"got {images.dtype} {images.shape} and {len(labels)} labels"
        )
    rows = [np.flatnonzero(np.asarray(labels) == digit).tolist() for digit in range(DIGITS)]
    missing = [str(digit) for digit in range(DIGITS) if not rows[digit]]
    if missing:
        raise UserError(f"no source image of digit {', '.join(missing)}: pairs need all ten digits")
    return rows
