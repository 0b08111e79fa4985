"""From noise and a condition to an image.

Shapes: B images of C channels, H x W pixels or latents.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import nn

from retina_diffusion import guidance, objective, solvers, times
from retina_diffusion.guidance import Guidance
from retina_diffusion.model import Condition
from retina_diffusion.model_config import Model, Sampling
from retina_diffusion.solvers import Solved
from shared_core.seeds import derive

LEAST_REST = 1e-4  # the last step ends where the network says, so that no noise is left


@torch.no_grad()
def draw(
    model: nn.Module, noise_BCHW: torch.Tensor, asked: Condition, shape: Model, wanted: Sampling, shift: float
) -> Solved:
    """Follow the network's velocity from noise to images, which are clamped to [-1, 1] in pixel space.

    Args:
        shift: of times, where `wanted` says none.
    """
    weights = Guidance(wanted.mask_guidance, wanted.text_guidance, wanted.guided_from, wanted.guided_to)

    def velocity(x_BCHW: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        passes = weights.passes(float(t))
        many = [_known(asked, masks, text) for _, masks, text in passes]
        t_B = t.to(x_BCHW).expand(len(x_BCHW) * len(passes))
        x_many = x_BCHW.repeat(len(passes), 1, 1, 1)
        said = model(x_many, t_B, _joined(many), float(t))
        found = objective.velocity(said, x_many, t_B, shape, LEAST_REST).chunk(len(passes))
        return guidance.combine([(factor, part) for (factor, _, _), part in zip(passes, found, strict=True)])

    steps = times.steps(wanted.steps, wanted.shift or shift)
    solved = solvers.solve(velocity, noise_BCHW, steps, wanted.method, ends=shape.prediction != "x")
    return solved if shape.space == "latents" else Solved(solved.x_B.clamp(-1, 1), solved.evaluations)


def _known(asked: Condition, masks: bool, text: bool) -> Condition:
    asked = asked if masks else asked.without_masks()
    return asked if text else asked.without_text()


def _joined(many: Sequence[Condition]) -> Condition:
    """Conditions one after the other; what all of them share is that of the first."""
    first = many[0]
    values = {}
    for field in dataclasses.fields(Condition):
        parts = [getattr(one, field.name) for one in many]
        shared = parts[0] is None or field.name in ("silent_SD", "heard_S")
        values[field.name] = parts[0] if shared else torch.cat(parts)
    return first if len(many) == 1 else Condition(**values)


def noise(seed: int, numbers: Sequence[int], size: tuple[int, int, int]) -> torch.Tensor:
    """(B, C, H, W) the noise of numbered images, each a function of the seed and its number alone."""
    made = torch.Generator()
    return torch.stack([torch.randn(size, generator=made.manual_seed(derive(seed, "image", k))) for k in numbers])


def padded_noise(
    seed: int, numbers: Sequence[int], sizes: Sequence[tuple[int, int]], like_BCHW: torch.Tensor
) -> torch.Tensor:
    """(B, C, H, W) the `noise` of images of several sizes (h, w), padded with zeros to that of `like_BCHW`."""
    found = torch.zeros(like_BCHW.shape)
    for k, (number, (height, width)) in enumerate(zip(numbers, sizes, strict=True)):
        found[k, :, :height, :width] = noise(seed, [number], (like_BCHW.shape[1], height, width))[0]
    return found.to(like_BCHW)
