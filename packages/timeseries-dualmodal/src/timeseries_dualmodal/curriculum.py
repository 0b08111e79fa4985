"""How long the prefixes are that training shows.

Shapes: B series, K prefixes of each, T steps.
"""

from __future__ import annotations

import torch

from timeseries_dualmodal.model_config import Curriculum, Stage


def stage_of(curriculum: Curriculum, epoch: int) -> Stage:
    """The stage of an epoch, which are counted from 0."""
    return next(stage for stage in curriculum.stages if stage.until is None or epoch < stage.until)


def shortest(curriculum: Curriculum, steps: int, epochs: int) -> int:
    """Steps of the shortest prefix that so many epochs show."""
    stages = (stage_of(curriculum, epoch) for epoch in range(epochs))
    return min(bounds(stage, steps)[0] for stage in stages)


def bounds(stage: Stage, steps: int) -> tuple[int, int]:
    """Steps of the shortest and the longest prefix: round(ratio x T), at least one."""
    shortest, longest = (max(1, round(ratio * steps)) for ratio in (stage.shortest, stage.longest))
    return shortest, longest


def draw(stage: Stage, steps: int, batch: int, prefixes: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """Lengths (B, K), stratified: each series gets one from each of K equal parts of the range, and within each part
    the series are spread evenly as well. Every length of the range is equally likely."""
    shortest, longest = bounds(stage, steps)
    # place (k, b) of K x B equal parts of [0, 1); in each row the series come in random order
    parts_KB = torch.stack([torch.randperm(batch, generator=generator) for _ in range(prefixes)])
    place_KB = torch.arange(prefixes)[:, None] * batch + parts_KB + torch.rand(prefixes, batch, generator=generator)
    share_BK = place_KB.T / (prefixes * batch)
    return (shortest + (share_BK * (longest - shortest + 1)).long()).clamp(max=longest)
