"""What a run drew while it trained (``samples/NAME-STEP.png``), for its report."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shared_core import files

SHOWN = 5  # of each name
WIDTH = 1_000  # pixels; larger pictures are made smaller, for they lie within the report


def chosen(samples: Path) -> list[Path]:
    """The pictures of some steps, the first and the last among them, more of the early ones, when most changes."""
    by_name: dict[str, list[Path]] = {}
    for path in sorted(samples.glob("*-*.png")):
        by_name.setdefault(path.stem.rpartition("-")[0], []).append(path)
    found = []
    for paths in by_name.values():
        places = np.geomspace(1, len(paths), SHOWN).round().astype(int) - 1
        found += [paths[place] for place in sorted(set(places.tolist()))]
    return found


def reduced(path: Path, folder: Path) -> Path:
    """A picture in `folder`, no wider than a report shows it, that says its step."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    name, _, step = path.stem.rpartition("-")
    about = PngInfo()
    about.add_text("Title", f"{name.capitalize()} at step {int(step):,}" if step.isdigit() else path.stem)
    about.add_text("Description", f"Step {int(step):,}." if step.isdigit() else "")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"sample-{path.name}"
    with Image.open(path, formats=["PNG"]) as picture, files.atomic_path(target) as temporary:
        width = min(picture.width, WIDTH)
        size = (width, round(picture.height * width / picture.width))
        picture.resize(size, Image.Resampling.BOX).save(temporary, "PNG", pnginfo=about)
    return target
