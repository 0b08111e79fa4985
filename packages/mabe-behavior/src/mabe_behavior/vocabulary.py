"""What a model learns to tell apart, and what it is asked about.

Shapes: T frames, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.actions import SELF, Behaviour
from mabe_behavior.recording import Annotations
from mabe_behavior.tracks import nearest

PAIR, ALONE = "pair", "alone"
KINDS = (PAIR, ALONE)
Names = tuple[str, ...]  # of one class: actions that are learned as one


class Relation(NamedTuple):
    """An agent, and whom it acts on; what it does alone has the target `self`."""

    agent: str
    target: str

    @property
    def kind(self) -> str:
        return ALONE if self.target == SELF else PAIR


@dataclass(frozen=True)
class Vocabulary:
    """The classes of each kind, in the order of a network's outputs, and the laboratories that were learned from."""

    pair: tuple[Names, ...]
    alone: tuple[Names, ...]
    labs: tuple[str, ...]

    def classes(self, kind: str) -> tuple[Names, ...]:
        return self.pair if kind == PAIR else self.alone

    @property
    def kinds(self) -> tuple[str, ...]:
        """Those that have classes."""
        return tuple(kind for kind in KINDS if self.classes(kind))

    def lab(self, name: str) -> int:
        """Its number, from 1; 0 for a laboratory that was not learned from."""
        return self.labs.index(name) + 1 if name in self.labs else 0

    def called(self, relation: Relation, labeled: Iterable[Behaviour]) -> tuple[str | None, ...]:
        """(K,) the action that each class comes out as: the first that is looked for; None where none is."""
        looked_for = {one.action for one in labeled if (one.agent, one.target) == relation}
        return tuple(
            next((name for name in names if name in looked_for), None) for names in self.classes(relation.kind)
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"pair": self.pair, "alone": self.alone, "labs": self.labs}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Vocabulary:
        """The inverse of `as_dict`. Raises KeyError, TypeError or ValueError for anything else."""
        pair, alone = (tuple(tuple(str(name) for name in names) for names in data[kind]) for kind in KINDS)
        if not pair and not alone:
            raise ValueError("there is no class in it")
        return cls(pair, alone, tuple(str(lab) for lab in data["labs"]))


def of(rows: Sequence[Mapping[str, Any]], wanted: Sequence[Names], with_alone: bool) -> Vocabulary:
    """The classes of training recordings.

    Args:
        rows: of the prepared set's index.
        wanted: the classes to learn; none: every action that is looked for, each a class.
        with_alone: whether to learn what animals do alone.

    Raises ValueError where training recordings have nothing of what is wanted.
    """
    found: dict[str, set[str]] = {PAIR: set(), ALONE: set()}
    for row in rows:
        looked_for = (text.split(",") for text in row["labeled"])
        for _, target, action, *_ in (*looked_for, *row["bouts"]):
            found[ALONE if target == SELF else PAIR].add(action)
    classes: dict[str, list[Names]] = {PAIR: [], ALONE: []}
    for names in wanted or [(action,) for kind in KINDS for action in sorted(found[kind])]:
        kinds = [kind for kind in KINDS if found[kind].intersection(names)]
        if len(kinds) != 1:
            raise ValueError(
                f"actions: {', '.join(names)} {'are' if len(names) > 1 else 'is'} looked for in no training recording"
                if not kinds
                else f"actions: {', '.join(names)} are partly what one does alone"
            )
        classes[kinds[0]].append(tuple(names))
    labs = tuple(sorted({row["lab"] for row in rows}))
    return Vocabulary(tuple(classes[PAIR]), tuple(classes[ALONE]) if with_alone else (), labs)


def relations(animals: Sequence[str], labeled: Sequence[Behaviour], vocabulary: Vocabulary) -> list[Relation]:
    """What a recording is asked about: where anything of the vocabulary is looked for; all, where it is not known."""
    if labeled:
        looked_for = dict.fromkeys(Relation(one.agent, one.target) for one in labeled)
        return [one for one in looked_for if any(vocabulary.called(one, labeled))]
    every = [Relation(agent, target) for agent in animals for target in (SELF, *animals) if target != agent]
    return [one for one in every if vocabulary.classes(one.kind)]


def everything(animals: Sequence[str], vocabulary: Vocabulary) -> tuple[Behaviour, ...]:
    """All behaviours that a recording could have, by the first name of each class."""
    return tuple(
        Behaviour(*relation, names[0])
        for relation in relations(animals, (), vocabulary)
        for names in vocabulary.classes(relation.kind)
    )


def truth(said: Annotations, relation: Relation, vocabulary: Vocabulary) -> NDArray[np.int8]:
    """(T, K) in the video's frames: 1 where a class is marked, 0 where it is not, -1 where nobody looked for it."""
    classes = vocabulary.classes(relation.kind)
    found = np.full((said.frames, len(classes)), -1, np.int8)
    looked_for = {one.action for one in said.labeled if (one.agent, one.target) == relation}
    for k, names in enumerate(classes):
        if looked_for & set(names):
            done = [said.truth_T(Behaviour(*relation, name)) for name in names]
            found[:, k] = np.logical_or.reduce(done)
    return found


def resampled(y_TK: NDArray[np.int8], fps: float, wanted: float) -> NDArray[np.int8]:
    """Labels at another rate: those of the nearest frame."""
    return y_TK[nearest(len(y_TK), fps, wanted)] if len(y_TK) else y_TK
