"""Prepared sets: whole, current or named as stale, and the same series again."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from shared_core import hub, prepared
from shared_core.errors import UserError
from timeseries_dualmodal import prepare
from timeseries_dualmodal.config import PrepareOptions
from timeseries_dualmodal.data_config import Data, Split
from timeseries_dualmodal.division import divide
from timeseries_dualmodal.readers import read

SMALL = Data(sample_size=60)


def config(home: Path, data: Data = SMALL, split: Split | None = None) -> Any:
    return SimpleNamespace(data=data, split=split or Split(), paths=SimpleNamespace(data=home))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A CSV of 40 series in two classes and two regions."""
    random = np.random.default_rng(0)
    lines = ["id,region,ndvi_1,ndvi_11,ndvi_21,label"]
    for row in range(40):
        values = ",".join(f"{value:.3f}" for value in random.random(3))
        lines.append(f"s{row},{'north' if row % 3 else 'south'},{values},{'maize' if row % 2 else 'rice'}")
    path = tmp_path / "fields.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def table(source: Path, **change: Any) -> Data:
    return Data.model_validate({"source": str(source), "groups": ["region"], **change})


def test_a_set_holds_the_series_of_its_source(tmp_path: Path, source: Path) -> None:
    manifest = prepare.prepare(table(source), Split(), tmp_path / "set")
    assert sorted(contents(tmp_path / "set")) == ["dataset.json", "series.npz"]
    prepared.verify(tmp_path / "set")
    direct, loaded = read(table(source)), prepare.load(tmp_path / "set")
    assert np.array_equal(direct.x, loaded.x) and np.array_equal(direct.y, loaded.y)
    assert np.array_equal(direct.ids, loaded.ids) and np.array_equal(direct.times, loaded.times)
    assert (direct.variables, direct.classes) == (loaded.variables, loaded.classes) == (("ndvi",), ("maize", "rice"))
    assert np.array_equal(direct.groups["region"], loaded.groups["region"])
    counts = manifest["counts"]
    parts = divide(direct, Split())
    assert counts["splits"] == {name: len(rows) for name, rows in parts.items()}
    assert direct.y is not None
    assert counts["classes"]["test"]["rice"] == int((direct.y[parts["test"]] == 1).sum())
    assert counts["classes"]["all"] == {"maize": 20, "rice": 20}
    assert counts["groups"] == {"region": {"north": 26, "south": 14}}
    assert any("every region of the test split is in train too" in line for line in counts["warnings"])


def test_gaps_and_groups_of_the_sample_come_back(tmp_path: Path) -> None:
    prepare.prepare(SMALL, Split(), tmp_path / "set")
    direct, loaded = read(SMALL), prepare.load(tmp_path / "set")
    assert np.array_equal(direct.x, loaded.x, equal_nan=True) and np.isnan(loaded.x).any()
    assert set(loaded.groups) == {"region", "year", "field"}
    counts = prepared.read_manifest(tmp_path / "set")["counts"]
    assert counts["groups"]["field"] == {f"field{number:05d}": 2 for number in range(30)}


def test_a_prepared_set_is_a_source(tmp_path: Path) -> None:
    prepare.prepare(SMALL, Split(), tmp_path / "set")
    again = read(Data(source=str(tmp_path / "set" / "series.npz"), groups=("region", "field")))
    direct = read(SMALL)
    assert np.array_equal(again.x, direct.x, equal_nan=True) and np.array_equal(again.y, direct.y)
    assert np.array_equal(again.groups["field"], direct.groups["field"]) and np.array_equal(again.ids, direct.ids)


