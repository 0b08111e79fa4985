"""The settings of the sections `data` and `split`: which photographs, how large, and which of them train and judge."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any, Literal

from pydantic import Field, model_validator

from retina_diffusion.channels import Channel
from shared_core.settings import Section, resumable

Layout = Literal["auto", "idrid", "jsonl", "pairs", "table"]


class Data(Section):
    """Photographs with masks and texts (`retina_diffusion.prepare`)."""

    source: str = Field(
        "sample",
        min_length=1,
        description="sample (drawn photographs, needs nothing), IDRiD's folder, a .jsonl or .json list, a folder of "
        ".jsonl lists, with images/ and masks/ or with tables, or hub:OWNER/NAME[@REVISION], a data set with one of "
        "these",
    )
    layout: Layout = Field(
        "auto", description="of a folder; auto: what is in it; table: Parquet, and whatever `datasets` reads"
    )
    part: Literal["all", "segmentation", "grading"] = Field(
        "all", description="idrid: with masks, with grades, or both"
    )
    name: str | None = Field(
        None, description="folder of the prepared set; default: source and size", pattern=r"^\w[\w.\-]*$"
    )
    size: int = Field(64, ge=8, le=4096, description="pixels of a side; of other aspects the square root of the area")
    aspect: Literal["square", "native"] = Field(
        "square",
        description="square: the field of view, cut out and padded to a square; native: each its own aspect ratio",
    )
    multiple: int = Field(
        16, ge=1, description="native: sides are multiples of so many pixels; a multiple of model.patch"
    )
    mask_values: tuple[Channel, ...] = Field(
        (), description="classes of the pixel values 1, 2, ... of a mask file that holds several; one: any value"
    )
    sample_size: int = Field(1_200, ge=20, description="photographs that source sample draws")
    sample_seed: int = Field(0, ge=0, lt=2**31, description="seed of source sample")
    sample_ratio: float = Field(
        1.0, gt=0, le=1, description="share of the training photographs that is used, equally of all grades"
    )
    num_workers: int = resumable(
        0, ge=0, description="processes that read photographs for training; 0: training itself"
    )
    train_data_path: str | None = Field(None, description="source of the training photographs alone, instead of source")
    val_data_path: str | None = Field(None, description="beside train_data_path: source of the validation photographs")

    @model_validator(mode="after")
    def _whole(self) -> Data:
        if self.val_data_path is not None and self.train_data_path is None:
            raise ValueError("val_data_path: goes with train_data_path; give both, or data.source")
        if self.aspect == "native" and self.size % self.multiple:
            raise ValueError(f"multiple: size {self.size} must be a multiple of it ({self.multiple})")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """All of them."""
        given = tuple(path for path in (self.train_data_path, self.val_data_path) if path is not None)
        return given or (self.source,)

    @property
    def folder(self) -> str:
        """Name of the prepared set's folder."""
        if self.name is not None:
            return self.name
        source = self.sources[0].removeprefix("hub:").partition("@")[0]
        path = PurePath(source)
        # lists have names such as train.jsonl: their folder tells them apart
        stem = f"{path.parent.name}-{path.stem}" if path.suffix == ".jsonl" else path.name
        stem = re.sub(r"[^\w.\-]", "-", source if self.source.startswith("hub:") else stem).lstrip(".-")
        return f"{stem or 'photographs'}-{self.size}{'' if self.aspect == 'square' else '-native'}"

    def sample(self) -> Data:
        """The drawn photographs; this section, where it says so already."""
        if self.sources == ("sample",):
            return self
        kept: dict[str, Any] = self.model_dump(exclude={"source", "layout", "part", "name", "train_data_path",
                                                        "val_data_path"})  # fmt: skip
        return Data.model_validate(kept)


class Split(Section):
    """Which photographs train, choose and judge (`retina_diffusion.division`)."""

    official: bool = Field(True, description="keep the source's own test split, where it has one")
    test: float = Field(0.15, gt=0, lt=0.9, description="share of the test split, where the source has none")
    val: float = Field(0.1, gt=0, lt=0.9, description="share of the validation split in what the test split leaves")
    seed: int = Field(42, ge=0, lt=2**31, description="decides which photographs go where")
