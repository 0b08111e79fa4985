"""Copies of training photographs are found, however they were moved or lit; fresh ones are not."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from retina_diffusion import memorisation, moves, phantom
from retina_diffusion.memorisation import Memory
from retina_diffusion.model_config import Augment


@pytest.fixture(scope="module")
def drawn() -> torch.Tensor:
    """Different photographs (150, 3, 48, 48)."""
    images = [torch.from_numpy(phantom.draw(48, seed).image) for seed in range(150)]
    return torch.stack(images).permute(0, 3, 1, 2) / 127.5 - 1


def moved(images: torch.Tensor, down: int, right: int) -> torch.Tensor:
    return F.pad(images, (right, -right, down, -down), value=-1.0)


def disguised(images: torch.Tensor, how: str) -> torch.Tensor:
    match how:
        case "noise":
            return images + 0.08 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
        case "darker":
            return 0.8 * (images + 1) - 1
        case "brighter":
            return (1.2 * (images + 1) - 1).clamp(max=1)
        case "mirror":
            return images.flip(3)
        case "upside down":
            return images.flip(2, 3)
        case "moved by 1":
            return moved(images, 1, 0)
        case "moved by 2":
            return moved(images, -2, 2)
        case _:
            return disguised(disguised(moved(images, 2, -1), "darker"), "mirror")


@pytest.fixture(scope="module")
def memories(drawn: torch.Tensor) -> dict[bool, Memory]:
    """Of the first 60, whether or not held-out photographs set the limit."""
    return {held_out: Memory(drawn[:60], drawn[60:100] if held_out else None) for held_out in (False, True)}


HOW = ["noise", "darker", "brighter", "mirror", "upside down", "moved by 1", "moved by 2", "all at once"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("held_out", [False, True])
def test_disguised_copies_are_found_and_fresh_photographs_are_not(
    drawn: torch.Tensor, memories: dict[bool, Memory], how: str, held_out: bool
) -> None:
    training, fresh = drawn[:60], drawn[100:]
    found = memories[held_out].judge(torch.cat([fresh, disguised(training[5:15], how)]), pairs=10)
    np.testing.assert_array_equal(found.nearest.index[50:], np.arange(5, 15))
    assert (found.nearest.ratio[50:] < found.limit).sum() >= 9
    assert (found.nearest.ratio[:50] < found.limit).sum() <= 3  # 0.5 are expected
    assert len(set(found.closest) & set(range(50, 60))) >= 9
    assert found.share.low < found.share.value == np.mean(found.nearest.ratio < found.limit) < found.share.high


def test_copies_are_found_as_far_as_training_moved_them(drawn: torch.Tensor) -> None:
    """By `augment.shift`, which with a twelfth of 48 pixels reaches further than what is searched anyhow."""
    training = drawn[:60]
    torch.manual_seed(0)
    as_bytes = ((training[:30] + 1) * 127.5).round().to(torch.uint8)
    wanted = Augment(flip=True, upside_down=True, shift=1 / 12)
    shown = torch.stack([moves.changed(one, one, wanted)[0] for one in as_bytes]) / 127.5 - 1
    far = memorisation.nearest(shown, training, reach=1 / 12)
    np.testing.assert_array_equal(far.index, np.arange(30))
    found = Memory(training, drawn[60:], reach=1 / 12).judge(shown)
    assert found.share.value >= 0.95
    near = memorisation.nearest(shown, training)
    assert far.distance.mean() < 0.6 * near.distance.mean()


def test_of_fresh_photographs_few_count_as_memorised(drawn: torch.Tensor) -> None:
    """The limit comes from some held-out photographs and is tried on others, with the same law."""
    found = Memory(drawn[:50], drawn[50:100]).judge(drawn[100:])
    assert found.share.value <= 0.08 and found.share.low < found.expected


def test_distance_is_that_of_windows_without_mean_and_contrast(drawn: torch.Tensor) -> None:
    """Against a search by hand for one pair, in float64."""
    image, other = drawn[3].double(), drawn[4].double()
    ycc = torch.tensor(memorisation.YCC, dtype=torch.float64)

    def standard(x: torch.Tensor) -> torch.Tensor:
        x = x.unflatten(1, (21, 2)).unflatten(3, (21, 2)).mean(dim=(2, 4))  # 48 pixels are halved, towards 32
        x = torch.tensordot(ycc, x, dims=1)
        x = x - x.mean(dim=(1, 2), keepdim=True)
        return x / x.norm()

    centres = [other.flip(axes)[:, 3:45, 3:45] for axes in ([], [1], [2], [1, 2])]  # they move by 3 at most
    windows = [image[:, i : i + 42, j : j + 42] for i in range(7) for j in range(7)]
    least = min(float((standard(a) - standard(b)).norm()) for a in windows for b in centres)
    four = torch.cat([drawn[4:5], drawn[10:13]])
    found = memorisation._apart(drawn[3:4], four, 0.05)
    assert float(found[0, 0]) == pytest.approx(least, rel=1e-4)


def test_images_of_one_mask_are_no_independent_evidence(drawn: torch.Tensor, memories: dict[bool, Memory]) -> None:
    memory = memories[True]
    four_each = torch.cat([drawn[:5], drawn[100:115]]).repeat_interleave(4, dim=0)
    alone = memory.judge(four_each).share
    grouped = memory.judge(four_each, groups=np.arange(80) // 4).share
    assert grouped.value == alone.value and grouped.high - grouped.low > 1.5 * (alone.high - alone.low)
    assert "masks" in grouped.method


def test_too_few_are_refused(drawn: torch.Tensor, memories: dict[bool, Memory]) -> None:
    with pytest.raises(ValueError, match="4 at least"):
        Memory(drawn[:3])
    with pytest.raises(ValueError, match="0 generated"):
        memories[True].judge(drawn[:0])


def test_training_photographs_among_the_others_are_refused(drawn: torch.Tensor) -> None:
    """They would put the limit at nothing, and no copy would ever be found."""
    with pytest.raises(ValueError, match="trained on"):
        Memory(drawn[:60], drawn[50:])
