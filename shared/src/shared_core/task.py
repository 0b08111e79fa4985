"""What a package gives the trainer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from shared_core.batches import Batches
    from shared_core.runtime import Runtime


class Task(ABC):
    """One training problem: a model, its batches, a loss and an evaluation.

    The trainer owns everything else (optimizer, schedule, precision, processes, checkpoints, records).
    """

    model: nn.Module
    batches: Batches
    monitor: str = "val/loss"  # the metric of `evaluate` that decides "best" and early stopping
    maximize: bool = False
    splittable: bool = True  # False where the loss is no mean over samples (contrastive losses)

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean loss of a batch (scalar), and scalars to log. `model` is the prepared one: call it, not `self.model`."""

    @abstractmethod
    def evaluate(self, model: nn.Module, runtime: Runtime) -> dict[str, float]:
        """Metrics of `model` (already in eval mode, averaged weights where there are any), the same on every process.

        Each process scores its share and gathers: `runtime.gather`."""

    def independent(self, model: nn.Module) -> Sequence[nn.Module]:
        """The parts of `model` (the plain one) that learn independently; each gradient is clipped by its own norm."""
        return (model,)

    @property
    def is_of_several(self) -> bool:
        """Whether the parts that learn independently are models of their own, which a finished run keeps one by one."""
        return any(part is not self.model for part in self.independent(self.model))

    def made_from(self) -> dict[str, dict[str, str]]:
        """What training takes in besides data and initial weights, such as a teacher: setting -> path, sha256.

        For run.json; a run goes on only with the same. Asked when training starts, before there is a run.
        """
        return {}

    def samples(self, model: nn.Module, runtime: Runtime) -> dict[str, torch.Tensor]:
        """Pictures of what the model can do by now, by name: (height, width, 3) uint8. For models that draw.

        Asked after an evaluation, in the same way, and of the main process alone."""
        return {}

    def warnings(self) -> list[str]:
        """What the run's owner should know about what it learns from; for train.log and the report."""
        return []

    def leave_out_missing(self) -> list[str]:
        """Called before a plan is made, on a task of its own: do without what is not there yet, such as a teacher that
        is still to be trained. What the plan should say about it, one line each."""
        return []

    def plan_notes(self) -> list[str]:
        """What a plan should say besides the costs of training, such as the disk of what could be made ready for it,
        one line each."""
        return []

    def no_decay(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether a parameter is exempt from weight decay: by default vectors and scalars."""
        return parameter.ndim < 2
