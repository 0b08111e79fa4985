"""What a run drew while it trained (``samples/NAME-STEP.png``), for its report."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from shared_core import files
from shared_core.errors import UserError

SHOWN = 5  # of each name
WIDTH = 1_000  # pixels; larger pictures are made smaller, for they lie within the report
PREFIX = "sample-"
NAME = re.compile(r"(.+)-(\d+)")


def chosen(samples: Path, last_step: int) -> list[Path]:
    """The pictures of some steps, the first and the last among them, more of the early ones, when most changes.

    Args:
        last_step: later ones are of a training that was taken back.
    """
    by_name: dict[str, dict[int, Path]] = {}
    for path in samples.glob("*.png"):
        if (match := NAME.fullmatch(path.stem)) and int(match[2]) <= last_step:
            by_name.setdefault(match[1], {})[int(match[2])] = path
    found = []
    for _, by_step in sorted(by_name.items()):
        paths = [path for _, path in sorted(by_step.items())]
        places = np.geomspace(1, len(paths), SHOWN).round().astype(int) - 1
        found += [paths[place] for place in sorted(set(places.tolist()))]
    return found


def forget(folder: Path) -> None:
    """Remove the pictures of an earlier report, which may have chosen other steps."""
    for path in folder.glob(f"{PREFIX}*.png"):
        path.unlink(missing_ok=True)


def reduced(path: Path, folder: Path) -> Path:
    """A picture that `chosen` gave, in `folder`, no wider than a report shows it, that says its step.

    Raises UserError where it cannot be read.
    """
    from PIL import Image, UnidentifiedImageError
    from PIL.PngImagePlugin import PngInfo

    match = NAME.fullmatch(path.stem)
    assert match is not None
    about = PngInfo()
    about.add_text("Title", f"{match[1].capitalize()} at step {int(match[2]):,}")
    about.add_text("Description", f"Step {int(match[2]):,}.")
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            width = min(picture.width, WIDTH)
            size = (width, round(picture.height * width / picture.width))
            small = picture.resize(size, Image.Resampling.BOX)
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise UserError(f"{path}: cannot be read as PNG ({error}); delete it") from error
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{PREFIX}{path.name}"
    with files.atomic_path(target) as temporary:
        small.save(temporary, "PNG", pnginfo=about)
    return target
