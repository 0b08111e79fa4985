"""A file of a tracker, whichever it is: recognised by its names and its beginning, read by its format's reader."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mabe_behavior.formats import deeplabcut, h5, jabs, simba, sleap, tracktable
from mabe_behavior.formats.camera import Camera
from mabe_behavior.tracks import Tracks
from shared_core.errors import UserError

SUFFIXES = (".csv", ".h5", ".hdf5")
FORMATS = ("deeplabcut", "sleap", "jabs", "simba")


@dataclass(frozen=True)
class Told:
    """What a tracker's file does not say, or may not say; named as its flags and columns are."""

    fps: float | None = None
    pixels_per_cm: float | None = None
    identities: str | None = None  # NAME=mouse1,NAME=mouse2
    parts: str | None = None  # NAME=nose,NAME= : what the file calls parts; nothing leaves one out
    prefix: str = "--"  # of these names in messages

    def camera(self, path: Path) -> Camera:
        """Raises UserError where the rate or the scale is not given."""
        if self.fps is None or self.pixels_per_cm is None:
            name = "fps" if self.fps is None else "pixels_per_cm"
            raise UserError(f"{path}: does not say its {name}; give {self.prefix}{name}")
        return Camera(self.fps, self.pixels_per_cm)

    @property
    def called(self) -> dict[str, str]:
        """Name in the file -> a part's name. Raises UserError for what is no such list."""
        return pairs(self.parts, f"{self.prefix}parts") if self.parts else {}


def pairs(text: str, where: str) -> dict[str, str]:
    """``NAME=VALUE,NAME=VALUE``, each name once. Raises UserError for anything else."""
    found: dict[str, str] = {}
    for piece in text.split(","):
        name, equals, value = (one.strip() for one in piece.partition("="))
        if not equals or not name or name in found:
            raise UserError(f"{where}: {text!r}; must be NAME=VALUE,NAME=VALUE, each name once")
        found[name] = value
    return found


def recognised(path: Path) -> str:
    """The format of a file. Raises UserError where it is not clear."""
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return "deeplabcut" if tracktable.lines(path, 1)[0].lower().startswith("scorer") else "simba"
    if suffix in (".h5", ".hdf5"):
        with h5.opened(path) as stream:
            if "poseest" in stream:
                return "jabs"
            return "sleap" if "node_names" in stream else "deeplabcut"
    raise UserError(
        f"{path}: is no tracker's file that is known by its name ({', '.join(SUFFIXES)}); say its format (--format, or "
        "the column format)"
    )


def read(path: Path, name: str, told: Told) -> Tracks:
    """The positions of a file of a format, or of `auto`.

    Raises UserError as the format's reader does, and where something is not told that the file does not say, or is told
    that its format says itself.
    """
    name = recognised(path) if name == "auto" else name
    if told.identities and name in ("jabs", "simba"):
        raise UserError(f"{told.prefix}identities: a file of {name} says which mouse is which; leave it out")
    if name == "jabs":
        if told.parts:
            raise UserError(f"{told.prefix}parts: those of JABS have their names; leave it out")
        return jabs.read(path, told.fps or jabs.FPS, told.pixels_per_cm)
    if name == "simba":
        return simba.read(path, told.camera(path), called=told.called)[0].tracks
    rule = deeplabcut.identity_rule(told.identities) if told.identities else None
    reader = sleap.read if name == "sleap" else deeplabcut.read
    return reader(path, told.camera(path), rule, told.called)
