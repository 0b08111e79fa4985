"""IDRiD's official folders (Porwal et al. 2018, Data 3:25): 81 photographs with masks, 516 with grades.

Names begin again in each part, so a photograph's name here says part and split as well. A mask that is not there means
that the class is not there.
"""

from __future__ import annotations

import csv
from pathlib import Path

from retina_diffusion.pictures import listed
from retina_diffusion.records import Record
from shared_core import files
from shared_core.errors import UserError

SPLITS = {"train": "a. Training Set", "test": "b. Testing Set"}
MASKS = {
    "1. Microaneurysms": "MA",
    "2. Haemorrhages": "HE",
    "3. Hard Exudates": "EX",
    "4. Soft Exudates": "SE",
    "5. Optic Disc": "OD",
}
IMAGES, TRUTHS = "1. Original Images", "2. Groundtruths"
GRADES = {
    "train": "a. IDRiD_Disease Grading_Training Labels.csv",
    "test": "b. IDRiD_Disease Grading_Testing Labels.csv",
}


def segmented(root: Path) -> list[Record]:
    """The photographs of part A, with the masks that there are. Raises UserError where the folders are others."""
    part, found = root / "A. Segmentation", []
    for split, folder in SPLITS.items():
        images = part / IMAGES / folder
        for image in listed(images):
            masks = {}
            for name, channel in MASKS.items():
                path = part / "2. All Segmentation Groundtruths" / folder / name / f"{image.stem}_{channel}.tif"
                if path.is_file():
                    masks[channel] = path
            found.append(Record(f"A-{split}-{image.stem}", image, split, masks, known=tuple(MASKS.values())))
    return found


def graded(root: Path) -> list[Record]:
    """The photographs of part B, with their grades of retinopathy. Raises UserError where folders or labels differ."""
    part, found = root / "B. Disease Grading", []
    for split, folder in SPLITS.items():
        labels = part / TRUTHS / GRADES[split]
        grades = _grades(labels)
        for image in listed(part / IMAGES / folder):
            if image.stem not in grades:
                raise UserError(f"{labels}: has no row for {image.stem}")
            found.append(Record(f"B-{split}-{image.stem}", image, split, grade=grades[image.stem]))
    return found


def _grades(path: Path) -> dict[str, int]:
    """By image; columns without a name, and spaces after names, are the file's own."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = [{key.strip(): value for key, value in row.items() if key} for row in csv.DictReader(stream)]
    except OSError as error:
        raise files.explain(error, path) from error
    found = {}
    for number, row in enumerate(rows, start=2):
        name, grade = row.get("Image name", "").strip(), row.get("Retinopathy grade", "").strip()
        if not name:
            continue
        if grade not in tuple("01234"):
            raise UserError(f"{path}: line {number} has the grade {grade!r}; there are 0 to 4")
        found[name] = int(grade)
    return found
