"""Random changes of training pairs: rotation, translation, resized crop, exchange of the halves, the user's own.

Shapes: B pairs, N halves, H x W pixels (square). Places are in units of half a side, x right and y down, from the
centre of the half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from pair_compare_stacking.training_config import Augment
from shared_core.errors import UserError
from shared_core.userdefined import title


@dataclass(frozen=True)
class Motion:
    """How each of N halves is moved: rotated about its centre, then shifted, then cropped and resized back."""

    angle: torch.Tensor  # (N,) degrees, counter-clockwise
    shift: torch.Tensor  # (2, N) x, y
    side: torch.Tensor  # (N,) side of the crop, as a share of the half's
    centre: torch.Tensor  # (2, N) x, y of the crop
    applies: torch.Tensor  # (N,) bool; the other halves stay as they are


def augment(
    x_B2HW: torch.Tensor,
    y_B: torch.Tensor,
    digits_B2: torch.Tensor | None,
    settings: Augment,
    generator: torch.Generator,
    function: Callable[..., Any] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Changed pairs with their labels and digits: a function of the arguments and the generator's state alone.

    What is given is not changed, and returned itself where no setting is on. The generator may live on the pairs'
    device or on the CPU. `function` is the user's own augmentation, called last.

    Raises UserError where the user's function does not return a tensor like the one it got.
    """
    before = x_B2HW
    if settings.rotation or settings.translate or settings.resized_crop < 1:
        n = 2 * len(x_B2HW)
        x_B2HW = move(x_B2HW.flatten(0, 1), draw(n, settings, generator)).reshape(x_B2HW.shape)
    if settings.swap:
        x_B2HW, y_B, digits_B2 = swap(x_B2HW, y_B, digits_B2, generator)
    if function is not None:
        x_B2HW = own(function, x_B2HW.clone() if x_B2HW is before else x_B2HW, generator)
    return x_B2HW, y_B, digits_B2


def draw(n: int, settings: Augment, generator: torch.Generator) -> Motion:
    """Draw the motions of `n` halves, on the generator's device; the area of the crop is what is drawn uniformly."""
    uniform = torch.rand((7, n), generator=generator, device=generator.device)
    signed = 2 * uniform - 1
    side = torch.sqrt(1 - (1 - settings.resized_crop) * uniform[3])
    return Motion(
        angle=settings.rotation * signed[0],
        shift=2 * settings.translate * signed[1:3],
        side=side,
        centre=(1 - side) * signed[4:6],  # anywhere that keeps the crop inside
        applies=uniform[6] < settings.probability,
    )


def move(x_NHW: torch.Tensor, motion: Motion) -> torch.Tensor:
    """The halves (N, H, W) moved: bilinear, black from outside. A half whose motion is none keeps its exact pixels."""
    parts = {name: part.to(x_NHW.device) for name, part in vars(motion).items()}
    angle, side, (x, y) = torch.deg2rad(parts["angle"]), parts["side"], parts["centre"] - parts["shift"]
    cos, sin = torch.cos(angle), torch.sin(angle)
    # from a place in the result back to the place in the half that it shows
    back = torch.stack(
        [side * cos, -side * sin, cos * x - sin * y, side * sin, side * cos, sin * x + cos * y], dim=1
    ).view(-1, 2, 3)
    grid = functional.affine_grid(back.to(x_NHW.dtype), [len(x_NHW), 1, *x_NHW.shape[1:]], align_corners=False)
    moved = functional.grid_sample(
        x_NHW[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False
    ).squeeze(1)
    moves = (angle != 0) | (side != 1) | (x != 0) | (y != 0)
    return torch.where((moves & parts["applies"])[:, None, None], moved, x_NHW)


def swap(
    x_B2HW: torch.Tensor, y_B: torch.Tensor, digits_B2: torch.Tensor | None, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Exchange the halves of each pair with probability 1/2; label and digits go with them."""
    chosen = (torch.rand(len(x_B2HW), generator=generator, device=generator.device) < 0.5).to(x_B2HW.device)
    digits = None if digits_B2 is None else torch.where(chosen[:, None], digits_B2.flip(1), digits_B2)
    x = torch.where(chosen[:, None, None, None], x_B2HW.flip(1), x_B2HW)
    return x, torch.where(chosen, 1 - y_B, y_B), digits


def own(function: Callable[..., Any], x_B2HW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """``function(x, generator)``; UserError where that is no tensor of the same shape, type and device."""
    wanted = (tuple(x_B2HW.shape), x_B2HW.dtype, x_B2HW.device)
    made = function(x_B2HW, generator)
    if not isinstance(made, torch.Tensor):
        raise UserError(f"{title(function)}: must return a tensor, not {type(made).__name__}")
    found = (tuple(made.shape), made.dtype, made.device)
    if found != wanted:
        shown = [f"shape {shape}, {dtype} on {device}" for shape, dtype, device in (wanted, found)]
        raise UserError(f"{title(function)}: must return pairs like those it gets ({shown[0]}), not {shown[1]}")
    return made
