"""What a laboratory's camera and tracker make of the positions: pixels, noise, points and frames that are missing.

Shapes: T frames, A animals, P parts, X = x and y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.signal import lfilter

from mabe_behavior.simulation.arenas import Arena
from mabe_behavior.simulation.motion import RATE
from mabe_behavior.tracks import Tracks

Floats = NDArray[np.float64]
RIM = 3.0  # cm of picture around the arena
CLOSE = 2.5  # cm between the parts of two mice that hide each other


@dataclass(frozen=True)
class Filming:
    """How well a laboratory tracks."""

    fps: float
    pixels_per_cm: float
    parts: tuple[str, ...]
    noise: float = 0.08  # cm: standard deviation of each point, anew in each frame,
    bias: float = 0.10  # and of an error that stays for half a second
    wild: float = 0.001  # share of points that are found somewhere else, up to 5 cm away
    lost: float = 0.02  # share of points not found, for a fifth of a second on average
    hidden: float = 0.1  # share of points not found among those close to another mouse
    dropped: float = 0.0  # share of frames without any point
    sure: bool = False  # whether it says how sure it is

    def __post_init__(self) -> None:
        if not 10 <= self.fps <= 120 or not self.pixels_per_cm > 0:
            raise ValueError(f"fps {self.fps}, pixels_per_cm {self.pixels_per_cm}; must be 10 to 120, and above 0")
        for name in ("wild", "lost", "hidden", "dropped"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}; must be a share, 0 to below 1")

    def instants(self, seconds: float) -> Floats:
        """(T,) the places of the frames among the instants of a motion."""
        return np.arange(max(1, int(seconds * self.fps + 1e-6)), dtype=np.float64) * (RATE / self.fps)

    def seen(self, cm_NAPX: Floats, seconds: float, arena: Arena, rng: np.random.Generator) -> Tracks:
        """The tracks of a video of the positions (N instants, A, P of `self.parts`, X)."""
        true_TAPX = at(cm_NAPX, self.instants(seconds))
        shape = true_TAPX.shape[:3]
        error = self.noise * rng.standard_normal(true_TAPX.shape) + self.bias * self._slow(true_TAPX.shape, rng)
        wild_TAP = rng.random(shape) < self.wild
        error += np.where(wild_TAP[..., None], rng.uniform(-5, 5, true_TAPX.shape), 0)
        missing_TAP = self._bursts(shape, rng)
        missing_TAP |= _covered(true_TAPX) & (rng.random(shape) < self.hidden)
        missing_TAP |= rng.random((shape[0], 1, 1)) < self.dropped
        width, height = arena.width + 2 * RIM, arena.height + 2 * RIM
        xy = (true_TAPX + error + np.array([width, height]) / 2) * self.pixels_per_cm
        sure = None
        if self.sure:
            sure = np.clip(0.97 - 0.3 * np.abs(error).max(axis=-1) - 0.05 * rng.random(shape), 0.02, 1)
            sure = np.where(missing_TAP, 0, sure).astype(np.float32)
        return Tracks(
            np.where(missing_TAP[..., None], np.nan, xy).astype(np.float32),
            tuple(f"mouse{k + 1}" for k in range(shape[1])),
            self.parts,
            self.fps,
            self.pixels_per_cm,
            sure,
            width * self.pixels_per_cm,
            height * self.pixels_per_cm,
        )

    def _slow(self, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
        """Noise of variance 1 that is forgotten within half a second."""
        keep = np.exp(-1 / (0.5 * self.fps))
        start = rng.standard_normal((1, *shape[1:]))
        fresh = np.sqrt(1 - keep**2) * rng.standard_normal(shape)
        found: Floats = lfilter([1.0], [1, -keep], fresh, axis=0, zi=keep * start)[0]
        return found

    def _bursts(self, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.bool_]:
        """Which points are lost: gaps of exponential length that begin anywhere."""
        frames, points = shape[0], int(np.prod(shape[1:]))
        mean = max(0.2 * self.fps, 1.0)
        count = rng.poisson(self.lost / (1 - self.lost) * frames * points / mean)
        start, column = rng.integers(0, frames, count), rng.integers(0, points, count)
        stop = np.minimum(start + np.ceil(rng.exponential(mean, count)).astype(np.int64), frames)
        change = np.zeros((frames + 1, points), np.int64)
        np.add.at(change, (start, column), 1)
        np.add.at(change, (stop, column), -1)
        return (np.cumsum(change[:-1], axis=0) > 0).reshape(shape)


def at(values_N: Floats, place_T: Floats) -> Floats:
    """(T, ...) values between instants, by a cubic spline: bodies move smoothly."""
    flat = values_N.reshape(len(values_N), -1)
    if np.array_equal(place_T, np.rint(place_T)):
        return values_N[place_T.astype(np.int64)]
    found = np.stack([map_coordinates(column, [place_T], order=3, mode="nearest") for column in flat.T], axis=1)
    return found.reshape(len(place_T), *values_N.shape[1:])


def _covered(true_TAPX: Floats) -> NDArray[np.bool_]:
    """(T, A, P) which points are close to any point of another mouse."""
    animals = true_TAPX.shape[1]
    found = np.zeros(true_TAPX.shape[:3], bool)
    for a in range(animals):
        for b in range(animals):
            if a != b:
                square = ((true_TAPX[:, a, :, None] - true_TAPX[:, b, None]) ** 2).sum(axis=-1)
                found[:, a] |= square.min(axis=-1) < CLOSE**2
    return found
