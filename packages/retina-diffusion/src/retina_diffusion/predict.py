"""The verb `predict`: masks and texts -> images, with the masks that they were drawn from.

The folder is a data set: ``images/N.png``, ``masks/N_CHANNEL.png``, ``metadata/N.json`` (how each was drawn) and
``photographs.jsonl``, which `prepare` reads; and ``sheet.png``, some of it to look at. Images stay in the split of the
photographs whose masks they have; those of masks from elsewhere train. An interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from retina_diffusion import captions, drawings, photographs, pictures, prepare, sources, subject, train
from retina_diffusion.brightness import bytes_of, light
from retina_diffusion.channels import CHANNELS
from retina_diffusion.config import Config, PredictOptions
from retina_diffusion.orders import Order, orders
from retina_diffusion.photographs import Batch
from retina_diffusion.records import text
from retina_diffusion.subject import Trained
from shared_core import files, progress
from shared_core.cli import App
from shared_core.errors import UserError
from shared_core.runtime import Runtime

SETTINGS, LIST, SHEET = "settings.json", "photographs.jsonl", "sheet.png"
SHOWN = 10  # images on the sheet
FEW = 60  # images of a split, where nobody says how many


class Asked(NamedTuple):
    """The photographs whose masks and texts are asked for."""

    rows: list[dict[str, Any]]
    samples: list[Batch]  # what is asked of each
    origin: str  # the split that they are of, or the source
    split: str  # of a data set of the images
    fingerprint: str  # of what is in it


def run(app: App, config: Config, options: PredictOptions) -> int:
    """Draw the images that the options ask for."""
    runtime = Runtime.start(config.runtime, config.seed)
    if runtime.world > 1:
        raise UserError("predict: runs in one process; start it without a launcher")
    who = subject.find(app, config, options, runtime)
    asked = _asked(who, options)
    every = options.per_mask * len(asked.rows)
    count = options.count or (every if options.input else min(every, FEW))
    wanted = orders(asked.rows, count, options.per_mask, options.balance, who.config.seed)
    out = options.out or who.run.predictions / (options.input.stem if options.input else options.split)
    _settle(out, _settings(who, options, asked.fingerprint))
    left = [order for order in wanted if not (out / "metadata" / f"{_name(order)}.json").is_file()]
    if len(left) < len(wanted):
        progress.message(f"{out}: {len(wanted) - len(left):,} images are there already")
    with progress.Bar(
        len(wanted), config.logging.progress, "predict", start=len(wanted) - len(left), unit="images"
    ) as bar:
        for start in range(0, len(left), config.sampling.batch_size):
            part = left[start : start + config.sampling.batch_size]
            write(out, who, part, asked)
            bar.update(len(wanted) - len(left) + start + len(part))
    _list(out)
    _sheet(out, wanted)
    progress.message(f"{out}: {len(wanted):,} images like photographs of {asked.origin}; a look at them: {out / SHEET}")
    return 0


def write(out: Path, who: Trained, part: Sequence[Order], asked: Asked) -> None:
    """Draw some images and write each with its masks; what is known of it comes last."""
    samples = [asked.samples[order.row] for order in part]
    drawn = who.draw(who.condition(samples), [order.number for order in part], who.config.seed, who.config.sampling)
    for order, image, sample in zip(part, drawn.x_B, samples, strict=True):
        row, name = asked.rows[order.row], _name(order)
        height, width = sample["image"].shape[1:]
        shown = bytes_of(image[:, :height, :width])
        pictures.write(out / "images" / f"{name}.png", shown.permute(1, 2, 0).numpy())
        given = _masks(sample, who.config.model.channels)
        for channel, mask in given.items():
            pictures.write_coverage(out / "masks" / f"{name}_{channel}.png", mask)
        about = {
            "image_path": f"images/{name}.png",
            "caption": row["text"] or None,
            "mask_path": {channel: f"masks/{name}_{channel}.png" for channel in given} or None,
            "grade": row["grade"],
            "source": "generated",
            "split": asked.split,
            "metadata": {
                "like": row["name"],
                "like_of": asked.origin,
                "number": order.number,
                "seed": who.config.seed,
                "evaluations": drawn.evaluations,
                "model": f"{who.run.name}/{who.checkpoint}",
                **who.config.sampling.model_dump(mode="json", exclude={"batch_size"}),
            },
        }
        (out / "metadata").mkdir(parents=True, exist_ok=True)
        files.atomic_write(out / "metadata" / f"{name}.json", json.dumps(about, indent=1) + "\n")


def _masks(sample: Batch, seen: Sequence[str]) -> dict[str, np.ndarray]:
    """The known channels that the network sees; of any other, the mask would say nothing of the image."""
    return {
        channel: sample["mask"][k].numpy()
        for k, channel in enumerate(CHANNELS)
        if channel in seen and bool(sample["known"][k])
    }


def _asked(who: Trained, options: PredictOptions) -> Asked:
    """The photographs that the options mean."""
    if options.input is None:
        material = train.Material.load(who.config)
        origin, split = f"split {options.split}", options.split
        fingerprint, rows = material.fingerprint, material.part(split)
        if options.only_with_masks:
            rows = [row for row in rows if row["masks"]]
        pixels = [material.store.read(*row["place"]) for row in rows]
    else:
        data = who.config.data.model_copy(
            update={
                "source": str(options.input),
                "layout": options.input_layout,
                "train_data_path": None,
                "val_data_path": None,
            }
        )
        items = sources.items(data, alone=True)
        origin, split, fingerprint = str(options.input), "train", sources.fingerprint(items)
        framed = [prepare.frame(item, data) for item in items]
        rows = [{**one.facts, "text": text(one.facts["caption"], one.facts["grade"])} for one in framed]
        pixels = [(torch.from_numpy(one.image), torch.from_numpy(one.mask)) for one in framed]
    if not rows:
        raise UserError(f"--split {options.split}: no photograph of it has masks; leave out --only_with_masks")
    rows = [_told(row, options) for row in rows]
    if options.caption is not None:
        _require_known(who, options.caption)
    who.hear(row["text"] for row in rows)
    samples = []
    for row, (image, mask) in zip(rows, pixels, strict=True):
        known = photographs.known_of(row)
        known = torch.zeros_like(known) if options.without_masks else known
        samples.append(who.sample(image, mask, known, row["text"]))
    return Asked(rows, samples, origin, split, fingerprint)


def _require_known(who: Trained, caption: str) -> None:
    """Say which words of a caption the model never saw. Raises UserError where these are all."""
    if who.captions is not None:  # a text model knows all words
        return
    vocabulary = who.vocabulary
    unknown, said = vocabulary.unknown(caption), captions.words(caption)
    if said and len(unknown) == len(said[: vocabulary.tokens]):
        shown = ", ".join(vocabulary.words[:12]) + (", ..." if len(vocabulary.words) > 12 else "")
        raise UserError(f"--caption: the model knows none of these words; training taught it: {shown or 'none'}")
    if unknown:
        progress.message(f"--caption: words that training never showed say nothing: {', '.join(unknown)}")


def _told(row: dict[str, Any], options: PredictOptions) -> dict[str, Any]:
    """A row with the caption or grade of the options instead of its own."""
    if options.caption is not None:
        return {**row, "text": options.caption, "grade": options.grade}
    if options.grade is not None:
        return {**row, "text": text(None, options.grade), "grade": options.grade}
    return row


def _settings(who: Trained, options: PredictOptions, fingerprint: str) -> dict[str, Any]:
    """All that decides what image N looks like."""
    told = options.model_dump(mode="json", exclude={"out", "count", "run", "from_hub", "checkpoint"})
    sampling = who.config.sampling.model_dump(mode="json", exclude={"batch_size"})
    named = {"run": who.run.name, "checkpoint": who.checkpoint, "seed": who.config.seed, "data": fingerprint}
    return {**named, **told, "sampling": sampling}


def _settle(out: Path, settings: dict[str, Any]) -> None:
    """Make the folder, or find that it was begun with the same settings. Raises UserError where they are others."""
    path = out / SETTINGS
    try:
        there = json.loads(path.read_text()) if path.is_file() else None
    except ValueError:
        there = {}
    if there is None:
        out.mkdir(parents=True, exist_ok=True)
        files.atomic_write(path, json.dumps(settings, indent=1) + "\n")
    elif changed := sorted(key for key in {*there, *settings} if there.get(key) != settings.get(key)):
        raise UserError(f"{out}: holds images that were drawn with another {', '.join(changed)}; give another --out")


def _name(order: Order) -> str:
    return f"{order.number:06d}"


def _list(out: Path) -> None:
    """All images that are there, also those that an earlier, larger count has drawn."""
    rows = [json.loads(path.read_text()) for path in sorted((out / "metadata").glob("*.json"))]
    files.atomic_write(out / LIST, "".join(json.dumps(row) + "\n" for row in rows))


def _sheet(out: Path, wanted: Sequence[Order]) -> None:
    """Some images below the masks that they were drawn from."""
    chosen = wanted[:: max(1, len(wanted) // SHOWN)][:SHOWN]
    images, masks, known = [], [], []
    for order in chosen:
        about = json.loads((out / "metadata" / f"{_name(order)}.json").read_text())
        image = light(torch.from_numpy(pictures.read(out / about["image_path"]).copy()).permute(2, 0, 1))
        given = about["mask_path"] or {}
        empty = np.zeros(image.shape[1:], np.float32)
        masks.append(torch.from_numpy(np.stack([
            np.asarray(Image.open(out / given[channel]), np.float32) / 255 if channel in given else empty
            for channel in CHANNELS
        ])))  # fmt: skip
        known.append(torch.tensor([channel in given for channel in CHANNELS]))
        images.append(image)
    same = [k for k, image in enumerate(images) if image.shape == images[0].shape]
    picture = drawings.sheet(
        [
            drawings.coloured(torch.stack([masks[k] for k in same]), torch.stack([known[k] for k in same])),
            torch.stack([images[k] for k in same]),
        ]
    )
    pictures.write(out / SHEET, picture.numpy())
