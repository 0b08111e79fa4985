"""The multi-scale cache: the same pictures as live, small, whole or refused, and no trace of a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shared_core.errors import UserError
from timeseries_dualmodal import cachewriter, coding, imagecache, shards
from timeseries_dualmodal.imagecache import ImageCache
from timeseries_dualmodal.pictures_config import SCALES as SCALES_OF_THE_GUIDE
from timeseries_dualmodal.plots import Axes, Plots, colours, paint

N, V, T, SIZE = 23, 3, 12, 32
SCALES = (2, 5, 12)
PRINT = "a" * 64


def series(count: int = N) -> np.ndarray:
    rng = np.random.default_rng(0)
    x_NVT = rng.uniform(0, 1, (count, V, T)).astype(np.float32)
    x_NVT[rng.random(x_NVT.shape) < 0.1] = np.nan
    return x_NVT


def plots(**changed: object) -> Plots:
    times = np.arange(T, dtype=np.float64)
    return replace(Plots(Axes.fit(series(), times), times, SIZE, 1.5), **changed)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cachewriter, "PICTURES_PER_SHARD", 4 * V)  # 6 files a scale, the last one with 3 series


def write(folder: Path, **changed: object) -> dict[str, object]:
    settings = {"plots": plots(), "x_NVT": series(), "scales": SCALES, "fingerprint": PRINT, "workers": 2, "bar": False}
    return cachewriter.write(folder, **{**settings, **changed})  # type: ignore[arg-type]


def opened(folder: Path, **changed: object) -> ImageCache:
    return imagecache.open_cache(folder, **{"fingerprint": PRINT, "plots": plots(), **changed})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache") / "pictures"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cachewriter, "PICTURES_PER_SHARD", 4 * V)
        write(folder)
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def read(cache: ImageCache, rows: np.ndarray, scale: int) -> torch.Tensor:
    """Pictures of one scale: uint8 (B, V, H, W)."""
    picture_BVHW = torch.empty(len(rows), V, SIZE, SIZE, dtype=torch.uint8)
    cache.read_into(picture_BVHW, torch.arange(len(rows)), torch.from_numpy(rows), scale)
    return picture_BVHW


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- what is read


@pytest.mark.parametrize("scale", SCALES)
def test_the_cache_holds_what_would_be_drawn(made: Path, scale: int) -> None:
    """In any order, and with repetitions."""
    rows = np.array([22, 0, 7, 7, 21, 4, 3])
    x_BVT, length_B = torch.from_numpy(series()[rows]), torch.full((7,), scale)
    expected = plots().coverage(x_BVT, length_B)
    assert expected.sum() > 0
    cache = opened(made)
    assert torch.equal(read(cache, rows, scale), expected)
    assert read(cache, rows[:0], scale).shape == (0, V, SIZE, SIZE)


def test_it_knows_its_largest_scale(made: Path) -> None:
    cache = opened(made)
    assert cache.scales == SCALES and cache.largest == 12
    assert replace(cache, scales=SCALES_OF_THE_GUIDE).largest == 18  # a prefix of 19 is for the caller to decide


def test_unknown_rows_and_scales_are_refused(made: Path) -> None:
    cache = opened(made)
    for rows, scale in ([[N], 2], [[-1], 2], [[0], 3]):
        with pytest.raises(ValueError, match=r"outside 0|the cache has 2, 5, 12"):
            read(cache, np.array(rows), scale)


def test_reading_keeps_no_file_open(made: Path) -> None:
    """A large cache has more files than a process may have open."""
    cache = opened(made)

    def next_one() -> int:
        handle = os.open(os.devnull, os.O_RDONLY)
        os.close(handle)
        return handle

    before = next_one()
    for scale in SCALES:
        read(cache, np.arange(N), scale)
    assert len(cache._open) == 18 and next_one() == before


# --- few bytes

LEVELS = st.lists(st.tuples(st.sampled_from([0, 1, 128, 254, 255]), st.integers(1, 300)), max_size=12)


@given(runs=LEVELS, height=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_packing_loses_nothing(runs: list[tuple[int, int]], height: int) -> None:
    flat = np.concatenate([np.zeros(0, np.uint8), *(np.full(count, level, np.uint8) for level, count in runs)])
    width = max(1, -(-len(flat) // height))
    picture = np.zeros((width, height), np.uint8)
    picture.ravel()[: len(flat)] = flat
    several = np.ascontiguousarray(np.stack([picture.T, np.zeros_like(picture.T), 255 - picture.T]))
    data = np.empty(coding.MOST_PER_PIXEL * several.size + coding.MOST_BESIDES, np.uint8)
    end_K = coding.pack(several, data)
    assert end_K[-1] <= len(data)
    read = np.full_like(several, 7)
    begin_K = np.concatenate([[0], end_K[:-1]])
    assert coding.unpack(data, begin_K, end_K, np.array([2, 0, 1]), read)
    assert np.array_equal(read[[2, 0, 1]], several)


@given(data=st.binary(max_size=40))
@settings(max_examples=200, deadline=None)
def test_no_bytes_make_unpacking_leave_the_picture(data: bytes) -> None:
    """Whatever it draws, it writes nowhere else."""
    guarded = np.full((3, 8, 8), 7, np.uint8)
    array = np.frombuffer(data, np.uint8)
    coding.unpack(array, np.array([0]), np.array([len(data)]), np.array([1]), guarded)
    assert (guarded[[0, 2]] == 7).all()


def test_a_picture_takes_less_than_three_kilobytes(tmp_path: Path) -> None:
    """On average, at 224 x 224: noise over the full height takes the most, and is drawn here at the default scales."""
    x_NVT = np.random.default_rng(0).uniform(0, 1, (12, 2, 37)).astype(np.float32)
    times = np.arange(37.0)
    large = Plots(Axes.fit(x_NVT, times), times, 224, 2.78)
    metadata = cachewriter.write(tmp_path / "noise", large, x_NVT, SCALES_OF_THE_GUIDE, PRINT, bar=False)
    assert metadata["pictures"] == 12 * 2 * 6
    assert sum(metadata["bytes"].values()) / metadata["pictures"] <= 3000


def test_the_estimate_is_right_to_five_per_cent(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = sum(path.stat().st_size for path in made.glob("time_*/*"))
    assert cachewriter.estimate(plots(), series(), SCALES) == pytest.approx(there, rel=0.05)
    many = np.concatenate([series(200), 0.5 * series(600)])
    exact = cachewriter.estimate(plots(), many, SCALES)
    monkeypatch.setattr(cachewriter, "SAMPLE", 900)
    assert cachewriter.estimate(plots(), many, SCALES) == pytest.approx(exact, rel=0.05)


# --- kills, and what is there already


def test_a_killed_cache_is_gone_on_with(made: Path, tmp_path: Path) -> None:
    """kill -9 in the middle of the work: nothing torn, and in the end the bytes of a cache that nobody killed."""
    folder = tmp_path / "killed"
    code = (
        f"import sys, time; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_dual_imagecache as here; from timeseries_dualmodal import cachewriter, shards\n"
        "cachewriter.PICTURES_PER_SHARD = 4 * here.V; write = shards.write\n"
        "shards.write = lambda *a: (time.sleep(0.1), write(*a))[1]\n"
        f"here.write(here.Path({str(folder)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    while len(list(folder.glob("time_*/shard_*.pics"))) < 3 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("time_*/shard_*.pics")}
    assert 3 <= len(kept) < 18
    with pytest.raises(UserError, match=r"no finished cache .*dualmodal prepare --images"):
        opened(folder)
    torn = next(iter(kept))
    torn.write_bytes(torn.read_bytes()[:-1])
    (folder / "time_5").mkdir(exist_ok=True)
    (folder / "time_5" / ".shard_00000.pics.tmp-12ab34cd.pics").write_bytes(b"torn")
    write(folder)
    assert content(folder) == content(made)
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items() if path != torn)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_bytes_do_not_depend_on_the_workers(made: Path, tmp_path: Path, workers: int) -> None:
    write(tmp_path / "other", workers=workers)
    assert content(tmp_path / "other") == content(made)


def test_what_is_damaged_is_drawn_again(made: Path, copy: Path) -> None:
    path = copy / "time_5" / "shard_00002.pics"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"shard_00002\.pics: is damaged.*run `dualmodal prepare --images` again"):
        read(opened(copy), np.arange(N), 5)
    write(copy)
    assert content(copy) == content(made)


def test_further_scales_are_added(made: Path, copy: Path) -> None:
    write(copy, scales=(3,))
    assert opened(copy).scales == (2, 3, 5, 12)
    assert {path: data for path, data in content(copy).items() if "time_3" not in path and "json" not in path} == {
        path: data for path, data in content(made).items() if "json" not in path
    }


def test_pictures_of_something_else_are_replaced(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(copy, fingerprint="b" * 64, scales=(5,), x_NVT=series()[:9])
    assert "from another prepared set" in capsys.readouterr().err
    names = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    assert names == {"metadata.json", *(f"time_5/shard_0000{i}.pics" for i in range(3))}
    live = plots().coverage(torch.from_numpy(series()[:9]), torch.full((9,), 5))
    assert torch.equal(read(opened(copy, fingerprint="b" * 64), np.arange(9), 5), live)


# --- what is refused


def test_a_missing_folder_is_named_with_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "nowhere"
    with pytest.raises(UserError) as error:
        opened(folder)
    assert str(error.value) == (
        f"{folder}: there is no such folder of pictures; make it with "
        f"`dualmodal prepare --images --multiscale-cache-dir {folder}`"
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fingerprint": "b" * 64}, "drawn from another prepared set"),
        ({"plots": plots(line_width=2.0)}, r"drawn with line_width 1\.5 instead of 2\.0"),
        (
            {"plots": plots(size=64, gaps="break")},
            "with size 32 instead of 64, with gaps bridge instead of break",
        ),
        ({"plots": plots(axes=Axes.fit(2 * series(), np.arange(12.0)))}, "drawn on other axes"),
    ],
)
def test_pictures_of_something_else_are_refused(made: Path, changed: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message + ".*draw it again with `dualmodal prepare --images"):
        opened(made, **changed)


def test_a_removed_scale_is_done_without(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(copy / "time_5")
    cache = opened(copy)
    assert "without time_5" in capsys.readouterr().err
    assert cache.scales == (2, 12)
    assert read(cache, np.arange(N), 12).any()
    for scale in (2, 12):
        shutil.rmtree(copy / f"time_{scale}")
    with pytest.raises(UserError, match=r"all its scales were removed \(time_2, time_5, time_12\); draw it again"):
        opened(copy)


def test_files_that_are_missing_truncated_or_swapped_are_named(copy: Path) -> None:
    path = copy / "time_2" / "shard_00001.pics"
    data = path.read_bytes()
    for size in (len(data) - 1, 30, 0):
        path.write_bytes(data[:size])
        with pytest.raises(UserError, match=r"shard_00001\.pics: is truncated.*run `dualmodal prepare --images` again"):
            opened(copy)
    path.write_bytes(b"something else" * 20)
    with pytest.raises(UserError, match="is no file of pictures"):
        opened(copy)
    shutil.copy(copy / "time_2" / "shard_00000.pics", path)
    with pytest.raises(UserError, match="holds pictures of something else"):
        opened(copy)
    path.unlink()
    with pytest.raises(UserError, match=r"shard_00001\.pics: no such file; draw it again"):
        opened(copy)


def test_damaged_metadata_are_named(copy: Path) -> None:
    text_of_the_whole = (copy / "metadata.json").read_text()
    for text in ("{", "[]"):
        (copy / "metadata.json").write_text(text)
        with pytest.raises(UserError, match=r"metadata\.json: is damaged; draw it again"):
            opened(copy)
    whole = json.loads(text_of_the_whole)
    del whole["scales"]
    (copy / "metadata.json").write_text(json.dumps(whole))
    with pytest.raises(UserError, match=r"metadata\.json: is damaged; draw it again"):
        opened(copy)
    (copy / "metadata.json").write_text('{"format": 0}')
    with pytest.raises(UserError, match="by another version"):
        opened(copy)
    write(copy)
    assert opened(copy).scales == SCALES


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ((), "names none"),
        ((5, 2), "must ascend"),
        ((2, 2), "must ascend"),
        ((0, 2), "0 is less than one step"),
        ((2, 15), "15 is beyond the 12 steps"),
    ],
)
def test_unusable_scales_are_refused(tmp_path: Path, scales: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match="--scales.*" + message):
        write(tmp_path / "new", scales=scales)
    assert not (tmp_path / "new").exists()


def test_a_limit_refuses_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"need about .*more than --limit-disk 0\.01 MB; draw fewer scales"):
        write(tmp_path / "new", limit_bytes=10_000)
    assert not (tmp_path / "new").exists()
    write(tmp_path / "new", limit_bytes=1_000_000)


def test_a_full_disk_refuses_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared_core.files.free_bytes", lambda path: 10_000)
    with pytest.raises(UserError, match=r"the cache of pictures needs .* but only 9\.8 KiB are free"):
        write(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_disk_that_fills_up_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shards.files.atomic_write

    def full(path: Path, data: bytes) -> None:
        if path.name == "shard_00004.pics":
            raise UserError(f"{path}: the disk is full; free some space")
        real(path, data)

    monkeypatch.setattr("shared_core.files.atomic_write", full)
    with pytest.raises(UserError, match="the disk is full"):
        write(tmp_path / "new")
    assert not (tmp_path / "new" / "metadata.json").exists()


def test_somebody_elses_pictures_are_left_alone(tmp_path: Path) -> None:
    """Such as the predecessor's cache, whose files have the same names."""
    theirs = tmp_path / "time_3" / "sample_0_variate_0.png"
    theirs.parent.mkdir()
    theirs.write_bytes(b"theirs")
    for kind in ("packed", "png"):
        with pytest.raises(UserError, match=r"holds time_3, which `prepare` did not draw; choose another folder"):
            write(tmp_path, kind=kind)
    assert content(tmp_path) == {"time_3/sample_0_variate_0.png": b"theirs"}


