"""Data sets in tables: Parquet files, and folders of images as the Hub knows them (read by the library ``datasets``).

    image                 the photograph
    caption, text         what is said of it
    grade, label          of diabetic retinopathy: 0 to 4, or the names of these
    mask                  an image whose values number the classes of ``data.mask_values``
    MA, HE, ... (mask_MA) an image for each class

Photographs and masks that lie in a table become files in the Hub's cache, named by their content.
A lesion of which there is a column was looked for in all photographs that have a mask of some lesion; other classes in
those that have their mask. Archives must be unpacked.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from retina_diffusion.channels import CHANNELS
from retina_diffusion.records import Record, searched
from shared_core import files, hub, progress
from shared_core.errors import UserError

SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}
TEXTS = {"caption": ("caption", "text"), "grade": ("grade", "label")}
HEALTHY, PROLIFERATIVE = {"no", "nodr", "normal", "healthy"}, {"proliferative", "proliferate", "pdr"}
SEVERITIES = ("mild", "moderate", "severe")
NOT_PROLIFERATIVE = {"non", "nonproliferative", "proliferative", "npdr"}  # behind a severity
RETINOPATHY = {"dr", "apparent", "diabetic", "retinopathy"}
BATCH = 16  # rows that are in memory at a time


def read(root: Path) -> list[Record]:
    """The photographs of a folder.

    Raises UserError where the library is missing or cannot read it, there are no images, or a row is wrong.
    """
    root = root.expanduser().resolve()
    table = hub.dataset(str(root), None)
    found = []
    for split, part in table.items():
        if split not in SPLITS:
            raise UserError(f"{root}: split {split!r}: must be train, validation or test")
        columns = _columns(root, part.column_names)
        for number, row in enumerate(_rows(part)):
            found.append(
                _record(root, row, columns, f"{split}-{number:06d}", SPLITS[split], f"{root}: {split}, row {number}")
            )
    if not found:
        raise UserError(f"{root}: lists no photographs")
    return found


def _rows(part: Any) -> Iterator[dict[str, Any]]:
    """Rows with images as they were stored, and names instead of numbers of named classes."""
    names = {column: getattr(kind, "names", None) for column, kind in part.features.items()}
    for batch in part.with_format("arrow").iter(batch_size=BATCH):
        for row in batch.to_pylist():
            yield {
                column: known[value] if (known := names[column]) and value is not None and value >= 0 else value
                for column, value in row.items()
            }


def _columns(root: Path, there: list[str]) -> dict[str, str]:
    """The columns by what they are for. Raises UserError where there is no `image`."""
    if "image" not in there:
        raise UserError(f"{root}: has the columns {', '.join(there)}; one must be `image`")
    asked = {"image": ("image",), "mask": ("mask",), **TEXTS, **{name: (f"mask_{name}", name) for name in CHANNELS}}
    found = {what: name for what, names in asked.items() if (name := next((n for n in names if n in there), None))}
    if unused := sorted(set(there) - set(found.values())):
        progress.message(f"{root}: columns that are not used: {', '.join(unused)}")
    return found


def _record(
    root: Path, row: Mapping[str, Any], columns: Mapping[str, str], name: str, split: str, where: str
) -> Record:
    of = {what: row[column] for what, column in columns.items()}
    image = _file(root, of["image"], f"{where}: image")
    if image is None:
        raise UserError(f"{where}: there is no image")
    masks = {channel: _file(root, of.get(channel), f"{where}: {channel}") for channel in CHANNELS}
    given = {channel: path for channel, path in masks.items() if path is not None}
    labels = _file(root, of.get("mask"), f"{where}: mask")
    if labels is not None and given:
        raise UserError(f"{where}: has a mask of all classes and one of {next(iter(given))}; leave out one of them")
    caption = of.get("caption")
    if caption is not None and (not isinstance(caption, str) or not caption.strip()):
        raise UserError(f"{where}: caption {caption!r}: must be text; leave it empty (null) where there is none")
    known, grade = searched(given, columns), grade_of(of.get("grade"), where)
    return Record(name, image, split, given, labels, known, grade, caption, where)


def grade_of(label: Any, where: str = "label") -> int | None:
    """0 to 4 of a number or a name; folders of images are numbered by the alphabet, which is why names decide.

    Raises UserError for others: a table of other labels must not teach wrong captions.
    """
    if isinstance(label, float) and (math.isnan(label) or label.is_integer()):
        label = None if math.isnan(label) else int(label)
    if label is None or (type(label) is int and label == -1):  # -1: not known
        return None
    said = str(label).strip().lower()
    if said in ("0", "1", "2", "3", "4"):
        return int(said)
    words = re.findall(r"[a-z]+", said)
    if words and set(words[1:]) <= RETINOPATHY | (NOT_PROLIFERATIVE if words[0] in SEVERITIES else set()):
        for grade, names in enumerate((HEALTHY, *({name} for name in SEVERITIES), PROLIFERATIVE)):
            if words[0] in names:
                return grade
    raise UserError(f"{where}: {label!r} is no grade of diabetic retinopathy (0 to 4, or its name); rename the column")


def _file(root: Path, value: Any, where: str) -> Path | None:
    """The file of an image: where it lies, or in the cache.

    Raises UserError where it is no image, lies outside the folder (a data set of the Hub could name any file of this
    machine), or the disk is full.
    """
    if value is None:
        return None
    content = value.get("bytes") if isinstance(value, dict) else value
    if content is None and value.get("path"):
        if "::" in value["path"]:
            raise UserError(f"{where}: lies in an archive, {value['path'].rpartition('::')[2]}; unpack it")
        path = Path(os.path.abspath(root / value["path"]))  # symbolic links are left: the Hub's cache is made of them
        if not path.is_relative_to(root) or not path.is_file():
            raise UserError(f"{where}: {value['path']}: no such file in {root}")
        return path
    if not isinstance(content, bytes):
        raise UserError(f"{where}: is {type(content).__name__}, must be an image")
    name = hashlib.sha256(content).hexdigest()
    path = hub.cache("retina-diffusion") / name[:2] / name
    if not (path.is_file() and path.read_bytes() == content):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.atomic_write(path, content)
        except OSError as error:
            raise files.explain(error, path) from error
    return path
