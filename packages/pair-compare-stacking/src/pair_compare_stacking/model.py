"""The pair model: one tower for both halves, an antisymmetric comparison, and the two digit posteriors.

Shapes: B pairs, 2 halves, H x W pixels, D features, K = 10 digits (as many as the prior has).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class Prediction:
    """What the model says about B pairs."""

    logit: torch.Tensor  # (B,) log-odds that the left digit is larger
    digit_logits: torch.Tensor  # (B, 2, 10) of the left and right half


class Residual(nn.Module):
    """Pre-activation residual block (He et al. 2016), with a 1x1 shortcut where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, bias=False)
        self.stride = stride

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        activated = functional.relu(self.norm1(x_BCHW))
        if isinstance(self.shortcut, nn.Identity):
            shortcut = x_BCHW
        else:
            # Subsampling first is what a 1x1 convolution with a stride computes, whose gradient overwrites foreign
            # memory on CPUs for channels-last inputs narrower than a vector register (oneDNN, issue 6035).
            shortcut = self.shortcut(activated[:, :, :: self.stride, :: self.stride])
        return shortcut + self.conv2(functional.relu(self.norm2(self.conv1(activated))))


class Tower(nn.Module):
    """A half (B, 1, 28, 28) in 0..1 -> D features.

    The stem halves the resolution; every stage after the first halves it again. The features come from average and
    maximum pooling.
    """

    def __init__(self, widths: tuple[int, ...], layers: tuple[int, ...], feat_dim: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, widths[0], 5, 2, 2, bias=False)
        blocks: list[nn.Module] = []
        before = widths[0]
        for stage, (width, depth) in enumerate(zip(widths, layers, strict=True)):
            for layer in range(depth):
                blocks.append(Residual(before, width, 2 if stage > 0 and layer == 0 else 1))
                before = width
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(before)
        self.project = nn.Linear(2 * before, feat_dim)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        # channels last is what CPU and tensor-core kernels work in; contiguous() copies one grey channel only
        x = self.stem((x_BCHW - 0.1).contiguous(memory_format=torch.channels_last))
        x = functional.relu(self.norm(self.blocks(x)))
        pooled = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)
        return functional.relu(self.project(pooled))


class Comparison(nn.Module):
    """Log-odds that the left digit is larger: exactly antisymmetric, f(a, b) = h(a, b) - h(b, a) = -f(b, a).

    h is the log-probability of "left larger" that the two digit posteriors and the joint prior of the pairs imply,

        log sum over a > b of  p(a | left) p(b | right) prior(a, b) / (p(a) p(b)),

    which is Bayes' rule for halves that are independent given their digits, plus a correction learned from both. The
    prior is symmetrised, since an antisymmetric answer can use nothing else.
    """

    larger: torch.Tensor
    smaller: torch.Tensor
    log_ratio: torch.Tensor

    def __init__(self, feat_dim: int, hidden: int, prior: np.ndarray) -> None:
        super().__init__()
        larger, smaller, ratio = log_prior_ratio(prior)
        self.register_buffer("larger", torch.as_tensor(larger))
        self.register_buffer("smaller", torch.as_tensor(smaller))
        self.register_buffer("log_ratio", torch.as_tensor(ratio, dtype=torch.float32))
        self.hidden = nn.Linear(2 * feat_dim, hidden)
        self.out = nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.out.weight)  # training starts from Bayes' rule

    def forward(self, z_B2D: torch.Tensor, digit_logits_B2K: torch.Tensor) -> torch.Tensor:
        log_p = functional.log_softmax(digit_logits_B2K.float(), dim=-1)
        (left, right), (p_left, p_right) = z_B2D.unbind(1), log_p.unbind(1)
        return self._one_way(left, right, p_left, p_right) - self._one_way(right, left, p_right, p_left)

    def _one_way(self, a: torch.Tensor, b: torch.Tensor, p_a: torch.Tensor, p_b: torch.Tensor) -> torch.Tensor:
        bayes = torch.logsumexp(p_a[:, self.larger] + p_b[:, self.smaller] + self.log_ratio, dim=1)
        learned = self.out(functional.relu(self.hidden(torch.cat([a, b], dim=1)))).squeeze(1)
        return bayes + learned


class PairModel(nn.Module):
    """Pairs -> comparison and digits.

    Args:
        widths: channels per stage of the tower.
        layers: residual blocks per stage.
        feat_dim: features per half.
        hidden: width of the learned part of the comparison.
        dropout: on the features, for both heads.
        prior: (10, 10) joint distribution of (left, right) digits in the training pairs.
    """

    def __init__(
        self,
        prior: np.ndarray,
        widths: tuple[int, ...] = (48, 96, 192),
        layers: tuple[int, ...] = (2, 2, 2),
        feat_dim: int = 256,
        hidden: int = 128,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.tower = Tower(widths, layers, feat_dim).to(memory_format=torch.channels_last)
        self.dropout = nn.Dropout(dropout)
        self.digit_head = nn.Linear(feat_dim, len(prior))
        self.comparison = Comparison(feat_dim, hidden, prior)

    def forward(self, x_B2HW: torch.Tensor) -> Prediction:
        """`x_B2HW`: float in 0..1, left and right half."""
        features = self.tower(x_B2HW.flatten(0, 1).unsqueeze(1))
        z_B2D = self.dropout(features).unflatten(0, (-1, 2))
        digit_logits = self.digit_head(z_B2D)
        return Prediction(self.comparison(z_B2D, digit_logits), digit_logits)


def log_prior_ratio(prior: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Digits a and b, and log prior(a, b) / (p(a) p(b)) of the symmetrised prior, for the 45 pairs with a > b."""
    joint = (prior + prior.T) / 2
    joint = joint / joint.sum()
    marginal = joint.sum(axis=1)
    larger, smaller = np.tril_indices(len(prior), -1)
    ratio = np.log(joint[larger, smaller]) - np.log(marginal[larger] * marginal[smaller])
    return larger, smaller, np.maximum(ratio, -30.0)  # a pair that training never shows is improbable, not impossible


def loss(
    prediction: Prediction, y: torch.Tensor, digits: torch.Tensor, digit_weight: float
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Comparison loss plus `digit_weight` times the mean digit loss of both halves; y (B,), digits (B, 2)."""
    compare = functional.binary_cross_entropy_with_logits(prediction.logit, y.float())
    digit = functional.cross_entropy(prediction.digit_logits.flatten(0, 1), digits.flatten())
    return compare + digit_weight * digit, {"compare_loss": compare, "digit_loss": digit}
