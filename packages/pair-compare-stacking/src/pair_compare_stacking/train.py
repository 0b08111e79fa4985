"""The training problem: pairs, the pair model, accuracy on val.npz."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import Dataset

from pair_compare_stacking import augment, degrade, folds, losses, model, pairfile, prepare
from pair_compare_stacking.config import Config
from pair_compare_stacking.generator import digit_prior
from pair_compare_stacking.pairs import PairNPZDataset, halves
from shared_core import files, runs, userdefined
from shared_core.batches import Batches, LoaderBatches, StreamBatches
from shared_core.errors import UserError
from shared_core.runtime import Runtime
from shared_core.seeds import derive, seeded
from shared_core.task import Task

if TYPE_CHECKING:
    from pair_compare_stacking.teacher import Teacher

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class Digits:
    """Single digits, on a device."""

    images: torch.Tensor  # (M, 28, 28) uint8
    index: degrade.DigitIndex

    @classmethod
    def load(cls, path: Path, device: torch.device) -> "Digits":
        """Raises UserError where the file is missing or damaged."""
        pool = files.read_npz(path, ("images", "labels"))
        index = degrade.DigitIndex.of(torch.from_numpy(pool["labels"]).to(device))
        return cls(torch.from_numpy(pool["images"]).to(device), index)


@dataclass(frozen=True)
class Material:
    """What models learn from and are measured on; several that learn together share it."""

    config: Config
    runtime: Runtime
    val: PairNPZDataset
    digits: "Digits | None"  # what the stream draws from
    train: PairNPZDataset | None  # train.npz, where it is what is learned from

    @classmethod
    def load(cls, config: Config, runtime: Runtime) -> "Material":
        folder = prepare.require(config)
        val = PairNPZDataset(folder / "val.npz")
        if val.y is None:
            raise UserError(f"{folder / 'val.npz'}: has no labels; prepare the set again")
        if config.stream.kind == "file":
            return cls(config, runtime, val, None, PairNPZDataset(folder / "train.npz"))
        if config.data.is_given:
            raise UserError(
                "stream.kind: source pairs has no single digits to make pairs of; add --stream.kind file (and, for "
                "stage 4, --stacking.protocol out_of_fold)"
            )
        return cls(config, runtime, val, Digits.load(folder / prepare.POOL, runtime.device), None)

    @cached_property
    def teacher(self) -> "Teacher | None":
        """Whom the models learn from besides the labels. Only training asks for it: nothing else needs one."""
        if self.config.distill.teacher is None:
            return None
        from pair_compare_stacking import teacher

        return teacher.load(self.config, self.runtime)

    def made_from(self) -> dict[str, dict[str, str]]:
        return {} if self.teacher is None else {"distill.teacher": self.teacher.describe()}

    def warnings(self) -> list[str]:
        found = folds.warnings(self.config, self.train)
        sources = None if self.val.truth is None else self.val.truth.sources
        return found if self.teacher is None else [*found, *self.teacher.warnings(self.config.data, sources)]

    def leave_out_missing(self) -> list[str]:
        """Do without a teacher that cannot be had."""
        try:
            found = self.teacher
        except UserError as error:
            vars(self)["teacher"] = None  # where `cached_property` keeps what it has found
            return [f"{error}; its cost is not counted"]
        return [] if found is None else ["distill.teacher: its answers are counted, its weights in memory are not"]

    @cached_property
    def divided(self) -> folds.Folds:
        """The folds of train.npz."""
        assert self.train is not None
        return folds.divide(self.config.stacking, self.train)


def sources(config: Config) -> list[str]:
    """Ids of all source images that training shows, or showed its teacher or the model that it began with.

    Empty where one of them does not say: then nothing is known for sure.
    """
    from pair_compare_stacking import saved, teacher

    folder, begun_with = prepare.require(config), _begun_with(config)
    handed_on = [teacher.sources(config)] if config.distill.teacher else []
    handed_on += [saved.trained_on_if_known(begun_with)] if begun_with else []
    if not all(handed_on):
        return []
    if config.stream.kind == "file":
        path = folder / "train.npz"
        if not pairfile.truth_path(path).exists():
            return []
        shown = pairfile.read_truth(path).sources.ravel()
        if config.stream.fold is not None:
            shown = folds.divide(config.stacking, PairNPZDataset(path)).shown(config.stream.fold).ravel()
    else:
        shown = files.read_npz(folder / prepare.POOL, ("ids",))["ids"]
    return sorted({str(source) for source in shown}.union(*handed_on))


def _begun_with(config: Config) -> Path | None:
    """Whose weights training begins with, if anyone's."""
    source = config.training.init_from
    return None if source is None else runs.meant(config.paths.runs / prepare.PACKAGE, source) or Path(source)


