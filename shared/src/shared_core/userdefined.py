"""A function of the user's own (a loss, an augmentation), named in the configuration as ``package.module:function``.

Loading one runs the code of its module, so the name must stand in a configuration of the user's own. One that came from
the Hub must not run code: whatever loads a model for evaluation, prediction or export never calls `load`.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from shared_core.errors import UserError
from shared_core.schema import did_you_mean


@dataclass(frozen=True)
class UserFunction:
    """Called like the function it holds; an error inside it becomes a UserError that names function, file and line."""

    key: str  # loss.function
    name: str  # package.module:function
    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        try:
            return self.function(*arguments)
        except UserError:
            raise
        except Exception as error:
            from shared_core.microbatch import is_out_of_memory

            if is_out_of_memory(error):
                raise  # the trainer answers it with smaller pieces
            raise UserError(f"{self}: {_reason(error)}") from error

    def __str__(self) -> str:
        return f"{self.key}: {self.name}"


def load(name: str, key: str, *, own: bool) -> UserFunction:
    """The function called `name`, ``package.module:function`` or ``package.module.function``.

    Modules are also looked for in the current working directory.

    Args:
        key: the setting that the name stands in, for messages.
        own: whether the configuration is the user's own. Say False where it may have come from the Hub.

    Raises:
        UserError: the configuration is not the user's own, there is no such module or function, the module fails to
            import, or what the name means cannot be called.
    """
    if not own:
        raise UserError(
            f"{key}: {name} is not run, since this configuration came from elsewhere; set {key} to null or, if you "
            "trust the function, put it into a configuration of your own"
        )
    module_name, attribute = _split(name, key)
    module = _import(module_name, key)
    if not hasattr(module, attribute):
        callables = [known for known, value in vars(module).items() if callable(value) and not known.startswith("_")]
        meant = did_you_mean(attribute, callables, f"{module_name}:")
        raise UserError(f"{key}: {getattr(module, '__file__', None) or module_name} has no {attribute}{meant}")
    function = getattr(module, attribute)
    if not callable(function):
        raise UserError(f"{key}: {name} is of type {type(function).__name__}; name a function")
    return UserFunction(key, name, function)


def title(function: Callable[..., Any]) -> str:
    """What messages call a function: its setting and name where it was loaded from one."""
    return str(function) if isinstance(function, UserFunction) else getattr(function, "__qualname__", repr(function))


def _split(name: str, key: str) -> tuple[str, str]:
    """Module and function; UserError where the name has another form."""
    module, _, attribute = name.rpartition(":" if ":" in name else ".")
    if module.endswith(".py"):
        raise UserError(f"{key}: {name} names a file; name its module instead, as in package.module:function")
    if not all(part.isidentifier() for part in (*module.split("."), attribute)):
        raise UserError(f"{key}: must be a Python name like package.module:function, not {name!r}")
    return module, attribute


def _import(name: str, key: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # last: no file here may hide an installed module
    importlib.invalidate_caches()  # the file may be younger than the last look into its folder
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        lacking = error.name if isinstance(error, ModuleNotFoundError) else None
        if lacking is None or not f"{name}.".startswith(f"{lacking}."):  # the module is there, and at fault
            raise UserError(f"{key}: {name} fails to import: {_reason(error)}") from error
        parent, _, last = lacking.rpartition(".")
        folders = getattr(sys.modules.get(parent), "__path__", ()) if parent else [here]
        known = [found.name for found in pkgutil.iter_modules(folders)]
        meant = did_you_mean(last, known, f"{parent}." if parent else "")
        place = parent or f"{here} or among the installed packages"
        raise UserError(f"{key}: there is no module {lacking} in {place}{meant}") from None


def _reason(error: BaseException) -> str:
    """``file:line: Error: message``, the place being the innermost one in the first file that is the user's."""
    message = str(error).strip().partition("\n")[0]
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    ours = (__file__, importlib.__file__, "<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename not in ours]
    inside = [frame for frame in frames if frame.filename == frames[0].filename]
    place = f"{inside[-1].filename}:{inside[-1].lineno}: " if inside else ""
    return f"{place}{type(error).__name__}" + (f": {message}" if message else "")
