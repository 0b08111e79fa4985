"""The loss of flow matching: how wrong the velocity is that follows from what the network says.

Shapes: B images of C channels, H x W pixels or latents; L tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from retina_diffusion import flow, times
from retina_diffusion.model import Condition
from retina_diffusion.model_config import Flow, Model


class Noisy(NamedTuple):
    """Images somewhere on their way from noise."""

    x1_BCHW: torch.Tensor  # the images
    x0_BCHW: torch.Tensor  # the noise
    t_B: torch.Tensor

    @property
    def xt_BCHW(self) -> torch.Tensor:
        return flow.at(self.x0_BCHW, self.x1_BCHW, self.t_B)


def noisy(x1_BCHW: torch.Tensor, wanted: Flow, shift: float) -> Noisy:
    """Images at times as training shows them, drawn from the global random state."""
    batch = len(x1_BCHW)
    t_B = times.uniform(batch) if wanted.times == "uniform" else times.logit_normal(batch, wanted.mean, wanted.std)
    t_B = times.shifted(t_B, shift).to(x1_BCHW.device)
    return Noisy(x1_BCHW, torch.randn_like(x1_BCHW), t_B)


def hidden(asked: Condition, wanted: Flow) -> Condition:
    """The same with the masks of some images hidden, the captions of some, and both of some: each image is one kind."""
    both, masks = wanted.both_dropout, wanted.mask_dropout
    where_B = torch.rand(len(asked.known_BM), device=asked.known_BM.device)
    without_masks = where_B < both + masks
    without_text = (where_B < both) | ((where_B >= both + masks) & (where_B < both + masks + wanted.text_dropout))
    return asked.without_masks(without_masks).without_text(without_text)


def errors(
    model: nn.Module, one: Noisy, asked: Condition, prediction: str, there_BHW: torch.Tensor | None = None
) -> torch.Tensor:
    """(B,) mean squared error of the velocity of each image.

    A network that says x is judged by the velocity towards it (Li and He 2025, arXiv:2511.13720).

    Args:
        there_BHW: where there is an image, for those that are padded.
    """
    xt_BCHW = one.xt_BCHW
    said = model(xt_BCHW, one.t_B, asked)
    if prediction == "x":
        # the same division for what is wanted, so that both ends of the path are alike
        wanted, found = (flow.velocity_of_x(x.float(), xt_BCHW, one.t_B) for x in (one.x1_BCHW, said))
    else:
        wanted, found = flow.velocity(one.x0_BCHW, one.x1_BCHW), said.float()
    square = (found - wanted).square().mean(dim=1)
    if there_BHW is None:
        return square.mean(dim=(1, 2))
    return (square * there_BHW).sum(dim=(1, 2)) / there_BHW.sum(dim=(1, 2))


def velocity(
    said: torch.Tensor, xt_BCHW: torch.Tensor, t_B: torch.Tensor, model: Model, rest: float = flow.REST
) -> torch.Tensor:
    """The velocity that follows from what the network says; `rest` is that of `flow.velocity_of_x`."""
    return flow.velocity_of_x(said.float(), xt_BCHW, t_B, rest) if model.prediction == "x" else said.float()
