"""Photographs as files, and from there to what a network sees."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from retina_diffusion import framing, idrid, pictures
from shared_core.errors import UserError

RANDOM = np.random.default_rng(0)
PICTURE = RANDOM.integers(0, 256, (9, 14, 3)).astype(np.uint8)
GREY = PICTURE[:, :, 0]


def three(x: np.ndarray) -> np.ndarray:
    return np.repeat(x[:, :, None], 3, axis=2)


def saved(image: Image.Image, path: Path, **how: object) -> np.ndarray:
    image.save(path, **how)  # type: ignore[arg-type]
    return pictures.read(path)


def test_colours_and_grey(tmp_path: Path) -> None:
    assert np.array_equal(saved(Image.fromarray(PICTURE), tmp_path / "a.png"), PICTURE)
    assert np.array_equal(saved(Image.fromarray(GREY), tmp_path / "b.tif"), three(GREY))
    assert np.array_equal(saved(Image.fromarray(GREY > 99), tmp_path / "c.png"), three((GREY > 99) * np.uint8(255)))


def test_a_palette_has_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray((GREY % 4).astype(np.uint8)).convert("P")
    image.frombytes((GREY % 4).tobytes())
    colours = RANDOM.integers(0, 256, (4, 3)).astype(np.uint8)
    image.putpalette(colours.ravel().tolist())
    assert np.array_equal(saved(image, tmp_path / "a.png"), colours[GREY % 4])


def test_what_is_transparent_is_black(tmp_path: Path) -> None:
    opaque = np.where(GREY > 99, 255, 0).astype(np.uint8)
    image = Image.merge("RGBA", [*Image.fromarray(PICTURE).split(), Image.fromarray(opaque)])
    assert np.array_equal(saved(image, tmp_path / "a.png"), PICTURE * (opaque[:, :, None] > 0))
    both = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(opaque)])
    assert np.array_equal(saved(both, tmp_path / "b.png"), three(GREY * (opaque > 0)))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_deep_pictures_are_scaled_by_their_bits(bits: int, tmp_path: Path) -> None:
    deep = GREY.astype(np.float64) * (2**bits - 1) / 255
    image = Image.fromarray(deep.round().astype(np.uint16))
    for suffix in ("png", "tif"):
        assert np.array_equal(saved(image, tmp_path / f"a.{suffix}"), three(GREY))


def test_a_dark_deep_picture_stays_dark(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 20_000, 30_000]], np.uint16))
    assert saved(image, tmp_path / "a.png")[0, :, 0].tolist() == [0, 78, 117]  # of 65,535


def test_floats_and_what_no_picture_can_show(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 0.5, 1, -1, np.nan]], np.float32))
    assert saved(image, tmp_path / "a.tif")[0, :, 0].tolist() == [0, 128, 255, 0, 0]


def test_a_camera_held_sideways(tmp_path: Path) -> None:
    about = Image.Exif()
    about[0x0112] = 6  # orientation: turn to the right
    assert np.array_equal(saved(Image.fromarray(PICTURE), tmp_path / "a.png", exif=about), np.rot90(PICTURE, -1))


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp"])
def test_truncated_pictures_are_named(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PICTURE).save(path)
    whole = path.read_bytes()
    for length in (0, 5, len(whole) // 2, len(whole) * 9 // 10):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=rf"a\.{suffix}: cannot be read as a picture .*; replace or remove it"):
            pictures.read(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.png: no such file"):
        pictures.read(tmp_path / "a.png")
    with pytest.raises(UserError, match="cannot be read as a picture"):
        pictures.read(tmp_path)


@given(st.integers(0, 999), st.floats(0.02, 0.98), st.integers(1, 30), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_most_pixels_around_are_a_median(seed: int, share: float, height: int, width: int) -> None:
    x = np.random.default_rng(seed).random((height, width)) < share
    assert np.array_equal(framing._most_of_5x5(x), ndimage.median_filter(x.astype(np.uint8), 5) > 0)


def disc(height: int, width: int, row: float, column: float, radius: float) -> np.ndarray:
    rows, columns = np.indices((height, width))
    return (rows - row) ** 2 + (columns - column) ** 2 < radius**2


def test_the_field_of_view_is_the_disc_with_its_dark_spots() -> None:
    field = disc(80, 120, 40, 55, 35)
    picture = three(np.where(field, 120, 3).astype(np.uint8))
    picture[38:44, 50:56] = 0  # a dark macula
    picture[2:5, 110:118] = 255  # a label of the camera's
    found = framing.field_of_view(picture)
    assert (found != field).mean() < 0.01 and found[40, 52] and not found[3, 114]
    top, left, side = framing.square(found)
    assert abs(top - 5) <= 1 and abs(left - 20) <= 1 and abs(side - 70) <= 2


@pytest.mark.parametrize("brightness", [0, 10, 200])
def test_without_a_disc_all_is_seen(brightness: int) -> None:
    assert framing.field_of_view(np.full((20, 30, 3), brightness, np.uint8)).all()


@given(st.integers(1, 20), st.integers(1, 20), st.integers(-8, 20), st.integers(-8, 20), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_cut_is_a_window_on_a_plane_of_zeros(height: int, width: int, top: int, left: int, side: int) -> None:
    x = RANDOM.integers(1, 255, (height, width)).astype(np.uint8)
    top, left = min(top, height - 1), min(left, width - 1)
    top, left = max(top, 1 - side), max(left, 1 - side)
    plane = np.pad(x, 60)
    assert np.array_equal(framing.cut(x, top, left, side), plane[60 + top :, 60 + left :][:side, :side])


@given(st.integers(100, 4_000), st.floats(0.4, 2.5), st.integers(64, 1_024), st.sampled_from([8, 16, 32]))
@settings(deadline=None)
def test_native_sizes(height: int, ratio: float, size: int, multiple: int) -> None:
    width = round(height * ratio)
    h, w = framing.target(height, width, size, multiple)
    assert h % multiple == w % multiple == 0 and h >= multiple and w >= multiple
    exact_h, exact_w = size * (height / width) ** 0.5, size * (width / height) ** 0.5
    assert abs(h - exact_h) <= multiple / 2 and abs(w - exact_w) <= multiple / 2  # hence area and aspect
    assert framing.target(width, height, size, multiple) == (w, h)


def test_extreme_aspects_keep_a_token() -> None:
    assert framing.target(10_000, 1, 64, 16)[1] == 16


def test_resizing_goes_from_rows_to_channels() -> None:
    assert np.array_equal(framing.resized(PICTURE, 9, 14), PICTURE.transpose(2, 0, 1))
    flat = np.broadcast_to(np.array([10, 120, 250], np.uint8), (50, 30, 3)).copy()
    found = framing.resized(flat, 16, 8)
    assert found.shape == (3, 16, 8) and (found == np.array([10, 120, 250])[:, None, None]).all()


def test_real_fields_of_view_are_three_quarters_of_the_picture() -> None:
    folder = Path(os.environ.get("TEST_DATA_DIR", "")) / "idrid-715px"
    if "TEST_DATA_DIR" not in os.environ or not folder.is_dir():
        pytest.skip("set TEST_DATA_DIR to a folder with idrid-715px to frame real photographs")
    for record in idrid.segmented(folder)[::9]:
        found = framing.field_of_view(pictures.read(record.image))
        assert 0.6 < found.mean() < 0.85, record.image
        top, left, side = framing.square(found)
        assert 550 < side < 680 and -120 < top < 10 and 0 <= left < 120
