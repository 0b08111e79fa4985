"""The verb itself: check the inner command, make the plan, print it or carry it out."""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shared_core import config as configuration
from shared_core import runs
from shared_core.errors import UserError
from shared_core.flags import Split
from shared_core.launch import plan as plans
from shared_core.launch.options import Options
from shared_core.launch.plan import Inner, LaunchPlan
from shared_core.settings import RunConfig

if TYPE_CHECKING:
    from shared_core.cli import App

_MODULES = {"modal": "modal_call"}  # of the places whose module is called otherwise


def run(app: App, config: RunConfig, options: Options, split: Split) -> int:
    """`launch`: `config` has been validated with the flags that go on to the inner verb, which `split` holds."""
    plan = plans.make(options, inner(app, options, split))
    place: Any = importlib.import_module(f"shared_core.launch.{_MODULES.get(plan.on, plan.on)}")
    if options.checkpoints or options.download:
        return fetch(plan, options)
    for line in plans.cost(plan):
        print(line, file=sys.stderr)  # what --dry-run prints is a script or manifest as it is
    if options.dry_run:
        print(place.render(plan))
        return 0
    return int(place.submit(plan))


def fetch(plan: LaunchPlan, options: Options) -> int:
    """List the checkpoints of a run on Modal, or bring one here."""
    from shared_core.launch import modal_files

    if options.dry_run:
        raise UserError("--dry-run: there is nothing to start with --checkpoints and --download")
    if options.download is None:
        for line in modal_files.listing(plan):
            print(line)
    else:
        print(modal_files.download(plan, options.download, options.out))
    return 0


def inner(app: App, options: Options, split: Split) -> Inner:
    """The command that is to run elsewhere, checked as if it ran here.

    Raises UserError: its verb, configuration or flags are wrong.
    """
    verb = app.verb(options.verb).name
    if verb == "launch":
        raise UserError("--verb: launch cannot launch itself; name what is to run, such as train")
    source = split.special.get("config")
    file = configuration.find(source, app.presets()) if source else None
    is_preset = file is not None and file.parent == app.presets()
    flags = (*typed(split), *_words(options.arguments))
    config = app.check([verb, *(["--config", source] if source else []), *flags])
    return Inner(
        command=app.command,
        package=app.package,
        module=app.module,
        verb=verb,
        flags=flags,
        preset=file.stem if file and is_preset else None,
        config_file=None if is_preset else file,
        name=config.name or runs.DEFAULT_NAME,
        runs=config.paths.runs,
        data=config.paths.data,
        resume=config.training.resume,
    )


def typed(split: Split) -> list[str]:
    """The configuration's flags as they were typed, by dotted key."""
    words: list[str] = []
    for key, texts in split.config.texts.items():
        if any(not text or text.startswith("--") for text in texts):
            words += [f"--{key}={text}" for text in texts]
        else:
            words += [f"--{key}", *texts]
    return words


def _words(arguments: str) -> Sequence[str]:
    try:
        return shlex.split(arguments)
    except ValueError as error:
        raise UserError(f"--arguments: {arguments!r}: {str(error).lower()}; quote as in a shell") from error
