"""Sets of picture coordinates as the guide has them that this package follows, with parts found by their names.

`raw28`: x and y of seven parts of agent and target. `v4`: these, their 16 principal components, and mean, standard
deviation and change of each coordinate over a second, 128 in all. `v6`: four animals by 18 parts by x and y, 144, with
72 speeds and 72 accelerations, each of one part; animals and parts that were not tracked are missing.

Coordinates are in cm, not pixels, so that laboratories compare; they still depend on where the arena lies in the
picture and which way it is turned. The sets of `invariants` do not.

Shapes: T frames, A animals, P parts, X is x and y, F columns.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.actions import SELF
from mabe_behavior.features import kinematics, rolling
from mabe_behavior.features.columns import Floats, Table, joined
from mabe_behavior.features.landmarks import place
from mabe_behavior.features.pca import PCA
from mabe_behavior.parts import STD7
from mabe_behavior.tracks import Tracks

COMPONENTS = 16  # of v4
SECONDS = 1.0  # of v4's temporal statistics
TEMPORAL = ("mean", "std", "change")
ROLES = ("agent", "target", "third", "fourth")
# those of mice seen from above and of MABe22's triplets; the middle of the back and of the tail once
PARTS18 = (
    *("nose", "head", "neck", "body_center", "spine_2", "tail_base", "tail_midpoint", "tail_tip"),
    *(f"{part}_{side}" for part in ("ear", "lateral", "hip", "forepaw", "hindpaw") for side in ("left", "right")),
)


def raw28(tracks: Tracks, agent: str, target: str) -> Table:
    """(T, 28); the columns of the target are missing where it is `self`."""
    cm_TAPX = _by_role(tracks, agent, target, ROLES[:2], STD7)
    return Table(_names(ROLES[:2], STD7, ("x", "y")), _flat(cm_TAPX))


def v4(tracks: Tracks, agent: str, target: str, pca: PCA) -> Table:
    """(T, 128), with components of `raw28` by a PCA fitted to training recordings.

    Raises ValueError for a PCA of another number of components.
    """
    if len(pca.variance_K) != COMPONENTS:
        raise ValueError(f"pca: {len(pca.variance_K)} components; the set v4 takes {COMPONENTS}")
    raw = raw28(tracks, agent, target)
    component_TK = pca.transform(raw.x_TF)
    components = Table(tuple(f"component_{k + 1}" for k in range(COMPONENTS)), component_TK)
    return joined([raw, components, rolling.named(raw, tracks.fps, [SECONDS], TEMPORAL)])


def v6(tracks: Tracks, agent: str, target: str) -> Table:
    """(T, 288); of more than four animals, those beyond agent, target and two others are left out."""
    cm_TAPX = _by_role(tracks, agent, target, ROLES, PARTS18)
    tracked_AP = np.isfinite(cm_TAPX[..., 0]).any(axis=0)  # most laboratories have two animals and seven parts
    tracked_TNX = np.asarray(cm_TAPX[:, tracked_AP], np.float64, order="F")
    speed, change = (np.full(cm_TAPX.shape[:3], np.nan, np.float32) for _ in range(2))
    speed[:, tracked_AP] = kinematics.speed(tracked_TNX, tracks.fps)
    change[:, tracked_AP] = kinematics.length(kinematics.acceleration(tracked_TNX, tracks.fps))
    names = (
        *_names(ROLES, PARTS18, ("x", "y")),
        *_names(ROLES, PARTS18, ("speed",)),
        *_names(ROLES, PARTS18, ("acceleration",)),
    )
    blocks = [_flat(block) for block in (cm_TAPX, speed, change)]
    return Table(names, np.concatenate(blocks, axis=1, dtype=np.float32))


def _by_role(tracks: Tracks, agent: str, target: str, roles: tuple[str, ...], parts: tuple[str, ...]) -> Floats:
    """(T, A, P, 2) in cm: agent, target, and the others in the order of the tracks."""
    others = [animal for animal in tracks.animals if animal not in (agent, target)]
    wanted = [agent, target, *others][: len(roles)]
    found = np.full((len(tracks), len(roles), len(parts), 2), np.nan, np.float32)
    for role, animal in enumerate(wanted):
        if animal == SELF:
            continue
        xy_TPX = tracks.xy_TAPX[:, place(tracks, animal)]
        for p, part in enumerate(parts):
            if part in tracks.parts:
                np.divide(xy_TPX[:, tracks.parts.index(part)], tracks.pixels_per_cm, out=found[:, role, p])
    return found


def _flat(x_TAP: NDArray) -> NDArray:
    """(T, F): a row a frame, also where there are none."""
    return x_TAP.reshape(len(x_TAP), math.prod(x_TAP.shape[1:]))


def _names(roles: tuple[str, ...], parts: tuple[str, ...], ends: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{role}.{part}.{end}" for role in roles for part in parts for end in ends)
