"""``COMMAND --help`` and ``COMMAND VERB --help``."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from shared_core import config as configuration
from shared_core.errors import UserError
from shared_core.flags import Flags
from shared_core.schema import REQUIRED, Leaf, leaves, sections

if TYPE_CHECKING:
    from shared_core.cli import App, Verb

_FLAG_COLUMN = 34


def overview(app: App) -> str:
    """What the command is for, its verbs and its presets."""
    verbs = app.all_verbs()
    width = max(map(len, verbs)) + 2
    lines = [f"usage: {app.command} VERB [--config PRESET|FILE] [--section.key VALUE ...]", "", app.about, "", "verbs:"]
    lines += [line for verb in verbs.values() for line in _row(f"  {verb.name}", verb.help, width + 2)]
    lines += ["", f"presets: {', '.join(configuration.preset_names(app.presets())) or 'none'}"]
    return "\n".join([*lines, "", f"`{app.command} VERB --help` lists every setting; `--version` the version."])


def verb_help(app: App, verb: Verb, flags: Flags, source: str | None) -> str:
    """Every flag of a verb by section, with the default that `source` gives it."""
    defaults, of = _defaults(app, source)
    lines = [f"usage: {app.command} {verb.name} {_positional(flags)}[--config PRESET|FILE] [--section.key VALUE ...]"]
    lines += ["", verb.help, "", "general:"]
    names = ", ".join(configuration.preset_names(app.presets())) or "none"
    given = f" [{source}]" if source else ""
    lines += _row("  -c, --config PRESET|FILE", f"a preset or a YAML file; presets: {names}{given}", _FLAG_COLUMN)
    lines += _row("  --print-config", "print the whole configuration as YAML and stop", _FLAG_COLUMN)
    lines += _row("  -h, --help", "this text", _FLAG_COLUMN)
    if flags.option_leaves:
        lines += ["", f"{verb.name}:", *_rows(flags.option_leaves.values(), {})]
    lines += ["", f"configuration, with the values of {of}; dash and underscore are the same, `null` is no value"]
    aliases = _aliases(flags)
    for title, group in _groups(leaves(app.schema(), defaults), sections(app.schema())):
        lines += ["", title, *_rows(group, aliases)]
    return "\n".join(lines)


def _groups(found: dict[str, Leaf], models: dict[str, type[BaseModel]]) -> Iterator[tuple[str, list[Leaf]]]:
    groups: dict[str, list[Leaf]] = {}
    for key, leaf in found.items():
        groups.setdefault(key.rpartition(".")[0], []).append(leaf)
    for section, group in groups.items():
        summary = _summary(models[section]) if section else ""
        yield (f"{section}: {summary}".rstrip() if section else "run:"), group


def _rows(group: Iterable[Leaf], aliases: dict[str, list[str]]) -> list[str]:
    lines: list[str] = []
    for leaf in group:
        names = [f"--{name}" for name in (leaf.key, *aliases.get(leaf.key, ()))]
        flag = f"  {leaf.key.upper()} ..." if leaf.positional else f"  {', '.join(names)} {leaf.type_text}"
        default = "" if leaf.positional and not leaf.default else f"[{_shown(leaf.default)}]"
        lines += _row(flag, " ".join(part for part in (leaf.description, default) if part), _FLAG_COLUMN)
    return lines


def _row(left: str, right: str, column: int) -> list[str]:
    width = max(60, min(120, shutil.get_terminal_size((100, 24)).columns))
    wrapped = textwrap.wrap(right, width - column, break_long_words=False, break_on_hyphens=False) or [""]
    first = [f"{left:<{column - 1}} {wrapped[0]}".rstrip()] if len(left) < column else [left, " " * column + wrapped[0]]
    return [line.rstrip() for line in [*first, *(" " * column + line for line in wrapped[1:])]]


def _aliases(flags: Flags) -> dict[str, list[str]]:
    """Short flags by the dotted key they mean."""
    found: dict[str, list[str]] = {}
    for flag, meaning in flags.aliases.items():
        key, _, values = meaning.partition("=")
        on, _, off = values.partition("|")
        found.setdefault(key, []).append(f"{flag} (= {on}, else {off})" if off else f"{flag} (= {on})" if on else flag)
    return found


def _defaults(app: App, source: str | None) -> tuple[Any, str]:
    """The configuration that `source` gives and its name; the class's own defaults where it cannot be read."""
    try:
        document = configuration.read(source, app.presets(), None)
        config, _ = configuration.validate(app.schema(), document, {})
    except UserError:
        config = None
    return config, (str(source) if config is not None and source else "the defaults")


def _positional(flags: Flags) -> str:
    return f"[{flags.positional.key.upper()} ...] " if flags.positional else ""


def _summary(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().split("\n")[0].split(" (`")[0].rstrip(".")


def _shown(value: Any) -> str:
    if value is REQUIRED:
        return "required"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(_shown, value)) or "none"
    return str(value)
