"""`prepare`: what it writes, that it can be killed at any time, and that nothing stale is used silently."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError

from pair_compare_stacking import generator, pairfile, prepare, submission
from pair_compare_stacking.config import Config, PrepareOptions
from pair_compare_stacking.pairs import PairNPZDataset
from pair_compare_stacking.pairs_config import Data
from pair_compare_stacking.sources import Pool, Source, load_source
from shared_core import prepared, splits
from shared_core.errors import UserError

SMALL = {"n_train": 30, "n_val": 12, "n_test_public": 10}
FILES = [
    "dataset.json", "pool.npz", "pool_withheld.npz", "test_public.npz", "test_public.truth.npz",
    "test_public_labels.csv", "train.npz", "train.truth.npz", "val.npz", "val.truth.npz",
]  # fmt: skip


def small(**change: object) -> Data:
    return Data.model_validate({**SMALL, **change})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def embedded() -> Source:
    return load_source("digits")


@pytest.fixture(autouse=True)
def enlarge_the_digits_only_once(embedded: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        prepare, "load_source", lambda source, path: embedded if source == "digits" else load_source(source, path)
    )


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """An .npz source: 200 + 120 images."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("t", 200), ("e", 120)):
        images = np.zeros((n, 28, 28), np.uint8)
        images[:, 4:24, 4:24] = rng.integers(0, 256, (n, 20, 20))
        arrays |= {f"X{part}": images, f"Y{part}": np.arange(n) % 10}
    path = tmp_path / "digits.npz"
    np.savez(path, **arrays)
    return path


def test_the_set_is_whole(tmp_path: Path) -> None:
    manifest = prepare.prepare(small(), tmp_path / "set", bar=False)
    assert sorted(contents(tmp_path / "set")) == FILES
    prepared.verify(tmp_path / "set")
    assert manifest["counts"]["pairs"]["train"] | {"neighbours": 0, "source_images": 0} == {
        "n": 30, "left_larger": 15, "neighbours": 0, "source_images": 0,
    }  # fmt: skip
    for name in ("train", "val"):
        content = pairfile.read(tmp_path / "set" / f"{name}.npz")
        assert content.y is not None and content.truth is not None
        assert np.array_equal(content.truth.digits[:, 0] > content.truth.digits[:, 1], content.y == 1)
    test = PairNPZDataset(tmp_path / "set" / "test_public.npz")
    assert test.y is None and test.ids is not None and test.truth is not None and test.truth.pool == "test"
    labels = submission.read(tmp_path / "set" / "test_public_labels.csv")
    submission.check(tmp_path / "set" / "test_public_labels.csv", test.ids)
    assert [labels[name] for name in test.ids] == [int(left > right) for left, right in test.truth.digits]


def test_the_truth_names_the_source_image(tmp_path: Path, digits: Path) -> None:
    """At severity 0 a half is its source image."""
    prepare.prepare(small(source=str(digits), severity=0), tmp_path / "set", bar=False)
    with np.load(digits) as archive:
        pools = {"train": archive["Xt"], "test": archive["Xe"]}
    for name in ("train", "val", "test_public"):
        content = pairfile.read(tmp_path / "set" / f"{name}.npz")
        assert content.truth is not None
        images = pools[content.truth.pool][content.truth.rows]
        assert np.array_equal(content.x, np.concatenate([images[:, 0], images[:, 1]], axis=2))
        assert content.truth.sources[4, 1] == f"{content.truth.pool}-{content.truth.rows[4, 1]:05d}"


def test_disjoint_files_share_no_source_image(tmp_path: Path, digits: Path) -> None:
    data = small(source=str(digits), n_train=200, n_val=60, n_test_public=60, n_test_disjoint=60)
    manifest = prepare.prepare(data, tmp_path / "set", bar=False)
    assert set(manifest["counts"]["leaks"].values()) == {0.0}
    names = ("train", "val", "test_public", "test_disjoint")
    used = {name: set(pairfile.read_truth(tmp_path / "set" / f"{name}.npz").sources.ravel()) for name in names}
    with np.load(tmp_path / "set" / "pool.npz") as pool:
        used["pool"] = set(pool["ids"])
        assert pool["images"].shape[1:] == (28, 28) and len(pool["labels"]) == len(pool["ids"])
    for first, second in (
        ("train", "val"),
        ("pool", "val"),
        ("train", "test_public"),
        ("test_public", "test_disjoint"),
    ):
        assert not used[first] & used[second], (first, second)
    assert used["train"] <= used["pool"]


