"""What is trained: networks that say, for each frame of a window, what an agent does.

What it does to another animal and what it does alone are two questions, with features and actions of their own; each is
a kind, such as `pair` and `alone`, and has a network of its own.

Shapes: M members, B windows, T frames, F features, K outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import nn

from mabe_behavior.convbilstm import ConvBiLSTM
from mabe_behavior.convtransformer import ConvTransformer
from mabe_behavior.tcn import TCN

NETWORKS: dict[str, type[nn.Module]] = {"conv_bilstm": ConvBiLSTM, "tcn": TCN, "conv_transformer": ConvTransformer}
LIMIT = 8.0  # in spreads; a derivative of a point that jumps can be any number
POOLED = 0  # the lab of those that were not trained with

Logits = torch.Tensor | list[torch.Tensor]  # of the only stage, or of each


@dataclass(frozen=True)
class Kind:
    """How many features a kind has, and how many outputs."""

    inputs: int
    outputs: int
    seen: int | None = None  # of the inputs, the first so many are looked at; None: all


class Reader(nn.Module):
    """Features as the networks take them: scaled, without missing values, and with what is known of the lab.

    Args:
        features: F.
        seen: the first so many are looked at; None: all.
        labs: that are known; their numbers are 1 .. `labs`.
        lab_width: learned numbers that stand for a lab in each frame; 0: the lab is not looked at.
        lab_dropout: the share of windows, in training, whose lab is kept from the network, so that it learns what to
            say of labs that it does not know.
        indicators: whether a column is added for each feature, 1 where it is missing.

    Raises ValueError for a negative number of labs or a share outside [0, 1].
    """

    mean_F: torch.Tensor
    spread_F: torch.Tensor
    limit: torch.Tensor

    def __init__(
        self,
        features: int,
        labs: int = 0,
        lab_width: int = 8,
        lab_dropout: float = 0.3,
        indicators: bool = False,
        seen: int | None = None,
    ) -> None:
        super().__init__()
        self.seen = features if seen is None else seen
        if not 1 <= self.seen <= features:
            raise ValueError(f"seen: {seen}; must lie in 1..{features}")
        if labs < 0 or lab_width < 0:
            raise ValueError(f"labs, lab_width: {labs}, {lab_width}; must be 0 or more")
        if not 0 <= lab_dropout <= 1:
            raise ValueError(f"lab_dropout: {lab_dropout}; must be a share, from 0 to 1")
        self.register_buffer("mean_F", torch.zeros(features))
        self.register_buffer("spread_F", torch.ones(features))
        self.register_buffer("limit", torch.tensor(LIMIT))
        self.lab_dropout, self.indicators = lab_dropout, indicators
        self.lab_embedding = nn.Embedding(labs + 1, lab_width) if lab_width else None
        if self.lab_embedding is not None:
            nn.init.zeros_(self.lab_embedding.weight)  # labs are alike until training finds what sets them apart
        self.width = self.seen * (2 if indicators else 1) + lab_width

    def fit(self, mean_F: ArrayLike, spread_F: ArrayLike, limit: float = LIMIT) -> None:
        """Take over what training frames have (`features.scaling.Scaling`).

        Args:
            mean_F: of each feature.
            spread_F: its standard deviation, or 1.
            limit: scaled values are kept within plus and minus this.

        Raises ValueError for another number of features, a spread or limit that is not above 0, and missing values.
        """
        for name, buffer, given in (("mean_F", self.mean_F, mean_F), ("spread_F", self.spread_F, spread_F)):
            values = torch.as_tensor(given, dtype=buffer.dtype)
            if values.shape != buffer.shape:
                raise ValueError(f"{name}: shape {tuple(values.shape)}; must be {tuple(buffer.shape)}, as the features")
            if not values.isfinite().all() or (name == "spread_F" and not (values > 0).all()):
                raise ValueError(f"{name}: must be numbers{', above 0' if name == 'spread_F' else ''}")
            buffer.copy_(values)
        if not limit > 0:
            raise ValueError(f"limit: {limit}; must be above 0")
        self.limit.fill_(limit)

    def forward(self, x_BTF: torch.Tensor, lab_B: torch.Tensor) -> torch.Tensor:
        """(B, T, `width`). `x_BTF`: missing values are NaN or infinite."""
        x_BTF = x_BTF[..., : self.seen]
        seen, mean_F, spread_F = x_BTF.isfinite(), self.mean_F[: self.seen], self.spread_F[: self.seen]
        scaled = ((x_BTF.float() - mean_F) / spread_F).clamp(-self.limit, self.limit)
        parts = [torch.where(seen, scaled, 0.0)]  # 0 is the mean
        if self.indicators:
            parts.append((~seen).to(scaled.dtype))
        if self.lab_embedding is not None:
            known_BL = self.lab_embedding(self._hidden(lab_B))
            parts.append(known_BL[:, None].expand(-1, x_BTF.shape[1], -1))
        return torch.cat(parts, dim=-1)

    def _hidden(self, lab_B: torch.Tensor) -> torch.Tensor:
        """The labs, some of them replaced by the pooled one while training."""
        if not self.training or self.lab_dropout == 0:
            return lab_B
        hide_B = torch.rand(len(lab_B), device=lab_B.device) < self.lab_dropout
        return lab_B.masked_fill(hide_B, POOLED)


class Behaviours(nn.Module):
    """A reader and a network for each kind.

    Args:
        kinds: by name.
        network: one of `NETWORKS`.
        labs: that are known.
        lab_width, lab_dropout, indicators: see `Reader`.
        options: of the network, such as `dropout`.

    Raises ValueError for no kinds and an unknown network.
    """

    def __init__(
        self,
        kinds: Mapping[str, Kind],
        network: str = "tcn",
        labs: int = 0,
        lab_width: int = 8,
        lab_dropout: float = 0.3,
        indicators: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if not kinds:
            raise ValueError("kinds: none; must be at least one, such as pair")
        if network not in NETWORKS:
            raise ValueError(f"network: {network!r}; must be one of {', '.join(NETWORKS)}")
        self.outputs = {name: kind.outputs for name, kind in kinds.items()}
        self.readers = nn.ModuleDict(
            {
                name: Reader(kind.inputs, labs, lab_width, lab_dropout, indicators, kind.seen)
                for name, kind in kinds.items()
            }
        )
        self.networks = nn.ModuleDict(
            {name: NETWORKS[network](self.readers[name].width, kind.outputs, **options) for name, kind in kinds.items()}
        )

    def fit(self, kind: str, mean_F: ArrayLike, spread_F: ArrayLike, limit: float = LIMIT) -> None:
        """How the features of a kind are scaled: `Reader.fit`."""
        self.readers[kind].fit(mean_F, spread_F, limit)  # type: ignore[operator]

    def silent(self, kind: str, x_BTF: torch.Tensor) -> list[torch.Tensor]:
        """What stands for the answer to a batch that is all of its own fold: one window of zeros, which depends on
        every parameter, as several processes need it, and on no window."""
        parameters = [*self.readers[kind].parameters(), *self.networks[kind].parameters()]
        nothing = torch.stack([one.sum() for one in parameters]).sum() * 0
        return [x_BTF.new_zeros(1, x_BTF.shape[1], self.outputs[kind]) + nothing]

    def forward(self, kind: str, x_BTF: torch.Tensor, lab_B: torch.Tensor) -> Logits:
        """Logits (B, T, K); in training, of a network with stages, a list of those of each stage.

        Args:
            kind: one of the model's.
            x_BTF: features as they are, missing ones NaN.
            lab_B: numbers of labs, long; 0 for those that are not known.
        """
        return self.networks[kind](self.readers[kind](x_BTF, lab_B))


class Ensemble(nn.Module):
    """A `Behaviours` for each fold of the training recordings, which learns from the windows outside it."""

    def __init__(self, members: Iterable[Behaviours]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        if not len(self.members):
            raise ValueError("members: none; must be at least one")

    def __len__(self) -> int:
        return len(self.members)

    def spread(self, kind: str) -> torch.Tensor:
        """(F,) the standard deviations that features are scaled by."""
        return self.members[0].readers[kind].spread_F  # type: ignore[union-attr, index, return-value]

    def forward(
        self,
        pair: torch.Tensor | None = None,
        pair_lab: torch.Tensor | None = None,
        pair_fold: torch.Tensor | None = None,
        alone: torch.Tensor | None = None,
        alone_lab: torch.Tensor | None = None,
        alone_fold: torch.Tensor | None = None,
        only: int | None = None,
    ) -> dict[str, torch.Tensor] | list[dict[str, list[torch.Tensor]]]:
        """Logits (M, B, T, K) of each kind, `KIND_logits`; in training, of each member, from the windows outside its
        fold, those of all stages of its networks, of each kind.

        Args:
            pair, alone: (B, T, F) windows, of which missing values are NaN.
            pair_lab, alone_lab: (B,) numbers of their labs, long; 0 for those that are not known.
            pair_fold, alone_fold: (B,) of each window: the member of that number does not learn from it.
            only: ask this member alone, M = 1.
        """
        given = (("pair", pair, pair_lab, pair_fold), ("alone", alone, alone_lab, alone_fold))
        asked = {kind: (x, lab, fold) for kind, x, lab, fold in given if x is not None and lab is not None}
        members = list(self.members) if only is None else [self.members[only]]
        if not self.training:
            return {
                f"{kind}_logits": torch.stack([stages(member(kind, x, lab))[-1] for member in members])
                for kind, (x, lab, _) in asked.items()
            }
        found = []
        for number, member in enumerate(members):
            said = {}
            for kind, (x, lab, fold) in asked.items():
                rows = learned_from(fold, number, len(x))
                said[kind] = stages(member(kind, x[rows], lab[rows])) if len(rows) else member.silent(kind, x)
            found.append(said)
        return found


def learned_from(fold_B: torch.Tensor | None, member: int, count: int) -> torch.Tensor:
    """Numbers of the windows outside a member's fold; without folds, of all."""
    if fold_B is None:
        return torch.arange(count)
    return (fold_B != member).nonzero()[:, 0]


def stages(said: Logits) -> list[torch.Tensor]:
    """What one model said, as a list: its loss is the mean over these."""
    return said if isinstance(said, list) else [said]
