"""From ``argv`` to settings: which flag means which field, and what was typed for it.

`split` understands the command line (dash or underscore, ``--flag value`` and ``--flag=value``, bare and ``--no-``
switches, aliases) and notes everything it does not; pydantic-settings then decodes the values (``2,2,2``, JSON).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from shared_core import schema as fields
from shared_core.schema import Leaf

STANDARD_ALIASES = {
    "epochs": "training.epochs",
    "batch-size": "training.batch_size",
    "lr": "optimizer.lr",
    "learning-rate": "optimizer.lr",
    "weight-decay": "optimizer.weight_decay",
    "resume": "training.resume",
    "patience": "training.patience",
    "gradient-accumulation-steps": "training.accumulation",
    "num-workers": "data.num_workers",
    "output-dir": "paths.runs",
    "device": "runtime.device",
    "precision": "runtime.precision",
    "use-amp": "runtime.precision=auto|fp32",
    "tracker": "logging.tracker",
    "profile": "logging.profile",
}
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True)
class Switch:
    """An alias that stands for one of two values: ``--use-amp`` is ``--runtime.precision auto``."""

    on: str
    off: str


@dataclass(frozen=True)
class Target:
    """What a flag sets: a field of the configuration, or of the verb's options."""

    leaf: Leaf
    option: bool
    switch: Switch | None = None

    @property
    def takes_no_value(self) -> bool:
        return self.switch is not None or self.leaf.is_bool


