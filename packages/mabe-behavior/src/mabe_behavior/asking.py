"""Streams of probabilities, at each video's own frame rate, out of what networks and trees say at the common one.

Shapes: T frames at the common rate, N frames of the video, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mabe_behavior import vocabulary
from mabe_behavior.actions import Behaviour
from mabe_behavior.recording import Annotations
from mabe_behavior.streams import Stream
from mabe_behavior.vocabulary import Relation, Vocabulary

Floats = NDArray[np.float32]


def at_frames(p_TK: Floats, rate: float, frames: int, fps: float) -> Floats:
    """(N, K) of a video with so many frames: between frames of the common rate linearly."""
    if not len(p_TK):
        return np.zeros((frames, p_TK.shape[1]), np.float32)
    place_N = np.minimum(np.arange(frames) * (rate / fps), len(p_TK) - 1)
    below = np.floor(place_N).astype(np.int64)
    above = np.minimum(below + 1, len(p_TK) - 1)
    share = (place_N - below).astype(np.float32)[:, None]
    found: Floats = p_TK[below] * (1 - share) + p_TK[above] * share
    return np.clip(found, 0, 1)


def stream(
    said: Annotations,
    relation: Relation,
    p_TK: Floats,
    rate: float,
    known: Vocabulary,
    labeled: Sequence[Behaviour],
    judged: bool,
    learned_K: Sequence[bool] | None = None,
) -> Stream:
    """What a model says of a relation, as the actions that are looked for.

    Args:
        p_TK: of the classes, at the common `rate`.
        labeled: what is looked for.
        judged: whether the truth is known and goes along.
        learned_K: which classes the model knows at all; None: all. The others are left out.
    """
    called = known.called(relation, labeled)
    columns = [k for k, name in enumerate(called) if name is not None and (learned_K is None or learned_K[k])]
    actions = tuple(name for k in columns if (name := called[k]) is not None)
    p_NK = at_frames(p_TK[:, columns], rate, said.frames, said.fps)
    y_NK = vocabulary.truth(said, relation, known)[:, columns] if judged else None
    return Stream(said.name, said.lab, *relation, actions, p_NK, said.fps, y_NK)
