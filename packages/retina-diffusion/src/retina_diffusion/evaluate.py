"""The verb `evaluate`: whether images follow their masks, how they differ from real ones, whether they are copies, and
whether they help."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from retina_diffusion import (
    distances,
    downstream,
    features,
    fidelity,
    figures,
    following,
    memorisation,
    saved,
    similarity,
    subject,
    tables,
)
from retina_diffusion.channels import CHANNELS
from retina_diffusion.config import Config, EvaluateOptions
from retina_diffusion.judged import Real
from retina_diffusion.orders import orders
from retina_diffusion.segmenter import Segmenter
from retina_diffusion.subject import Trained
from shared_core import records, report
from shared_core.cli import App
from shared_core.errors import UserError
from shared_core.progress import Bar, message
from shared_core.runtime import Runtime

About = dict[str, Any]
FOLLOWING = (
    "mask_fidelity is the mean average precision over the classes {}, of a segmenter trained on {} real photographs "
    "that looks for them in generated images; mask_fidelity_share is that of its score on the real photographs of the "
    "same masks"
)
DISTANCES = (
    "FID and KID are of the segmenter's features, not of Inception's: compare them with their floor, real against "
    "real, and with runs that were judged by the same segmenter; never with numbers in papers"
)
PAIRED = "PSNR and SSIM compare an image with the photograph whose masks it was drawn from: a likeness, no quality"


def run(app: App, config: Config, options: EvaluateOptions) -> int:
    """Evaluate a model on a split and refresh the run's report."""
    runtime = Runtime.start(config.runtime, config.seed)
    if runtime.world > 1:
        raise UserError("evaluate: runs in one process; start it without a launcher")
    who = subject.find(app, config, options, runtime)
    material = saved.material(who.run, who.config)
    parts = {
        name: Real.load(material.store, material.part(name), config.data.size) for name in ("train", "val", "test")
    }
    real = parts[options.split]
    classes = judged_classes(config, real)
    judge = segmenter(who, parts)
    about: About = {"checkpoint": who.checkpoint, "headline": app.headline}
    about |= {"metrics": {}, "baselines": {}, "tables": {}, "figures": [], "notes": []}
    masked = real.take(_evenly(real.masked, config.evaluation.most_masks))
    drawn = draw(who, masked, config.evaluation.per_mask, "images of masks")
    add_following(about, who, judge, masked, drawn, classes, len(parts["train"].masked), options.split)
    some = real.take(_evenly(np.arange(len(real.rows)), config.evaluation.most_photographs))
    once = draw(who, some, 1, "images of photographs")
    add_distances(about, judge, real, once, config.seed)
    add_copies(about, who, torch.cat([drawn, once]), parts, options.split)
    add_likeness(about, masked, drawn, config.evaluation.per_mask)
    if options.downstream:
        add_gain(about, who, parts, real)
    about["n"] = len(masked.rows)
    about["figures"] = [f"figures/{path.name}" for path in about["figures"]]
    records.write_evaluation(who.run, options.split, about)
    print(report.write([who.run.path], headline=app.headline))
    return 0


def judged_classes(config: Config, real: Real) -> tuple[str, ...]:
    """The classes that are looked for. Raises UserError where there is none that two photographs show."""
    wanted = config.evaluation.classes or tuple(name for name in config.model.channels if name != "FOV")
    shown = [name for name in wanted if sum(name in row["present"] and name in row["masks"] for row in real.rows) > 1]
    if config.evaluation.classes and (missing := set(wanted) - set(shown)):
        raise UserError(f"evaluation.classes: fewer than two of these photographs have {', '.join(sorted(missing))}")
    if not shown:
        raise UserError("evaluate: fewer than two photographs of this split have masks; no image could follow one")
    return tuple(shown)


def _evenly(rows: np.ndarray, most: int | None) -> np.ndarray:
    """Some of many rows, at equal distances."""
    if most is None or len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(int)]


def segmenter(who: Trained, parts: dict[str, Real]) -> Segmenter:
    """The judge: trained on real photographs of the training split, and kept in the run for the next evaluation."""
    return saved.segmenter(who.run, who.config, parts["train"], parts["val"], who.runtime.device)


