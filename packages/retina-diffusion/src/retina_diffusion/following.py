"""Whether images follow their masks, in one number over several classes, beside two yardsticks.

A segmenter that has learned from real photographs looks for each class in the generated images of a mask. What it finds
is compared with that mask; with what it finds in the real photograph of that mask, which is the best that can be asked;
and with the mask of another photograph, which is what chance and the anatomy that all eyes share would give.

Shapes: N generated images, M channels, H x W pixels, B bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from retina_diffusion.fidelity import Seen, looked_at
from shared_core.intervals import Estimate, Floats, Resamples

Statistic = Callable[[Floats], Floats]


class Of(NamedTuple):
    """A mean over classes: of Dice, and of the average precision."""

    dice: Estimate
    average_precision: Estimate


@dataclass(frozen=True)
class Following:
    """Means over the classes that are judged; intervals resample the masks."""

    generated: Of
    real: Of  # the segmenter's own score, on the real photographs of the same masks
    shuffled: Of  # the generated images held against masks of other photographs
    share: Of  # generated / real
    gain: Of  # generated - shuffled


def follow(
    generated_NMHW: torch.Tensor,
    real_NMHW: torch.Tensor,
    coverage_NMHW: torch.Tensor,
    mask_N: NDArray[np.int64],
    thresholds_M: torch.Tensor,
    seed: int,
    n_resamples: int = 1000,
) -> Following:
    """Judge images whose masks are all known.

    Args:
        generated_NMHW: what the segmenter sees in each image, as probabilities of the judged classes.
        real_NMHW: what it sees in the real photograph of each image's mask.
        coverage_NMHW: the masks.
        mask_N: the number of each image's mask; images of one mask stay together in the bootstrap.
        thresholds_M: a pixel counts as found from this probability on.

    Raises ValueError for fewer than two masks, among which none could be taken for another.
    """
    masks = np.unique(mask_N)
    if len(masks) < 2:
        raise ValueError(f"masks: {len(masks)}; two at least, so that one can be held against the other")
    other = torch.from_numpy(_others(mask_N, seed))
    right, real, wrong = (
        [looked_at(p[:, m], coverage[:, m], float(thresholds_M[m])) for m in range(coverage_NMHW.shape[1])]
        for p, coverage in (
            (generated_NMHW, coverage_NMHW),
            (real_NMHW, coverage_NMHW),
            (generated_NMHW, coverage_NMHW[other]),
        )
    )
    resamples = Resamples(len(mask_N), n_resamples, seed, mask_N, "masks")

    def estimate(make: Callable[[Callable[[list[Seen]], Statistic]], Statistic]) -> Of:
        return Of(resamples.estimate(make(_mean_dice)), resamples.estimate(make(_mean_precision)))

    return Following(
        generated=estimate(lambda mean: mean(right)),
        real=estimate(lambda mean: mean(real)),
        shuffled=estimate(lambda mean: mean(wrong)),
        share=estimate(lambda mean: _ratio(mean(right), mean(real))),
        gain=estimate(lambda mean: _less(mean(right), mean(wrong))),
    )


def _others(mask_N: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """(N,) for each image the first image of another mask: masks change places in a circle, in random order."""
    masks = np.random.default_rng(seed).permutation(np.unique(mask_N))
    first = {int(mask): int(np.flatnonzero(mask_N == mask)[0]) for mask in masks}
    follower = {int(mask): int(masks[(k + 1) % len(masks)]) for k, mask in enumerate(masks)}
    return np.array([first[follower[int(mask)]] for mask in mask_N])


def _mean_dice(classes: list[Seen]) -> Statistic:
    return lambda w_BN: np.nanmean([one.dice(w_BN) for one in classes], axis=0)


def _mean_precision(classes: list[Seen]) -> Statistic:
    return lambda w_BN: np.nanmean([one.binned(w_BN) for one in classes], axis=0)


def _ratio(a: Statistic, b: Statistic) -> Statistic:
    return lambda w_BN: a(w_BN) / b(w_BN)


def _less(a: Statistic, b: Statistic) -> Statistic:
    return lambda w_BN: a(w_BN) - b(w_BN)
