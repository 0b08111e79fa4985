"""Masks: every kind of file means the same, unknown values are refused, and pooling loses nothing."""

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retina_diffusion import framing, idrid, masks, pictures
from retina_diffusion.channels import CHANNELS
from shared_core.errors import UserError

WHERE = np.zeros((12, 17), np.uint8)
WHERE[3:5, 4:9] = WHERE[11, 16] = 1


def idrid_folder() -> Path:
    folder = Path(os.environ.get("TEST_DATA_DIR", "")) / "idrid-715px"
    if "TEST_DATA_DIR" not in os.environ or not folder.is_dir():
        pytest.skip("set TEST_DATA_DIR to a folder with idrid-715px to read real masks")
    return folder


def palette() -> Image.Image:
    """As IDRiD's: values 0 and 1, and the colour of 1 is red."""
    image = Image.fromarray(WHERE).convert("P")
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.frombytes(WHERE.tobytes())
    return image


def bands(mode: str, *parts: np.ndarray) -> Image.Image:
    return Image.merge(mode, [Image.fromarray(part.astype(np.uint8)) for part in parts])


FULL = np.full_like(WHERE, 255)
KINDS: dict[str, tuple[str, Callable[[], Image.Image]]] = {
    "palette of 0 and red": ("tif", palette),
    "one bit": ("png", lambda: Image.fromarray(WHERE * 255).convert("1")),
    "grey, 0 and 1": ("png", lambda: Image.fromarray(WHERE)),
    "grey, 0 and 255": ("bmp", lambda: Image.fromarray(WHERE * 255)),
    "16 bit": ("png", lambda: Image.fromarray(WHERE.astype(np.uint16) * 65_535)),
    "32 bit": ("tif", lambda: Image.fromarray(WHERE.astype(np.int32) * 70_000)),
    "floats, 0 and a half": ("tif", lambda: Image.fromarray(WHERE.astype(np.float32) / 2)),
    "white": ("png", lambda: bands("RGB", *3 * [WHERE * 255])),
    "red": ("png", lambda: bands("RGB", WHERE * 255, WHERE * 0, WHERE * 0)),
    "opaque": ("tif", lambda: bands("RGBA", *3 * [WHERE * 255], FULL)),
    "white, transparent elsewhere": ("png", lambda: bands("RGBA", *3 * [FULL], WHERE * 255)),
    "GIF": ("gif", lambda: Image.fromarray(WHERE * 255)),
    "grey and opaque": ("png", lambda: bands("LA", WHERE * 255, FULL)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_means_the_same(kind: str, tmp_path: Path) -> None:
    suffix, made = KINDS[kind]
    made().save(tmp_path / f"mask.{suffix}")
    found = masks.read(tmp_path / f"mask.{suffix}")
    assert found.dtype == np.float32
    assert np.array_equal(found, WHERE)


def test_the_luminance_of_a_palette_would_mislead() -> None:
    assert np.asarray(palette().convert("L")).max() == 76  # what the test above is for


@pytest.mark.parametrize("value", [0, 1, 255])
def test_a_mask_may_be_empty_or_full(value: int, tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 5), value, np.uint8)).save(tmp_path / "mask.png")
    assert (masks.read(tmp_path / "mask.png") == (value > 0)).all()


def several(tmp_path: Path) -> Path:
    x = WHERE.copy()
    x[0, :3] = 1, 2, 9
    Image.fromarray(x).save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def test_values_of_several_classes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mask\.png: holds the values 0, 1, 2, 9; a mask of one class has 0 and one"):
        masks.read(several(tmp_path))


def test_jpeg_is_no_format_of_masks(tmp_path: Path) -> None:
    Image.fromarray(np.kron(WHERE, np.ones((3, 3), np.uint8)) * 255).save(tmp_path / "mask.jpg", quality=80)
    with pytest.raises(
        UserError, match=r"mask\.jpg: holds the values .*, \.\.\.; .* other \(JPEG and smooth edges blur that\)"
    ):
        masks.read(tmp_path / "mask.jpg")


