"""Tracks that somebody wants predictions for: a file or a folder of a tracker, or the test of a challenge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mabe_behavior.bouts import Bouts
from mabe_behavior.config import PredictOptions
from mabe_behavior.formats.camera import Camera
from mabe_behavior.recording import Recording
from mabe_behavior.tracks import Tracks
from shared_core.errors import UserError

SUFFIXES = (".csv", ".h5", ".hdf5", ".json", ".npy", ".npz")
UNKNOWN_LAB = "unknown"


def read(path: Path, options: PredictOptions) -> list[Recording]:
    """The recordings of an input.

    Raises UserError where there is none, its format is not clear, or the format does not say what has to be given.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    name = options.format if options.format != "auto" else recognised(path)
    if name in ("kaggle", "calms21", "mabe22"):
        return _of_challenge(path, name)
    files = sorted(one for one in path.iterdir() if one.suffix in SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: holds no file of tracks ({', '.join(SUFFIXES)})")
    found = [
        Recording(one.stem, options.lab or UNKNOWN_LAB, _tracks(one, name, options), Bouts.of([])) for one in files
    ]
    if len({one.name for one in found}) < len(found):
        raise UserError(f"{path}: two files have the same name but for its ending; give a folder without copies")
    return found


def recognised(path: Path) -> str:
    """The format of an input, by its names and beginnings. Raises UserError where it is not clear."""
    if path.is_dir():
        if (path / "test.csv").is_file():
            return "kaggle"
        inside = sorted(one for one in path.iterdir() if one.suffix in SUFFIXES)
        if not inside:
            raise UserError(f"{path}: holds no file of tracks ({', '.join(SUFFIXES)})")
        path = inside[0]
    if path.stem.startswith("calms21"):
        return "calms21"
    if path.stem.startswith("mouse_triplet"):
        return "mabe22"
    if path.suffix == ".csv":
        return "deeplabcut" if _begins_with(path, "scorer") else "simba"
    if path.suffix in (".h5", ".hdf5"):
        return _of_h5(path)
    raise UserError(f"{path}: its format is not clear; say --format")


def _begins_with(path: Path, word: str) -> bool:
    from mabe_behavior.formats import tracktable

    return tracktable.lines(path, 1)[0].lower().startswith(word)


def _of_h5(path: Path) -> str:
    from mabe_behavior.formats import h5

    with h5.opened(path) as stream:
        if "poseest" in stream:
            return "jabs"
        return "sleap" if "node_names" in stream else "deeplabcut"


def _of_challenge(path: Path, name: str) -> list[Recording]:
    from mabe_behavior.formats import calms21, kaggle, mabe22

    if name == "kaggle":
        return kaggle.read(path, "test")
    readers: dict[str, Callable[[Path], list[Recording]]] = {
        "calms21": calms21.read,
        "mabe22": lambda path: list(mabe22.read(path)),
    }
    return readers[name](path)


def _tracks(path: Path, name: str, options: PredictOptions) -> Tracks:
    from mabe_behavior.formats import deeplabcut, jabs, simba, sleap

    if options.identities and name in ("jabs", "simba"):
        raise UserError(f"--identities: a file of {name} says itself which mouse is which; leave it out")
    rule = deeplabcut.identity_rule(options.identities) if options.identities else None
    if name == "jabs":
        fps = options.fps or jabs.FPS
        return jabs.read(path, fps, options.pixels_per_cm)
    for flag, value in (("fps", options.fps), ("pixels-per-cm", options.pixels_per_cm)):
        if value is None:
            raise UserError(f"{path}: does not say its {flag.replace('-', ' ')}; give --{flag}")
    assert options.fps is not None and options.pixels_per_cm is not None
    camera = Camera(options.fps, options.pixels_per_cm)
    if name == "simba":
        return simba.read(path, camera)[0].tracks
    reader = sleap.read if name == "sleap" else deeplabcut.read
    return reader(path, camera, rule)
