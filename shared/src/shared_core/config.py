"""A preset or file, with flags on top, as one frozen and validated configuration."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from shared_core import schema as fields
from shared_core import yamlfile
from shared_core.errors import UserError
from shared_core.keymap import KeyMap, translate
from shared_core.problems import Places, explain, overlooked
from shared_core.yamlfile import Document, Key

T = TypeVar("T", bound=BaseModel)


def load(
    schema: type[T],
    source: str | Path | None,
    presets: Path,
    overrides: Mapping[str, Any] | None = None,
    keys: KeyMap | None = None,
    notice: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> T:
    """Read a preset (by name) or a file, put `overrides` on top (dotted or nested keys) and validate the whole.

    `source` None means the class's defaults. `keys` renames a predecessor's keys; `notice` gets a line for each.
    A configuration without a name is named after its preset or file.

    Raises UserError with a line for everything that is wrong.
    """
    document = read(source, presets, keys, notice)
    config, problems = validate(schema, document, overrides or {})
    if config is None:
        raise UserError("\n".join(problems))
    return config


def read(
    source: str | Path | None, presets: Path, keys: KeyMap | None = None, notice: Callable[[str], None] = print
) -> Document:
    """The document that `source` names, under our own keys."""
    if source is None:
        return Document({})
    document = yamlfile.read(find(source, presets))
    if keys:
        document, lines = translate(document, keys)
        for line in lines:
            notice(line)
    return document


def find(source: str | Path, presets: Path) -> Path:
    """The file behind `source`: a path, or the name of a preset (dash or underscore)."""
    text = str(source)
    names = preset_names(presets)
    for name in names:
        if name.replace("-", "_") == text.replace("-", "_"):
            return presets / f"{name}.yaml"
    if Path(text).suffix in (".yaml", ".yml") or "/" in text or Path(text).is_file():
        return Path(text)
    meant, known = fields.did_you_mean(text, names), ", ".join(names) or "none"
    raise UserError(f"--config: no preset {text!r}{meant}; there are {known}; or give a .yaml file")


def preset_names(presets: Path) -> list[str]:
    """Names of the presets that ship with a package."""
    return sorted(path.stem for path in presets.glob("*.yaml"))


def validate(
    schema: type[T], document: Document, overrides: Mapping[str, Any], spelled: Mapping[str, str] | None = None
) -> tuple[T | None, list[str]]:
    """The configuration, or None and a line for everything that is wrong.

    `spelled` gives the flag behind an overridden dotted key as the user typed it (else ``--key``).
    """
    data = copy.deepcopy(document.data)
    flags: dict[Key, str] = {}
    for key, value in _overridden(overrides, fields.leaves(schema)):
        path = tuple(key.split("."))
        flags[path] = (spelled or {}).get(key, f"--{key}")
        _set(data, path, copy.deepcopy(value))
    _complete(schema, data)
    if "name" in schema.model_fields and data.get("name") is None and document.path is not None:
        data["name"] = _run_name(document.path.stem)
    places = Places(document, flags)
    try:
        config = schema.model_validate(data)
    except ValidationError as error:
        return None, explain(error, data, schema, places)
    problems = [f"{places.of(key)}: {what}" for key, what in overlooked(config, data)]
    return (None if problems else config), problems


def stored(schema: type[T], folder: Path) -> T:
    """The configuration that a run's folder keeps. Raises UserError where it is missing or not valid (any more)."""
    config, problems = validate(schema, yamlfile.read(folder / "config.yaml"), {})
    if config is None:
        raise UserError("\n".join(problems))
    return config


def to_dict(config: BaseModel) -> dict[str, Any]:
    """The configuration as JSON values (paths as strings, tuples as lists)."""
    return config.model_dump(mode="json")


def to_yaml(config: BaseModel) -> str:
    """The configuration as YAML that `load` turns back into an equal one."""
    return yamlfile.dump(to_dict(config))


