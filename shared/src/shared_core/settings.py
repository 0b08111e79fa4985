"""The configuration sections that every package shares.

A package's configuration is ``class Config(RunConfig)`` with its own ``data`` and ``model`` sections. The
sections say *what* is wanted; the modules named in each docstring do it.
"""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A frozen group of settings; unknown keys and values out of bounds are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())


def resumable(default: Any, **constraints: Any) -> Any:
    """A field that may change when a run is resumed (epochs, workers, logging, paths)."""
    return Field(default, json_schema_extra={"resumable": True}, **constraints)


class Paths(Section):
    """Where data and runs live."""

    data: Path = resumable(Path("data"), description="folder of prepared data sets")
    runs: Path = resumable(Path("runs"), description="folder of run directories")


class Training(Section):
    """The loop (`shared_core.trainer`)."""

    epochs: int | None = resumable(10, ge=1, description="passes over the training data; null: as many as `steps` take")
    steps: int | None = resumable(
        None,
        ge=1,
        description="optimizer steps; training ends there where its epochs would last longer",
    )
    batch_size: int = Field(64, ge=1, description="samples per process and forward pass")
    accumulation: int = Field(1, ge=1, description="forward passes per optimizer step")
    micro_batch: int | None = Field(
        None, ge=1, description="split each forward pass into pieces of this size; default: as much as fits"
    )
    clip_norm: float | None = Field(1.0, gt=0, description="largest global gradient norm; null: no clipping")
    ema_decay: float | None = Field(None, gt=0, lt=1, description="decay of the averaged weights; null: none")
    eval_every: int = resumable(1, ge=1, description="epochs between evaluations")
    eval_steps: int | None = resumable(
        None,
        ge=1,
        description="optimizer steps between evaluations, each with a checkpoint, instead of eval_every and "
        "checkpoint_every; for a training that is counted in steps, whatever an epoch is",
    )
    patience: int | None = resumable(None, ge=1, description="evaluations without progress before stopping")
    max_skipped_steps: int = Field(
        0, ge=0, description="optimizer steps that may be skipped for a non-finite gradient before the run stops"
    )
    init_from: str | None = Field(
        None,
        min_length=1,
        description="weights to begin with: a run's name or folder, a checkpoint, a .safetensors file, or "
        "OWNER/NAME@REVISION",
    )
    dry_run: bool = resumable(True, description="one forward and backward pass before the first step")
    resume: str = resumable("auto", description="auto, never, or the path of a checkpoint")
    checkpoint_every: int = resumable(1, ge=1, description="epochs between checkpoints")
    checkpoint_minutes: float | None = resumable(
        10.0, gt=0, description="most minutes between checkpoints; null: only at epochs and evaluations"
    )
    keep_checkpoints: int = resumable(2, ge=2, description="newest checkpoints kept, besides the best")
    keep_every_epochs: int | None = resumable(None, ge=1, description="every n-th epoch's checkpoint is kept for good")

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.epochs is None and self.steps is None:
            raise ValueError("epochs: null needs steps, or training never ends; give one of them")
        return self

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps of the whole training: those of its epochs, or fewer."""
        limits = (None if self.epochs is None else self.epochs * steps_per_epoch, self.steps)
        return min(limit for limit in limits if limit is not None)

    def total_epochs(self, steps_per_epoch: int) -> int:
        """Epochs of the whole training; the last one counts where it is only begun."""
        return -(-self.total_steps(steps_per_epoch) // steps_per_epoch)


class Optimizer(Section):
    """Optimizer and parameter groups (`shared_core.optim`)."""

    name: Literal["adamw", "muon"] = "adamw"
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    weight_decay: float = Field(5e-4, ge=0, description="decoupled; not applied to biases and norms")
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    muon_lr: float = Field(0.02, gt=0, description="learning rate of the matrices under Muon")
    momentum: float = Field(0.95, ge=0, lt=1, description="Muon's Nesterov momentum")


class Scheduler(Section):
    """Learning-rate schedule, counted in optimizer steps (`shared_core.optim`)."""

    name: Literal["cosine", "linear", "constant", "plateau", "one_cycle"] = "cosine"
    warmup_steps: int = Field(0, ge=0, description="linear warm-up, in optimizer steps")
    min_lr: float = Field(0.0, ge=0, description="learning rate at the end of cosine, linear and plateau")
    factor: float = Field(0.5, gt=0, lt=1, description="plateau: multiplier after too little progress")
    patience: int = Field(3, ge=0, description="plateau: evaluations without progress before a reduction")


class Runtime(Section):
    """Device, precision and compilation (`shared_core.runtime`)."""

    device: Literal["auto", "cpu", "cuda", "mps"] = resumable("auto")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where the device computes in it, else fp32"
    )
    fsdp: bool = Field(False, description="split weights, gradients and optimizer states over the processes")
    compile: bool = Field(False, description="torch.compile the model")
    gradient_checkpointing: bool = Field(False, description="recompute activations instead of storing them")
    deterministic: bool = Field(False, description="refuse non-deterministic kernels")
    threads: int | None = resumable(None, ge=1, description="CPU threads per process; default: all cores shared out")


class Logging(Section):
    """What a run writes down as it goes (`shared_core.records`)."""

    every: int = resumable(20, ge=1, description="optimizer steps between log rows")
    tracker: Literal["tensorboard", "wandb", "trackio", "none"] = resumable("tensorboard")
    profile: bool = resumable(False, description="trace a few steps with torch.profiler")
    progress: bool = resumable(True, description="progress bar with time remaining")


class Hub(Section):
    """Publishing while training (`shared_core.publisher`): in the background, and never at the training's expense."""

    repo: str | None = resumable(
        None, description="OWNER/NAME that `train` publishes to; null: none", pattern=r"^[\w\-.]+/[\w\-.]+$"
    )
    private: bool = resumable(True, description="create the repository as a private one")
    every_epochs: int | None = resumable(
        None, ge=1, description="publish the checkpoint of every n-th epoch; null: each new best"
    )
    wait_minutes: float = resumable(
        10.0, ge=0, description="most minutes that the end of a run waits for the last upload"
    )


class RunConfig(Section):
    """Root of every package's configuration; a package adds ``data`` and ``model``."""

    name: str | None = resumable(None, description="name of the run; default: the preset's", pattern=r"^\w[\w.\-]*$")
    seed: int = Field(0, ge=0, lt=2**32, description="seeds initialisation, data order and augmentation")
    paths: Paths = Paths()
    training: Training = Training()
    optimizer: Optimizer = Optimizer()
    scheduler: Scheduler = Scheduler()
    runtime: Runtime = Runtime()
    logging: Logging = Logging()
    hub: Hub = Hub()
