"""Prepared sets: whole, resumable file by file, current or named as stale; and the photographs in them, as batches."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from retina_diffusion import objective, phantom, photographs, prepare, sources, store
from retina_diffusion.captions import Vocabulary
from retina_diffusion.channels import CHANNELS
from retina_diffusion.config import PrepareOptions
from retina_diffusion.data_config import Data, Split
from retina_diffusion.model import build
from retina_diffusion.model_config import Flow, Model, Text
from retina_diffusion.photographs import Collate, Photographs
from retina_diffusion.store import Store
from shared_core import files, prepared, tensorfile
from shared_core.errors import UserError

COUNT = 24
SMALL = Data(size=16, multiple=8, sample_size=COUNT)


def contents(folder: Path) -> dict[str, Any]:
    """Of every file; the order in which a safetensors file's header lists its notes is not always the same."""
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors":
            with safe_open(path, "np") as stream:
                pixels = {name: stream.get_tensor(name).tobytes() for name in stream.keys()}  # noqa: SIM118
                found[path.name] = stream.metadata(), pixels
        elif path.name == prepared.NAME:
            found[path.name] = {**json.loads(path.read_text()), "files": None}
        else:
            found[path.name] = path.read_text()
    return found


def pixels(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "np") as stream:
            found |= {f"{path.stem}.{name}": stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A list of photographs of several aspects, beside much else: the prepared set, too, may lie there."""
    random, lines = np.random.default_rng(0), []
    for number in range(COUNT):
        height, width = int(random.integers(20, 60)), int(random.integers(20, 60))
        x = random.integers(30, 256, (height, width, 3)).astype(np.uint8)
        mask = (random.random((height, width)) < 0.1).astype(np.uint8)
        Image.fromarray(x).save(tmp_path / f"{number}.png")
        Image.fromarray(mask).save(tmp_path / f"{number}_MA.png")
        row = {"image_path": f"{number}.png", "mask_path": {"MA": f"{number}_MA.png"}, "grade": number % 5}
        lines.append(json.dumps(row if number % 3 else {**row, "caption": "Drusen.", "mask_path": None}))
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    return tmp_path / "list.jsonl"


def from_list(source: Path, **change: Any) -> Data:
    return Data.model_validate({"source": str(source), "size": 16, "multiple": 8, **change})


@pytest.fixture
def in_files_of_five(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "FILE_BYTES", 5 * 10 * 16**2)


def test_a_set_holds_its_source(source: Path, in_files_of_five: None) -> None:
    folder = source.parent / "data" / "set"
    manifest = prepare.prepare(from_list(source), Split(), folder)
    assert sorted(contents(folder)) == [
        *("dataset.json", "photographs-00000.safetensors", "photographs-00001.safetensors"),
        *("photographs-00002.safetensors", "photographs-00003.safetensors", "photographs-00004.safetensors"),
        "photographs.json",
    ]
    prepared.verify(folder)
    counts, rows = manifest["counts"], prepare.load(folder)
    assert counts["photographs"] == counts["read"] == COUNT == len(rows)
    assert counts["with masks of"]["MA"] == 16 and counts["with masks of"]["EX"] == 0
    assert counts["with caption"] == 8 and counts["grades"] == {"0": 5, "1": 5, "2": 5, "3": 5, "4": 4}
    assert sum(part["photographs"] for part in counts["splits"].values()) == COUNT
    assert rows[0]["text"] == "Drusen." and rows[1]["text"].endswith("mild non-proliferative diabetic retinopathy.")
    data, there = from_list(source), Store(folder)
    for row, item in zip(rows, sources.items(data), strict=True):
        image, mask = there.read(*row["place"])
        framed = prepare.frame(item, data)
        assert np.array_equal(image, framed.image) and np.array_equal(mask, framed.mask)
        assert image.shape == (3, 16, 16) and mask.shape == (len(CHANNELS), 16, 16)


def test_the_same_again_is_up_to_date(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = source.parent / "data" / "set"  # in the very folder of the list, which is not the set's source
    prepare.prepare(from_list(source), Split(), folder)
    before = contents(folder)
    (source.parent / "notes.txt").write_text("not a photograph")
    source.write_text(source.read_text().replace('", "', '",   "') + "\n\n")  # says the same
    capsys.readouterr()
    prepare.prepare(from_list(source, num_workers=2, sample_ratio=0.5), Split(), folder)
    assert capsys.readouterr().err == f"{folder}: up to date\n"
    assert contents(folder) == before


def test_the_set_of_another_source_is_not_replaced(source: Path) -> None:
    """Lists often have one name: runs of the one would be judged by the other."""
    other = source.parent / "other"
    other.mkdir()
    (other / "list.jsonl").write_text(source.read_text().replace('": "', '": "../').replace("../Drusen", "Drusen"))
    first, second = from_list(source), from_list(other / "list.jsonl")
    assert (second.folder, first.folder) == ("other-list-16", f"{source.parent.name}-list-16")
    folder = source.parent / "set"
    before = prepare.prepare(first, Split(), folder)
    with pytest.raises(UserError, match=rf"holds the set of {source}; give this one another --data.name"):
        prepare.prepare(second, Split(), folder)
    assert prepared.read_manifest(folder) == before


@pytest.mark.parametrize("what", ["image", "mask", "caption", "grade", "size", "aspect"])
def test_a_changed_source_is_named_and_prepared_again(
    what: str, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = source.parent / "set"
    prepare.prepare(from_list(source), Split(), folder)
    before = prepared.read_manifest(folder)["fingerprint"]
    change: dict[str, Any] = {}
    if what == "image":
        Image.fromarray(np.full((30, 30, 3), 99, np.uint8)).save(source.parent / "3.png")
    elif what == "mask":
        size = Image.open(source.parent / "1.png").size
        Image.fromarray(np.zeros(size[::-1], np.uint8)).save(source.parent / "1_MA.png")
    elif what == "caption":
        source.write_text(source.read_text().replace("Drusen", "Scars"))
    elif what == "grade":
        source.write_text(source.read_text().replace('"grade": 3', '"grade": 4'))
    else:
        change = {"size": 24} if what == "size" else {"aspect": "native"}
    capsys.readouterr()
    prepare.prepare(from_list(source, **change), Split(), folder)
    said = capsys.readouterr().err
    assert f"{folder}: stale, preparing it again: " in said
    assert ("source photographs: sha256:" if not change else f"setting {what}: ") in said
    assert prepared.read_manifest(folder)["fingerprint"] != before
    prepared.verify(folder)
    fresh = source.parent / "fresh"
    prepare.prepare(from_list(source, **change), Split(), fresh)
    assert contents(fresh) == contents(folder)


def test_another_split_reads_no_photograph(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = source.parent / "set"
    prepare.prepare(from_list(source), Split(), folder)
    monkeypatch.setattr(prepare, "frame", None)
    manifest = prepare.prepare(from_list(source), Split(test=0.5), folder)
    assert manifest["counts"]["splits"]["test"]["photographs"] == 12


@pytest.mark.parametrize("name", ["photographs-00001.safetensors", "photographs.json", "dataset.json"])
@pytest.mark.parametrize("damage", ["gone", "cut off", "flipped"])
def test_damage_is_repaired(name: str, damage: str, source: Path, in_files_of_five: None) -> None:
    folder = source.parent / "set"
    prepare.prepare(from_list(source), Split(), folder)
    before, whole = contents(folder), (folder / name).read_bytes()
    if damage == "gone":
        (folder / name).unlink()
    else:
        content = bytearray(whole)
        content[len(content) // 2 : len(content) // 2 + 40] = bytes(40)
        (folder / name).write_bytes(bytes(content) if damage == "flipped" else whole[:-20])
    (folder / prepared.NAME).unlink(missing_ok=damage == "gone")  # flipped bytes show in no size: as if interrupted
    prepare.prepare(from_list(source), Split(), folder)
    assert contents(folder) == before


@pytest.mark.parametrize("damage", [b"", b"not safetensors", None])
def test_a_damaged_file_is_named_when_it_is_read(damage: bytes | None, source: Path) -> None:
    folder = source.parent / "set"
    prepare.prepare(from_list(source), Split(), folder)
    path = folder / "photographs-00000.safetensors"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    with pytest.raises(
        UserError, match=r"photographs-00000\.safetensors: is missing or damaged .*; run `prepare` again"
    ):
        Store(folder).read(0, 3)


def test_an_interrupted_preparation_goes_on_file_by_file(
    source: Path, in_files_of_five: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, whole = source.parent / "set", source.parent / "whole"
    prepare.prepare(from_list(source), Split(), whole)
    framed, asked = prepare.frame, []

    def frame(item: Any, data: Data) -> Any:
        asked.append(item.name)
        if asked.count("000013") == 1 and len(asked) == 13:
            raise KeyboardInterrupt
        return framed(item, data)

    monkeypatch.setattr(prepare, "frame", frame)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(from_list(source), Split(), folder)
    with pytest.raises(UserError, match="run `prepare` first"):
        prepare.load(folder)
    prepare.prepare(from_list(source), Split(), folder)
    assert asked[13:] == [f"{number:06d}" for number in range(11, COUNT + 1)]
    assert contents(folder) == contents(whole)


def test_a_half_made_set_of_other_settings_is_not_taken_over(
    source: Path, in_files_of_five: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, whole = source.parent / "set", source.parent / "whole"
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "_describe", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare.prepare(from_list(source), Split(), folder)
    data = from_list(source, aspect="native")
    prepare.prepare(data, Split(), folder)
    prepare.prepare(data, Split(), whole)
    assert contents(folder) == contents(whole)


def test_a_killed_process_goes_on(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from retina_diffusion import prepare; from retina_diffusion.data_config import *\n"
        "prepare.FILE_BYTES = 4 * 10 * 16**2\n"
        f"prepare.prepare(Data(size=16, multiple=8, sample_size=4_000), Split(), Path({str(tmp_path / 'set')!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, env=dict(os.environ))
    first = tmp_path / "set" / store.name(1)
    until = time.monotonic() + 60
    while not first.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    mark = json.loads(safe_open(first, "np").metadata()["facts"])[0]["name"]
    assert mark == "sample-000004"
    assert not (tmp_path / "set" / prepared.NAME).exists()
    written = first.stat().st_mtime_ns
    data = Data(size=16, multiple=8, sample_size=4_000)
    fingerprint = prepared.fingerprint(
        {"photographs": sources.fingerprint(sources.items(data))}, prepare.settings(data)
    )
    assert store.about(first, fingerprint) is not None  # whole, and of this set
    assert store.about(first, "another") is None and first.stat().st_mtime_ns == written


def test_a_full_disk_leaves_nothing_half_written(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = source.parent / "set"
    monkeypatch.setattr(tensorfile, "write", full)
    with pytest.raises(UserError, match=r"photographs-00000\.safetensors: the disk is full; free some space"):
        prepare.prepare(from_list(source), Split(), folder)
    assert list(folder.iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setattr(files, "free_bytes", lambda path: 1_000)
    with pytest.raises(UserError, match="the data set needs"):
        prepare.prepare(from_list(source), Split(), source.parent / "other")
    assert not (source.parent / "other").exists()


def test_a_file_where_the_folder_belongs(source: Path) -> None:
    (source.parent / "set").write_bytes(b"")
    with pytest.raises(UserError, match="set: a file is where a folder should be, or the other way round"):
        prepare.prepare(from_list(source), Split(), source.parent / "set")


def test_damaged_lists_of_a_set_are_named(source: Path) -> None:
    folder = source.parent / "set"
    prepare.prepare(from_list(source), Split(), folder)
    (folder / "photographs.json").write_text("[{")
    with pytest.raises(UserError, match=r"photographs\.json: is damaged; run `prepare` again"):
        prepare.load(folder)
    (folder / "photographs.json").unlink()
    with pytest.raises(UserError, match=r"photographs\.json: no such file"):
        prepare.load(folder)


def test_an_unreadable_photograph_is_named(source: Path) -> None:
    (source.parent / "7.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"list\.jsonl:8: .*7\.png: cannot be read as a picture"):
        prepare.prepare(from_list(source), Split(), source.parent / "set")


def test_the_same_photograph_is_kept_once_and_told(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.open(source.parent / "4.png").save(source.parent / "copy.png")
    Image.open(source.parent / "5.png").save(source.parent / "5_again.png")
    more = [{"image_path": "copy.png", "split": "test", "name": "copy"}, {"image_path": "5_again.png", "name": "again"}]
    source.write_text("\n".join([source.read_text(), *map(json.dumps, more)]))
    folder = source.parent / "set"
    counts = prepare.prepare(from_list(source), Split(official=False), folder)["counts"]
    assert (counts["read"], counts["photographs"]) == (COUNT + 2, COUNT)
    assert counts["same photographs"] == [
        "000005 = copy (correlation 1.0000, in splits None and test)",
        "000006 = again (correlation 1.0000)",
    ]
    said = capsys.readouterr().err
    assert "2 pairs show the same photograph; it is kept once, in one split:\n  000005 = copy" in said
    rows = {row["name"]: row for row in prepare.load(folder)}
    assert (
        rows["000005"]["also"] == ["copy"] and rows["000005"]["split"] == "test" and rows["000005"]["masks"] == ["MA"]
    )


def test_sets_prepared_with_other_settings_are_refused(source: Path) -> None:
    home = source.parent / "data"

    def config(data: Data) -> Any:
        return SimpleNamespace(data=data, paths=SimpleNamespace(data=home))

    data = from_list(source, name="set")
    prepare.prepare(data, Split(), home / prepare.PACKAGE / "set")
    assert prepare.require(config(data)) == home / prepare.PACKAGE / "set"
    with pytest.raises(UserError, match=r"prepared with size 16 instead of 24; run `prepare` again or set data.name"):
        prepare.require(config(from_list(source, name="set", size=24)))


def test_sample_draws_whatever_the_configuration_says(source: Path) -> None:
    data = from_list(source, sample_size=20, name="set")
    config = SimpleNamespace(
        data=data, split=Split(), paths=SimpleNamespace(data=source.parent), logging=SimpleNamespace(progress=False)
    )
    assert prepare.run(None, config, PrepareOptions(sample=True)) == 0  # type: ignore[arg-type]
    rows = prepare.load(source.parent / prepare.PACKAGE / "sample-16")
    assert len(rows) == 20 and rows[0]["known"] == list(CHANNELS)


def test_the_sample_is_drawn_the_same_again(tmp_path: Path) -> None:
    for name in ("one", "two"):
        prepare.prepare(SMALL, Split(), tmp_path / name)
    prepare.prepare(SMALL.model_copy(update={"sample_seed": 1}), Split(), tmp_path / "other")
    one, two, other = (pixels(tmp_path / name) for name in ("one", "two", "other"))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not any(np.array_equal(one[name], other[name]) for name in one if "image" in name)


@pytest.mark.parametrize("grade", range(5))
def test_drawn_masks_match_what_is_drawn(grade: int) -> None:
    """Where a mask says vessel the picture is darker than without, where it says exudate brighter."""
    drawn = phantom.draw(96, seed=grade, grade=grade)
    assert drawn.image.shape == (96, 96, 3) and drawn.image.dtype == np.uint8 and drawn.grade == grade
    masks = dict(zip(CHANNELS, drawn.masks, strict=True))
    assert all(mask.min() >= 0 and mask.max() <= 1 for mask in masks.values())
    assert all((mask <= masks["FOV"] + 1e-6).all() for mask in masks.values())
    assert 0.6 < masks["FOV"].mean() < 0.8 and 0.008 < masks["OD"].mean() < 0.03
    present = {name for name in ("MA", "HE", "EX", "SE") if masks[name].any()}
    assert present <= {0: set(), 1: {"MA"}}.get(grade, {"MA", "HE", "EX", "SE"})
    assert grade < 2 or {"MA", "HE", "EX"} <= present
    green = drawn.image[:, :, 1].astype(float)
    lesions = sum(masks[name] for name in ("MA", "HE", "EX", "SE", "OD"))
    plain = (masks["FOV"] > 0.99) & (lesions + masks["vessel"] == 0)
    vessel = (masks["vessel"] > 0.9) & (lesions == 0)
    usual = green[plain].mean()
    assert green[vessel].mean() < 0.85 * usual
    assert green[(masks["OD"] > 0.9) & (masks["vessel"] == 0)].mean() > 1.25 * usual
    assert green[masks["FOV"] == 0].mean() < 5
    if grade >= 2:
        assert green[(masks["EX"] > 0.9) & (masks["HE"] + masks["MA"] == 0)].mean() > 1.5 * usual
        assert green[(masks["HE"] > 0.9) & (masks["EX"] + masks["SE"] == 0)].mean() < 0.85 * usual


def test_a_drawn_field_of_view_is_the_share_that_a_disc_covers() -> None:
    """Not its square, as where it was cut out of itself: the edge of a disc covers half of its pixels on average."""
    field = phantom.draw(64, seed=0).masks[CHANNELS.index("FOV")]
    edge = field[(field > 0) & (field < 1)]
    assert len(edge) > 100 and abs(edge.mean() - 0.5) < 0.03
    assert np.isin((edge * 9).round(5), range(1, 9)).all()  # of 3 x 3 fine pixels


def test_the_sample_has_every_grade() -> None:
    grades = [phantom.draw(16, seed).grade for seed in range(120)]
    found = np.bincount(grades, minlength=5) / 120
    assert np.abs(found - phantom.SHARES).max() < 0.12 and found.min() > 0


def native(source: Path) -> tuple[Photographs, list[dict[str, Any]], Vocabulary]:
    """Photographs of several sizes."""
    data = from_list(source, aspect="native", size=32)
    prepare.prepare(data, Split(), source.parent / "set")
    rows = prepare.load(source.parent / "set")
    words = Vocabulary.of((row["text"] for row in rows), 8)
    return Photographs(Store(source.parent / "set"), rows, lambda text: {"words": words.encode(text)}), rows, words


def test_native_sizes_are_multiples_with_the_area_and_aspect_wanted(source: Path) -> None:
    found, rows, _ = native(source)
    sizes = set()
    for k, item in enumerate(sources.items(from_list(source))):
        height, width = found[k]["image"].shape[1:]
        real_height, real_width = item.read().image.shape[:2]
        assert [height, width] == rows[k]["size"] and height % 8 == width % 8 == 0
        assert found[k]["mask"].shape[1:] == (height, width)
        assert abs(height - 32 * (real_height / real_width) ** 0.5) <= 4
        assert abs(width - 32 * (real_width / real_height) ** 0.5) <= 4
        sizes.add((height, width))
    assert len(sizes) > 3


def test_a_padded_images_loss_is_its_own(source: Path) -> None:
    found, rows, words = native(source)
    chosen = [next(k for k, row in enumerate(rows) if tuple(row["size"]) == size) for size in
              sorted({tuple(row["size"]) for row in rows})[:4]]  # fmt: skip
    model_config, flow = Model(patch=8, dim=32, depth=2, heads=2), Flow()
    torch.manual_seed(0)
    model = build(model_config, Text(tokens=8, dim=16, depth=0), 4, len(words.words))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # at first every image's answer is 0
    collate = Collate(8)
    batch = collate([found[k] for k in chosen])
    one = objective.noisy(photographs.targets(batch), flow, 1.0)
    asked = photographs.condition(batch, CHANNELS)
    there = photographs.there_pixels(batch, 8, *one.x1_BCHW.shape[2:])
    assert there is not None and there.sum(dim=(1, 2)).tolist() == [float(np.prod(rows[k]["size"])) for k in chosen]
    together = objective.errors(model, one, asked, "x", there)
    for number, k in enumerate(chosen):
        alone = collate([found[k]])
        height, width = rows[k]["size"]
        assert "there" not in alone
        single = objective.Noisy(
            photographs.targets(alone),
            one.x0_BCHW[number : number + 1, :, :height, :width],
            one.t_B[number : number + 1],
        )
        wanted = objective.errors(model, single, photographs.condition(alone, CHANNELS), "x")
        torch.testing.assert_close(together[number : number + 1], wanted, rtol=1e-4, atol=1e-5)
    assert together.std() > 1e-3


def test_idrid_as_it_is_prepared(tmp_path: Path) -> None:
    """All of it takes a minute (the slow test); a tenth shows the same."""
    root = Path(os.environ.get("TEST_DATA_DIR", "")) / "idrid-715px"
    if "TEST_DATA_DIR" not in os.environ or not root.is_dir():
        pytest.skip("set TEST_DATA_DIR to a folder with idrid-715px to prepare real photographs")
    data = Data(source=str(root), size=64)
    for item in sources.items(data)[::60]:
        framed = prepare.frame(item, data)
        assert framed.image.shape == (3, 64, 64) and framed.mask.shape == (7, 64, 64)
        assert framed.mask[CHANNELS.index("FOV")].mean() / 255 > 0.6  # cut out: the disc fills its square
        assert set(framed.facts["present"]) <= set(framed.facts["known"])
        assert framed.facts["masks"] == (["MA", "HE", "EX", "SE", "OD"] if item.name.startswith("A") else [])


@pytest.mark.slow
def test_the_whole_of_idrid(tmp_path: Path) -> None:
    root = Path(os.environ.get("TEST_DATA_DIR", "")) / "idrid-715px"
    if "TEST_DATA_DIR" not in os.environ or not root.is_dir():
        pytest.skip("set TEST_DATA_DIR to a folder with idrid-715px to prepare real photographs")
    counts = prepare.prepare(Data(source=str(root), size=64), Split(), tmp_path / "set", bar=False)["counts"]
    assert (counts["photographs"], counts["read"], len(counts["same photographs"])) == (531, 597, 68)
    assert {name: part["photographs"] for name, part in counts["splits"].items()} == {
        "train": 361, "val": 40, "test": 130,
    }  # fmt: skip


def test_a_photograph_that_cannot_be_read_leaves_the_set_in_use(source: Path) -> None:
    """As long as no file of it has been written anew."""
    folder = source.parent / "set"
    prepare.prepare(from_list(source), Split(), folder)
    (source.parent / "3.png").write_bytes(b"no picture any more")
    with pytest.raises(UserError, match=r"3\.png: cannot be read"):
        prepare.prepare(from_list(source, size=24), Split(), folder)
    assert len(prepare.load(folder)) == COUNT and prepared.read_manifest(folder)["settings"]["size"] == 16


def test_two_lists_of_the_guide_are_one_set(source: Path) -> None:
    """Their lines have the same numbers."""
    val = source.with_name("val.jsonl")
    lines = source.read_text().splitlines()
    source.write_text("\n".join(lines[:-3]))
    val.write_text("\n".join(lines[-3:]))
    data = Data(train_data_path=str(source), val_data_path=str(val), size=16)
    counts = prepare.prepare(data, Split(), source.parent / "both")["counts"]
    assert counts["splits"]["val"]["photographs"] == 3 and counts["photographs"] == COUNT


def test_masks_that_cover_too_much_and_stretched_photographs_are_told(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = source.parent
    counts = prepare.prepare(from_list(source), Split(), folder / "set")["counts"]
    assert counts["covered"]["MA"] == pytest.approx(0.1, rel=0.5) and "warning" not in capsys.readouterr().err
    for path in folder.glob("*_MA.png"):
        with Image.open(path) as mask:
            white = Image.fromarray(1 - np.asarray(mask))
        white.save(path)
    data = from_list(source, aspect="native", multiple=16)
    counts = prepare.prepare(data, Split(), folder / "white")["counts"]
    said = capsys.readouterr().err
    assert counts["covered"]["MA"] > 0.8 and "warning: microaneurysms cover 90%" in said
    assert counts["stretched"] > 0 and f"{counts['stretched']} photographs change their aspect ratio" in said
