"""The segmenter learns what is there to learn, from what is known only, on photographs of any size."""

import pytest
import torch

from retina_diffusion import distances, features, fidelity, judged, phantom
from retina_diffusion.masks import CHANNELS
from retina_diffusion.segmenter import Segmenter, fit


def drawn(first: int, count: int, size: int = 32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    made = [phantom.draw(size, seed) for seed in range(first, first + count)]
    images = torch.stack([torch.from_numpy(one.image) for one in made]).permute(0, 3, 1, 2) / 127.5 - 1
    masks = torch.stack([torch.from_numpy(one.masks) for one in made])
    return images, masks, torch.ones(count, len(CHANNELS), dtype=torch.bool)


@pytest.fixture(scope="module")
def fitted() -> Segmenter:
    return fit(*drawn(0, 100), seed=0, steps=60, val=drawn(100, 30))


def test_large_things_are_found_in_photographs_it_never_saw(fitted: Segmenter) -> None:
    images, masks, known = drawn(500, 40)
    found = dict(
        zip(CHANNELS, fidelity.fidelity(fitted.probabilities(images), masks, known, fitted.thresholds, 0), strict=True)
    )
    assert found["OD"].dice.value > 0.65 and found["FOV"].dice.value > 0.95
    assert found["vessel"].average_precision.low > 1.5 * found["vessel"].prevalence
    shuffled = fitted.probabilities(images.roll(1, 0))
    of_others = fidelity.fidelity(shuffled, masks, known, fitted.thresholds, 0)[CHANNELS.index("OD")]
    assert of_others.average_precision.high < found["OD"].average_precision.low - 0.3


def test_the_state_dict_is_all_of_it(fitted: Segmenter) -> None:
    images, *_ = drawn(900, 3)
    again = Segmenter.of({name: value.clone() for name, value in fitted.state_dict().items()})
    assert torch.equal(again.probabilities(images), fitted.probabilities(images))
    assert torch.equal(again.thresholds, fitted.thresholds) and not torch.all(again.thresholds == 0.5)
    with pytest.raises(ValueError, match="not that of a Segmenter"):
        Segmenter.of({"weight": torch.zeros(3)})


def test_probabilities_turn_with_the_photograph_and_do_not_depend_on_the_batch(fitted: Segmenter) -> None:
    images, *_ = drawn(900, 5)
    found = fitted.probabilities(images)
    torch.testing.assert_close(fitted.probabilities(images.flip(3)).flip(3), found, rtol=0, atol=1e-5)
    torch.testing.assert_close(fitted.probabilities(images, batch=2), found, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(32, 48), (50, 34), (33, 47)])
def test_any_size_will_do(fitted: Segmenter, height: int, width: int) -> None:
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = fitted.probabilities(images)
    assert found.shape == (2, len(CHANNELS), height, width) and ((found >= 0) & (found <= 1)).all()


def test_what_is_unknown_teaches_nothing() -> None:
    """Masks that are marked unknown may hold anything."""
    images, masks, known = drawn(0, 12)
    known[:, CHANNELS.index("vessel")] = False
    known[::2, CHANNELS.index("OD")] = False
    nonsense = torch.where(known[:, :, None, None], masks, 1 - masks)
    first, second = (fit(images, given, known, seed=3, steps=3, batch=4) for given in (masks, nonsense))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    other = fit(images, nonsense, torch.ones_like(known), seed=3, steps=3, batch=4)
    assert not torch.equal(other.out.bias, first.out.bias)


def test_trainings_follow_their_seed() -> None:
    data = drawn(0, 10)
    first, again, other = (fit(*data, seed=seed, steps=2, batch=4).out.weight for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_features_tell_lesions_from_none(fitted: Segmenter) -> None:
    """Distances by the segmenter's features, of photographs of one grade and of two."""
    grades = [
        torch.stack([torch.from_numpy(phantom.draw(32, seed, grade).image) for seed in seeds]).permute(0, 3, 1, 2)
        for grade, seeds in ((0, range(30)), (0, range(30, 60)), (3, range(60, 90)))
    ]
    healthy, also_healthy, severe = (
        judged.each(features.of_segmenter(fitted), images, torch.device("cpu")).double().numpy() for images in grades
    )
    assert healthy.shape == (30, 128)
    assert distances.frechet(healthy, severe) > 2 * distances.frechet(healthy, also_healthy)
    assert distances.kernel_interval(healthy, severe, seed=0).low > 0


def test_what_cannot_be_learnt_is_refused() -> None:
    images, masks, known = drawn(0, 4)
    with pytest.raises(ValueError, match="masks to learn from"):
        fit(images, masks, torch.zeros_like(known), seed=0, steps=1)
    with pytest.raises(ValueError, match="must be"):
        fit(images, masks[..., :16], known, seed=0, steps=1)
