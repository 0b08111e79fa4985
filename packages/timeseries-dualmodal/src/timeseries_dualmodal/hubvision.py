"""What sees pictures with a pretrained network: coloured lines on white, as it knows pictures, then a projection.

Shapes: N prefixes, V variables, H x W pixels, L tokens, C channels, E features of the network, D of ours.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from shared_core.errors import UserError
from timeseries_dualmodal.model_config import Vision
from timeseries_dualmodal.plots import colours, paint
from timeseries_dualmodal.pretrained import Frozen, Pretrained, freeze_unused

AT_A_TIME = 512  # pictures in colour, which take 12 bytes a pixel


@dataclass(frozen=True)
class Pixels:
    """What a network expects of its pictures."""

    mean: tuple[float, float, float]  # of red, green and blue in 0..1, and
    std: tuple[float, float, float]
    size: int | None  # pixels of a side that it was trained with; None: unknown


class HubVision(nn.Module):
    """A vision model of `transformers`, frozen or trained along, and a projection that is trained.

    Its features are its pooled output, or the mean over the tokens of a hidden layer: of the middle ones, which serve
    time series better (TiViT 2025, https://arxiv.org/abs/2506.08641).
    """

    colours_V3: torch.Tensor
    mean_311: torch.Tensor
    std_311: torch.Tensor

    def __init__(self, tower: Pretrained, pixels: Pixels, variables: int, size: int, wanted: Vision) -> None:
        """`size`: pixels of a picture's side. Raises UserError where the network does not take such pictures."""
        super().__init__()
        self.layer, self.name, self.digest = wanted.layer, tower.name, tower.sha256
        self.register_buffer("colours_V3", colours(variables), persistent=False)
        self.register_buffer("mean_311", torch.tensor(pixels.mean)[:, None, None])
        self.register_buffer("std_311", torch.tensor(pixels.std)[:, None, None])
        self.frozen = Frozen(tower) if wanted.frozen else None
        self.network = None if wanted.frozen else copy.deepcopy(tower.network)
        blank = torch.zeros(1, variables, size, size, dtype=torch.uint8)
        self.features = self._try(blank[:, :1], tower, pixels)
        if self.network is not None:
            freeze_unused(self.network, lambda: self.embed(blank[:, :1]))
            self.network.train()
        self.project = nn.Sequential(
            nn.Dropout(wanted.dropout), nn.Linear(self.features, wanted.dim), nn.LayerNorm(wanted.dim)
        )

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """(N, V, D) of coverage uint8 (N, V, H, W), or of what `embed` has made of it (N, V, E)."""
        features_NVE = seen if seen.is_floating_point() else self.embed(seen)
        return self.project(features_NVE.to(self.mean_311.dtype))

    def embed(self, coverage_NVHW: torch.Tensor) -> torch.Tensor:
        """(N, V, E): what the network makes of the pictures."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.network is not None):
            some = max(1, AT_A_TIME // coverage_NVHW.shape[1])
            return torch.cat([self._embed(part_nVHW) for part_nVHW in coverage_NVHW.split(some)])

    def _embed(self, coverage_NVHW: torch.Tensor) -> torch.Tensor:
        rgb_NV3HW = paint(coverage_NVHW, self.colours_V3[: coverage_NVHW.shape[1]])
        pixels_M3HW = ((rgb_NV3HW - self.mean_311) / self.std_311).flatten(0, 1)
        network = self.network if self.frozen is None else self.frozen.on(pixels_M3HW.device)
        assert network is not None
        found = network(pixel_values=pixels_M3HW, output_hidden_states=self.layer is not None)
        if self.layer is not None:
            features_ME = _mean(found.hidden_states[self.layer])
        elif getattr(found, "pooler_output", None) is not None:
            features_ME = found.pooler_output.flatten(1)
        else:
            features_ME = _mean(found.last_hidden_state)
        return features_ME.unflatten(0, coverage_NVHW.shape[:2])

    @torch.no_grad()
    def _try(self, coverage_11HW: torch.Tensor, tower: Pretrained, pixels: Pixels) -> int:
        """How many features the network has for a picture."""
        size = coverage_11HW.shape[-1]
        try:
            return self.embed(coverage_11HW).shape[-1]
        except IndexError:
            raise UserError(
                f"model.vision.layer: {tower.name} has no hidden layer {self.layer}; choose another"
            ) from None
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            if pixels.size not in (None, size):
                raise UserError(
                    f"pictures.size: {tower.name} does not take pictures of {size} pixels; set --pictures.size "
                    f"{pixels.size}"
                ) from error
            reason = str(error).partition("\n")[0]
            raise UserError(f"{tower.key}: {tower.name} sees no pictures ({reason}); choose a vision model") from error


def _mean(hidden: torch.Tensor) -> torch.Tensor:
    """(N, E): over tokens (N, L, E), or over places (N, C, H, W)."""
    return hidden.mean(dim=1) if hidden.ndim == 3 else hidden.mean(dim=(2, 3))
