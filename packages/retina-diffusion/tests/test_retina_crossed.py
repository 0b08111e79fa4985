"""Segmenters that share no photograph with the generator."""

from typing import Any

import pytest
import torch

from retina_diffusion import crossed
from retina_diffusion.channels import CHANNELS
from retina_diffusion.judged import Real

P, EACH, S = 7, 2, 8


class Judge:
    """Sees in everything the photographs that it learned from, each a bit of its answer."""

    def __init__(self, images: torch.Tensor) -> None:
        self.learned = set(numbers(images))

    def eval(self) -> "Judge":
        return self

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.learned & set(numbers(images))
        return torch.tensor(numbers(images), dtype=torch.float32)[:, None, None, None].expand(-1, len(CHANNELS), S, S)


def numbers(images: torch.Tensor) -> list[int]:
    """Which photograph each image is of: its brightness says so."""
    return [round((float(image[0, 0, 0]) + 1) * 127.5) for image in images]


def photographs() -> Real:
    pixels = torch.arange(P, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, S, S).contiguous()
    covered = torch.zeros(P, len(CHANNELS), S, S, dtype=torch.uint8)
    return Real([{} for _ in range(P)], pixels, covered, torch.ones(P, len(CHANNELS), dtype=torch.bool))


def test_nobody_judges_what_it_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[Judge] = []

    def fit(images: torch.Tensor, masks: torch.Tensor, known: torch.Tensor, seed: int, steps: int) -> Any:
        assert len(images) == len(masks) == len(known) and steps == 3
        learned.append(Judge(images))
        return learned[-1]

    monkeypatch.setattr(crossed.segmenter, "fit", fit)
    masked = photographs()
    images = masked.pixels.repeat_interleave(EACH, dim=0)
    of_images, of_real = crossed.seen(masked, images, 0, 3, torch.device("cpu"))
    assert of_images[:, 0, 0, 0].tolist() == [k // EACH for k in range(P * EACH)]
    assert of_real[:, 0, 0, 0].tolist() == list(range(P))
    first, second = (judge.learned for judge in learned)
    assert first | second == set(range(P)) and not first & second and abs(len(first) - len(second)) == 1
