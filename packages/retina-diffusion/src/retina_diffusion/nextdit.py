"""NextDiT (Zhuo et al. 2024, "Lumina-Next", NeurIPS) with masks beside the image.

Parameters have the names and shapes of Lumina's checkpoints. New with masks are columns appended to `x_embedder`, and
`unknown_MD`, which says of a mask channel that nobody looked: that is not the same as that nothing is there.

Shapes: B images of C channels, H x W pixels, M mask channels; L tokens; S tokens of a caption; D features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

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
                f"heads: {self.heads} must divide dim {self.dim} into multiples of 4, and kv_heads {self.kv_heads} "
                "must divide heads"
            )
        if self.trained_side is not None and self.trained_side < 2:
            raise ValueError(f"trained_side: {self.trained_side} tokens; must be at least 2")


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
        if shape.masks:
            self.unknown_MD = nn.Parameter(torch.zeros(shape.masks, shape.dim))
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
        self.checkpointing = False
        self.start()

    def gradient_checkpointing_enable(self) -> None:
        """Keep no activations within blocks for the backward pass but compute them again."""
        self.checkpointing = True

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
        known_BM: torch.Tensor | None = None,
        there_BL: torch.Tensor | None = None,
        time: float = 1.0,
    ) -> torch.Tensor:
        """(B, C, H, W).

        Args:
            t_B: times, 0 to 1.
            said_BS: True where a caption has a token; None: everywhere.
            masks_BMHW: coverage, 0 to 1; None: nothing is known of any channel.
            known_BM: True where a channel was looked for, so that its coverage counts; None: everywhere.
            there_BL: True where there is a token, for images padded at the right and the bottom to a common size; no
                image's answer depends on its padding, whose own is 0. None: everywhere.
            time: of the flow, for the positions of images larger than those of training (`rope.angles`).

        Raises ValueError where sides are no multiples of the patch, or channels not those of the shape.
        """
        height, width = x_BCHW.shape[2:]
        rows, columns = height // self.shape.patch, width // self.shape.patch
        x_BLD = self._tokens(x_BCHW, masks_BMHW, known_BM)
        if there_BL is not None:
            x_BLD = torch.where(there_BL[..., None], x_BLD, self.pad_token.to(x_BLD.dtype))
        scale, sharpness = self._beyond(rows, columns, there_BL)
        if sharpness is None:
            time = 1.0  # does not matter, so that torch.compile need not look at it
        head_dim = self.shape.dim // self.shape.heads
        turns = rope.turns(rope.angles(rows, columns, head_dim, scale, time, x_BLD.device))
        condition_BC = self.t_embedder(t_B) + self.cap_embedder(_mean(caption_BSD, said_BS))
        if there_BL is None:  # data-parallel training wants a gradient for every parameter
            condition_BC = condition_BC + 0 * self.pad_token.sum()
        for layer in self.layers:
            given = (x_BLD, turns, caption_BSD, condition_BC, there_BL, said_BS, sharpness)
            if self.checkpointing and torch.is_grad_enabled():
                x_BLD = checkpoint(layer, *given, use_reentrant=False)
            else:
                x_BLD = layer(*given)
        tokens = self.final_layer(x_BLD, condition_BC)
        if there_BL is not None:
            tokens = tokens * there_BL[..., None]
        return patches.to_image(tokens, height, width, self.shape.patch)[:, : self.shape.channels]

    def _tokens(
        self, x_BCHW: torch.Tensor, masks_BMHW: torch.Tensor | None, known_BM: torch.Tensor | None
    ) -> torch.Tensor:
        """(B, L, D) of an image and its masks."""
        shape, (batch, channels, height, width) = self.shape, x_BCHW.shape
        if masks_BMHW is None:
            masks_BMHW = x_BCHW.new_zeros(batch, shape.masks, height, width)
            known_BM = torch.zeros(batch, shape.masks, dtype=torch.bool, device=x_BCHW.device)
        if (channels, masks_BMHW.shape[1]) != (shape.channels, shape.masks):
            raise ValueError(
                f"{channels} channels and {masks_BMHW.shape[1]} masks: must be {shape.channels} of the image and "
                f"{shape.masks} of masks"
            )
        if not shape.masks:
            return self.x_embedder(patches.of_image(x_BCHW, shape.patch))
        if known_BM is None:
            known_BM = torch.ones(batch, shape.masks, dtype=torch.bool, device=x_BCHW.device)
        coverage_BMHW = torch.where(known_BM[..., None, None], masks_BMHW.to(x_BCHW.dtype), 0)
        x_BLD = self.x_embedder(patches.of_image(torch.cat((x_BCHW, coverage_BMHW), dim=1), shape.patch))
        return x_BLD + ((~known_BM).to(self.unknown_MD.dtype) @ self.unknown_MD)[:, None].to(x_BLD.dtype)

    def _beyond(
        self, rows: int, columns: int, there_BL: torch.Tensor | None
    ) -> tuple[float | torch.Tensor, float | torch.Tensor | None]:
        """How much larger an image is than those of training, and how much sharper attention among so many tokens.

        The latter is sqrt(log L / log L of training), which keeps attention's entropy (Jin et al. 2023). Larger is what
        has a token more along each side: with less, rounding made more tokens of an image of the size of training.
        """
        side = self.shape.trained_side
        if side is None or rows * columns < (side + 1) ** 2:
            return 1.0, None
        if there_BL is None:
            return math.sqrt(rows * columns) / side, math.sqrt(math.log(rows * columns) / math.log(side**2))
        tokens_B = there_BL.sum(dim=1).float()
        tokens_B = torch.where(tokens_B < (side + 1) ** 2, side**2, tokens_B)
        return tokens_B.sqrt() / side, (tokens_B.log() / math.log(side**2)).sqrt()[:, None, None, None]


def _mean(caption_BSD: torch.Tensor, said_BS: torch.Tensor | None) -> torch.Tensor:
    """Over the tokens that there are: (B, D)."""
    if said_BS is None:
        return caption_BSD.mean(dim=1)
    weight_BS1 = said_BS[..., None].to(caption_BSD)
    return (caption_BSD * weight_BS1).sum(dim=1) / weight_BS1.sum(dim=1).clamp(min=1)
