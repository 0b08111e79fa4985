"""Configuration files of the predecessors: their keys under our names.

A package lists the old keys once::

    KEYS = {
        "training.learning_rate": "optimizer.lr",
        "training.use_amp": Key("runtime.precision", lambda on: "auto" if on else "fp32"),
        "model.use_flash_attn": Key(None, note="attention picks its own kernel"),
    }

Only settings are renamed, never sections: ``optimizer`` is the old ``optimizer: adamw``, and leaves our own section
``optimizer:`` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shared_core.errors import UserError
from shared_core.yamlfile import Document
from shared_core.yamlfile import Key as Path


@dataclass(frozen=True)
class Key:
    """Where an old setting lives now (None: nowhere), how its value changes, and what to say about it."""

    to: str | None
    convert: Callable[[Any], Any] | None = None
    note: str = ""


KeyMap = Mapping[str, "str | Key"]


def one_of(*allowed: str) -> Callable[[Any], str]:
    """Converts the name of a choice: lower case, and ValueError where it is none of these."""

    def convert(value: Any) -> str:
        name = str(value).lower()
        if name not in allowed:
            raise ValueError(f"there is only {' or '.join(allowed)}")
        return name

    return convert


def translate(document: Document, keys: KeyMap) -> tuple[Document, list[str]]:
    """The document under our keys, and one line for each key that was translated or dropped.

    Raises UserError where an old and a new key, or two old ones, set the same thing.
    """
    data: dict[str, Any] = {}
    lines: dict[Path, int] = {}
    origins: dict[Path, str] = {}
    notices: list[str] = []
    problems: list[str] = []
    for path, value in _settings(document.data):
        old = ".".join(map(str, path))
        rule = keys.get(old)
        if isinstance(rule, str):
            rule = Key(rule)
        where = _where(document, path)
        if rule is not None and rule.to is None:
            notices.append(f"{where}: {old}: ignored" + (f" ({rule.note})" if rule.note else ""))
            continue
        new = path if rule is None or rule.to is None else tuple(rule.to.split("."))
        if rule is not None:
            value = _converted(rule, value, f"{where}: {old}")
            notices.append(f"{where}: {old} -> {rule.to}: {value}" + (f" ({rule.note})" if rule.note else ""))
        if new in lines:
            other = origins.get(new, ".".join(map(str, new)))
            problems.append(f"{where}: {old}: line {lines[new]} sets the same thing ({other}); delete one of the two")
            continue
        if rule is not None:
            origins[new] = old
        line = document.line(path)
        for depth in range(1, len(new)):
            lines.setdefault(new[:depth], document.line(path[:depth]) or line or 1)
        lines[new] = line or 1
        _put(data, new, value)
    if problems:
        raise UserError("\n".join(problems))
    return Document(data, document.path, lines, origins), notices


def _settings(data: Mapping[Any, Any], parent: Path = ()) -> Iterator[tuple[Path, Any]]:
    for name, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from _settings(value, (*parent, name))
        else:
            yield (*parent, name), value


def _converted(rule: Key, value: Any, where: str) -> Any:
    if rule.convert is None:
        return value
    try:
        return rule.convert(value)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{where}: {value!r} has no equivalent for {rule.to} ({error})") from None


def _put(data: dict[str, Any], path: Path, value: Any) -> None:
    for name in path[:-1]:
        inner = data.setdefault(str(name), {})
        if not isinstance(inner, dict):  # a scalar stands where a section belongs: validation will say so
            return
        data = inner
    data[str(path[-1]) if isinstance(path[-1], str) else path[-1]] = value  # type: ignore[index]


def _where(document: Document, path: Path) -> str:
    return f"{document.path or '<text>'}:{document.line(path) or 1}"
