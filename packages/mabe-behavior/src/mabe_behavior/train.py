"""The training problem: windows of recordings, a model for each fold, judged on the recordings that it did not see.

The models learn from the same batches, each from the windows outside its fold. So one training gives out-of-fold
predictions of all its recordings, by which checkpoints are chosen and everything after the networks is tuned.

Shapes: B windows, L frames, F columns, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from mabe_behavior import featurestore, judging, model, objectives
from mabe_behavior.config import Config
from mabe_behavior.data import Material
from mabe_behavior.examples import Cutter, Piece, Windows
from mabe_behavior.features import scaling
from mabe_behavior.model import Ensemble, Kind, learned_from
from mabe_behavior.model_config import Loss
from mabe_behavior.vocabulary import KINDS, Vocabulary
from shared_core.batches import LoaderBatches
from shared_core.runtime import Runtime
from shared_core.seeds import derive, seeded
from shared_core.task import Task

Batch = dict[str, torch.Tensor]


class BehaviourTask(Task):
    """Networks of what is done to others and of what is done alone, one pair for each fold."""

    monitor = "val/score"
    maximize = True
    splittable = True

    def __init__(self, config: Config, runtime: Runtime) -> None:
        self.config, self.material = config, Material.load(config)
        self.material.ready(runtime)
        found = self.material.vocabulary
        self.model = build_model(config, found, {kind: self.material.width(kind) for kind in found.kinds})
        self.pieces, wanted = self.material.pieces, config.windows
        self.shares = {kind: shares(pieces).to(runtime.device) for kind, pieces in self.pieces.items()}
        for kind in found.kinds:
            for number, member in enumerate(self.model.members):
                of = scaling.fit(piece.x_TF for piece in self.pieces[kind] if piece.fold != number)
                member.fit(kind, torch.from_numpy(of.mean_F), torch.from_numpy(of.spread_F))
        cutters = {
            kind: Cutter(pieces, wanted.length, wanted.jitter, wanted.balance) for kind, pieces in self.pieces.items()
        }
        self.batches = LoaderBatches(
            Windows(cutters, wanted.share),
            batch_size=config.training.batch_size,
            runtime=runtime,
            seed=config.seed,
            num_workers=wanted.workers,
            collate=as_it_is,
        )

    def loss(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        asked, labels = {}, {}
        for kind in self.material.vocabulary.kinds:
            x_BLF, labels[kind] = augmented(batch[f"{kind}.x"], batch[f"{kind}.y"], batch[f"{kind}.fold"], self, kind)
            asked |= {kind: x_BLF} | {f"{kind}_{name}": batch[f"{kind}.{name}"] for name in ("lab", "fold")}
        answers = model(**asked)
        if isinstance(answers, dict):  # in evaluation mode, where folds do not count
            said = [{kind: [answers[f"{kind}_logits"][m]] for kind in labels} for m in range(len(self.model))]
        else:
            said = answers
        totals, logs = [], {}
        for member, of in enumerate(said):
            for kind, stages in of.items():
                fold_B = batch[f"{kind}.fold"] if model.training else None
                rows = learned_from(fold_B, member, len(labels[kind]))
                y_BLK = labels[kind][rows] if len(rows) else torch.full_like(labels[kind][:1], -1)
                wanted, shares_K = self.config.loss, self.shares[kind]
                each = [loss_of(logits, y_BLK, wanted, self.config.model.output, shares_K) for logits in stages]
                totals.append(torch.stack(each).mean())
                logs.setdefault(f"loss_{kind}", []).append(totals[-1].detach())
        # the sum over models, so that each learns as it would alone
        return torch.stack(totals).sum(), {name: torch.stack(parts).mean() for name, parts in logs.items()}

    def independent(self, model: nn.Module) -> Sequence[nn.Module]:
        return tuple(model.members)  # type: ignore[arg-type]

    @property
    def is_of_several(self) -> bool:
        return False  # the folds' models are one

    def made_from(self) -> dict[str, dict[str, str]]:
        return {"data": {"path": str(self.material.folder), "sha256": self.material.fingerprint}}

    def evaluate(self, model: nn.Module, runtime: Runtime) -> dict[str, float]:
        """The score of out-of-fold predictions, each action with its best threshold, and their loss."""
        shares = {kind: runtime.share(len(pieces)) for kind, pieces in self.pieces.items()}
        found = judging.counted(self.config, self.material, model, self.pieces, shares, runtime.device)
        counts, losses = (_summed(runtime, part) for part in found)
        return {
            "val/score": judging.score(self.material, counts),
            "val/loss": float(losses[0] / losses[1].clamp(min=1)),
        }

    def plan_notes(self) -> list[str]:
        if not self.config.trees.rounds:
            return []
        counts = [len(self.material.vocabulary.classes(kind)) for kind in KINDS]
        return [
            f"after training, {self.config.split.members} x {sum(counts)} models of {self.config.trees.rounds} trees "
            "are grown on the CPU"
        ]


def augmented(
    x_BLF: torch.Tensor, y_BLK: torch.Tensor, fold_B: torch.Tensor, task: BehaviourTask, kind: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows as they are shown: with noise in each feature's own deviations, and mixed with others of their fold."""
    wanted, x_BLF = task.config.windows, x_BLF.float()
    if wanted.noise:
        spread_F = task.model.spread(kind).to(x_BLF.device)
        x_BLF = x_BLF + wanted.noise * spread_F * torch.randn_like(x_BLF)
    if wanted.mixup:
        order_B = _within(fold_B)
        share = float(torch.distributions.Beta(wanted.mixup, wanted.mixup).sample())
        x_BLF, y_BLK = objectives.mixup(x_BLF, y_BLK, order_B, share)
    return x_BLF, y_BLK


