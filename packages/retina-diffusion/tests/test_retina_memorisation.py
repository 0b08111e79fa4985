"""Copies of training photographs are found, fresh ones are not."""

import numpy as np
import pytest
import torch

from retina_diffusion import memorisation, phantom


@pytest.fixture(scope="module")
def drawn() -> torch.Tensor:
    """Different photographs (150, 3, 48, 48)."""
    images = [torch.from_numpy(phantom.draw(48, seed).image) for seed in range(150)]
    return torch.stack(images).permute(0, 3, 1, 2) / 127.5 - 1


def disguised(images: torch.Tensor, how: str) -> torch.Tensor:
    match how:
        case "noise":
            return images + 0.08 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
        case "light":
            return 0.9 * images - 0.02
        case "mirror":
            return images.flip(3)
        case _:
            return images.flip(2, 3)


@pytest.mark.parametrize("how", ["noise", "light", "mirror", "upside down"])
@pytest.mark.parametrize("held_out", [False, True])
def test_disguised_copies_are_found_and_fresh_photographs_are_not(
    drawn: torch.Tensor, how: str, held_out: bool
) -> None:
    training, other, fresh = drawn[:60], drawn[60:100] if held_out else None, drawn[100:]
    found = memorisation.memorisation(torch.cat([fresh, disguised(training[5:15], how)]), training, other, pairs=10)
    np.testing.assert_array_equal(found.nearest.index[50:], np.arange(5, 15))
    assert (found.nearest.ratio[50:] < found.limit).sum() >= 9
    assert (found.nearest.ratio[:50] < found.limit).sum() <= 3  # 0.5 are expected
    assert len(set(found.closest) & set(range(50, 60))) >= 9
    assert found.share.low < found.share.value == np.mean(found.nearest.ratio < found.limit) < found.share.high


def test_real_photographs_themselves_are_memorised_as_often_as_expected(drawn: torch.Tensor) -> None:
    """The limit is the first percentile of the real ones, so one in a hundred of these lies below."""
    found = memorisation.memorisation(drawn[50:], drawn[:50], drawn[50:])
    assert found.share.value == pytest.approx(found.expected) == 1 / 100
    np.testing.assert_array_equal(found.nearest.ratio, found.of_real.ratio)


def test_distance_is_root_mean_square_of_luminance_and_colour_differences() -> None:
    """Half a photograph grey at -0.5, half at 0.5, against those at -0.2 and 0.2: luminance differs by 0.3, colour does
    not; a mean over three channels."""
    step = torch.tensor([-1.0, 1.0]).repeat_interleave(16).expand(1, 3, 32, 32)
    training = torch.cat([0.2 * step, 2 * step.roll(8, 3), 3 * step.roll(8, 3), 4 * step.roll(8, 3)])
    found = memorisation.nearest(0.5 * step + 0.1, training)
    assert found.index[0] == 0 and found.distance[0] == pytest.approx(0.3 / 3**0.5)


def test_too_few_are_refused(drawn: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="4 at least"):
        memorisation.memorisation(drawn[:5], drawn[:3])
    with pytest.raises(ValueError, match="0 generated"):
        memorisation.memorisation(drawn[:0], drawn)


def test_training_photographs_among_the_others_are_refused(drawn: torch.Tensor) -> None:
    """They would put the limit at nothing, and no copy would ever be found."""
    with pytest.raises(ValueError, match="trained on"):
        memorisation.memorisation(drawn[:10], drawn[:60], drawn[50:])
