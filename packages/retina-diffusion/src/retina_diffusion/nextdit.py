"""NextDiT (Zhuo et al. 2024, "Lumina-Next", NeurIPS) with masks beside the image.

Parameters have the names and shapes of Lumina's checkpoints; columns for masks are appended to `x_embedder`.

Shapes: B images of C channels, H x W pixels, M mask channels; L tokens; S tokens of a caption; D features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from retina_diffusion import patches, rope
from retina_diffusion.layers import WIDEST, Block, FinalLayer, TimeEmbedding


@dataclass(frozen=True)
class Shape:
    """What a NextDiT is made of."""

    dim: int
    layers: int
    heads: int
    kv_heads: int
    patch: int
    caption_dim: int
    channels: int = 3  # of the image
    masks: int = 0
    learn_sigma: bool = False  # as many channels again come out, and are dropped
    qk_norm: bool = True
    multiple_of: int = 256  # of the hidden layer's width
    bottleneck: int | None = None  # width between pixels and tokens (Li and He 2025)
    trained_side: int | None = None  # tokens along a side that training saw; larger images are scaled to it
    flash: bool = True

    def __post_init__(self) -> None:
        if self.dim % self.heads or self.heads % self.kv_heads or (self.dim // self.heads) % 4:
            raise ValueError(
                f"heads: {self.heads} must divide dim {self.dim} into multiples of 4, and kv_heads {self.kv_heads} must "
                "divide heads"
            )


LUMINA_2B = Shape(2304, 24, 32, 8, patch=2, caption_dim=2048, channels=4, learn_sigma=True)


class NextDiT(nn.Module):
    """A transformer over patches that says, of noisy images at their times, x or velocity."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        pixels = shape.patch**2
        inputs, wide = pixels * (shape.channels + shape.masks), min(shape.dim, WIDEST)
        self.x_embedder = (
            nn.Linear(inputs, shape.dim)
            if shape.bottleneck is None
            else nn.Sequential(nn.Linear(inputs, shape.bottleneck, bias=False), nn.Linear(shape.bottleneck, shape.dim))
        )
        self.pad_token = nn.Parameter(torch.empty(shape.dim))
        self.t_embedder = TimeEmbedding(wide)
        self.cap_embedder = nn.Sequential(nn.LayerNorm(shape.caption_dim), nn.Linear(shape.caption_dim, wide))
        self.layers = nn.ModuleList(
            Block(
                shape.dim,
                shape.heads,
                shape.kv_heads,
                shape.caption_dim,
                shape.multiple_of,
                shape.qk_norm,
                shape.flash,
            )
            for _ in range(shape.layers)
        )
        self.final_layer = FinalLayer(shape.dim, pixels * shape.channels * (2 if shape.learn_sigma else 1))
        self.start()

    @torch.no_grad()
    def start(self) -> None:
        """First weights as published: every block an identity, the output 0."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            if name in ("t_embedder.mlp.0", "t_embedder.mlp.2"):
                nn.init.normal_(module.weight, std=0.02)
            if name.endswith("adaLN_modulation.1") or name in ("cap_embedder.1", "final_layer.linear"):
                nn.init.zeros_(module.weight)
        nn.init.normal_(self.pad_token, std=0.02)

    def forward(
        self,
        x_BCHW: torch.Tensor,
        t_B: torch.Tensor,
        caption_BSD: torch.Tensor,
        said_BS: torch.Tensor | None = None,
        masks_BMHW: torch.Tensor | None = None,
        time: float = 1.0,
    ) -> torch.Tensor:
        """(B, C, H, W).

        Args:
            said_BS: which tokens of the captions there are; None: all.
            masks_BMHW: coverage, 0 to 1.
            time: of the flow, for the positions of images larger than those of training (`rope.angles`).
        """
        shape, (height, width) = self.shape, x_BCHW.shape[2:]
        seen = x_BCHW if masks_BMHW is None else torch.cat((x_BCHW, masks_BMHW.to(x_BCHW)), dim=1)
        if seen.shape[1] != shape.channels + shape.masks:
            raise ValueError(
                f"{seen.shape[1]} channels: must be {shape.channels} of the image and {shape.masks} of masks"
            )
        x_BLD = self.x_embedder(patches.of_image(seen, shape.patch))
        rows, columns = height // shape.patch, width // shape.patch
        scale, factor = self._beyond(rows, columns)
        angles_LD = rope.angles(rows, columns, shape.dim // shape.heads, scale, time).to(x_BLD.device)
        condition_BC = self.t_embedder(t_B) + self.cap_embedder(_mean(caption_BSD, said_BS))
        for layer in self.layers:
            x_BLD = layer(x_BLD, angles_LD, caption_BSD, condition_BC, said_BS=said_BS, scale=factor)
        tokens = self.final_layer(x_BLD, condition_BC)
        return patches.to_image(tokens, height, width, shape.patch)[:, : shape.channels]

    def _beyond(self, rows: int, columns: int) -> tuple[float, float | None]:
        """How much larger an image is than those of training, and the scale of attention among so many tokens."""
        side = self.shape.trained_side
        if side is None or rows * columns <= side**2:
            return 1.0, None
        entropy = math.log(rows * columns) / math.log(side**2)
        return math.sqrt(rows * columns) / side, math.sqrt(entropy / (self.shape.dim // self.shape.heads))


def _mean(caption_BSD: torch.Tensor, said_BS: torch.Tensor | None) -> torch.Tensor:
    """Over the tokens that there are: (B, D)."""
    if said_BS is None:
        return caption_BSD.mean(dim=1)
    weight_BS1 = said_BS[..., None].to(caption_BSD)
    return (caption_BSD * weight_BS1).sum(dim=1) / weight_BS1.sum(dim=1).clamp(min=1)
