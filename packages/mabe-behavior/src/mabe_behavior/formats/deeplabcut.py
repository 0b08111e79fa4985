"""DeepLabCut's tables of positions, csv and h5, of one animal or several.

A csv has the header lines `scorer`, `bodyparts`, `coords`, and `individuals` below the first where there are several
animals; then a row a frame. An h5 is a pandas table of one of two formats. "Fixed": column k is called
`block0_items_levelL[block0_items_labelL[k]]` at each level L, `axis1` holds the frames. "Table", as DeepLabCut's group
`df_with_missing`: rows of (index, values), columns' names in a pickled attribute, of which only plain texts are taken.
A network for one animal that was trained on two has the animal in the
parts' names, `B_Nose` and `W_Nose`: which is which has to be said.

Shapes: R rows, C columns.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.formats import h5, pickles, tracktable
from mabe_behavior.formats.camera import Camera
from mabe_behavior.formats.tracktable import Column
from mabe_behavior.tracks import Tracks
from shared_core.errors import UserError

_LEVELS = {3: ("scorer", "bodyparts", "coords"), 4: ("scorer", "individuals", "bodyparts", "coords")}
_GROUPS = ("df_with_missing", "df", "tracks")
_ALONE = ""  # the individual of a table that has none


def identity_rule(text: str) -> dict[str, str]:
    """A rule such as ``B_=mouse1,W_=mouse2``: prefix of a part, or an individual's name -> which mouse it is.

    ``name=`` leaves an individual out. Raises UserError for what is no such rule.
    """
    rule: dict[str, str] = {}
    for piece in text.split(","):
        name, equals, mouse = (one.strip() for one in piece.partition("="))
        if not equals or not name or name in rule or not re.fullmatch(r"(mouse[1-9]\d*)?", mouse):
            raise UserError(f"identities: {text!r}; must be NAME=mouse1,NAME=mouse2, each name once")
        rule[name] = mouse
    named = [mouse for mouse in rule.values() if mouse]
    if not named or len(set(named)) != len(named):
        raise UserError(f"identities: {text!r}; must give every name another mouse")
    return rule


def read(
    path: Path,
    camera: Camera,
    identities: Mapping[str, str] | None = None,
    called: Mapping[str, str] | None = None,
) -> Tracks:
    """The positions of a table, csv or h5.

    Args:
        identities: which mouse is which, see `identity_rule`. None: individuals are mouse1, mouse2, ... in
            the table's order; without individuals all parts are mouse1's.
        called: what the table calls parts -> their names; "" leaves a part out.

    Raises UserError where the file is none of DeepLabCut, `identities` does not fit it, or a part is unknown.
    """
    where = str(path)
    values_RC, found, frame_R = _of_csv(path) if path.suffix.lower() == ".csv" else _of_h5(path)
    if all(column.animal == _ALONE for column in found):
        if identities:
            found = [_parted(column, identities, called or {}, where) for column in found]
        elif prefixes := _prefixes(found):
            rule = ",".join(f"{prefix}=mouse{k + 1}" for k, prefix in enumerate(prefixes))
            raise UserError(f"{where}: its parts begin with {' or '.join(prefixes)}; say which mouse is which: {rule}")
    names = list(dict.fromkeys(column.animal for column in found))
    if identities is None:
        identities = {name: f"mouse{k + 1}" for k, name in enumerate(names)}
    elif missing := [name for name in identities if name not in names]:
        raise UserError(f"{where}: identities: there is no {missing[0]!r}; there are {', '.join(names) or 'none'}")
    elif left := [name for name in names if name not in identities]:
        raise UserError(f"{where}: identities: say which mouse {left[0]!r} is, or leave it out: {left[0]}=")
    return tracktable.assembled(values_RC, found, frame_R, camera, identities, called or {}, where)


def _prefixes(found: Sequence[Column]) -> list[str]:
    """The animals' prefixes, where all parts have one, and each animal the same parts; else none."""
    pieces = [column.part.partition("_") for column in found]
    rests = {start: {rest for begin, _, rest in pieces if begin == start} for start, _, _ in pieces}
    same = len(rests) > 1 and len(set(map(frozenset, rests.values()))) == 1
    return [f"{start}_" for start in rests] if same and all(rest for _, _, rest in pieces) else []


def _parted(column: Column, identities: Mapping[str, str], called: Mapping[str, str], where: str) -> Column:
    """A column with the prefix of its part taken off, as the animal."""
    if called.get(column.part) == "":
        return Column(next(iter(identities)), column.part, column.coordinate)
    fits = [prefix for prefix in identities if column.part.startswith(prefix)]
    if not fits:
        raise UserError(f"{where}: part {column.part!r} starts with none of {', '.join(identities)}; see identities")
    prefix = max(fits, key=len)
    return Column(prefix, column.part[len(prefix) :], column.coordinate)


