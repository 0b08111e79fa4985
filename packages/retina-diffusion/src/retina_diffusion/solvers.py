"""Solvers of dx/dt = v(x, t), from t = 0 to t = 1.

Shapes: B images; K + 1 times.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch

from retina_diffusion import flow

Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of x_B at a time (a scalar tensor)
Method = Literal["euler", "midpoint", "heun", "dopri5"]
EVALUATIONS = {"euler": 1, "midpoint": 2, "heun": 2}  # of the velocity in each step


class Solved(NamedTuple):
    """Where a path ends, and what it took."""

    x_B: torch.Tensor
    evaluations: int


def solve(
    velocity: Velocity,
    x_B: torch.Tensor,
    times_K: torch.Tensor,
    method: Method,
    rtol: float = 1e-3,
    atol: float = 1e-5,
    ends: bool = True,
) -> Solved:
    """Follow a velocity along ascending times.

    Args:
        ends: False where there is no velocity at the last time, as of a network that says where the path ends: the last
            step of `heun` is Euler's then, and leads there (Karras et al. 2022, NeurIPS, algorithm 1). So does that of
            `dopri5`, from `flow.REST` before the end.
        times_K: of `euler` (order 1), `midpoint` and `heun` (order 2) the times of the steps; `dopri5` takes the steps
            that its tolerances want, by torchdiffeq.

    Raises ValueError for an unknown method, or fewer than two times.
    """
    if len(times_K) < 2:
        raise ValueError("a path needs two times")
    if method == "dopri5":
        return _adaptive(velocity, x_B, times_K, rtol, atol, ends)
    if method not in EVALUATIONS:
        raise ValueError(f"method {method!r}: must be one of {', '.join((*EVALUATIONS, 'dopri5'))}")
    step = {"euler": _euler, "midpoint": _midpoint, "heun": _heun}[method]
    *pairs, last = itertools.pairwise(times_K)
    for now, then in pairs:
        x_B = step(velocity, x_B, now, then)
    short = method == "heun" and not ends
    x_B = (_euler if short else step)(velocity, x_B, *last)
    return Solved(x_B, EVALUATIONS[method] * (len(times_K) - 1) - short)


def _euler(velocity: Velocity, x_B: torch.Tensor, now: torch.Tensor, then: torch.Tensor) -> torch.Tensor:
    return x_B + float(then - now) * velocity(x_B, now)


def _midpoint(velocity: Velocity, x_B: torch.Tensor, now: torch.Tensor, then: torch.Tensor) -> torch.Tensor:
    middle_B = x_B + float(then - now) / 2 * velocity(x_B, now)
    return x_B + float(then - now) * velocity(middle_B, (now + then) / 2)


def _heun(velocity: Velocity, x_B: torch.Tensor, now: torch.Tensor, then: torch.Tensor) -> torch.Tensor:
    first_B = velocity(x_B, now)
    second_B = velocity(x_B + float(then - now) * first_B, then)
    return x_B + float(then - now) * (first_B + second_B) / 2


def _adaptive(
    velocity: Velocity, x_B: torch.Tensor, times_K: torch.Tensor, rtol: float, atol: float, ends: bool
) -> Solved:
    from torchdiffeq import odeint

    evaluations = 0

    def counted(t: torch.Tensor, x_B: torch.Tensor) -> torch.Tensor:
        nonlocal evaluations
        evaluations += 1
        return velocity(x_B, t)

    last = float(times_K[-1])
    span = torch.stack([times_K[0], times_K[-1] - (0 if ends else flow.REST)]).to(x_B)
    within = {"step_t": span[1:]}  # else a step may end behind the path, and ask for velocities there
    x_B = odeint(counted, x_B, span, rtol=rtol, atol=atol, method="dopri5", options=within)[-1]
    if not ends:
        x_B = x_B + (last - float(span[1])) * counted(span[1], x_B)
    return Solved(x_B, evaluations)