# --- PNG


def test_png_files_show_the_coloured_pictures(tmp_path: Path) -> None:
    metadata = write(tmp_path / "png", kind="png", scales=(5,), x_NVT=series()[:6])
    live = paint(plots().coverage(torch.from_numpy(series()[:6]), torch.full((6,), 5)), colours(V))
    for i in range(6):
        for v in range(V):
            with Image.open(tmp_path / "png" / "time_5" / f"sample_{i}_variate_{v}.png") as picture:
                shown = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1) / 255
            assert torch.allclose(shown, live[i, v], atol=0.51 / 255)
    assert metadata["bytes"] == {"5": sum(path.stat().st_size for path in tmp_path.glob("png/time_5/*"))}
    with pytest.raises(UserError, match=r"holds PNG files.*draw it again with `dualmodal prepare --images"):
        opened(tmp_path / "png")
    write(tmp_path / "png", x_NVT=series()[:6])  # and back again
    assert not list(tmp_path.glob("png/*/*.png"))


def test_png_files_are_gone_on_with(tmp_path: Path) -> None:
    folder, wanted = tmp_path / "png", {"kind": "png", "scales": (5,), "x_NVT": series()[:6]}
    write(folder, **wanted)
    whole = content(folder)
    home = folder / "time_5"
    untouched = (home / "sample_1_variate_1.png").stat().st_mtime_ns
    (folder / "metadata.json").rename(folder / "drawing.json")  # as a kill would leave it
    (home / "sample_4_variate_1.png").write_bytes((home / "sample_4_variate_1.png").read_bytes()[:-20])
    (home / "sample_5_variate_2.png").unlink()
    (home / ".sample_5_variate_2.png.tmp").write_bytes(b"torn")
    write(folder, **wanted)
    assert content(folder) == whole
    assert (home / "sample_1_variate_1.png").stat().st_mtime_ns == untouched


def test_the_metadata_say_what_is_there(made: Path) -> None:
    metadata = json.loads((made / "metadata.json").read_text())
    assert metadata["scales"] == list(SCALES) and metadata["fingerprint"] == PRINT
    assert (metadata["series"], metadata["variables"], metadata["pictures"]) == (N, V, N * V * 3)
    for scale in SCALES:
        there = sum(path.stat().st_size for path in (made / f"time_{scale}").iterdir())
        assert metadata["bytes"][str(scale)] == there
