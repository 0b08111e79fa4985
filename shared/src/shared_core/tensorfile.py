"""Tensors, and nested states that contain tensors, as safetensors and JSON: nothing that could run code on loading.

safetensors stores contiguous tensors that share no memory. Two things a resumed run needs are therefore kept in the
file's text header: which names are the same tensor (tied weights), and the strides of tensors in another memory
layout (channels-last; fused optimizers refuse a state whose strides differ from the parameter's).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from shared_core.errors import UserError
from shared_core.files import explain

Tensors = dict[str, torch.Tensor]


def write(path: Path, tensors: Tensors, header: dict[str, str] | None = None) -> None:
    """Write tensors of any dtype safetensors knows (not complex128), shape and layout; not atomic, not flushed.

    Raises:
        UserError: the disk is full or the folder not writable.
        ValueError: a tensor is sparse, quantised or of a dtype that cannot be stored.
    """
    kept: Tensors = {}
    aliases: dict[str, str] = {}
    strides: dict[str, tuple[int, ...]] = {}
    first_with: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.dtype is torch.complex128:
            raise ValueError(f"{name}: a {tensor.layout} tensor of {tensor.dtype} cannot be stored; convert it first")
        tensor = tensor.detach()
        identity = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and identity in first_with:
            aliases[name] = first_with[identity]
            continue
        first_with[identity] = name
        if not tensor.is_contiguous() and _is_dense(tensor.shape, tensor.stride()):
            strides[name] = tensor.stride()
        stored = tensor.cpu().resolve_conj().resolve_neg().contiguous()
        # A view of a larger or a shared storage needs memory of its own.
        if stored.data_ptr() == tensor.data_ptr() and stored.untyped_storage().nbytes() != stored.nbytes:
            stored = stored.clone()
        kept[name] = stored
    metadata = {"format": "pt", **(header or {})}
    if aliases:
        metadata["aliases"] = json.dumps(aliases)
    if strides:
        metadata["strides"] = json.dumps(strides)
    try:
        save_file(_without_shared_memory(kept), path, metadata=metadata)
    except OSError as error:
        raise explain(error, path) from error
    except SafetensorError as error:
        raise _explain(error, path) from error


def read(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Tensors on the CPU, in memory of their own (not mapped to the file), and the file's text header.

    Raises:
        UserError: the file is missing or is no whole safetensors file.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = dict(file.metadata() or {})
            strides = json.loads(header.get("strides", "{}"))
            tensors = {name: _own(file.get_tensor(name), strides.get(name)) for name in file.keys()}  # noqa: SIM118
        tensors |= {name: tensors[kept] for name, kept in json.loads(header.get("aliases", "{}")).items()}
    except OSError as error:
        raise explain(error, path) from error
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:  # a header can say anything
        raise _explain(error, path) from error
    return tensors, header


def write_tree(path: Path, tree: Any) -> None:
    """Write a nested state (see `split`) as one safetensors file with its structure in the header."""
    structure, tensors = split(tree)
    write(path, tensors, {"tree": json.dumps(structure, allow_nan=False)})


def read_tree(path: Path) -> Any:
    """What `write_tree` wrote: equal values, the same types (tuples, integer keys), the same tensors."""
    tensors, header = read(path)
    return join(json.loads(header["tree"]), tensors)


def split(tree: Any, name: str = "") -> tuple[Any, Tensors]:
    """A nested state as strict JSON and a flat dict of its tensors, named by their place (``state.0.exp_avg``).

    Leaves are tensors, None, bool, int, float (also infinite) and str; nodes are dicts, lists and tuples. What JSON
    lacks is marked by a dict with one key that begins with ``$``.

    Raises:
        ValueError: something else is in the tree; the message says where.
    """
    tensors: Tensors = {}

    def encode(node: Any, name: str) -> Any:
        if isinstance(node, torch.Tensor):
            unique = name
            while unique in tensors:  # {"a.b": ...} beside {"a": {"b": ...}}
                unique += "'"
            tensors[unique] = node
            return {"$tensor": unique}
        if node is None or isinstance(node, bool | str):
            return node
        if isinstance(node, int):
            return int(node)
        if isinstance(node, float):
            return float(node) if math.isfinite(node) else {"$float": repr(float(node))}
        if isinstance(node, tuple):
            return {"$tuple": [encode(child, _join(name, i)) for i, child in enumerate(node)]}
        if isinstance(node, list):
            return [encode(child, _join(name, i)) for i, child in enumerate(node)]
        if isinstance(node, dict):
            if all(isinstance(key, str) and not key.startswith("$") for key in node):
                return {key: encode(child, _join(name, key)) for key, child in node.items()}
            return {"$dict": [[encode(key, name), encode(child, _join(name, key))] for key, child in node.items()]}
        raise ValueError(f"{name or 'state'}: a {type(node).__name__} cannot be stored; use numbers, text or tensors")

    return encode(tree, name), tensors


def join(structure: Any, tensors: Tensors) -> Any:
    """The inverse of `split`."""
    if isinstance(structure, list):
        return [join(child, tensors) for child in structure]
    if not isinstance(structure, dict):
        return structure
    if len(structure) == 1:
        (key, value), *_ = structure.items()
        if key == "$tensor":
            return tensors[value]
        if key == "$float":
            return float(value)
        if key == "$tuple":
            return tuple(join(child, tensors) for child in value)
        if key == "$dict":
            return {join(k, tensors): join(child, tensors) for k, child in value}
    return {key: join(child, tensors) for key, child in structure.items()}


def names(structure: Any) -> set[str]:
    """The names of all tensors in what `split` returned first."""
    if not isinstance(structure, list | dict):
        return set()
    if isinstance(structure, dict) and structure.keys() == {"$tensor"}:
        return {structure["$tensor"]}
    children = structure if isinstance(structure, list) else structure.values()
    return set().union(*map(names, children))


def _join(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def _is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the elements fill one block of memory exactly once, in some order of the dimensions."""
    expected = 1
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True


def _own(tensor: torch.Tensor, stride: list[int] | None) -> torch.Tensor:
    if stride is None:
        return tensor.clone()
    if not _is_dense(tensor.shape, stride):
        raise ValueError(f"strides {stride} do not fit the shape {list(tensor.shape)}")
    return torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype).copy_(tensor)


def _without_shared_memory(tensors: Tensors) -> Tensors:
    """Copies where two different tensors (say, two shapes) lie in the same storage."""
    seen: set[int] = set()
    result: Tensors = {}
    for name, tensor in tensors.items():
        pointer = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if pointer in seen else tensor
        if tensor.numel():
            seen.add(pointer)
    return result


def _explain(error: Exception, path: Path) -> UserError:
    """safetensors wraps the system's errors in text of its own."""
    if "(os error 28)" in str(error) or "(os error 122)" in str(error):
        return UserError(f"{path}: the disk is full; free some space or choose a folder on another disk")
    return UserError(f"{path}: {error}; the file is damaged or could not be written")
