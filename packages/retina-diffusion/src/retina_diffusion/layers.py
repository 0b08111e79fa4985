"""What NextDiT's blocks are made of (Zhuo et al. 2024, "Lumina-Next"), by the names of Lumina's checkpoints.

Shapes: B images, L tokens, S tokens of a caption or of what is attended to, N heads (K of keys and values), D features,
C features of the condition.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from retina_diffusion import rope

EPS = 1e-5
WAVES = 256  # features of a time before its embedding
WIDEST = 1024  # of the condition


class TimeEmbedding(nn.Module):
    """A time in [0, 1] as features."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(WAVES, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t_B: torch.Tensor) -> torch.Tensor:
        """(B, C)."""
        half = WAVES // 2
        frequency = torch.exp(-math.log(10_000) * torch.arange(half, device=t_B.device, dtype=torch.float32) / half)
        angle = t_B.float()[:, None] * frequency
        return self.mlp(torch.cat((angle.cos(), angle.sin()), dim=-1).to(self.mlp[0].weight.dtype))


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, dim: int, multiple_of: int) -> None:
        super().__init__()
        hidden = -(-int(8 * dim / 3) // multiple_of) * multiple_of
        self.w1, self.w2, self.w3 = (
            nn.Linear(a, b, bias=False) for a, b in ((dim, hidden), (hidden, dim), (dim, hidden))
        )

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        """(B, L, D)."""
        return self.w2(F.silu(self.w1(x_BLD)) * self.w3(x_BLD))


class Attention(nn.Module):
    """Attention of the tokens to each other and, with the same queries, to the caption; the latter through a gate."""

    def __init__(self, dim: int, heads: int, kv_heads: int, caption_dim: int, qk_norm: bool, flash: bool) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim, self.flash = heads, kv_heads, dim // heads, flash
        kv_dim = kv_heads * self.head_dim
        self.wq, self.wo = (nn.Linear(dim, dim, bias=False) for _ in range(2))
        self.wk, self.wv = (nn.Linear(dim, kv_dim, bias=False) for _ in range(2))
        self.wk_y, self.wv_y = (nn.Linear(caption_dim, kv_dim, bias=False) for _ in range(2))
        self.gate = nn.Parameter(torch.zeros(heads))
        # over all heads together, as in the published weights
        self.q_norm = nn.LayerNorm(dim) if qk_norm else nn.Identity()
        self.k_norm, self.ky_norm = (nn.LayerNorm(kv_dim) if qk_norm else nn.Identity() for _ in range(2))

    def forward(
        self,
        x_BLD: torch.Tensor,
        turns_L1P2: torch.Tensor,
        caption_BSD: torch.Tensor,
        there_BL: torch.Tensor | None = None,
        said_BS: torch.Tensor | None = None,
        sharpness: float | torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B, L, D).

        Args:
            turns_L1P2: positions (`rope.turns`).
            there_BL: True where there is a token; None: everywhere.
            said_BS: True where there is a token of the caption; None: everywhere.
            sharpness: what the tokens' attention to each other is multiplied by before its softmax, also (B, 1, 1, 1).
        """
        q = rope.rotate(self._heads(self.q_norm(self.wq(x_BLD))), turns_L1P2)
        k = rope.rotate(self._heads(self.k_norm(self.wk(x_BLD))), turns_L1P2)
        seen = self._attend(q, k if sharpness is None else k * sharpness, self._heads(self.wv(x_BLD)), there_BL)
        ky = self._heads(self.ky_norm(self.wk_y(caption_BSD)))
        heard = self._attend(q, ky, self._heads(self.wv_y(caption_BSD)), said_BS)
        return self.wo(torch.addcmul(seen, heard, self.gate.tanh()[:, None].to(heard.dtype)).flatten(2))

    def _heads(self, x_BLD: torch.Tensor) -> torch.Tensor:
        return x_BLD.unflatten(-1, (-1, self.head_dim))

    def _attend(
        self, q_BLND: torch.Tensor, k_BSKD: torch.Tensor, v_BSKD: torch.Tensor, there_BS: torch.Tensor | None
    ) -> torch.Tensor:
        """(B, L, N, D)."""
        mask = None if there_BS is None else there_BS[:, None, None, :]
        grouped = self.heads != self.kv_heads
        if grouped and mask is not None:  # no fused kernel takes both
            k_BSKD, v_BSKD = (part.repeat_interleave(self.heads // self.kv_heads, 2) for part in (k_BSKD, v_BSKD))
            grouped = False
        q, k, v = (part.to(v_BSKD.dtype).transpose(1, 2) for part in (q_BLND, k_BSKD, v_BSKD))
        if self.flash:
            found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)
        else:
            with sdpa_kernel(SDPBackend.MATH):
                found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)
        return found.transpose(1, 2)


class Block(nn.Module):
    """Attention and SwiGLU, each between two norms, scaled and gated by the condition."""

    def __init__(
        self,
        dim: int,
        heads: int,
        kv_heads: int,
        caption_dim: int,
        multiple_of: int,
        qk_norm: bool = True,
        flash: bool = True,
    ) -> None:
        super().__init__()
        self.attention = Attention(dim, heads, kv_heads, caption_dim, qk_norm, flash)
        self.feed_forward = FeedForward(dim, multiple_of)
        self.attention_norm1, self.attention_norm2, self.ffn_norm1, self.ffn_norm2 = (
            nn.RMSNorm(dim, eps=EPS) for _ in range(4)
        )
        self.attention_y_norm = nn.RMSNorm(caption_dim, eps=EPS)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(min(dim, WIDEST), 4 * dim))

    def forward(
        self,
        x_BLD: torch.Tensor,
        turns_L1P2: torch.Tensor,
        caption_BSD: torch.Tensor,
        condition_BC: torch.Tensor,
        there_BL: torch.Tensor | None = None,
        said_BS: torch.Tensor | None = None,
        sharpness: float | torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B, L, D); other arguments: `Attention`."""
        scale1, gate1, scale2, gate2 = self.adaLN_modulation(condition_BC)[:, None].chunk(4, dim=-1)
        given = _cast(_normed(x_BLD, self.attention_norm1, 1 + scale1))
        caption = _cast(self.attention_y_norm(caption_BSD))
        seen = self.attention(given, turns_L1P2, caption, there_BL, said_BS, sharpness)
        x_BLD = x_BLD + _normed(seen, self.attention_norm2, gate1.tanh())
        hidden = self.feed_forward(_cast(_normed(x_BLD, self.ffn_norm1, 1 + scale2)))
        return x_BLD + _normed(hidden, self.ffn_norm2, gate2.tanh())


def _normed(x_BLD: torch.Tensor, norm: nn.RMSNorm, factor_B1D: torch.Tensor) -> torch.Tensor:
    """`norm(x) * factor`, but weight and factor, both small, are multiplied first: one pass over x less."""
    return F.rms_norm(x_BLD, norm.normalized_shape, None, norm.eps) * (norm.weight * factor_B1D)


def _cast(x: torch.Tensor) -> torch.Tensor:
    """To autocast's precision, if any, once: each layer that reads it would make and keep a copy of its own."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


class FinalLayer(nn.Module):
    """Tokens to patches."""

    def __init__(self, dim: int, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, features)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(min(dim, WIDEST), dim))

    def forward(self, x_BLD: torch.Tensor, condition_BC: torch.Tensor) -> torch.Tensor:
        """(B, L, features)."""
        scale = self.adaLN_modulation(condition_BC)[:, None]
        return self.linear(F.layer_norm(x_BLD, x_BLD.shape[-1:], eps=1e-6) * (1 + scale))
