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

NETWORKS: dict[str, type[nn.Module]] = {"convbilstm": ConvBiLSTM, "tcn": TCN, "convtransformer": ConvTransformer}
LIMIT = 8.0  # as in `features.scaling`
POOLED = 0  # the lab of those that were not trained with

Logits = torch.Tensor | list[torch.Tensor]  # of the only stage, or of each


@dataclass(frozen=True)
class Kind:
    """How many features a kind has, and how many outputs."""

    inputs: int
    outputs: int


class Reader(nn.Module):
    """Features as the networks take them: scaled, without missing values, and with what is known of the lab.

    Args:
        features: F.
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
        self, features: int, labs: int = 0, lab_width: int = 8, lab_dropout: float = 0.3, indicators: bool = False
    ) -> None:
        super().__init__()
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
        self.width = features * (2 if indicators else 1) + lab_width

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
        seen = x_BTF.isfinite()
        scaled = ((x_BTF.float() - self.mean_F) / self.spread_F).clamp(-self.limit, self.limit)
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
        self.readers = nn.ModuleDict(
            {name: Reader(kind.inputs, labs, lab_width, lab_dropout, indicators) for name, kind in kinds.items()}
        )
        self.networks = nn.ModuleDict(
            {name: NETWORKS[network](self.readers[name].width, kind.outputs, **options) for name, kind in kinds.items()}
        )

    def fit(self, kind: str, mean_F: ArrayLike, spread_F: ArrayLike, limit: float = LIMIT) -> None:
        """How the features of a kind are scaled: `Reader.fit`."""
        self.readers[kind].fit(mean_F, spread_F, limit)  # type: ignore[operator]

    def forward(self, kind: str, x_BTF: torch.Tensor, lab_B: torch.Tensor) -> Logits:
        """Logits (B, T, K); in training, of a network with stages, a list of those of each stage.

        Args:
            kind: one of the model's.
            x_BTF: features as they are, missing ones NaN.
            lab_B: numbers of labs, long; 0 for those that are not known.
        """
        return self.networks[kind](self.readers[kind](x_BTF, lab_B))


class Ensemble(nn.ModuleList):
    """Several `Behaviours` that see the same windows; their initial weights and dropout set them apart."""

    def __init__(self, members: Iterable[Behaviours]) -> None:
        super().__init__(members)
        if not len(self):
            raise ValueError("members: none; must be at least one")

    def fit(self, kind: str, mean_F: ArrayLike, spread_F: ArrayLike, limit: float = LIMIT) -> None:
        """How the features of a kind are scaled, for all members: `Reader.fit`."""
        for member in self:
            member.fit(kind, mean_F, spread_F, limit)  # type: ignore[operator]

    def forward(self, kind: str, x_BTF: torch.Tensor, lab_B: torch.Tensor) -> torch.Tensor | list[Logits]:
        """Logits (M, B, T, K), which the caller averages; in training a list of what each member says."""
        said = [member(kind, x_BTF, lab_B) for member in self]
        return said if self.training else torch.stack(said)


def build(kinds: Mapping[str, Kind], members: int = 1, **settings: Any) -> Ensemble:
    """`members` models of the same settings (see `Behaviours`), each with initial weights of its own."""
    return Ensemble(Behaviours(kinds, **settings) for _ in range(members))


def stages(said: Logits) -> list[torch.Tensor]:
    """What one model said, as a list: its loss is the mean over these."""
    return said if isinstance(said, list) else [said]
