"""What a run learns from and is judged by: the prepared recordings, their parts, and features of their relations.

Shapes: T frames at the common rate, F columns, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mabe_behavior import division, featurestore, prepare, store, vocabulary
from mabe_behavior.actions import Behaviour, behaviour
from mabe_behavior.config import Config
from mabe_behavior.division import Parts
from mabe_behavior.examples import Piece
from mabe_behavior.features import coordinates, pca
from mabe_behavior.features.pca import PCA
from mabe_behavior.featurestore import FeatureStore
from mabe_behavior.recording import Annotations, Recording
from mabe_behavior.tracks import Tracks, places
from mabe_behavior.vocabulary import PAIR, Relation, Vocabulary
from shared_core import files, prepared, progress
from shared_core.errors import UserError
from shared_core.runtime import Runtime


@dataclass(frozen=True)
class Material:
    """A prepared set, as a configuration divides it."""

    config: Config
    folder: Path
    fingerprint: str  # of the prepared set
    rows: list[store.Row]
    parts: Parts
    vocabulary: Vocabulary

    @classmethod
    def load(cls, config: Config, known: Vocabulary | None = None) -> Material:
        """Raises UserError where the set is not prepared, cannot be divided, or has nothing of what is wanted.

        Args:
            known: what a trained model knows; default: what the training recordings have.
        """
        folder = prepare.require(config)
        rows = store.index(folder)
        parts = division.divide(rows, config.split)
        try:
            training = [rows[number] for number in parts.train.tolist()]
            found = known or vocabulary.of(training, config.classes, config.learns_alone)
        except ValueError as error:
            raise UserError(str(error)) from error
        return cls(config, folder, prepared.read_manifest(folder)["fingerprint"], rows, parts, found)

    def recording(self, number: int) -> Recording:
        return store.read(self.folder, number, self.rows[number])

    def annotations(self, number: int) -> Annotations:
        """What people say of a recording, without reading its tracks."""
        return store.annotations(self.rows[number])

    def relations(self, number: int) -> list[Relation]:
        """What a recording is asked about."""
        return vocabulary.relations(self.rows[number]["animals"], self.labeled(number), self.vocabulary)

    @cached_property
    def pca(self) -> PCA | None:
        """Of the training recordings' coordinates, where the set of features has components."""
        if self.config.features.pair != "v4":
            return None
        return pca.fit(self._coordinates(), coordinates.COMPONENTS)

    def _coordinates(self) -> Iterable[NDArray[np.float32]]:
        for number in self.parts.train.tolist():
            tracks = featurestore.seen(self.recording(number).tracks, self.config.features)
            for relation in self.relations(number):
                if relation.kind == PAIR:
                    yield coordinates.raw28(tracks, *relation).x_TF

    @cached_property
    def features(self) -> FeatureStore:
        return FeatureStore.of(self.folder, self.fingerprint, self.config.features, self.pca)

    def frames(self, number: int) -> int:
        """Of a recording, at the common rate."""
        row = self.rows[number]
        return len(places(row["frames"], row["fps"], self.config.features.fps))

    def ready(self, runtime: Runtime) -> None:
        """Compute the training recordings' features that are not there, in the main process; the others wait."""
        if runtime.is_main:
            self._fill(self.config.logging.progress)
        runtime.barrier()

    def _fill(self, bar: bool) -> None:
        missing = [number for number in self.parts.train.tolist() if self._missing(number)]
        if not missing:
            return
        files.require_space(self.folder, sum(self._bytes(number) for number in missing), "the features")

        def of(number: int) -> tuple[Tracks, list[Relation]]:
            return self.recording(number).tracks, self.relations(number)

        with progress.Bar(len(missing), bar, "features", unit="recordings") as shown:
            for done in self.features.fill(missing, of):
                shown.update(done)

    def _missing(self, number: int) -> bool:
        frames = self.frames(number)
        return any(self.features.open(number, relation, frames) is None for relation in self.relations(number))

    def _bytes(self, number: int) -> int:
        widths = (self.width(relation.kind) for relation in self.relations(number))
        return 2 * self.frames(number) * sum(widths)

    def width(self, kind: str) -> int:
        """Columns of the features of a kind."""
        return featurestore.width(kind, self.config.features)

    @cached_property
    def pieces(self) -> dict[str, list[Piece]]:
        """The relations of each kind in the training recordings, with labels at the common rate.

        Raises UserError where features are missing: `ready` computes them.
        """
        found: dict[str, list[Piece]] = {kind: [] for kind in self.vocabulary.kinds}
        for number, fold in zip(self.parts.train.tolist(), self.parts.fold.tolist(), strict=True):
            said = self.annotations(number)
            lab = self.vocabulary.lab(said.lab)
            for relation in self.relations(number):
                y_TK = vocabulary.truth(said, relation, self.vocabulary)
                y_TK = vocabulary.resampled(y_TK, said.fps, self.config.features.fps)
                found[relation.kind].append(Piece(self.x(number, relation), y_TK, lab, fold))
        return found

    def x(self, number: int, relation: Relation) -> NDArray[np.float16]:
        """(T, F) the features of a relation."""
        found = self.features.open(number, relation, self.frames(number))
        if found is None:
            raise UserError(f"{self.features.path(number, relation)}: is missing or damaged; start again")
        return found

    def labeled(self, number: int) -> list[Behaviour]:
        """What annotators looked for in a recording."""
        return [behaviour(text) for text in self.rows[number]["labeled"]]
