"""What a tower is made of: residual blocks, and attention over channels and places.

Shapes: B images, C channels, H x W pixels.
"""

import torch
from torch import nn
from torch.nn import functional


class Residual(nn.Module):
    """Pre-activation residual block (He et al. 2016, "Identity mappings"): norm, ReLU, convolution, for each of these.

    The shortcut is a 1x1 convolution where the shape changes. Subclasses say which convolutions.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, convolutions: list[nn.Conv2d]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(convolution.in_channels) for convolution in convolutions)
        self.convolutions = nn.ModuleList(convolutions)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, bias=False)
        self.stride = stride

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        activated = functional.relu(self.norms[0](x_BCHW))
        if isinstance(self.shortcut, nn.Identity):
            shortcut = x_BCHW
        else:
            # Subsampling first is what a 1x1 convolution with a stride computes, whose gradient overwrites foreign
            # memory on CPUs for channels-last inputs narrower than a vector register (oneDNN, issue 6035).
            shortcut = self.shortcut(activated[:, :, :: self.stride, :: self.stride])
        x = self.convolutions[0](activated)
        for i in range(1, len(self.convolutions)):
            x = self.convolutions[i](functional.relu(self.norms[i](x)))
        return shortcut + x


class BasicBlock(Residual):
    """Two 3x3 convolutions; the first one strides."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        convolutions = [
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        ]
        super().__init__(inputs, outputs, stride, convolutions)


class Bottleneck(Residual):
    """1x1 to a quarter of the channels, 3x3 (strides), 1x1 back."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        inner = max(1, outputs // 4)
        convolutions = [
            nn.Conv2d(inputs, inner, 1, bias=False),
            nn.Conv2d(inner, inner, 3, stride, 1, bias=False),
            nn.Conv2d(inner, outputs, 1, bias=False),
        ]
        super().__init__(inputs, outputs, stride, convolutions)


class SqueezeExcitation(nn.Module):
    """Channels scaled by what the whole image shows (Hu et al. 2018)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.mlp = _mlp(channels, reduction)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        scale_BC = torch.sigmoid(self.mlp(x_BCHW.mean(dim=(2, 3))))
        return x_BCHW * scale_BC[:, :, None, None]


class CBAM(nn.Module):
    """Channels scaled by averages and maxima of the image, then places by those of the channels (Woo et al. 2018)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.mlp = _mlp(channels, reduction)
        self.places = nn.Conv2d(2, 1, 7, 1, 3, bias=False)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        scale_BC = torch.sigmoid(self.mlp(x_BCHW.mean(dim=(2, 3))) + self.mlp(x_BCHW.amax(dim=(2, 3))))
        x_BCHW = x_BCHW * scale_BC[:, :, None, None]
        described_B2HW = torch.cat([x_BCHW.mean(dim=1, keepdim=True), x_BCHW.amax(dim=1, keepdim=True)], dim=1)
        return x_BCHW * torch.sigmoid(self.places(described_B2HW))


def _mlp(channels: int, reduction: int) -> nn.Sequential:
    inner = max(4, channels // reduction)
    return nn.Sequential(nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels))


BLOCKS: dict[str, type[BasicBlock | Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}
ATTENTION: dict[str, type[nn.Module]] = {"se": SqueezeExcitation, "cbam": CBAM}
