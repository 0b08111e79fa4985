"""The settings of the section `decision`: when a prefix is long enough for an answer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shared_core.settings import Section


class Decision(Section):
    """The stopping rule (`timeseries_dualmodal.stopping`), fitted on the validation split."""

    rule: Literal["cost", "confidence"] = Field(
        "cost",
        description="cost: answer once waiting is expected to cost more than it gains; confidence: answer once the "
        "probability of the answer is high enough and the answer has stayed the same",
    )
    delay_cost: float = Field(
        0.2,
        gt=0,
        le=100,
        description="cost of waiting through all steps, in wrong answers: at 0.2 an answer after half of the steps and "
        "one right answer in ten more are worth the same",
    )
    hold: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of the accuracy after the last length that must be kept; the earliest such rule is taken, "
        "and delay_cost is without effect. null: the lowest cost",
    )
    agreement: int = Field(2, ge=1, le=100, description="confidence: lengths in a row that must give the same answer")
