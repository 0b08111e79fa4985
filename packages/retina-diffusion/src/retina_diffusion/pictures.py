"""Photographs as files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from shared_core import files
from shared_core.errors import UserError

COVERAGE = "coverage"  # the note of a PNG file whose values are covered shares
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".ppm")


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A picture, whole and upright. Raises UserError where it is none, or is cut off."""
    try:
        with Image.open(path) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
    except FileNotFoundError as error:
        raise files.explain(error, path) from error
    except (UnidentifiedImageError, SyntaxError, ValueError, OSError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read as a picture ({error}); replace or remove it") from error
    yield upright


def read(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) RGB; more than 8 bits are scaled to 8 (`_eight_bit`), and what is transparent is black."""
    with opened(path) as image:
        if image.mode.startswith("I") or image.mode == "F":
            return np.repeat(_eight_bit(np.asarray(image, np.float64))[:, :, None], 3, axis=2)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
        return np.asarray(image.convert("RGB"))


def _eight_bit(x_HW: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Numbers of 1 (from 0 to 1), 8, 10, 12, 14 or 16 bits, whichever holds them all: cameras fill no 16."""
    x_HW = np.nan_to_num(x_HW, posinf=0, neginf=0).clip(0)
    top = x_HW.max()
    full = next((2**bits - 1 for bits in (1, 8, 10, 12, 14, 16) if top <= 2**bits - 1), top)
    return np.round(x_HW * (255 / full)).astype(np.uint8)


def listed(folder: Path, deep: bool = False) -> list[Path]:
    """The pictures in a folder, sorted; hidden files are left out. Raises UserError where there are none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: {'is a file' if folder.exists() else 'no such folder'}; must hold pictures")
    found = sorted(
        path
        for path in folder.glob("**/*" if deep else "*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise UserError(f"{folder}: holds no pictures ({', '.join(SUFFIXES)})")
    return found


def write(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write (H, W, 3) as PNG, whole or not at all. Raises UserError where the disk is full."""
    _save(Image.fromarray(picture), path, PngInfo())


def write_coverage(path: Path, mask: NDArray[np.uint8]) -> None:
    """Write covered shares (H, W), in 255ths; the file says so, for `masks.read` takes others for yes or no."""
    about = PngInfo()
    about.add_text(COVERAGE, "255")
    _save(Image.fromarray(mask), path, about)


def _save(image: Image.Image, path: Path, about: PngInfo) -> None:
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=about)
    files.atomic_write(path, stream.getvalue())
