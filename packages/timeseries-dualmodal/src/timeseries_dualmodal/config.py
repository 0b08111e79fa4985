"""Configuration of dualmodal, and the flags of its verbs. Imports nothing heavy: `--help` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from shared_core.runs import RunOptions
from shared_core.settings import RunConfig, Section, resumable
from timeseries_dualmodal.data_config import Data, Split
from timeseries_dualmodal.decision_config import Decision
from timeseries_dualmodal.model_config import Augment, Curriculum, Loss, Model
from timeseries_dualmodal.pictures_config import Pictures

Length = Annotated[int, Field(ge=1)]
SCALES: tuple[int, ...] = (3, 6, 9, 12, 15, 18)
QUICK: tuple[int, ...] = (6, 12, 18)
FULL: tuple[int, ...] = (3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 37)


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


class PrepareOptions(Section):
    """Flags of `prepare` beside the data section."""

    sample: bool = Field(False, description="the embedded default: generated crop seasons")


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
    out: Path | None = Field(None, description="file to write; default: predictions/<input>.csv in the run's folder")
