"""Sets of picture coordinates as the guide has them that this package follows, with parts found by their names.

`raw28`: x and y of seven parts of agent and target. `v4`: these, their 16 principal components, and mean, standard
deviation and change of each coordinate over a second, 128 in all. `v6`: four animals by 18 parts by x and y, 144, with
72 speeds and 72 accelerations, each of one part; animals and parts that were not tracked are missing.

Coordinates are in cm, not pixels, so that laboratories compare; they still depend on where the arena lies in the
picture and which way it is turned. The sets of `invariants` do not.

Shapes: T frames, A animals, P parts, S of any animal, X is x and y, F columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.actions import SELF
from mabe_behavior.features import chunks, kinematics, rolling, windows
from mabe_behavior.features.columns import Floats, Table
from mabe_behavior.features.landmarks import ORIGIN, place
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


def _names(roles: tuple[str, ...], parts: tuple[str, ...], ends: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{role}.{part}.{end}" for role in roles for part in parts for end in ends)


_XY = _names(ROLES[:2], STD7, ("x", "y"))
NOW = {
    "raw28": _XY,
    "v4": (*_XY, *(f"component_{k + 1}" for k in range(COMPONENTS))),
    "v6": (
        *_names(ROLES, PARTS18, ("x", "y")),
        *_names(ROLES, PARTS18, ("speed",)),
        *_names(ROLES, PARTS18, ("acceleration",)),
    ),
}
OVER_TIME = {"v4": rolling.names(_XY, [SECONDS], TEMPORAL)}


def raw28(tracks: Tracks, agent: str, target: str, threads: int = 1) -> Table:
    """(T, 28); the columns of the target are missing where it is `self`."""

    def made_of(rows: slice) -> list[NDArray]:
        return list(_by_role(tracks, agent, target, ROLES[:2], STD7, rows).reshape(len(_XY), -1))

    return Table(_XY, chunks.made(chunks.Plan(len(_XY)), made_of, len(tracks), threads))


def v4(tracks: Tracks, agent: str, target: str, pca: PCA, threads: int = 1) -> Table:
    """(T, 128), with components of `raw28` by a PCA fitted to training recordings.

    Raises ValueError for a PCA of another number of components.
    """
    if len(pca.variance_K) != COMPONENTS:
        raise ValueError(f"pca: {len(pca.variance_K)} components; the set v4 takes {COMPONENTS}")

    def made_of(rows: slice) -> list[NDArray]:
        raw_FT = _by_role(tracks, agent, target, ROLES[:2], STD7, rows).reshape(len(_XY), -1)
        return [*raw_FT, *pca.transform(raw_FT.T).T]

    course = rolling.Rolling((rolling.odd_frames(SECONDS, tracks.fps),), TEMPORAL, tuple(range(len(_XY))))
    plan = chunks.Plan(len(NOW["v4"]), statistics=[course])
    return Table(NOW["v4"] + OVER_TIME["v4"], chunks.made(plan, made_of, len(tracks), threads))


def v6(tracks: Tracks, agent: str, target: str, threads: int = 1) -> Table:
    """(T, 288); of more than four animals, those beyond agent, target and two others are left out."""

    def made_of(rows: slice) -> list[NDArray]:
        xy_SXT = _by_role(tracks, agent, target, ROLES, PARTS18, rows).reshape(len(ROLES) * len(PARTS18), 2, -1)
        tracked = np.isfinite(xy_SXT[:, 0]).any(axis=1)  # most laboratories have two animals and seven parts
        tracked_TSX = np.moveaxis(xy_SXT[tracked], 2, 0)
        motion_2ST = np.full((2, len(xy_SXT), xy_SXT.shape[2]), np.nan, np.float32)
        motion_2ST[0, tracked] = kinematics.speed(tracked_TSX, tracks.fps).T
        motion_2ST[1, tracked] = kinematics.length(kinematics.acceleration(tracked_TSX, tracks.fps)).T
        return [*xy_SXT.reshape(-1, xy_SXT.shape[2]), *motion_2ST[0], *motion_2ST[1]]

    plan = chunks.Plan(len(NOW["v6"]), reach=kinematics.reach(kinematics.SECONDS, tracks.fps, 2))
    return Table(NOW["v6"], chunks.made(plan, made_of, len(tracks), threads))


def _by_role(
    tracks: Tracks, agent: str, target: str, roles: tuple[str, ...], parts: tuple[str, ...], rows: slice
) -> Floats:
    """(A, P, X, T) in cm: agent, target, and the others in the order of the tracks.

    Raises ValueError for an agent or target that is not in the tracks.
    """
    others = [animal for animal in tracks.animals if animal not in (agent, target)]
    wanted = [agent, target, *others][: len(roles)]
    found = np.full((len(roles), len(parts), 2, len(range(len(tracks))[rows])), np.nan, np.float32)
    for role, animal in enumerate(wanted):
        if animal == SELF:
            continue
        which_B, unit = np.array([place(tracks, animal)]), np.float32(tracks.pixels_per_cm)
        xy_XPT = windows.series(tracks.xy_TAPX[rows], which_B, ORIGIN, unit)[:, :, 0]
        for p, part in enumerate(parts):
            if part in tracks.parts:
                found[role, p] = xy_XPT[:, tracks.parts.index(part)]
    return found
