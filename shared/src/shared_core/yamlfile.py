"""YAML without its traps, and with the line of every key.

PyYAML reads ``1e-3`` as a string, ``017`` as 15, ``12:30:00`` as 45000, ``on`` as true and lets the last of two equal
keys win. Here a number is a number, a word is a word, and a key stands once. What stays a string (``017``, a date,
``on``) becomes whatever the field it is meant for makes of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from shared_core.errors import UserError

MAX_BYTES = 1 << 20
MAX_NODES = 100_000  # aliases can make a small file enormous

Key = tuple[str | int, ...]

_RESOLVERS = {
    "tag:yaml.org,2002:null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "tag:yaml.org,2002:bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "tag:yaml.org,2002:int": (r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    "tag:yaml.org,2002:float": (
        r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}

_SCALAR_TAGS = {*_RESOLVERS, "tag:yaml.org,2002:str"}
_LINE_BREAKS = re.compile("[\x85\u2028\u2029\ufeff]")  # PyYAML writes these unescaped outside double quotes


class _Loader(yaml.SafeLoader):
    """Plain scalars as in YAML 1.2's core schema, less its octal and hexadecimal numbers."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader`, or an ordinary YAML reader, would take for something else than a string."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = '"' if _LINE_BREAKS.search(data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


for _tag, (_pattern, _first) in _RESOLVERS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)
    _Dumper.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)


@dataclass(frozen=True)
class Document:
    """What a YAML file says, and where it says it."""

    data: dict[str, Any]
    path: Path | None = None
    lines: dict[Key, int] = field(default_factory=dict)
    origins: dict[Key, str] = field(default_factory=dict)  # keys as they are spelled in the file, where translated

    def line(self, key: Key) -> int | None:
        """Line (from 1) of a key, or None where the file does not have it."""
        return self.lines.get(key)


def read(path: Path) -> Document:
    """Read a file whose top level is a mapping (an empty file is an empty mapping).

    Raises UserError, a line for each defect, for a file that cannot be read, is no YAML, repeats a key or uses tags.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: larger than {MAX_BYTES >> 20} MiB; this is no configuration")
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    return parse(text, path)


def parse(text: str, path: Path | None = None) -> Document:
    """`read` for text that is already here; `path` only names it in errors."""
    name = str(path or "<text>")
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return Document({}, path)
            reader = _Reader(loader, name)
            data = reader.value(root, ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UserError(f"{name}:{mark.line + 1 if mark else 1}: {_explain(error)}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{name}:{line}: character U+{int(error.character):04X} is not allowed in YAML") from None
    except RecursionError:
        raise UserError(f"{name}: nested too deeply") from None
    if reader.problems:
        raise UserError("\n".join(reader.problems))
    if data is None:
        return Document({}, path)
    if not isinstance(data, dict):
        raise UserError(f"{name}:1: expected keys with values (`key: value`), not a single {_kind(data)}")
    return Document(data, path, reader.lines)


def dump(data: dict[str, Any]) -> str:
    """YAML text that `read` turns back into `data` (JSON-like values: dict, list, str, int, float, bool, None)."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Reader:
    """Turns nodes into plain values, noting the line of every key and list item."""

    def __init__(self, loader: _Loader, name: str) -> None:
        self.loader = loader
        self.name = name
        self.lines: dict[Key, int] = {}
        self.problems: list[str] = []
        self._nodes = 0
        self._open: set[int] = set()

    def value(self, node: yaml.Node, key: Key) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise UserError(f"{self.name}: expands to more than {MAX_NODES} values; this is no configuration")
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALAR_TAGS:
            return self.loader.construct_object(node)
        if id(node) in self._open:
            raise UserError(f"{self.name}:{node.start_mark.line + 1}: an alias that contains itself")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
                return dict(self._items(node, key))
            if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
                return [self._item(child, (*key, i)) for i, child in enumerate(node.value)]
        finally:
            self._open.discard(id(node))
        self.problems.append(f"{self.name}:{node.start_mark.line + 1}: the tag {node.tag} is not allowed here")
        return None

    def _items(self, node: yaml.MappingNode, parent: Key) -> Iterator[tuple[str | int, Any]]:
        first: dict[str | int, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            name = self.value(key_node, parent) if isinstance(key_node, yaml.ScalarNode) else None
            if isinstance(name, bool) or not isinstance(name, str | int):
                self.problems.append(f"{self.name}:{line}: a key must be a word, not {_kind(name)}")
                continue
            if name in first:
                dotted = ".".join(map(str, (*parent, name)))
                self.problems.append(
                    f"{self.name}:{line}: {dotted}: already set on line {first[name]}; delete one of the two"
                )
                continue
            first[name] = line
            self.lines[(*parent, name)] = line
            yield name, self.value(value_node, (*parent, name))

    def _item(self, node: yaml.Node, key: Key) -> Any:
        self.lines[key] = node.start_mark.line + 1
        return self.value(node, key)


def _kind(value: Any) -> str:
    names = {dict: "mapping", list: "list", str: "word", type(None): "null", bool: "true/false", int: "number"}
    return names.get(type(value), type(value).__name__)


def _explain(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "not valid YAML"
    if "'\\t'" in problem:
        return "a tab where spaces belong; YAML is indented with spaces"
    if "could not determine a constructor" in problem or "cannot construct" in problem:
        return f"{problem}; tags (!...) are not allowed here"
    if "mapping values are not allowed" in problem:
        return "a second `:` in the line, or wrong indentation; quote a value that contains `: `"
    if "expected a single document" in (error.context or ""):
        return "a second document (`---`); one file is one configuration"
    return f"not valid YAML: {problem}"
