"""Configuration of pair-compare, and the flags of its verbs. Imports nothing heavy: `--help` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, model_validator

from pair_compare_stacking.pairs_config import Data
from pair_compare_stacking.training_config import Augment, Distill, Loss
from shared_core.runs import RunOptions
from shared_core.settings import RunConfig, Section, resumable

HeadName = Literal["difference", "concatenation", "product", "cosine", "l2", "residual"]
MethodName = Literal["mean", "weighted_mean", "logistic", "greedy", "lightgbm"]
COMBINED = {*get_args(MethodName), "best_single"}  # answers of an ensemble that one can ask for by name
ModelName = Annotated[str, Field(pattern=r"^\w[\w.\-]*$")]
ModelSeed = Annotated[int, Field(ge=0, lt=2**32)]


class Model(Section):
    """The network (`pair_compare_stacking.model.PairModel`)."""

    architecture: Literal["resnet", "fpn"] = Field("resnet", description="fpn: a feature pyramid on the stages")
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (48, 96, 192), min_length=1, description="channels per stage of the tower"
    )
    width_mult: float = Field(1.0, gt=0, le=16, description="multiplies the widths, rounded to multiples of 8")
    layers: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 1, 1), min_length=1, description="residual blocks per stage"
    )
    block: Literal["basic", "bottleneck"] = Field("basic", description="kind of residual block")
    attention: Literal["none", "se", "cbam"] = Field(
        "none", description="after each stage: none, squeeze and excitation, or channels and places (CBAM)"
    )
    stem_stride: Literal[1, 2] = Field(2, description="1: the first stage sees every pixel, at 4 times the cost")
    feat_dim: int = Field(256, ge=1, description="features per half")
    heads: tuple[HeadName, ...] = Field(
        ("concatenation",), min_length=1, description="what compares the features of the halves"
    )
    hidden: int = Field(128, ge=1, description="width of each head")
    posteriors: bool = Field(True, description="start from what Bayes' rule makes of the two digit posteriors")
    antisymmetric: bool = Field(True, description="swapping the halves flips the answer exactly: h(a, b) - h(b, a)")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the features")

    @model_validator(mode="after")
    def _consistent(self) -> Model:
        if len(self.widths) != len(self.layers):
            raise ValueError(f"widths has {len(self.widths)} stages, layers {len(self.layers)}; give as many of both")
        if len(set(self.heads)) != len(self.heads):
            raise ValueError("heads: names one twice; a second copy would learn the same")
        return self

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels per stage, with the multiplier."""
        if self.width_mult == 1.0:
            return self.widths
        return tuple(max(8, round(width * self.width_mult / 8) * 8) for width in self.widths)


class Stream(Section):
    """Where training pairs come from."""

    kind: Literal["generator", "file"] = Field(
        "generator",
        description="generator: an endless stream of freshly degraded pairs; file: train.npz, again and again",
    )
    pairs_per_epoch: int = Field(50_000, ge=1, description="pairs drawn per epoch, over all processes (generator)")
    fold: int | None = Field(
        None, ge=0, description="file: leave out all pairs that show a source image of this fold of stacking.folds"
    )

    @model_validator(mode="after")
    def _only_a_file_has_folds(self) -> Stream:
        if self.fold is not None and self.kind != "file":
            raise ValueError("fold has no effect beside kind generator; leave it out")
        return self


class Member(Section):
    """One of several models: what is special about it beside the sections `model`, `loss` and `augment`."""

    stage: int = Field(2, ge=1, le=3, description="the stage that it is trained in")
    seed: ModelSeed | None = Field(None, description="default: the configuration's")
    model: dict[str, Any] = Field(default_factory=dict, description="keys of the section model")
    loss: dict[str, Any] = Field(default_factory=dict, description="keys of the section loss")
    augment: dict[str, Any] = Field(default_factory=dict, description="keys of the section augment")


class Stacking(Section):
    """Stage 4 (`pair_compare_stacking.stack`)."""

    protocol: Literal["withheld", "out_of_fold"] = Field(
        "withheld",
        description="what stackers are fitted on: fresh pairs from withheld source images, or pairs of train.npz, "
        "answered by models trained without their images (stream.kind file; trains each model folds + 1 times)",
    )
    models: tuple[ModelName, ...] = Field((), description="the base models; default: all of stages 2 and 3")
    methods: tuple[MethodName, ...] = Field(
        ("mean", "weighted_mean", "logistic", "greedy", "lightgbm"), min_length=1, description="what is tried"
    )
    pairs: int = Field(20_000, ge=100, description="fresh pairs from the withheld source images (withheld)")
    folds: int = Field(5, ge=3, le=20, description="folds of source images, for the choice and for what it is worth")
    seed: int = Field(7, ge=0, lt=2**32, description="seeds folds and pairs")

    @model_validator(mode="after")
    def _compared_with_the_mean(self) -> Stacking:
        if "mean" not in self.methods:
            raise ValueError("methods: must hold mean, which the others are compared with")
        return self