def test_the_same_settings_give_the_same_bytes_and_are_not_repeated(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare.prepare(table(source), Split(), tmp_path / "one")
    prepare.prepare(table(source), Split(), tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    capsys.readouterr()
    monkeypatch.setattr(prepare.readers, "read", lambda *_: pytest.fail("read again"))
    prepare.prepare(table(source), Split(), tmp_path / "one")
    assert "up to date" in capsys.readouterr().err


def test_another_split_is_counted_again_without_the_source(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare.prepare(table(source), Split(), tmp_path / "set")
    before = contents(tmp_path / "set")["series.npz"]
    monkeypatch.setattr(prepare.readers, "read", lambda *_: pytest.fail("read again"))
    manifest = prepare.prepare(table(source), Split(hold_out=("region=south",)), tmp_path / "set")
    assert manifest["counts"]["splits"]["test"] == 14 and manifest["counts"]["split"]["hold_out"] == ["region=south"]
    assert contents(tmp_path / "set")["series.npz"] == before


def test_a_changed_source_is_noticed(tmp_path: Path, source: Path, capsys: pytest.CaptureFixture) -> None:
    prepare.prepare(table(source), Split(), tmp_path / "set")
    source.write_text(source.read_text().replace("s39,", "s39x,"))
    prepare.prepare(table(source), Split(), tmp_path / "set")
    assert "stale, preparing it again: source series: sha256:" in capsys.readouterr().err
    assert prepare.load(tmp_path / "set").ids[-1] == "s39x"


def test_another_setting_is_named(tmp_path: Path, source: Path, capsys: pytest.CaptureFixture) -> None:
    prepare.prepare(table(source), Split(), tmp_path / "set")
    prepare.prepare(table(source, groups=[]), Split(), tmp_path / "set")
    assert 'setting groups: ["region"] -> []' in capsys.readouterr().err
    assert prepare.load(tmp_path / "set").groups == {}


def test_settings_of_the_sample_do_not_matter_to_files(source: Path) -> None:
    assert prepare.settings(table(source)) == prepare.settings(table(source, sample_size=99, name="other"))
    assert prepare.settings(SMALL) != prepare.settings(Data(sample_size=61))


@pytest.mark.parametrize("name", ["dataset.json", "series.npz"])
@pytest.mark.parametrize("damage", ["gone", "cut", "flipped"])
def test_a_damaged_set_is_made_again(
    name: str, damage: str, tmp_path: Path, source: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "set"
    prepare.prepare(table(source), Split(), folder)
    before = contents(folder)
    if damage == "gone":
        (folder / name).unlink()
    else:
        content = bytearray(before[name])
        content[len(content) // 2 - 40 : len(content) // 2] = bytes(40)
        (folder / name).write_bytes(bytes(content) if damage == "flipped" else before[name][:-20])
    capsys.readouterr()
    prepare.prepare(table(source), Split(), folder)
    assert contents(folder) == before
    assert (name, damage) == ("dataset.json", "gone") or name in capsys.readouterr().err.split("again: ")[1]


def test_nothing_half_written_stays(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "set"
    prepare.prepare(table(source), Split(), folder)

    def full(stream: Any, **arrays: Any) -> None:
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(UserError, match="the disk is full"):
        prepare.prepare(table(source, variables=["ndvi"]), Split(), folder)
    assert [path.name for path in folder.iterdir() if path.name != "series.npz"] == []
    with pytest.raises(UserError, match="run `prepare` first"):
        prepare.load(folder)


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared_core.files.free_bytes", lambda path: 1_000)
    with pytest.raises(UserError, match="the data set needs"):
        prepare.prepare(SMALL, Split(), tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_a_set_that_cannot_be_divided_is_not_written(tmp_path: Path, source: Path) -> None:
    with pytest.raises(UserError, match="no region is 'west'"):
        prepare.prepare(table(source), Split(hold_out=("region=west",)), tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"x": np.zeros((40, 3), np.float32)},
        {"x": np.zeros((39, 1, 3), np.float32)},
        {"x": np.full((40, 1, 3), np.inf, np.float32)},
        {"y": np.full(40, 2)},
        {"y": np.zeros(40, np.float32)},
        {"times": np.zeros(2)},
        {"ids": np.arange(40)},
        {"group_region": np.array(["a"])},
        {"classes": None},
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, Any], tmp_path: Path, source: Path) -> None:
    prepare.prepare(table(source), Split(), tmp_path / "set")
    path = tmp_path / "set" / "series.npz"
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files} | change
    np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
    with pytest.raises(UserError, match=r"series\.npz: is no prepared set of this version, or damaged; run `prepare`"):
        prepare.load(tmp_path / "set")


def test_the_verb_and_require_agree_on_the_folder(tmp_path: Path, source: Path) -> None:
    wanted = config(tmp_path, table(source))
    assert prepare.run(None, wanted, None) == 0  # type: ignore[arg-type]
    assert prepare.require(wanted) == tmp_path / "timeseries-dualmodal" / "fields"
    assert (
        prepare.require(config(tmp_path, table(source, name="fields"))) == tmp_path / "timeseries-dualmodal" / "fields"
    )


def test_a_set_with_other_settings_is_never_used_silently(tmp_path: Path, source: Path) -> None:
    with pytest.raises(UserError, match="run `prepare` first"):
        prepare.require(config(tmp_path, table(source)))
    prepare.run(None, config(tmp_path, table(source)), None)  # type: ignore[arg-type]
    with pytest.raises(
        UserError, match=r"prepared with label not set instead of crop, groups region instead of not set; run"
    ):
        prepare.require(config(tmp_path, table(source, groups=[], label="crop")))


def test_sample_is_the_generated_set_in_the_configured_size(tmp_path: Path) -> None:
    other = Data(source="elsewhere.csv", name="mine", sample_size=70, sample_seed=3, label="crop")
    assert prepare.run(None, config(tmp_path, other), PrepareOptions(sample=True)) == 0  # type: ignore[arg-type]
    loaded = prepare.load(tmp_path / "timeseries-dualmodal" / "sample")
    assert np.array_equal(loaded.x, read(Data(sample_size=70, sample_seed=3)).x, equal_nan=True)


@pytest.mark.parametrize(
    ("source", "folder"),
    [
        ("sample", "sample"),
        ("data/my fields.csv", "my-fields"),
        ("hub:someone/crops@v1", "someone-crops"),
        ("../..", "series"),
    ],
)
def test_folders_are_named_after_their_source(source: str, folder: str) -> None:
    assert Data(source=source).folder == folder


def test_a_hub_data_set_is_known_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = {"main": "a" * 40}
    asked = []
    monkeypatch.setattr(hub, "commit", lambda name, revision, kind: commits[revision or "main"])
    sample = read(SMALL)

    def read_pinned(data: Data) -> Any:
        asked.append(data.source)
        return sample

    monkeypatch.setattr(prepare.readers, "read", read_pinned)
    wanted = Data(source="hub:someone/crops")
    prepare.prepare(wanted, Split(), tmp_path / "set")
    prepare.prepare(wanted, Split(), tmp_path / "set")
    commits["main"] = "b" * 40
    prepare.prepare(wanted, Split(), tmp_path / "set")
    assert asked == [f"hub:someone/crops@{'a' * 40}", f"hub:someone/crops@{'b' * 40}"]
    assert json.loads((tmp_path / "set" / "dataset.json").read_text())["sources"] == {"series": asked[1]}
