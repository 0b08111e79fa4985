"""Optimizers, parameter groups and learning-rate schedules, counted in optimizer steps."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from shared_core import fsdp, settings

MOST_WARMUP = 0.25  # of all steps
NoDecay = Callable[[str, nn.Parameter], bool]


def build(
    wanted: settings.Optimizer, model: nn.Module, no_decay: NoDecay = lambda _, p: p.ndim < 2
) -> list[torch.optim.Optimizer]:
    """The optimizers of a model: AdamW, or Muon for its hidden matrices and AdamW for the rest.

    Every parameter that wants a gradient is in exactly one group. Each group remembers its peak learning rate as
    `initial_lr`, which the schedule scales.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [(name, p) for name, p in named if wanted.name == "muon" and is_hidden_matrix(name, p)]
    in_muon = {id(p) for _, p in matrices}
    rest = [(name, p) for name, p in named if id(p) not in in_muon]
    groups = [
        {"params": [p for name, p in rest if not no_decay(name, p)], "weight_decay": wanted.weight_decay},
        {"params": [p for name, p in rest if no_decay(name, p)], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = []
    if rest:
        present = [group for group in groups if group["params"]]
        optimizers.append(
            torch.optim.AdamW(present, lr=wanted.lr, betas=wanted.betas, eps=wanted.eps, fused=can_fuse(rest))
        )
    if matrices:
        parameters = [p for _, p in matrices]
        optimizers.append(
            Muon(parameters, lr=wanted.muon_lr, momentum=wanted.momentum, weight_decay=wanted.weight_decay)
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def can_fuse(named: Iterable[tuple[str, nn.Parameter]]) -> bool:
    return all(p.is_floating_point() and p.device.type in ("cpu", "cuda", "mps") for _, p in named)


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Muon is meant for hidden layers: matrices and kernels that are neither embeddings nor the output layer."""
    return parameter.ndim >= 2 and not any(word in name for word in ("embed", "head", "stem"))


def warnings(wanted: settings.Scheduler, total_steps: int) -> list[str]:
    """What is odd about a schedule for so many steps: one that hardly gets beyond its warm-up."""
    if wanted.warmup_steps <= MOST_WARMUP * total_steps:
        return []
    return [
        f"scheduler.warmup_steps: {wanted.warmup_steps:,} of {total_steps:,} steps are warm-up, which leaves few at "
        "the learning rate that was asked for; lower it, or train longer"
    ]


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by a Newton-Schulz iteration (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

    PyTorch's own takes matrices only; this one also takes convolution kernels, as (out, in * height * width) matrices.
    Like PyTorch's fused optimizers it leaves everything unchanged where the tensor `found_inf` is 1, without asking
    the device.
    """

    def __init__(self, params: Iterable[nn.Parameter], *, lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.found_inf: torch.Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                self._update(parameter, parameter.grad, state["momentum_buffer"], group)

    def _update(
        self, parameter: nn.Parameter, gradient: torch.Tensor, buffer: torch.Tensor, group: dict[str, Any]
    ) -> None:
        """Every tensor may be sharded: all arithmetic but the iteration, which needs the whole matrix, is on parts."""
        own, gradient, buffer = fsdp.local(parameter), fsdp.local(gradient), fsdp.local(buffer)
        momentum, bad = group["momentum"], self.found_inf
        keep: torch.Tensor | float = 1.0
        if bad is not None:
            gradient = torch.where(bad > 0, 0.0, gradient)
            keep = 1.0 - bad
        # lerp by keep * (1 - momentum): a skipped step leaves the buffer as it was
        buffer.lerp_(gradient, keep * torch.full((), 1 - momentum, device=buffer.device))
        matrix = fsdp.together(gradient.lerp(buffer, momentum), like=parameter)
        update = fsdp.local_part(orthogonalise(matrix.flatten(1)).view_as(matrix), like=parameter)
        rows, columns = matrix.shape[0], matrix[0].numel()
        scale = max(1.0, rows / columns) ** 0.5
        own.mul_(1 - group["lr"] * group["weight_decay"] * keep)
        own.sub_(update * (group["lr"] * scale * keep))


def orthogonalise(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest semi-orthogonal matrix, roughly (singular values end in about 0.7 .. 1.2); quintic Newton-Schulz."""
    x = matrix.bfloat16() if matrix.device.type == "cuda" else matrix.float()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.T if tall else x).to(matrix.dtype)


class Schedule:
    """Learning rate as a function of the optimizer step.

    cosine, linear: warm-up from 0, then down to `min_lr` at the last step. one_cycle: up over 30 % of the steps and
    down again (Smith & Topin 2017). plateau: warm-up, then `factor` times less after `patience` evaluations
    without progress. Only plateau has state.
    """

    def __init__(self, wanted: settings.Scheduler, total_steps: int) -> None:
        self.wanted, self.total = wanted, max(1, total_steps)
        self.reduction, self.best, self.waited = 1.0, -math.inf, 0

    def factor(self, step: int) -> float:
        """Multiplier of the peak learning rate for optimizer step `step` (0-based), without the floor `min_lr`."""
        warmup = min(self.wanted.warmup_steps, self.total)
        if self.wanted.name == "one_cycle":
            warmup = max(warmup, round(0.3 * self.total))
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, self.total - warmup))
        match self.wanted.name:
            case "cosine" | "one_cycle":
                return 0.5 * (1 + math.cos(math.pi * done))
            case "linear":
                return 1 - done
            case "plateau":
                return self.reduction
            case _:
                return 1.0

    def apply(self, optimizers: Iterable[torch.optim.Optimizer], step: int) -> float:
        """Set every group's learning rate for this step; returns the first group's."""
        factor, rates = self.factor(step), []
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                floor = min(self.wanted.min_lr, group["initial_lr"])
                if step < self.wanted.warmup_steps or self.wanted.name == "constant":
                    floor = 0.0
                if self.wanted.name == "plateau":
                    group["lr"] = max(floor, factor * group["initial_lr"])
                else:
                    group["lr"] = floor + factor * (group["initial_lr"] - floor)
                rates.append(group["lr"])
        return float(rates[0])

    def on_evaluation(self, progress: float) -> None:
        """Tell plateau how an evaluation went; `progress` is better when larger."""
        if progress > self.best:
            self.best, self.waited = progress, 0
            return
        self.waited += 1
        if self.waited > self.wanted.patience:
            self.reduction, self.waited = self.reduction * self.wanted.factor, 0

    def state_dict(self) -> dict[str, float]:
        best = self.best if math.isfinite(self.best) else -1e308  # JSON has no infinity
        return {"reduction": self.reduction, "best": best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.reduction, self.best, self.waited = state["reduction"], state["best"], int(state["waited"])
