"""What training minimises: the comparison loss, the loss of both digits, and a teacher's answers.

Shapes: B pairs, 2 halves, K = 10 digits. Logits of half precision are computed with in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from pair_compare_stacking.training_config import Distill, Loss
from shared_core.errors import UserError
from shared_core.userdefined import title

if TYPE_CHECKING:
    from pair_compare_stacking.model import Prediction

IMPOSSIBLE = -1e5  # log-probability that stands for log 0 in a teacher's answers


def total(
    prediction: Prediction,
    y_B: torch.Tensor,
    digits_B2: torch.Tensor | None,
    settings: Loss,
    function: Callable[..., Any] | None = None,
    teacher: Prediction | None = None,
    distill: Distill | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Mean loss of a batch (scalar), and its parts as they are before weighting.

    The hard loss is compare_loss + digit_weight * digit_loss; with a teacher, the loss is soft * distill_loss +
    (1 - soft) * hard.

    Args:
        y_B: 1 where the left digit is larger, else 0.
        digits_B2: 0..9; None where the digits are unknown, and there is no digit loss then.
        function: the user's own comparison loss, `own`.
        teacher: the teacher's answers to the same (augmented) pairs; no gradient reaches them.
        distill: how to learn from the teacher; default: `Distill()`.

    Raises:
        UserError: the user's function does not return a loss.
    """
    logit_B = prediction.logit
    parts = {"compare_loss": own(function, logit_B, y_B) if function else compare(logit_B, y_B, settings)}
    loss = parts["compare_loss"]
    if digits_B2 is not None:
        parts["digit_loss"] = digit(prediction.digit_logits, digits_B2)
        loss = loss + settings.digit_weight * parts["digit_loss"]
    if teacher is not None:
        distill = distill or Distill()
        parts["distill_loss"] = imitate(prediction, teacher, distill.temperature, settings.digit_weight)
        loss = distill.soft * parts["distill_loss"] + (1 - distill.soft) * loss
    return loss, parts


def compare(logit_B: torch.Tensor, y_B: torch.Tensor, settings: Loss) -> torch.Tensor:
    """Mean binary cross-entropy, or focal loss -alpha (1 - p)^gamma log p (Lin et al. 2017, arXiv 1708.02002).

    p is the probability of the true answer. Label smoothing e replaces log p by (1 - e/2) log p + e/2 log(1 - p) and
    leaves the focal factor alone, which says how well the true answer is known.
    """
    logit_B = _wide(logit_B)
    margin_B = torch.where(y_B > 0, logit_B, -logit_B)
    log_true_B, log_false_B = functional.logsigmoid(margin_B), functional.logsigmoid(-margin_B)
    spread = settings.label_smoothing / 2
    loss_B = -((1 - spread) * log_true_B + spread * log_false_B)
    if settings.kind == "focal":
        loss_B = settings.alpha * torch.exp(settings.gamma * log_false_B) * loss_B
    return loss_B.mean()


def own(function: Callable[..., Any], logit_B: torch.Tensor, y_B: torch.Tensor) -> torch.Tensor:
    """Mean of the user's loss ``function(logit, y)``, which gets both as floats of shape (B,).

    Raises UserError where it returns anything but a differentiable scalar or one loss per pair.
    """
    logit_B = _wide(logit_B)
    loss = function(logit_B, y_B.to(logit_B.dtype))
    wanted = f"must return a tensor of shape () or ({len(logit_B)},), one loss for each pair"
    if not isinstance(loss, torch.Tensor):
        raise UserError(f"{title(function)}: {wanted}, not {type(loss).__name__}")
    if loss.shape not in ((), logit_B.shape) or not loss.is_floating_point():
        raise UserError(f"{title(function)}: {wanted}, not {loss.dtype} of shape {tuple(loss.shape)}")
    if logit_B.requires_grad and not loss.requires_grad:
        raise UserError(f"{title(function)}: its loss has no gradient; compute it from the logits with torch alone")
    return loss.mean()


def digit(digit_logits_B2K: torch.Tensor, digits_B2: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of both halves' digits."""
    return functional.cross_entropy(_wide(digit_logits_B2K).flatten(0, 1), digits_B2.flatten().long())


def imitate(student: Prediction, teacher: Prediction, temperature: float, digit_weight: float) -> torch.Tensor:
    """T^2 KL(teacher || student) of the answers at temperature T (Hinton et al. 2015, arXiv 1503.02531).

    That of the comparison plus `digit_weight` times the mean over both halves' digits.
    """
    compared = _divergence(_both(student.logit, temperature), _both(teacher.logit, temperature))
    digits = _divergence(_tempered(student.digit_logits, temperature), _tempered(teacher.digit_logits, temperature))
    return temperature**2 * (compared + digit_weight * digits)


def _divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean KL(teacher || student) of log-probabilities over the last dimension."""
    teacher = teacher.detach().clamp(min=IMPOSSIBLE)  # 0 log 0 is 0; as a product of float numbers it is not
    return functional.kl_div(student, teacher, reduction="none", log_target=True).sum(-1).mean()


def _both(logit_B: torch.Tensor, temperature: float) -> torch.Tensor:
    """Log-probabilities (B, 2) of the two answers."""
    tempered_B = _wide(logit_B) / temperature
    return torch.stack((functional.logsigmoid(tempered_B), functional.logsigmoid(-tempered_B)), dim=-1)


def _tempered(digit_logits_B2K: torch.Tensor, temperature: float) -> torch.Tensor:
    return functional.log_softmax(_wide(digit_logits_B2K) / temperature, dim=-1)


def _wide(x: torch.Tensor) -> torch.Tensor:
    """float64 as it is, everything else as float32."""
    return x if x.dtype == torch.float64 else x.float()
