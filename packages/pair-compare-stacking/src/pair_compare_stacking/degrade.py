"""The benchmark's degradation of digits, for whole batches on any device, and an endless supply of fresh pairs.

`generator.degrade` draws one image at a time with Python's random numbers and Pillow; `degrade` here draws from the
same distribution for N images at once, step by step with Pillow's rounding, so that a model can be trained on pairs
that never repeat. Shapes: N images, H rows, W columns, K rectangles.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from pair_compare_stacking import degrade_tables as tables
from pair_compare_stacking.generator import CANVAS, MAX_SEVERITY, SIDE
from shared_core.errors import UserError

CPU_CHUNK = 192  # images worked on at a time on a CPU, so that they stay in its cache
ROW = (1 << SIDE) - 1  # the 28 bits of a row of pixels


@dataclass(frozen=True)
class Parameters:
    """What is drawn for each of N images, apart from the noise. Lines and rectangles are None where there are none."""

    size: torch.Tensor  # (N,) int64, side of the resized digit
    angle: torch.Tensor  # (N,) degrees, counter-clockwise
    left: torch.Tensor  # (N,) first column of the crop, 0..8
    top: torch.Tensor  # (N,) first row of the crop, 0..8
    contrast: torch.Tensor  # (N,)
    brightness: torch.Tensor  # (N,)
    line: torch.Tensor | None  # (N, 5) int64: x0, y0, x1, y1, width; width 0 means no line
    boxes: torch.Tensor | None  # (N, K, 4) int64: x, y, w, h; the pixels x..x+w and y..y+h are black

    def to(self, device: torch.device) -> "Parameters":
        """The same on another device."""
        return self._map(lambda x: x.to(device))

    def __getitem__(self, part: slice) -> "Parameters":
        """Those of some of the images."""
        return self._map(lambda x: x[part])

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Parameters":
        changed: dict[str, Any] = {name: None if x is None else change(x) for name, x in vars(self).items()}
        return Parameters(**changed)


def _integer(uniform: torch.Tensor, low: int, high: int | torch.Tensor) -> torch.Tensor:
    """Uniform numbers in [0, 1) -> integers low..high inclusive."""
    return (uniform * (high - low + 1)).long() + low


def draw_parameters(n: int, severity: int, generator: torch.Generator) -> Parameters:
    """Draw the parameters of `n` degradations, on the generator's device.

    Raises UserError for a severity outside 0..6.
    """
    if not 0 <= severity <= MAX_SEVERITY:
        raise UserError(f"severity {severity}: must be 0 to {MAX_SEVERITY}")
    s, k = severity, severity // 2
    uniform = torch.rand((12 + 4 * k, n), generator=generator, device=generator.device)
    scale, angle, contrast, brightness = s * (2 * uniform[:4] - 1)
    reach = min(8, 2 * s)
    left, top = _integer(uniform[4:6], -reach, reach).add_(4).clamp_(0, CANVAS - SIDE)
    line = boxes = None
    if s >= 3:
        width = _integer(uniform[6], 1, max(1, s // 2)) * (uniform[7] < 0.35 + 0.05 * s)
        line = torch.cat([_integer(uniform[8:12], 0, SIDE - 1), width[None]]).T
    if k > 0:
        sides = _integer(uniform[12 : 12 + 2 * k], 2, 2 + 3 * s)
        corners = _integer(uniform[12 + 2 * k :], 0, SIDE - sides)
        boxes = torch.stack([corners, sides]).view(2, 2, k, n).permute(3, 2, 0, 1).reshape(n, k, 4)
    return Parameters(
        size=(SIDE * (1 + 0.05 * scale)).round_().long().clamp_(tables.SMALLEST, tables.LARGEST),
        angle=6 * angle,
        left=left,
        top=top,
        contrast=1 + 0.05 * contrast,
        brightness=1 + 0.05 * brightness,
        line=line,
        boxes=boxes,
    )


def resize(x_NHW: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """Resize (N, 28, 28) to `size` (N,) pixels, centred on a black canvas: (N, 36, 36). Columns first, as in Pillow."""
    matrices = tables.canvas_matrices(x_NHW.device)[size - tables.SMALLEST]
    wide = torch.bmm(x_NHW, matrices.transpose(1, 2)).round_()
    return torch.bmm(matrices, wide).round_()


def rotate_and_crop(x_NHW: torch.Tensor, angle: torch.Tensor, left: torch.Tensor, top: torch.Tensor) -> torch.Tensor:
    """Rotate the canvases (N, 36, 36) about their centres and cut out 28x28 windows at (left, top)."""
    half = CANVAS / 2
    cos, sin = torch.cos(torch.deg2rad(angle)) / half, torch.sin(torch.deg2rad(angle)) / half
    x, y = left + (0.5 - half), top + (0.5 - half)  # centre of the window's first pixel, from the canvas' centre
    affine = torch.stack([cos, -sin, cos * x - sin * y, sin, cos, sin * x + cos * y], dim=1).view(-1, 3)
    # where_NCHW: the point of the canvas, -1..1 from edge to edge, that each pixel of the window shows; C is x, y
    where_NCHW = (affine @ tables.window_basis(x_NHW.device)).view(-1, 2, SIDE, SIDE)
    window = functional.grid_sample(
        x_NHW[:, None], where_NCHW.permute(0, 2, 3, 1), mode="bilinear", padding_mode="border", align_corners=False
    )[:, 0]
    # Pillow cuts fractions off; the small addend keeps a whole number from falling below itself in float32.
    window.add_(5e-4).floor_()
    # Outside the canvas all is black: the larger distance from the centre is 1 to 1.5 there, below 1 inside.
    horizontal, vertical = where_NCHW.abs_().unbind(1)
    outside = torch.maximum(horizontal, vertical).floor_()
    return window.addcmul_(window, outside, value=-1)


def enhance(x_NHW: torch.Tensor, contrast: torch.Tensor, brightness: torch.Tensor) -> torch.Tensor:
    """Pillow's ImageEnhance.Contrast (about the rounded mean), then Brightness; both cut fractions off. In place."""
    mean = x_NHW.mean(dim=(1, 2), keepdim=True).add_(0.5).floor_()
    x_NHW.sub_(mean).mul_(contrast[:, None, None]).add_(mean).clamp_(0, 255).floor_()
    return x_NHW.mul_(brightness[:, None, None]).clamp_(max=255).floor_()