def loss_of(
    logits_BLK: torch.Tensor, y_BLK: torch.Tensor, wanted: Loss, output: str, shares_K: torch.Tensor | None = None
) -> torch.Tensor:
    """The loss of a network's logits; `shares_K`: how frequent the actions are."""
    if output == "softmax":
        weights = torch.tensor(wanted.class_weights, device=logits_BLK.device) if wanted.class_weights else None
        total = objectives.softmax(logits_BLK, y_BLK, weights, wanted.smoothing, shares_K)
    else:
        total = objectives.binary(logits_BLK, y_BLK, smoothing=wanted.smoothing, focal_gamma=wanted.focal)
    if not wanted.soft_f1:
        return total
    p_BLK = objectives.probability(logits_BLK, y_BLK >= 0, output)
    return (1 - wanted.soft_f1) * total + wanted.soft_f1 * objectives.soft_f1(p_BLK, y_BLK)


def shares(pieces: Sequence[Piece]) -> torch.Tensor:
    """(K,) the share of annotated frames in which each class is done."""
    known_K = sum((piece.y_TK >= 0).sum(axis=0) for piece in pieces)
    return torch.from_numpy(sum((piece.y_TK == 1).sum(axis=0) for piece in pieces) / np.maximum(known_K, 1))


def build_model(config: Config, found: Vocabulary, widths: dict[str, int]) -> Ensemble:
    """The networks of a configuration, freshly initialised: the same for the same seed."""
    softmax = config.model.output == "softmax"
    seen = {
        kind: featurestore.now(kind, config.features) if config.model.columns == "now" else None for kind in found.kinds
    }
    kinds = {kind: Kind(widths[kind], len(found.classes(kind)) + softmax, seen[kind]) for kind in found.kinds}
    members = []
    for fold in range(config.split.members):
        with seeded(derive(config.seed, "model", fold)):
            members.append(model.Behaviours(kinds, labs=len(found.labs), **config.model.network()))
    return Ensemble(members)


def as_it_is(batch: Batch) -> Batch:
    """Collates what was fetched as a whole batch."""
    return batch


def _summed(runtime: Runtime, values: torch.Tensor) -> torch.Tensor:
    """The sum over processes."""
    return runtime.gather(values[None], runtime.world).sum(dim=0)


def _within(fold_B: torch.Tensor) -> torch.Tensor:
    """(B,) another row of the same fold for each row: what a model must not see is not mixed into what it sees."""
    shuffled = torch.randperm(len(fold_B), device=fold_B.device)
    return _inverse(torch.argsort(fold_B, stable=True), shuffled[torch.argsort(fold_B[shuffled], stable=True)])


def _inverse(places: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    found = torch.empty_like(rows)
    found[places] = rows
    return found


def build_task(config: Config, runtime: Runtime) -> Task:
    """The task of a configuration."""
    return BehaviourTask(config, runtime)
