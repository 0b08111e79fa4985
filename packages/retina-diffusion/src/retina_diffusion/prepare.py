"""The verb `prepare`: photographs, masks and texts of a source -> a prepared set.

A prepared set is a folder with the pixels (`store`), ``photographs.json`` (a row for each photograph, each once), and
``dataset.json``, which is written last and says what the set was made from, how many there are of each grade, class and
split, and which photographs were found to be the same. Parts are not in it: `division.divide` gives the same ones
again. Beside these, in folders of their own, lies what training computes first (`precomputed`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retina_diffusion import division, duplicates, framing, merging, sources, store
from retina_diffusion.channels import CHANNELS, WORDS
from retina_diffusion.data_config import Data, Split
from retina_diffusion.records import text
from retina_diffusion.sources import Item, Photograph, Taken
from retina_diffusion.store import Framed
from shared_core import files, prepared, progress
from shared_core.errors import UserError

if TYPE_CHECKING:
    from retina_diffusion.config import Config, PrepareOptions
    from shared_core.cli import App
    from shared_core.settings import Paths

PACKAGE = "retina-diffusion"
READER = 4  # raise it when the same source and settings give another set
PHOTOGRAPHS = "photographs.json"
STRETCH = 1.1  # change of the aspect ratio that is worth a note
MOST_COVERED = 0.5  # share of a photograph that no class but the field of view covers
SHOWN = 8  # pairs of the same photograph that are named
FILE_BYTES = 128 * 2**20  # of pixels in one file
Row = dict[str, Any]


def run(app: App, config: Config, options: PrepareOptions | None) -> int:
    """Prepare the set that the data section describes."""
    data = config.data.sample() if options is not None and options.sample else config.data
    prepare(data, config.split, folder_of(config.paths, data), bar=config.logging.progress)
    if options is not None and options.latents:
        _precompute(config.model_copy(update={"data": data}))
    return 0


def _precompute(config: Config) -> None:
    """What training would compute first. Raises UserError where that is nothing."""
    from retina_diffusion import train  # torch and the networks' libraries take seconds
    from shared_core.runtime import Runtime

    if config.model.space == "pixels" and config.text.encoder == "words":
        raise UserError("prepare --latents: goes with model.space latents or text.encoder hub; leave it out")
    runtime = Runtime.start(config.runtime, config.seed)
    train.ready(train.Material.load(config).precomputed(config), runtime, config.logging.progress)


def prepare(data: Data, split: Split, folder: Path, bar: bool = True) -> dict[str, Any]:
    """Write the set into `folder`, unless it is there; returns its manifest.

    Raises:
        UserError: a photograph or a mask cannot be used (`sources`), a part would be empty, or the disk is full.
    """
    found = sources.items(data)
    origin = {"photographs": sources.fingerprint(found)}
    mark = prepared.fingerprint(origin, settings(data))
    current = prepared.is_current(folder, mark)
    if current:
        manifest = prepared.read_manifest(folder)
        if manifest["counts"]["split"] == split.model_dump(mode="json"):
            progress.message(f"{folder}: up to date")
            return manifest
    elif (folder / prepared.NAME).exists():
        _refuse_another(folder, data)
        reasons = "; ".join(prepared.changes(folder, origin, settings(data))) or "its files have changed"
        progress.message(f"{folder}: stale, preparing it again: {reasons}")
    per_file = max(1, FILE_BYTES // ((3 + len(CHANNELS)) * data.size**2))
    numbers = range(-(-len(found) // per_file))
    files.require_space(
        folder, len(found) * ((3 + len(CHANNELS)) * data.size**2 + framing.THUMBNAIL**2), "the data set"
    )
    thumbnails, rows = [], []
    with progress.Bar(len(found), bar, "prepare") as shown:
        for number in numbers:
            part = found[number * per_file : (number + 1) * per_file]
            small, facts = _file(folder / store.name(number), mark, part, data, shown, len(rows))
            thumbnails.append(small)
            rows += [{**fact, "place": [number, place]} for place, fact in enumerate(facts)]
            shown.update(len(rows))
    same = duplicates.pairs(np.concatenate(thumbnails)) if data.sources != ("sample",) else []
    unique = merging.merged(rows, duplicates.groups(len(rows), same).tolist())
    if not current:
        _withdraw(folder)
    files.atomic_write(folder / PHOTOGRAPHS, json.dumps(unique, indent=0) + "\n")
    for path in folder.glob("photographs-*.safetensors"):
        if path.name not in {store.name(number) for number in numbers}:
            path.unlink()  # of an earlier, larger set
    counts = _describe(unique, split, len(rows), merging.described(rows, same))
    prepared.write_manifest(
        folder, mark, origin, settings(data), counts, [PHOTOGRAPHS, *(store.name(number) for number in numbers)]
    )
    _tell(folder, counts)
    return prepared.read_manifest(folder)


def _withdraw(folder: Path) -> None:
    """Let nobody take the set for a whole one from here on: a file of it is about to change."""
    try:
        (folder / prepared.NAME).unlink(missing_ok=True)
    except OSError as error:
        raise files.explain(error, folder) from error


def _refuse_another(folder: Path, data: Data) -> None:
    """Raises UserError where a set of another source would be replaced, which runs may be judged by."""
    try:
        there = prepared.read_manifest(folder)["settings"].get("sources")
    except UserError:  # damaged: nothing is lost
        return
    if there != list(data.sources):
        raise UserError(
            f"{folder}: holds the set of {' and '.join(there or ['another source'])}; give this one another "
            "--data.name, or delete the folder"
        )


def settings(data: Data) -> dict[str, Any]:
    """What the set depends on, besides the content of its source."""
    unused = {"name", "sample_ratio", "num_workers", "train_data_path", "val_data_path"}
    unused |= set() if data.sources == ("sample",) else {"sample_size", "sample_seed"}
    return {"reader": READER, **data.model_dump(mode="json", exclude=unused), "sources": list(data.sources)}


def require(config: Config) -> Path:
    """The folder of the configuration's prepared set. Raises UserError where it is not there, or has other settings."""
    return prepared.require(folder_of(config.paths, config.data), settings(config.data))


