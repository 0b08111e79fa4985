"""What a forward pass changes although its step is skipped."""

import torch
from torch import nn


class BufferGuard:
    """Takes back what a step that is not finite did to a model's running statistics, without asking the device."""

    def __init__(self, model: nn.Module) -> None:
        self.buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self.saved = [buffer.clone() for buffer in self.buffers]

    @torch.no_grad()
    def remember(self) -> None:
        """Before the forward pass."""
        if self.buffers:
            torch._foreach_copy_(self.saved, self.buffers)

    @torch.no_grad()
    def undo(self, bad: torch.Tensor) -> None:
        """After it; `bad` () is 1 where the step is skipped."""
        for buffer, saved in zip(self.buffers, self.saved, strict=True):
            buffer.copy_(torch.where(bad > 0, saved, buffer))
