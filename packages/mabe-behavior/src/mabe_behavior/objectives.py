"""What training minimises, and how windows are mixed.

Labels y are 1 where an action is done, 0 where it is not, and -1 where nobody looked: that says nothing, and is never a
0. Windows that were mixed have values between 0 and 1.

Shapes: B windows, T frames, F features, K actions, C = 1 + K classes: other, then the actions.
"""

from __future__ import annotations

import torch
from torch.nn import functional

UNKNOWN = -1


def binary(
    logits_BTK: torch.Tensor,
    y_BTK: torch.Tensor,
    smoothing: float = 0.0,
    focal_gamma: float = 0.0,
) -> torch.Tensor:
    """Mean binary cross-entropy of what is annotated; 0 where nothing is.

    Args:
        logits_BTK: of each action.
        y_BTK: labels.
        smoothing: e makes the labels e / 2 and 1 - e / 2.
        focal_gamma: each loss is multiplied by |y - p|^gamma: the focal loss (Lin et al. 2017, arXiv:1708.02002), in
            the form that takes labels between 0 and 1 (Li et al. 2020, arXiv:2006.04388, equation 3).

    Raises ValueError for shapes that differ.
    """
    _check(logits_BTK, y_BTK, y_BTK.shape[-1], "logits")
    logits_BTK = _wide(logits_BTK)
    annotated = y_BTK >= 0
    truth = y_BTK.clamp(min=0).to(logits_BTK.dtype)
    loss = functional.binary_cross_entropy_with_logits(logits_BTK, truth + smoothing * (0.5 - truth), reduction="none")
    if focal_gamma:
        # at 0 the power has no finite slope for a gamma below 1
        loss = loss * (truth - logits_BTK.sigmoid()).abs().clamp(min=1e-6) ** focal_gamma
    return torch.where(annotated, loss, 0.0).sum() / annotated.sum().clamp(min=1)


