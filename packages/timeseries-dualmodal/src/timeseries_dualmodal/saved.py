"""What a finished training leaves besides checkpoints, in the run's folder ``preprocessing``:

``series.json``     the names of variables and classes, and the times, that the model was made for
``trees.safetensors``  the trees beside the networks (`boosting`), where there are any
``decision.json``   what the trees count for, temperatures, weights of classes and the stopping rule: fitted on the
                    validation series
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from shared_core import config as configuration
from shared_core import files, runs
from shared_core.errors import UserError
from shared_core.progress import message
from shared_core.records import RunDir
from shared_core.runtime import Runtime
from timeseries_dualmodal import boosting, decision, division, prepare, train
from timeseries_dualmodal.boosting import Boosted
from timeseries_dualmodal.config import Config
from timeseries_dualmodal.decision import Decided
from timeseries_dualmodal.description import Description
from timeseries_dualmodal.series import SeriesSet

SERIES, TREES, DECISION = "series.json", "trees.safetensors", "decision.json"
T = TypeVar("T")


def complete(run: RunDir) -> None:
    """Write these files for a run whose training is over."""
    from timeseries_dualmodal import subject

    config = configuration.stored(Config, run.path)
    material = train.Material.load(config)
    about = Description.of(material.part("train"), config.loss.also, material.fingerprint)
    _write(run.preprocessing / SERIES, about.as_dict())
    # a run that was trained further has old ones: those must not answer
    who = subject.of_run(run, config, "best", Runtime.start(config.runtime, config.seed).device, fitted=False)
    val, lengths = material.part("val"), who.lengths
    assert val.y is not None
    p_NLK, share = who.probabilities(val.x, lengths), 0.0
    if config.model.trees.rounds:
        trees_NLK = _grow(run, config, material.part("train"), lengths).proba(val.x, lengths)
        share = decision.share(p_NLK, trees_NLK, val.y)
        p_NLK = decision.mixed(p_NLK, trees_NLK, share)
    message("fitting temperatures, weights of classes and the stopping rule on the validation series")
    groups = division.sources(val, config.split)
    found = Decided.fit(config.decision, p_NLK, val.y, lengths, val.steps, groups, share)
    _write(run.preprocessing / DECISION, found.as_dict())


def _grow(run: RunDir, config: Config, train: SeriesSet, lengths: tuple[int, ...]) -> Boosted:
    message(f"growing trees for {len(lengths)} lengths")
    assert train.y is not None
    made = boosting.fit(config.model.trees, train.x, train.y, lengths, len(train.classes), config.seed)
    made.save(run.preprocessing / TREES)
    return made


def describe(run: RunDir, config: Config) -> Description:
    """What the run's model was made for: as training wrote it down, or from the prepared set.

    Raises UserError where neither is there, or the file is damaged.
    """
    path = run.preprocessing / SERIES
    if path.is_file():
        return _read(path, Description.from_dict)
    found = train.Material.load(config)
    data = run.read_run().get("made_from", {}).get("data", {}).get("sha256", found.fingerprint)
    return Description.of(found.part("train"), config.loss.also, data)


def material(run: RunDir, config: Config, about: Description) -> train.Material:
    """The prepared set and its splits, for judging a run.

    Raises UserError where they are others than the run was trained with: series that it learned from could judge it.
    """
    runs.require_same_split(run, config.split)
    found = train.Material.load(config)
    folder = config.paths.data / prepare.PACKAGE / config.data.folder
    runs.require_same_data(run, folder, found.fingerprint, about.data)
    return found


def decided(run: RunDir) -> Decided | None:
    """Temperatures and stopping rule of the run; None where its training has not finished."""
    path = run.preprocessing / DECISION
    return _read(path, Decided.from_dict) if path.is_file() else None


def trees(run: RunDir, about: Description, found: Decided) -> Boosted | None:
    """The trees of a run that has some. Raises UserError where they count and are not there, or are damaged."""
    path = run.preprocessing / TREES
    if not found.share and not path.is_file():
        return None
    return boosting.load(path, len(about.variables), len(about.classes), found.lengths)


def _write(path: Path, data: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    files.atomic_write(path, json.dumps(data, indent=1) + "\n")


def _read(path: Path, make: Callable[[dict[str, Any]], T]) -> T:
    try:
        return make(json.loads(path.read_text()))
    except OSError as error:
        raise files.explain(error, path) from error
    except (UserError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: is damaged or of another version ({error}); train the model again, or pull it again"
        ) from error
