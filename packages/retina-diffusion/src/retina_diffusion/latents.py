"""Latents: what a VAE makes of photographs, and photographs of latents.

Published VAEs scale their latents to about unit variance before anything learns from them: z = (m - shift) scale with
the mean m of what the encoder says (Rombach et al. 2022, arXiv:2112.10752; the shift since Esser et al. 2024,
arXiv:2403.03206).

Shapes: B images of H x W pixels; C channels of latents, h = H / factor, w = W / factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from retina_diffusion.frozen import Source
from retina_diffusion.model_config import Model
from shared_core import hub
from shared_core.errors import UserError

AT_A_TIME = 4 * 1024**2  # pixels that go through a VAE at once


class Autoencoder:
    """A VAE of `diffusers` that stays as it is, in float32: some overflow in half precision."""

    def __init__(self, network: Any) -> None:
        about = network.config
        self.network = network.eval().requires_grad_(False).float()
        self.channels: int = about.latent_channels
        self.factor: int = 2 ** (len(about.block_out_channels) - 1)
        std = about.get("latents_std") or [1.0]
        shift = about.get("latents_mean") or [about.get("shift_factor") or 0.0]
        self.scale_C11 = about.scaling_factor / torch.tensor(std).view(-1, 1, 1)
        self.shift_C11 = torch.tensor(shift).view(-1, 1, 1)

    @classmethod
    def load(cls, source: Source, model: Model, device: torch.device) -> Autoencoder:
        """The VAE of a configuration. Raises UserError as `Source.load` and `require`."""
        network, found = source.load(hub.autoencoder, output_loading_info=True)
        if missing := sorted(found["missing_keys"]):
            raise UserError(
                f"{source.key}: {source} lacks {missing[0]} and others; choose a repository of an AutoencoderKL"
            )
        made = cls(network)
        require(source, model, made.channels, made.factor)
        return made.to(device)

    def to(self, device: torch.device) -> Autoencoder:
        self.network = self.network.to(device)
        self.scale_C11, self.shift_C11 = self.scale_C11.to(device), self.shift_C11.to(device)
        return self

    @torch.no_grad()
    def encode(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) of images in [-1, 1]: the mean of the distribution that the encoder says.

        Raises ValueError where a side is no multiple of the factor.
        """
        if any(side % self.factor for side in images_B3HW.shape[2:]):
            height, width = images_B3HW.shape[2:]
            raise ValueError(f"images of {height} x {width} pixels: sides must be multiples of {self.factor}")
        return torch.cat([self._encode(part) for part in self._parts(images_B3HW, 1)])

    @torch.no_grad()
    def decode(self, latents_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in [-1, 1]."""
        return torch.cat([self._decode(part) for part in self._parts(latents_BCHW, self.factor)])

    def decode_each(self, latents_BCHW: torch.Tensor, sizes: Sequence[tuple[int, int]]) -> torch.Tensor:
        """As `decode`, of latents that are padded at the right and the bottom: from what is there, padded with -1.

        Args:
            sizes: (h, w) of each.
        """
        if all(size == tuple(latents_BCHW.shape[2:]) for size in sizes):
            return self.decode(latents_BCHW)
        height, width = (side * self.factor for side in latents_BCHW.shape[2:])
        images = latents_BCHW.new_full((len(latents_BCHW), 3, height, width), -1.0, dtype=torch.float32)
        for image, latent, (h, w) in zip(images, latents_BCHW, sizes, strict=True):
            image[:, : h * self.factor, : w * self.factor] = self.decode(latent[None, :, :h, :w])[0]
        return images

    def _encode(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        with torch.autocast(images_B3HW.device.type, enabled=False):
            mean_BCHW = self.network.encode(images_B3HW.float()).latent_dist.mode()
        return (mean_BCHW - self.shift_C11) * self.scale_C11

    def _decode(self, latents_BCHW: torch.Tensor) -> torch.Tensor:
        with torch.autocast(latents_BCHW.device.type, enabled=False):
            found = self.network.decode(latents_BCHW.float() / self.scale_C11 + self.shift_C11)
        return found.sample.clamp(-1, 1)

    def _parts(self, x_BCHW: torch.Tensor, factor: int) -> Sequence[torch.Tensor]:
        height, width = x_BCHW.shape[2:]
        return x_BCHW.split(max(1, AT_A_TIME // (height * width * factor**2)))


def require(source: Source, model: Model, channels: int, factor: int) -> None:
    """Raises UserError where the latents of a VAE are not as the settings say."""
    for name, given, its in (
        ("latent_channels", model.latent_channels, channels),
        ("latent_factor", model.latent_factor, factor),
    ):
        if given != its:
            raise UserError(f"model.{name}: {given}, but that of {source} is {its}; set --model.{name} {its}")
