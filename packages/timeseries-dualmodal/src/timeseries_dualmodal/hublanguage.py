"""What reads numbers with a pretrained text model: patches of a series in place of words.

Each prefix of each variable is a sequence of its own: ceil(t / P) patches of P steps, the last of which may be partly
empty, and a token that is read out. It stands behind the last patch, since in a causal text model it could see nothing
in front. What comes after the prefix is not there: zeros in the last patch, and no token beyond it.

Shapes: B series, K prefixes, V variables, T steps, N = B K V sequences, P steps of a patch, L patches, W features of
the text model, D of ours.
"""

from __future__ import annotations

import copy
import inspect

import torch
from torch import nn
from torch.nn import functional as F

from shared_core.errors import UserError
from timeseries_dualmodal.model_config import Language
from timeseries_dualmodal.pretrained import Frozen, Pretrained, freeze_unused


class HubLanguage(nn.Module):
    """A text model of `transformers`, frozen or trained along, between an embedding of patches and a projection.

    Models that take embeddings for words (BERT, GPT-2 and most others), or an encoder that does, as CLIP's; that one
    then sees all patches, as the predecessor's.
    """

    def __init__(self, tower: Pretrained, variables: int, steps: int, wanted: Language) -> None:
        """`steps`: of a whole series. Raises UserError where the model cannot be used like this."""
        super().__init__()
        self.patch = wanted.patch
        patches, width = -(-steps // wanted.patch), tower.network.config.hidden_size  # type: ignore[union-attr]
        self.embed = nn.Sequential(
            nn.Linear(2 * wanted.patch, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(wanted.dropout)
        )
        self.position_LW = nn.Parameter(torch.randn(patches, width) * 0.02)
        self.variable_VW = nn.Parameter(torch.randn(variables, width) * 0.02)
        self.readout_W = nn.Parameter(torch.randn(width) * 0.02)
        self.frozen = Frozen(tower) if wanted.frozen else None
        self.network = None if wanted.frozen else copy.deepcopy(tower.network)
        self.takes_embeddings = "inputs_embeds" in inspect.signature(tower.network.forward).parameters
        self.project = nn.Sequential(nn.Dropout(wanted.dropout), nn.Linear(width, wanted.dim), nn.LayerNorm(wanted.dim))
        self._try(torch.zeros(1, patches + 1, width), tower)

    def forward(self, z_BVT: torch.Tensor, known_BVT: torch.Tensor, length_BK: torch.Tensor) -> torch.Tensor:
        """(B, K, V, D). Values are normalised, 0 where not known."""
        patches_BKVLI = self._patches(z_BVT, known_BVT, length_BK)
        x_BKVLW = self.embed(patches_BKVLI) + self.position_LW + self.variable_VW[:, None]
        x_BKVLW = F.pad(x_BKVLW, (0, 0, 0, 1))
        place_L = torch.arange(x_BKVLW.shape[3], device=z_BVT.device)
        last_BK11 = (-(-length_BK // self.patch))[:, :, None, None]
        readout_BKVLW = (self.readout_W + self.variable_VW)[:, None].expand_as(x_BKVLW)
        x_BKVLW = torch.where((place_L == last_BK11)[..., None], readout_BKVLW, x_BKVLW)
        there_BKVL = (place_L <= last_BK11).expand(x_BKVLW.shape[:4])
        hidden_NLW = self._run(x_BKVLW.flatten(0, 2), there_BKVL.flatten(0, 2))
        last_N = last_BK11[..., 0].expand(x_BKVLW.shape[:3]).flatten()
        rows_N = torch.arange(len(last_N), device=z_BVT.device)
        return self.project(hidden_NLW[rows_N, last_N]).unflatten(0, x_BKVLW.shape[:3])

    def _patches(self, z_BVT: torch.Tensor, known_BVT: torch.Tensor, length_BK: torch.Tensor) -> torch.Tensor:
        """(B, K, V, L, 2 P): values and whether they are known; zeros after the prefix."""
        pairs_B1V2T = torch.stack((z_BVT, known_BVT.to(z_BVT)), dim=2)[:, None]
        steps = z_BVT.shape[2]
        within_BK11T = torch.arange(steps, device=z_BVT.device) < length_BK[:, :, None, None, None]
        pairs_BKV2T = F.pad(torch.where(within_BK11T, pairs_B1V2T, 0.0), (0, -steps % self.patch))
        return pairs_BKV2T.unflatten(-1, (-1, self.patch)).transpose(3, 4).flatten(4)

    def _run(self, x_NLW: torch.Tensor, there_NL: torch.Tensor) -> torch.Tensor:
        """(N, L, W): what the text model makes of tokens, some of which are not there."""
        network = self.network if self.frozen is None else self.frozen.on(x_NLW.device)
        assert network is not None
        if self.takes_embeddings:
            return network(inputs_embeds=x_NLW, attention_mask=there_NL.long()).last_hidden_state
        length = x_NLW.shape[1]
        mask_N1LL = there_NL[:, None, None].expand(-1, -1, length, -1)
        found = network.encoder(inputs_embeds=x_NLW, attention_mask=mask_N1LL)  # type: ignore[operator]
        return network.final_layer_norm(found.last_hidden_state)  # type: ignore[operator]

    def _try(self, x_1LW: torch.Tensor, tower: Pretrained) -> None:
        """Find out whether the text model takes as many tokens, and what of it is used."""
        there_1L = torch.ones(x_1LW.shape[:2], dtype=torch.bool)
        try:
            if self.network is None:
                self._run(x_1LW, there_1L)
            else:
                freeze_unused(self.network, lambda: self._run(x_1LW, there_1L))
                self.network.train()
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"{tower.key}: {tower.name} does not read {x_1LW.shape[1]} patches ({reason}); choose a text model "
                "such as BERT, GPT-2 or CLIP, or a larger --model.language.patch"
            ) from error
