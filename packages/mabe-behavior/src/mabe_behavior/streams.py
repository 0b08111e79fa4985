"""What a model says of an ordered pair of animals, or of one alone, in a video: probabilities by frame and action.

Shapes: T frames, K actions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.actions import SELF, Behaviour
from mabe_behavior.bouts import Bouts, runs

Floats = NDArray[np.float32]
States = NDArray[np.int8]
UNKNOWN = -1  # nobody looked for the action; 0 and 1: somebody did, and it is absent or there


@dataclass(frozen=True)
class Stream:
    """Probabilities of an agent's actions to one target, at the video's own frame rate."""

    video: str
    lab: str
    agent: str
    target: str  # self: what the agent does alone
    actions: tuple[str, ...]  # (K,)
    p_TK: Floats  # row t is frame t of the video
    fps: float
    y_TK: States | None = None  # 1 there, 0 absent, -1 nobody looked; None: not known at all

    def __post_init__(self) -> None:
        object.__setattr__(self, "p_TK", np.asarray(self.p_TK, np.float32))
        if self.p_TK.ndim != 2 or self.p_TK.shape[1] != len(self.actions):
            raise ValueError(f"{self}: p has shape {self.p_TK.shape}; must be (frames, {len(self.actions)} actions)")
        if len(set(self.actions)) != len(self.actions):
            raise ValueError(f"{self}: actions {', '.join(self.actions)}; each must be there once")
        if self.p_TK.size and not (self.p_TK.min() >= 0 and self.p_TK.max() <= 1):
            raise ValueError(f"{self}: p must lie in [0, 1] everywhere; has NaN or other numbers")
        if not self.fps > 0:
            raise ValueError(f"{self}: fps {self.fps}; must be above 0")
        if self.y_TK is not None:
            object.__setattr__(self, "y_TK", np.asarray(self.y_TK, np.int8))
            if self.y_TK.shape != self.p_TK.shape or not np.isin(self.y_TK, (-1, 0, 1)).all():
                raise ValueError(f"{self}: y must be 1, 0 or -1 and of p's shape {self.p_TK.shape}")

    def __str__(self) -> str:
        return f"video {self.video}, {self.agent} to {self.target}"

    def __len__(self) -> int:
        return len(self.p_TK)

    @property
    def alone(self) -> bool:
        """Whether it is about what an animal does alone."""
        return self.target == SELF

    @property
    def truth_TK(self) -> States:
        """(T, K). Raises ValueError where the truth is not known."""
        if self.y_TK is None:
            raise ValueError(f"{self}: has no truth, y; give streams of annotated videos")
        return self.y_TK

    def said(self, p_TK: Floats) -> Stream:
        """The same with other probabilities."""
        return replace(self, p_TK=p_TK)


def truth(streams: Iterable[Stream]) -> Bouts:
    """The bouts that are there. Raises ValueError for a stream without truth."""
    rows = []
    for stream in streams:
        for k, action in enumerate(stream.actions):
            for start, stop in zip(*runs(stream.truth_TK[:, k] == 1), strict=True):
                rows.append((stream.video, stream.agent, stream.target, action, int(start), int(stop)))
    return Bouts.of(rows)


def labeled(streams: Iterable[Stream]) -> dict[str, tuple[Behaviour, ...]]:
    """What was looked for in each video, in any of its frames. Raises ValueError for a stream without truth."""
    found: dict[str, list[Behaviour]] = {}
    for stream in streams:
        looked_K = (stream.truth_TK != UNKNOWN).any(axis=0)
        actions = (action for action, looked in zip(stream.actions, looked_K.tolist(), strict=True) if looked)
        found.setdefault(stream.video, []).extend(Behaviour(stream.agent, stream.target, action) for action in actions)
    return {video: tuple(behaviours) for video, behaviours in found.items()}


def counted(streams: Iterable[Stream]) -> list[Stream]:
    """Those of videos with a true bout of anybody: `metric.score` drops what is said of the others.

    Raises ValueError for a stream without truth.
    """
    listed = list(streams)
    videos = {stream.video for stream in listed if (stream.truth_TK == 1).any()}
    return [stream for stream in listed if stream.video in videos]
