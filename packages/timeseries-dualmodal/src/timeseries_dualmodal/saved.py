"""What a finished training leaves besides checkpoints, in the run's folder ``preprocessing``:

``series.json``     the names of variables and classes, and the times, that the model was made for
``decision.json``   temperatures and the stopping rule, fitted on the validation series
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from shared_core import config as configuration
from shared_core import files
from shared_core.errors import UserError
from shared_core.progress import message
from shared_core.records import RunDir
from shared_core.runtime import Runtime
from timeseries_dualmodal import prepare, train
from timeseries_dualmodal.config import Config
from timeseries_dualmodal.decision import Decided
from timeseries_dualmodal.description import Description

FOLDER, SERIES, DECISION = "preprocessing", "series.json", "decision.json"
T = TypeVar("T")


def complete(run: RunDir) -> None:
    """Write both files for a run whose training is over."""
    from timeseries_dualmodal import subject

    config = configuration.stored(Config, run.path)
    material = train.Material.load(config)
    about = Description.of(material.part("train"), config.loss.also, material.fingerprint)
    _write(run.path / FOLDER / SERIES, about.as_dict())
    who = subject.of_run(run, config, "best", Runtime.start(config.runtime, config.seed).device)
    message("fitting temperatures and the stopping rule on the validation series")
    val = material.part("val")
    assert val.y is not None
    found = Decided.fit(config.decision, who.probabilities(val.x, who.lengths), val.y, who.lengths, val.steps)
    _write(run.path / FOLDER / DECISION, found.as_dict())


def describe(run: RunDir, config: Config) -> Description:
    """What the run's model was made for: as training wrote it down, or from the prepared set.

    Raises UserError where neither is there, or the file is damaged.
    """
    path = run.path / FOLDER / SERIES
    if path.is_file():
        return _read(path, Description.from_dict)
    found = train.Material.load(config)
    data = run.read_run().get("made_from", {}).get("data", {}).get("sha256", found.fingerprint)
    return Description.of(found.part("train"), config.loss.also, data)


def material(run: RunDir, config: Config, about: Description) -> train.Material:
    """The prepared set and its splits, for judging a run.

    Raises UserError where they are others than the run was trained with: series that it learned from could judge it.
    """
    if (run.path / "config.yaml").is_file():
        split = configuration.stored(Config, run.path).split
        if changed := configuration.differences(split, config.split):
            lines = "; ".join(changed)
            raise UserError(f"{run.path}: was trained with another split ({lines}); leave these flags out")
    found = train.Material.load(config)
    if about.data and found.fingerprint != about.data:
        folder = config.paths.data / prepare.PACKAGE / config.data.folder
        raise UserError(
            f"{folder}: is another data set than {run.path} was trained on, prepared again from a changed source; "
            "restore that, or train anew under another --name"
        )
    return found


def decided(run: RunDir) -> Decided | None:
    """Temperatures and stopping rule of the run; None where its training has not finished."""
    path = run.path / FOLDER / DECISION
    return _read(path, Decided.from_dict) if path.is_file() else None


def _write(path: Path, data: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    files.atomic_write(path, json.dumps(data, indent=1) + "\n")


def _read(path: Path, make: Callable[[dict[str, Any]], T]) -> T:
    try:
        return make(json.loads(path.read_text()))
    except OSError as error:
        raise files.explain(error, path) from error
    except (UserError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is damaged ({error}); train the model again, or pull it again") from error
