"""A segmenter of photographs, the ruler of mask fidelity: trained on real photographs only, read on generated ones.

A U-Net (Ronneberger et al. 2015, MICCAI) with residual blocks and group norms, so that a batch of generated images is
judged image by image. Small enough that one core trains it in about a minute at 64 px.

Shapes: N images, B of a batch, M mask channels, C features, H x W pixels, F pooled features. Images (N, 3, H, W) in
[-1, 1]; masks (N, M, H, W), the covered share of each pixel; `known_NM`: whether the channel was looked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from retina_diffusion import fidelity

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
        self.up = nn.ModuleList(Block(a + b, a) for a, b in zip(widths[:-1], widths[1:], strict=True))
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
        return torch.cat([torch.cat([x.mean(dim=(2, 3)), x.std(dim=(2, 3))], dim=1) for x in deepest])


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
    steps: int = 400,
    batch: int = 16,
    lr: float = 3e-3,
    val: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None,
    opts: dict | None = None,
) -> Segmenter:
    o = dict(binary=False, dice=1.0, pw=0.0, transpose=True, ema=0.0, wd=0.01, color=0.1, focal=0.0)
    o.update(opts or {})
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Segmenter(masks.shape[1], max(2, 1 + round(math.log2(min(images.shape[2:]) / COARSEST))))
    model.to(images.device, memory_format=torch.channels_last)
    target = fidelity.truth(masks).float() if o["binary"] else masks
    w = known.float()
    share = (target.mean(dim=(2, 3)) * w).sum(0) / w.sum(0).clamp(min=1)
    share = share.clamp(1e-4, 0.5)
    with torch.no_grad():
        model.out.weight.mul_(0.1)
        model.out.bias.copy_(torch.logit(share))
    pos = share ** -o["pw"]
    opt = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=o["wd"])
    sched = torch.optim.lr_scheduler.LambdaLR(
        opt, lambda s: min(1, (s + 1) / 20) * (0.5 + 0.5 * math.cos(math.pi * s / steps))
    )
    model.train()
    order = torch.empty(0, dtype=torch.long)
    ema = None
    for step in range(steps):
        while len(order) < batch:
            order = torch.cat([order, torch.randperm(len(images), generator=draw)])
        rows, order = order[:batch].to(images.device), order[batch:]
        x, t = images[rows], target[rows]
        x, t = _augmented(x, t, draw, o)
        logits = model(x)
        k = w[rows][:, :, None, None]
        p = logits.sigmoid()
        bce = F.binary_cross_entropy_with_logits(logits, t, pos_weight=pos[:, None, None], reduction="none")
        if o["focal"]:
            bce = bce * (p.detach() - t).abs() ** o["focal"]
        per = k.sum((0, 2, 3)) * x.shape[2] * x.shape[3]
        bce = (bce * k).sum((0, 2, 3)) / per.clamp(min=1) / (-(share * share.log() + (1 - share) * (1 - share).log()))
        inter, total = (p * t * k).sum((0, 2, 3)), ((p * p + t * t) * k).sum((0, 2, 3))
        dice = 1 - (2 * inter + 1) / (total + 1)
        there = per > 0
        loss = (bce + o["dice"] * dice)[there].mean()
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        sched.step()
        if o["ema"]:
            with torch.no_grad():
                d = min(o["ema"], (step + 1) / (step + 10))
                if ema is None:
                    ema = [p.clone() for p in model.parameters()]
                for e, q in zip(ema, model.parameters()):
                    e.lerp_(q, 1 - d)
    if ema is not None:
        with torch.no_grad():
            for e, q in zip(ema, model.parameters()):
                q.copy_(e)
    return model.eval()


def _augmented(x, t, draw, o):
    B = len(x)
    coin = torch.rand(3, B, generator=draw) < 0.5
    for axes, c in zip(([2], [3]), coin):
        c = c.to(x.device)[:, None, None, None]
        x, t = torch.where(c, x.flip(axes), x), torch.where(c, t.flip(axes), t)
    if o["transpose"] and x.shape[2] == x.shape[3]:
        c = coin[2].to(x.device)[:, None, None, None]
        x, t = torch.where(c, x.transpose(2, 3), x), torch.where(c, t.transpose(2, 3), t)
    s = o["color"]
    gain = torch.exp(s * torch.randn(B, 1, 1, 1, generator=draw) + s * torch.randn(B, 3, 1, 1, generator=draw)).to(x)
    x = (x + 1) * gain - 1
    return x, t


def _around(image_BCHW: torch.Tensor) -> torch.Tensor:
    """The mean of a square around each pixel, an eighth of the photograph wide."""
    reach = max(1, min(image_BCHW.shape[2:]) // 16)
    return F.avg_pool2d(F.pad(image_BCHW, (reach,) * 4, mode="replicate"), 2 * reach + 1, stride=1)
