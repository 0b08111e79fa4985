"""Configuration of pair-compare."""

from pydantic import Field
from shared_core.settings import RunConfig, Section

from pair_compare_stacking.pairs_config import Data


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
