"""``COMMAND VERB --config NAME|FILE --section.key VALUE``: the command line that every package has.

A package declares one `App`; its ``__main__`` is ``raise SystemExit(APP.main())``. Nothing here imports torch: a
verb's function is imported when it runs.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from shared_core import config as configuration
from shared_core import schema as fields
from shared_core.errors import UserError
from shared_core.flags import Flags, Split, decode
from shared_core.runs import RunOptions, locate
from shared_core.settings import RunConfig
from shared_core.yamlfile import Document

if TYPE_CHECKING:
    from shared_core.records import RunDir
    from shared_core.runtime import Runtime
    from shared_core.task import Task

DEFAULT_PRESET = "default"
SPIN = 10_000  # rounds of the busy loop, some tens of microseconds


@dataclass(frozen=True)
class Verb:
    """One thing a command does.

    `run` is ``module:function``, called as ``function(app, config, options)``; `options` is ``module:Class``, a
    `settings.Section` whose fields become flags without a prefix.
    """

    name: str
    run: str
    help: str
    options: str | None = None
    preset: str | None = None  # used where no --config is given; default: the preset `default`, if there is one
    wants_split: bool = False  # the function also gets the command line as `flags.Split` took it apart


@dataclass(frozen=True)
class App:
    """A package's command line."""

    command: str  # pair-compare
    package: str  # pair-compare-stacking: the distribution, and the folder under runs/
    module: str  # pair_compare_stacking
    about: str
    config: str  # module:Class, a subclass of settings.RunConfig
    task: str  # module:function, (config, runtime) -> task.Task
    headline: str  # the metric that reports show first
    verbs: tuple[Verb, ...] = ()  # the package's own; one of a standard verb's name replaces it
    aliases: Mapping[str, str] = field(default_factory=dict)  # flag -> dotted key, or `key=on|off` for a switch
    key_map: str | None = None  # module:MAPPING of a predecessor's keys (`shared_core.keymap`)
    completion: str | None = None  # module:function of a run: writes what its training leaves besides checkpoints

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run one command line; returns the exit status (2: the user's mistake, 75: preempted, 130: interrupted)."""
        # PyTorch's threads wait for each other in a busy loop; a long one leaves a training run a small part of its
        # speed where other programs want the cores too, none costs it up to 40 % where none do (benchmarks/waiting.py)
        if "OMP_WAIT_POLICY" not in os.environ:
            os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN))  # read when PyTorch is imported
        try:
            return self.run(sys.argv[1:] if argv is None else argv)
        except UserError as error:
            _complain(error)
            return error.exit_code
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:  # `COMMAND --help | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    def run(self, argv: Sequence[str]) -> int:
        """`main` for callers that handle UserError themselves."""
        if not argv or argv[0] in ("-h", "--help", "help"):
            from shared_core.helptext import overview

            print(overview(self), file=sys.stdout if argv else sys.stderr)
            return 0 if argv else 2
        if argv[0] == "--version":
            print(f"{self.command} {version(self.package)} (shared-core {version('shared-core')})")
            return 0
        line = self._read(argv)
        verb, split = line.verb, line.split
        if "help" in split.special:
            from shared_core.helptext import verb_help

            print(verb_help(self, verb, line.flags, line.source))
            return 0
        config, options = self._configure(line, line.source)
        if isinstance(options, RunOptions) and options.from_hub:  # once: a branch may move between two looks
            fetched = locate(self, config, options).path
            options = options.model_copy(update={"run": str(fetched), "from_hub": None})
        if isinstance(options, RunOptions) and not ("config" in split.special and options.is_explicit):
            stored = self._stored(config, options)
            if stored is not None:
                config, _ = self._configure(line, stored)
        if "print_config" in split.special:
            print(configuration.to_yaml(config), end="")
            return 0
        more = (split,) if verb.wants_split else ()
        return int(_load(verb.run)(self, config, options, *more) or 0)

    def check(self, argv: Sequence[str]) -> RunConfig:
        """The configuration that a command line means; UserError with everything that is wrong about either."""
        line = self._read(argv)
        return self._configure(line, line.source)[0]

    def verb(self, name: str) -> Verb:
        """The verb of that name (dash or underscore); UserError with a suggestion where there is none."""
        verbs = self.all_verbs()
        wanted = name.replace("_", "-")
        if wanted in verbs:
            return verbs[wanted]
        if name.startswith("-"):
            raise UserError(f"{name}: the verb comes first, as in `{self.command} train {name} ...`")
        meant = fields.did_you_mean(name, verbs)
        raise UserError(f"{name}: no such verb{meant}; there are {', '.join(verbs)}")

    def all_verbs(self) -> dict[str, Verb]:
        """The package's verbs and the standard ones it does not replace, in the order of a workflow."""
        from shared_core.verbs import ORDER, STANDARD

        found = {verb.name: verb for verb in (*STANDARD, *self.verbs)}
        rank = {name: index for index, name in enumerate(ORDER)}
        return dict(sorted(found.items(), key=lambda item: rank.get(item[0], len(rank))))

    def schema(self) -> type[RunConfig]:
        """The package's configuration class."""
        return _load(self.config)

    def presets(self) -> Path:
        """Folder of the package's presets."""
        spec = importlib.util.find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"{self.module} is no package")
        return Path(next(iter(spec.submodule_search_locations))) / "configs"

    def default_source(self, verb: Verb) -> str | None:
        """The preset that is used where no --config is given."""
        preset = verb.preset or DEFAULT_PRESET
        return preset if preset in configuration.preset_names(self.presets()) else None

    def load(self, source: str | Path | None, overrides: Mapping[str, Any] | None = None) -> RunConfig:
        """`config.load` with this package's class, presets and key map."""
        return configuration.load(self.schema(), source, self.presets(), overrides, self._keys())

    def build_task(self, config: RunConfig, runtime: Runtime) -> Task:
        """The package's task for a configuration."""
        return _load(self.task)(config, runtime)

    def complete(self, run: RunDir) -> None:
        """Write what a run whose training is over holds besides checkpoints, before it counts as finished."""
        if self.completion is not None:
            _load(self.completion)(run)

    def call(self, name: str, config: RunConfig, **options: Any) -> int:
        """Run a verb from code, with `options` as its flags; returns its exit status."""
        verb = self.verb(name)
        made = _load(verb.options)(**options) if verb.options else None
        return int(_load(verb.run)(self, config, made) or 0)

    def _stored(self, config: RunConfig, options: RunOptions) -> Path | None:
        """The configuration file of the run that the options mean, if there is such a run."""
        try:
            path = locate(self, config, options).path / "config.yaml"
        except UserError:
            return None  # the verb will say so, if it needs the run
        return path if path.is_file() else None

    def _keys(self) -> Any:
        return _load(self.key_map) if self.key_map else None

    def _read(self, argv: Sequence[str]) -> _Line:
        """A verb and its flags, not yet checked; UserError where there is no such verb."""
        verb = self.verb(argv[0])
        options = _load(verb.options) if verb.options else None
        flags = Flags(self.schema(), options, self.aliases)
        split = flags.split(argv[1:])
        return _Line(verb, options, flags, split, split.special.get("config", self.default_source(verb)))

    def _configure(self, line: _Line, source: Any) -> tuple[RunConfig, BaseModel | None]:
        """Configuration, from `source`, and options; UserError with everything that is wrong about both."""
        schema, options_schema, split = self.schema(), line.options, line.split
        values, undecodable = decode(schema, split.config)
        problems = split.problems + undecodable
        options = None
        if options_schema is not None:
            option_values, undecodable = decode(options_schema, split.options)
            problems += undecodable
            options, wrong = configuration.validate(options_schema, Document({}), option_values, split.options.spelled)
            problems += [line if line.startswith("--") else f"--{line}" for line in wrong]
        config = None
        try:
            document = configuration.read(source, self.presets(), self._keys(), _notice)
            config, wrong = configuration.validate(schema, document, values, split.config.spelled)
            problems += wrong
        except UserError as error:
            problems += str(error).splitlines()
        if problems or config is None:
            raise UserError("\n".join(dict.fromkeys(problems)))
        return config, options


@dataclass(frozen=True)
class _Line:
    """A command line taken apart."""

    verb: Verb
    options: type[BaseModel] | None  # the class of the verb's options
    flags: Flags
    split: Split
    source: str | None  # what --config says, or the default preset


def version(package: str) -> str:
    """Version of an installed distribution."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _load(reference: str) -> Any:
    """The object that ``module:name`` names."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def _notice(line: str) -> None:
    print(line, file=sys.stderr)


def _complain(error: UserError) -> None:
    rank = os.environ.get("RANK", "0")
    where = "" if rank == "0" else f" (process {rank})"
    for line in str(error).splitlines():
        print(f"error{where}: {line}", file=sys.stderr)
