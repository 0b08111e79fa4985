"""Tables and metrics of an evaluation, as reports show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from retina_diffusion.channels import CHANNELS, WORDS
from retina_diffusion.distances import Beside, Spread
from retina_diffusion.downstream import Gain
from retina_diffusion.fidelity import Score
from retina_diffusion.following import Following, Of
from retina_diffusion.similarity import Diversity
from shared_core.intervals import Estimate

Rows = list[dict[str, Any]]


def following(found: Following) -> dict[str, Any]:
    """Metrics of how images follow their masks."""
    return {
        "mask_fidelity": found.generated.average_precision.as_dict(),
        "mask_fidelity_share": found.share.average_precision.as_dict(),
        "mask_dice": found.generated.dice.as_dict(),
        "mask_dice_share": found.share.dice.as_dict(),
    }


def beside(found: Following) -> dict[str, Any]:
    """What stands beside it: chance, and the best that can be asked."""

    def one(what: str, of: Of, difference: Of | None) -> dict[str, Any]:
        metrics = {"mask_fidelity": of.average_precision.as_dict(), "mask_dice": of.dice.as_dict()}
        if difference is None:
            return {"what": what, **metrics}
        less = {"mask_fidelity": difference.average_precision.as_dict(), "mask_dice": difference.dice.as_dict()}
        return {"what": what, **metrics, "differences": less}

    return {
        "masks shuffled": one("the same images, held against other photographs' masks", found.shuffled, found.gain),
        "real photographs": one("the real photographs of the same masks: the segmenter's own score", found.real, None),
    }


def by_class(scores: Mapping[str, Sequence[Score]], classes: Sequence[str]) -> Rows:
    """Each class that some photograph has, generated beside real."""
    rows = []
    for channel, name in enumerate(CHANNELS):
        if name == "FOV" or np.isnan(scores["real"][channel].prevalence) or not scores["real"][channel].prevalence:
            continue
        row: dict[str, Any] = {"class": f"{WORDS[name]} ({name})" + ("" if name in classes else ", not judged")}
        row["share of pixels"] = f"{scores['real'][channel].prevalence:.2%}"
        for kind in ("generated", "real"):
            one = scores[kind][channel]
            row |= {f"AP, {kind}": shown(one.average_precision), f"Dice, {kind}": shown(one.dice)}
        rows.append(row)
    return rows


def distances(found: Mapping[str, Beside]) -> Rows:
    """Generated against real, and real against real at the same size."""

    def over(spread: Spread) -> str:
        return f"{spread.mean:.4g} (range {spread.low:.4g}..{spread.high:.4g})"

    return [
        {
            "distance": name,
            "generated against real": over(one.generated),
            "real against real": over(one.floor),
            "images on each side": one.size,
            "draws": one.draws,
        }
        for name, one in found.items()
    ]


def likeness(varied: Sequence[Diversity], ssim_N: torch.Tensor, psnr_N: torch.Tensor) -> Rows:
    """Among images of one mask, and to its photograph."""
    return [
        {"what": "1 - SSIM between two images of one mask", "mean": _mean([one.dissimilarity for one in varied])},
        {
            "what": "difference between two images of one mask, RMS of -1..1",
            "mean": _mean([x.difference for x in varied]),
        },
        {"what": "SSIM with the photograph of the mask", "mean": _mean(ssim_N.tolist())},
        {"what": "PSNR with the photograph of the mask, dB", "mean": _mean(psnr_N.tolist())},
    ]


def gain(found: Gain) -> Rows:
    """Graders trained on real photographs, and with generated ones besides."""
    return [
        {
            "metric": name.replace("_", " "),
            "real": shown(one.real),
            "real and generated": shown(one.both),
            "gain": shown(one.gain),
            "gain by seed": ", ".join(f"{value:+.3f}" for value in one.by_seed),
        }
        for name, one in found.metrics.items()
    ]


def shown(estimate: Estimate) -> str:
    """Value and interval, short enough for a table."""
    if np.isnan(estimate.value):
        return estimate.method
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ({np.min(values):.3f}..{np.max(values):.3f})"
