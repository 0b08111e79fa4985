"""Configuration of pair-compare, and the flags of its verbs. Imports nothing heavy: `--help` reads it."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from pair_compare_stacking.pairs_config import Data
from shared_core.runs import RunOptions
from shared_core.settings import RunConfig, Section


class Model(Section):
    """The single model (`pair_compare_stacking.model.PairModel`)."""

    widths: tuple[int, ...] = Field((48, 96, 192), min_length=1, description="channels per stage of the tower")
    layers: tuple[int, ...] = Field((1, 1, 1), min_length=1, description="residual blocks per stage")
    feat_dim: int = Field(256, ge=1, description="features per half")
    hidden: int = Field(128, ge=1, description="width of the learned part of the comparison")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the features")
    digit_weight: float = Field(1.0, ge=0, description="weight of the digit loss beside the comparison loss")


class Stream(Section):
    """The endless stream of freshly degraded training pairs."""

    pairs_per_epoch: int = Field(50_000, ge=1, description="pairs drawn per epoch, over all processes")


class Config(RunConfig):
    """One run of pair-compare."""

    data: Data = Data()
    stream: Stream = Stream()
    model: Model = Model()


class PrepareOptions(Section):
    """Flags of `prepare` beside the data section."""

    sample: bool = Field(False, description="the embedded default: scikit-learn's digits, small files")


class EvaluateOptions(RunOptions):
    """What to evaluate, and on what."""

    split: Literal["all", "val", "test_public", "test_disjoint"] = Field(
        "all", description="which of the prepared files"
    )
    baseline: bool = Field(True, description="fit the baseline on train.npz and show it beside")


class PredictOptions(RunOptions):
    """Which pairs, and where the answers go."""

    input: Path | None = Field(None, description=".npz with x and id; default: the prepared test_public.npz")
    out: Path | None = Field(None, description="answer file; default: predictions/pred_public.csv in the run's folder")
    check: Path | None = Field(None, description="do not predict: check this answer file against the ids of the input")
