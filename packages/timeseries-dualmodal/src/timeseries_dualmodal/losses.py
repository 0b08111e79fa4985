"""What training minimises.

Shapes: B series, K prefixes of each, V variables, C classes, D features.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from timeseries_dualmodal.model import Answer
from timeseries_dualmodal.model_config import Loss


def class_weights(counts_C: torch.Tensor, power: float) -> torch.Tensor:
    """(C,) weights of classes, (1 / share)**power, at a mean over the samples of 1.

    Raises ValueError where a class has no sample.
    """
    if (counts_C == 0).any():
        raise ValueError("a class has no training sample")
    raw_C = (counts_C.sum() / counts_C.double()) ** power
    return (raw_C * counts_C.sum() / (raw_C * counts_C).sum()).float()


def classification(logits_BKC: torch.Tensor, y_B: torch.Tensor, weight_BK: torch.Tensor, wanted: Loss) -> torch.Tensor:
    """Weighted mean over prefixes of cross-entropy, or of the focal loss (Lin et al. 2017, ICCV).

    The focal factor is that of the true class's probability; label smoothing leaves it alone.
    """
    batch, prefixes, classes = logits_BKC.shape
    y_N = y_B[:, None].expand(batch, prefixes).reshape(-1)
    logits_NC = logits_BKC.reshape(-1, classes).float()
    loss_N = F.cross_entropy(logits_NC, y_N, reduction="none", label_smoothing=wanted.label_smoothing)
    if wanted.kind == "focal":
        p_N = logits_NC.softmax(dim=-1).gather(1, y_N[:, None]).squeeze(1)
        loss_N = (1 - p_N) ** wanted.gamma * loss_N
    return (loss_N * weight_BK.reshape(-1)).mean()


def earliness_weights(length_BK: torch.Tensor, steps: int, k: float) -> torch.Tensor:
    """(B, K): 1 + k (1 - t/T), scaled to a mean of 1 so that k does not change the learning rate."""
    weight_BK = 1 + k * (1 - length_BK / steps)
    return weight_BK / weight_BK.mean()


def alignment(sight_BKVD: torch.Tensor, words_BKVD: torch.Tensor, log_temperature: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE (Radford et al. 2021, ICML) between pictures and numbers of the same series.

    Per variable and prefix: the other series of the batch are the negatives. The temperature is learned, and never
    below 0.01.
    """
    sight, words = (F.normalize(x.float(), dim=-1).permute(1, 2, 0, 3) for x in (sight_BKVD, words_BKVD))
    similar_KVBB = sight @ words.transpose(-1, -2) / log_temperature.exp().clamp(min=0.01)
    batch = similar_KVBB.shape[-1]
    flat = similar_KVBB.reshape(-1, batch, batch)
    true = torch.arange(batch, device=flat.device).expand(len(flat), batch)
    return (F.cross_entropy(flat, true) + F.cross_entropy(flat.transpose(1, 2), true)) / 2


def total(
    answer: Answer,
    y_B: torch.Tensor,
    length_BK: torch.Tensor,
    steps: int,
    weight_C: torch.Tensor,
    wanted: Loss,
    also_B: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of a batch, and its parts by name.

    Args:
        steps: of a whole season.
        weight_C: `class_weights`.
        also_B: the second target of the series.
    """
    weight_BK = earliness_weights(length_BK, steps, wanted.early_weight) * weight_C[y_B][:, None]
    loss = classification(answer.logits_BKC, y_B, weight_BK, wanted)
    parts: dict[str, torch.Tensor] = {}
    if answer.sight_logits_BKC is not None and answer.words_logits_BKC is not None:
        for name, logits in (("sight", answer.sight_logits_BKC), ("words", answer.words_logits_BKC)):
            parts[name] = classification(logits, y_B, weight_BK, wanted)
            loss = loss + wanted.branches * parts[name]
    if answer.also_BKA is not None and also_B is not None:
        target_BK = also_B[:, None].expand(length_BK.shape)
        parts["also"] = F.cross_entropy(answer.also_BKA.flatten(0, 1).float(), target_BK.flatten())
        loss = loss + wanted.also_weight * parts["also"]
    if answer.sight_BKVD is not None and answer.words_BKVD is not None and answer.log_temperature is not None:
        parts["alignment"] = alignment(answer.sight_BKVD, answer.words_BKVD, answer.log_temperature)
        loss = loss + wanted.alignment * parts["alignment"]
    return loss, {name: part.detach() for name, part in parts.items()}
