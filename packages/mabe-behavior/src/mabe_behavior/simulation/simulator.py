"""Recordings of simulated mice, made as real ones are: mice move, a camera films and tracks, a person annotates.

What is annotated follows from the noiseless state by the rules of `rules`; the annotator is off here and there. So the
rules' own labels, scored against the annotator's, say what the best reader of poses could reach: the oracle.

The mice's motion, the camera's errors and the annotator's each have random numbers of their own, drawn from the lab's
name and the seed: another camera films the same mice.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property
from random import Random

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.actions import Behaviour
from mabe_behavior.bouts import Bouts
from mabe_behavior.recording import Recording
from mabe_behavior.simulation.annotators import exact
from mabe_behavior.simulation.bodies import SIZES, positions
from mabe_behavior.simulation.labs import Lab
from mabe_behavior.simulation.motion import Motion, moved
from mabe_behavior.simulation.rules import labels

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    """What really happened in a video."""

    lab: Lab
    seed: int
    seconds: float
    motion: Motion
    size_A: tuple[float, ...]

    @property
    def name(self) -> str:
        return f"{self.lab.name}-{self.seed}"

    @cached_property
    def truth(self) -> dict[Behaviour, Mask]:
        """(T,) in the lab's frames, of each behaviour that it looks for."""
        nearest = np.rint(self.lab.camera.instants(self.seconds)).astype(np.int64)
        found = labels(self.motion, self.lab.rules, self.size_A)
        return {one: found[one][nearest] for one in self.lab.labeled}


def scene(lab: Lab, seed: int, seconds: float) -> Scene:
    """The mice of a video, which its lab and its seed determine.

    Raises ValueError for no time, or a number of mice that the simulator does not have.
    """
    rng = Random(f"{lab.name}/{seed}/motion")
    size_A = tuple(rng.uniform(*SIZES) for _ in range(lab.mice))
    return Scene(lab, seed, seconds, moved(lab.arena, lab.temperament, lab.mice, seconds, rng), size_A)


def simulate(lab: Lab, seed: int, seconds: float) -> Recording:
    """A video as its lab publishes it. Raises ValueError as `scene` does."""
    return recorded(scene(lab, seed, seconds))


def recorded(of: Scene) -> Recording:
    """The recording of what happened; what camera and annotator do wrong follows from the seed, too."""
    lab = of.lab
    cm_NAPX = positions(of.motion, lab.camera.parts, of.size_A)
    tracks = lab.camera.seen(cm_NAPX, of.seconds, lab.arena, _numbers(of, "camera"))
    bouts = lab.annotator.marked(of.name, of.truth, lab.camera.fps, _numbers(of, "annotator"))
    return Recording(of.name, lab.name, tracks, bouts, lab.labeled)


def oracle(lab: Lab, seed: int, seconds: float) -> Bouts:
    """The rules' labels of the same video, exactly: one action at a time of an agent to a target."""
    of = scene(lab, seed, seconds)
    return exact(of.name, of.truth)


def _numbers(of: Scene, what: str) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(f"{of.lab.name}/{what}".encode()), of.seed])
