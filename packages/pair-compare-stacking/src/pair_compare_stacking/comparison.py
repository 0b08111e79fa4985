"""From the features of two halves, and their digit posteriors, to the log-odds that the left digit is larger.

Shapes: B pairs, D features, P projected features, K = 10 digits (as many as the prior has).
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

HEADS = ("difference", "concatenation", "product", "cosine", "l2", "residual")
PARTS = 16  # into which cosine and l2 divide the features: one number for all of them would hardly tell anything


class Head(nn.Module):
    """h(a, b) of two features (B, D) each: one way of comparing, then a small network -> (B,).

    =============  =====================================================
    difference     \\|P a - Q b\\|, element by element
    concatenation  [a, b]
    product        P a * Q b, element by element
    cosine         cosine between P a and Q b, in each of 16 parts
    l2             distance between P a and Q b, in each of 16 parts
    residual       a - b
    =============  =====================================================

    P and Q are learned. With P = Q the first, third, fourth and fifth would be the same for (a, b) and (b, a), and no
    function of them could say which of the two is larger: h(a, b) - h(b, a) would vanish.
    """

    def __init__(self, kind: str, feat_dim: int, hidden: int) -> None:
        super().__init__()
        self.kind = kind
        projected = PARTS * max(4, hidden // PARTS)
        inputs = {"concatenation": 2 * feat_dim, "residual": feat_dim, "cosine": PARTS, "l2": PARTS}
        if kind not in ("concatenation", "residual"):
            self.project_a = nn.Linear(feat_dim, projected, bias=False)
            self.project_b = nn.Linear(feat_dim, projected, bias=False)
        self.hidden = nn.Linear(inputs.get(kind, projected), hidden)
        self.out = nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.out.weight)  # training starts from what is known without it

    def forward(self, a_BD: torch.Tensor, b_BD: torch.Tensor) -> torch.Tensor:
        return self.out(functional.relu(self.hidden(self.quantity(a_BD, b_BD)))).squeeze(1)

    def quantity(self, a_BD: torch.Tensor, b_BD: torch.Tensor) -> torch.Tensor:
        """What the head is named after."""
        match self.kind:
            case "concatenation":
                return torch.cat([a_BD, b_BD], dim=1)
            case "residual":
                return a_BD - b_BD
        a_BP, b_BP = self.project_a(a_BD), self.project_b(b_BD)
        match self.kind:
            case "difference":
                return (a_BP - b_BP).abs()
            case "product":
                return a_BP * b_BP
        a, b = a_BP.unflatten(1, (PARTS, -1)), b_BP.unflatten(1, (PARTS, -1))
        if self.kind == "cosine":
            return functional.cosine_similarity(a, b, dim=2, eps=1e-4)
        return ((a - b).square().sum(dim=2) + 1e-6).sqrt()  # the root's slope is infinite at 0


class Bayes(nn.Module):
    """Log-odds that the left digit is larger, as two digit posteriors and the joint prior of the pairs imply them:

        P(left larger) ~ sum over a > b of  p(a | left) p(b | right) prior(a, b) / (p(a) p(b)),

    which is Bayes' rule for halves that are independent given their digits. The prior is symmetrised, since an
    antisymmetric answer can use nothing else.
    """

    larger: torch.Tensor
    smaller: torch.Tensor
    log_ratio: torch.Tensor

    def __init__(self, prior: np.ndarray) -> None:
        super().__init__()
        larger, smaller, ratio = log_prior_ratio(prior)
        self.register_buffer("larger", torch.as_tensor(larger))
        self.register_buffer("smaller", torch.as_tensor(smaller))
        self.register_buffer("log_ratio", torch.as_tensor(ratio, dtype=torch.float32))

    def forward(self, digit_logits_B2K: torch.Tensor) -> torch.Tensor:
        left, right = functional.log_softmax(digit_logits_B2K.float(), dim=-1).unbind(1)
        return self._one_way(left, right) - self._one_way(right, left)

    def _one_way(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.logsumexp(a[:, self.larger] + b[:, self.smaller] + self.log_ratio, dim=1)


class Comparison(nn.Module):
    """Log-odds that the left digit is larger: what the digits say (`Bayes`) plus what heads see, weighted by softmax.

    Args:
        heads: names of the heads, from `HEADS`.
        prior: (K, K) joint distribution of (left, right) digits; None: heads alone.
        antisymmetric: each head counts as h(a, b) - h(b, a), so that swapping the halves flips the sign exactly.
    """

    def __init__(
        self, heads: tuple[str, ...], feat_dim: int, hidden: int, prior: np.ndarray | None, antisymmetric: bool = True
    ) -> None:
        super().__init__()
        self.bayes = None if prior is None else Bayes(prior)
        self.terms = nn.ModuleList(Head(kind, feat_dim, hidden) for kind in heads)
        self.mixture = nn.Parameter(torch.zeros(len(heads))) if len(heads) > 1 else None
        self.antisymmetric = antisymmetric

    def forward(self, z_B2D: torch.Tensor, digit_logits_B2K: torch.Tensor) -> torch.Tensor:
        a, b = z_B2D.unbind(1)
        logit = self.bayes(digit_logits_B2K) if self.bayes is not None else 0.0
        weights = (1.0,) if self.mixture is None else self.mixture.softmax(0)
        for weight, head in zip(weights, self.terms, strict=True):
            seen = head(a, b) - head(b, a) if self.antisymmetric else head(a, b)
            logit = logit + weight * seen.float()
        return logit

    def weights(self) -> dict[str, float]:
        """Weight of each head; they add up to 1."""
        weights = [1.0] if self.mixture is None else self.mixture.detach().softmax(0).tolist()
        return dict(zip((head.kind for head in self.terms), weights, strict=True))


def log_prior_ratio(prior: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Digits a and b, and log prior(a, b) / (p(a) p(b)) of the symmetrised prior, for the 45 pairs with a > b."""
    joint = (prior + prior.T) / 2
    joint = joint / joint.sum()
    marginal = joint.sum(axis=1)
    larger, smaller = np.tril_indices(len(prior), -1)
    ratio = np.log(joint[larger, smaller]) - np.log(marginal[larger] * marginal[smaller])
    return larger, smaller, np.maximum(ratio, -30.0)  # a pair that training never shows is improbable, not impossible