def _of_csv(path: Path) -> tuple[NDArray[np.float64], list[Column], NDArray]:
    header = list(csv.reader(tracktable.lines(path, 4)))
    names = tuple(line[0].strip() if line else "" for line in header)
    levels = next((levels for levels in _LEVELS.values() if names[: len(levels)] == levels), None)
    if levels is None:
        raise UserError(
            f"{path}: its lines begin with {', '.join(names)[:60]}; a DeepLabCut table's begin with scorer, "
            "(individuals,) bodyparts, coords"
        )
    header = header[: len(levels)]
    if len({len(line) for line in header}) > 1:
        raise UserError(
            f"{path}: its header lines have {', '.join(str(len(line)) for line in header)} cells; must agree"
        )
    texts = [[cell.strip() for cell in line[1:]] for line in header]
    values = tracktable.numbers(path, len(levels), ["frame", *map(" ".join, zip(*texts, strict=True))])
    return values[:, 1:], _columns(levels, texts, str(path)), values[:, 0]


def _of_h5(path: Path) -> tuple[NDArray[np.float64], list[Column], NDArray]:
    with h5.opened(path) as stream:
        name = _group(stream, path)
        where = f"{path}: {name}"
        texts, values, frames = (_table if "table" in stream[name] else _fixed)(stream[name], where)
    if len(texts) not in _LEVELS:
        raise UserError(f"{where}: its columns have {len(texts)} levels of names; DeepLabCut's have 3 or 4")
    if values.dtype.kind not in "fiu" or values.ndim != 2 or values.shape[1] != len(texts[0]):
        raise UserError(f"{where}: values of shape {values.shape}; must be numbers, {len(texts[0])} a row")
    if len(frames) != len(values) or not len(values):
        raise UserError(f"{where}: has {len(values)} rows and {len(frames)} frame numbers; must have one a row")
    return values.astype(np.float64), _columns(_LEVELS[len(texts)], texts, where), frames


def _fixed(group: Any, where: str) -> tuple[list[list[str]], np.ndarray, np.ndarray]:
    """(names of each level, values, frames) of pandas' format "fixed"."""
    if int(group.attrs.get("nblocks", 1)) != 1:
        raise UserError(f"{where}: has {group.attrs['nblocks']} blocks; a table of numbers only has one")
    texts = []
    for level in range(int(group.attrs.get("block0_items_nlevels", 0))):
        labels = h5.texts(group, f"block0_items_level{level}", where)
        codes = h5.array(group, f"block0_items_label{level}", where)
        if codes.size and not 0 <= codes.min() <= codes.max() < len(labels):
            raise UserError(f"{where}: a column has no name at level {level}")
        texts.append([labels[code] for code in codes])
    return texts, h5.array(group, "block0_values", where), h5.array(group, "axis1", where)


def _table(group: Any, where: str) -> tuple[list[list[str]], np.ndarray, np.ndarray]:
    """The same of pandas' format "table"."""
    rows = h5.array(group, "table", where)
    if rows.dtype.names is None or "index" not in rows.dtype.names or "values_block_0" not in rows.dtype.names:
        raise UserError(f"{where}: its table has the fields {rows.dtype.names}; must have index and values_block_0")
    axes = pickles.loads(bytes(group.attrs.get("non_index_axes", b"")), where)
    try:
        ((_, names),) = axes
        texts = [[str(part) for part in level] for level in zip(*names, strict=True)]
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: its attribute non_index_axes does not hold the names of columns") from error
    return texts, rows["values_block_0"], rows["index"]


def _group(stream: Any, path: Path) -> str:
    """The group that holds the table: by one of the usual names, or the only one."""
    groups = [name for name in stream if hasattr(stream[name], "keys")]
    usual = [name for name in _GROUPS if name in groups]
    if not usual and len(groups) != 1:
        raise UserError(
            f"{path}: holds the groups {', '.join(groups) or 'none'}; must have one of {', '.join(_GROUPS)}"
        )
    return usual[0] if usual else groups[0]


def _columns(levels: Sequence[str], texts: Sequence[Sequence[str]], where: str) -> list[Column]:
    by_level = dict(zip(levels, texts, strict=True))
    animals = by_level.get("individuals", [_ALONE] * len(texts[0]))
    found = [Column(*one) for one in zip(animals, by_level["bodyparts"], by_level["coords"], strict=True)]
    if unknown := [one.coordinate for one in found if one.coordinate not in ("x", "y", "likelihood")]:
        raise UserError(f"{where}: coords has {unknown[0]!r}; must be x, y, likelihood")
    return found
