"""The settings of the section `pictures`: how a series is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from shared_core.settings import Section, resumable

# after how many steps a cache shows the series, unless it is told otherwise
SCALES: tuple[int, ...] = (3, 6, 9, 12, 15, 18)
QUICK: tuple[int, ...] = (6, 12, 18)
FULL: tuple[int, ...] = (3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 37)


class Pictures(Section):
    """Line plots, one per variable (`timeseries_dualmodal.plots`)."""

    size: int = Field(64, ge=8, le=1024, description="width and height, in pixels")
    line_width: float = Field(1.5, gt=0, le=64, description="in pixels")
    marker: float = Field(0.0, ge=0, le=64, description="diameter of the dot at each value, in pixels; 0: none")
    axes: Literal["fixed", "autoscale"] = Field(
        "fixed",
        description="fixed: x spans all steps, y the training values of the variable; autoscale: each picture its own "
        "values, as the predecessor drew (it loses amplitude and how much time has passed)",
    )
    tail: float = Field(
        0.005, ge=0, lt=0.5, description="fixed: share of the training values below and above the y axis"
    )
    margin: float = Field(0.05, ge=0, lt=0.5, description="empty share of the picture on each side")
    gaps: Literal["bridge", "break"] = Field(
        "bridge", description="missing values: the line goes on to the next value, or breaks"
    )
    cache: Path | None = resumable(
        None, description="folder of drawn pictures that `prepare --images` made; default: drawn when needed"
    )
    beyond: Literal["render", "refuse"] = resumable(
        "render", description="prefixes longer than the largest scale of the cache"
    )

    embeddings: Path | None = resumable(
        None,
        description="folder of what a frozen Hub model sees in the pictures, that `prepare --embeddings` made; "
        "default: it looks again each time",
    )

    @property
    def look(self) -> dict[str, Any]:
        """What `plots.Plots` is told besides the axes; all that shapes a picture of given axes."""
        return {
            "size": self.size,
            "line_width": self.line_width,
            "marker": self.marker,
            "scaling": self.axes,
            "margin": self.margin,
            "gaps": self.gaps,
        }
