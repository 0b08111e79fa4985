"""The tower: one half of a pair -> features.

Shapes: B images, C channels, H x W pixels, D features.
"""

import torch
from torch import nn
from torch.nn import functional

from pair_compare_stacking.blocks import ATTENTION, BLOCKS


class Tower(nn.Module):
    """A half (B, 1, 28, 28) in 0..1 -> (B, D).

    A stem, then stages of residual blocks, of which every one after the first halves the resolution. The features come
    from average and maximum pooling of the last stage, or of every level of a feature pyramid.

    Args:
        widths: channels per stage.
        layers: residual blocks per stage.
        feat_dim: D.
        block: basic or bottleneck.
        attention: none, se or cbam, after each stage.
        stem_stride: 2: a 5x5 stem that halves the resolution; 1: a 3x3 stem that keeps it.
        pyramid: whether a feature pyramid lies on the stages.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        layers: tuple[int, ...],
        feat_dim: int,
        block: str = "basic",
        attention: str = "none",
        stem_stride: int = 2,
        pyramid: bool = False,
    ) -> None:
        super().__init__()
        kernel = 5 if stem_stride == 2 else 3
        self.stem = nn.Conv2d(1, widths[0], kernel, stem_stride, kernel // 2, bias=False)
        self.stages = nn.ModuleList()
        before = widths[0]
        for stage, (width, depth) in enumerate(zip(widths, layers, strict=True)):
            blocks: list[nn.Module] = []
            for layer in range(depth):
                blocks.append(BLOCKS[block](before, width, 2 if stage > 0 and layer == 0 else 1))
                before = width
            if attention != "none":
                blocks.append(ATTENTION[attention](width))
            self.stages.append(nn.Sequential(*blocks))
        self.pyramid = Pyramid(widths, max(16, widths[-1] // 2)) if pyramid else None
        levels, channels = (len(widths), self.pyramid.channels) if self.pyramid else (1, before)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(levels))
        self.project = nn.Linear(2 * channels * levels, feat_dim)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        # channels last is what CPU and tensor-core kernels work in; of one grey channel that is another view only
        x = self.stem((x_BCHW - 0.1).squeeze(1).unsqueeze(-1).permute(0, 3, 1, 2))
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        levels = self.pyramid(levels) if self.pyramid else levels[-1:]
        pooled = [_pool(functional.relu(norm(level))) for norm, level in zip(self.norms, levels, strict=True)]
        return functional.relu(self.project(torch.cat(pooled, dim=1)))


class Pyramid(nn.Module):
    """Feature pyramid (Lin et al. 2017): a top-down pathway with lateral connections.

    Each level is its stage, through a 1x1 convolution, plus the enlarged level above it; a 3x3 convolution smooths the
    sum. All levels have the same number of channels.
    """

    def __init__(self, widths: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, 1, 1) for _ in widths)

    def forward(self, stages: list[torch.Tensor]) -> list[torch.Tensor]:
        """Stages and levels: from the finest resolution to the coarsest."""
        merged = [lateral(stage) for lateral, stage in zip(self.lateral, stages, strict=True)]
        for level in range(len(merged) - 2, -1, -1):
            above = functional.interpolate(merged[level + 1], size=merged[level].shape[2:], mode="nearest")
            merged[level] = merged[level] + above
        return [smooth(level) for smooth, level in zip(self.smooth, merged, strict=True)]


def _pool(x_BCHW: torch.Tensor) -> torch.Tensor:
    """Average and maximum over the places: (B, 2 C)."""
    return torch.cat([x_BCHW.mean(dim=(2, 3)), x_BCHW.amax(dim=(2, 3))], dim=1)
