"""Configuration of dualmodal, and the flags of its verbs. Imports nothing heavy: `--help` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ByteSize, Field, model_validator

from shared_core.runs import RunOptions
from shared_core.settings import RunConfig, Section, resumable
from timeseries_dualmodal.data_config import Data, Split
from timeseries_dualmodal.decision_config import Decision
from timeseries_dualmodal.model_config import Augment, Curriculum, Loss, Model
from timeseries_dualmodal.pictures_config import SCALES, Pictures

Length = Annotated[int, Field(ge=1)]
Answers = Literal["likeliest", "macro_f1"]


class Evaluation(Section):
    """After how many steps the model is asked (`timeseries_dualmodal.evaluate`)."""

    lengths: tuple[Length, ...] = resumable(
        SCALES,
        min_length=1,
        description="steps of the prefixes in tables and in validation; the whole season comes last",
    )
    every: int = resumable(
        1, ge=1, description="steps between answers on the curve and of the stopping rule; 1: after each step"
    )

    def reported(self, steps: int) -> tuple[int, ...]:
        """The lengths of tables and of validation for seasons of so many steps: those they have, and the whole."""
        return (*sorted({length for length in self.lengths if length < steps}), steps)

    def asked(self, steps: int) -> tuple[int, ...]:
        """The lengths of curves and of stopping: every so many steps, and those that are reported."""
        return tuple(sorted({*range(self.every, steps + 1, self.every), *self.reported(steps)}))


class Config(RunConfig):
    """One run of dualmodal."""

    data: Data = Data()
    split: Split = Split()
    pictures: Pictures = Pictures()
    model: Model = Model()
    curriculum: Curriculum = Curriculum()
    augment: Augment = Augment()
    loss: Loss = Loss()
    evaluation: Evaluation = Evaluation()
    decision: Decision = Decision()

    @model_validator(mode="after")
    def _patches_fit(self) -> Config:
        vision = self.model.vision
        if self.model.sees and vision.tower == "small_vit" and self.pictures.size % vision.patch:
            raise ValueError(f"model.vision.patch: {vision.patch} does not divide pictures.size {self.pictures.size}")
        return self

    @model_validator(mode="after")
    def _epochs_are_counted(self) -> Config:
        if self.training.epochs is None:
            raise ValueError("training.epochs: the curriculum counts them; give a number")
        return self

    @model_validator(mode="after")
    def _pictures_are_seen(self) -> Config:
        if self.pictures.cache is not None and not self.model.sees:
            raise ValueError(f"pictures.cache: a {self.model.type} model looks at no pictures; leave it out")
        return self

    @model_validator(mode="after")
    def _embeddings_fit(self) -> Config:
        vision, key = self.model.vision, "pictures.embeddings"
        if self.pictures.embeddings is None:
            return self
        if not (self.model.sees and vision.is_pretrained and vision.frozen):
            raise ValueError(
                f"{key}: is about a frozen model of the Hub that sees; set model.vision.tower, or leave it out"
            )
        if self.pictures.cache is not None:
            raise ValueError(f"{key}: takes the place of pictures; leave out pictures.cache")
        changed = [f"augment.{name}" for name, value in self.augment if value]
        if changed:
            raise ValueError(f"{key}: {', '.join(changed)} would not reach them; set 0 there, or leave out {key}")
        return self


class PrepareOptions(Section):
    """Flags of `prepare` beside the data section."""

    sample: bool = Field(False, description="the embedded default: generated crop seasons")
    images: bool = Field(
        False, description="also draw pictures for training to read, in pictures.cache; default: the set's pictures/"
    )
    quick: bool = Field(False, description="images: after 6, 12 and 18 steps only")
    full: bool = Field(False, description="images: after 3, 6, ..., 30, 33 steps and the whole season")
    scales: tuple[Length, ...] = Field((), description="images: after these steps; default: 3,6,9,12,15,18")
    format: Literal["packed", "png"] = Field(
        "packed", description="images: packed, which training reads, or png, which people can look at"
    )
    limit_disk: ByteSize | None = Field(
        None, description="images: most disk that they may take, such as 2GB; more is refused before anything is drawn"
    )
    workers: int | None = Field(None, ge=1, description="images: threads that draw; default: the cores")
    embeddings: bool = Field(
        False,
        description="also compute what the frozen Hub model of model.vision sees, after every step or --scales, for "
        "training to read, in pictures.embeddings; default: the set's embeddings/",
    )

    @model_validator(mode="after")
    def _of_images(self) -> PrepareOptions:
        given = [name for name in ("quick", "full", "scales") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} name different scales; give one of them")
        given += [name for name in ("limit_disk", "workers") if getattr(self, name) is not None]
        given += ["format"] if self.format == "png" else []
        if given and not self.images and not (self.embeddings and given == ["scales"]):
            raise ValueError(f"{given[0]} is about pictures; add --images")
        return self


class EvaluateOptions(RunOptions):
    """What is measured."""

    split: Literal["val", "test"] = Field("test", description="which series")
    baselines: bool = Field(
        True, description="fit the baselines on the training series and judge them beside the model"
    )


class PredictOptions(RunOptions):
    """What is answered."""

    input: Path | None = Field(
        None,
        description="file of series (.csv, .parquet, .npz) in the layout that was trained on; default: the test split",
    )
    steps: int | None = Field(None, ge=1, description="how many steps are known; default: all that a series has")
    answers: Answers = Field(
        "likeliest",
        description="which class is answered where the stopping rule stops: the likeliest, or the one that macro-F1 "
        "wants, often a rarer one",
    )
    out: Path | None = Field(None, description="file to write; default: predictions/<input>.csv in the run's folder")
