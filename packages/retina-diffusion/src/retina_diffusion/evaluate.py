"""The verb `evaluate`: whether images follow their masks, how they differ from real ones, whether they are copies, and
whether they help."""

from __future__ import annotations

import numpy as np
import torch

from retina_diffusion import drawn, features, saved, similarity, subject
from retina_diffusion.channels import Channel
from retina_diffusion.config import Config, EvaluateOptions
from retina_diffusion.features import Features
from retina_diffusion.frozen import Source
from retina_diffusion.judged import Real
from retina_diffusion.measures import Measures
from retina_diffusion.train import Material
from shared_core import records, report
from shared_core.cli import App
from shared_core.errors import UserError
from shared_core.runtime import Runtime
from shared_core.seeds import derive

LEAST = 4  # photographs of a split: two halves of two
MOST_SIDE = 256  # pixels, unless evaluation.size says otherwise
NEXT_TO_NONE = 2  # photographs that must show a class


def run(app: App, config: Config, options: EvaluateOptions) -> int:
    """Evaluate a model on a split and refresh the run's report.

    What could end it with an error is looked for before anything is drawn; what is known is written before graders are
    trained.
    """
    runtime = Runtime.start(config.runtime, config.seed)
    if runtime.world > 1:
        raise UserError("evaluate: runs in one process; start it without a launcher")
    who = subject.find(app, config, options, runtime)
    material, size, wanted = saved.material(who.run, who.config), side(config), config.evaluation
    require_enough(material, options)
    parts = {name: Real.load(material.store, material.part(name), size) for name in ("train", "val", "test")}
    real, train = parts[options.split], parts["train"]
    masked = real.take(evenly(real.masked, wanted.most_masks))
    some = real.take(evenly(np.arange(len(real.rows)), wanted.most_photographs))
    known = train.take(evenly(np.arange(len(train.rows)), wanted.training_photographs))
    classes, look = judged_classes(config, masked), pretrained(config, runtime.device)
    judge = saved.segmenter(who.run, config, material.fingerprint, train, parts["val"], runtime.device)

    def draw(like: Real, each: int, purpose: str) -> torch.Tensor:
        return drawn.draw(who, material.store, like.rows, each, derive(config.seed, purpose), size, purpose)

    of_masks = draw(masked, wanted.per_mask, "images of masks")
    of_some = draw(some, 1, "images of photographs")
    of_known = draw(known, 1, "images of training photographs")
    found = Measures(app.headline, who, options.split)
    found.add_following(judge, masked, of_masks, classes, len(train.masked))
    if options.crossed:
        found.add_crossed(masked, of_masks, classes)
    found.add_distances(look or features.of_segmenter(judge), some, of_some)
    others = [part for name, part in parts.items() if name != "train"]
    found.add_copies(train, others, [(masked, of_masks), (some, of_some)], (known, of_known))
    found.add_likeness(masked, of_masks)
    records.write_evaluation(who.run, options.split, found.about)
    if options.downstream:
        found.add_gain(train.take(train.graded), real.take(real.graded), draw)
        records.write_evaluation(who.run, options.split, found.about)
    print(report.write([who.run.path], headline=app.headline))
    return 0


def side(config: Config) -> int:
    """Pixels of a side at which images are judged. Raises UserError where they are too few to compare."""
    found = config.evaluation.size or min(config.data.size, MOST_SIDE)
    if found < similarity.WINDOW:
        raise UserError(f"data.size: {found}; images are judged from {similarity.WINDOW} pixels of a side on")
    return found


def require_enough(material: Material, options: EvaluateOptions) -> None:
    """Raises UserError where a split has too few photographs for what is to be measured."""
    for name in ("train", options.split):
        if (count := len(material.parts[name])) < LEAST:
            key = "data.source" if name == "train" else f"split.{name}"
            raise UserError(f"{key}: {count} photographs in {name}; evaluate needs {LEAST} at least")
    if options.crossed and (count := sum(bool(row["masks"]) for row in material.part(options.split))) < LEAST:
        raise UserError(f"--crossed: {count} photographs of {options.split} have masks; it needs {LEAST}; leave it out")
    if options.downstream:
        learnt, asked = ({row["grade"] for row in material.part(name)} - {None} for name in ("train", options.split))
        if len(learnt) < 2 or not asked:
            raise UserError(
                f"--downstream: needs photographs with grades, of two at least in train, which has {len(learnt)}, and "
                f"of one in {options.split}, which has {len(asked)}; leave it out"
            )


def judged_classes(config: Config, masked: Real) -> tuple[Channel, ...]:
    """The classes that are looked for. Raises UserError where there is none that two photographs show."""
    rows = masked.rows
    wanted = config.evaluation.classes or tuple(name for name in config.model.channels if name != "FOV")
    shown = tuple(
        name for name in wanted if sum(name in row["present"] and name in row["masks"] for row in rows) >= NEXT_TO_NONE
    )
    if config.evaluation.classes and (missing := set(wanted) - set(shown)):
        raise UserError(f"evaluation.classes: fewer than two of these photographs have {', '.join(sorted(missing))}")
    if not shown:
        raise UserError(
            "evaluate: fewer than two photographs of this split show a class of their masks that the "
            "network sees (model.channels); no image could be said to follow one"
        )
    return shown


def pretrained(config: Config, device: torch.device) -> Features | None:
    """The network that sees images for FID and KID; None where that is the segmenter.

    Raises UserError where it cannot be loaded.
    """
    if config.evaluation.features == features.SEGMENTER:
        return None
    return features.load(Source.of(features.KEY, config.evaluation.features), device)


def evenly(rows: np.ndarray, most: int | None) -> np.ndarray:
    """Some of many rows, at equal distances."""
    if most is None or len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(int)]
