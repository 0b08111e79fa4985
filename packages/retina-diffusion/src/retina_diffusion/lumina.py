"""Weights of Lumina-Next-T2I (Zhuo et al. 2024) for a NextDiT: reading its checkpoints, and giving them to a network.

A checkpoint is `consolidated.pth`, or a file for each part of the network that trained on a device of its own,
`consolidated.00-of-02.pth` and so on; with `consolidated_ema` they are averaged weights; with `.safetensors` they
are plain. Beside them lies `model_args.pth`, pickled objects that are not read.

Shapes: D features, P pixels of a patch, C channels of the image, M of masks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import torch

from retina_diffusion.nextdit import NextDiT
from shared_core import tensorfile
from shared_core.errors import UserError
from shared_core.files import explain

Tensors = dict[str, torch.Tensor]

SHOWN = 3  # names in a message
EMBEDDER, UNKNOWN = "x_embedder.weight", "unknown_MD"

# best first: averaged weights, then files that cannot hold code
KINDS = [(stem, suffix) for stem in ("consolidated_ema", "consolidated") for suffix in ("safetensors", "pth")]
_PART = re.compile(r"(?P<stem>.+)\.(?P<number>\d+)-of-(?P<parts>\d+)\.(?P<suffix>pth|safetensors)")

# how parts make up the whole (Megatron's layout as in fairscale); all else is the same in each part
_ROWS = re.compile(  # one below the other, biases one after the other
    r"(.*\.attention\.(wq|wk|wv|wk_y|wv_y)\.weight|.*\.attention\.gate|.*\.feed_forward\.(w1|w3)\.weight"
    r"|(x_embedder|t_embedder\.mlp\.0|cap_embedder\.1|(.*\.)?adaLN_modulation\.1|final_layer\.linear)\.(weight|bias))"
)
_COLUMNS = re.compile(r"(.*\.attention\.wo|.*\.feed_forward\.w2|t_embedder\.mlp\.2)\.weight")  # side by side
_NORMS = re.compile(r".*\.(q_norm|k_norm|ky_norm)\.(weight|bias)")


@dataclass(frozen=True)
class Loaded:
    """What became of a checkpoint's weights: names of tensors, and how many numbers each has."""

    loaded: dict[str, int] = field(default_factory=dict)
    new: dict[str, int] = field(default_factory=dict)  # the network's alone, by design: they start at 0
    missing: dict[str, int] = field(default_factory=dict)  # the network's alone: they stay as they were
    mismatched: dict[str, int] = field(default_factory=dict)  # the same for want of a common shape
    unused: dict[str, int] = field(default_factory=dict)  # the checkpoint's alone

    @property
    def share(self) -> float:
        """Of the network's parameters that are not new: those that were loaded."""
        loaded = sum(self.loaded.values())
        return loaded / (loaded + sum(self.missing.values()) + sum(self.mismatched.values()))

    def __str__(self) -> str:
        loaded = f"{len(self.loaded)} tensors, {sum(self.loaded.values()):,} parameters"
        others = {
            "new, at 0": self.new,
            "missing, left as they were": self.missing,
            "of another shape, left as they were": self.mismatched,
            "in the checkpoint but not used": self.unused,
        }
        return f"loaded {loaded} ({self.share:.1%} of the network's)" + "".join(
            f"; {what}: {_some(names)} ({sum(names.values()):,} parameters)" for what, names in others.items() if names
        )


def read(path: Path) -> Tensors:
    """The weights of a checkpoint, on the CPU; parts are put together.

    Args:
        path: a file, with its other parts beside it, or a folder; averaged weights are preferred there.

    Raises UserError where there is none, a part is missing or damaged, a file holds anything but tensors (which is not
    run), or the parts make up no network that is whole.
    """
    path = Path(path)
    if path.is_dir():
        path = _best(path)
    part = _PART.fullmatch(path.name)
    if part is None or int(part["parts"]) == 1:
        return _read(path)
    wide, count = len(part["number"]), int(part["parts"])
    names = [f"{part['stem']}.{i:0{wide}}-of-{part['parts']}.{part['suffix']}" for i in range(count)]
    return _joined([_read(path.with_name(name)) for name in names], path.parent)