def digest(config: BaseModel, document: Mapping[str, Any] | None = None) -> str:
    """SHA-256 over every setting that must not change when a run is resumed, wherever the files lie that it names.

    With `document`, from which `config` was read, over those that are in it: others are newer than it.
    """
    settings = _settings(to_dict(config))
    settings = settings if document is None else {key: settings[key] for key in _settings(document) if key in settings}
    kept = {key: portable(value) for key, value in settings.items() if not _may_change(type(config), key)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def portable(value: Any) -> Any:
    """A setting, or a mapping of settings, in which files and folders have their own names alone: the same anywhere."""
    if isinstance(value, Mapping):
        return {key: portable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [portable(inner) for inner in value]
    if isinstance(value, str) and (value.startswith("~") or PurePath(value).is_absolute()):
        return PurePath(value).name or value
    return value


def differences(old: BaseModel | Mapping[str, Any], new: BaseModel) -> list[str]:
    """Settings that differ and must not when a run is resumed, as ``optimizer.lr: 0.001 -> 0.01``."""
    before = _settings(to_dict(old) if isinstance(old, BaseModel) else json.loads(json.dumps(old, default=str)))
    after = _settings(to_dict(new))
    found = []
    for key in dict.fromkeys([*after, *before]):
        was, now = before.get(key, _ABSENT), after.get(key, _ABSENT)
        if was != now and not _may_change(type(new), key):
            found.append(f"{key}: {_value(was)} -> {_value(now)}")
    return found


def _overridden(overrides: Mapping[str, Any], leaves: Container[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; a setting whose value is a mapping is replaced as a whole, sections are merged."""
    for name, value in overrides.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and key not in leaves:
            yield from _overridden(value, leaves, f"{key}.")
        else:
            yield key, value


def _run_name(stem: str) -> str:
    """A file's name as far as the name of a run may hold it; letters of any alphabet stay."""
    kept = "".join(c if c.isalpha() or c.isdecimal() or c in "_.-" else "-" for c in stem)
    return re.sub(r"-+", "-", kept).strip(".-") or "run"


_ABSENT = object()


def _value(value: Any) -> str:
    return "(not there)" if value is _ABSENT else json.dumps(value, ensure_ascii=False)


def _may_change(schema: type[BaseModel], key: str) -> bool:
    """Whether the setting, or a section above it, is marked resumable."""
    models: Sequence[type[BaseModel]] = [schema]
    for name in key.split("."):
        infos = [info for model in models if (info := model.model_fields.get(name)) is not None]
        if any(fields.is_resumable(info) for info in infos):
            return True
        models = [nested for info in infos for nested in fields.submodels(info.annotation)]
    return False


def _settings(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value; lists and empty mappings count as values."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, Mapping) and value:
            flat.update(_settings(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _complete(schema: type[BaseModel], data: dict[str, Any]) -> None:
    """Add to `data` what pydantic would forget when only a part of a section is given.

    A section that is null because all its keys are commented out is an empty one. A section whose default is an
    instance (``training: Training = Training(epochs=4)``) keeps that instance's values, its kind among them. A path
    may begin with ``~``, which the shell leaves alone in files and after ``=``.
    """
    for name, info in schema.model_fields.items():
        models = fields.submodels(info.annotation)
        if fields.is_path(info.annotation) and isinstance(data.get(name), str):
            data[name] = os.path.expanduser(data[name])
        if not models or name not in data:
            continue
        if data[name] is None and not fields.allows_null(info.annotation):
            data[name] = {}
        if not isinstance(data[name], dict):
            continue
        default = None if info.is_required() else info.get_default(call_default_factory=True)
        tag = info.discriminator if isinstance(info.discriminator, str) else None
        if tag and default is not None:
            data[name].setdefault(tag, getattr(default, tag))
        model = _kind(models, tag, data[name])
        if isinstance(default, model):
            _fill(data[name], default)
        _complete(model, data[name])


def _kind(models: Sequence[type[BaseModel]], tag: str | None, data: Mapping[str, Any]) -> type[BaseModel]:
    """The class that `data` is meant for, among those a field allows."""
    if tag:
        for model in models:
            if data.get(tag) in get_args(model.model_fields[tag].annotation):
                return model
    return models[0]


def _fill(data: dict[str, Any], default: BaseModel) -> None:
    for name in default.model_fields_set:
        value = getattr(default, name)
        if isinstance(value, BaseModel) and isinstance(data.get(name), dict):
            _fill(data[name], value)
        else:
            data.setdefault(name, value)


def _set(data: dict[str, Any], path: Key, value: Any) -> None:
    for name in path[:-1]:
        inner = data.setdefault(name, {})  # type: ignore[arg-type]
        if inner is None:
            inner = data[name] = {}  # type: ignore[index]
        if not isinstance(inner, dict):  # a scalar where a section belongs: validation will say so
            return
        data = inner
    data[path[-1]] = value  # type: ignore[index]