def folder_of(paths: Paths, data: Data) -> Path:
    """Where the prepared set of a data section lies."""
    return paths.data / PACKAGE / data.folder


def load(folder: Path) -> list[Row]:
    """The rows of a prepared set: ``name, place, split, masks, known, present, grade, caption, text, also, size``.

    Raises UserError where the set is not there or is damaged.
    """
    prepared.read_manifest(folder)
    path = folder / PHOTOGRAPHS
    try:
        rows = json.loads(path.read_text())
    except OSError as error:
        raise files.explain(error, path) from error
    except ValueError:
        raise UserError(f"{path}: is damaged; run `prepare` again") from None
    return [{**row, "text": text(row["caption"], row["grade"])} for row in rows]


def frame(item: Item, data: Data) -> Framed:
    """A photograph as a network sees it. Raises UserError where its files cannot be used."""
    taken = item.read()
    image, mask, height, width = taken.image, taken.masks, data.size, data.size
    if not taken.framed:
        image, mask, height, width = _framed(taken, data)
    facts = {
        "name": item.name,
        "split": item.record.split if isinstance(item, Photograph) else None,
        "caption": item.record.caption if isinstance(item, Photograph) else None,
        "grade": taken.grade,
        "known": [name for name, known in zip(CHANNELS, taken.known, strict=True) if known],
        "masks": [name for name, known in zip(CHANNELS, taken.known, strict=True) if known and name != "FOV"],
        "present": [name for name, there in zip(CHANNELS, mask.any(axis=(1, 2)), strict=True) if there],
        "size": [height, width],
        "enlarged": bool(height * width > image.shape[0] * image.shape[1]),
        "stretched": max(height * image.shape[1], width * image.shape[0])
        > STRETCH * min(height * image.shape[1], width * image.shape[0]),
        "covered": {name: float(share) for name, share in zip(CHANNELS, mask.mean(axis=(1, 2)), strict=True) if share},
    }
    small = framing.thumbnail(taken.image)
    return Framed(framing.resized(image, height, width), framing.covered(mask, height, width), small, facts)