def test_two_colours_are_two_classes(tmp_path: Path) -> None:
    red, green = WHERE * 255, WHERE[::-1] * 255
    bands("RGB", red, np.where(red, 0, green), red * 0).save(tmp_path / "mask.png")
    with pytest.raises(UserError, match=r"colours #000000, #00ff00, #ff0000, \.\.\.; a mask has black and one other"):
        masks.read(tmp_path / "mask.png")


@pytest.mark.parametrize("values", [(-1, 0), (1, 2), (0.0, np.nan)])
def test_two_values_without_a_background_are_refused(values: tuple, tmp_path: Path) -> None:
    dtype = np.float32 if isinstance(values[0], float) else np.int32
    Image.fromarray(np.array([values], dtype)).save(tmp_path / "mask.tif")
    with pytest.raises(UserError, match="a mask of one class has 0 and one other"):
        masks.read(tmp_path / "mask.tif")


def test_covered_shares_come_back(tmp_path: Path) -> None:
    shares = np.arange(256, dtype=np.uint8).reshape(16, 16)
    pictures.write_coverage(tmp_path / "mask.png", shares)
    assert np.array_equal(masks.read(tmp_path / "mask.png") * 255, shares)


def test_labels_are_classes_by_number(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, 2], [2, 2, 0]], np.uint8)).save(tmp_path / "mask.png")
    found = masks.read_labels(tmp_path / "mask.png", ("EX", "OD", "vessel"))
    assert {name: mask.tolist() for name, mask in found.items()} == {
        "EX": [[0, 1, 0], [0, 0, 0]],
        "OD": [[0, 0, 1], [1, 1, 0]],
        "vessel": [[0, 0, 0], [0, 0, 0]],
    }


def test_one_class_may_have_any_value(tmp_path: Path) -> None:
    Image.fromarray(WHERE * 255).save(tmp_path / "mask.png")
    assert np.array_equal(masks.read_labels(tmp_path / "mask.png", ("HE",))["HE"], WHERE)


def test_labels_without_a_class_are_named(tmp_path: Path) -> None:
    path = several(tmp_path)
    with pytest.raises(UserError, match=r"holds the value 9; data.mask_values has 2 classes, which are 1 to 2"):
        masks.read_labels(path, ("MA", "HE"))
    with pytest.raises(UserError, match=r"say what its values 1, 2, ... are: --data.mask_values"):
        masks.read_labels(path, ())


def test_stacked_leaves_out_nothing() -> None:
    found = masks.stacked({"OD": WHERE.astype(np.float32)}, (12, 17))
    assert found.shape == (len(CHANNELS), 12, 17)
    assert [name for name, mask in zip(CHANNELS, found, strict=True) if mask.any()] == ["OD"]


SIDES = st.integers(1, 24)


@st.composite
def layers(draw: st.DrawFn) -> torch.Tensor:
    seed, share = draw(st.integers(0, 999)), draw(st.floats(0.01, 1))
    height, width = draw(SIDES), draw(SIDES)
    return (torch.rand(2, height, width, generator=torch.Generator().manual_seed(seed)) < share).float()


@given(layers(), SIDES, SIDES)
@settings(max_examples=60, deadline=None)
def test_pooling_keeps_the_covered_share(mask: torch.Tensor, height: int, width: int) -> None:
    found = masks.pooled(mask, height, width)
    assert found.shape == (2, height, width)
    assert found.min() >= 0 and found.max() <= 1
    torch.testing.assert_close(found.mean(dim=(1, 2)), mask.mean(dim=(1, 2)), rtol=0, atol=1e-6)


