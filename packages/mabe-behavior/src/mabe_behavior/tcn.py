"""A multi-stage temporal convolutional network (Farha and Gall 2019, "MS-TCN", arXiv:1903.01945).

A stage looks at ever more distant frames, at full resolution; each later stage sees only the probabilities of the one
before and corrects them, such as bouts that are torn. What differs from the paper: frames are normalised before each
layer (pre-norm, Xiong et al. 2020), GELU instead of ReLU, dilations begin again after the largest, and what a later
stage says is added to the logits of the one before, so that it need not learn first to repeat them.

Shapes: B windows, T frames, F inputs, D features, K outputs.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class TCN(nn.Module):
    """Windows (B, T, F) -> logits (B, T, K); in training a list of those of every stage, which all are to be right.

    Args:
        inputs: F.
        outputs: K.
        width: D.
        depth: layers of a stage.
        stages: 1: nothing is corrected.
        dropout: in each layer, on what it adds.
        largest: dilations are 1, 2, 4, ..., `largest`, 1, 2, ...
        exclusive: whether the outputs are classes of which one holds, so that a stage's probabilities sum to 1.

    Raises ValueError for less than one layer or stage, and a largest dilation that is no power of 2.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int = 128,
        depth: int = 8,
        stages: int = 1,
        dropout: float = 0.2,
        largest: int = 64,
        exclusive: bool = False,
    ) -> None:
        super().__init__()
        if depth < 1 or stages < 1:
            raise ValueError(f"depth, stages: {depth}, {stages}; must be at least 1")
        if largest < 1 or largest & (largest - 1):
            raise ValueError(f"largest: {largest}; must be a power of 2, as dilations double")
        cycle = largest.bit_length()
        self.dilations = [2 ** (layer % cycle) for layer in range(depth)]
        self.stages = nn.ModuleList(
            Stage(outputs if stage else inputs, outputs, width, self.dilations, dropout) for stage in range(stages)
        )
        self.exclusive = exclusive

    @property
    def reach(self) -> int:
        """How many frames before and after a frame its logits depend on."""
        return len(self.stages) * sum(self.dilations)

    def forward(self, x_BTF: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """(B, T, K); in training one for each stage, the last stage's last."""
        said = [self.stages[0](x_BTF)]
        for stage in list(self.stages)[1:]:
            p_BTK = said[-1].softmax(-1) if self.exclusive else said[-1].sigmoid()
            said.append(said[-1] + stage(p_BTK))
        return said if self.training else said[-1]


class Stage(nn.Module):
    """Dilated layers between two that look at one frame at a time."""

    def __init__(self, inputs: int, outputs: int, width: int, dilations: list[int], dropout: float) -> None:
        super().__init__()
        self.stem = nn.Linear(inputs, width)
        self.layers = nn.ModuleList(Layer(width, dilation, dropout) for dilation in dilations)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x_BTF: torch.Tensor) -> torch.Tensor:
        """(B, T, K)."""
        x_BTD = self.stem(x_BTF)
        for layer in self.layers:
            x_BTD = layer(x_BTD)
        return self.head(self.norm(x_BTD))


class Layer(nn.Module):
    """Adds to each frame what it and two others, `dilation` before and after, make of it."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.convolution = DilatedConvolution(width, width, dilation)
        self.mix = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """(B, T, D)."""
        seen_BTD = functional.gelu(self.convolution(self.norm(x_BTD)))
        return x_BTD + self.dropout(self.mix(seen_BTD))


class DilatedConvolution(nn.Linear):
    """A convolution of three frames that lie `dilation` apart, as one matrix product; zeros beyond the window.

    It equals `nn.Conv1d`, but features stay side by side in memory, as norms and linear layers want them. On CPUs a
    training step takes a fifth less time than with a transposition before and after each convolution.
    """

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__(3 * inputs, outputs)
        self.dilation = dilation

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """(B, T, D')."""
        d, frames = self.dilation, x_BTD.shape[1]
        padded = functional.pad(x_BTD, (0, 0, d, d))
        before, after = padded[:, :frames], padded[:, 2 * d :]
        return super().forward(torch.cat((before, x_BTD, after), dim=-1))
