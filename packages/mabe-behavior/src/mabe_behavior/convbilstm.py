"""The Conv1D-BiLSTM of the preset `v4`: convolutions over a few frames, then an LSTM that reads both ways.

Shapes: B windows, T frames, F inputs, C channels, K outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class ConvBiLSTM(nn.Module):
    """Windows (B, T, F) -> logits (B, T, K), one row for each frame: nothing is down-sampled.

    Args:
        inputs: F.
        outputs: K.
        channels: C of each convolution of three frames.
        hidden: features of the LSTM in each direction.
        layers: of the LSTM.
        dropout: after each convolution, between the layers of the LSTM, and after it.

    Raises ValueError for no channels or no layers.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        channels: Sequence[int] = (64, 128, 256),
        hidden: int = 256,
        layers: int = 2,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        if not channels or layers < 1:
            raise ValueError(f"channels, layers: {list(channels)}, {layers}; must be at least one of each")
        widths = (inputs, *channels)
        self.convolutions = nn.Sequential(
            *(_convolution(before, after, dropout) for before, after in zip(widths, channels, strict=False))
        )
        between = dropout if layers > 1 else 0.0  # PyTorch warns of one that has no place
        self.lstm = nn.LSTM(channels[-1], hidden, layers, batch_first=True, dropout=between, bidirectional=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * hidden, outputs)

    def forward(self, x_BTF: torch.Tensor) -> torch.Tensor:
        """(B, T, K)."""
        seen_BTC = self.convolutions(x_BTF.transpose(1, 2)).transpose(1, 2)
        read_BTD, _ = self.lstm(seen_BTC)
        return self.head(self.dropout(read_BTD))


def _convolution(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    """(B, C, T) -> (B, C', T)."""
    return nn.Sequential(
        nn.Conv1d(inputs, outputs, 3, padding=1), nn.BatchNorm1d(outputs), nn.ReLU(), nn.Dropout(dropout)
    )