@dataclass
class Typed:
    """What was typed for the settings of one class, by dotted key."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    spelled: dict[str, str] = field(default_factory=dict)  # the flag as it was typed


@dataclass
class Split:
    """A command line taken apart."""

    config: Typed = field(default_factory=Typed)
    options: Typed = field(default_factory=Typed)
    special: dict[str, str] = field(default_factory=dict)  # config, print_config, help
    problems: list[str] = field(default_factory=list)


class Flags:
    """Every flag of one verb."""

    SPECIAL = ("config", "print_config", "help")

    def __init__(
        self, config: type[BaseModel], options: type[BaseModel] | None, aliases: Mapping[str, str] | None = None
    ) -> None:
        self.leaves = fields.leaves(config)
        self.option_leaves = fields.leaves(options) if options else {}
        self.sections = fields.sections(config)
        self.targets: dict[str, Target] = {}
        self.aliases: dict[str, str] = {}  # flag -> dotted key or `key=on|off`, as help shows it
        for key, leaf in self.leaves.items():
            self.targets[key] = Target(leaf, option=False)
        for key, leaf in self.option_leaves.items():
            if key in self.targets or key in self.SPECIAL:
                raise ValueError(f"option {key!r} of the verb hides the configuration's --{key}; rename it")
            self.targets[key] = Target(leaf, option=True)
        for flag, meaning in STANDARD_ALIASES.items():
            self._alias(flag, meaning, optional=True)
        for flag, meaning in (aliases or {}).items():
            self._alias(flag, meaning, optional=False)
        self.positional = next((leaf for leaf in self.option_leaves.values() if leaf.positional), None)

    def _alias(self, flag: str, meaning: str, optional: bool) -> None:
        key, _, values = meaning.partition("=")
        name = _plain(flag.lstrip("-"))
        if key not in self.leaves:
            if optional:
                return
            raise ValueError(f"alias --{flag} means {key!r}, which is no setting")
        if name in self.option_leaves or name in self.leaves or name in self.SPECIAL:
            return
        on, _, off = values.partition("|")
        self.targets[name] = Target(self.leaves[key], option=False, switch=Switch(on, off) if values else None)
        self.aliases[flag.lstrip("-")] = meaning

    def split(self, argv: Sequence[str]) -> Split:
        """Take `argv` apart; what is wrong is noted in `problems`, all of it."""
        result = Split()
        words = list(argv)
        while words:
            word = words.pop(0)
            if word in ("-h", "--help"):
                result.special["help"] = "true"
            elif word == "-c":
                self._special(result, "config", word, None, words)
            elif word.startswith("--") and len(word) > 2:
                self._flag(result, word, words)
            elif self.positional is not None and not word.startswith("-") and self._room(result):
                result.options.texts.setdefault(self.positional.key, []).append(word)
                result.options.spelled[self.positional.key] = self.positional.key.upper()
            else:
                meant = fields.did_you_mean(word.lstrip("-"), self.targets, "--")
                result.problems.append(f"{word}: unexpected argument{meant}")
                if word.startswith("-") and words and not words[0].startswith("-"):
                    words.pop(0)  # its value, so that it is not reported as well
        return result

    def _room(self, result: Split) -> bool:
        """Whether another bare word has a place."""
        leaf = self.positional
        return leaf is not None and (leaf.is_list or leaf.key not in result.options.texts)

    def _flag(self, result: Split, word: str, words: list[str]) -> None:
        flag, has_value, value = word.partition("=")
        name = _plain(flag[2:])
        given = value if has_value else None
        if name in self.SPECIAL:
            self._special(result, name, flag, given, words)
            return
        target = self.targets.get(name)
        negated = target is None and name.startswith("no_")
        if negated:
            target = self.targets.get(name[3:])
        if target is None or (negated and not target.takes_no_value):
            result.problems.append(self._unknown(flag, name))
            if given is None and words and not words[0].startswith("--"):
                words.pop(0)  # its value, so that it is not reported as well
            return
        typed = result.options if target.option else result.config
        key = target.leaf.key
        # the last one counts, for lists too: what a script or a service gives can be overridden behind it
        typed.texts[key] = self._values(target, flag, given, negated, words, result.problems)
        typed.spelled[key] = flag

    def _special(self, result: Split, name: str, flag: str, given: str | None, words: list[str]) -> None:
        if name != "config":
            result.special[name] = "true"
        elif given is not None:
            result.special[name] = given
        elif words and not words[0].startswith("--"):
            result.special[name] = words.pop(0)
        else:
            result.problems.append(f"{flag}: needs the name of a preset or a .yaml file")

    def _values(
        self, target: Target, flag: str, given: str | None, negated: bool, words: list[str], problems: list[str]
    ) -> list[str]:
        if target.takes_no_value:
            if given is None and words and words[0].lower() in _TRUE + _FALSE and not negated:
                given = words.pop(0)
            return _switched(target, flag, given, negated, problems)
        if given is not None:
            return [given]
        if not words or words[0].startswith("--"):
            problems.append(f"{flag}: needs a value ({target.leaf.type_text})")
            return []
        typed = [words.pop(0)]
        while target.leaf.is_list and self.positional is None and words and not words[0].startswith("--"):
            typed.append(words.pop(0))
        return typed

    def _unknown(self, flag: str, name: str) -> str:
        if name in self.sections:
            keys = ", ".join(f"--{name}.{key}" for key in list(self.sections[name].model_fields)[:3])
            return f"{flag}: is a section; set one of its fields ({keys}, ...)"
        known = [*self.option_leaves, *self.targets, *self.SPECIAL]
        key = fields.closest(name, known)
        return f"{flag}: no such flag" + (f" (did you mean --{_dashed(key)}?)" if key else "")


def decode(schema: type[BaseModel], typed: Typed) -> tuple[dict[str, Any], list[str]]:
    """Values by dotted key for what was typed, and a line for each value that cannot be decoded.

    Plain values stay strings: validation gives them their type.
    """
    if not typed.texts:
        return {}, []
    from pydantic_settings import BaseSettings, CliSettingsSource, SettingsError  # a third of the start-up time

    leaves = fields.leaves(schema)
    settings = type(schema.__name__, (schema, BaseSettings), {"__module__": schema.__module__})
    source: Any = CliSettingsSource(
        settings, cli_prog_name="", cli_parse_args=False, cli_exit_on_error=False, cli_parse_none_str="null"
    )
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key, texts in typed.texts.items():
        if not texts:
            continue  # its absence has been reported
        if texts == ["null"] and leaves[key].nullable:
            values[key] = None
            continue
        try:
            value = source(args=[f"--{key}={text}" for text in texts])()
            for part in key.split("."):
                value = value[part]
            values[key] = value
        except (SettingsError, KeyError, TypeError):
            shown = " ".join(texts)
            problems.append(f"{typed.spelled[key]}: cannot read {shown!r} as {leaves[key].type_text}")
    return values, problems


def _switched(target: Target, flag: str, given: str | None, negated: bool, problems: list[str]) -> list[str]:
    """What a switch sets; nothing, and a problem, where its value is neither true nor false."""
    text = (given or "true").lower()
    if target.switch is None and not negated:
        return [text]  # a bool field: validation judges the word
    if text not in _TRUE + _FALSE or (negated and given is not None):
        problems.append(f"{flag}: takes {'no value' if negated else 'true or false'}, not {given!r}")
        return []
    on = (text in _TRUE) != negated
    if target.switch is None:
        return ["true" if on else "false"]
    return [target.switch.on if on else target.switch.off]


def _plain(name: str) -> str:
    return name.replace("-", "_")


def _dashed(key: str | None) -> str:
    return (key or "").replace("_", "-")
