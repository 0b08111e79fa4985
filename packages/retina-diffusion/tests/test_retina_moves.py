"""Changes to training photographs move image and masks alike, and whole pixels only."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retina_diffusion import moves
from retina_diffusion.model_config import Augment


def pair(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image in which every pixel is another, and masks that say which pixel of it they are."""
    number = torch.arange(1, height * width + 1).view(height, width)
    image = torch.stack([number % 251, number // 251, number % 7]).to(torch.uint8)
    return image, torch.stack([number % 251, number // 251]).to(torch.uint8)


@given(st.integers(2, 20), st.integers(2, 20), st.booleans(), st.booleans(), st.floats(0, 0.45), st.integers(0, 999))
@settings(max_examples=100, deadline=None)
def test_masks_move_with_their_image(
    height: int, width: int, flip: bool, upside_down: bool, shift: float, seed: int
) -> None:
    image, mask = pair(height, width)
    torch.manual_seed(seed)
    moved, mask_moved = moves.changed(image, mask, Augment(flip=flip, upside_down=upside_down, shift=shift))
    assert moved.shape == image.shape and moved.dtype == torch.uint8 and mask_moved.shape == mask.shape
    assert torch.equal(moved[:2], mask_moved)
    before, after = (set(map(tuple, x.flatten(1).T.tolist())) for x in (image, moved))
    assert after - {(0, 0, 0)} <= before  # no pixel is made up
    if not shift:
        assert after == before


@given(st.integers(4, 20), st.integers(4, 20), st.floats(0.05, 0.45), st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_a_shift_is_at_most_its_share(height: int, width: int, shift: float, seed: int) -> None:
    image, mask = pair(height, width)
    torch.manual_seed(seed)
    _, moved = moves.changed(image, mask, Augment(flip=False, shift=shift))
    numbers = moved[0].long() + 251 * moved[1].long()
    rows, columns = torch.nonzero(numbers, as_tuple=True)
    before = numbers[rows, columns] - 1
    down, right = rows - before // width, columns - before % width
    assert len(set(down.tolist())) == len(set(right.tolist())) == 1
    most = [max(1, round(shift * side)) for side in (height, width)]
    assert abs(int(down[0])) <= most[0] and abs(int(right[0])) <= most[1]
    assert len(rows) == (height - abs(int(down[0]))) * (width - abs(int(right[0])))  # what leaves is 0


@pytest.mark.parametrize(("wanted", "ways"), [
    (Augment(flip=False), 1), (Augment(), 2), (Augment(flip=False, upside_down=True), 2),
    (Augment(upside_down=True), 4), (Augment(flip=False, shift=0.1), 9),
])  # fmt: skip
def test_all_ways_are_taken(wanted: Augment, ways: int) -> None:
    image, mask = pair(6, 9)
    torch.manual_seed(0)
    found = [moves.changed(image, mask, wanted)[0] for _ in range(200)]
    times: dict[bytes, int] = {}
    for one in found:
        times[one.numpy().tobytes()] = times.get(one.numpy().tobytes(), 0) + 1
    assert len(times) == ways and min(times.values()) > 100 / ways - 8
    if wanted == Augment():
        assert set(times) == {image.numpy().tobytes(), image.flip(-1).contiguous().numpy().tobytes()}