def blur(x_NHW: torch.Tensor, sigma: float) -> torch.Tensor:
    """Pillow's GaussianBlur: three box blurs along the rows, three along the columns, each rounded to whole greys."""
    matrix = tables.box_blur_matrix(sigma, x_NHW.device)
    for _ in range(3):
        x_NHW = (x_NHW @ matrix.T).round_()
    matrices = matrix.expand(len(x_NHW), SIDE, SIDE)
    for _ in range(3):
        x_NHW = torch.bmm(matrices, x_NHW).round_()
    return x_NHW


def covered_rows(parameters: Parameters) -> torch.Tensor:
    """The black pixels of line and rectangles as int32 (N, 28): bit c of element r is pixel (row r, column c)."""
    device = parameters.size.device
    rows = torch.arange(SIDE, dtype=torch.int32, device=device)
    covered = torch.zeros((len(parameters.size), SIDE), dtype=torch.int32, device=device)
    if parameters.line is not None:
        x0, y0, x1, y1, width = parameters.line[..., None].unbind(1)
        raster = tables.line_rasters(MAX_SEVERITY // 2, device)
        row = rows - y0 + tables.LINE_ORIGIN
        drawn = raster[(width - 1).clamp_(min=0), y1 - y0 + SIDE - 1, x1 - x0 + SIDE - 1, row]
        covered |= ((drawn >> (tables.LINE_ORIGIN - x0)) * (width > 0) & ROW).int()
    if parameters.boxes is not None:
        for box in parameters.boxes.int()[..., None].unbind(1):
            x, y, w, h = box.unbind(1)
            covered |= torch.where((rows >= y) & (rows <= y + h), ((2 << w) - 1) << x & ROW, 0)
    return covered


def distort(images: torch.Tensor, drawn: Parameters, noise: torch.Tensor, severity: int) -> torch.Tensor:
    """All steps but the black line and boxes, with the given noise (N, 28, 28): whole greys as float32 (N, 28, 28)."""
    x_NHW = rotate_and_crop(resize(images.float(), drawn.size), drawn.angle, drawn.left, drawn.top)
    x_NHW = enhance(x_NHW, drawn.contrast, drawn.brightness).add_(noise).clamp_(0, 255).floor_()
    return blur(x_NHW, 0.2 * severity) if severity >= 3 else x_NHW


def degrade(images: torch.Tensor, severity: int, generator: torch.Generator) -> torch.Tensor:
    """Degrade digits (N, 28, 28), greys 0..255 of any dtype, into new uint8 (N, 28, 28) on the same device.

    The result is a function of the images, the severity and the generator's state alone. The generator may live on
    the images' device or on the CPU. Raises UserError for another shape or a severity outside 0..6.
    """
    if images.ndim != 3 or images.shape[1:] != (SIDE, SIDE):
        raise UserError(f"images of shape {tuple(images.shape)}: the degrader takes (N, {SIDE}, {SIDE})")
    if severity == 0:
        return images.to(torch.uint8, copy=True)
    n, device = len(images), images.device
    drawn = draw_parameters(n, severity, generator).to(device)
    visible = ~covered_rows(drawn)
    bits = 1 << torch.arange(SIDE, dtype=torch.int32, device=device)
    out = torch.empty(images.shape, dtype=torch.uint8, device=device)
    chunk = CPU_CHUNK if device.type == "cpu" else max(n, 1)
    for part in (slice(start, start + chunk) for start in range(0, n, chunk)):
        noise = torch.empty(out[part].shape, device=generator.device).normal_(0, 3 * severity, generator=generator)
        out[part] = distort(images[part], drawn[part], noise.to(device), severity)
        out[part] *= (visible[part, :, None] & bits).bool()
    return out


@dataclass(frozen=True)
class DigitIndex:
    """Where the images of each digit are: digit d's are `order[start[d] : start[d] + count[d]]`."""

    order: torch.Tensor  # (M,) int64, positions of the images, sorted by digit
    start: torch.Tensor  # (10,) int64
    count: torch.Tensor  # (10,) int64

    @classmethod
    def of(cls, labels: torch.Tensor) -> "DigitIndex":
        """Index labels (M,), integers 0..9. Raises UserError for other labels or a digit without an image."""
        labels = labels.long()
        if len(labels) == 0 or int(labels.min()) < 0 or int(labels.max()) > 9:
            raise UserError("digit labels: must be 0 to 9 and not empty; check the label file")
        count = torch.bincount(labels, minlength=10)
        if bool((count == 0).any()):
            raise UserError(f"digit {int(count.argmin())}: no image of it among {len(labels)}; every digit needs one")
        return cls(torch.argsort(labels, stable=True), count.cumsum(0) - count, count)

    def choose(self, digits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One random image of each of the given digits (N,): positions (N,) int64."""
        drawn = torch.randint(2**48, (len(digits),), generator=generator, device=generator.device)
        return self.order[self.start[digits] + drawn.to(digits.device) % self.count[digits]]


def sample_digits(
    n: int, weight_diff1: float, generator: torch.Generator, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw `n` pairs of different digits as the benchmark does: two int64 (N,) tensors, left and right.

    Left is the larger one in half of the pairs, at random. With probability `weight_diff1` the digits are
    neighbours; otherwise the smaller one is uniform below the larger (mirrored where left is the smaller).
    """
    if not 0 <= weight_diff1 <= 1:
        raise UserError(f"weight_diff1 {weight_diff1}: must be a probability, 0 to 1")
    larger_left, near, first, second = torch.rand((4, n), generator=generator, device=generator.device).to(device)
    a = _integer(first, 1, 9)
    b = torch.where(near < weight_diff1, a - 1, _integer(second, 0, a - 1))
    mirrored = larger_left >= 0.5
    return torch.where(mirrored, 9 - a, a), torch.where(mirrored, 9 - b, b)


def sample_pairs_batch(
    images: torch.Tensor,
    index: DigitIndex,
    n: int,
    severity: int,
    weight_diff1: float,
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """Draw `n` fresh pairs from source images (M, 28, 28): a function of the generator's state alone.

    Returns `x` uint8 (n, 28, 56), `y` int64 (n,) with 1 where the left digit is larger, `left_digit`, `right_digit`
    and the source positions `left_source`, `right_source`, int64 (n,), all on the images' device.
    """
    left, right = sample_digits(n, weight_diff1, generator, images.device)
    source = index.choose(torch.cat([left, right]), generator)
    halves = degrade(images[source], severity, generator)
    return {
        "x": torch.cat([halves[:n], halves[n:]], dim=2),
        "y": (left > right).long(),
        "left_digit": left,
        "right_digit": right,
        "left_source": source[:n],
        "right_source": source[n:],
    }
