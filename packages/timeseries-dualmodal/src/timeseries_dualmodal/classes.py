"""The classes of a set of series: which there are, their order, and which series they keep.

Shapes: N series, K classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from shared_core.errors import UserError
from shared_core.schema import did_you_mean
from timeseries_dualmodal.data_config import Data
from timeseries_dualmodal.raw import refuse_double
from timeseries_dualmodal.series import Known


def encode(
    labels: NDArray[np.str_], data: Data, like: Known | None, where: str, place: Callable[[int], str], integers: bool
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The class of each series, (N,), -1 where it is left out, and the names of the K classes.

    Args:
        labels: as they are in the source, (N,); 3.0 is class 3.
        like: a model's description, whose classes are taken over.
        where, place: name the source and a row in messages.
        integers: whether only whole numbers can be labels: in layouts by position any other value betrays a mistake.

    Raises:
        UserError: a label is missing, no class or unknown; `data` names classes that do not occur, or one twice; a
            class has one series, or there are fewer than two classes.
    """
    labels = _whole(labels, where, place, integers)
    names, counts = np.unique(labels, return_counts=True)
    present = dict(zip(names.tolist(), counts.tolist(), strict=True))
    if like is not None:
        classes, leave_out = like.classes, {*data.drop_classes, *(set(data.classes and present) - set(data.classes))}
        _check_known(labels, present, {*classes, *leave_out}, where, place, classes)
    else:
        refuse_double(data.classes, "--data.classes")
        _check_occur(data, present, where)
        chosen = data.classes or sorted(present, key=_order)
        classes = tuple(name for name in chosen if name not in data.drop_classes)
        _check_enough(classes, present, where)
        leave_out = set(present) - set(classes)
    code = {name: -1 if name in leave_out else classes.index(name) for name in present}
    return np.array([code[name] for name in labels.tolist()], np.int64), classes


def _whole(labels: NDArray[np.str_], where: str, place: Callable[[int], str], integers: bool) -> NDArray[np.str_]:
    """Labels with 3.0 as 3. Raises UserError for a missing one, and for a number that is not whole."""
    if (labels == "").any():
        raise UserError(f"{where}: {place(int(np.argmax(labels == '')))} has no label; give it one or remove it")
    names, which = np.unique(labels, return_inverse=True)
    whole = [re.sub(r"^([+-]?\d+)\.0*$", r"\1", name) for name in names.tolist()]
    numeric = all(re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|nan|inf|-inf", name, re.I) for name in whole)
    for name in whole:
        if (numeric or integers) and not re.fullmatch(r"[+-]?\d+", name):
            row = int(np.argmax(which == whole.index(name)))
            hint = "by position the last column is an integer label; " if integers else ""
            raise UserError(
                f"{where}: {place(row)} has the label {name!r}, which is no class; {hint}name the column of the "
                "classes with --data.label"
            )
    return np.array(whole, np.str_)[which]


def _check_known(
    labels: NDArray[np.str_],
    present: dict[str, int],
    known: set[str],
    where: str,
    place: Callable[[int], str],
    classes: tuple[str, ...],
) -> None:
    for name, count in present.items():
        if name not in known:
            row = int(np.argmax(labels == name))
            raise UserError(
                f"{where}: class {name!r} ({count:,} series, the first is {place(row)}) is unknown to the model, which "
                f"knows {', '.join(classes)}; leave it out: --data.drop_classes {name}"
            )


def _check_occur(data: Data, present: dict[str, int], where: str) -> None:
    for key, names in (("classes", data.classes), ("drop_classes", data.drop_classes)):
        for name in names:
            if name not in present:
                raise UserError(
                    f"{where}: --data.{key}: no series is of class {name!r}{did_you_mean(name, present)}; there are "
                    f"{', '.join(sorted(present, key=_order))}"
                )


def _check_enough(classes: tuple[str, ...], present: dict[str, int], where: str) -> None:
    if len(classes) < 2:
        raise UserError(
            f"{where}: {len(classes)} class is left ({', '.join(classes) or 'none'}); two are needed: check "
            "--data.label, --data.classes and --data.drop_classes"
        )
    single = [name for name in classes if present[name] == 1]
    if single:
        raise UserError(
            f"{where}: a single series is of class {', '.join(single)}, which cannot be in training and in the test; "
            f"leave it out: --data.drop_classes {','.join([*single])}"
        )


def _order(name: str) -> tuple[bool, int, str]:
    """Numbers by size, before words."""
    return (False, int(name), name) if re.fullmatch(r"[+-]?\d+", name) else (True, 0, name)
