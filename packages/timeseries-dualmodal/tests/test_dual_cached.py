"""Training from the picture cache, as the command line does it: the right pictures, at the length that is read."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from shared_core import report
from shared_core.errors import UserError
from shared_core.runtime import Runtime
from timeseries_dualmodal import cachewriter, picturesets, prepare, saved, train
from timeseries_dualmodal.__main__ import APP
from timeseries_dualmodal.config import Config, PrepareOptions
from timeseries_dualmodal.sight import Cached, Live

SMALL = (
    *(
        "--data.sample-size",
        "200",
        "--pictures.size",
        "16",
        "--pictures.line-width",
        "1",
        "--logging.progress",
        "false",
    ),
    *("--model.vision.channels", "4,8", "--model.vision.dim", "16", "--model.language.dim", "16"),
    *("--model.language.depth", "1", "--model.dim", "16", "--curriculum.stages", "[{}]", "--curriculum.prefixes", "3"),
    *("--batch-size", "48", "--evaluation.every", "37", "--evaluation.lengths", "12"),
)
SCALES = (6, 12, 18)
HOME = Path("data/timeseries-dualmodal/sample")
CACHE = ("--multiscale-cache-dir", "cache")


def run(verb: str, *flags: str) -> int:
    return APP.main([verb, "--name", "cached", *SMALL, *flags])


def configuration(*flags: str) -> Config:
    config = APP.check(["train", *SMALL, *flags])
    assert isinstance(config, Config)
    return config


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a prepared set and a cache of it, neither of which may be changed."""
    home = tmp_path_factory.mktemp("drawn")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert run("prepare", "--images", "--quick", *CACHE) == 0
    return home


