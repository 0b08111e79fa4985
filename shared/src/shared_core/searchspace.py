"""What a search varies: ``optimizer.lr=log:1e-4..1e-2``, ``model.dropout=0..0.5``, ``optimizer.name=adamw|muon``."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from shared_core import schema as fields
from shared_core.errors import UserError
from shared_core.flags import Typed, decode

if TYPE_CHECKING:
    import optuna

FIXED = ("runtime", "paths", "logging", "name", "seed", "training.resume")  # the same for every trial
LARGEST_GRID = 10_000
_FORMS = "write KEY=LOW..HIGH, KEY=log:LOW..HIGH or KEY=A|B|C"


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones where both bounds are written as whole numbers."""

    key: str
    low: float
    high: float
    log: bool
    whole: bool

    def suggest(self, trial: optuna.Trial) -> Any:
        if self.whole:
            return trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, log=self.log)

    def extremes(self) -> list[Any]:
        """Values whose validity stands for that of all others."""
        return [int(self.low), int(self.high)] if self.whole else [self.low, self.high]


@dataclass(frozen=True)
class Choice:
    """One of several values, as they would be typed after a flag."""

    key: str
    values: dict[str, Any]  # as typed -> decoded

    def suggest(self, trial: optuna.Trial) -> Any:
        return self.values[trial.suggest_categorical(self.key, list(self.values))]

    def extremes(self) -> list[Any]:
        return list(self.values.values())


Dimension = Range | Choice


def parse(texts: Sequence[str], schema: type[BaseModel]) -> list[Dimension]:
    """The dimensions that `texts` describe.

    Raises:
        UserError: a text has another form, names no setting of `schema` or one that trials share, or is there twice.
    """
    if not texts:
        raise UserError(f"nothing to search over; {_FORMS}, as in optimizer.lr=log:1e-4..1e-2")
    found: dict[str, Dimension] = {}
    for text in texts:
        dimension = _parse(text, schema)
        if dimension.key in found:
            raise UserError(f"{dimension.key}: is there twice; give each setting once")
        found[dimension.key] = dimension
    return list(found.values())


def grid(dimensions: Sequence[Dimension], seed: int) -> list[dict[str, str]]:
    """Every combination of choices, key -> value as typed, each once.

    The order depends on `seed` and not on that of the dimensions; it is a random one, so that the first few are a fair
    sample of the grid.

    Raises:
        UserError: a dimension is a range, or there are more combinations than anybody tries.
    """
    choices: dict[str, list[str]] = {}
    for dimension in sorted(dimensions, key=lambda dimension: dimension.key):
        if isinstance(dimension, Range):
            raise UserError(
                f"--sampler grid: {dimension.key} is a range; write '{dimension.key}=A|B|C', or use --sampler tpe"
            )
        choices[dimension.key] = list(dimension.values)
    size = math.prod(map(len, choices.values()))
    if size > LARGEST_GRID:
        raise UserError(f"--sampler grid: {size:,} combinations, {LARGEST_GRID:,} at most; use --sampler tpe")
    combinations = [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]
    random.Random(seed).shuffle(combinations)
    return combinations


def _parse(text: str, schema: type[BaseModel]) -> Dimension:
    key, _, values = text.partition("=")
    key, values = key.strip().lstrip("-").replace("-", "_"), values.strip()
    leaves = fields.leaves(schema)
    if key not in leaves:
        raise UserError(f"{text}: {key or 'nothing'} is no setting{fields.did_you_mean(key, leaves)}")
    if any(key == fixed or key.startswith(f"{fixed}.") for fixed in FIXED):
        raise UserError(f"{text}: {key} is the same for all trials; search over another setting")
    if "|" in values:
        texts = [part.strip() for part in values.split("|")]
        typed = {part: decode(schema, Typed({key: [part]}, {key: key})) for part in dict.fromkeys(texts)}
        if wrong := [line for _, problems in typed.values() for line in problems]:
            raise UserError(wrong[0])
        return Choice(key, {part: decoded[key] for part, (decoded, _) in typed.items()})
    low, dots, high = values.removeprefix("log:").partition("..")
    try:
        bounds = float(low), float(high)
    except ValueError:
        bounds = math.nan, math.nan
    log = values.startswith("log:")
    if not dots or not all(map(math.isfinite, bounds)):
        raise UserError(f"{text}: is no range and no choice; {_FORMS}")
    if bounds[0] >= bounds[1] or (log and bounds[0] <= 0):
        raise UserError(f"{text}: the lower bound must be below the upper one" + (" and above 0" if log else ""))
    return Range(key, *bounds, log, whole=_is_whole(low) and _is_whole(high))


def _is_whole(text: str) -> bool:
    return text.strip().lstrip("+-").isdigit()
