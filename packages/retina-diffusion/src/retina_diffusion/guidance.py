"""Classifier-free guidance with two conditions, each with a weight of its own.

Ho and Salimans 2022 (arXiv:2207.12598); Brooks et al. 2023 (CVPR) for two.

Shapes: B images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Guidance:
    """How much text and mask count: v = v_0 + mask (v_m - v_0) + text (v_tm - v_m), v_0 knowing neither.

    Weights of 1 give what the network says of both. Outside of the interval of times they are 1: guidance hurts where
    there is only noise, and does nothing near the end (Kynkaanniemi et al. 2024, NeurIPS).
    """

    mask: float = 1.0
    text: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def weights(self, t: float) -> tuple[float, float]:
        """Of mask and text at a time."""
        return (self.mask, self.text) if self.start <= t <= self.end else (1.0, 1.0)

    def passes(self, t: float) -> tuple[tuple[float, bool, bool], ...]:
        """What must be asked at a time: its factor, and whether it knows mask and text. The factors add up to 1."""
        mask, text = self.weights(t)
        wanted = ((1 - mask, False, False), (mask - text, True, False), (text, True, True))
        return tuple(each for each in wanted if each[0])


def combine(parts: list[tuple[float, torch.Tensor]]) -> torch.Tensor:
    """The sum of factor times velocity."""
    return torch.stack([factor * v_B for factor, v_B in parts]).sum(dim=0)
