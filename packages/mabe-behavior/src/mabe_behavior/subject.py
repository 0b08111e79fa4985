"""Who answers: trained networks and trees, with what was fitted beside them.

Shapes: T frames, F columns, K classes, M members.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mabe_behavior import asking, blending, featurestore, inference, judging, objectives, saved, train, vocabulary
from mabe_behavior.actions import Behaviour
from mabe_behavior.config import Config
from mabe_behavior.data import Material
from mabe_behavior.model import Ensemble
from mabe_behavior.recording import Recording
from mabe_behavior.saved import NETWORKS, TREES_ALONE, Decided, Forests, Known
from mabe_behavior.streams import Stream
from mabe_behavior.vocabulary import Relation, Vocabulary
from shared_core import runs, weights
from shared_core.cli import App
from shared_core.records import RunDir
from shared_core.runs import RunOptions

Floats = NDArray[np.float32]
Halves = NDArray[np.float16]
Said = dict[str, list[Stream]]  # of networks and of trees, the same streams in the same order


@dataclass(frozen=True)
class Trained:
    """A model that has been trained, ready to answer."""

    run: RunDir
    name: str  # of the checkpoint
    config: Config
    about: Known
    model: Ensemble
    device: torch.device
    decided: Decided | None  # None where training has not finished
    forests: Forests

    @property
    def vocabulary(self) -> Vocabulary:
        return self.about.vocabulary

    def asked(self, recordings: Iterable[Recording], judged: bool, lab: str | None = None) -> Said:
        """What networks and trees say of recordings, apart; one recording is held at a time.

        Args:
            judged: whether their truth is known and goes along.
            lab: the laboratory that they are taken to be from; None: each recording's own.
        """
        found: Said = {NETWORKS: []} | ({TREES_ALONE: []} if self.forests else {})
        for one in recordings:
            labeled = one.labeled or vocabulary.everything(one.tracks.animals, self.vocabulary)
            tracks = featurestore.seen(one.tracks, self.config.features)
            number = self.vocabulary.lab(lab or one.lab)
            relations = vocabulary.relations(one.tracks.animals, labeled, self.vocabulary)
            for kind in self.vocabulary.kinds:
                mine = [relation for relation in relations if relation.kind == kind]
                x = [featurestore.compute(tracks, it, self.config.features, self.about.pca) for it in mine]
                allowed = [[name is not None for name in self.vocabulary.called(it, labeled)] for it in mine]
                said = {NETWORKS: self._networks(kind, x, number, allowed)}
                if self.forests:
                    said[TREES_ALONE] = [self._trees(kind, x_TF) for x_TF in x]
                for name, of in said.items():
                    pairs = zip(mine, of, strict=True)
                    found[name] += [self._stream(one, relation, p_TK, labeled, judged) for relation, p_TK in pairs]
        return found

    def _stream(
        self, one: Recording, relation: Relation, p_TK: Floats, labeled: Sequence[Behaviour], judged: bool
    ) -> Stream:
        return asking.stream(
            one.annotations, relation, p_TK, self.config.features.fps, self.vocabulary, labeled, judged
        )

    def together(self, said: Said) -> list[Stream]:
        """What networks and trees say as one."""
        if self.decided is None or TREES_ALONE not in said:
            return said[NETWORKS]
        return blending.blend_all(said[NETWORKS], said[TREES_ALONE], self.decided.weights)

    def _networks(self, kind: str, x: Sequence[Halves], number: int, allowed: Sequence[Sequence[bool]]) -> list[Floats]:
        """(T, K) probabilities of each features (T, F), the mean over members."""

        known_ML = torch.from_numpy(self.about.labs[kind]).to(self.device)

        def ask(x_BLF: torch.Tensor, lab_B: torch.Tensor) -> torch.Tensor:
            answers = []
            for member, known_L in enumerate(known_ML):  # each has a laboratory of its own fold for an unknown one
                mine_B = torch.where(known_L[lab_B], lab_B, 0)
                said = self.model(**{kind: x_BLF, f"{kind}_lab": mine_B}, only=member)
                answers.append(said[f"{kind}_logits"][0])
            return torch.stack(answers)

        streams = [(x_TF, number) for x_TF in x]
        length, overlap = self.config.windows.length, self.config.decision.overlap
        found = []
        answers = inference.logits(ask, streams, length, overlap, self.device)
        for allowed_K, logits_MTK in zip(allowed, answers, strict=True):
            p_MTK = objectives.probability(
                torch.from_numpy(logits_MTK), torch.tensor(allowed_K), self.config.model.output
            )
            found.append(self._mean(kind, p_MTK.numpy()))
        return found

    def _trees(self, kind: str, x_TF: Halves) -> Floats:
        return self._mean(kind, np.stack([forest.proba(x_TF) for forest in self.forests[kind]]))

    def _mean(self, kind: str, p_MTK: Floats) -> Floats:
        """(T, K) over the members that know a class; over all where none does."""
        weight_MK = self.about.learned[kind].astype(np.float32)
        weight_MK[:, weight_MK.sum(axis=0) == 0] = 1
        found: Floats = (p_MTK * weight_MK[:, None]).sum(axis=0) / weight_MK.sum(axis=0)
        return found


def find(app: App, config: Config, options: RunOptions, device: torch.device) -> Trained:
    """The model that the options mean.

    Raises UserError where there is no such run or checkpoint, or its weights are of another configuration.
    """
    return of_run(runs.locate(app, config, options), config, options.checkpoint, device)


def of_run(run: RunDir, config: Config, checkpoint: str, device: torch.device, fitted: bool = True) -> Trained:
    """The model that a run of this configuration has come to; raises as `find`.

    `fitted`: with what was fitted after training, if it was.
    """
    path = runs.checkpoint(run, checkpoint)
    about = saved.known(run, config)
    widths = {kind: featurestore.width(kind, config.features) for kind in about.vocabulary.kinds}
    model = train.build_model(config, about.vocabulary, widths)
    weights.load_strictly(model, weights.load_weights(path), path)
    decided = saved.decided(run) if fitted else None
    forests = saved.forests(run, config, about) if decided is not None else {}
    return Trained(run, path.name, config, about, model.to(device).eval(), device, decided, forests)


def out_of_fold(who: Trained, material: Material, forests: Forests) -> Said:
    """What is said of each training recording by the network, and the trees, that did not see it."""
    config, numbers = who.config, material.parts.train.tolist()
    said_of = {number: material.annotations(number) for number in numbers}
    found: Said = {NETWORKS: []} | ({TREES_ALONE: []} if forests else {})
    for kind, of in material.pieces.items():
        whose = [
            (number, relation) for number in numbers for relation in material.relations(number) if relation.kind == kind
        ]
        p_of = dict(judging.out_of_fold(config, who.model, kind, of, who.about.labs[kind], who.device))
        said: dict[str, Mapping[int, Floats]] = {NETWORKS: p_of}
        if forests:
            said[TREES_ALONE] = {place: forests[kind][of[place].fold].proba(of[place].x_TF) for place in p_of}
        for name, probabilities in said.items():
            for place in sorted(p_of):
                number, relation = whose[place]
                one = asking.stream(
                    said_of[number],
                    relation,
                    probabilities[place],
                    config.features.fps,
                    who.vocabulary,
                    said_of[number].labeled,
                    judged=True,
                    learned_K=who.about.learned[kind][of[place].fold],
                )
                if one.actions:
                    found[name].append(one)
    return found
