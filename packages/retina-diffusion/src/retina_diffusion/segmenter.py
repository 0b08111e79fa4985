"""A segmenter of photographs, the ruler of mask fidelity: trained on real photographs only, read on generated ones.

A U-Net (Ronneberger et al. 2015, MICCAI) with residual blocks and group norms, so that a batch of generated images is
judged image by image. Small enough that one core trains it in about a minute at 64 px.

Shapes: N images, B of a batch, M mask channels, C features, H x W pixels, F pooled features. Images (N, 3, H, W) in
[-1, 1]; masks (N, M, H, W), the covered share of each pixel; `known_NM`: whether the channel was looked for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping

import torch
from torch import nn
from torch.nn import functional as F

from retina_diffusion import augment, fidelity
from retina_diffusion.descent import descend
from shared_core.seeds import seeded

WIDTHS = (16, 32, 64, 64)  # features by level; deeper levels have as many as the last
GROUPS = 8  # of the norms
COARSEST = 8  # pixels of the deepest level, about: there the network sees the whole photograph


class Segmenter(nn.Module):
    """Photographs to the probability that each pixel belongs to each class, as `fidelity.truth` has it.

    Its state dict is all there is to save: `Segmenter.of` builds the same one from it.
    """

    thresholds: torch.Tensor  # (M,) from which probability on a pixel is taken for the class

    def __init__(self, classes: int, levels: int = len(WIDTHS)) -> None:
        """Raises ValueError for fewer than two levels."""
        super().__init__()
        if levels < 2:
            raise ValueError(f"levels: {levels}; a U-Net has two at least")
        widths = [WIDTHS[min(level, len(WIDTHS) - 1)] for level in range(levels)]
        before = [2 * 3, *widths[:-1]]
        self.down = nn.ModuleList(Block(a, b) for a, b in zip(before, widths, strict=True))
        self.up = nn.ModuleList(Block(a + b, a) for a, b in itertools.pairwise(widths))
        self.out = nn.Conv2d(widths[0], classes, 1)
        self.register_buffer("thresholds", torch.full((classes,), 0.5))

    @classmethod
    def of(cls, state: Mapping[str, torch.Tensor]) -> Segmenter:
        """The segmenter of a state dict. Raises ValueError for the state of something else."""
        levels = len({name.split(".")[1] for name in state if name.startswith("down.")})
        if "out.bias" not in state or levels < 2:
            raise ValueError("state: is not that of a Segmenter; give what its state_dict() returned")
        made = cls(len(state["out.bias"]), levels)
        made.load_state_dict(dict(state))
        return made.eval()

    @torch.no_grad()
    def start_at(self, share_M: torch.Tensor) -> None:
        """Let every pixel have about the share of each class, before anything is learnt."""
        self.out.weight.mul_(0.1)
        nn.init.zeros_(self.out.bias).add_(torch.logit(share_M).to(self.out.bias))

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        """Logits (B, M, H, W)."""
        x, (height, width) = self._padded(image_BCHW), image_BCHW.shape[2:]
        skips = self._descend(x)
        x = skips.pop()
        for block, skip in zip(reversed(self.up), reversed(skips), strict=True):
            x = block(torch.cat([skip, F.interpolate(x, scale_factor=2, mode="nearest")], dim=1))
        return self.out(x)[:, :, :height, :width]

    def _padded(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        """With local contrast as three more channels, and sides that can be halved at every level."""
        step = 2 ** len(self.up)
        bottom, right = (-side % step for side in image_BCHW.shape[2:])
        image = torch.cat([image_BCHW, 4 * (image_BCHW - _around(image_BCHW))], dim=1)
        return F.pad(image, (0, right, 0, bottom), mode="replicate").contiguous(memory_format=torch.channels_last)

    def _descend(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Features of every level, the finest first."""
        found = []
        for level, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if level else x)
            found.append(x)
        return found

    @torch.no_grad()
    def probabilities(self, images: torch.Tensor, batch: int = 32) -> torch.Tensor:
        """(N, M, H, W), the mean over the four reflections of each photograph."""
        self.eval()
        found = []
        for part in images.split(batch):
            turned = [self(part.flip(axes)).float().sigmoid().flip(axes) for axes in ([], [2], [3], [2, 3])]
            found.append(sum(turned) / len(turned))
        return torch.cat(found)

    @torch.no_grad()
    def features(self, images: torch.Tensor, batch: int = 32) -> torch.Tensor:
        """The deepest level, its mean and spread over the photograph: (N, F = 2 C)."""
        self.eval()
        deepest = [self._descend(self._padded(part))[-1].float() for part in images.split(batch)]
        return torch.cat([torch.cat([x.mean(dim=(2, 3)), x.std(dim=(2, 3), correction=0)], dim=1) for x in deepest])


