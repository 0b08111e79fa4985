"""What pydantic found wrong, said so that a user can put it right: ``file:line: key: what is wrong``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from shared_core import schema as fields
from shared_core.yamlfile import Document, Key

_WANTED = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "path_type": "must be a path",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
}
_RULES = ("value_error", "assertion_error")  # what a validator of ours has raised


class Places:
    """Where each setting came from: a line of the file, a flag, or nowhere."""

    def __init__(self, document: Document, flags: Mapping[Key, str]) -> None:
        self.document = document
        self.flags = flags  # key -> the flag as it was typed

    def of_rule(self, key: Key, message: str) -> str:
        """`of`, for a rule about the section `key`: the flags for those of its settings that the message names."""
        words = set(re.findall(r"\w+", message))
        below = [flag for path, flag in self.flags.items() if key and path[:-1] == key and path[-1] in words]
        return ", ".join(below) or self.of(key)

    def of(self, key: Key) -> str:
        """``--flag`` or ``file:line: key`` (or ``key`` alone where there is no file)."""
        for end in range(len(key), 0, -1):
            if key[:end] in self.flags:
                return self.flags[key[:end]]
        name = self.document.origins.get(key) or dotted(key)
        path = self.document.path
        line = next((at for end in range(len(key), 0, -1) if (at := self.document.line(key[:end]))), None)
        place = f"{path}:{line}" if path and line else str(path or "")
        return ": ".join(part for part in (place, name) if part)


def dotted(key: Key) -> str:
    """``("optimizer", "betas", 0)`` as ``optimizer.betas.0``."""
    return ".".join(map(str, key))


def explain(error: ValidationError, data: dict[str, Any], schema: type[BaseModel], places: Places) -> list[str]:
    """One line for each thing that is wrong, in the order pydantic found them."""
    messages: dict[tuple[Key, str], list[str]] = {}
    items = error.errors(include_url=False)
    for item in items:
        where = item["loc"]
        below = (other for other in items if len(other["loc"]) > len(where) and other["loc"][: len(where)] == where)
        if item["type"] == "too_short" and any(below):
            continue  # pydantic counts only the values that are right, and the wrong ones are named already
        key = _real_key(where, data, schema)
        if item["type"] in ("union_tag_invalid", "union_tag_not_found"):
            key = (*key, item["ctx"]["discriminator"].strip("'"))
        message = _message(cast(dict[str, Any], item), key, schema)
        place = places.of(key)
        if item["type"] in _RULES:
            named, rest = _named(message, key, schema)
            place, message = (places.of(named), rest) if named else (places.of_rule(key, message), message)
        messages.setdefault((key, place), []).append(message)
    return [": ".join(filter(None, (place, _joined(parts)))) for (_, place), parts in messages.items()]


def overlooked(value: Any, raw: Any, key: Key = ()) -> Iterator[tuple[Key, str]]:
    """What pydantic lets pass and is still a mistake: ``epochs: true`` (read as 1), and numbers that are not finite."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            inner = raw.get(name) if isinstance(raw, Mapping) else None
            yield from overlooked(getattr(value, name), inner, (*key, name))
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from overlooked(item, raw.get(name) if isinstance(raw, Mapping) else None, (*key, name))
    elif isinstance(value, list | tuple):
        raw = raw if isinstance(raw, list | tuple) and len(raw) == len(value) else [None] * len(value)
        for index, (item, inner) in enumerate(zip(value, raw, strict=True)):
            yield from overlooked(item, inner, (*key, index))
    elif isinstance(raw, bool) and isinstance(value, int | float) and not isinstance(value, bool):
        yield key, f"must be a number, not {str(raw).lower()}"
    elif isinstance(value, float) and not math.isfinite(value):
        yield key, f"must be a finite number, not {value}"


def _named(message: str, key: Key, schema: type[BaseModel]) -> tuple[Key, str]:
    """The setting that a rule about the section `key` begins its message with, and the rest; () without one."""
    name, colon, rest = message.partition(": ")
    named = (*key, *name.split("."))
    return (named, rest) if colon and dotted(named) in fields.leaves(schema) else ((), message)


def _real_key(loc: tuple[int | str, ...], data: Any, schema: type[BaseModel]) -> Key:
    """`loc` without the names of union members that pydantic mixes in: what is no field and no key of the data."""
    key: list[int | str] = []
    models = [schema]
    for part in loc:
        infos = [info for model in models if (info := model.model_fields.get(str(part))) is not None]
        inside = isinstance(data, Mapping) and part in data
        is_index = isinstance(data, list | tuple) and isinstance(part, int)
        if not infos and not inside and not is_index:
            continue
        key.append(part)
        data = data[part] if inside or (is_index and int(part) < len(data)) else None
        models = [nested for info in infos for nested in fields.submodels(info.annotation)]
    return tuple(key)


def _message(item: dict[str, Any], key: Key, schema: type[BaseModel]) -> str:
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    all_leaves = fields.leaves(schema)
    sections = fields.sections(schema)
    leaf = all_leaves.get(dotted(key))
    nullable = " (or null)" if leaf is not None and leaf.nullable and value is not None else ""
    if kind == "missing" and key and isinstance(key[-1], int) and (whole := all_leaves.get(dotted(key[:-1]))):
        return f"must be {whole.type_text}; value {key[-1] + 1} is missing"
    if kind == "missing":
        return "is required" + (f" ({leaf.description})" if leaf is not None and leaf.description else "")
    if kind == "extra_forbidden":
        return f"no such setting{_meant(dotted(key), [*all_leaves, *sections])}"
    if kind in ("model_type", "model_attributes_type", "dict_type") and dotted(key) in sections:
        names = ", ".join(sections[dotted(key)].model_fields)
        return f"is a section with its own keys ({names}), not {_shown(value)}"
    if kind == "union_tag_not_found":
        return "is required"
    if kind == "union_tag_invalid":
        choices = " or ".join(choice.strip(" '") for choice in context["expected_tags"].split(","))
        return f"must be {choices}, not {context['tag']!r}"
    if kind in _WANTED:
        return f"{_WANTED[kind]}{nullable}, not {_shown(value)}"
    if kind in ("literal_error", "enum"):
        choices = str(context.get("expected", "")).replace("'", "")
        return f"must be {choices}{nullable}, not {_shown(value)}{_choice(value, leaf)}"
    if kind in _RULES:
        return str(context.get("error", item["msg"]))
    if kind == "too_short":
        least = context["min_length"]
        return f"must have at least {least} value{'s' * (least > 1)}, not {_shown(value)}"
    message = str(item["msg"]).removeprefix("Input ").removeprefix("Value ").replace("should", "must", 1)
    if isinstance(value, dict | BaseModel):
        return _lower(message)
    return f"{_lower(message)}{nullable}, not {_shown(value)}"


def _meant(key: str, candidates: list[str]) -> str:
    return fields.did_you_mean(key, [name for name in candidates if name != key])


def _choice(value: Any, leaf: fields.Leaf | None) -> str:
    if leaf is None or not isinstance(value, str):
        return ""
    return fields.did_you_mean(value, leaf.type_text.split("|"))


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "a mapping"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _joined(parts: list[str]) -> str:
    """The complaints of a union's members about one value, as one."""
    return "; or ".join(dict.fromkeys(parts))
