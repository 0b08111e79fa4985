"""Sets of features by name: what a model sees of an agent and a target, frame by frame.

| name    | columns | what                                                              | is the same when         |
|---------|---------|-------------------------------------------------------------------|--------------------------|
| `raw28` | 28      | x and y of seven parts of agent and target                        | -                        |
| `v4`    | 128     | `raw28`, 16 principal components, statistics over a second        | -                        |
| `v6`    | 288     | four animals by 18 parts: x and y, speed, acceleration            | -                        |
| `alone` | 157     | motion, posture and their course over time, of the agent          | moved, turned, reflected |
| `pair`  | 249     | both animals' motion and posture, and what they are to each other | moved, turned, reflected |

All are in cm and seconds. Recordings of several rates must be brought to a common one first (`Tracks.resampled`): the
windows are in seconds, but how much noise a derivative has depends on the rate.

Shapes: T frames, F columns.
"""

from __future__ import annotations

from mabe_behavior.actions import SELF
from mabe_behavior.features import coordinates, invariants
from mabe_behavior.features.columns import Table
from mabe_behavior.features.pca import PCA
from mabe_behavior.tracks import Tracks

WIDTHS = {"raw28": 28, "v4": 128, "v6": 288, "alone": 157, "pair": 249}
SETS = tuple(WIDTHS)


def features(tracks: Tracks, agent: str, target: str, name: str, pca: PCA | None = None) -> Table:
    """The columns of one set.

    Args:
        tracks: at the rate that models are trained at.
        agent: an animal of the tracks.
        target: another one, or `self`; `alone` looks at the agent only, whatever the target.
        name: one of `SETS`.
        pca: fitted to `raw28` of training recordings; `v4` needs it, the others do not look at it.

    Raises ValueError for an unknown set or animal, `pair` of an animal with itself, and `v4` without a PCA.
    """
    if name not in WIDTHS:
        raise ValueError(f"features: {name!r}; must be one of {', '.join(SETS)}")
    if target == agent:
        raise ValueError(f"target: {target}, as the agent; what an animal does alone has the target {SELF!r}")
    if name == "alone":
        return invariants.alone(tracks, agent)
    if name == "pair":
        if target == SELF:
            raise ValueError("features: pair needs a target; of what an animal does alone, take the set alone")
        return invariants.pair(tracks, agent, target)
    if name == "v4":
        if pca is None:
            raise ValueError("features: v4 needs a PCA that was fitted to raw28 of training recordings")
        return coordinates.v4(tracks, agent, target, pca)
    made = coordinates.raw28 if name == "raw28" else coordinates.v6
    return made(tracks, agent, target)
