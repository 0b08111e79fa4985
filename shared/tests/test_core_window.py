"""The numbers of a log row: means over its steps, without the skipped ones."""

import pytest
import torch

from shared_core.window import Window

GOOD, BAD = torch.tensor(0.0), torch.tensor(1.0)


@pytest.mark.parametrize("steps", [1, 7, Window.FOLD - 1, Window.FOLD, 2 * Window.FOLD + 3])
def test_means_over_all_steps_however_they_are_folded(steps: int) -> None:
    window = Window()
    for k in range(steps):
        window.add({"loss": torch.tensor(float(k)), "norm": torch.tensor(2.0)}, GOOD, samples=3)
    values, skipped = window.read()
    assert values["loss"] == pytest.approx((steps - 1) / 2)
    assert (values["norm"], skipped) == (2.0, 0)
    assert window.read() == ({}, 0)


def test_skipped_steps_are_counted_and_left_out() -> None:
    window = Window()
    for value, bad in ((1.0, GOOD), (torch.nan, BAD), (torch.inf, BAD), (3.0, GOOD)):
        window.add({"loss": torch.tensor(value)}, bad, samples=1)
    values, skipped = window.read()
    assert (values["loss"], skipped) == (2.0, 2)
    window.add({"loss": torch.tensor(torch.nan)}, BAD, samples=1)
    values, skipped = window.read()
    assert ("loss" in values, skipped) == (False, 1)


def test_value_is_the_one_of_its_step() -> None:
    """A task may log a parameter, which the next step changes in place."""
    window, temperature = Window(), torch.nn.Parameter(torch.tensor(1.0))
    for _ in range(3):
        window.add({"temperature": temperature}, GOOD, samples=1)
        with torch.no_grad():
            temperature += 1
    assert window.read()[0]["temperature"] == 2.0
