"""Folders of photographs and masks: ``images/NAME.*`` with

    ``masks/NAME_CHANNEL.*``   a file for each class that there is; or
    ``masks/CHANNEL/NAME.*``   the same in folders; or
    ``masks/NAME.*``           one file whose pixel values number the classes of ``data.mask_values``.

A lesion of which there is any file was looked for in all photographs that have a mask of some lesion; other classes in
those that have their mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from retina_diffusion.channels import CHANNELS
from retina_diffusion.pictures import listed
from retina_diffusion.records import Record, searched
from shared_core.errors import UserError


def read(root: Path, alone: bool = False) -> list[Record]:
    """The photographs of a folder.

    Args:
        alone: without a folder of images, masks stand for themselves.

    Raises UserError for folders that are others, or masks without a photograph.
    """
    by_themselves = alone and not (root / "images").exists()
    images = {} if by_themselves else _photographs(root)
    files = listed(root / "masks", deep=True)
    if by_themselves:
        images = dict.fromkeys(map(_stem, files))
    by_channel: dict[str, dict[str, Path]] = {name: {} for name in images}
    labels: dict[str, Path] = {}
    for path in files:
        name, channel = _whose(path, images)
        if name is None:
            raise UserError(
                f"{path}: belongs to no photograph in {root / 'images'}; name it NAME_CHANNEL or NAME, "
                f"where CHANNEL is {', '.join(CHANNELS)}"
            )
        other = labels.get(name) if channel is None else by_channel[name].get(channel)
        if other is not None:
            raise UserError(f"{path}: {other} is the same mask; remove one of them")
        if channel is None:
            labels[name] = path
        else:
            by_channel[name][channel] = path
        if name in labels and by_channel[name]:
            raise UserError(f"{labels[name]}: there are masks by class as well ({path}); remove one or the other")
    looked = {channel for masks in by_channel.values() for channel in masks}
    return [
        Record(
            name,
            image,
            masks=by_channel[name],
            labels=labels.get(name),
            known=searched(by_channel[name], looked),
            where=str(image or root / "masks" / name),
        )
        for name, image in sorted(images.items())
    ]


def _photographs(root: Path) -> dict[str, Path | None]:
    """By name."""
    found: dict[str, Path | None] = {}
    for path in listed(root / "images"):
        if (other := found.get(path.stem)) is not None:
            raise UserError(f"{path}: {other.name} has the same name; rename or remove one of them")
        found[path.stem] = path
    return found


def _stem(path: Path) -> str:
    """What the photograph of a mask would be called."""
    name, _, channel = path.stem.rpartition("_")
    return name if name and channel in CHANNELS and path.parent.name not in CHANNELS else path.stem


def _whose(path: Path, images: Mapping[str, Path | None]) -> tuple[str | None, str | None]:
    """The photograph and the channel of a mask."""
    if path.parent.name in CHANNELS:
        return (path.stem if path.stem in images else None), path.parent.name
    if path.stem in images:
        return path.stem, None
    name, _, channel = path.stem.rpartition("_")
    return (name, channel) if name in images and channel in CHANNELS else (None, None)
