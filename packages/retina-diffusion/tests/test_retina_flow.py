"""Flow matching by its identities, solvers by closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retina_diffusion import flow, guidance, solvers, times
from retina_diffusion.guidance import Guidance


def ends(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(4, 3, 5, 5, generator=made, dtype=torch.float64) for _ in range(2))  # type: ignore[return-value]


@settings(deadline=None)
@given(st.floats(0, 0.9), st.integers(0, 99))
def test_x_and_velocity_say_the_same(t: float, seed: int) -> None:
    x0, x1 = ends(seed)
    t_B = torch.full((4,), t, dtype=torch.float64)
    xt, v = flow.at(x0, x1, t_B), flow.velocity(x0, x1)
    torch.testing.assert_close(flow.x_of_velocity(v, xt, t_B), x1, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(flow.velocity_of_x(x1, xt, t_B), v, rtol=1e-6, atol=1e-6)


def test_the_path_has_its_ends_and_is_straight() -> None:
    x0, x1 = ends()
    zero, one = torch.zeros(4), torch.ones(4)
    assert torch.equal(flow.at(x0, x1, zero), x0) and torch.equal(flow.at(x0, x1, one), x1)
    middle = flow.at(x0, x1, one / 2)
    torch.testing.assert_close(middle, (x0 + x1) / 2)
    assert flow.velocity_of_x(x1, x1 + 1, one).abs().max().item() == pytest.approx(1 / flow.REST)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_solvers_have_their_order(method: solvers.Method, order: int) -> None:
    """dx/dt = -2 t x ends at exp(-1)."""
    errors = []
    for count in (20, 40):
        found = solvers.solve(lambda x, t: -2 * t * x, torch.ones(1, dtype=torch.float64), times.steps(count), method)
        errors.append(abs(found.x_B.item() - math.exp(-1)))
        assert found.evaluations == count * solvers.EVALUATIONS[method]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.1)


def test_the_adaptive_solver_keeps_its_tolerance() -> None:
    for rtol in (1e-4, 1e-8):
        found = solvers.solve(
            lambda x, t: -2 * t * x, torch.ones(1, dtype=torch.float64), times.steps(1), "dopri5", rtol, rtol / 10
        )
        assert found.x_B.item() == pytest.approx(math.exp(-1), rel=10 * rtol)


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun"])
def test_a_straight_path_takes_one_step(method: solvers.Method) -> None:
    x0, x1 = ends()
    found = solvers.solve(lambda x, t: x1 - x0, x0, times.steps(1), method)
    torch.testing.assert_close(found.x_B, x1)


@pytest.mark.parametrize(("method", "evaluations"), [("euler", 5), ("heun", 9), ("midpoint", 10)])
def test_a_network_that_says_where_the_path_ends_is_taken_at_its_word(method: solvers.Method, evaluations: int) -> None:
    """Nothing of the noise is left, though the velocity has no value at the end."""
    x0, x1 = ends()
    asked = []

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        asked.append(float(t))
        return flow.velocity_of_x(x1, x, t.expand(len(x)), rest=1e-4)

    found = solvers.solve(velocity, x0, times.steps(5), method, ends=False)
    torch.testing.assert_close(found.x_B, x1, atol=1e-6, rtol=1e-6)
    assert len(asked) == found.evaluations == evaluations and max(asked) < 1


def test_the_adaptive_solver_leaves_no_noise_either_and_asks_nothing_behind_the_end() -> None:
    x0, x1 = ends()
    asked = []

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        asked.append(float(t))
        return flow.velocity_of_x(x1, x, t.expand(len(x)), rest=1e-4)

    found = solvers.solve(velocity, x0, times.steps(5), "dopri5", ends=False)
    torch.testing.assert_close(found.x_B, x1, atol=1e-6, rtol=1e-6)
    assert len(asked) == found.evaluations and max(asked) == pytest.approx(1 - flow.REST)
    asked.clear()
    solvers.solve(lambda x, t: velocity(x, 0.9 * t), x0, times.steps(5), "dopri5")
    assert max(asked) <= 0.9 + 1e-6


def test_unknown_solvers_are_refused() -> None:
    with pytest.raises(ValueError, match="must be one of euler, midpoint, heun, dopri5"):
        solvers.solve(lambda x, t: x, torch.ones(1), times.steps(2), "ddim")  # type: ignore[arg-type]


@given(st.floats(0.1, 10))
def test_a_shift_keeps_ends_and_order_and_can_be_undone(shift: float) -> None:
    t = torch.linspace(0, 1, 50, dtype=torch.float64)
    moved = times.shifted(t, shift)
    assert moved[0] == 0 and moved[-1].item() == pytest.approx(1) and (moved.diff() > 0).all()
    torch.testing.assert_close(times.shifted(moved, 1 / shift), t)
    assert ((moved - t) * (shift - 1) >= -1e-12).all()


@settings(deadline=None)
@given(st.integers(2, 300), st.integers(0, 99))
def test_times_are_stratified(batch: int, seed: int) -> None:
    made = torch.Generator().manual_seed(seed)
    t = times.uniform(batch, made)
    assert sorted((t * batch).long().tolist()) == list(range(batch))
    assert not torch.equal(t, t.sort().values) or batch < 5


def test_logit_normal_times_are_the_sigmoid_of_normal_ones() -> None:
    t = times.logit_normal(10_000, 0.5, 0.8, torch.Generator().manual_seed(0))
    assert t.logit().mean().item() == pytest.approx(0.5, abs=0.01)
    assert t.logit().std().item() == pytest.approx(0.8, abs=0.01)


@given(st.floats(0, 8), st.floats(0, 8), st.floats(0, 1))
def test_guidance_is_the_sum_that_it_says(mask: float, text: float, t: float) -> None:
    wanted = Guidance(mask, text, 0.2, 0.8)
    v0, vm, vtm = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    said = {(False, False): v0, (True, False): vm, (True, True): vtm}
    found = guidance.combine(
        [(factor, said[mask_known, text_known]) for factor, mask_known, text_known in wanted.passes(t)]
    )
    m, w = wanted.weights(t)
    torch.testing.assert_close(found, v0 + m * (vm - v0) + w * (vtm - vm))
    if not 0.2 <= t <= 0.8:
        assert torch.equal(found, vtm)


def test_without_guidance_the_network_is_asked_once() -> None:
    assert Guidance().passes(0.5) == ((1.0, True, True),)
    assert len(Guidance(mask=1.0, text=3.0).passes(0.5)) == 2 and len(Guidance(2.0, 3.0).passes(0.5)) == 3
