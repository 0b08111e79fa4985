"""Do generated photographs help to train a grader of retinopathy?

A small residual network (He et al. 2016) is trained on real photographs only, and on real and generated ones, with the
same steps, batch, augmentation, initial weights and schedule; both are tested on the same real photographs. Batches of
either are drawn grade by grade in equal parts, so that a generator that makes other grades more often than life does
not change what the network expects: what is left is what the photographs themselves teach.

Shapes: N photographs (N, 3, H, W) in [-1, 1], B of a batch or bootstrap resamples, K grades, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import nn
from torch.nn import functional as F

from retina_diffusion import augment
from retina_diffusion.descent import descend
from shared_core.intervals import Estimate, Floats, Resamples
from shared_core.multiclass import MacroF1
from shared_core.seeds import derive, seeded

WIDTHS = (16, 32, 64, 96)
GROUPS = 8
Statistic = Callable[[Floats], Floats]  # of weights (B, N)
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Comparison:
    """One metric. Values are means over the seeds.

    Intervals put two sources of chance together, as the root of the sum of squares: other test photographs, by a
    bootstrap that resamples them jointly for all seeds and both ways to train, and other seeds (of the training, and of
    the generated photographs), by Student's t of the seeds' values. The second is wide with three seeds, and rightly
    so.
    """

    real: Estimate  # trained on real photographs only
    both: Estimate  # trained on real and generated ones
    gain: Estimate  # both - real, paired
    by_seed: tuple[float, ...]  # the gain of each seed


@dataclass(frozen=True)
class Gain:
    metrics: dict[str, Comparison]  # by METRICS
    real_answers_SN: Indices  # grades answered for the test photographs
    both_answers_SN: Indices


def gain(
    real: torch.Tensor,
    grades: torch.Tensor,
    synthetic: Sequence[tuple[torch.Tensor, torch.Tensor]],
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
        grades, test_grades: (N,) integers in 0..classes-1.
        synthetic: generated photographs and their grades, a set for each seed: then the spread over seeds is also that
            of what the generator happens to draw.
        groups: (N,) sources of the test photographs (patients), if some share one.
        seeds: of the trainings, three at least: one more or less may make or undo a gain.
        share: of the generated photographs in each batch of the second way to train.

    Raises:
        ValueError: fewer than three seeds, a share outside 0 to 1, grades that are none or too few.
    """
    if len(set(seeds)) < 3:
        raise ValueError(f"seeds: {list(seeds)}; give three different ones at least, a single training proves nothing")
    if len(synthetic) != len(seeds):
        raise ValueError(f"synthetic: {len(synthetic)} sets for {len(seeds)} seeds; give one for each")
    made = round(share * batch)
    if not 0 < made < batch:
        raise ValueError(f"share: {share} of a batch of {batch} leaves no real or no generated photograph")
    for name, images, marks in (("real", real, grades), ("test", test, test_grades)):
        _check(name, images, marks, classes)
    for images, marks in synthetic:
        _check("synthetic", images, marks, classes)
    answers: dict[str, list[Indices]] = {"real": [], "both": []}
    for seed, drawn in zip(seeds, synthetic, strict=True):
        for way, parts in (
            ("real", [(real, grades, batch)]),
            ("both", [(real, grades, batch - made), (*drawn, made)]),
        ):
            answers[way].append(grade(trained(parts, seed, steps, classes), test))
    first, second = (np.stack(answers[way]) for way in ("real", "both"))
    found = compared(first, second, test_grades.cpu().numpy(), classes, groups, n_resamples)
    return Gain(found, first, second)


def compared(
    first_SN: Indices,
    second_SN: Indices,
    labels_N: Indices,
    classes: int,
    groups: ArrayLike | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Comparison]:
    """The metrics of two ways to train, from the answers that each seed's networks gave to the same photographs."""
    resamples = Resamples(len(labels_N), n_resamples, seed, groups, "sources")
    once = np.ones((1, len(labels_N)))
    found = {}
    for name, metric in METRICS.items():
        first, second = ([metric(answer, labels_N, classes) for answer in way] for way in (first_SN, second_SN))
        gains = [_less(b, a) for a, b in zip(first, second, strict=True)]
        real, both, gain_ = (_estimate(resamples, parts) for parts in (first, second, gains))
        found[name] = Comparison(_bounded(real), _bounded(both), gain_, tuple(float(one(once)[0]) for one in gains))
    return found


def _less(metric: Statistic, other: Statistic) -> Statistic:
    return lambda w_BN: metric(w_BN) - other(w_BN)


