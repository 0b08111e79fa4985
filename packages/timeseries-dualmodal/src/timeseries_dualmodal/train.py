"""The training problem: prefixes of series, the dual model, macro-F1 over the lengths on the validation series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from shared_core import multiclass, prepared
from shared_core.batches import Batches, LoaderBatches
from shared_core.errors import UserError
from shared_core.runtime import Runtime
from shared_core.seeds import derive, seeded
from shared_core.task import Task
from timeseries_dualmodal import (
    answers,
    boosting,
    curriculum,
    decision,
    division,
    embeddingsets,
    losses,
    picturesets,
    prepare,
    temperature,
    weighing,
)
from timeseries_dualmodal.config import Config
from timeseries_dualmodal.description import Description, column
from timeseries_dualmodal.members import Members
from timeseries_dualmodal.model import Answer, DualModel, Scale
from timeseries_dualmodal.plots import Axes, Plots
from timeseries_dualmodal.prefixes import Prefixes, Seen, as_it_is
from timeseries_dualmodal.series import SeriesSet
from timeseries_dualmodal.sight import Eyes, Live
from timeseries_dualmodal.towers import Towers


@dataclass(frozen=True)
class Material:
    """The prepared series, and which of them train, choose and judge."""

    series: SeriesSet
    parts: Mapping[str, np.ndarray]  # train, val, test -> rows
    fingerprint: str = ""  # of the prepared set

    @classmethod
    def load(cls, config: Config) -> Material:
        """Raises UserError where the set is not prepared, or cannot be divided as the configuration wants."""
        folder = prepare.require(config)
        series = prepare.load(folder)
        return cls(series, division.divide(series, config.split), prepared.read_manifest(folder)["fingerprint"])

    def part(self, name: str) -> SeriesSet:
        return self.series.take(self.parts[name])


class EarlyTask(Task):
    """One model that answers from prefixes."""

    monitor = "val/macro_f1"
    maximize = True

    def __init__(self, config: Config, runtime: Runtime, material: Material | None = None) -> None:
        self.material = material = material or Material.load(config)
        self.config, self.steps = config, material.series.steps
        train, self.val = material.part("train"), material.part("val")
        assert train.y is not None and self.val.y is not None
        self.about = Description.of(train, config.loss.also, material.fingerprint)
        self.model = build_model(config, self.about)
        for scale in self.model.scales:
            fit(scale, train, config.pictures.tail)
        counts_C = torch.from_numpy(np.bincount(train.y, minlength=len(train.classes)))
        self.weight_C = losses.class_weights(counts_C, config.loss.class_weights).to(runtime.device)
        self.eyes = eyes_of(config, self.model, self.about) if config.model.sees else None
        self.val_eyes = self.eyes and embeddingsets.eyes(config, self.model, self.eyes, material.parts["val"])
        # the contrast is between the series of a whole batch
        self.splittable = config.model.type != "dual_modal" or config.loss.alignment == 0
        self.batches = self._batches(train, runtime)

    def _batches(self, train: SeriesSet, runtime: Runtime) -> Batches:
        assert train.y is not None
        targets = {"y": torch.from_numpy(train.y)}
        if self.config.loss.also is not None:
            targets["also"] = torch.from_numpy(column(train, self.config.loss.also)[1])
        dataset = Prefixes(
            torch.from_numpy(train.x),
            targets,
            self.model.scales[0].std_V.clone(),
            self.config.curriculum,
            self.config.augment,
        )
        size, seed = self.config.training.batch_size, self.config.seed
        source = LoaderBatches(dataset, batch_size=size, runtime=runtime, seed=seed, collate=as_it_is)
        if self.eyes is None:
            return source
        if self.config.pictures.embeddings is not None:
            eyes = embeddingsets.eyes(self.config, self.model, self.eyes, self.material.parts["train"])
            return Seen(source, eyes)
        return Seen(source, picturesets.eyes(self.config, self.eyes, self.material.parts["train"]))

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        answers_M = model(batch["x"], batch["length"], batch.get("seen"))
        if isinstance(answers_M, Answer):  # in evaluation mode
            answers_M = [answers_M]
        totals, logs = [], []
        for answer in answers_M:
            total, parts = losses.total(
                answer, batch["y"], batch["length"], self.steps, self.weight_C, self.config.loss, batch.get("also")
            )
            right = answer.logits_BKC.argmax(dim=-1) == batch["y"][:, None]
            totals.append(total)
            logs.append({**parts, "accuracy": right.float().mean()})
        mean = {name: torch.stack([log[name] for log in logs]).mean() for name in logs[0]}
        # the sum, so that each member learns as it would alone; AdamW does not mind, and each is clipped by itself
        return torch.stack(totals).sum(), mean

    def independent(self, model: nn.Module) -> Sequence[nn.Module]:
        return tuple(model.members)  # type: ignore[arg-type]

    def made_from(self) -> dict[str, dict[str, str]]:
        """The prepared set: a run goes on with the very one that it began with."""
        folder = self.config.paths.data / prepare.PACKAGE / self.config.data.folder
        return {"data": {"path": str(folder), "sha256": self.material.fingerprint}}

    def warnings(self) -> list[str]:
        shown = curriculum.shortest(self.config.curriculum, self.steps, self.config.training.epochs)
        unseen = [str(length) for length in self.config.evaluation.reported(self.steps) if length < shown]
        if not unseen:
            return []
        return [
            f"training shows no prefix of fewer than {shown} steps, and is asked after {', '.join(unseen)}: see "
            "curriculum.stages and --epochs"
        ]

    def plan_notes(self) -> list[str]:
        pictures, notes = self.config.pictures, []
        if self.eyes is not None and pictures.cache is None and pictures.embeddings is None:
            notes.append(picturesets.plan_note(self.eyes.plots, self.material.series.x))
        if self.config.model.trees.rounds:
            train, lengths = self.material.part("train"), self.config.evaluation.asked(self.steps)
            assert train.y is not None
            notes.append(boosting.plan_note(self.config.model.trees, train.x, train.y, lengths, len(train.classes)))
        return notes

    @property
    def is_of_several(self) -> bool:
        return False  # the members are one model

    def evaluate(self, model: nn.Module, runtime: Runtime) -> dict[str, float]:
        """Macro-F1, of the answers that it wants, and accuracy after each of the reported lengths, and their means."""
        lengths = self.config.evaluation.reported(self.steps)
        logits_NLC = predict(model, self.val, lengths, self.val_eyes, runtime)
        assert self.val.y is not None
        y_N = torch.from_numpy(self.val.y)
        p_NLC = logits_NLC.double().softmax(dim=-1).numpy()
        temperatures, weights_LC = decision.answering(p_NLC, self.val.y)
        answers_NL = weighing.answers(temperature.apply(p_NLC, temperatures), weights_LC)
        found: dict[str, float] = {}
        for index, length in enumerate(lengths):
            found[f"val/macro_f1_{length}"] = multiclass.macro_f1(
                answers_NL[:, index], self.val.y, logits_NLC.shape[-1], n_resamples=0
            ).value
            found[f"val/accuracy_{length}"] = float((p_NLC[:, index].argmax(axis=1) == self.val.y).mean())
        loss = F.cross_entropy(logits_NLC.flatten(0, 1), y_N.repeat_interleave(len(lengths)))
        mean = {
            f"val/{name}": float(np.mean([found[f"val/{name}_{length}"] for length in lengths]))
            for name in ("macro_f1", "accuracy")
        }
        return {**mean, "val/loss": float(loss), **found}


def build_model(config: Config, about: Description) -> Members:
    """The networks of a configuration for such series, freshly initialised: the same for the same seed."""
    times_T = torch.from_numpy(np.array(about.times))
    size, variables = config.pictures.size, len(about.variables)
    towers = Towers(config.model, size)
    made = []
    for index in range(config.model.members):
        with seeded(derive(config.seed, "model", index)):
            made.append(
                DualModel(
                    config.model,
                    variables,
                    len(about.classes),
                    times_T,
                    size,
                    aligned=config.loss.alignment > 0,
                    branched=config.loss.branches > 0,
                    also=len(about.also),
                    words=towers.words(variables, len(times_T)),
                    sight=towers.sight(variables),
                )
            )
    return Members(made)


def fit(scale: Scale, train: SeriesSet, tail: float) -> None:
    """What normalises values and spans pictures, from training series alone."""
    x_V = np.moveaxis(train.x.astype(np.float64), 1, 0).reshape(len(train.variables), -1)
    known = ~np.isnan(x_V)
    counts = np.maximum(known.sum(axis=1), 1)
    mean = np.where(known, x_V, 0).sum(axis=1) / counts
    std = np.sqrt(np.where(known, (x_V - mean[:, None]) ** 2, 0).sum(axis=1) / counts)
    axes = Axes.fit(train.x, train.times, tail)
    found = {"mean_V": mean, "std_V": np.where(std > 0, std, 1.0), "low_V": axes.low_V, "high_V": axes.high_V}
    for name, values in found.items():
        getattr(scale, name).copy_(torch.as_tensor(np.asarray(values), dtype=torch.float32))


def eyes_of(config: Config, model: Members, about: Description) -> Live:
    """What shows pictures to a model that is asked, on the axes that it was fitted with: it draws them, to the step."""
    wanted, scale, times = config.pictures, model.scales[0], about.times
    axes = Axes.of(times, scale.low_V.cpu().numpy(), scale.high_V.cpu().numpy())
    return Live(Plots(axes, times, **wanted.look))


def embed(config: Config, scales: tuple[int, ...]) -> None:
    """Make the embeddings of the prepared set with the configuration's frozen tower (`embeddingsets.make`)."""
    runtime = Runtime.start(config.runtime, config.seed)
    if runtime.world > 1:
        raise UserError("prepare --embeddings: runs in one process; start it without a launcher")
    material = Material.load(config)
    train = material.part("train")
    about = Description.of(train, config.loss.also)
    model = build_model(config, about)
    fit(model.scales[0], train, config.pictures.tail)
    live, autocast = eyes_of(config, model, about), runtime.accelerator.autocast
    embeddingsets.make(config, model, live, material.series.x, scales, runtime.device, autocast)


def predict(
    model: nn.Module, series: SeriesSet, lengths: tuple[int, ...], eyes: Eyes | None, runtime: Runtime
) -> torch.Tensor:
    """Logits (N, L, C) on the CPU, in the series' order; every process answers its share."""
    share = runtime.share(len(series))
    rows = series.x[share]
    mine = torch.from_numpy(rows if len(rows) else series.x[:1])  # a process without a share still gathers
    found = answers.logits(model, mine, lengths, eyes, runtime.device, share.start)[: len(rows)]
    return runtime.gather(found, len(series)).cpu()


def build_task(config: Config, runtime: Runtime) -> Task:
    """The task of a configuration."""
    return EarlyTask(config, runtime)