class PairTask(Task):
    """One model, on pairs that are drawn anew for every batch and never repeat, or on those of train.npz."""

    monitor = "val/accuracy"
    maximize = True

    def __init__(self, config: Config, runtime: Runtime, material: Material | None = None) -> None:
        self.config, self.device = config, runtime.device
        self.material = material or Material.load(config, runtime)
        self.model = build_model(config)
        self._loaded: dict[str, Callable[..., Any]] = {}  # the user's own functions
        self.batches = self._file(runtime) if self.material.train is not None else self._stream(runtime)

    @property
    def own_loss(self) -> Callable[..., Any] | None:
        """The user's own comparison loss; for training alone, since nothing else runs what a configuration names."""
        return self._own(self.config.loss.function, "loss.function")

    @property
    def own_augmentation(self) -> Callable[..., Any] | None:
        """The user's own augmentation, likewise."""
        return self._own(self.config.augment.function, "augment.function")

    def _own(self, name: str | None, key: str) -> Callable[..., Any] | None:
        if name is None or not torch.is_grad_enabled():
            return None
        if key not in self._loaded:
            self._loaded[key] = userdefined.load(name, key, own=True)
        return self._loaded[key]

    def _stream(self, runtime: Runtime) -> Batches:
        size, wanted = self.config.training.batch_size, self.config.stream.pairs_per_epoch
        if wanted < size * runtime.world:
            raise UserError(
                f"stream.pairs_per_epoch: {wanted} is less than one batch ({size * runtime.world}); raise it or lower "
                "--batch-size"
            )
        per_epoch = wanted // (size * runtime.world)
        return StreamBatches(
            self._fresh, batches_per_epoch=per_epoch, batch_size=size, runtime=runtime, seed=self.config.seed
        )

    def _file(self, runtime: Runtime) -> Batches:
        """An epoch is as many batches as the whole file holds, also for a model that learns from a part of it."""
        assert self.material.train is not None
        fold, every = self.config.stream.fold, len(self.material.train)
        rows = torch.arange(every) if fold is None else torch.from_numpy(self.material.divided.without(fold))
        size, seed = self.config.training.batch_size, self.config.seed
        if len(rows) < size * runtime.world <= every:
            raise UserError(
                f"training.batch_size: {size} x {runtime.world} processes is more than the {len(rows)} pairs that are "
                f"left without fold {fold}; lower --batch-size or take more pairs"
            )
        dataset = _FilePairs(self.material.train, rows, self)
        source = LoaderBatches(dataset, batch_size=size, runtime=runtime, seed=seed, collate=_as_it_is)
        return source if fold is None else folds.Recut(source, every // (size * runtime.world))

    def _fresh(self, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """x float (B, 2, 28, 28), y (B,), digits (B, 2).

        Left and right are drawn alike, so the stream is its own swap augmentation."""
        data, single = self.config.data, self.material.digits
        assert single is not None  # since this is a stream
        pairs = degrade.sample_pairs_batch(
            single.images,
            single.index,
            self.config.training.batch_size,
            data.severity,
            data.weight_diff1,
            generator,
        )
        digits = torch.stack((pairs["left_digit"], pairs["right_digit"]), dim=1)
        wanted = self.config.augment.model_copy(update={"swap": False})
        x, y, digits = augment.augment(halves(pairs["x"]), pairs["y"], digits, wanted, generator, self.own_augmentation)
        return {"x": x, "y": y, "digits": digits}

    def loss(self, model_: nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return self.loss_of(model_(batch["x"]), batch)

    def loss_of(
        self, prediction: model.Prediction, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of what the model has answered to a batch; what has no gradient learns from no teacher."""
        teacher = self.material.teacher if prediction.logit.requires_grad else None
        total, parts = losses.total(
            prediction,
            batch["y"],
            batch.get("digits"),
            self.config.loss,
            self.own_loss,
            None if teacher is None else teacher(batch["x"]),
            self.config.distill,
        )
        return total, {**parts, "accuracy": (says_left(prediction.logit) == (batch["y"] > 0)).float().mean()}

    def made_from(self) -> dict[str, dict[str, str]]:
        _ = self.own_loss, self.own_augmentation  # a name that leads nowhere is refused before there is a run
        return self.material.made_from()

    def warnings(self) -> list[str]:
        return self.material.warnings()

    def leave_out_missing(self) -> list[str]:
        return self.material.leave_out_missing()

    def evaluate(self, model_: nn.Module, runtime: Runtime) -> dict[str, float]:
        val = self.material.val
        prediction = predict(model_, val.x, runtime)
        y, digits = val.y, val.digits
        assert y is not None  # since it was loaded
        total, parts = losses.total(prediction, y, digits, self.config.loss)
        if digits is not None:
            parts["digit_accuracy"] = (prediction.digit_logits.argmax(dim=-1) == digits).float().mean()
        return {
            "val/accuracy": float((says_left(prediction.logit) == (y > 0)).float().mean()),
            "val/f1": _f1(says_left(prediction.logit), y > 0),
            "val/loss": float(total),
            **{f"val/{name}": float(value) for name, value in parts.items()},
        }


class _FilePairs(Dataset[dict[str, Any]]):
    """Some rows of a file of pairs, fetched batch by batch, with augmentation."""

    def __init__(self, pairs: PairNPZDataset, rows: torch.Tensor, task: PairTask) -> None:
        self.pairs, self.rows, self.task = pairs, rows, task

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, places: Sequence[int]) -> dict[str, torch.Tensor]:
        """x float (B, 2, 28, 28), y (B,), and digits (B, 2) where they are known."""
        rows = self.rows[places]
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        y, digits = self.pairs.y, self.pairs.digits
        assert y is not None  # a training file has labels: `pairfile`
        x, y, digits = augment.augment(
            halves(self.pairs.x[rows]),
            y[rows],
            None if digits is None else digits[rows],
            self.task.config.augment,
            generator,
            self.task.own_augmentation,
        )
        return {"x": x, "y": y} | ({} if digits is None else {"digits": digits})


def _as_it_is(batch: Any) -> Any:
    return batch


def says_left(logit: torch.Tensor) -> torch.Tensor:
    """Whether the answer is "left larger"; so it is at log-odds of 0, as in whatever goes by probabilities."""
    return logit >= 0


def _f1(answered: torch.Tensor, true: torch.Tensor) -> float:
    return float(2 * (answered & true).sum() / (answered.sum() + true.sum()).clamp(min=1))


def build_model(config: Config) -> model.PairModel:
    """The model of a configuration, freshly initialised: the same for the same seed, whatever was drawn before."""
    wanted = config.model
    with seeded(derive(config.seed, "model")):
        return model.PairModel(
            digit_prior(config.data.weight_diff1),
            wanted.channels,
            wanted.layers,
            wanted.feat_dim,
            wanted.hidden,
            wanted.heads,
            wanted.posteriors,
            wanted.antisymmetric,
            wanted.dropout,
            block=wanted.block,
            attention=wanted.attention,
            stem_stride=wanted.stem_stride,
            pyramid=wanted.architecture == "fpn",
        )


def build_task(config: Config, runtime: Runtime) -> Task:
    """The task of a single model, or of several that learn together."""
    if config.singles():
        from pair_compare_stacking.members import MembersTask

        return MembersTask(config, runtime)
    return PairTask(config, runtime)


@torch.no_grad()
def predict(model_: nn.Module, x: torch.Tensor, runtime: Runtime, swapped_too: bool = False) -> model.Prediction:
    """Predictions for pictures uint8 (N, 28, 56), on the CPU in their order; every process scores its share.

    `swapped_too`: average with what the model makes of the swapped halves, (f(a, b) - f(b, a)) / 2, which is f(a, b)
    where f is antisymmetric.
    """
    rows = x[runtime.share(len(x))]
    batches = rows.split(EVALUATION_BATCH) if len(rows) else (x[:1],)  # a process without a share still gathers
    parts = [_answer(model_, halves(batch.to(runtime.device, non_blocking=True)), swapped_too) for batch in batches]
    logit = torch.cat([part.logit.float() for part in parts])[: len(rows)]
    digits = torch.cat([part.digit_logits.float() for part in parts])[: len(rows)]
    return model.Prediction(runtime.gather(logit, len(x)).cpu(), runtime.gather(digits, len(x)).cpu())


def _answer(model_: nn.Module, x_B2HW: torch.Tensor, swapped_too: bool) -> model.Prediction:
    straight: model.Prediction = model_(x_B2HW)
    if not swapped_too:
        return straight
    swapped: model.Prediction = model_(x_B2HW.flip(1))
    return model.Prediction((straight.logit - swapped.logit) / 2, straight.digit_logits)
