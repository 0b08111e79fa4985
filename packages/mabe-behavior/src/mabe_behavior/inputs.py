"""Tracks that somebody wants predictions for: a file or a folder of a tracker, or the test of a challenge."""

from __future__ import annotations

from pathlib import Path

from mabe_behavior.bouts import Bouts
from mabe_behavior.config import PredictOptions
from mabe_behavior.formats import trackers
from mabe_behavior.formats.trackers import Told
from mabe_behavior.recording import Recording
from shared_core.errors import UserError

UNKNOWN_LAB = "unknown"


def read(path: Path, options: PredictOptions) -> list[Recording]:
    """The recordings of an input.

    Raises UserError where there is none, its format is not clear, or something must be given, or must not.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    challenge = _challenge(path) if options.format == "auto" else options.format
    if challenge in ("kaggle", "calms21", "mabe22"):
        for name in ("fps", "pixels_per_cm", "identities", "parts"):
            if getattr(options, name) is not None:
                raise UserError(f"--{name}: the data of {challenge} say it themselves; leave it out")
        return _of_challenge(path, challenge)
    told = Told(options.fps, options.pixels_per_cm, options.identities, options.parts)
    found = [
        Recording(one.stem, options.lab or UNKNOWN_LAB, trackers.read(one, options.format, told), Bouts.of([]))
        for one in _files(path)
    ]
    if len({one.name for one in found}) < len(found):
        raise UserError(f"{path}: two files have the same name but for its ending; give a folder without copies")
    return found


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(one for one in path.iterdir() if one.suffix.lower() in trackers.SUFFIXES)
    if not found:
        raise UserError(f"{path}: holds no file of tracks ({', '.join(trackers.SUFFIXES)})")
    return found


def _challenge(path: Path) -> str:
    """Which challenge's data these are, by their names; "" for none's."""
    names = [path.name] if path.is_file() else [one.name for one in path.iterdir()]
    if path.is_dir() and "test.csv" in names:
        return "kaggle"
    beginnings = {"calms21": "calms21_task", "mabe22": "mouse_triplet"}
    return next((name for name, begin in beginnings.items() if any(one.startswith(begin) for one in names)), "")


def _of_challenge(path: Path, name: str) -> list[Recording]:
    from mabe_behavior.formats import calms21, kaggle, mabe22

    if name == "kaggle":
        return kaggle.read(path, "test")
    return calms21.read(path) if name == "calms21" else list(mabe22.read(path))