@torch.no_grad()
def draw(who: Trained, real: Real, each: int, what: str) -> torch.Tensor:
    """(N R, 3, H, W) images like each photograph, R of the first, R of the second, ...; on the CPU."""
    wanted, size = who.config.sampling, len(real.rows) * each
    who.hear(row["text"] for row in real.rows)
    found = []
    with Bar(size, who.config.logging.progress, what, unit="images") as bar:
        for start in range(0, size, wanted.batch_size):
            numbers = range(start, min(size, start + wanted.batch_size))
            asked = [_sample(who, real, number // each) for number in numbers]
            found.append(who.draw(who.condition(asked), list(numbers), who.config.seed, wanted).x_B)
            bar.update(numbers.stop)
    return torch.cat(found)


def _sample(who: Trained, real: Real, row: int) -> dict[str, torch.Tensor]:
    mask = (255 * real.mask[row]).round().to(torch.uint8)
    image = torch.zeros(3, *mask.shape[1:], dtype=torch.uint8)
    return who.sample(image, mask, real.known[row], real.rows[row]["text"])


def seen(judge: Segmenter, images: torch.Tensor) -> torch.Tensor:
    """(N, M, H, W) what the segmenter finds, as probabilities on the CPU."""
    device = next(judge.parameters()).device
    return torch.cat([judge.probabilities(part.to(device)).cpu() for part in images.split(64)])


def add_following(
    about: About,
    who: Trained,
    judge: Segmenter,
    masked: Real,
    drawn: torch.Tensor,
    classes: tuple[str, ...],
    trained_on: int,
    split: str,
) -> None:
    """Whether images follow their masks."""
    each, config = len(drawn) // len(masked.rows), who.config
    of_drawn, of_real = seen(judge, drawn), seen(judge, masked.image)
    limits = judge.thresholds.cpu()
    chosen = [CHANNELS.index(name) for name in classes]
    whole = masked.known[:, chosen].all(dim=1).nonzero().flatten().numpy()
    mask_N = np.repeat(np.arange(len(masked.rows)), each)
    rows = np.flatnonzero(np.isin(mask_N, whole))
    found = following.follow(
        of_drawn[rows][:, chosen],
        of_real[mask_N[rows]][:, chosen],
        masked.mask[mask_N[rows]][:, chosen],
        mask_N[rows],
        limits[chosen],
        config.seed,
    )
    about["metrics"] |= tables.following(found)
    about["baselines"] |= tables.beside(found)
    repeated = masked.mask[mask_N], masked.known[mask_N]
    by_class = {
        "generated": fidelity.fidelity(of_drawn, *repeated, limits, config.seed, groups=mask_N),
        "real": fidelity.fidelity(of_real, masked.mask, masked.known, limits, config.seed),
    }
    about["tables"]["How well each class follows its mask"] = tables.by_class(by_class, classes)
    about["notes"].append(FOLLOWING.format(", ".join(classes), trained_on))
    about["figures"].append(figures.samples(masked, drawn, of_drawn, each, split, who.run.figures))


def add_distances(about: About, judge: Segmenter, real: Real, drawn: torch.Tensor, seed: int) -> None:
    """FID and KID beside what real photographs have among themselves."""
    device = next(judge.parameters()).device
    look = features.of_segmenter(judge)
    of_real, of_drawn = (features.extract(look, images.to(device)) for images in (real.image, drawn))
    found = {
        name: distances.beside(of_drawn, of_real, seed, distance)
        for name, distance in (("FID", distances.frechet), ("KID", distances.kernel))
    }
    about["tables"]["Distance of generated images from real ones"] = tables.distances(found)
    about["metrics"] |= {
        "kid": distances.kernel_interval(of_drawn, of_real, seed).as_dict(),
        "fid": distances.frechet_interval(of_drawn, of_real, seed).as_dict(),
    }
    about["notes"].append(DISTANCES)


def add_copies(about: About, who: Trained, drawn: torch.Tensor, parts: dict[str, Real], split: str) -> None:
    """How many images are training photographs, or nearly."""
    others = torch.cat([part.image for name, part in parts.items() if name != "train"])
    found = memorisation.memorisation(drawn, parts["train"].image, others)
    about["metrics"]["memorised"] = found.share.as_dict()
    about["notes"].append(
        f"memorised: of {len(drawn):,} images; nearer to a training photograph, compared with its next ones, than 1 % "
        f"of the {len(others):,} real photographs that were not trained on are"
    )
    about["figures"].append(figures.closest(found, drawn, parts["train"].image, split, who.run.figures))


def add_likeness(about: About, masked: Real, drawn: torch.Tensor, each: int) -> None:
    """How much images of one mask differ from each other, and from its photograph."""
    of_masks = drawn.view(len(masked.rows), each, *drawn.shape[1:])
    varied = [similarity.diversity(images) for images in of_masks]
    paired = masked.image.repeat_interleave(each, dim=0)
    about["tables"]["Images of one mask"] = tables.likeness(
        varied, similarity.ssim(drawn, paired), similarity.psnr(drawn, paired)
    )
    about["notes"].append(PAIRED)


def add_gain(about: About, who: Trained, parts: dict[str, Real], real: Real) -> None:
    """Whether generated images help to train a grader."""
    config, device = who.config, who.runtime.device
    graded, test = parts["train"].take(parts["train"].graded), real.take(real.graded)
    wanted = orders(graded.rows, config.evaluation.generated, 1, "grade", config.seed)
    like = graded.take([order.row for order in wanted])
    made = draw(who, like, 1, "images for graders")
    message("training graders on real photographs, and on real and generated ones: three seeds of each")
    found = downstream.gain(
        graded.image.to(device),
        graded.grades.to(device),
        made.to(device),
        like.grades.to(device),
        test.image.to(device),
        test.grades.to(device),
        steps=config.evaluation.grader_steps,
    )
    about["tables"]["A grader with and without generated images"] = tables.gain(found)
    about["metrics"] |= {f"gain_{name}": one.gain.as_dict() for name, one in found.metrics.items()}
    about["notes"].append(
        f"graders: {len(graded.rows):,} real and {len(made):,} generated images for training, {len(test.rows):,} real "
        "ones for judging, equal steps, three seeds"
    )