def _estimate(resamples: Resamples, parts: Sequence[Statistic]) -> Estimate:
    """The mean over the seeds of a metric, `parts` being that of each; the interval is described in `Comparison`."""
    of_images = resamples.estimate(lambda w_BN: np.mean([part(w_BN) for part in parts], axis=0))
    if math.isnan(of_images.value):
        return of_images
    values_S = [float(part(np.ones((1, resamples.n)))[0]) for part in parts]
    seeds = len(parts)
    reach = float(stats.t.ppf(0.975, seeds - 1) * np.std(values_S, ddof=1) / math.sqrt(seeds))
    low, high = (
        of_images.value + sign * math.hypot(of_images.value - end, reach)
        for sign, end in ((-1, of_images.low), (1, of_images.high))
    )
    return replace(of_images, low=low, high=high, method=f"{of_images.method}, and Student's t over {seeds} seeds")


def _bounded(estimate: Estimate) -> Estimate:
    """No metric exceeds 1; NaN stays."""
    return replace(estimate, high=min(estimate.high, 1.0))


class Kappa:
    """Quadratic weighted kappa (Cohen 1968, Psychological Bulletin 70:213) as a function of weights (B, N): 1 less the
    mean squared distance of answers and labels over that of as many of each at random. NaN where all are the same."""

    def __init__(self, answers: Indices, labels: Indices, classes: int) -> None:
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

    def __init__(self, answers: Indices, labels: Indices, classes: int) -> None:
        self._right_N = (answers == labels).astype(float)

    def __call__(self, w_BN: Floats) -> Floats:
        found: Floats = w_BN @ self._right_N / w_BN.sum(axis=1)
        return found


METRICS: dict[str, Callable[[Indices, Indices, int], Statistic]] = {  # of answers (N,), labels (N,) and K
    "kappa": Kappa,
    "accuracy": Accuracy,
    "macro_f1": MacroF1,
}


class Grader(nn.Module):
    """Photographs to logits (B, K): four levels of one residual block each, then the mean and the largest over places.

    A lesion of a few pixels decides a grade, which a mean over the photograph would not show.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.blocks = nn.ModuleList(Residual(a, b) for a, b in zip((WIDTHS[0], *WIDTHS[:-1]), WIDTHS, strict=True))
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


Part = tuple[torch.Tensor, torch.Tensor, int]  # photographs, their grades, and how many of them are in each batch


def trained(parts: Sequence[Part], seed: int, steps: int, classes: int, lr: float = 2e-3) -> Grader:
    """A grader of photographs that come from one part or several.

    The seed settles weights, batches and augmentation. Weights do not depend on the parts.
    """
    with seeded(seed):
        grader = Grader(classes)
    grader.to(parts[0][0].device)
    draws = [torch.Generator().manual_seed(derive(seed, "part", number)) for number in range(len(parts))]

    def loss() -> torch.Tensor:
        drawn = [_batch(*part, draw) for part, draw in zip(parts, draws, strict=True)]
        images, grades = (torch.cat(columns) for columns in zip(*drawn, strict=True))
        return F.cross_entropy(grader(images), grades)

    descend(grader, loss, steps, lr, weight_decay=0.05)
    return grader


@torch.no_grad()
def grade(grader: Grader, images: torch.Tensor, batch: int = 64) -> Indices:
    """The most probable grade of each photograph (N,), over the four reflections."""
    found = []
    for part in images.split(batch):
        views = [grader(part.flip(axes)).softmax(dim=1) for axes in ([], [2], [3], [2, 3])]
        found.append(torch.stack(views).mean(dim=0).argmax(dim=1).cpu())
    return torch.cat(found).numpy()


def _batch(
    images: torch.Tensor, grades: torch.Tensor, count: int, draw: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Photographs of equally frequent grades, augmented."""
    marks = grades.cpu()
    weight_N = 1.0 / marks.bincount().double()[marks]
    rows = torch.multinomial(weight_N, count, replacement=True, generator=draw).to(images.device)
    return augment.photographs(images[rows], draw), grades[rows].long()


def _check(name: str, images: torch.Tensor, grades: torch.Tensor, classes: int) -> None:
    if images.ndim != 4 or grades.shape != (len(images),) or not len(images):
        shapes = f"{tuple(images.shape)} and {tuple(grades.shape)}"
        raise ValueError(f"{name}: photographs and grades of shapes {shapes}; must be (N, 3, H, W) and (N,)")
    if grades.is_floating_point() or grades.min() < 0 or grades.max() >= classes:
        raise ValueError(f"{name}: grades must be integers in 0..{classes - 1}")
