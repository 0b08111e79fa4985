"""The settings of losses, augmentation and distillation. Imports nothing heavy: `--help` reads it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from shared_core.settings import Section


class Loss(Section):
    """What training minimises (`pair_compare_stacking.losses`)."""

    kind: Literal["bce", "focal"] = Field("bce", description="comparison loss: binary cross-entropy or focal loss")
    alpha: float = Field(1.0, gt=0, description="focal loss: its factor")
    gamma: float = Field(2.0, ge=0, description="focal loss: how little pairs count that are answered well already")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of each comparison label that is spread evenly over both answers"
    )
    digit_weight: float = Field(1.0, ge=0, description="weight of the digit loss beside the comparison loss")
    function: str | None = Field(
        None,
        description="your own comparison loss instead, package.module:function: (logit, y) of shape (pairs) to a "
        "scalar or one loss per pair",
    )

    @model_validator(mode="after")
    def _nothing_is_idle(self) -> Self:
        """A setting that would change nothing is a mistake."""
        alone = ("kind", "alpha", "gamma", "label_smoothing") if self.function else ()
        idle = alone or (("alpha", "gamma") if self.kind == "bce" else ())
        for name in idle:
            if getattr(self, name) != type(self).model_fields[name].default:
                other = "function" if self.function else "kind bce"
                raise ValueError(f"{name} has no effect beside {other}; leave one of them out")
        return self


class Augment(Section):
    """Random changes of the training pairs (`pair_compare_stacking.augment`), drawn for each half on its own."""

    rotation: float = Field(0.0, ge=0, le=180, description="most degrees that a half is rotated by, either way")
    translate: float = Field(0.0, ge=0, le=1, description="most that a half is shifted by, as a share of its side")
    resized_crop: float = Field(
        1.0, gt=0, le=1, description="smallest share of a half's area that is cut out and enlarged again; 1: all of it"
    )
    probability: float = Field(1.0, gt=0, le=1, description="share of the halves that the three above apply to")
    swap: bool = Field(True, description="exchange the halves of every other pair, at random, and its label with them")
    function: str | None = Field(
        None,
        description="your own augmentation after these, package.module:function: (x, generator) to the same shape, "
        "x (pairs, 2, 28, 28) in 0..1",
    )

    @model_validator(mode="after")
    def _nothing_is_idle(self) -> Self:
        if self.probability < 1 and not (self.rotation or self.translate or self.resized_crop < 1):
            raise ValueError("probability has no effect without rotation, translate or resized_crop; leave it out")
        return self


class Distill(Section):
    """Learning from another model's answers (Hinton et al. 2015, arXiv 1503.02531; `pair_compare_stacking.losses`)."""

    teacher: str | None = Field(
        None, min_length=1, description="run or ensemble to learn from; null: from the labels alone"
    )
    temperature: float = Field(3.0, gt=0, description="both models' log-odds are divided by it")
    soft: float = Field(0.7, ge=0, le=1, description="weight of the teacher's answers; the labels get the rest")

    @model_validator(mode="after")
    def _nothing_is_idle(self) -> Self:
        for name in ("temperature", "soft"):
            if self.teacher is None and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} has no effect without a teacher; name one, or leave it out")
        return self
