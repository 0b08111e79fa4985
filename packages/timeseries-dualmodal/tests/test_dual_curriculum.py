"""How long the prefixes are that training shows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from timeseries_dualmodal import curriculum
from timeseries_dualmodal.__main__ import APP
from timeseries_dualmodal.model_config import Curriculum, Stage


@pytest.mark.parametrize(
    ("epoch", "bounds"), [(1, (26, 37)), (20, (26, 37)), (21, (20, 37)), (40, (20, 37)), (41, (7, 37)), (100, (7, 37))]
)
def test_the_guides_stages(epoch: int, bounds: tuple[int, int]) -> None:
    """Epochs 1-20: 70-100 %, 21-40: 55-100 %, 41+: 20-100 % of 37 steps; the guide counts epochs from 1."""
    stage = curriculum.stage_of(APP.load("guide").curriculum, epoch - 1)
    assert curriculum.bounds(stage, 37) == bounds


@given(
    ratios=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    steps=st.integers(1, 60),
    batch=st.integers(1, 40),
    prefixes=st.integers(1, 8),
)
def test_lengths_stay_in_the_range(ratios: list[float], steps: int, batch: int, prefixes: int) -> None:
    stage = Stage(shortest=ratios[0], longest=ratios[1])
    length_BK = curriculum.draw(stage, steps, batch, prefixes)
    shortest, longest = curriculum.bounds(stage, steps)
    assert length_BK.shape == (batch, prefixes)
    assert 1 <= shortest <= length_BK.min() <= length_BK.max() <= longest <= steps


def test_every_length_is_equally_likely_and_each_series_gets_short_and_long_ones() -> None:
    torch.manual_seed(0)
    length_BK = torch.cat([curriculum.draw(Stage(), 20, 64, 4) for _ in range(100)])
    counts = length_BK.flatten().bincount(minlength=21)[1:]
    assert counts.float().std() / counts.float().mean() < 0.05
    # the k-th prefix comes from the k-th quarter of the season, and not always from the same place in it
    assert ((length_BK - 1) // 5 == torch.arange(4)).all()
    assert all(length_BK[:, k].unique().numel() == 5 for k in range(4))


def test_stages_must_follow_each_other() -> None:
    with pytest.raises(ValidationError, match="last one must go on to the end"):
        Curriculum(stages=(Stage(until=5),))
    with pytest.raises(ValidationError, match="later than that of the one before"):
        Curriculum(stages=(Stage(until=5), Stage(until=5), Stage()))
    with pytest.raises(ValidationError, match="swap them"):
        Stage(shortest=0.5, longest=0.2)


def test_the_default_shows_every_length_from_the_first_epoch_on() -> None:
    assert curriculum.bounds(curriculum.stage_of(Curriculum(), 0), 37) == (1, 37)
    assert curriculum.shortest(Curriculum(), 37, 10) == 1
    assert curriculum.shortest(APP.load("guide").curriculum, 37, 40) == 20