def test_the_courses_protocol_leaks_and_says_so(tmp_path: Path, digits: Path, capsys: pytest.CaptureFixture) -> None:
    data = small(source=str(digits), protocol="course", n_train=200, n_val=60, n_test_disjoint=20)
    manifest = prepare.prepare(data, tmp_path / "set", bar=False)
    leaks = manifest["counts"]["leaks"]
    assert leaks["halves of val show a source image of train"] > 0.5
    assert leaks["halves of test_public show a source image of train"] == 0
    assert leaks["halves of test_disjoint show a source image of test_public"] == 0
    assert "of the halves of val show a source image of train (protocol course)" in capsys.readouterr().err
    val = pairfile.read_truth(tmp_path / "set" / "val.npz")
    with np.load(tmp_path / "set" / "pool.npz") as pool:  # the stream is honest even so
        assert not set(pool["ids"]) & set(val.sources.ravel())
        withheld = manifest["counts"]["source_images"]["pool_withheld.npz"]
        assert withheld >= 10 and len(pool["ids"]) == 200 - withheld - len(np.unique(val.sources))


def test_the_courses_pairs_do_not_depend_on_what_else_is_made(tmp_path: Path, digits: Path) -> None:
    few, many = tmp_path / "few", tmp_path / "many"
    prepare.prepare(small(source=str(digits), protocol="course"), few, bar=False)
    prepare.prepare(small(source=str(digits), protocol="course", n_test_disjoint=9, n_train=31), many, bar=False)
    for name in ("val.npz", "test_public.npz"):
        assert (few / name).read_bytes() == (many / name).read_bytes()
    with np.load(digits) as archive:
        direct = generator.sample_pairs(archive["Xt"], archive["Yt"], 12, 43, 0.8, 6)
    assert np.array_equal(pairfile.read(few / "val.npz").x, direct.x)


def test_a_second_run_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    first = prepare.prepare(small(), tmp_path / "set", bar=False)
    before = contents(tmp_path / "set")
    monkeypatch.setattr(prepare, "sample_pairs", lambda *_: pytest.fail("generated again"))
    assert prepare.prepare(small(), tmp_path / "set", bar=False) == first
    assert contents(tmp_path / "set") == before
    assert "up to date" in capsys.readouterr().err


@pytest.mark.parametrize("stop_after", ["train", "val", "test_public"])
def test_finished_files_are_kept(stop_after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare.prepare(small(), tmp_path / "whole", bar=False)
    folder, made = tmp_path / "set", []
    original = prepare._write_record

    def write_record(folder: Path, mark: str, finished: dict) -> None:
        original(folder, mark, finished)
        if f"{stop_after}.npz" in finished:
            raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "_write_record", write_record)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(small(), folder, bar=False)
    assert not (folder / "dataset.json").exists()
    monkeypatch.setattr(prepare, "_write_record", original)
    make = prepare._make
    monkeypatch.setattr(prepare, "_make", lambda part, *rest: (made.append(part.name), make(part, *rest)))
    prepare.prepare(small(), folder, bar=False)
    every = ["train", "val", "test_public"]
    assert made == every[every.index(stop_after) + 1 :]
    assert contents(folder) == contents(tmp_path / "whole")