def _framed(taken: Taken, data: Data) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Image (H, W, 3) and masks (M, H, W), cut out where squares are wanted, and the size that they are to have."""
    if data.aspect == "native":
        height, width = framing.target(*taken.image.shape[:2], data.size, data.multiple)
        return taken.image, taken.masks, height, width
    where = framing.square(taken.masks[CHANNELS.index("FOV")] > 0)
    return framing.cut(taken.image, *where), framing.cut_masks(taken.masks, *where), data.size, data.size


def _file(
    path: Path, mark: str, part: Sequence[Item], data: Data, bar: progress.Bar, before: int
) -> tuple[np.ndarray, list[Row]]:
    """Thumbnails and facts of one file, which is written unless it is there."""
    there = store.about(path, mark)
    if there is None:
        framed = []
        for item in part:
            framed.append(frame(item, data))
            bar.update(before + len(framed))
        _withdraw(path.parent)
        store.write(path, mark, framed)
        there = np.stack([one.thumbnail for one in framed]), [one.facts for one in framed]
    return there


def _describe(rows: Sequence[Row], split: Split, read: int, same: list[str]) -> dict[str, Any]:
    """Counts for ``dataset.json``."""
    parts = division.divide(rows, split)
    grades = [row["grade"] for row in rows]
    return {
        "photographs": len(rows),
        "read": read,
        "grades": {str(grade): grades.count(grade) for grade in (*range(5), None) if grade in grades},
        "with masks of": {name: sum(name in row["masks"] for row in rows) for name in CHANNELS if name != "FOV"},
        "with caption": sum(row["caption"] is not None for row in rows),
        "enlarged": sum(row["enlarged"] for row in rows),
        "stretched": sum(row["stretched"] for row in rows),
        "covered": _covered(rows),
        "same photographs": same,
        "split": split.model_dump(mode="json"),
        "splits": {
            name: {"photographs": len(part), "with masks": sum(bool(rows[i]["masks"]) for i in part)}
            for name, part in parts.items()
        },
    }


def _covered(rows: Sequence[Row]) -> dict[str, float]:
    """The mean share that each class covers of the photographs that have it."""
    found: dict[str, list[float]] = {name: [] for name in CHANNELS}
    for row in rows:
        for name, share in row["covered"].items():
            found[name].append(share)
    return {name: float(np.mean(shares)) for name, shares in found.items() if shares}


def _tell(folder: Path, counts: dict[str, Any]) -> None:
    if same := counts["same photographs"]:
        progress.message(f"{folder}: {len(same)} pairs show the same photograph; it is kept once, in one split:")
        for line in same[:SHOWN]:
            progress.message(f"  {line}")
        if len(same) > SHOWN:
            progress.message(f"  and {len(same) - SHOWN} more, in {prepared.NAME}")
    if counts["enlarged"]:
        progress.message(
            f"{folder}: note: {counts['enlarged']} photographs are smaller than data.size and were enlarged"
        )
    if counts["stretched"]:
        progress.message(
            f"{folder}: note: {counts['stretched']} photographs change their aspect ratio by more than a tenth, since "
            "sides are multiples of data.multiple; make it smaller, or data.size larger"
        )
    for name, share in counts["covered"].items():
        if name != "FOV" and share > MOST_COVERED:
            progress.message(
                f"{folder}: warning: {WORDS[name]} cover {share:.0%} of the photographs that have them; is the mask "
                "white where there are none?"
            )
    if len(counts["grades"]) > 1:
        progress.message(f"{folder}: grades: {', '.join(f'{k}: {n:,}' for k, n in counts['grades'].items())}")
    parts = ", ".join(
        f"{name} {part['photographs']:,} ({part['with masks']:,} with masks)" for name, part in counts["splits"].items()
    )
    progress.message(f"{folder}: {counts['photographs']:,} photographs; {parts}")
