"""Several models that learn together in one process, each as it would alone.

Each has its own seed, initialisation, stream of pairs, loss and clipping; they share the source images, the schedule
and the clock. No gradient passes from one to another.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pair_compare_stacking import batched
from pair_compare_stacking.config import Config
from pair_compare_stacking.model import PairModel, Prediction
from pair_compare_stacking.train import Material, PairTask
from shared_core.batches import SideBySide
from shared_core.runtime import Runtime
from shared_core.task import Task


class Members(nn.Module):
    """Models side by side: a batch for each -> a prediction of each.

    Args:
        in_batches: models of one architecture share a call (`batched`), instead of taking turns.
    """

    def __init__(self, models: Sequence[PairModel], in_batches: bool = False) -> None:
        super().__init__()
        self.members = nn.ModuleList(models)
        places = batched.groups(models) if in_batches else []
        self.groups = [group for group in places if len(group) > 1]

    def forward(self, x: list[torch.Tensor]) -> list[Prediction]:
        """`x`: float (B, 2, 28, 28) in 0..1, for each model."""
        found: dict[int, Prediction] = {}
        for group in self.groups:
            together = batched.call([self.members[i] for i in group], torch.stack([x[i] for i in group]))
            found |= {i: Prediction(*parts) for i, parts in zip(group, zip(*together, strict=True), strict=True)}
        return [found[i] if i in found else model(x[i]) for i, model in enumerate(self.members)]


class MembersTask(Task):
    """Trains every model of a configuration with several; "best" is what is best on average.

    Those that are trained without a fold (`folds`) only serve to fit stackers: they are not evaluated.
    """

    monitor = "val/accuracy"
    maximize = True

    def __init__(self, config: Config, runtime: Runtime) -> None:
        self.material = Material.load(config, runtime)
        # sorted: a checkpoint knows models by their place, and the same configuration may list them in another order
        singles = sorted(config.singles().items())
        self.tasks = {name: PairTask(single, runtime, self.material) for name, single in singles}
        self.evaluated = list(config.bases())
        self.model = Members([task.model for task in self.tasks.values()], config.together == "batched")  # type: ignore[misc]
        self.batches = SideBySide([task.batches for task in self.tasks.values()])

    def independent(self, model: nn.Module) -> Sequence[nn.Module]:
        return list(model.members)  # type: ignore[arg-type]

    def loss(self, model: nn.Module, batch: list[dict[str, Any]]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The sum, so that each model gets the gradient that it would get alone."""
        predictions = model([part["x"] for part in batch])
        total, logs = torch.zeros((), device=batch[0]["x"].device), {}
        accuracies = []
        for (name, task), prediction, part in zip(self.tasks.items(), predictions, batch, strict=True):
            loss, parts = task.loss_of(prediction, part)
            total = total + loss
            accuracies.append(parts["accuracy"])
            if name in self.evaluated:
                logs[f"{name}/loss"] = loss
        return total, {"accuracy": torch.stack(accuracies).mean(), **logs}

    def made_from(self) -> dict[str, dict[str, str]]:
        return {key: about for task in self.tasks.values() for key, about in task.made_from().items()}

    def warnings(self) -> list[str]:
        return self.material.warnings()

    def leave_out_missing(self) -> list[str]:
        return self.material.leave_out_missing()

    def evaluate(self, model: nn.Module, runtime: Runtime) -> dict[str, float]:
        found: dict[str, float] = {}
        for (name, task), member in zip(self.tasks.items(), model.members, strict=True):  # type: ignore[arg-type]
            if name in self.evaluated:
                metrics = task.evaluate(member, runtime)
                found |= {f"val/{name}/{key.removeprefix('val/')}": value for key, value in metrics.items()}
        of_all = [found[f"val/{name}/accuracy"] for name in self.evaluated]
        return {"val/accuracy": sum(of_all) / len(of_all), **found}