@pytest.fixture
def here(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(drawn)
    return drawn


@pytest.fixture
def copy(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, to be changed."""
    home = Path(shutil.copytree(drawn, tmp_path / "copy"))
    monkeypatch.chdir(home)
    return home


def task(*flags: str) -> train.EarlyTask:
    config = configuration(*flags)
    return train.EarlyTask(config, Runtime.start(config.runtime, config.seed))


def batches(made: train.EarlyTask, epochs: int = 2) -> Iterator[dict[str, torch.Tensor]]:
    for epoch in range(epochs):
        yield from made.batches.epoch(epoch)


def live(made: train.EarlyTask) -> Live:
    assert isinstance(made.eyes, Live)
    return made.eyes


# --- what training sees


def test_training_sees_what_it_would_have_drawn(here: Path) -> None:
    """Bit for bit, of its own series and at the length that it reads, in shuffled batches."""
    made, order, lengths = task(*CACHE), [], set()
    series = prepare.load(HOME)
    train_rows = train.Material.load(configuration()).parts["train"]
    for batch in batches(made):
        rows = batch["row"].numpy()
        order += rows.tolist()
        x_BVT = torch.from_numpy(series.x[train_rows[rows]])
        assert torch.equal(batch["x"].nan_to_num(nan=-9), x_BVT.nan_to_num(nan=-9))
        for k in range(3):
            expected = live(made).plots.coverage(x_BVT, batch["length"][:, k])
            assert torch.equal(batch["seen"][:, k], expected)
        lengths |= set(batch["length"].flatten().tolist())
    assert order != sorted(order) and len(set(order)) > 100
    assert lengths & set(SCALES) == set(SCALES)
    assert not lengths & {7, 11, 13, 17}, "a length between scales was shown"
    assert min(lengths) < 6 and max(lengths) > 18, "no length below and beyond the scales was drawn"


def test_the_numbers_are_cut_to_the_length_of_the_picture(here: Path) -> None:
    """14 -> 12, as in the guide; what was asked for comes from the same draw as without a cache."""
    pairs = [
        (asked, shown)
        for plain, cached in zip(batches(task()), batches(task(*CACHE)), strict=True)
        for asked, shown in zip(plain["length"].flatten().tolist(), cached["length"].flatten().tolist(), strict=True)
    ]
    expected = {t: t if t < 6 or t > 18 else max(scale for scale in SCALES if scale <= t) for t in range(1, 38)}
    assert {asked: shown for asked, shown in pairs}.items() <= expected.items()
    assert (14, 12) in pairs and (5, 5) in pairs and (18, 18) in pairs and (19, 19) in pairs


def test_pictures_do_not_depend_on_the_order_of_a_batch(here: Path) -> None:
    made = task(*CACHE)
    cached = picturesets.eyes(made.config, live(made), made.material.parts["train"])
    x_BVT = torch.from_numpy(made.material.part("train").x[:20])
    length_BK = torch.randint(1, 38, (20, 3), generator=torch.Generator().manual_seed(0))
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    lengths, pictures = cached.see(x_BVT, length_BK, torch.arange(20))
    shuffled = cached.see(x_BVT[order], length_BK[order], order)
    assert torch.equal(shuffled[0], lengths[order]) and torch.equal(shuffled[1], pictures[order])
    assert len({picture.numpy().tobytes() for picture in pictures[:, :, 0].flatten(0, 1)}) > 15


def test_validation_draws_at_exactly_the_lengths_of_the_report(here: Path) -> None:
    made, plain = task(*CACHE), task()
    runtime = Runtime.start(made.config.runtime, 0)
    with torch.no_grad():
        assert made.evaluate(made.model.eval(), runtime) == plain.evaluate(plain.model.eval(), runtime)


def test_a_removed_scale_leaves_the_others(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("cache/time_6")
    shown = {length for batch in batches(task(*CACHE), 1) for length in batch["length"].flatten().tolist()}
    assert {6, 7, 11, 12, 18} <= shown and not shown & {13, 14, 17}, "below 12 is drawn now"
    assert "goes on without time_6, which was removed" in capsys.readouterr().err


def test_beyond_the_largest_scale_is_refused_on_request(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At the start, unless no prefix is so long."""
    refuse = (*CACHE, "--pictures.beyond", "refuse")
    assert run("train", *refuse) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "prefixes of 37 steps are beyond the largest scale, 18" in line and "--pictures.beyond render" in line
    early = task(*refuse, "--curriculum.stages", '[{"longest": 0.5}]')  # round(0.5 x 37) = 18
    assert max(int(batch["length"].max()) for batch in batches(early, 1)) == 18
    later = ("--curriculum.stages", '[{"until": 2, "longest": 0.5}, {}]')
    task(*refuse, *later, "--epochs", "2")  # the second stage is not reached
    assert run("train", *refuse, *later, "--epochs", "3") == 2
    cached = picturesets.eyes(early.config, live(early), early.material.parts["train"])
    assert isinstance(cached, Cached)
    with pytest.raises(UserError, match="prefixes of 19 steps"):
        cached.see(torch.zeros(1, 14, 37), torch.tensor([[19]]), torch.tensor([0]))


# --- how it is drawn


def test_quick_full_and_other_scales() -> None:
    def named(steps: int = 37, **options: object) -> tuple[int, ...]:
        return picturesets.scales(PrepareOptions.model_validate({"images": True, **options}), steps)

    assert named() == (3, 6, 9, 12, 15, 18)
    assert named(quick=True) == SCALES
    assert named(full=True) == (3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 37)
    assert named(23, full=True) == (3, 6, 9, 12, 15, 18, 21, 23)
    assert named(scales=(2, 30)) == (2, 30)
    assert (named(10), named(2)) == ((3, 6, 9), (2,))


def test_the_cache_lies_beside_the_set_and_is_kept(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree("cache", HOME / "pictures")
    stamps = {path: path.stat().st_mtime_ns for path in HOME.glob("pictures/time_*/*")}
    assert stamps and run("prepare", "--images", "--scales", "3,12", "--limit-disk", "1 GB", "--workers", "1") == 0
    now = {path: path.stat().st_mtime_ns for path in HOME.glob("pictures/time_*/*")}
    assert stamps.items() < now.items(), "what was there is drawn again"
    assert json.loads((HOME / "pictures/metadata.json").read_text())["scales"] == [3, 6, 12, 18]
    assert "11,200 pictures of 16 x 16 pixels, after 3, 6, 12, 18 steps" in capsys.readouterr().err


def test_png_files_can_be_looked_at_and_are_not_trained_from(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    png = ("--multiscale-cache-dir", "png")
    assert run("prepare", "--images", "--scales", "6", "--format", "png", *png) == 0
    assert Path("png/time_6/sample_199_variate_13.png").is_file()
    capsys.readouterr()
    assert run("train", *png) == 2
    assert "png: holds PNG files" in capsys.readouterr().err


def test_disk_is_known_to_five_per_cent_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a set of which a part tells, as `plan` says it and as a real write takes it."""
    monkeypatch.chdir(tmp_path)
    large = ("--data.sample-size", "1000", "--pictures.size", "32")
    assert run("prepare", "--images", *large, *CACHE) == 0
    series = prepare.load(HOME)
    assert series.x.shape[0] * series.x.shape[1] > 4 * cachewriter.SAMPLE
    there = sum(path.stat().st_size for path in Path("cache").rglob("*") if path.is_file())
    made = task(*large)
    expected = cachewriter.estimate(live(made).plots, series.x, (3, 6, 9, 12, 15, 18))
    assert expected == pytest.approx(there, rel=0.05)
    note, _ = made.plan_notes()
    assert f"would take {picturesets.quantity(expected, 'B')}" in note and "3, 6, 9, 12, 15, 18 steps" in note


def test_a_plan_says_what_pictures_would_take(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", "--steps", "0") == 0
    assert "note: pictures are drawn when needed; cached after 3, 6, 9" in capsys.readouterr().out
    assert "after training, trees for 2 lengths" in task(*CACHE).plan_notes()[0]
    no_trees = "--model.trees.rounds", "0"
    assert task(*CACHE, *no_trees).plan_notes() == task("--model-type", "language_only", *no_trees).plan_notes() == []


# --- what a user can get wrong: one line, exit status 2, and no run


def _another_csv(folder: Path) -> tuple[str, ...]:
    return ("--data.sample-seed", "1") if run("prepare", "--data.sample-seed", "1") == 0 else ()


def _truncated(folder: Path) -> tuple[str, ...]:
    path = sorted(folder.glob("cache/time_12/*"))[0]
    path.write_bytes(path.read_bytes()[:-5])
    return ()


def _lost(folder: Path) -> tuple[str, ...]:
    sorted(folder.glob("cache/time_12/*"))[-1].unlink()
    return ()


def _all_removed(folder: Path) -> tuple[str, ...]:
    for path in folder.glob("cache/time_*"):
        shutil.rmtree(path)
    return ()


def _unfinished(folder: Path) -> tuple[str, ...]:
    Path("cache/metadata.json").unlink()
    return ()


def _missing(folder: Path) -> tuple[str, ...]:
    shutil.rmtree("cache")
    return ()


BROKEN = {
    "missing": (_missing, "cache: there is no such folder of pictures; make it with `dualmodal prepare --images "),
    "unfinished": (_unfinished, "cache: holds no finished cache of pictures"),
    "another csv": (_another_csv, "cache: the pictures were drawn from another prepared set"),
    "another split": (lambda _: ("--split.seed", "7"), "drawn on axes fitted with split.seed 42 instead of 7; draw it"),
    "other tail": (lambda _: ("--pictures.tail", "0.1"), "on axes fitted with pictures.tail 0.005 instead of 0.1;"),
    "another size": (lambda _: ("--pictures.size", "32"), "cache: the pictures were drawn with size 16 instead of 32"),
    "truncated": (_truncated, "is truncated"),
    "a file lost": (_lost, "no such file"),
    "all removed": (_all_removed, "cache: all its scales were removed"),
    "noise": (
        lambda _: ("--augment.noise", "0.1"),
        "augment.noise would not reach pictures from a cache; set --augment",
    ),
    "shift": (lambda _: ("--augment.shift", "2"), "set --augment.shift 0, or leave out --multiscale-cache-dir"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_cache_that_cannot_be_used_is_one_line(copy: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    breaking, expected = BROKEN[name]
    flags = breaking(copy)
    capsys.readouterr()
    assert run("train", *CACHE, *flags) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and expected in line
    assert not Path("runs").exists()


def test_what_is_drawn_again_can_be_used(copy: Path) -> None:
    """The command that the line names helps: here after a changed split, and a truncated file."""
    _truncated(copy)
    assert run("prepare", "--images", "--quick", *CACHE, "--split.seed", "7") == 0
    made = task(*CACHE, "--split.seed", "7")
    batch = next(batches(made))
    x_BVT = batch["x"]
    expected = live(made).see(x_BVT, batch["length"], batch["row"])[1]
    assert torch.equal(batch["seen"], expected)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--images", "--scales", "6,38"), "--scales: 38 is beyond the 37 steps of the series"),
        (("--images", "--scales", "0,6"), "--scales"),
        (("--images", "--scales", "9,6"), "--scales 9,6: must ascend"),
        (("--images", "--quick", "--full"), "quick and full name different scales; give one of them"),
        (("--quick",), "quick is about pictures; add --images"),
        (("--limit-disk", "2GB"), "limit_disk is about pictures; add --images"),
        (("--images", "--limit-disk", "much"), "--limit-disk"),
        (("--images", "--limit-disk", "10 kB"), "more than --limit-disk"),
        (("--images", "--format", "gif"), "--format: must be packed or png"),
        (("--images", "--workers", "0"), "--workers"),
    ],
)
def test_flags_of_prepare_that_cannot_be_used_are_one_line(
    here: Path, flags: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("prepare", *flags) == 2
    *before, line = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and expected in line
    assert not any("error" in other for other in before)
    assert not (HOME / "pictures").exists()


# --- the whole way


def test_a_run_goes_on_with_a_moved_cache(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its folder is a path: a run may find it elsewhere, and ends as one that was never interrupted."""
    monkeypatch.setattr(saved, "complete", lambda run: None)  # calibrates and reports, which takes seconds
    monkeypatch.setattr(report, "write", lambda found, *more, **named: found[0] / "report.html")
    flags = ("--epochs", "2", "--logging.tracker", "none", "--training.eval-every", "2")
    assert run("train", *flags, *CACHE, "--paths.runs", "unbroken") == 0
    see, calls = Cached.see, iter(range(100))

    def lost_in_the_second_epoch(self: Cached, *batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if next(calls) == 5:
            raise UserError("the disk is gone")
        return see(self, *batch)

    monkeypatch.setattr(Cached, "see", lost_in_the_second_epoch)
    assert run("train", *flags, *CACHE) == 2
    monkeypatch.setattr(Cached, "see", see)
    Path("cache").rename("moved")
    assert run("train", *flags, *CACHE) == 2
    assert "cache: there is no such folder of pictures" in capsys.readouterr().err
    assert run("train", *flags, "--multiscale-cache-dir", "moved") == 0
    assert "resum" in capsys.readouterr().err
    ends = [
        Path(home, "timeseries-dualmodal/cached/checkpoints/step-6/model.safetensors").read_bytes()
        for home in ("unbroken", "runs")
    ]
    assert ends[0] == ends[1]
