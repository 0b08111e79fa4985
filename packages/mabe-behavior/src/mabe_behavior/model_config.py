"""The settings of the sections `model`, `trees`, `windows`, `loss` and `decision`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from shared_core.settings import Section, resumable

Width = Annotated[int, Field(ge=1)]


class Model(Section):
    """The networks (`mabe_behavior.model`): one of what is done to others, one of what is done alone."""

    type: Literal["conv_bilstm", "tcn", "conv_transformer"] = Field("tcn", description="the network over time")
    channels: tuple[Width, ...] = Field((64, 128, 256), min_length=1, description="conv_bilstm: of its convolutions")
    hidden: int = Field(256, ge=1, description="conv_bilstm: of its LSTM, in each direction")
    layers: int = Field(2, ge=1, description="conv_bilstm: of its LSTM")
    width: int = Field(64, ge=4, description="tcn, conv_transformer: channels")
    depth: int = Field(8, ge=1, description="tcn: convolutions of a stage; conv_transformer: blocks")
    stages: int = Field(1, ge=1, description="tcn: each refines what the one before says")
    heads: int = Field(4, ge=1, description="conv_transformer: of its attention")
    kernel: int = Field(15, ge=3, description="conv_transformer: frames of its convolutions; odd")
    columns: Literal["all", "now"] = Field(
        "all",
        description="which features networks look at: now leaves out statistics over time, which they can compute "
        "themselves; trees always see all",
    )
    dropout: float = Field(0.3, ge=0, lt=1)
    indicators: bool = Field(True, description="also tell the network which values are missing")
    lab_width: int = Field(8, ge=0, description="numbers that stand for a laboratory; 0: it is not told")
    lab_dropout: float = Field(0.3, ge=0, le=1, description="share of windows whose laboratory is not told in training")
    output: Literal["binary", "softmax"] = Field(
        "binary", description="each action for itself, or one of all actions and `other`"
    )

    def network(self) -> dict[str, Any]:
        """Arguments of `model.Behaviours`."""
        names = {
            "conv_bilstm": ("channels", "hidden", "layers"),
            "tcn": ("width", "depth", "stages"),
            "conv_transformer": ("width", "depth", "heads", "kernel"),
        }[self.type]
        also = ("dropout", "indicators", "lab_width", "lab_dropout")
        found = {"network": self.type} | {name: getattr(self, name) for name in (*names, *also)}
        return found | ({"exclusive": self.output == "softmax"} if self.type == "tcn" else {})


class Trees(Section):
    """Boosted trees on the same features (`mabe_behavior.boosting`)."""

    rounds: int = Field(80, ge=0, description="trees of each action; 0: none")
    leaves: int = Field(31, ge=2)
    learning_rate: float = Field(0.1, gt=0)
    min_leaf: int = Field(50, ge=1, description="frames of a leaf")
    l2: float = Field(1.0, ge=0)
    columns: float = Field(0.3, gt=0, le=1, description="share of the columns that each tree looks at")
    frames: int = Field(60_000, ge=1000, description="most frames that the trees of one action learn from")
    negatives: float = Field(4.0, gt=0, description="most frames without the action for each one with it")


class Windows(Section):
    """Pieces of recordings that the networks learn from (`mabe_behavior.examples`)."""

    length: int = Field(256, ge=8, description="frames of a window")
    balance: float = Field(
        0.5, ge=0, le=1, description="share of windows around a bout of an action drawn at random; others lie anywhere"
    )
    share: float = Field(1.0, gt=0, description="windows of an epoch for each that the recordings hold side by side")
    noise: float = Field(0.0, ge=0, description="standard deviation of noise on features, in their own deviations")
    jitter: int = Field(0, ge=0, description="most frames that a window is shifted, labels with it")
    mixup: float = Field(0.0, ge=0, description="alpha of mixup; 0: off")
    workers: int = resumable(0, ge=0, description="processes that load")


class Loss(Section):
    """What the networks learn (`mabe_behavior.objectives`)."""

    soft_f1: float = Field(0.3, ge=0, le=1, description="share of 1 - soft F1 in the loss")
    smoothing: float = Field(0.0, ge=0, lt=0.5, description="of labels")
    focal: float = Field(0.0, ge=0, description="binary: exponent of the focal loss; 0: none")
    class_weights: tuple[float, ...] = Field(
        (), description="softmax: of other and of each action, in the order of `actions`; none: all 1"
    )


class Decision(Section):
    """From probabilities to bouts (`mabe_behavior.tuning`)."""

    tune: bool = Field(True, description="tune on out-of-fold predictions; false: threshold 0.5 and nothing else")
    overlap: float = Field(0.5, ge=0, le=0.9, description="share of a window that the next one sees again")
