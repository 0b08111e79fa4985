"""Configuration of retina, and the flags of its verbs. Imports nothing heavy: `--help` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from retina_diffusion.data_config import Data, Layout, Split
from retina_diffusion.evaluation_config import Evaluation
from retina_diffusion.model_config import Augment, Flow, Model, Sampling, Text
from shared_core.runs import RunOptions
from shared_core.settings import RunConfig, Section
from shared_core.verbs import PlanOptions as CorePlanOptions


class Config(RunConfig):
    """One run of retina."""

    data: Data = Data()
    split: Split = Split()
    model: Model = Model()
    text: Text = Text()
    flow: Flow = Flow()
    sampling: Sampling = Sampling()
    augment: Augment = Augment()
    evaluation: Evaluation = Evaluation()

    @property
    def token_side(self) -> int:
        """Tokens along a side of a square image."""
        return self.data.size // self.model.token

    @model_validator(mode="after")
    def _patches_fit(self) -> Config:
        pixels = self.model.token
        if self.data.size % pixels or (self.data.aspect == "native" and self.data.multiple % pixels):
            key = "data.size" if self.data.size % pixels else "data.multiple"
            raise ValueError(f"{key}: must be a multiple of a token's side, {pixels} pixels (model.patch)")
        return self

    @model_validator(mode="after")
    def _tokens_are_few(self) -> Config:
        tokens, most = self.token_side**2, self.model.most_tokens
        if tokens > most:
            across = self.token_side * self.model.patch  # pixels or latents
            side = next(side for side in range(1, across + 1) if across % side == 0 and (across // side) ** 2 <= most)
            raise ValueError(
                f"model.patch: {self.model.patch} makes {tokens:,} tokens of an image, more than model.most_tokens, "
                f"{most:,}; {side} makes {(across // side) ** 2:,}"
            )
        return self

    @model_validator(mode="after")
    def _latents_cannot_move(self) -> Config:
        wrong = [name for name in ("upside_down", "shift") if getattr(self.augment, name)]
        if self.model.space == "latents" and wrong:
            raise ValueError(
                f"augment.{wrong[0]}: goes with model.space pixels; latents are computed once, so leave it out"
            )
        return self


class PrepareOptions(Section):
    """Flags of `prepare` beside the data section."""

    sample: bool = Field(False, description="the embedded default: drawn photographs")
    latents: bool = Field(
        False, description="also what training computes first: latents (model.vae), features of captions (text.model)"
    )


class PlanOptions(CorePlanOptions):
    """How `plan` finds its numbers, and whether all presets are planned for a budget."""

    budget: str | None = Field(
        None, description="time that training may take, such as 24h or 12d: what each preset makes of it, as a table"
    )
    photographs: int | None = Field(
        None, ge=1, description="training photographs to plan for; default: the prepared set's, else 1,400"
    )


class EvaluateOptions(RunOptions):
    """What is measured."""

    split: Literal["val", "test"] = Field("test", description="which photographs")
    crossed: bool = Field(
        False, description="also judge by segmenters that learned from photographs which the generator never saw"
    )
    downstream: bool = Field(False, description="also train graders with and without generated images")


class PredictOptions(RunOptions):
    """What is drawn."""

    split: Literal["train", "val", "test"] = Field(
        "train", description="whose masks and texts; images of val and test are no material for training"
    )
    input: Path | None = Field(
        None,
        description="a source of masks instead, as data.source takes it; of photographs only size and field of view "
        "count, and masks/ or lines with mask_path do without",
    )
    input_layout: Layout = Field("auto", description="of --input, as data.layout")
    count: int | None = Field(
        None, ge=1, description="how many images; default: per_mask for each photograph, of a split at most 60"
    )
    per_mask: int = Field(1, ge=1, description="images for the masks of each photograph")
    balance: Literal["none", "grade", "lesion"] = Field(
        "none", description="as many images of every grade, or with every kind of lesion and without any"
    )
    caption: str | None = Field(None, min_length=1, description="text of all images instead of each photograph's own")
    grade: int | None = Field(None, ge=0, le=4, description="grade of all images instead of each photograph's own")
    only_with_masks: bool = Field(False, description="leave out photographs without masks")
    without_masks: bool = Field(False, description="hide the masks: draw from the text alone")
    out: Path | None = Field(None, description="folder; default: predictions/ in the run's")
