"""IDRiD's official folders (Porwal et al. 2018, Data 3:25): 81 photographs with masks, 516 with grades.

Names begin again in each part, so a photograph's name here says part and split as well. A mask that is not there means
that the class is not there.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from retina_diffusion.pictures import listed
from retina_diffusion.records import Record
from shared_core import files
from shared_core.errors import UserError

PARTS = {"segmentation": "A. Segmentation", "grading": "B. Disease Grading"}
SPLITS = {"train": "a. Training Set", "test": "b. Testing Set"}
MASKS = {
    "1. Microaneurysms": "MA",
    "2. Haemorrhages": "HE",
    "3. Hard Exudates": "EX",
    "4. Soft Exudates": "SE",
    "5. Optic Disc": "OD",
}
IMAGES, MASKED, TRUTHS = "1. Original Images", "2. All Segmentation Groundtruths", "2. Groundtruths"
GRADES = {
    "train": "a. IDRiD_Disease Grading_Training Labels.csv",
    "test": "b. IDRiD_Disease Grading_Testing Labels.csv",
}


def segmented(root: Path) -> list[Record]:
    """The photographs of part A, with the masks that there are. Raises UserError where the folders are others."""
    part, found = root / PARTS["segmentation"], []
    for split, folder in SPLITS.items():
        images = {path.stem: path for path in listed(part / IMAGES / folder)}
        by_channel = {
            channel: _masks(part / MASKED / folder / name, channel, images) for name, channel in MASKS.items()
        }
        for name, image in images.items():
            masks = {channel: masks_of[name] for channel, masks_of in by_channel.items() if name in masks_of}
            found.append(Record(f"A-{split}-{name}", image, split, masks, known=tuple(MASKS.values())))
    return found


def _masks(folder: Path, channel: str, images: Mapping[str, Path]) -> dict[str, Path]:
    """By photograph.

    Raises UserError where there is no folder, or a mask has no photograph: taken for "not there" it would be wrong.
    """
    found = {}
    for path in listed(folder):
        name = path.stem.removesuffix(f"_{channel}")
        if name not in images:
            raise UserError(f"{path}: belongs to no photograph; name it as that is named, with _{channel} behind")
        found[name] = path
    return found


def graded(root: Path) -> list[Record]:
    """The photographs of part B, with their grades of retinopathy. Raises UserError where folders or labels differ."""
    part, found = root / PARTS["grading"], []
    for split, folder in SPLITS.items():
        labels = part / TRUTHS / GRADES[split]
        grades = _grades(labels)
        images = {path.stem: path for path in listed(part / IMAGES / folder)}
        if missing := sorted(images.keys() - grades.keys()):
            raise UserError(f"{labels}: has no row for {missing[0]}")
        if missing := sorted(grades.keys() - images.keys()):
            raise UserError(f"{labels}: names {missing[0]}, which is not in {part / IMAGES / folder}; unpack it again")
        found += [Record(f"B-{split}-{name}", path, split, grade=grades[name]) for name, path in images.items()]
    return found


def _grades(path: Path) -> dict[str, int]:
    """By image; columns without a name, and spaces after names, are the file's own."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            lines = csv.DictReader(stream, restval="")
            rows = [{key.strip(): value for key, value in row.items() if key} for row in lines]
    except OSError as error:
        raise files.explain(error, path) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is no UTF-8 text ({error.reason} at byte {error.start})") from None
    except csv.Error as error:
        raise UserError(f"{path}: is no CSV ({error})") from None
    found = {}
    for number, row in enumerate(rows, start=2):
        name, grade = row.get("Image name", "").strip(), row.get("Retinopathy grade", "").strip()
        if not name:
            continue
        if grade not in tuple("01234"):
            raise UserError(f"{path}: line {number} has the grade {grade!r}; there are 0 to 4")
        if found.setdefault(name, int(grade)) != int(grade):
            raise UserError(f"{path}: line {number} gives {name} the grade {grade}, an earlier one {found[name]}")
    return found
