"""Configuration of mabe, and the flags of its verbs. Imports nothing heavy: `--help` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mabe_behavior.data_config import Data, Features, Split
from mabe_behavior.model_config import Decision, Loss, Model, Trees, Windows
from shared_core.runs import RunOptions
from shared_core.settings import RunConfig, Section

Name = Annotated[str, Field(min_length=1)]


class Config(RunConfig):
    """One run of mabe."""

    data: Data = Data()
    split: Split = Split()
    features: Features = Features()
    actions: tuple[Name, ...] = Field(
        (),
        description="what is learned; ONE+OTHER: these are learned as one, and the first of them that a video's "
        "annotators look for is what comes out; none: all that annotators look for",
    )
    model: Model = Model()
    trees: Trees = Trees()
    windows: Windows = Windows()
    loss: Loss = Loss()
    decision: Decision = Decision()

    @property
    def classes(self) -> tuple[tuple[str, ...], ...]:
        """The actions of each class that is learned; none: each action is one."""
        return tuple(tuple(one.split("+")) for one in self.actions)

    @model_validator(mode="after")
    def _weights_fit(self) -> Config:
        weights = self.loss.class_weights
        if weights and self.model.output != "softmax":
            raise ValueError("loss.class_weights: are of model.output softmax; leave them out")
        if weights and len(weights) != 1 + len(self.actions):
            raise ValueError(
                f"loss.class_weights: {len(weights)} for other and {len(self.actions)} actions; give one for each"
            )
        if self.model.output == "softmax" and self.features.alone == "alone":
            raise ValueError("features.alone: model.output softmax is about pairs; set none, or leave it out")
        return self

    @property
    def learns_alone(self) -> bool:
        """Whether what animals do alone is learned."""
        return self.features.alone == "alone" or (self.features.alone == "auto" and self.model.output != "softmax")

    @model_validator(mode="after")
    def _windows_fit(self) -> Config:
        if self.windows.jitter >= self.windows.length:
            raise ValueError(f"windows.jitter: {self.windows.jitter}; must be less than windows.length")
        return self


class PrepareOptions(Section):
    """Flags of `prepare` beside the data section."""

    sample: bool = Field(False, description="the embedded default: simulated laboratories")


class EvaluateOptions(RunOptions):
    """What is measured."""

    split: Literal["folds", "test"] = Field(
        "test", description="which recordings: the test's, or those of training, each by the model that did not see it"
    )
    baselines: bool = Field(True, description="also the parts alone, and without tuning")


class PredictOptions(RunOptions):
    """What is predicted, and how."""

    input: Path | None = Field(
        None,
        description="tracks: a file or folder of one of the formats, or a downloaded challenge whose test.csv is "
        "asked for; default: the test recordings",
    )
    format: Literal["auto", "deeplabcut", "sleap", "jabs", "simba", "calms21", "mabe22", "kaggle"] = Field(
        "auto", description="of the input"
    )
    fps: float | None = Field(None, gt=0, description="frames per second of the input, where its file does not say")
    pixels_per_cm: float | None = Field(None, gt=0, description="of the input, where its file does not say")
    identities: str | None = Field(
        None, description="which mouse is which, NAME=mouse1,NAME=mouse2: prefixes of parts, individuals or tracks"
    )
    parts: str | None = Field(
        None, description="what the input calls parts, NAME=nose,NAME=tail_base; NAME= leaves one out"
    )
    lab: str | None = Field(None, description="laboratory that the input is like; default: none that was seen")
    check: Path | None = Field(None, description="do not predict: check this submission against the recordings")
    frames: bool = Field(False, description="also write a table of probabilities, a row a frame, for each video")
    figures: int = Field(3, ge=0, description="ethograms to draw")
    animations: int = Field(0, ge=0, description="bouts to show as animated GIFs, of different actions first")
    out: Path | None = Field(None, description="file to write; default: predictions/submission.csv in the run's folder")


class BenchmarkOptions(Section):
    """A benchmark that others have published numbers of."""

    which: Literal["calms21"] = Field(
        "calms21", description="the benchmark: calms21, task 1", json_schema_extra={"positional": True}
    )
