"""Drawn fundus photographs with masks that match them exactly: what the demo needs nothing from outside for.

Anatomy is drawn from the numbers that ophthalmology gives: an optic disc of 1/7 of the field's width, 2.5 of its
diameters nasal of the macula; vessels that leave it up and down and bend around the macula; lesions whose number grows
with the grade of retinopathy as the international scale has it (Wilkinson et al. 2003, Ophthalmology 110:1677).

Shapes: S x S pixels; M channels of `channels.CHANNELS`.
"""

from __future__ import annotations

import cmath
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from retina_diffusion.channels import CHANNELS

Floats = NDArray[np.float64]
FINE = 3  # drawn so many times larger, then averaged: edges are soft, and masks cover shares of pixels
SHARES = (0.33, 0.05, 0.34, 0.18, 0.10)  # of the grades, as in IDRiD
# lesions by grade: the mean number of each kind
COUNTS = {
    "MA": (0, 4, 14, 28, 24),
    "HE": (0, 0, 5, 14, 16),
    "EX": (0, 0, 16, 26, 20),
    "SE": (0, 0, 0.6, 2.5, 2.5),
}


@dataclass(frozen=True)
class Drawn:
    """One photograph."""

    image: NDArray[np.uint8]  # (S, S, 3)
    masks: NDArray[np.float32]  # (M, S, S) covered shares
    grade: int


def draw(size: int, seed: int, grade: int | None = None) -> Drawn:
    """A photograph of a grade, by default one drawn at IDRiD's frequencies; the same arguments draw the same one."""
    random = np.random.default_rng(seed)
    grade = int(random.choice(5, p=SHARES)) if grade is None else grade
    eye = _Eye(size * FINE, random)
    eye.vessels()
    for kind, counts in COUNTS.items():
        for _ in range(random.poisson(counts[grade])):
            eye.lesion(kind)
    return Drawn(*eye.photograph(size), grade)


