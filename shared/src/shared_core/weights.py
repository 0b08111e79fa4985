"""Weights alone, out of whatever holds some: a checkpoint, a run, a pulled repository, a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from shared_core import manifest, tensorfile
from shared_core.errors import UserError
from shared_core.tensorfile import Tensors

if TYPE_CHECKING:
    from torch import nn


def load_weights(path: Path, which: Literal["model", "ema", "auto"] = "auto") -> Tensors:
    """The weights in a checkpoint, a run (its best checkpoint, else its newest), or a `.safetensors` file.

    Args:
        path: also a folder with a bare ``model.safetensors``, as `pull` makes it.
        which: ``auto``: the averaged weights where there are any.

    Raises:
        UserError: there are no such weights, or the file is damaged.
    """
    path = Path(path)
    if path.is_file():
        return tensorfile.read(path)[0]
    bare = path / "model.safetensors"
    if bare.is_file() and not (path / "manifest.json").exists() and not manifest.match(path):
        return tensorfile.read(bare)[0]
    if not manifest.is_checkpoint(path):
        folder = manifest.checkpoints_folder(path)
        found = manifest.best(folder) or manifest.newest_good(folder)[0]
        if found is None:
            raise UserError(f"{path}: holds no checkpoint and no model.safetensors; give a run or a checkpoint")
        path = found
    listed = manifest.read(path)["files"]
    if "model.safetensors" not in listed:
        return _from_shards(path, which)
    if which == "auto":
        which = "ema" if "ema.safetensors" in listed else "model"
    name = f"{which}.safetensors"
    if name not in listed:
        raise _no_averages(path)
    if reason := manifest.damage(path, name, listed[name]):
        raise UserError(f"{path}: {reason}; give another checkpoint")
    return tensorfile.read(path / name)[0]


def load_strictly(model: nn.Module, weights: Tensors, source: str | Path) -> None:
    """Give `model` these weights: all of its own, no other, each of its shape.

    Raises:
        UserError: a weight is missing, one is too many, or a shape differs; the model is as it was.
    """
    own = model.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in weights]
    wrong += [f"{name} is not the model's" for name in weights if name not in own]
    wrong += [
        f"{name} is {list(weights[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if wrong:
        more = f" and {len(wrong) - 2} more" if len(wrong) > 2 else ""
        raise UserError(
            f"{source}: its weights do not fit the configuration's model ({'; '.join(wrong[:2])}{more}); use the "
            "configuration that they were trained with"
        )
    model.load_state_dict(weights, strict=True)


def _from_shards(path: Path, which: Literal["model", "ema", "auto"]) -> Tensors:
    from shared_core import sharded

    manifest.require_good(path)
    structure = json.loads((path / "state.json").read_text())
    if which == "auto":
        which = "model" if structure["ema"] is None else "ema"
    if structure[which] is None:
        raise _no_averages(path)
    names = tensorfile.names(structure[which])
    return dict(tensorfile.join(structure[which], sharded.read_whole(path / "shards", sorted(names))))


def _no_averages(path: Path) -> UserError:
    return UserError(f"{path}: holds no averaged weights; train with training.ema_decay or ask for the model's own")
