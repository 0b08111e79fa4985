"""The settings of the sections `model`, `loss`, `curriculum` and `augment`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from shared_core.settings import Section

ModelType = Literal["dual_modal", "language_only", "vision_only", "numeric"]
Ratio = Annotated[float, Field(ge=0, le=1)]


class Tower(Section):
    """What the two towers have in common."""

    tower: str

    @property
    def is_pretrained(self) -> bool:
        """Whether the tower comes from the Hub."""
        return "/" in self.tower

    def _check_tower(self, *ours: str) -> None:
        if self.tower not in ours and not self.is_pretrained:
            raise ValueError(f"tower: there is no {self.tower!r}; write {' or '.join(ours)}, or OWNER/NAME@REVISION")


class Language(Tower):
    """What reads a series as tokens, one series per variable (`timeseries_dualmodal.language`)."""

    tower: str = Field(
        "small",
        description="small: a causal transformer trained from scratch; or OWNER/NAME@REVISION, a text model of the Hub",
        min_length=1,
    )
    frozen: bool = Field(False, description="a Hub model's weights stay as they are")
    patch: int = Field(
        4,
        ge=1,
        le=256,
        description="steps in a token; small: a token per step, of the last steps until then; a Hub model: one patch "
        "after the other",
    )
    dim: int = Field(64, ge=8, description="width of the features")
    depth: int = Field(3, ge=1, description="layers (small)")
    heads: int = Field(4, ge=1, description="attention heads (small)")
    dropout: float = Field(0.2, ge=0, lt=1)

    @model_validator(mode="after")
    def _is_one(self) -> Language:
        self._check_tower("small")
        if self.dim % self.heads:
            raise ValueError(f"heads: {self.heads} does not divide dim {self.dim}")
        return self


class Vision(Tower):
    """What sees the pictures (`timeseries_dualmodal.vision`)."""

    tower: str = Field(
        "small_cnn",
        description="small_cnn or small_vit, trained from scratch; or OWNER/NAME@REVISION, a vision model of the Hub",
        min_length=1,
    )
    frozen: bool = Field(True, description="a Hub model's weights stay as they are; its embeddings can then be cached")
    layer: int | None = Field(
        None, description="of a Hub model: the hidden layer whose tokens are averaged; default: its pooled output"
    )
    dim: int = Field(64, ge=8, description="width of the features")
    depth: int = Field(3, ge=1, description="layers (small_vit)")
    heads: int = Field(4, ge=1, description="attention heads (small_vit)")
    patch: int = Field(8, ge=1, description="pixels of a patch's side (small_vit)")
    channels: tuple[Annotated[int, Field(ge=4, multiple_of=4)], ...] = Field(
        (16, 32, 48, 64),
        min_length=1,
        description="channels after each halving of the picture, multiples of 4 (small_cnn)",
    )
    dropout: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _is_one(self) -> Vision:
        self._check_tower("small_cnn", "small_vit")
        return self


class Trees(Section):
    """Boosted trees beside the networks (`timeseries_dualmodal.boosting`), fitted once these are trained."""

    rounds: int = Field(120, ge=0, le=5_000, description="trees of each class and length; 0: none")
    leaves: int = Field(31, ge=2, le=4_096, description="most leaves of a tree")
    learning_rate: float = Field(0.08, gt=0, le=1, description="share of each tree's answer that counts")
    min_leaf: int = Field(10, ge=1, description="fewest training series in a leaf")
    l2: float = Field(5.0, ge=0, description="penalty on the leaves' values")
    extra: bool = Field(True, description="one threshold drawn for each feature instead of the best of all")
    series: int = Field(20_000, ge=50, description="most training series that they learn from; of more, some are drawn")


class Model(Section):
    """The network (`timeseries_dualmodal.model.DualModel`)."""

    type: ModelType = Field(
        "dual_modal",
        description="dual_modal: pictures and numbers; language_only and vision_only: one of them; numeric: all "
        "variables of a step together, no towers per variable",
    )
    members: int = Field(
        1,
        ge=1,
        le=32,
        description="networks that learn side by side from other first weights; their answers are averaged",
    )
    dim: int = Field(64, ge=8, description="width in which sight and numbers are fused")
    fusion_depth: int = Field(1, ge=1, description="layers of attention over the variables")
    fusion_heads: int = Field(4, ge=1, description="attention heads over the variables")
    dropout: float = Field(0.2, ge=0, lt=1, description="before the classes")
    language: Language = Language()
    vision: Vision = Vision()
    trees: Trees = Trees()

    @property
    def sees(self) -> bool:
        """Whether it looks at pictures."""
        return self.type in ("dual_modal", "vision_only")

    @property
    def reads(self) -> bool:
        """Whether it reads numbers."""
        return self.type != "vision_only"

    @model_validator(mode="after")
    def _heads_fit(self) -> Model:
        if self.dim % self.fusion_heads:
            raise ValueError(f"fusion_heads: {self.fusion_heads} does not divide dim {self.dim}")
        if self.type == "numeric" and self.language.is_pretrained:
            raise ValueError(
                "language.tower: a text model reads one variable at a time; set model.type language_only, or the tower "
                "to small"
            )
        return self


class Loss(Section):
    """What training minimises (`timeseries_dualmodal.losses`)."""

    kind: Literal["cross_entropy", "focal"] = "cross_entropy"
    gamma: float = Field(2.0, ge=0, description="focal: how much confident right answers count for less")
    class_weights: float = Field(
        0.0,
        ge=0,
        le=1,
        description="power of (1 / frequency) that weights classes: 0 none, 1 balanced. Macro-F1 has answers of its "
        "own, found after training, and wants probabilities as they are",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    early_weight: float = Field(
        0.0, ge=0, description="k of the weight 1 + k (1 - t/T) of a prefix of t steps; the guide's is 3"
    )
    alignment: float = Field(
        0.1, ge=0, description="dual_modal: weight of the contrast between a variable's picture and its numbers"
    )
    branches: float = Field(
        0.3, ge=0, description="dual_modal: weight of what sight alone and numbers alone answer, in training only"
    )
    also: str | None = Field(
        None,
        min_length=1,
        description="a column of data.groups that training asks for as well; finer labels than the classes teach more",
    )
    also_weight: float = Field(0.5, gt=0, description="weight of that second target")


class Stage(Section):
    """Some epochs of the curriculum."""

    until: int | None = Field(None, ge=1, description="last epoch of the stage; null: the end")
    shortest: Ratio = Field(0.0, description="share of the season in the shortest prefix")
    longest: Ratio = Field(1.0, description="share of the season in the longest prefix")

    @model_validator(mode="after")
    def _ordered(self) -> Stage:
        if self.shortest > self.longest:
            raise ValueError(f"shortest: {self.shortest} is more than longest {self.longest}; swap them")
        return self


class Curriculum(Section):
    """How much of a season training shows (`timeseries_dualmodal.curriculum`)."""

    stages: tuple[Stage, ...] = Field(
        (Stage(),), min_length=1, description="one after another; default: every length, from the first epoch on"
    )
    prefixes: int = Field(1, ge=1, le=400, description="prefixes of each series in a batch, spread over the range")

    @model_validator(mode="after")
    def _ordered(self) -> Curriculum:
        ends = [stage.until for stage in self.stages]
        if ends[-1] is not None:
            raise ValueError("stages: the last one must go on to the end; leave out its until")
        known = [end for end in ends[:-1] if end is not None]
        if len(known) != len(ends) - 1 or known != sorted(set(known)):
            raise ValueError("stages: each but the last one needs an until, later than that of the one before")
        return self


class Augment(Section):
    """Changes of the training series; each applies to picture and numbers alike."""

    noise: float = Field(0.0, ge=0, description="normal noise, in standard deviations of the variable")
    drop_steps: float = Field(0.0, ge=0, lt=1, description="largest share of steps that go missing; drawn per series")
    drop_variables: float = Field(0.0, ge=0, lt=1, description="probability that a variable goes missing")
    shift: int = Field(0, ge=0, description="most steps that a series moves to the right or left")
