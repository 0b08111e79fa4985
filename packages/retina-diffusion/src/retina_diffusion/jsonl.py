"""Lists of photographs, one JSON object per line (the predecessor's format, and what `predict` writes).

    {"image_path": "a.png", "caption": "...", "mask_path": null, "grade": 2, "split": "train"}

Only `image_path` must be there; paths are relative to the list. A ``.json`` file is one list of such objects, as
RetinaLogos has them. `image` and `path` say the same as `image_path`, `text` and `prompt` (or the last of
`conversations`) as `caption`: Lumina's names. `mask_path` is null (no mask is known), a file whose
pixel values number the classes of ``data.mask_values``, or files by channel: {"MA": "a_MA.png", "EX": null}, where null
says that the class was looked for and is not there. `grade` (also `label`) is 0 to 4.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from retina_diffusion.channels import CHANNELS
from retina_diffusion.records import Record
from shared_core import files
from shared_core.errors import UserError

KEYS = {
    *("image_path", "caption", "mask_path", "grade", "label", "split", "name"),
    *("source", "quality_score", "metadata"),  # of exports; not needed here
    *("id", "width", "height"),  # of RetinaLogos; not needed here
}
OTHER_NAMES = {"image": "image_path", "path": "image_path", "text": "caption", "prompt": "caption",
               "conversations": "caption"}  # fmt: skip


def read(path: Path, alone: bool = False) -> list[Record]:
    """The photographs of a list, or of all lists in a folder.

    Args:
        alone: a line with a mask needs no `image_path`.

    Raises UserError where there is none, or a line is wrong: it is named.
    """
    lists = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not lists:
        raise UserError(f"{path}: holds no .jsonl file")
    found = [record for one in lists for record in _of(one, alone, several=len(lists) > 1)]
    if not found:
        raise UserError(f"{path}: lists no photographs")
    return found


def _of(path: Path, alone: bool, several: bool) -> list[Record]:
    prefix = f"{path.stem}-" if several else ""
    return [
        _record(_named(row, where), path, where, f"{prefix}{number:06d}", alone) for number, where, row in _rows(path)
    ]


def _rows(path: Path) -> Iterator[tuple[int, str, Any]]:
    """Number, place (for messages) and content of each entry of a list."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise files.explain(error, path) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is no UTF-8 text ({error.reason} at byte {error.start})") from error
    if path.suffix.lower() == ".json":
        entries = _parsed(text, str(path))
        if not isinstance(entries, list):
            raise UserError(f"{path}: must be a list of objects; write one object a line in a .jsonl file otherwise")
        yield from ((number, f"{path}: entry {number}", entry) for number, entry in enumerate(entries, start=1))
        return
    for number, line in enumerate(text.split("\n"), start=1):  # captions may hold other ends of lines
        if line.strip():
            yield number, f"{path}:{number}", _parsed(line, f"{path}:{number}")


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: is not JSON ({error})") from None


def _named(row: Any, where: str) -> dict[str, Any]:
    """An entry with our names of things. Raises UserError where it says one thing twice, or something unknown."""
    if not isinstance(row, dict):
        raise UserError(f'{where}: must be an object with "image_path"')
    found: dict[str, Any] = {}
    for key, value in row.items():
        name = OTHER_NAMES.get(key, key)
        if name in found:
            raise UserError(f"{where}: {key!r} says {name} once more; leave out one of them")
        if name not in KEYS:
            raise UserError(f"{where}: unknown key {key!r}; there are {', '.join(sorted(KEYS | OTHER_NAMES.keys()))}")
        found[name] = _last_said(value) if key == "conversations" else value
    return found


def _last_said(turns: Any) -> Any:
    """The caption of a conversation about a photograph: what is said last, if anything is."""
    last = turns[-1] if isinstance(turns, list) and turns else {}
    return last.get("value") if isinstance(last, dict) else None


def _record(row: Mapping[str, Any], path: Path, where: str, name: str, alone: bool) -> Record:
    caption, split, grade = row.get("caption"), row.get("split"), row.get("grade")
    grade = row.get("label") if grade is None else grade
    if caption is not None and (not isinstance(caption, str) or not caption.strip()):
        raise UserError(f"{where}: caption is empty; write one, or null for none")
    if grade is not None and (type(grade) is not int or grade not in range(5)):
        raise UserError(f"{where}: grade {grade!r}: must be 0 to 4, or null")
    if split not in (None, "train", "val", "test"):
        raise UserError(f"{where}: split {split!r}: must be train, val or test")
    masks, labels, known = _masks(row.get("mask_path"), path, where)
    is_alone = alone and row.get("image_path") is None and bool(masks or labels)
    if not is_alone and not isinstance(row.get("image_path"), str):
        raise UserError(f'{where}: must be an object with "image_path"{", or with a mask" if alone else ""}')
    image = None if is_alone else _there(path, row["image_path"], where)
    if not isinstance(row.get("name"), str | None):
        raise UserError(f"{where}: name {row['name']!r}: must be text")
    return Record(row.get("name") or name, image, split, masks, labels, known, grade, caption, where)


def _masks(given: Any, path: Path, where: str) -> tuple[dict[str, Path], Path | None, tuple[str, ...]]:
    """Files by channel, or one of all classes, and the channels that are known."""
    if given is None:
        return {}, None, ()
    if isinstance(given, str):
        return {}, _there(path, given, where), ()
    if not isinstance(given, dict) or not all(one is None or isinstance(one, str) for one in given.values()):
        raise UserError(f"{where}: mask_path: must be null, a file, or files by channel")
    if unknown := sorted(given.keys() - set(CHANNELS)):
        raise UserError(f"{where}: mask_path: unknown channel {unknown[0]!r}; there are {', '.join(CHANNELS)}")
    masks = {channel: _there(path, one, where) for channel, one in given.items() if one is not None}
    return masks, None, tuple(channel for channel in CHANNELS if channel in given)


def _there(path: Path, name: str, where: str) -> Path:
    try:
        found = path.parent / Path(name).expanduser()
        if found.is_file():
            return found
    except (OSError, RuntimeError, ValueError) as error:  # too long, a home of nobody, a zero byte
        raise UserError(f"{where}: {name!r}: can be no file's name ({error})") from None
    raise UserError(f"{where}: {found}: {'is a folder' if found.is_dir() else 'no such file'}")
