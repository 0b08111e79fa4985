"""Do generated photographs help to train a grader of retinopathy?

A small residual network (He et al. 2016) is trained on real photographs only, and on real and generated ones, with the
same steps, batch, augmentation, initial weights and schedule; both are tested on the same real photographs. Batches of
either are drawn grade by grade in equal parts, so that a generator that makes other grades more often than life does
not change what the network expects: what is left is what the photographs themselves teach.

Shapes: N photographs (N, 3, H, W) in [-1, 1], B of a batch or bootstrap resamples, K grades, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn
from torch.nn import functional as F

from shared_core.intervals import Estimate, Floats, Resamples
from shared_core.multiclass import MacroF1

WIDTHS = (16, 32, 64, 96)
GROUPS = 8
METRICS = ("kappa", "accuracy", "macro_f1")


@dataclass(frozen=True)
class Comparison:
    """One metric. Values are means over the seeds; intervals resample test photographs, for all seeds and both ways to
    train together. What training from another seed would change is not in them: see `by_seed`."""

    real: Estimate  # trained on real photographs only
    both: Estimate  # trained on real and generated ones
    gain: Estimate  # both - real, paired
    by_seed: tuple[float, ...]  # the gain of each seed


@dataclass(frozen=True)
class Gain:
    metrics: dict[str, Comparison]  # by METRICS
    real_answers_SN: NDArray[np.int64]  # grades answered for the test photographs
    both_answers_SN: NDArray[np.int64]


def gain(
    real: torch.Tensor,
    grades: torch.Tensor,
    synthetic: torch.Tensor,
    synthetic_grades: torch.Tensor,
    test: torch.Tensor,
    test_grades: torch.Tensor,
    groups: ArrayLike | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    steps: int = 300,
    batch: int = 32,
    share: float = 0.5,
    classes: int = 5,
    n_resamples: int = 1000,
) -> Gain:
    """What generated photographs add to real ones.

    Args:
        grades, synthetic_grades, test_grades: (N,) integers in 0..classes-1.
        groups: (N,) sources of the test photographs (patients), if some share one.
        seeds: of the trainings, three at least: one more or less may make or undo a gain.
        share: of the generated photographs in each batch of the second way to train.

    Raises:
        ValueError: fewer than three seeds, a share outside 0 to 1, grades that are none or too few.
    """
    if len(set(seeds)) < 3:
        raise ValueError(f"seeds: {list(seeds)}; give three different ones at least, a single training proves nothing")
    made = round(share * batch)
    if not 0 < made < batch:
        raise ValueError(f"share: {share} of a batch of {batch} leaves no real or no generated photograph")
    for name, images, marks in (("real", real, grades), ("synthetic", synthetic, synthetic_grades)):
        _check(name, images, marks, classes)
    _check("test", test, test_grades, classes)
    answers: dict[str, list[NDArray[np.int64]]] = {"real": [], "both": []}
    for seed in seeds:
        for way, parts in (
            ("real", [(real, grades, batch)]),
            ("both", [(real, grades, batch - made), (synthetic, synthetic_grades, made)]),
        ):
            answers[way].append(grade(trained(parts, seed, steps, classes), test))
    first, second = (np.stack(answers[way]) for way in ("real", "both"))
    found = compared(first, second, test_grades.cpu().numpy(), classes, groups, n_resamples)
    return Gain(found, first, second)


def compared(
    first_SN: NDArray[np.int64],
    second_SN: NDArray[np.int64],
    labels_N: NDArray[np.int64],
    classes: int,
    groups: ArrayLike | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Comparison]:
    """The metrics of two ways to train, from the answers that each seed's networks gave to the same photographs."""
    resamples = Resamples(len(labels_N), n_resamples, seed, groups, "sources")
    kinds = {"kappa": Kappa, "accuracy": Accuracy, "macro_f1": MacroF1}
    found = {}
    for name in METRICS:
        a, b = (_Mean([kinds[name](answer, labels_N, classes) for answer in way]) for way in (first_SN, second_SN))
        once = np.ones((1, len(labels_N)))
        by_seed = tuple(float(y(once)[0] - x(once)[0]) for x, y in zip(a.parts, b.parts, strict=True))
        difference = resamples.estimate(lambda w_BN, a=a, b=b: b(w_BN) - a(w_BN))
        found[name] = Comparison(resamples.estimate(a), resamples.estimate(b), difference, by_seed)
    return found


class Kappa:
    """Quadratic weighted kappa (Cohen 1968, Psychological Bulletin 70:213) as a function of weights (B, N): 1 less the
    mean squared distance of answers and labels over that of as many of each at random. NaN where all are the same."""

    def __init__(self, answers: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> None:
        self._apart_N = (answers - labels).astype(float) ** 2
        eye, grade = np.eye(classes), np.arange(classes, dtype=float)
        self._answered_NK, self._labelled_NK = eye[answers], eye[labels]
        self._apart_KK = (grade[:, None] - grade) ** 2

    def __call__(self, w_BN: Floats) -> Floats:
        answered_BK, labelled_BK = w_BN @ self._answered_NK, w_BN @ self._labelled_NK
        by_chance_B = ((answered_BK @ self._apart_KK) * labelled_BK).sum(axis=1) / w_BN.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Floats = 1 - (w_BN @ self._apart_N) / by_chance_B
        return np.where(by_chance_B > 0, found, math.nan)


class Accuracy:
    """The share of right answers as a function of weights (B, N)."""

    def __init__(self, answers: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> None:
        self._right_N = (answers == labels).astype(float)

    def __call__(self, w_BN: Floats) -> Floats:
        found: Floats = w_BN @ self._right_N / w_BN.sum(axis=1)
        return found


class _Mean:
    """The mean over the seeds of a metric."""

    def __init__(self, parts: Sequence[Kappa | Accuracy | MacroF1]) -> None:
        self.parts = parts

    def __call__(self, w_BN: Floats) -> Floats:
        found: Floats = np.mean([part(w_BN) for part in self.parts], axis=0)
        return found


class Grader(nn.Module):
    """Photographs to logits (B, K): four levels of one residual block each, then the mean and the largest over places.

    A lesion of a few pixels decides a grade, which a mean over the photograph would not show.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.blocks = nn.ModuleList(Residual(a, b) for a, b in zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False))
        self.out = nn.Linear(2 * WIDTHS[-1], classes)

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        x = self.stem(image_BCHW.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = F.avg_pool2d(block(x), 2)
        return self.out(torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1))


class Residual(nn.Module):
    """Two convolutions before which there are norms, beside a shortcut (He et al. 2016, "Identity Mappings")."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, before), nn.GroupNorm(GROUPS, after)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(before, after, 1, bias=False) if before != after else nn.Identity()

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        inner = self.conv1(F.silu(self.norm1(x_BCHW)))
        return self.shortcut(x_BCHW) + self.conv2(F.silu(self.norm2(inner)))
