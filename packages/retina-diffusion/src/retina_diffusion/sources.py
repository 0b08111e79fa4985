"""Where photographs come from: folders and lists of files, or the drawing of phantoms.

Shapes: H x W pixels as taken; M channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retina_diffusion import framing, idrid, jsonl, masks, pairs, phantom, pictures, unpacked
from retina_diffusion.channels import CHANNELS, Channel
from retina_diffusion.data_config import Data
from retina_diffusion.records import Record
from shared_core import files, prepared
from shared_core.errors import UserError


@dataclass(frozen=True)
class Taken:
    """A photograph, read."""

    image: NDArray[np.uint8]  # (H, W, 3)
    masks: NDArray[np.float32]  # (M, H, W)
    known: NDArray[np.bool_]  # (M,) which classes were looked for
    grade: int | None = None
    framed: bool = False  # whether it has the wanted size and frame already


@dataclass(frozen=True)
class Phantom:
    """A photograph that is drawn when it is read."""

    name: str
    size: int
    seed: int

    def read(self) -> Taken:
        drawn = phantom.draw(self.size, self.seed)
        return Taken(drawn.image, drawn.masks, np.ones(len(CHANNELS), bool), drawn.grade, framed=True)


@dataclass(frozen=True)
class Photograph:
    """A photograph in files."""

    record: Record
    classes: tuple[Channel, ...]  # of a file with all masks

    @property
    def name(self) -> str:
        return self.record.name

    def read(self) -> Taken:
        """Raises UserError for files that are no pictures, and masks of another size or with unknown values."""
        with _at(self.record.where):
            return self._read()

    def _read(self) -> Taken:
        record = self.record
        given = {channel: masks.read(path) for channel, path in record.masks.items()}
        known = set(record.known) | given.keys()
        if record.labels is not None:
            given |= masks.read_labels(record.labels, self.classes)
            known |= set(self.classes)
        if record.image is None:  # black; an eye is supposed to be where it usually is
            image = np.zeros((*next(iter(given.values())).shape, 3), np.uint8)
            given.setdefault("FOV", framing.disc(*image.shape[:2]).astype(np.float32))
            known |= {"FOV"}
        else:
            image = pictures.read(record.image)
        for channel, mask in given.items():
            if mask.shape != image.shape[:2]:
                path = record.masks.get(channel, record.labels)
                raise UserError(
                    f"{path}: {mask.shape[1]} x {mask.shape[0]} pixels, but {record.image or 'another mask'} has "
                    f"{image.shape[1]} x {image.shape[0]}; a mask must have its photograph's size"
                )
        if "FOV" in given and not given["FOV"].any():
            raise UserError(f"{record.masks.get('FOV', record.labels)}: the field of view (FOV) is empty; leave it out")
        if "FOV" not in given:
            given, known = {**given, "FOV": framing.field_of_view(image)}, known | {"FOV"}
        flags = np.array([channel in known for channel in CHANNELS])
        return Taken(image, masks.stacked(given, image.shape[:2]), flags, record.grade)


@contextmanager
def _at(where: str) -> Iterator[None]:
    """Says which line of a list or table an error is about, where the file that it names does not."""
    try:
        yield
    except UserError as error:
        raise error if not where or where in str(error) else UserError(f"{where}: {error}") from None


Item = Phantom | Photograph
TABLES = (".parquet", "metadata.csv", "metadata.jsonl")  # ends of names


def items(data: Data, alone: bool = False) -> list[Item]:
    """All photographs of a data section, not yet read; names are unique.

    Args:
        alone: masks may be there without a photograph.

    Raises UserError where a source is not there, or is of no kind that is known.
    """
    if data.sources == ("sample",):
        first = data.sample_seed * 1_000_000
        return [Phantom(f"sample-{k:06d}", data.size, first + k) for k in range(data.sample_size)]
    records: list[Record] = []
    for number, source in enumerate(data.sources):
        own = "train" if data.train_data_path is not None and number == 0 else "val"
        found = _records(_place(source), data, alone)
        records += found if len(data.sources) == 1 else [_in_split(record, own) for record in found]
    return [Photograph(record, data.mask_values) for record in _uniquely_named(records)]


def fingerprint(found: Sequence[Item]) -> str:
    """SHA-256 over all that is known of photographs, and the content of their files, wherever these lie.

    Only files that are read count: a list may lie in a folder with much else, the prepared set among it.
    """
    used_files: dict[str, Path | str] = {}
    rows: list[Any] = []
    for number, item in enumerate(found):
        if isinstance(item, Phantom):
            rows.append(vars(item))
            continue
        record = item.record
        used = {"image": record.image, "labels": record.labels, **record.masks}
        used_files |= {f"{number} {what}": path for what, path in used.items() if path is not None}
        rows.append([record.name, record.split, record.known, record.grade, record.caption])
    return "sha256:" + prepared.fingerprint(used_files, {"rows": rows})


def _in_split(record: Record, split: str) -> Record:
    """Of one of two sources, in which names may be the same: lists name photographs by their lines."""
    return replace(record, split=split, name=f"{split}-{record.name}")


def _place(source: str) -> Path:
    """The file or folder of a source; a data set of the Hub is fetched first, into the cache."""
    if not source.startswith("hub:"):
        return Path(source).expanduser()
    from shared_core import hub

    name, revision = hub.parse(source.removeprefix("hub:"))
    return hub.snapshot(name, revision, "dataset")


def _records(path: Path, data: Data, alone: bool) -> Sequence[Record]:
    layout = _layout(path, alone) if data.layout == "auto" else data.layout
    if layout == "jsonl":
        return jsonl.read(path, alone)
    if layout == "pairs":
        return pairs.read(path, alone)
    if layout == "table":
        return unpacked.read(path)
    for part, folder in idrid.PARTS.items():
        if data.part in ("all", part) and not (path / folder).is_dir():
            other = next(name for name in idrid.PARTS if name != part)
            raise UserError(f"{path}: has no folder {folder!r}; unpack it there, or read --data.part {other} alone")
    found: list[Record] = []
    if data.part in ("all", "segmentation"):
        found += idrid.segmented(path)
    if data.part in ("all", "grading"):
        found += idrid.graded(path)
    return found


def _layout(path: Path, alone: bool) -> str:
    if not path.exists():
        raise UserError(f"data.source: {path}: no such file or folder; give one, or `sample`")
    if path.is_file():
        if path.suffix.lower() not in (".jsonl", ".json"):
            raise UserError(f"data.source: {path}: must be a .jsonl or .json list, or a folder; give the file's folder")
        return "jsonl"
    if any(one.is_file() and not _names_files(one) for one in path.glob("*.jsonl")):
        return "jsonl"
    if (path / "A. Segmentation").is_dir() or (path / "B. Disease Grading").is_dir():
        return "idrid"
    if (path / "masks").is_dir() and (alone or (path / "images").is_dir()):
        return "pairs"
    near = [one for depth in ("*", "*/*", "*/*/*") for kind in TABLES for one in path.glob(f"{depth}{kind}")]
    if any(one.suffix == ".parquet" or _names_files(one) for one in near):
        return "table"
    raise UserError(
        f"{path}: holds neither IDRiD's folders, nor .jsonl files, nor images/ and masks/, nor .parquet; "
        "arrange it as one of them, or say --data.layout table where the library `datasets` can read it"
    )


def _names_files(path: Path) -> bool:
    """Whether this is a list of images as the library `datasets` wants it."""
    if not path.name.startswith("metadata.") or not path.is_file():
        return False
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            return "file_name" in lines.readline()
    except OSError as error:
        raise files.explain(error, path) from error


def _uniquely_named(records: Sequence[Record]) -> Sequence[Record]:
    seen: dict[str, Record] = {}
    for record in records:
        if record.name in seen:
            raise UserError(
                f"{record.where or record.image}: {record.name!r} is the name of another photograph as well"
            )
        seen[record.name] = record
    return records
