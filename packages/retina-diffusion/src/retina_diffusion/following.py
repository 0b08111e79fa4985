"""Whether images follow their masks, in one number over several classes, beside two yardsticks.

A segmenter that has learned from real photographs looks for each class in the generated images of a mask. What it finds
is compared with that mask; with what it finds in the real photograph of that mask, which is the best that can be asked;
and with the mask of another photograph, which is what chance and the anatomy that all eyes share would give. A class is
judged in the images whose masks were searched for it.

Shapes: N generated images of P masks, M channels, H x W pixels, B bootstrap resamples.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from retina_diffusion.fidelity import Seen, looked_at, moved
from shared_core.intervals import Estimate, Floats, Resamples


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
    real_PMHW: torch.Tensor,
    coverage_PMHW: torch.Tensor,
    known_PM: torch.Tensor,
    mask_N: NDArray[np.int64],
    thresholds_M: torch.Tensor,
    seed: int,
    n_resamples: int = 1000,
) -> Following:
    """Judge images of masks.

    Args:
        generated_NMHW: what the segmenter sees in each image, as probabilities of the judged classes.
        real_PMHW: what it sees in the real photograph of each mask.
        coverage_PMHW: the masks.
        known_PM: what is False is left out, mask by mask and class by class.
        mask_N: each image's mask, in 0..P-1; images of one mask stay together in the bootstrap.
        thresholds_M: a pixel counts as found from this probability on.

    Raises ValueError for a class that is known in fewer than two masks, of which none could be taken for another.
    """
    right, real, wrong = [], [], []
    for m, threshold in enumerate(thresholds_M.tolist()):
        rows = np.flatnonzero(known_PM[:, m].cpu().numpy()[mask_N])
        own = mask_N[rows]
        if len(masks := np.unique(own)) < 2:
            raise ValueError(f"masks: {len(masks)} of class {m}; two at least, so that one can be taken for the other")
        of_drawn, other = generated_NMHW[rows, m], own[others(own, seed)]
        right.append(_Class(rows, looked_at(of_drawn, coverage_PMHW[own, m], threshold)))
        real.append(_Class(rows, looked_at(real_PMHW[own, m], coverage_PMHW[own, m], threshold)))
        wrong.append(_Class(rows, looked_at(of_drawn, coverage_PMHW[other, m], threshold)))
    resamples = Resamples(len(mask_N), n_resamples, seed, mask_N, "masks")

    def of(combine: Callable[..., Floats], *kinds: list[_Class]) -> Of:
        """A function of the means of some kinds of images, of Dice and of average precision."""
        dice = resamples.estimate(lambda w_BN: combine(*(_mean([one.dice(w_BN) for one in kind]) for kind in kinds)))
        binned = resamples.estimate(lambda w_BN: combine(*(_mean([one.area(w_BN) for one in kind]) for kind in kinds)))
        with np.errstate(invalid="ignore", divide="ignore"):  # a share of nothing is NaN, and said to be
            exact = combine(*(_mean([one.seen.average_precision for one in kind]) for kind in kinds))
        return Of(dice, moved(binned, float(exact)))

    return Following(
        generated=of(lambda a: a, right),
        real=of(lambda a: a, real),
        shuffled=of(lambda a: a, wrong),
        share=of(lambda a, b: a / b, right, real),
        gain=of(lambda a, b: a - b, right, wrong),
    )


class _Class(NamedTuple):
    """One class in the images that were searched for it."""

    rows: NDArray[np.int64]
    seen: Seen

    def dice(self, w_BN: Floats) -> Floats:
        return self.seen.dice(w_BN[:, self.rows])

    def area(self, w_BN: Floats) -> Floats:
        return self.seen.binned(w_BN[:, self.rows])


def _mean(classes: Sequence[ArrayLike]) -> Floats:
    """Over the classes; those that a resample does not show have no say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a resample that shows none is NaN
        found: Floats = np.nanmean(np.asarray(classes), axis=0)
    return found


def others(mask_N: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """(N,) for each image the first image of another mask: masks change places in a circle, in random order."""
    masks = np.random.default_rng(seed).permutation(np.unique(mask_N))
    first = {int(mask): int(np.flatnonzero(mask_N == mask)[0]) for mask in masks}
    follower = {int(mask): int(masks[(k + 1) % len(masks)]) for k, mask in enumerate(masks)}
    return np.array([first[follower[int(mask)]] for mask in mask_N])
