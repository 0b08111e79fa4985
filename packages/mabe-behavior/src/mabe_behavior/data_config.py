"""The settings of the sections `data`, `split` and `features`: which recordings, which of them judge, what is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from shared_core.settings import Section

Name = Annotated[str, Field(min_length=1)]


class Data(Section):
    """Recordings (`mabe_behavior.prepare`)."""

    source: Literal["sample", "calms21", "kaggle", "mabe22", "files"] = Field(
        "sample",
        description="sample (simulated laboratories, needs nothing), or whose data lie in `path`; files: one's own, by "
        "a table of them (`formats.own`)",
    )
    path: Path | None = Field(None, description="folder or file of the download; only `prepare` reads it")
    name: str | None = Field(
        None, description="folder of the prepared set; default: the source's name", pattern=r"^\w[\w.\-]*$"
    )
    labs: tuple[Name, ...] = Field((), description="only these laboratories; none: all")
    strict: bool = Field(
        True, description="refuse what no video should have, such as annotations past its end; false: leave it out"
    )
    sample_videos: int = Field(8, ge=1, description="sample: videos of each laboratory")
    sample_seconds: float = Field(60.0, ge=5, le=3600, description="sample: length of each video")
    sample_seed: int = Field(0, ge=0, lt=2**31, description="sample: which videos")

    @property
    def folder(self) -> str:
        """Name of the prepared set's folder."""
        return self.name or self.source

    def sample(self) -> Data:
        """The embedded default."""
        return self.model_copy(update={"source": "sample", "path": None})


class Split(Section):
    """Which recordings judge, and the folds of the others (`mabe_behavior.division`)."""

    kind: Literal["recording", "lab", "given"] = Field(
        "recording",
        description="what is held out for the test: a share of each lab's recordings, whole labs (test_labs), or what "
        "the source says",
    )
    test: float = Field(0.25, gt=0, lt=1, description="recording: share of each lab's recordings")
    test_labs: tuple[Name, ...] = Field((), description="lab: these; nothing of them is trained or tuned on")
    folds: int = Field(
        3, ge=2, le=20, description="models, each of which sees all training recordings but those of its fold"
    )
    models: int | None = Field(
        None,
        ge=1,
        description="of only so many folds; 1: a plain validation split, its one model tuned on the first fold; "
        "default: of all folds",
    )
    folds_by: Literal["recording", "lab"] = Field(
        "recording",
        description="lab: folds are of whole labs, so that what is tuned on them holds for labs never seen",
    )
    seed: int = Field(0, ge=0, lt=2**32)

    @property
    def members(self) -> int:
        """How many models there are."""
        return self.models or self.folds

    @model_validator(mode="after")
    def _has_folds(self) -> Split:
        if self.models is not None and self.models > self.folds:
            raise ValueError(f"models: {self.models}, but there are only {self.folds} folds")
        return self

    @model_validator(mode="after")
    def _names_labs(self) -> Split:
        if (self.kind == "lab") != bool(self.test_labs):
            raise ValueError("test_labs: goes with kind lab, which needs at least one")
        return self


class Features(Section):
    """What a model sees, frame by frame (`mabe_behavior.features.sets`)."""

    pair: Literal["pair", "raw28", "v4", "v6"] = Field("pair", description="set of an agent and a target")
    alone: Literal["auto", "alone", "none"] = Field(
        "auto",
        description="set of what one does alone; none: only what is done to others is learned; auto: alone, but with "
        "model.output softmax, which is about pairs, none",
    )
    fps: float = Field(30.0, ge=5, le=120, description="common rate: features linear, labels nearest")
    fill: float = Field(0.3, ge=0, description="seconds: shorter gaps in tracks are filled linearly")
    sure: float = Field(0.0, ge=0, lt=1, description="points of less confidence count as missing")
    workers: int | None = Field(None, ge=1, description="threads that compute; default: the cores")
