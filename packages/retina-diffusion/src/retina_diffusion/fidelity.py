"""How well generated photographs follow their masks, as a segmenter of real photographs sees it.

Dice (1945) and average precision (the area under precision over recall, Saito and Rehmsmeier 2015, PLoS ONE
10:e0118432) of each class, pooled over all pixels of all images; intervals are over images, since pixels of one image
are no independent evidence.

Truth is binary here while masks are covered shares: a pixel belongs to a class from a covered share of `TRUTH` on.
Half a pixel would be the natural choice for large things, but at 64 px it leaves microaneurysms in 3 of IDRiD's 54
training photographs, a quarter in 42, and 0.15 in 53, while the optic disc grows by 15 % of its area only.

Shapes: N images, M channels, H x W pixels, K bins of scores, B bootstrap resamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from shared_core.intervals import Estimate, Floats, Ratio, Resamples, undefined

TRUTH = 0.15
UNSEARCHED = undefined("no image was searched for this class")
BINS = 256  # of scores: every bin holds no more than one in 256 of a class's pixels, so that curves keep their shape


def truth(coverage: torch.Tensor) -> torch.Tensor:
    """Where a class counts as present: bool, of the same shape."""
    return coverage >= TRUTH


@dataclass(frozen=True)
class Score:
    """One class. Estimates are undefined, and say why, where no image was searched for it or none holds it."""

    dice: Estimate
    average_precision: Estimate  # its chance level is `prevalence`
    prevalence: float  # the share of pixels that belong to the class


def fidelity(
    probabilities_NMHW: torch.Tensor,
    coverage_NMHW: torch.Tensor,
    known_NM: torch.Tensor,
    thresholds_M: torch.Tensor,
    seed: int,
    groups: ArrayLike | None = None,
    unit: str = "masks",
    n_resamples: int = 1000,
) -> tuple[Score, ...]:
    """One score per channel.

    Args:
        coverage_NMHW: the masks that the images were made from.
        known_NM: what is False is left out, image by image and channel by channel.
        thresholds_M: a pixel counts as found from this probability on (`Segmenter.thresholds`).
        groups: (N,) which images share a mask or a patient, and so are no independent evidence; `unit` names what they
            share.

    Raises:
        ValueError: shapes that do not belong together.
    """
    found = []
    for rows, one in _by_class(probabilities_NMHW, coverage_NMHW, known_NM, thresholds_M):
        if one is None:
            found.append(Score(UNSEARCHED, UNSEARCHED, math.nan))
            continue
        resamples = Resamples(len(rows), n_resamples, seed, None if groups is None else np.asarray(groups)[rows], unit)
        dice = resamples.estimate(one.dice)
        area = moved(resamples.estimate(one.binned), one.average_precision)
        found.append(Score(_bounded(dice), _bounded(area), float(one.positives_N.sum() / one.pixels)))
    return tuple(found)


def thresholds(probabilities_NMHW: torch.Tensor, coverage_NMHW: torch.Tensor, known_NM: torch.Tensor) -> torch.Tensor:
    """The probabilities (M,) from which on pixels are best taken for each class: where the pooled Dice is highest.

    Choose them on other images than those that they are used on. A class that no image shows keeps 1/2.
    """
    half_M = torch.full((coverage_NMHW.shape[1],), 0.5)
    best_M = half_M.clone()
    for m, (_, seen) in enumerate(_by_class(probabilities_NMHW, coverage_NMHW, known_NM, half_M)):
        if seen is not None and seen.positives_N.any():
            best_M[m] = seen.best_threshold()
    return best_M.to(probabilities_NMHW)


def _by_class(
    p_NMHW: torch.Tensor, coverage_NMHW: torch.Tensor, known_NM: torch.Tensor, thresholds_M: torch.Tensor
) -> Iterator[tuple[NDArray[np.int64], Seen | None]]:
    """Class by class: the images that were searched for it, and what the probabilities show on these, if any."""
    if p_NMHW.shape != coverage_NMHW.shape:
        raise ValueError(f"probabilities {tuple(p_NMHW.shape)}, masks {tuple(coverage_NMHW.shape)}: must be the same")
    if known_NM.shape != coverage_NMHW.shape[:2] or thresholds_M.shape != coverage_NMHW.shape[1:2]:
        shapes = f"known {tuple(known_NM.shape)}, thresholds {tuple(thresholds_M.shape)}"
        raise ValueError(f"{shapes}: must be (N, M) and (M,) of the masks {tuple(coverage_NMHW.shape)}")
    for m, threshold in enumerate(thresholds_M.tolist()):
        rows = known_NM[:, m].nonzero().flatten().cpu()
        seen = looked_at(p_NMHW[rows, m], coverage_NMHW[rows, m], threshold) if len(rows) else None
        yield rows.numpy(), seen


def looked_at(p_NHW: torch.Tensor, coverage_NHW: torch.Tensor, threshold: float) -> Seen:
    """One class in some images, by its covered shares."""
    return Seen(p_NHW, truth(coverage_NHW).to(p_NHW.device), threshold)


class Seen:
    """What the probabilities of one class show, image by image: counts of pixels, which resamples weigh and add up."""

    def __init__(self, p_NHW: torch.Tensor, there_NHW: torch.Tensor, threshold: float) -> None:
        self.p_NL, self.there_NL = p_NHW.flatten(1).float(), there_NHW.flatten(1)
        self.pixels = self.p_NL.numel()
        found_NL = self.p_NL >= threshold
        self.hits_N, self.found_N, self.positives_N = (
            part.sum(dim=1).double().cpu().numpy() for part in (found_NL & self.there_NL, found_NL, self.there_NL)
        )
        self.dice = Ratio(2 * self.hits_N, self.found_N + self.positives_N)
        self._bin()

    def _bin(self) -> None:
        """Counts (N, K) of positives and of all pixels, from the highest bin of probability down.

        The bins' edges are quantiles of the positives' probabilities, so that a rare class has as many as another."""
        scores = self.p_NL[self.there_NL].sort().values
        picks = torch.linspace(0, len(scores) - 1, min(BINS, len(scores)), dtype=torch.float64).round().long()
        self.edges_K = scores[picks.to(scores.device)].unique() if len(scores) else scores.new_full((1,), 0.5)
        bins = len(self.edges_K) + 1
        index_NL = torch.bucketize(self.p_NL.contiguous(), self.edges_K, right=True)
        index_NL = index_NL + bins * torch.arange(len(index_NL), device=index_NL.device)[:, None]
        self.hits_NK, self.all_NK = (
            torch.bincount(part.flatten(), minlength=bins * len(index_NL)).view(-1, bins).flip(1).double().cpu().numpy()
            for part in (index_NL[self.there_NL], index_NL)
        )

    def binned(self, w_BN: Floats) -> Floats:
        """The average precision of probabilities rounded to bins, of each resample: (B,); NaN without positives."""
        hits_BK, all_BK = w_BN @ self.hits_NK, w_BN @ self.all_NK
        with np.errstate(invalid="ignore", divide="ignore"):
            precision_BK = np.nan_to_num(hits_BK.cumsum(axis=1) / all_BK.cumsum(axis=1))
            area_B: Floats = (hits_BK * precision_BK).sum(axis=1) / hits_BK.sum(axis=1)
        return area_B

    @cached_property
    def average_precision(self) -> float:
        """Exactly: the precision at every positive pixel, averaged; equal probabilities count as one step.

        Only the positives are sorted, which are few; all others are counted between them.
        """
        levels_K, hits_K = self.p_NL[self.there_NL].unique(return_counts=True)
        reached = torch.bucketize(self.p_NL.flatten(), levels_K, right=True)  # so many levels are at most the pixel's
        all_K = torch.bincount(reached, minlength=len(levels_K) + 1)[1:]
        precision_K = _from_here_on(hits_K) / _from_here_on(all_K)
        return float((hits_K * precision_K).sum() / hits_K.sum())

    def best_threshold(self) -> float:
        """The edge of a bin at which the pooled Dice is highest."""
        hits_K, found_K = self.hits_NK.sum(axis=0).cumsum(), self.all_NK.sum(axis=0).cumsum()
        dice_K = 2 * hits_K / (found_K + hits_K[-1])
        return float(self.edges_K.flip(0)[int(dice_K[:-1].argmax())])


def moved(binned: Estimate, value: float) -> Estimate:
    """The exact value with the interval of the binned one."""
    gap = value - binned.value
    return replace(binned, value=binned.value + gap, low=binned.low + gap, high=binned.high + gap)


def _from_here_on(count_K: torch.Tensor) -> torch.Tensor:
    return count_K.double().flip(0).cumsum(0).flip(0)


def _bounded(estimate: Estimate) -> Estimate:
    return replace(estimate, low=max(estimate.low, 0.0), high=min(estimate.high, 1.0))  # NaN stays