def softmax(
    logits_BTC: torch.Tensor,
    y_BTK: torch.Tensor,
    class_weights_C: torch.Tensor | None = None,
    smoothing: float = 0.0,
    shares_K: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean cross-entropy over other and the actions, at frames where any action is annotated; 0 where none is.

    Actions that are not annotated at a frame do not take part in its softmax, so that no gradient reaches them.

    Args:
        logits_BTC: of other and of each action.
        y_BTK: labels.
        class_weights_C: the mean is weighted by those of the true classes, as in `torch.nn.functional.cross_entropy`.
        smoothing: e takes this part of the truth and shares it out among the classes that take part.
        shares_K: how frequent the actions are; where several are done at once, the rarest is the truth. None: the
            first one.

    Raises ValueError for shapes that differ.
    """
    _check(logits_BTC, y_BTK, 1 + y_BTK.shape[-1], "logits")
    logits_BTC = _wide(logits_BTC)
    looked_at = y_BTK >= 0
    any_BT1 = looked_at.any(-1, keepdim=True)
    there = torch.cat((torch.ones_like(any_BT1), looked_at), dim=-1)
    log_p = functional.log_softmax(logits_BTC.masked_fill(~there, -torch.inf), dim=-1).masked_fill(~there, 0.0)
    truth = exclusive(y_BTK, shares_K).to(log_p.dtype) * any_BT1
    weights_C = log_p.new_ones(log_p.shape[-1]) if class_weights_C is None else class_weights_C.to(log_p)
    evenly = there * any_BT1 / there.sum(-1, keepdim=True)
    wanted = (1 - smoothing) * truth + smoothing * evenly
    count = (weights_C * truth).sum()
    return -(weights_C * wanted * log_p).sum() / torch.where(count > 0, count, 1.0)


def exclusive(y_BTK: torch.Tensor, shares_K: torch.Tensor | None = None) -> torch.Tensor:
    """(B, T, C) labels as a distribution over other and the actions.

    The rarest action takes what it has, the next one as much as is left of 1, and so on; other has the rest. Of labels
    that are 0 or 1, that is: the rarest action that is done, or other.

    Args:
        y_BTK: labels; -1 counts as 0.
        shares_K: how frequent the actions are; None: each is rarer than those after it.
    """
    y_BTK = _wide(y_BTK.clamp(min=0))
    order_K = torch.arange(y_BTK.shape[-1], device=y_BTK.device)
    if shares_K is not None:
        order_K = shares_K.to(y_BTK.device).argsort(stable=True)
    taken = y_BTK[..., order_K].cumsum(-1).clamp(max=1)
    parts = taken.diff(dim=-1, prepend=torch.zeros_like(taken[..., :1]))
    return torch.cat((1 - taken[..., -1:], parts[..., order_K.argsort()]), dim=-1)


def probability(logits_BTC: torch.Tensor, allowed: torch.Tensor, output: str) -> torch.Tensor:
    """(B, T, K) what logits say of each action.

    Args:
        logits_BTC: of each action, or with `output` softmax of other and of each.
        allowed: (B, T, K) or (K,) which actions are looked for; of softmax, the others take no part and get 0.
        output: binary or softmax.
    """
    if output == "binary":
        return _wide(logits_BTC).sigmoid()
    there = torch.cat((torch.ones_like(allowed[..., :1]), allowed), dim=-1)
    return _wide(logits_BTC).masked_fill(~there, -torch.inf).softmax(dim=-1)[..., 1:]


def soft_f1(p_BTK: torch.Tensor, y_BTK: torch.Tensor) -> torch.Tensor:
    """1 - the mean over actions of 2 sum(p y) / (sum p + sum y), over the frames where they are annotated.

    Actions that are annotated nowhere are left out; 0 where all are. An action that is annotated but never done has an
    F1 of 0 and no gradient: this loss does not make it rarer, so it goes with another one.

    Args:
        p_BTK: probabilities.
        y_BTK: labels.

    Raises ValueError for shapes that differ.
    """
    _check(p_BTK, y_BTK, y_BTK.shape[-1], "p")
    annotated = (y_BTK >= 0).flatten(0, 1)
    p_NK = torch.where(annotated, _wide(p_BTK).flatten(0, 1), 0.0)
    y_NK = y_BTK.clamp(min=0).flatten(0, 1).to(p_NK.dtype)
    both_K, either_K = (p_NK * y_NK).sum(0), p_NK.sum(0) + y_NK.sum(0)
    lost_K = 1 - 2 * both_K / either_K.clamp(min=torch.finfo(p_NK.dtype).tiny)
    known_K = annotated.any(0)
    return torch.where(known_K, lost_K, 0.0).sum() / known_K.sum().clamp(min=1)


def mixup(
    x_BTF: torch.Tensor, y_BTK: torch.Tensor, permutation_B: torch.Tensor, lam: float | torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows and their labels, each mixed with another one's (Zhang et al. 2018, "mixup", arXiv:1710.09412).

    A feature that is missing in either is missing in the mixture, and what is not annotated in either is not annotated.

    Args:
        x_BTF: features.
        y_BTK: labels; those that come back are floats.
        permutation_B: the window that each is mixed with.
        lam: what the windows themselves count; the others count 1 - lam. A number, or one for each window (B,).
    """
    lam_B11 = torch.as_tensor(lam, dtype=x_BTF.dtype, device=x_BTF.device).reshape(-1, 1, 1)
    y, y_other = y_BTK.to(x_BTF.dtype), y_BTK[permutation_B].to(x_BTF.dtype)
    mixed = lam_B11 * y + (1 - lam_B11) * y_other
    mixed = torch.where((y < 0) | (y_other < 0), float(UNKNOWN), mixed)
    return lam_B11 * x_BTF + (1 - lam_B11) * x_BTF[permutation_B], mixed


def _check(given: torch.Tensor, y_BTK: torch.Tensor, outputs: int, name: str) -> None:
    wanted = (*y_BTK.shape[:-1], outputs)
    if y_BTK.ndim != 3 or given.shape != wanted:
        raise ValueError(f"{name}: shape {tuple(given.shape)}; must be {wanted} for labels {tuple(y_BTK.shape)}")


def _wide(x: torch.Tensor) -> torch.Tensor:
    """float64 as it is, everything else as float32."""
    return x if x.dtype == torch.float64 else x.float()