class Block(nn.Module):
    """Two convolutions with norms, beside a shortcut."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(before, after, 1, bias=False)
        self.norm1, self.norm2 = (nn.GroupNorm(GROUPS, after) for _ in range(2))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        inner = F.silu(self.norm1(self.conv1(x_BCHW)))
        return F.silu(self.norm2(self.conv2(inner)) + self.shortcut(x_BCHW))


def fit(
    images: torch.Tensor,
    masks: torch.Tensor,
    known: torch.Tensor,
    seed: int,
    steps: int = 600,
    batch: int = 8,
    lr: float = 3e-3,
    val: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None,
) -> Segmenter:
    """A segmenter of real photographs, on their device.

    Args:
        known: (N, M); a channel counts in a photograph only where it is True.
        val: photographs, masks and `known` that thresholds are chosen on. Without them the training photographs serve,
            which the network knows too well: Dice then suffers a little, average precision knows no thresholds.

    Raises:
        ValueError: shapes that do not belong together, or no channel that is known anywhere.
    """
    if len(masks) != len(images) or known.shape != masks.shape[:2] or masks.shape[2:] != images.shape[2:]:
        shapes = f"images {tuple(images.shape)}, masks {tuple(masks.shape)}, known {tuple(known.shape)}"
        raise ValueError(f"{shapes}: must be (N, 3, H, W), (N, M, H, W), (N, M)")
    if not known.any():
        raise ValueError("known: no channel of any photograph; a segmenter needs masks to learn from")
    objective = _Objective(masks, known)
    with seeded(seed):
        model = Segmenter(masks.shape[1], _levels(images))
    model.start_at(objective.share_M)
    model.to(images.device)
    draw = torch.Generator().manual_seed(seed)
    order = _rows(len(images), batch, draw)

    def loss() -> torch.Tensor:
        rows = next(order).to(images.device)
        image, mask = augment.reflected((images[rows], masks[rows]), draw)
        return objective(model(augment.light(image, draw)), mask, known[rows])

    descend(model, loss, steps, lr, weight_decay=0.01)
    chosen_on = val or (images, masks, known)
    model.thresholds.copy_(fidelity.thresholds(model.probabilities(chosen_on[0]), *chosen_on[1:]))
    return model


class _Objective:
    """What training lessens: cross-entropy and soft Dice (Milletari et al. 2016, 3DV) of the covered shares.

    Classes are as rare as one pixel in five hundred. So the cross-entropy of each is divided by what a constant
    prediction of its share would score, and Dice is taken over the whole batch, where it seldom lacks the class.
    """

    def __init__(self, masks: torch.Tensor, known: torch.Tensor) -> None:
        weight_NM = known.float()
        share_M = (masks.mean(dim=(2, 3)) * weight_NM).sum(dim=0) / weight_NM.sum(dim=0).clamp(min=1)
        self.share_M = share_M.clamp(1e-4, 0.5)
        self._constant_M = -torch.xlogy(self.share_M, self.share_M) - torch.xlogy(1 - self.share_M, 1 - self.share_M)

    def __call__(self, logits: torch.Tensor, mask: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        weight = known.float()[:, :, None, None].expand_as(mask)
        pixels_M = weight.sum(dim=(0, 2, 3))
        entropy = F.binary_cross_entropy_with_logits(logits, mask, weight, reduction="none").sum(dim=(0, 2, 3))
        found = logits.sigmoid()
        hit, all_of_it = ((weight * part).sum(dim=(0, 2, 3)) for part in (found * mask, found**2 + mask**2))
        dice_M = (2 * hit + 1) / (all_of_it + 1)
        loss_M = entropy / pixels_M.clamp(min=1) / self._constant_M + 1 - dice_M
        return (loss_M * (pixels_M > 0)).sum() / (pixels_M > 0).sum().clamp(min=1)


def _levels(images: torch.Tensor) -> int:
    return max(2, 1 + round(math.log2(min(images.shape[2:]) / COARSEST)))


def _rows(count: int, batch: int, draw: torch.Generator) -> Iterator[torch.Tensor]:
    """Rows of batches without end: every photograph once before any comes again."""
    order = torch.empty(0, dtype=torch.long)
    while True:
        while len(order) < batch:
            order = torch.cat([order, torch.randperm(count, generator=draw)])
        yield order[:batch]
        order = order[batch:]


def _around(image_BCHW: torch.Tensor) -> torch.Tensor:
    """The mean of a square around each pixel, an eighth of the photograph wide."""
    reach = max(1, min(image_BCHW.shape[2:]) // 16)
    return F.avg_pool2d(F.pad(image_BCHW, (reach,) * 4, mode="replicate"), 2 * reach + 1, stride=1)