def load(model: NextDiT, tensors: Tensors, least_share: float) -> Loaded:
    """Give `model` the weights of its names and shapes.

    A network with masks takes weights that were trained without: it has P P M columns more in `x_embedder.weight`, the
    last ones, and `unknown_MD`; both become 0, so that at first it computes the same whatever the masks.

    Args:
        least_share: of the network's parameters that must be found.

    Raises UserError where fewer are, and leaves `model` as it was.
    """
    own, shape = model.state_dict(), model.shape
    without_masks = (shape.dim, shape.patch**2 * shape.channels)
    taken, found, wrong = {}, Loaded(), []
    for name, tensor in own.items():
        given = tensors.get(name)
        if given is not None and given.shape == tensor.shape:
            taken[name], found.loaded[name] = given, given.numel()
        elif given is not None and name == EMBEDDER and shape.masks and given.shape == without_masks:
            taken[name], found.loaded[name] = _widened(given, tensor.shape[1]), given.numel()
            found.new[f"{name} (columns of masks)"] = tensor.numel() - given.numel()
        elif given is not None:
            found.mismatched[name] = tensor.numel()
            wrong.append(f"{name} is {list(given.shape)}, not {list(tensor.shape)}")
        elif name == UNKNOWN:
            taken[name], found.new[name] = torch.zeros_like(tensor), tensor.numel()
        else:
            found.missing[name] = tensor.numel()
    found.unused.update({name: tensor.numel() for name, tensor in tensors.items() if name not in own})
    if found.share < least_share:
        raise UserError(_too_few(found, wrong, least_share))
    model.load_state_dict({**own, **taken}, strict=True)
    return found


def _too_few(found: Loaded, wrong: list[str], least_share: float) -> str:
    reasons = [f"missing {_some(found.missing)}"] if found.missing else []
    reasons += ["; ".join(wrong[:SHOWN]) + (f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else "")]
    reasons += [f"not the network's: {_some(found.unused)}"] if found.unused else []
    return (
        f"pretrained weights: {found.share:.1%} of the network's parameters are in the checkpoint, fewer than "
        f"pretrained.least_share ({least_share:.1%}): {'; '.join(filter(None, reasons))}; give the network the "
        "checkpoint's shape, or another checkpoint, or lower pretrained.least_share"
    )


def _some(names: dict[str, int]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(list(names)[:SHOWN]) + more


def _widened(weight: torch.Tensor, columns: int) -> torch.Tensor:
    return torch.cat((weight, weight.new_zeros(len(weight), columns - weight.shape[1])), dim=1)


def _best(folder: Path) -> Path:
    for stem, suffix in KINDS:
        whole = folder / f"{stem}.{suffix}"
        if found := [whole] if whole.exists() else sorted(folder.glob(f"{stem}.*-of-*.{suffix}")):
            return found[0]
    raise UserError(f"{folder}: holds no consolidated*.safetensors or consolidated*.pth; give the folder that does")


def _read(path: Path) -> Tensors:
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path, and that all parts of the checkpoint are beside it")
    if path.suffix == ".safetensors":
        return tensorfile.read(path)[0]
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise explain(error, path) from error
    except Exception as error:  # a foreign file can cause any
        raise UserError(
            f"{path}: damaged, or holds other things than tensors, which could run code and were not read "
            f"({type(error).__name__}); download it again, or give the checkpoint as safetensors"
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise UserError(f"{path}: is no dictionary of tensors; give the file of the weights alone")
    return tensors


def _joined(parts: list[Tensors], where: Path) -> Tensors:
    """The whole network of its parts."""
    if any(part.keys() != parts[0].keys() for part in parts[1:]):
        raise UserError(f"{where}: its parts have different tensors; they belong to different checkpoints")
    return {name: _joined_one(name, [part[name] for part in parts], where) for name in parts[0]}


def _joined_one(name: str, parts: list[torch.Tensor], where: Path) -> torch.Tensor:
    if _NORMS.fullmatch(name):
        # each part took mean and variance over its own heads, a whole network takes them over all
        raise UserError(
            f"{where}: {name} was trained in {len(parts)} parts, each a norm over the heads of its part alone, which "
            "no whole network computes; give a checkpoint in one part (00-of-01)"
        )
    try:
        if _ROWS.fullmatch(name):
            return torch.cat(parts, dim=0)
        if _COLUMNS.fullmatch(name):
            return torch.cat(parts, dim=1)
        if all(torch.equal(part, parts[0]) for part in parts[1:]):
            return parts[0]
    except (RuntimeError, IndexError) as error:
        sizes = ", ".join(str(list(part.shape)) for part in parts)
        raise UserError(f"{where}: the parts of {name} do not fit together ({sizes})") from error
    raise UserError(f"{where}: {name} differs between the parts, but should be the same in all; give one in one part")
