"""Several networks as one: each learns by itself from the same batches, and their probabilities are averaged.

Their errors differ because their first weights do (Lakshminarayanan et al. 2017, NeurIPS).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from timeseries_dualmodal.model import Answer, DualModel, Scale


class Members(nn.Module):
    """The mean of what several networks answer; in training, the answer of each."""

    def __init__(self, members: Sequence[DualModel]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def scales(self) -> list[Scale]:
        """Of each member; all are fitted to the same series."""
        return [member.scale for member in self.members]

    def forward(
        self, x_BVT: torch.Tensor, length_BK: torch.Tensor, seen: torch.Tensor | None = None
    ) -> Answer | list[Answer]:
        """As `DualModel.forward`; in training a list, since each member has a loss of its own."""
        found = [member(x_BVT, length_BK, seen) for member in self.members]
        if self.training:
            return found
        log_p_MBKC = torch.stack([answer.logits_BKC.float().log_softmax(dim=-1) for answer in found])
        return Answer(log_p_MBKC.logsumexp(dim=0) - torch.tensor(float(len(found))).log())
