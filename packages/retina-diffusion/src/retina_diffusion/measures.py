"""What an evaluation says of images: metrics, what stands beside them, tables, figures, notes.

Shapes: N images of P photographs or masks, R of each; M channels, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from retina_diffusion import (
    crossed,
    distances,
    downstream,
    features,
    fidelity,
    figures,
    following,
    judged,
    memorisation,
    similarity,
    tables,
)
from retina_diffusion.brightness import light
from retina_diffusion.channels import CHANNELS, Channel
from retina_diffusion.features import Features
from retina_diffusion.following import Following
from retina_diffusion.judged import Real
from retina_diffusion.memorisation import Memory
from retina_diffusion.orders import orders
from retina_diffusion.segmenter import Segmenter
from retina_diffusion.subject import Trained
from shared_core.intervals import proportion
from shared_core.progress import message
from shared_core.seeds import derive

Draw = Callable[[Real, int, str], torch.Tensor]  # what images are like, how many of each, for what
Images = tuple[Real, torch.Tensor]  # photographs and images like them, (N, 3, S, S) bytes
SEEDS = (0, 1, 2)  # of graders
FOLLOWING = (
    "mask_fidelity is the mean average precision over the classes {}, of a segmenter trained on {} real photographs "
    "that looks for them in generated images; mask_fidelity_share is that of its score on the real photographs of the "
    "same masks. The generator learned from the same photographs as the segmenter: images that repeat these are easier "
    "to read for it than new photographs are, so the share flatters a generator that learned by heart (see memorised)"
)
CROSSED = (
    "mask_fidelity_crossed: the same, by two segmenters that learned from one half of these {} photographs each, which "
    "the generator never saw, and look at the other half and at images of its masks; few photographs make weak judges: "
    "compare with the real photographs beside it"
)
DISTANCES = (
    "FID and KID are of the features of {}, not of Inception's: compare them with their floor, real against real, and "
    "with runs that were judged by the same network; never with numbers in papers. Both sides have {} photographs, "
    "halves of {}; images stand against other photographs than those whose masks they were drawn from"
)
COPIES = (
    "memorised: nearer to a training photograph, moved or mirrored, compared with its next ones, than 1 % of the {} "
    "real photographs are that were not trained on. memorised_of_training: the same of {} images of masks and texts of "
    "training photographs, where copies come out first. An image that follows a photograph's masks is like it by that "
    "alone: how much, the photographs of {} show, which no image can be a copy of"
)
PAIRED = "PSNR and SSIM compare an image with the photograph whose masks it was drawn from: a likeness, no quality"
GRADERS = (
    "graders: {} real photographs for training, with and without {} generated ones, another set for each of three "
    "seeds; {} real ones for judging; equal steps"
)


class Measures:
    """The evaluation of one run on one split, as `records.write_evaluation` takes it."""

    def __init__(self, headline: str, who: Trained, split: str) -> None:
        self.who, self.split = who, split
        self.about: dict[str, Any] = {"checkpoint": who.checkpoint, "headline": headline, "n": 0, "metrics": {}}
        self.about |= {"baselines": {}, "tables": {}, "figures": [], "notes": []}

    def add_following(
        self, judge: Segmenter, masked: Real, images: torch.Tensor, classes: Sequence[Channel], trained_on: int
    ) -> None:
        """Whether images follow their masks."""
        each, seed = len(images) // len(masked.rows), self.who.config.seed
        device, limits = next(judge.parameters()).device, judge.thresholds.cpu()
        of_images, of_real = (judged.each(judge.probabilities, x, device) for x in (images, masked.pixels))
        mask, mask_N = masked.mask, _masks_of(masked, images)
        found = self._followed(masked, of_images, of_real, limits, classes)
        by_class = {
            "generated": fidelity.fidelity(of_images, mask[mask_N], masked.known[mask_N], limits, seed, groups=mask_N),
            "real": fidelity.fidelity(of_real, mask, masked.known, limits, seed),
        }
        self.about["n"] = len(masked.rows)
        self.about["metrics"] |= tables.following(found)
        self.about["baselines"] |= tables.beside(found)
        self.about["tables"]["How well each class follows its mask"] = tables.by_class(by_class, classes)
        self.about["notes"].append(FOLLOWING.format(", ".join(classes), trained_on))
        self._figure(figures.samples(masked, images, of_images, each, self.split, self.who.run.figures))

    def add_crossed(self, masked: Real, images: torch.Tensor, classes: Sequence[Channel]) -> None:
        """Whether images follow their masks for segmenters that share no photograph with the generator."""
        config, device = self.who.config, self.who.runtime.device
        message(f"training two segmenters, on one half each of the {len(masked.rows)} photographs with masks")
        of_images, of_real = crossed.seen(masked, images, config.seed, config.evaluation.segmenter_steps, device)
        unused = torch.full((len(CHANNELS),), 0.5)  # thresholds are for Dice, and the two segmenters have their own
        found = self._followed(masked, of_images, of_real, unused, classes)
        key, baselines = "mask_fidelity_crossed", self.about["baselines"]
        self.about["metrics"][key] = found.generated.average_precision.as_dict()
        self.about["metrics"][f"{key}_share"] = found.share.average_precision.as_dict()
        baselines["real photographs"][key] = found.real.average_precision.as_dict()
        baselines["masks shuffled"][key] = found.shuffled.average_precision.as_dict()
        baselines["masks shuffled"]["differences"][key] = found.gain.average_precision.as_dict()
        self.about["notes"].append(CROSSED.format(len(masked.rows)))

    def _followed(
        self,
        masked: Real,
        of_images: torch.Tensor,
        of_real: torch.Tensor,
        limits_M: torch.Tensor,
        classes: Sequence[Channel],
    ) -> Following:
        """How images follow some classes of their masks, by what a segmenter sees in them and in photographs."""
        chosen = [CHANNELS.index(name) for name in classes]
        return following.follow(
            of_images[:, chosen],
            of_real[:, chosen],
            masked.mask[:, chosen],
            masked.known[:, chosen],
            _masks_of(masked, of_images),
            limits_M[chosen],
            self.who.config.seed,
        )

    def add_distances(self, look: Features, real: Real, images: torch.Tensor) -> None:
        """FID and KID beside what real photographs have among themselves; one image like each photograph."""
        config, device = self.who.config, self.who.runtime.device
        of_images, of_real = (judged.each(look, x, device).double().numpy() for x in (images, real.pixels))
        found = {
            name: distances.beside(of_images, of_real, config.seed, distance, interval)
            for name, distance, interval in (
                ("FID", distances.frechet, distances.frechet_interval),
                ("KID", distances.kernel, distances.kernel_interval),
            )
        }
        self.about["tables"]["Distance of generated images from real ones"] = tables.distances(found)
        self.about["metrics"] |= {name.lower(): one.estimate.as_dict() for name, one in found.items()}
        self.about["baselines"]["real against real"] = {
            "what": "one half of the real photographs against the other",
            **{name.lower(): one.floor_estimate.as_dict() for name, one in found.items()},
        }
        seen_by = "the segmenter" if config.evaluation.features == features.SEGMENTER else config.evaluation.features
        self.about["notes"].append(DISTANCES.format(seen_by, found["FID"].size, len(real.rows)))

    def add_copies(self, train: Real, others: Sequence[Real], held_out: Sequence[Images], known: Images) -> None:
        """How many images are training photographs, or nearly.

        Args:
            others: real photographs that were not trained on.
            held_out: images like photographs that were not trained on.
            known: images like training photographs.
        """
        training, real = self._small(train.pixels), torch.cat([self._small(one.pixels) for one in others])
        try:
            memory = Memory(training, real, self.who.config.augment.shift)
        except ValueError as error:  # what has been drawn still tells other things
            self.about["notes"].append(f"memorised: not measured: {error}")
            return
        images = torch.cat([one for _, one in held_out])
        groups = np.concatenate([_photographs(like, one) for like, one in held_out])
        of_held_out = memory.judge(self._small(images), groups, "photographs")
        of_training = memory.judge(self._small(known[1]), _photographs(*known), "photographs")
        self.about["metrics"]["memorised"] = of_held_out.share.as_dict()
        self.about["metrics"]["memorised_of_training"] = of_training.share.as_dict()
        like, one = held_out[-1]
        own = memorisation.nearest(self._small(one), self._small(like.pixels), self.who.config.augment.shift)
        by_masks = proportion(own.ratio < memory.limit, _photographs(like, one), "photographs")
        self.about["baselines"][f"photographs of {self.split}"] = {
            "what": "images of their masks and texts held against these photographs, which the model never saw",
            "memorised_of_training": by_masks.as_dict(),
        }
        self.about["notes"].append(COPIES.format(f"{len(real):,}", len(known[1]), self.split))
        for found, seen, name in ((of_held_out, images, self.split), (of_training, known[1], "train")):
            path = self.who.run.figures / f"{self.split}_closest{'_of_training' if name == 'train' else ''}.png"
            self._figure(figures.closest(found, seen, train.pixels, path, f"masks of {name}"))

    def add_likeness(self, masked: Real, images: torch.Tensor) -> None:
        """How much images of one mask differ from each other, and from its photograph."""
        varied, ssim, psnr = [], [], []
        for own, photograph in zip(images.view(len(masked.rows), -1, *images.shape[1:]), masked.pixels, strict=True):
            images_of_it, beside = light(own), light(photograph).expand(len(own), -1, -1, -1)
            varied.append(similarity.diversity(images_of_it))
            ssim.append(similarity.ssim(images_of_it, beside))
            psnr.append(similarity.psnr(images_of_it, beside))
        self.about["tables"]["Images of one mask"] = tables.likeness(varied, torch.cat(ssim), torch.cat(psnr))
        self.about["notes"].append(PAIRED)

    def add_gain(self, graded: Real, test: Real, draw: Draw) -> None:
        """Whether generated images help to train a grader; `graded` and `test` are photographs with grades."""
        config, device = self.who.config, self.who.runtime.device
        sets = []
        for seed in SEEDS:
            wanted = orders(graded.rows, config.evaluation.generated, 1, "grade", derive(config.seed, "graders", seed))
            like = graded.take([order.row for order in wanted])
            made = draw(like, 1, f"images for graders, {seed + 1} of {len(SEEDS)}")
            sets.append((light(made).to(device), like.grades.to(device)))
        message("training graders on real photographs, and on real and generated ones: three seeds of each")
        found = downstream.gain(
            graded.image.to(device),
            graded.grades.to(device),
            sets,
            test.image.to(device),
            test.grades.to(device),
            seeds=SEEDS,
            steps=config.evaluation.grader_steps,
        )
        self.about["tables"]["A grader with and without generated images"] = tables.gain(found)
        self.about["metrics"] |= {f"gain_{name}": one.gain.as_dict() for name, one in found.metrics.items()}
        self.about["notes"].append(GRADERS.format(len(graded.rows), len(sets[0][1]), len(test.rows)))

    def _small(self, pixels: torch.Tensor) -> torch.Tensor:
        """As copies are looked for, on the device."""
        device = self.who.runtime.device
        return judged.each(memorisation.small, pixels, device).to(device)

    def _figure(self, path: Any) -> None:
        self.about["figures"].append(f"figures/{path.name}")


def _masks_of(masked: Real, images: torch.Tensor) -> np.ndarray:
    """(N,) the row of each image's masks; images of one stand together."""
    return np.repeat(np.arange(len(masked.rows)), len(images) // len(masked.rows))


def _photographs(like: Real, images: torch.Tensor) -> np.ndarray:
    """(N,) which photograph each image is like, the same number for the same one everywhere."""
    places = [1_000_000 * row["place"][0] + row["place"][1] for row in like.rows]
    return np.repeat(places, len(images) // len(like.rows))