class Config(RunConfig):
    """One run of pair-compare: a single model, or several that learn together."""

    data: Data = Data()
    stream: Stream = Stream()
    model: Model = Model()
    loss: Loss = Loss()
    augment: Augment = Augment()
    distill: Distill = Distill()
    seeds: tuple[ModelSeed, ...] = Field((), description="train the model once for each of these seeds, together")
    models: dict[ModelName, Member] = Field(default_factory=dict, description="several models, by name")
    together: Literal["in_turn", "batched"] = resumable(
        "in_turn",
        description="several models: a call for each, or one for all of an architecture (torch.func.vmap; "
        "benchmarks/together.py measures which is faster)",
    )
    stacking: Stacking = Stacking()

    @model_validator(mode="after")
    def _models_can_be_made(self) -> Config:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: names one twice; it would give the same model")
        if reserved := sorted(set(self.models) & COMBINED):
            raise ValueError(f"models.{reserved[0]}: is the name of a way of combining models; choose another")
        if self.seeds and self.models:
            raise ValueError("seeds and models both name several models; leave out one of them (--models '{}')")
        names = [name for base in self.bases() for name in (base, *self.without_folds(base))]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"models.{twice}: protocol out_of_fold gives this name to another model; choose another")
        return self

    @model_validator(mode="after")
    def _folds_can_be_made(self) -> Config:
        wanted, fold = self.stacking, self.stream.fold
        if wanted.protocol == "out_of_fold" and self.stream.kind != "file":
            raise ValueError(
                "stacking.protocol: out_of_fold is for stream.kind file; a generator has fresh pairs for protocol "
                "withheld"
            )
        if fold is not None and fold >= wanted.folds:
            raise ValueError(f"stream.fold: {fold} is none of the folds 0 to {wanted.folds - 1} (stacking.folds)")
        if fold is not None and wanted.protocol == "out_of_fold" and (self.seeds or self.models):
            raise ValueError("stream.fold: protocol out_of_fold trains several models without each fold; leave it out")
        return self

    @model_validator(mode="after")
    def _a_generator_swaps_by_itself(self) -> Config:
        swaps = [single.augment.swap for single in (self.singles() or {"": self}).values()]
        if self.stream.kind == "generator" and not all(swaps):
            raise ValueError(
                "augment.swap: a generator draws left and right alike, so this has no effect; leave it out"
            )
        return self

    def singles(self) -> dict[str, Config]:
        """The configuration of each of several models, as if it were trained alone; empty for a single model.

        Under protocol out_of_fold, every base model is followed by those that are the same but for one fold.
        """
        found: dict[str, Config] = {}
        for name, base in self.bases().items():
            found[name] = base
            for fold, other in enumerate(self.without_folds(name)):
                stream = base.stream.model_copy(update={"fold": fold})
                found[other] = base.model_copy(update={"name": other, "stream": stream})
        return found

    def without_folds(self, name: str) -> tuple[str, ...]:
        """Names of a base model's copies that are trained without fold 0, 1, ...; empty where there are none."""
        wanted = self.stacking
        needed = wanted.protocol == "out_of_fold" and name in self.stacked()
        return tuple(f"{name}.fold{k}" for k in range(wanted.folds)) if needed else ()

    def stacked(self) -> tuple[str, ...]:
        """Names of the base models that stage 4 combines."""
        if self.stacking.models:
            return self.stacking.models
        if self.seeds:
            return tuple(self.bases())
        return tuple(name for name, member in self.models.items() if member.stage in (2, 3))

    def bases(self) -> dict[str, Config]:
        """`singles` without those that were trained without a fold."""
        if self.seeds:
            return {f"seed_{seed}": self._single(f"seed_{seed}", seed=seed) for seed in self.seeds}
        return {name: self._member(name, member) for name, member in self.models.items()}

    def _member(self, name: str, member: Member) -> Config:
        changed: dict[str, Any] = {"seed": self.seed if member.seed is None else member.seed}
        for key in ("model", "loss", "augment"):
            section = getattr(self, key)
            try:
                changed[key] = type(section).model_validate({**section.model_dump(), **getattr(member, key)})
            except ValidationError as error:
                found = [
                    f"{'.'.join(map(str, ('models', name, key, *each['loc'])))}: "
                    f"{each['msg'].removeprefix('Value error, ')}"
                    for each in error.errors()
                ]
                raise ValueError("; ".join(found)) from error
        return self._single(name, **changed)

    def _single(self, name: str, **changed: Any) -> Config:
        return self.model_copy(update={"name": name, "seeds": (), "models": {}, **changed})


class PrepareOptions(Section):
    """Flags of `prepare` beside the data section."""

    sample: bool = Field(False, description="the embedded default: scikit-learn's digits, small files")


class TrainOptions(Section):
    """Which models to train."""

    stage: Literal["1", "2", "3", "4", "all"] | None = Field(
        None, description="the models of one stage, together; 4: stacking; all: one stage after the other"
    )
    only: tuple[ModelName, ...] = Field((), description="of several models, these alone")


class ModelOptions(RunOptions):
    """Which model of a run with several, or of an ensemble."""

    model: ModelName | None = Field(
        None, description="one of several models by its name, or a method of stage 4; default: what stage 4 chose"
    )
    swap_average: bool = Field(
        False, description="average with the answers to the swapped halves; antisymmetric models give the same already"
    )


class EvaluateOptions(ModelOptions):
    """What to evaluate, and on what."""

    split: Literal["all", "val", "test_public", "test_disjoint"] = Field(
        "all", description="which of the prepared files"
    )
    all_models: bool = Field(False, description="every model and every way of combining them, in one table")
    baseline: bool = Field(True, description="fit the baseline on train.npz and show it beside")


class PredictOptions(ModelOptions):
    """Which pairs, and where the answers go."""

    input: Path | None = Field(None, description=".npz with x and id; default: the prepared test_public.npz")
    out: Path | None = Field(None, description="answer file; default: predictions/pred_public.csv in the run's folder")
    check: Path | None = Field(None, description="do not predict: check this answer file against the ids of the input")
