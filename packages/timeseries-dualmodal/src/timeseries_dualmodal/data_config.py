"""The settings of the sections `data` and `split`: which series, and which of them train, choose and judge."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import Field

from shared_core.settings import Section

Name = Annotated[str, Field(min_length=1)]


class Data(Section):
    """Series (`timeseries_dualmodal.prepare`)."""

    source: str = Field(
        "sample",
        min_length=1,
        description="sample (generated crop seasons, needs nothing), a file (.csv, .parquet, .npz), or "
        "hub:OWNER/NAME[@REVISION]",
    )
    layout: Literal["auto", "time_major", "variable_major", "wide", "long"] = Field(
        "auto",
        description="of a table: time_major (by position: all variables of step 0, then of step 1, ..., the label "
        "last), variable_major (all steps of variable 0 first), wide (columns VARIABLE_TIME), long (a row per series "
        "and time)",
    )
    name: str | None = Field(
        None, description="folder of the prepared set; default: the source's", pattern=r"^\w[\w.\-]*$"
    )
    variables: tuple[Name, ...] = Field(
        (), description="names of the variables; of wide, long and .npz sources also which of them to keep"
    )
    label: str | None = Field(None, description="column of the class; default: label, class, or by position the last")
    id: str | None = Field(None, description="column of the series' names; default: id or sample_id, else row numbers")
    groups: tuple[Name, ...] = Field((), description="columns that say where a series comes from, such as region, year")
    time: str | None = Field(None, description="long: column of the time (a number or a date); default: time or date")
    classes: tuple[Name, ...] = Field((), description="classes to keep, in this order; default: all, sorted")
    drop_classes: tuple[Name, ...] = Field((), description="classes to leave out")
    first_time: float | None = Field(
        None, description="time of step 0 where the source has no times; default: 0, of the predecessor's CSV 1"
    )
    step_time: float | None = Field(
        None, gt=0, description="time between steps (days, say), as above; default: 1, of the predecessor's CSV 10"
    )
    sample_size: int = Field(2_000, ge=50, description="series that source sample generates")
    sample_seed: int = Field(0, ge=0, lt=2**31, description="seed of source sample")

    @property
    def folder(self) -> str:
        """Name of the prepared set's folder."""
        if self.name is not None:
            return self.name
        on_the_hub = self.source.startswith("hub:")
        source = self.source.removeprefix("hub:").partition("@")[0] if on_the_hub else PurePath(self.source).stem
        return re.sub(r"[^\w.\-]", "-", source).lstrip(".-") or "series"

    def sample(self) -> Data:
        """The generated crop seasons; this section, where it says so already."""
        if self.source == "sample":
            return self
        values: dict[str, Any] = {"sample_size": self.sample_size, "sample_seed": self.sample_seed}
        return Data.model_validate(values)


class Split(Section):
    """Which series train, choose and judge (`timeseries_dualmodal.division`)."""

    kind: Literal["random", "grouped"] = Field(
        "random", description="random: stratified by class; grouped: no group of the column `by` is in two splits"
    )
    by: str | None = Field(None, description="grouped: one of data.groups")
    hold_out: tuple[Name, ...] = Field(
        (),
        description="COLUMN=VALUE of data.groups, such as region=Fergana: the series with any of these values are the "
        "test split",
    )
    test: float = Field(0.2, gt=0, lt=0.9, description="share of the test split; without effect beside hold_out")
    val: float = Field(0.1, gt=0, lt=0.9, description="share of the validation split in what the test split leaves")
    seed: int = Field(42, ge=0, lt=2**31, description="decides which series go where")
