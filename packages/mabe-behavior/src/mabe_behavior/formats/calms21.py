"""CalMS21 (Sun et al. 2021, NeurIPS Datasets and Benchmarks): a resident and an intruder, seven parts each, 30 Hz.

Files, all of the authors' layout ``{group: {sequence: {keypoints, scores, annotations, metadata}}}``: JSON as
downloaded, or `.npy` as their converter writes it; and the `.npz` of the teaching subset, ``keypoints_K``,
``scores_K``, ``annotations_K``. The resident, mouse1, is who acts.

Shapes: T frames, A = 2 animals, P = 7 parts; their keypoints are (T, A, 2, P).
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mabe_behavior.actions import Behaviour
from mabe_behavior.bouts import Bouts
from mabe_behavior.formats import pickles
from mabe_behavior.formats.camera import checked
from mabe_behavior.recording import Recording, of_classes
from mabe_behavior.tracks import Tracks
from shared_core import files
from shared_core.errors import UserError

PARTS = ("nose", "ear_left", "ear_right", "neck", "hip_left", "hip_right", "tail_base")
ANIMALS = ("mouse1", "mouse2")  # the resident, the intruder
FPS, PIXELS_PER_CM, WIDTH, HEIGHT = 30.0, 18.33, 1024.0, 570.0
VOCABULARY = {"attack": 0, "investigation": 1, "mount": 2, "other": 3}
OTHER = "other"
ACTIONS = ("attack", "investigation", "mount")  # which the challenge scores, in its order


def read(path: Path) -> list[Recording]:
    """The sequences of a file, or of all files of a folder.

    Raises UserError where there is none, or one is not of CalMS21.
    """
    found = [one for file in _files(path) for one in _of_file(file)]
    if twice := {one.name for one in found if sum(other.name == one.name for other in found) > 1}:
        raise UserError(f"{path}: has {sorted(twice)[0]} twice; give one file of each part")
    return found


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    names = sorted(path.glob("calms21_task*"))
    found = [one for one in names if one.suffix in (".json", ".npy", ".npz")]
    # the converter leaves both beside each other
    found = [one for one in found if one.suffix != ".json" or one.with_suffix(".npy") not in found]
    if not found:
        raise UserError(f"{path}: no calms21_task*.json, .npy or .npz; give the folder of the unpacked download")
    return found


def _of_file(path: Path) -> Iterator[Recording]:
    if path.suffix == ".npz":
        groups = {"annotator-id_0": _numbered(path)}  # the subset is of task 1
    else:
        groups = _json(path) if path.suffix == ".json" else pickles.load(path)
    if not isinstance(groups, Mapping):
        raise UserError(f"{path}: holds {type(groups).__name__}; must be {{group: {{sequence: ...}}}}")
    for group, sequences in groups.items():
        if not isinstance(sequences, Mapping):
            raise UserError(f"{path}: group {group}: must hold sequences by name")
        for name, sequence in sequences.items():
            where = f"{path}: {name}"
            try:
                yield _recording(str(name), str(group), sequence, where)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise UserError(f"{where}: is damaged, or of another layout ({error})") from error


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise files.explain(error, path) from error
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error})") from error


def _numbered(path: Path) -> dict[str, dict[str, Any]]:
    """The sequences of an npz file by `task1/train/NUMBER`."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = list(archive.files)
    except OSError as error:
        raise files.explain(error, path) from error
    except (ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: is no whole .npz file ({error}); get it again") from error
    numbers = sorted(int(match[1]) for key in keys if (match := re.fullmatch(r"keypoints_(\d+)", key)))
    if not numbers:
        raise UserError(f"{path}: has no keypoints_0, keypoints_1, ...")
    wanted = [f"{name}_{k}" for k in numbers for name in ("keypoints", "scores", "annotations")]
    arrays = files.read_npz(path, wanted)
    part = "test" if "test" in path.stem else "train"
    return {
        f"task1/{part}/{k:03d}": {name: arrays[f"{name}_{k}"] for name in ("keypoints", "scores", "annotations")}
        for k in numbers
    }


def _recording(name: str, group: str, sequence: Any, where: str) -> Recording:
    try:
        keypoints = np.asarray(sequence["keypoints"], np.float32)
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"{where}: has no array `keypoints` ({error})") from error
    if keypoints.ndim != 4 or keypoints.shape[1:] != (2, 2, len(PARTS)):
        hint = "; this looks like MABe22, --source mabe22" if keypoints.shape[-1:] == (2,) else ""
        raise UserError(
            f"{where}: keypoints of shape {keypoints.shape}; must be (frames, 2 mice, x and y, 7 parts){hint}"
        )
    scores = sequence.get("scores")
    tracks = Tracks(
        keypoints.transpose(0, 1, 3, 2),
        ANIMALS,
        PARTS,
        FPS,
        PIXELS_PER_CM,
        None if scores is None else np.asarray(scores, np.float32),
        WIDTH,
        HEIGHT,
    )
    checked(tracks, where)
    split = next((part for part in ("train", "test") if f"/{part}/" in name), None)
    animal = re.search(r"mouse\d+", name)
    if "annotations" not in sequence:
        return Recording(name, group, tracks, Bouts.of([]), (), split, animal and animal.group())
    annotations = np.asarray(sequence["annotations"])
    if annotations.shape != (len(tracks),):
        raise UserError(f"{where}: annotations of shape {annotations.shape}; must be ({len(tracks)},), one a frame")
    vocabulary = sequence.get("metadata", {}).get("vocab", VOCABULARY)
    if unknown := set(np.unique(annotations).tolist()) - set(vocabulary.values()):
        raise UserError(f"{where}: annotations hold {sorted(unknown)}, which the vocabulary {vocabulary} does not")
    names = {int(number): action for action, number in vocabulary.items() if action != OTHER}
    bouts = of_classes(name, annotations.astype(np.int64), names, *ANIMALS)
    labeled = tuple(Behaviour(*ANIMALS, action) for action in sorted(names.values()))
    return Recording(name, group, tracks, bouts, labeled, split, animal and animal.group())
