"""Out-of-fold predictions: of each training recording by the model that did not see it.

Shapes: N frames, T frames of a relation, M members, L frames of a window, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mabe_behavior import inference, objectives, thresholds
from mabe_behavior.boosting import LEAST
from mabe_behavior.config import Config
from mabe_behavior.data import Material
from mabe_behavior.examples import Piece
from mabe_behavior.thresholds import BINS, Histograms

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


def labs_of(pieces: Sequence[Piece], members: int, labs: int) -> Bools:
    """(M, 1 + labs) which laboratories, by number, each member has learned from; the first, for unknown ones, is."""
    found = np.zeros((members, 1 + labs), bool)
    found[:, 0] = True
    for member in range(members):
        found[member, [piece.lab for piece in pieces if piece.fold != member]] = True
    return found


def learned(pieces: Sequence[Piece], members: int) -> Bools:
    """(M, K) which classes each member has had enough frames of, outside its fold, to know them at all.

    With folds of whole laboratories a class may occur in a single fold; its member's opinion of it is none.
    """
    found_MK = [
        np.sum([(piece.y_TK == 1).sum(axis=0) for piece in pieces if piece.fold != member], axis=0)
        for member in range(members)
    ]
    return np.stack(found_MK) >= LEAST


def out_of_fold(
    config: Config,
    model: nn.Module,
    kind: str,
    pieces: Sequence[Piece],
    known_ML: Bools,
    device: torch.device,
) -> Iterator[tuple[int, Floats]]:
    """(place among the pieces, probabilities (T, K)) of each piece of a member's fold, by that member.

    `known_ML`: which laboratories members know (`labs_of`); to the others' they answer as to an unknown one's.
    """
    for member in range(config.split.members):
        places = [place for place, piece in enumerate(pieces) if piece.fold == member]
        labs = (pieces[place].lab for place in places)
        numbers = [lab if known_ML[member, lab] else 0 for lab in labs]
        streams = [(pieces[place].x_TF, number) for place, number in zip(places, numbers, strict=True)]

        def ask(x_BLF: torch.Tensor, lab_B: torch.Tensor, member: int = member) -> torch.Tensor:
            return model(**{kind: x_BLF, f"{kind}_lab": lab_B}, only=member)[f"{kind}_logits"][0]

        found = inference.logits(ask, streams, config.windows.length, config.decision.overlap, device)
        for place, logits_TK in zip(places, found, strict=True):
            allowed_TK = torch.from_numpy(pieces[place].y_TK >= 0)
            p_TK = objectives.probability(torch.from_numpy(logits_TK), allowed_TK, config.model.output)
            yield place, p_TK.numpy()


def counted(
    config: Config,
    material: Material,
    model: nn.Module,
    pieces: Mapping[str, Sequence[Piece]],
    shares: Mapping[str, slice],
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Histograms (cells, 2, bins) of out-of-fold predictions at the common rate, by laboratory and class; and the sum
    of their log-losses with how many these are.

    Args:
        shares: which pieces of each kind to ask about.
    """
    cells, losses = cells_of(material), torch.zeros(2, dtype=torch.float64)
    counts = torch.zeros(len(cells), 2, BINS + 1, dtype=torch.float64)
    for kind, of in pieces.items():
        mine = of[shares[kind]]
        names = ["+".join(names) for names in material.vocabulary.classes(kind)]
        learned_MK = learned(of, config.split.members)
        known = labs_of(of, config.split.members, len(material.vocabulary.labs))
        for place, p_TK in out_of_fold(config, model, kind, mine, known, device):
            y_TK = np.where(learned_MK[mine[place].fold], mine[place].y_TK, np.int8(-1))
            lab = material.vocabulary.labs[mine[place].lab - 1]
            for name, count_2B in zip(names, thresholds.counted(p_TK, y_TK), strict=True):
                counts[cells[lab, name]] += torch.from_numpy(count_2B)
            losses += torch.tensor(_log_loss(p_TK, y_TK))
    return counts, losses


def score(material: Material, counts: torch.Tensor) -> float:
    """The score that histograms of all predictions stand for, each action with its best threshold, without tuning."""
    histograms = Histograms()
    found = zip(cells_of(material), counts, strict=True)
    histograms.count = {cell: count.numpy() for cell, count in found if count.any()}
    return thresholds.score(histograms) if histograms.actions else 0.0


def cells_of(material: Material) -> dict[tuple[str, str], int]:
    found = material.vocabulary
    names = ["+".join(names) for kind in found.kinds for names in found.classes(kind)]
    return {cell: at for at, cell in enumerate((lab, name) for lab in found.labs for name in names)}


def _log_loss(p_TK: Floats, y_TK: NDArray[np.int8]) -> tuple[float, float]:
    known = y_TK >= 0
    right = np.where(y_TK == 1, p_TK, 1 - p_TK)[known]
    return float(-np.log(np.clip(right, 1e-7, 1)).sum()), float(known.sum())
