"""What a finished training leaves besides checkpoints, in the run's folder ``preprocessing``:

``model.json``      the classes and laboratories that the model knows, the fingerprint of the set that it learned from,
                    and the principal components of its features, where there are any
``trees.json``      the trees beside the networks, a forest for each kind and fold (`boosting`)
``decision.json``   what networks and trees count for, and the rules that make bouts of probabilities (`tuning`): fitted
                    on out-of-fold predictions
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mabe_behavior import blending, boosting, featurestore, judging, tuning
from mabe_behavior.blending import Weights
from mabe_behavior.boosting import Forest
from mabe_behavior.config import Config
from mabe_behavior.data import Material
from mabe_behavior.features import pca
from mabe_behavior.features.pca import PCA
from mabe_behavior.postprocessing import Rules
from mabe_behavior.streams import Stream
from mabe_behavior.vocabulary import Vocabulary
from shared_core import config as configuration
from shared_core import files, runs
from shared_core.errors import UserError
from shared_core.progress import message
from shared_core.records import RunDir
from shared_core.runtime import Runtime

MODEL, TREES, DECISION = "model.json", "trees.json", "decision.json"
BLEND, NETWORKS, TREES_ALONE = "blend", "networks", "trees"
Forests = dict[str, list[Forest]]  # of each kind, a forest for each fold
T = TypeVar("T")


@dataclass(frozen=True)
class Known:
    """What a model knows of its data, besides weights."""

    vocabulary: Vocabulary
    data: str  # fingerprint of the prepared set that it learned from
    learned: Mapping[str, NDArray[np.bool_]]  # kind -> (members, classes) whether a member knows a class at all
    labs: Mapping[str, NDArray[np.bool_]]  # kind -> (members, 1 + laboratories), see `judging.labs_of`
    pca: PCA | None = None

    @classmethod
    def of(cls, material: Material) -> Known:
        """What a model that is trained on it knows."""
        found, members = material.vocabulary, material.config.split.members
        learned = {kind: judging.learned(pieces, members) for kind, pieces in material.pieces.items()}
        labs = {kind: judging.labs_of(pieces, members, len(found.labs)) for kind, pieces in material.pieces.items()}
        return cls(found, material.fingerprint, learned, labs, material.pca)

    def as_dict(self) -> dict[str, Any]:
        state = None if self.pca is None else {name: array.tolist() for name, array in self.pca.state().items()}
        learned, labs = ({kind: of.tolist() for kind, of in held.items()} for held in (self.learned, self.labs))
        about = {"vocabulary": self.vocabulary.as_dict(), "data": self.data, "pca": state}
        return {**about, "learned": learned, "labs": labs}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Known:
        components = None if data["pca"] is None else pca.of_state(data["pca"])
        vocabulary = Vocabulary.from_dict(data["vocabulary"])
        learned, labs = (
            {str(kind): np.array(of, bool) for kind, of in data[name].items()} for name in ("learned", "labs")
        )
        for kind in vocabulary.kinds:
            if learned[kind].ndim != 2 or learned[kind].shape[1] != len(vocabulary.classes(kind)):
                raise ValueError(f"learned.{kind} is not of its classes")
            if labs[kind].shape != (len(learned[kind]), 1 + len(vocabulary.labs)):
                raise ValueError(f"labs.{kind} is not of its laboratories")
        return cls(vocabulary, str(data["data"]), learned, labs, components)


@dataclass(frozen=True)
class Decided:
    """How bouts are made: weights of networks and trees, and rules for both together and for each alone."""

    weights: Weights
    rules: Mapping[str, Rules]

    def as_dict(self) -> dict[str, Any]:
        return {"weights": self.weights.as_dict(), "rules": {name: one.as_dict() for name, one in self.rules.items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Decided:
        rules = {str(name): Rules.of_dict(one) for name, one in data["rules"].items()}
        if BLEND not in rules:
            raise ValueError("there are no rules in it")
        return cls(Weights.of_dict(data["weights"]), rules)


def complete(run: RunDir) -> None:
    """Grow trees, weigh them against the networks and tune the rules, for a run whose training is over."""
    from mabe_behavior import subject

    config = configuration.stored(Config, run.path)
    material = Material.load(config)
    known = Known.of(material)
    _write(run.preprocessing / MODEL, known.as_dict())
    forests = grow(config, material) if config.trees.rounds else {}
    _write_forests(run.preprocessing / TREES, forests)
    who = subject.of_run(run, config, "best", Runtime.start(config.runtime, config.seed).device, fitted=False)
    message("tuning on out-of-fold predictions")
    said = subject.out_of_fold(who, material, forests)
    actions = [name for kind in known.vocabulary.kinds for names in known.vocabulary.classes(kind) for name in names]
    _write(run.preprocessing / DECISION, decide(config, said, actions).as_dict())


def grow(config: Config, material: Material) -> Forests:
    """A forest for each kind and fold, from the recordings outside the fold."""
    found: Forests = {}
    for kind, pieces in material.pieces.items():
        found[kind] = []
        for fold in range(config.split.members):
            message(f"growing trees: {kind}, without fold {fold + 1} of {config.split.folds}")
            streams = [(piece.x_TF, piece.y_TK) for piece in pieces if piece.fold != fold]
            found[kind].append(boosting.fit(config.trees, streams, config.seed))
    return found


def decide(config: Config, said: Mapping[str, list[Stream]], actions: Collection[str]) -> Decided:
    """Weights and rules from out-of-fold predictions of networks and, where there are any, trees.

    `actions`: that the model can say.
    """
    weights = Weights(1.0, 1.0)
    parts = dict(said)
    if TREES_ALONE in said:
        weights = blending.fit(said[NETWORKS], said[TREES_ALONE])
        parts[BLEND] = blending.blend_all(said[NETWORKS], said[TREES_ALONE], weights)
    else:
        parts[BLEND] = said[NETWORKS]
    return Decided(weights, {name: rules(config, of, actions) for name, of in parts.items()})


def rules(config: Config, streams: list[Stream], actions: Collection[str]) -> Rules:
    """Rules for all actions: tuned as the configuration says, plain where there is nothing to tune an action on.

    That is so where a single fold has it: the model that did not see the fold does not know the action.
    """
    if not config.decision.tune or not any((one.truth_TK == 1).any() for one in streams):
        return tuning.plain(actions)
    found = tuning.fit(streams)
    return replace(found, pooled={**tuning.plain(actions).pooled, **found.pooled})


def known(run: RunDir, config: Config) -> Known:
    """What the run's model knows: as training wrote it down, or from the prepared set.

    Raises UserError where neither is there, or the file is damaged.
    """
    path = run.preprocessing / MODEL
    if path.is_file():
        return _read(path, Known.from_dict)
    return Known.of(Material.load(config))


def decided(run: RunDir) -> Decided | None:
    """Weights and rules of the run; None where its training has not finished."""
    path = run.preprocessing / DECISION
    return _read(path, Decided.from_dict) if path.is_file() else None


def forests(run: RunDir, config: Config, about: Known) -> Forests:
    """The trees of a run whose training has finished; none where it has none.

    Raises UserError where they are missing, damaged or of another model.
    """
    if not config.trees.rounds:
        return {}

    def of_model(data: Mapping[str, Any]) -> Forests:
        found = _forests(data)
        if set(found) != set(about.vocabulary.kinds):
            raise ValueError(f"it has trees of {', '.join(found) or 'nothing'}")
        for kind, of in found.items():
            wanted = len(about.vocabulary.classes(kind)), featurestore.width(kind, config.features)
            if len(of) != config.split.members or {(len(one.texts), one.columns) for one in of} != {wanted}:
                raise ValueError(f"the trees of {kind} are of other classes, features or folds")
        return found

    return _read(run.preprocessing / TREES, of_model)


def material(run: RunDir, config: Config, about: Known) -> Material:
    """The prepared set and its parts, for judging a run.

    Raises UserError where they are others than the run was trained with: recordings that it learned from could judge
    it.
    """
    runs.require_same_split(run, config.split)
    found = Material.load(config, about.vocabulary)
    runs.require_same_data(run, found.folder, found.fingerprint, about.data)
    return found


def _write_forests(path: Path, grown: Forests) -> None:
    held = {
        kind: [{"texts": one.texts, "shares": one.share_K, "columns": one.columns} for one in of]
        for kind, of in grown.items()
    }
    _write(path, held)


def _forests(data: Mapping[str, Any]) -> Forests:
    return {
        str(kind): [
            Forest(tuple(one["texts"]), tuple(float(share) for share in one["shares"]), int(one["columns"]))
            for one in of
        ]
        for kind, of in data.items()
    }


def _write(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    files.atomic_write(path, json.dumps(data, indent=1) + "\n")


def _read(path: Path, make: Callable[[dict[str, Any]], T]) -> T:
    try:
        return make(json.loads(path.read_text()))
    except OSError as error:
        raise files.explain(error, path) from error
    except (UserError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: is damaged or of another version ({error}); train the model again, or pull it again"
        ) from error