def test_a_finished_file_that_was_damaged_since_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "set"
    prepare.prepare(small(), folder, bar=False)
    before = contents(folder)
    train, val = (folder / "train.npz").stat().st_mtime_ns, bytearray(before["val.npz"])
    val[len(val) // 2] ^= 1
    (folder / "val.npz").write_bytes(val)
    prepare.prepare(small(), folder, bar=False)
    assert "stale, preparing it again: val.npz is damaged" in capsys.readouterr().err
    assert contents(folder) == before
    assert (folder / "train.npz").stat().st_mtime_ns == train


@pytest.mark.parametrize("name", ["pool.npz", "pool_withheld.npz"])
def test_a_missing_or_damaged_pool_is_made_again(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    prepare.prepare(small(), folder, bar=False)
    before = contents(folder)
    (folder / name).unlink()
    prepare.prepare(small(), folder, bar=False)
    assert contents(folder) == before
    (folder / name).write_bytes(before[name][:-1] + b"?")
    prepare.prepare(small(), folder, bar=False)
    assert contents(folder) == before


def pool_of(folder: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(folder / name) as archive:
        return {key: archive[key] for key in archive.files}


@pytest.mark.parametrize("protocol", ["disjoint", "course"])
def test_withheld_images_are_in_no_other_file(protocol: str, tmp_path: Path, digits: Path) -> None:
    data = small(source=str(digits), protocol=protocol, n_train=200, n_test_disjoint=20, withheld=0.3)
    counts = prepare.prepare(data, tmp_path / "set", bar=False)["counts"]
    pool, withheld = (pool_of(tmp_path / "set", name) for name in ("pool.npz", "pool_withheld.npz"))
    assert set(pool) == set(withheld) == {"images", "labels", "ids"}
    assert not set(pool["ids"]) & set(withheld["ids"])
    images = {tuple(row) for row in withheld["images"].reshape(len(withheld["ids"]), -1)}
    assert len(images) == len(withheld["ids"])
    assert not images & {tuple(row) for row in pool["images"].reshape(len(pool["ids"]), -1)}
    used = {
        name: set(pairfile.read_truth(tmp_path / "set" / f"{name}.npz").sources.ravel())
        for name in ("train", "val", "test_public", "test_disjoint")
    }
    for name in ("val", "test_public", "test_disjoint"):
        assert not used[name] & set(withheld["ids"])
        assert counts["leaks"][f"halves of {name} show a withheld source image"] == 0
    assert bool(used["train"] & set(withheld["ids"])) == (protocol == "course")  # the course's files are as they are
    assert (counts["leaks"]["halves of train show a withheld source image"] > 0) == (protocol == "course")
    assert counts["source_images"] == {"pool.npz": len(pool["ids"]), "pool_withheld.npz": len(withheld["ids"])}
    among = 200 * 5 / 6 if protocol == "disjoint" else 200 - len(used["val"])
    assert len(withheld["ids"]) == pytest.approx(0.3 * among, abs=5)
    assert np.ptp(np.bincount(withheld["labels"], minlength=10)) <= 1


def test_nothing_withheld_is_as_if_there_were_no_such_thing(tmp_path: Path, digits: Path) -> None:
    folder = tmp_path / "set"
    prepare.prepare(small(source=str(digits), n_train=60), folder, bar=False)  # its withheld images must not stay
    prepare.prepare(small(source=str(digits), n_train=60, withheld=0), folder, bar=False)
    assert sorted(contents(folder)) == [name for name in FILES if name != "pool_withheld.npz"]
    with np.load(digits) as archive:
        images, labels = archive["Xt"], archive["Yt"]
    rows = splits.stratified(labels, {"train": 5 / 6, "val": 1 / 6}, 0)["train"]
    direct = generator.sample_pairs(images[rows], labels[rows], 60, 42, 0.8, 6)
    assert np.array_equal(pairfile.read(folder / "train.npz").x, direct.x)
    used_by_val = pairfile.read_truth(folder / "val.npz").rows
    assert np.array_equal(pool_of(folder, "pool.npz")["images"], np.delete(images, np.unique(used_by_val), axis=0))


def test_the_courses_files_do_not_depend_on_what_is_withheld(tmp_path: Path, digits: Path) -> None:
    none, half = tmp_path / "none", tmp_path / "half"
    prepare.prepare(small(source=str(digits), protocol="course", withheld=0), none, bar=False)
    prepare.prepare(small(source=str(digits), protocol="course", withheld=0.5), half, bar=False)
    for name in ("train.npz", "train.truth.npz", "val.npz", "test_public.npz"):
        assert (none / name).read_bytes() == (half / name).read_bytes()


def test_what_is_withheld_is_drawn_from_the_split_seed(tmp_path: Path, digits: Path) -> None:
    ids = []
    for seed in (0, 0, 1):
        prepare.prepare(small(source=str(digits), protocol="course", split_seed=seed), tmp_path / "set", bar=False)
        ids.append(pool_of(tmp_path / "set", "pool_withheld.npz")["ids"].tolist())
        (tmp_path / "set" / "pool_withheld.npz").unlink()
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("share", [1e-6, 0.1, 0.89])
def test_every_digit_has_images_on_both_sides(share: float, tmp_path: Path) -> None:
    """Of scikit-learn's digits some 125 of each are for training."""
    prepare.prepare(small(withheld=share), tmp_path / "set", bar=False)
    pool, withheld = (pool_of(tmp_path / "set", name)["labels"] for name in ("pool.npz", "pool_withheld.npz"))
    assert set(pool) == set(withheld) == set(range(10))
    assert len(withheld) == pytest.approx(max(10, share * 1248), abs=10)
    train = pairfile.read_truth(tmp_path / "set" / "train.npz")
    assert set(train.digits.ravel()) == set(range(10))


def test_too_few_images_to_withhold_some_are_named(tmp_path: Path, digits: Path) -> None:
    with np.load(digits) as archive:
        arrays = {key: archive[key] for key in archive.files}
    keep = [3, *np.flatnonzero(arrays["Yt"] != 3)]
    np.savez(digits, **{**arrays, "Xt": arrays["Xt"][keep], "Yt": arrays["Yt"][keep]})
    data = small(source=str(digits), protocol="course", n_val=2)
    with pytest.raises(
        UserError, match=r"data\.withheld 0\.1: source images of digit 3 left for training: [01], .*to 0"
    ):
        prepare.prepare(data, tmp_path / "set", bar=False)
    assert not (tmp_path / "set" / "dataset.json").exists()
    prepare.prepare(data.model_copy(update={"withheld": 0.0}), tmp_path / "set", bar=False)


@pytest.mark.parametrize("protocol", ["disjoint", "course"])
@pytest.mark.parametrize("file", ["pool", "val"])
def test_the_leak_check_knows_the_withheld_images(
    protocol: str, file: str, tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = prepare._write_pools

    def write_pools(data: Data, pool: Pool, folder: Path) -> None:
        original(data, pool, folder)
        val = pairfile.read_truth(folder / "val.npz").sources.ravel()
        shown = pool_of(folder, "pool.npz")["ids"] if file == "pool" else val
        np.savez(folder / "pool_withheld.npz", ids=np.append(pool_of(folder, "pool_withheld.npz")["ids"], shown[0]))

    monkeypatch.setattr(prepare, "_write_pools", write_pools)
    with pytest.raises(UserError, match=rf"1 source images are in both .*{file}"):
        prepare.prepare(small(source=str(digits), protocol=protocol), tmp_path / "set", bar=False)
    assert not (tmp_path / "set" / "dataset.json").exists()


def test_the_leak_check_knows_which_images_train_may_show(
    tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "_rows", lambda part, data, pool, folder: prepare._divided(data, pool)[part.name])
    parts = prepare._parts
    monkeypatch.setattr(prepare, "_parts", lambda data: parts(data)[:2])
    with pytest.raises(UserError, match=r"source images are in both pool_withheld\.npz and train"):
        prepare.prepare(small(source=str(digits), n_train=200), tmp_path / "set", bar=False)


@pytest.mark.parametrize("share", [-0.1, 0.9, 1])
def test_shares_that_leave_nothing_to_train_on_are_refused(share: float) -> None:
    with pytest.raises(ValidationError, match="withheld"):
        small(withheld=share)


def test_another_setting_is_named_and_everything_made_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "set"
    prepare.prepare(small(severity=3, n_test_disjoint=4), folder, bar=False)
    prepare.prepare(small(severity=2), folder, bar=False)
    said = capsys.readouterr().err
    assert "stale" in said and "setting severity: 3 -> 2" in said and "n_test_disjoint: 4 -> 0" in said
    prepare.prepare(small(severity=2), tmp_path / "fresh", bar=False)
    assert contents(folder) == contents(tmp_path / "fresh")


def test_another_source_under_the_same_name_is_noticed(tmp_path: Path, digits: Path, capsys) -> None:
    folder = tmp_path / "set"
    prepare.prepare(small(source=str(digits)), folder, bar=False)
    with np.load(digits) as archive:
        arrays = {key: archive[key] for key in archive.files}
    arrays["Xt"][17, 12, 12] ^= 1
    np.savez(digits, **arrays)
    prepare.prepare(small(source=str(digits)), folder, bar=False)
    said = capsys.readouterr().err
    assert "source train images: sha256:" in said and "test images" not in said


def test_files_of_somebody_else_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.npz").write_bytes(b"the course's own")
    with pytest.raises(UserError, match=r"holds train\.npz, which `prepare` did not write"):
        prepare.prepare(small(), folder, bar=False)
    assert contents(folder) == {"train.npz": b"the course's own"}


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"fingerprint": 1}'])
@pytest.mark.parametrize("name", ["dataset.json", "prepare.json"])
def test_a_damaged_manifest_or_record_is_no_obstacle(name: str, damage: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    prepare.prepare(small(), folder, bar=False)
    before = contents(folder)
    (folder / name).write_bytes(damage)
    prepare.prepare(small(), folder, bar=False)
    assert contents(folder) | {"prepare.json": b""} == before | {"prepare.json": b""}


def test_too_few_images_for_a_file_are_named(tmp_path: Path, digits: Path) -> None:
    data = small(source=str(digits), protocol="course", n_test_public=400, n_test_disjoint=10)
    with pytest.raises(UserError, match=r"test_disjoint\.npz: no source image of digit .*are left for this file"):
        prepare.prepare(data, tmp_path / "set", bar=False)
    assert not (tmp_path / "set" / "dataset.json").exists()


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared_core.files.free_bytes", lambda path: 10_000)
    with pytest.raises(UserError, match="the data set needs"):
        prepare.prepare(small(), tmp_path / "set", bar=False)
    assert not (tmp_path / "set").exists()


KILLED = textwrap.dedent("""
    import sys
    from pathlib import Path
    from pair_compare_stacking.pairs_config import Data
    from pair_compare_stacking.prepare import prepare
    prepare(Data.model_validate_json(sys.argv[1]), Path(sys.argv[2]), bar=False)
""")


@pytest.mark.slow
def test_killed_at_any_time_it_ends_with_the_same_set(tmp_path: Path) -> None:
    data = small(n_train=400, n_val=100, n_test_public=100)
    prepare.prepare(data, tmp_path / "whole", bar=False)
    folder, command = tmp_path / "set", [sys.executable, "-c", KILLED, data.model_dump_json(), str(tmp_path / "set")]
    kept: dict[str, int] = {}  # time of every file that was recorded as finished at a kill
    for _ in range(5):
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        recorded = len(_recorded(folder))
        deadline = time.monotonic() + 60
        while process.poll() is None and len(_recorded(folder)) == recorded and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (folder / "dataset.json").exists():
            break
        for name in _recorded(folder):
            changed = (folder / name).stat().st_mtime_ns
            assert kept.setdefault(name, changed) == changed, f"{name} was made twice"
    assert kept, "nothing was finished before a kill: the test has no teeth"
    prepare.prepare(data, folder, bar=False)
    assert contents(folder) == contents(tmp_path / "whole")


def _recorded(folder: Path) -> list[str]:
    try:
        return list(json.loads((folder / "prepare.json").read_text())["files"])
    except FileNotFoundError:
        return []


def config(tmp_path: Path, **data: object) -> Config:
    return Config.model_validate({"paths": {"data": tmp_path}, "data": {**SMALL, **data}})


def test_the_verb_and_require_agree_on_the_folder(tmp_path: Path) -> None:
    app = SimpleNamespace(package="pair-compare-stacking")
    assert prepare.run(app, config(tmp_path), None) == 0  # type: ignore[arg-type]
    folder = prepare.require(config(tmp_path))
    assert folder == tmp_path / "pair-compare-stacking" / "digits-disjoint"
    assert sorted(contents(folder)) == FILES


def test_a_set_with_other_settings_is_never_used_silently(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `prepare` first"):
        prepare.require(config(tmp_path))
    prepare.run(None, config(tmp_path), None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="prepared with severity 6 instead of 2; run `prepare` again"):
        prepare.require(config(tmp_path, severity=2))


def test_sample_is_the_embedded_default_at_the_configured_severity(tmp_path: Path, monkeypatch) -> None:
    seen: list[tuple[Data, Path]] = []
    monkeypatch.setattr(prepare, "prepare", lambda data, folder, bar: seen.append((data, folder)))
    wanted = config(tmp_path, source="mnist", protocol="course", n_train=50_000, severity=4, name="big")
    prepare.run(None, wanted, PrepareOptions(sample=True))  # type: ignore[arg-type]
    data, folder = seen[0]
    assert (data.source, data.n_train, data.severity, data.protocol) == ("digits", 2000, 4, "course")
    assert folder == tmp_path / "pair-compare-stacking" / "digits-course"
    assert Data().sample() == Data()


# The course's files: git blob id, and SHA-256 of what the arrays x and y hold (for test_public, of the hidden labels).
COURSE = {
    "train": (
        "8c2c3cf8c084accd470863afafc6a68172a5194b",
        "36ec7f129b771c8b66ffe07c680347b34e41a248c52d58795f04c7138ae8f64d",
        "923ed2a0643c14838d5213d2643bed39128d802b5e09b88fc3872a727196a71b",
    ),
    "val": (
        "ec4c09d387e9279034687e96acb95ab54836c257",
        "d7435c974f5a97cf0cd4c21090d93296ae25fbd70d0a5aee2a49210b3b298e40",
        "367df002f5749790b9d0cf7165d639f39c10d11d6faaf1a03e8b4212dbbf95df",
    ),
    "test_public": (
        "ebd4dc722ccaa70d59fef3adcb2bb3946602bf68",
        "1f5f67c457be47ddc66a1dc35d3ba3613f11694a0e58bd04c61806a3371cea4d",
        "3658216709cdd9010f0583629d003fc682b87a76d1963134be24ba728eb76610",
    ),
}
COURSE_VERSIONS = {"pillow": "13.0.0", "numpy": "2.4.6"}  # others may compress, or even draw, differently


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The course's benchmark, made from MNIST: a minute or two."""
    path = Path(os.environ.get("TEST_DATA_DIR", "")) / "mnist" / "mnist.npz"
    if "TEST_DATA_DIR" not in os.environ or not path.exists():
        pytest.skip("set TEST_DATA_DIR to a folder with mnist/mnist.npz to rebuild the course's files")
    folder = tmp_path_factory.mktemp("course")
    data = Data(source="mnist", path=str(path), protocol="course", n_train=50_000, n_val=10_000, n_test_public=2_000)
    prepare.prepare(data, folder, bar=False)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", COURSE)
def test_the_courses_files_come_out_byte_for_byte(name: str, course: Path) -> None:
    blob, x_hash, y_hash = COURSE[name]
    content = pairfile.read(course / f"{name}.npz")
    assert content.truth is not None
    y = (content.truth.digits[:, 0] > content.truth.digits[:, 1]).astype(np.int8)
    assert hashlib.sha256(content.x.tobytes()).hexdigest() == x_hash
    assert hashlib.sha256((y if content.y is None else content.y).tobytes()).hexdigest() == y_hash
    assert hashlib.sha256(y.tobytes()).hexdigest() == y_hash
    if {package: version(package) for package in COURSE_VERSIONS} == COURSE_VERSIONS:  # else only the content counts
        data = (course / f"{name}.npz").read_bytes()
        assert hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == blob


@pytest.mark.slow
def test_the_courses_leak_is_measured(course: Path) -> None:
    counts = prepared.read_manifest(course)["counts"]
    assert counts["leaks"]["halves of val show a source image of train"] == pytest.approx(0.812, abs=0.0005)
    assert counts["leaks"]["halves of test_public show a source image of train"] == 0
    assert counts["pairs"]["train"]["neighbours"] == pytest.approx(0.864, abs=0.0005)
