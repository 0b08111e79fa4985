"""The fields of a configuration class: what `--help` lists, flags name and misspellings are compared with."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ByteSize
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

REQUIRED = PydanticUndefined


@dataclass(frozen=True)
class Leaf:
    """One setting, named by its dotted key."""

    key: str
    annotation: Any
    default: Any  # REQUIRED where there is none
    description: str
    resumable: bool
    positional: bool = False

    @property
    def nullable(self) -> bool:
        return allows_null(self.annotation)

    @property
    def is_bool(self) -> bool:
        return set(_members(self.annotation)) - {type(None)} == {bool}

    @property
    def is_list(self) -> bool:
        return any(get_origin(member) in (list, tuple, set, frozenset) for member in _members(self.annotation))

    @property
    def type_text(self) -> str:
        """The kind of value for people: ``int``, ``adamw|muon``, ``number,number,...``."""
        return type_text(self.annotation)


def leaves(schema: type[BaseModel], defaults: Any = None) -> dict[str, Leaf]:
    """Every setting of a class by dotted key, in order of declaration; `defaults` (an instance) overrides defaults."""
    found: dict[str, Leaf] = {}
    for leaf in _walk(schema, "", defaults, False):
        found.setdefault(leaf.key, leaf)
    return found


def sections(schema: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The nested classes by dotted key (the first one, where a field allows several)."""
    found: dict[str, type[BaseModel]] = {}
    for name, info in schema.model_fields.items():
        for model in submodels(info.annotation):
            found.setdefault(name, model)
            for key, nested in sections(model).items():
                found.setdefault(f"{name}.{key}", nested)
    return found


def submodels(annotation: Any) -> list[type[BaseModel]]:
    """The pydantic classes that a field itself may hold (not those inside lists)."""
    return [m for m in _members(annotation) if isinstance(m, type) and issubclass(m, BaseModel)]


def allows_null(annotation: Any) -> bool:
    """Whether null is a value of this type."""
    return type(None) in _members(annotation)


def is_path(annotation: Any) -> bool:
    """Whether a path is meant."""
    return Path in _members(annotation)


def is_resumable(info: FieldInfo) -> bool:
    """Whether a field may differ when a run is resumed."""
    return _extra(info, "resumable")


def closest(word: str, keys: Iterable[str]) -> str | None:
    """The dotted key that was probably meant: the same last part, or a similar spelling."""
    keys = list(dict.fromkeys(keys))
    last = word.rpartition(".")[2]
    same = [key for key in keys if key.rpartition(".")[2] == last]
    if same:
        return max(same, key=lambda key: difflib.SequenceMatcher(None, word, key).ratio())
    near = difflib.get_close_matches(word, keys, n=1, cutoff=0.6)
    if near:
        return near[0]
    tails = {key.rpartition(".")[2]: key for key in reversed(keys)}
    near = difflib.get_close_matches(last, tails, n=1, cutoff=0.7)
    return tails[near[0]] if near else None


def did_you_mean(word: str, keys: Iterable[str], prefix: str = "") -> str:
    """`` (did you mean KEY?)`` or an empty string."""
    key = closest(word, keys)
    return f" (did you mean {prefix}{key}?)" if key else ""


def type_text(annotation: Any) -> str:
    """How a type is written in help: ``int``, ``float|null``, ``adamw|muon``, ``int,int,...``."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(args[0])
    if origin is Literal:
        return "|".join(str(value) for value in args)
    if origin in (Union, types.UnionType):
        return "|".join(dict.fromkeys(type_text(arg) for arg in args))
    if origin is tuple and args and args[-1] is not Ellipsis:
        return ",".join(type_text(arg) for arg in args)
    if origin in (list, tuple, set, frozenset) and args:
        return f"{type_text(args[0])},..."
    if origin is dict:
        return "JSON"
    names = {type(None): "null", bool: "true|false", str: "text", Path: "path", ByteSize: "size", Any: "value"}
    return str(names.get(annotation) or getattr(annotation, "__name__", annotation))


def _walk(schema: type[BaseModel], prefix: str, defaults: Any, resumable: bool) -> Iterator[Leaf]:
    for name, info in schema.model_fields.items():
        default = getattr(defaults, name, REQUIRED) if defaults is not None else REQUIRED
        if default is REQUIRED:
            default = info.get_default(call_default_factory=True) if not info.is_required() else REQUIRED
        allowed = resumable or is_resumable(info)
        nested = submodels(info.annotation)
        for model in nested:
            yield from _walk(model, f"{prefix}{name}.", default if isinstance(default, model) else None, allowed)
        if not nested:
            yield Leaf(
                f"{prefix}{name}", info.annotation, default, info.description or "", allowed, _extra(info, "positional")
            )


def _members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a type, without `Annotated`."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(member for arg in get_args(annotation) for member in _members(arg))
    return (annotation,)


def _extra(info: FieldInfo, name: str) -> bool:
    extra = info.json_schema_extra
    return bool(isinstance(extra, dict) and extra.get(name))