@given(layers(), SIDES, SIDES)
@settings(max_examples=40, deadline=None)
def test_pooling_is_the_mean_of_the_finest_common_grid(mask: torch.Tensor, height: int, width: int) -> None:
    old_height, old_width = mask.shape[1:]
    fine = mask.repeat_interleave(math.lcm(old_height, height) // old_height, dim=1)
    fine = fine.repeat_interleave(math.lcm(old_width, width) // old_width, dim=2)
    wanted = fine.unflatten(2, (width, -1)).mean(3).unflatten(1, (height, -1)).mean(2)
    torch.testing.assert_close(masks.pooled(mask, height, width), wanted, rtol=0, atol=1e-6)


@given(layers(), SIDES, SIDES)
@settings(max_examples=60, deadline=None)
def test_what_is_covered_at_all_stays_above_0_and_nothing_else(mask: torch.Tensor, height: int, width: int) -> None:
    found = framing.covered(mask.numpy(), height, width)
    assert found.dtype == np.uint8
    touched = np.zeros_like(found, bool)
    for channel, row, column in torch.nonzero(mask).tolist():
        rows = slice(row * height // mask.shape[1], -(-(row + 1) * height // mask.shape[1]))
        columns = slice(column * width // mask.shape[2], -(-(column + 1) * width // mask.shape[2]))
        touched[channel, rows, columns] = True
    assert np.array_equal(found > 0, touched)


def test_pooling_a_batch_is_pooling_each() -> None:
    mask = (torch.rand(3, 2, 24, 16, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    found = masks.pooled_batch(mask, 8)
    torch.testing.assert_close(found, torch.stack([masks.pooled(one, 3, 2) for one in mask]), rtol=0, atol=1e-6)


def test_all_real_masks_are_read() -> None:
    shares: dict[tuple[str, str], list[float]] = {}
    modes: dict[str, int] = {}
    for path in sorted((idrid_folder() / "A. Segmentation").rglob("*.tif")):
        with Image.open(path) as image:
            modes[image.mode] = modes.get(image.mode, 0) + 1
        shares.setdefault((path.parts[-3][:1], path.stem[9:]), []).append(float(masks.read(path).mean()))
    assert modes == {"P": 362, "RGBA": 1}
    counts = {"MA": (54, 27), "HE": (53, 27), "EX": (54, 27), "SE": (26, 14), "OD": (54, 27)}
    assert {key: len(found) for key, found in shares.items()} == {
        (part, channel): pair[k] for channel, pair in counts.items() for k, part in enumerate("ab")
    }
    assert min(map(min, shares.values())) > 0
    means = {channel: round(100 * np.mean(shares["a", channel]), 2) for channel in counts}
    assert means == {"MA": 0.18, "HE": 1.17, "EX": 1.14, "SE": 0.44, "OD": 1.85}  # per cent


def test_the_opaque_mask_is_no_full_one() -> None:
    folder = idrid_folder() / "A. Segmentation/2. All Segmentation Groundtruths/b. Testing Set/3. Hard Exudates"
    with Image.open(folder / "IDRiD_81_EX.tif") as image:
        colours = np.asarray(image)
    assert colours.shape[2] == 4 and (colours[:, :, 3] == 255).all()  # any channel above 0 would be everywhere
    mask = masks.read(folder / "IDRiD_81_EX.tif")
    assert np.array_equal(mask, colours[:, :, 0] > 0) and mask.mean() < 0.05


def test_real_microaneurysms_survive_where_samples_lose_them() -> None:
    lost = 0
    for record in idrid.segmented(idrid_folder())[:12]:
        mask = masks.read(record.masks["MA"])
        small = framing.covered(mask[None], 48, 72)[0]
        rows, columns = np.nonzero(mask)
        assert (small[rows * 48 // mask.shape[0], columns * 72 // mask.shape[1]] > 0).all()
        sampled = np.asarray(Image.fromarray(mask.astype(np.uint8)).resize((72, 48), Image.Resampling.NEAREST))
        lost += int((small > 0).sum() - (sampled > 0).sum())
    assert lost > 100
