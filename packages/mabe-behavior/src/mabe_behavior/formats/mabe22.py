"""MABe22 (Sun et al. 2023, ICML): three mice in an open field, twelve parts each, clips of a minute at 30 Hz.

Files, dictionaries pickled in `.npy`: ``{"sequences": {clip: {"keypoints", "annotations"}}, "vocabulary": [task,
...]}`` with keypoints (T, A, P, X), an axis order unlike CalMS21's, and annotations (tasks, T); the labels of the test
clips in a file of their own, ``{"label_array": (tasks, all frames), "frame_number_map": {clip: (start, stop)},
"task_type", "vocabulary"}``. Both 0 means that a part was not seen.

A task is what a representation is judged by; it does not say which mouse does what, so that it is no behaviour here.

Shapes: T frames, A = 3 animals, P = 12 parts, X = 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.bouts import Bouts
from mabe_behavior.formats import jabs, pickles
from mabe_behavior.formats.camera import checked
from mabe_behavior.recording import Recording
from mabe_behavior.tracks import Tracks
from shared_core.errors import UserError

PARTS = jabs.PARTS  # of the same tracker
ANIMALS = ("mouse1", "mouse2", "mouse3")
FPS, WIDTH, HEIGHT, ARENA_CM = 30.0, 850.0, 850.0, 52.0
LAB = "MABe22"
# what is the same all through a clip; in the second round also the time of day
OF_CLIPS = ("experiment_day", "strain", "lights", "time_of_day")
_KINDS = {"Discrete": False, "Continious": True, "Continuous": True}  # the files spell it with an i


@dataclass(frozen=True)
class Clip(Recording):
    """A recording with the labels of its tasks."""

    frame_labels: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)  # task -> (T,)
    clip_labels: Mapping[str, float] = field(default_factory=dict)  # task -> one value
    continuous: frozenset[str] = frozenset()  # the tasks that are numbers and no classes, where the file says so


@dataclass(frozen=True)
class _Labels:
    """(tasks, T) of each clip, and what the tasks are."""

    tasks: tuple[str, ...]
    of: Mapping[str, NDArray[np.float32]]
    continuous: frozenset[str] = frozenset()


def read(path: Path, labels: Path | None = None) -> list[Clip]:
    """The clips of a file, or of the train and test files of a folder.

    Args:
        labels: the file with the test clips' labels; in a folder it is found by its name.

    Raises UserError where there is none, or one is not of MABe22's mice.
    """
    if path.is_file():
        return _of_file(path, labels)
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    found = {file: file.stem for file in sorted(path.glob("mouse_triplet*.npy"))}
    given = labels or next((file for file, stem in found.items() if stem.endswith("_labels")), None)
    clips = [
        one
        for file, stem in found.items()
        if not stem.endswith("_labels")
        for one in _of_file(file, given if "test" in stem else None)
    ]
    if not clips:
        raise UserError(
            f"{path}: no mouse_triplet_train.npy or mouse_triplet_test.npy; give the folder of the download"
        )
    if len({clip.name for clip in clips}) < len(clips):
        raise UserError(f"{path}: has a clip twice; keep one file of each part")
    return clips


def _of_file(path: Path, labels: Path | None) -> list[Clip]:
    held = pickles.load(path)
    sequences = held.get("sequences") if isinstance(held, Mapping) else None
    if not isinstance(sequences, Mapping):
        raise UserError(f"{path}: must hold {{sequences: {{clip: ...}}}}")
    tracks = {str(name): _tracks(one, f"{path}: {name}") for name, one in sequences.items()}
    known = _inside(held, sequences, path) if labels is None else _beside(labels)
    for name, values in known.of.items():
        if name in tracks and values.shape != (len(known.tasks), len(tracks[name])):
            raise UserError(
                f"{labels or path}: {name}: labels of shape {values.shape}; must be ({len(known.tasks)} tasks, "
                f"{len(tracks[name])} frames)"
            )
    if labels is not None and (missing := [name for name in tracks if name not in known.of]):
        raise UserError(f"{labels}: has no labels of {missing[0]}, which {path} holds; give the labels of this file")
    whole = _of_clips(known)
    split = next((part for part in ("train", "test") if part in path.stem), None)
    return [_clip(name, one, known, whole, split) for name, one in tracks.items()]


def _tracks(sequence: Any, where: str) -> Tracks:
    try:
        keypoints = np.array(sequence["keypoints"], np.float32)
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise UserError(f"{where}: has no array `keypoints` ({error})") from error
    if keypoints.ndim != 4 or keypoints.shape[1:] != (len(ANIMALS), len(PARTS), 2):
        hint = "; this looks like CalMS21, --source calms21" if keypoints.shape[1:] == (2, 2, 7) else ""
        raise UserError(
            f"{where}: keypoints of shape {keypoints.shape}; must be (frames, 3 mice, 12 parts, x and y){hint}"
        )
    keypoints[(keypoints == 0).all(axis=-1)] = np.nan
    return checked(Tracks(keypoints, ANIMALS, PARTS, FPS, WIDTH / ARENA_CM, None, WIDTH, HEIGHT), where)


def _inside(held: Mapping[str, Any], sequences: Mapping[Any, Any], path: Path) -> _Labels:
    """The labels that lie with the clips of the training file."""
    of = {str(name): one["annotations"] for name, one in sequences.items() if "annotations" in one}
    if not of:
        return _Labels((), {})
    tasks = tuple(str(task) for task in held.get("vocabulary", ()))
    return _Labels(tasks, {name: _numbers(values, f"{path}: {name}: annotations") for name, values in of.items()})


def _beside(path: Path) -> _Labels:
    """The labels of a file of their own."""
    held = pickles.load(path)
    wanted = ("label_array", "frame_number_map", "task_type", "vocabulary")
    if not isinstance(held, Mapping) or any(name not in held for name in wanted):
        raise UserError(f"{path}: must hold {', '.join(wanted)}")
    tasks = tuple(str(task) for task in held["vocabulary"])
    values = _numbers(held["label_array"], f"{path}: label_array")
    kinds = [str(kind) for kind in held["task_type"]]
    if len(kinds) != len(tasks) or set(kinds) - set(_KINDS):
        raise UserError(f"{path}: task_type {kinds}; must be {' or '.join(_KINDS)}, one for each of {len(tasks)} tasks")
    of = {}
    for name, span in held["frame_number_map"].items():
        start, stop = (int(one) for one in span)
        if not 0 <= start <= stop <= values.shape[-1]:
            raise UserError(f"{path}: frame_number_map: {name} has {start} to {stop} of {values.shape[-1]} frames")
        of[str(name)] = values[:, start:stop]
    continuous = frozenset(task for task, kind in zip(tasks, kinds, strict=True) if _KINDS[kind])
    return _Labels(tasks, of, continuous)


def _numbers(values: Any, where: str) -> NDArray[np.float32]:
    try:
        found = np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: holds no numbers ({error})") from error
    if found.ndim != 2:
        raise UserError(f"{where}: shape {found.shape}; must be (tasks, frames)")
    return found


def _of_clips(known: _Labels) -> frozenset[str]:
    """The tasks that have one value a clip: by name, and if in fact no clip has two."""
    return frozenset(
        task
        for place, task in enumerate(known.tasks)
        if task in OF_CLIPS and all(_constant(values[place]) for values in known.of.values())
    )


def _constant(values_T: NDArray[np.float32]) -> bool:
    return bool(len(values_T)) and bool((values_T == values_T[0]).all() or np.isnan(values_T).all())


def _clip(name: str, tracks: Tracks, known: _Labels, whole: frozenset[str], split: str | None) -> Clip:
    values = dict(zip(known.tasks, known.of[name], strict=True)) if name in known.of else {}
    return Clip(
        name=name,
        lab=LAB,
        tracks=tracks,
        bouts=Bouts.of([]),
        split=split,
        frame_labels={task: row for task, row in values.items() if task not in whole},
        clip_labels={task: float(row[0]) for task, row in values.items() if task in whole},
        continuous=known.continuous,
    )