class _Eye:
    """A fundus while it is drawn, at the fine size; lengths are in diameters of the optic disc."""

    def __init__(self, side: int, random: np.random.Generator) -> None:
        self.side, self.random = side, random
        self.radius = side * random.uniform(0.46, 0.49)
        self.unit = 2 * self.radius / random.uniform(6.5, 7.5)
        self.eye = int(random.choice((-1, 1)))  # left or right
        middle = side / 2 + random.normal(0, 0.02 * side, 2)
        self.macula = middle + self.unit * np.array([-0.5 * self.eye, 0.1])
        self.disc = self.macula + self.unit * np.array([self.eye * random.uniform(2.3, 2.7), -random.uniform(0.1, 0.4)])
        self.layers = {name: Image.new("L", (side, side)) for name in CHANNELS}
        self.pens = {name: ImageDraw.Draw(layer) for name, layer in self.layers.items()}
        self._ellipse("FOV", np.array([side / 2, side / 2]), self.radius, self.radius)
        self._ellipse("OD", self.disc, self.unit * random.uniform(0.46, 0.54), self.unit * random.uniform(0.48, 0.56))

    def _ellipse(self, name: str, centre: Floats, a: float, b: float) -> None:
        x, y = centre
        self.pens[name].ellipse((x - a, y - b, x + a, y + b), fill=255)

    def vessels(self) -> None:
        """Two arcades and their branches, arteries and veins."""
        disc = complex(*self.disc)
        for up in (-1, 1):
            for width in (0.10, 0.13):  # an artery, and a vein that is wider
                self._vessel(disc, complex(-0.35 * self.eye, up), width, 0, up)
                self._vessel(disc, complex(0.8 * self.eye, up * 0.7), 0.7 * width, 1, up)

    def _vessel(self, place: complex, way: complex, width: float, generation: int, up: int) -> None:
        """A line that bends around the macula, thins out, and sends branches away.

        Places and ways are complex numbers: pairs that turn, and many times as fast as arrays of two.
        """
        macula, middle = complex(*self.macula), complex(self.side / 2, self.side / 2)
        points, bend = [(place.real, place.imag)], self.random.normal(0, 0.02)
        for step in range(60):
            to_macula = macula - place
            distance = abs(to_macula) / self.unit
            # along the arcade: away from the macula when near, around it when far
            turn = (
                bend
                + self.random.normal(0, 0.06)
                - 0.35 * self.eye * up * (generation == 0) * max(0, distance - 1.6) * 0.12
            )
            if distance < 1.0:
                way -= 0.25 * to_macula / abs(to_macula)
            way *= cmath.rect(1, turn)
            way /= abs(way)
            place += 0.12 * self.unit * way
            points.append((place.real, place.imag))
            width *= 0.985
            if generation < 3 and width > 0.03 and self.random.random() < 0.13 and step > 3:
                side = self.random.choice((-1, 1))
                branch = way * cmath.rect(1, side * self.random.uniform(0.5, 1.0))
                self._vessel(place, branch, 0.65 * width, generation + 1, up)
            if width < 0.018 or abs(place - middle) > self.radius:
                break
        self.pens["vessel"].line(points, fill=255, width=max(1, round(width * 1.2 * self.unit)), joint="curve")

    def lesion(self, kind: str) -> None:
        """One somewhere within the field; exudates gather around the macula."""
        spread = 1.0 if kind == "EX" else 2.2
        for _ in range(50):
            centre = self.macula + self.random.normal(0, spread * self.unit, 2)
            inside = np.linalg.norm(centre - self.side / 2) < 0.93 * self.radius
            if inside and np.linalg.norm(centre - self.disc) > 0.8 * self.unit:
                break
        size = {"MA": (0.03, 0.05), "HE": (0.07, 0.22), "EX": (0.04, 0.14), "SE": (0.18, 0.32)}[kind]
        reach = self.unit * self.random.uniform(*size)
        blobs = {"MA": 1, "HE": 5, "EX": 4, "SE": 6}[kind]
        for _ in range(blobs):
            at = centre + self.random.normal(0, 0.5 * reach, 2) * (blobs > 1)
            self._ellipse(kind, at, reach * self.random.uniform(0.5, 1), reach * self.random.uniform(0.5, 1))

    def photograph(self, size: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """What a camera sees, and the covered shares."""
        cover = {name: _pooled(layer, size) for name, layer in self.layers.items()}
        cover = {name: share * cover["FOV"] if name != "FOV" else share for name, share in cover.items()}
        rows, columns = (np.indices((size, size)) + 0.5) * FINE
        lit = 1 - 0.35 * ((columns - self.side / 2 - self.random.normal(0, 0.15) * self.side) ** 2
                          + (rows - self.side / 2) ** 2) / self.radius**2  # fmt: skip
        macula = np.exp(-((columns - self.macula[0]) ** 2 + (rows - self.macula[1]) ** 2) / (0.7 * self.unit) ** 2)
        tint = np.array([0.72, 0.36, 0.14]) * self.random.uniform(0.85, 1.1, 3)
        picture = tint * (lit * (1 - 0.35 * macula))[:, :, None]
        picture = picture * (1 + 0.05 * _clouds(size, self.random)[:, :, None])
        for name, colour, strength in (
            ("OD", (1.0, 0.85, 0.5), 0.85), ("vessel", (0.40, 0.10, 0.05), 0.65), ("SE", (0.95, 0.88, 0.65), 0.6),
            ("EX", (1.0, 0.90, 0.45), 0.9), ("HE", (0.36, 0.06, 0.04), 0.8), ("MA", (0.40, 0.07, 0.04), 0.8),
        ):  # fmt: skip
            share = cover[name]
            if name in ("SE", "OD"):  # without an edge
                share = _blurred(share, size / 150 if name == "OD" else size / 90) * cover["FOV"]
            picture = picture + strength * share[:, :, None] * (
                np.array(colour) * np.clip(lit, 0.4, 1)[:, :, None] - picture
            )
        picture = picture * cover["FOV"][:, :, None] + self.random.normal(0, 0.012, picture.shape)
        masks = np.stack([cover[name] for name in CHANNELS]).astype(np.float32)
        return (255 * np.clip(picture, 0, 1)).round().astype(np.uint8), masks


def _pooled(layer: Image.Image, size: int) -> Floats:
    return np.asarray(layer, np.float64).reshape(size, FINE, size, FINE).mean(axis=(1, 3)) / 255


def _blurred(share: Floats, radius: float) -> Floats:
    image = Image.fromarray((255 * share).round().astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(image, np.float64) / 255


def _clouds(size: int, random: np.random.Generator) -> Floats:
    """Smooth noise of about unit variance."""
    found = np.zeros((size, size))
    for cells in (4, 9, 20):
        coarse = Image.fromarray(random.normal(0, 1, (cells, cells)).astype(np.float32))
        found += np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
    return found / 3
