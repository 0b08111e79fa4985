"""The cache of embeddings: resumable, of one set, look and tower, and the same as looking again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub_server import Hub
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_core.errors import UserError
from shared_core.runtime import Runtime
from timeseries_dualmodal import embeddings, train
from timeseries_dualmodal.__main__ import main
from timeseries_dualmodal.config import Config
from timeseries_dualmodal.embeddings import DATA, MANIFEST, RECORD, Embeddings, Recalled

pytest_plugins = ("hub_fixtures",)

N, V, T, E = 23, 3, 12, 5
LENGTHS = (2, 5, 12)
TOWER = {"model.vision.tower": "bob/net@1", "weights": "ab", "model.vision.layer": None}
ABOUT: dict[str, Any] = {
    "format": 1,
    "fingerprint": "f" * 64,
    "look": {"size": 32, "scaling": "fixed"},
    "axes": {"time": [0, 11], "low": [0.0], "high": [1.0]},
    "times": [0.0],
    "fitted": {},
    "tower": TOWER,
}


def series() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, V, T)).astype(np.float32)


def embed(x_BVT: torch.Tensor, length_B: torch.Tensor) -> torch.Tensor:
    """(B, V, E): sums and the like of what is before the length."""
    known = torch.arange(x_BVT.shape[2]) < length_B[:, None, None]
    total = (x_BVT * known).sum(dim=2)
    return torch.stack([total, total * 2, -total, total**2, length_B[:, None].expand_as(total)], dim=-1)


def write(folder: Path, **changed: Any) -> None:
    arguments: dict[str, Any] = {"about": ABOUT, "x_NVT": series(), "lengths": LENGTHS, "embed": embed, "features": E}
    embeddings.write(folder, **{**arguments, **changed}, bar=False)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of two series."""
    monkeypatch.setattr(embeddings, "AT_A_TIME", 2 * V * len(LENGTHS))


def expected(row: int, length: int) -> torch.Tensor:
    return embed(torch.from_numpy(series()[row : row + 1]), torch.tensor([length]))[0].half().float()


@pytest.mark.usefixtures("small")
def test_rows_are_what_the_tower_saw(tmp_path: Path) -> None:
    write(tmp_path / "e")
    found = embeddings.open_embeddings(tmp_path / "e", ABOUT)
    assert found.lengths == LENGTHS
    got = found.read(torch.tensor([22, 0, 7]), torch.tensor([[2, 12], [5, 5], [12, 2]]))
    assert got.shape == (3, 2, V, E)
    for index, (row, lengths) in enumerate(zip((22, 0, 7), ((2, 12), (5, 5), (12, 2)), strict=True)):
        for k, length in enumerate(lengths):
            assert torch.allclose(got[index, k], expected(row, length), rtol=1e-3, atol=1e-3)
    plain = np.load(tmp_path / "e" / DATA)  # anybody's reader can have it
    assert plain.shape == (N, 3, V, E) and plain.dtype == np.float16


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(2, T), min_size=1, max_size=8))
def test_a_prefix_is_cut_to_the_largest_length_not_beyond_it(asked: list[int]) -> None:
    there = Embeddings(Path("e"), LENGTHS, np.zeros((N, 3, V, E), np.float16))
    shown = there.shown(torch.tensor([asked]))[0].tolist()
    assert shown == [max(length for length in LENGTHS if length <= one) for one in asked]
    assert torch.equal(there.shown(torch.tensor([shown])), torch.tensor([shown]))


def test_a_prefix_that_is_shorter_than_all_is_refused() -> None:
    there = Embeddings(Path("e"), LENGTHS, np.zeros((N, 3, V, E), np.float16))
    with pytest.raises(UserError, match=r"e: holds nothing of prefixes of 1 steps, the shortest has 2; .*--scales"):
        there.shown(torch.tensor([[3, 1]]))


def test_eyes_know_where_a_part_of_the_set_is(tmp_path: Path) -> None:
    write(tmp_path)
    eyes = Recalled(embeddings.open_embeddings(tmp_path, ABOUT), torch.tensor([20, 3, 11]))
    lengths, seen = eyes.see(torch.zeros(2, V, T), torch.tensor([[12, 7], [3, 5]]), torch.tensor([2, 0]))
    assert lengths.tolist() == [[12, 5], [2, 5]]
    assert torch.allclose(seen[0, 1], expected(11, 5), rtol=1e-3, atol=1e-3)
    assert torch.allclose(seen[1, 0], expected(20, 2), rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("stop", [1, 7, 20, 33])
def test_what_was_interrupted_goes_on(tmp_path: Path, stop: int) -> None:
    calls: list[int] = []

    def breaks(x_BVT: torch.Tensor, length_B: torch.Tensor) -> torch.Tensor:
        calls.append(len(x_BVT))
        if len(calls) == stop:
            raise KeyboardInterrupt
        return embed(x_BVT, length_B)

    write(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "e", embed=breaks)
    assert not (tmp_path / "e" / MANIFEST).exists() and not (tmp_path / "e" / DATA).exists()
    with pytest.raises(UserError, match="holds no finished embeddings"):
        embeddings.open_embeddings(tmp_path / "e", ABOUT)
    calls.clear()
    write(tmp_path / "e", embed=lambda x, length: calls.append(len(x)) or embed(x, length))
    assert (tmp_path / "e" / DATA).read_bytes() == (tmp_path / "whole" / DATA).read_bytes()
    assert sum(calls) == len(LENGTHS) * (
        N - max(0, 2 * ((stop - 1) // 3 - 1))
    )  # all but the last block that was written
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == [MANIFEST, DATA]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("left", [0, 10, 200, 1000])
def test_half_a_block_is_made_again(tmp_path: Path, left: int) -> None:
    write(tmp_path / "whole")
    write(tmp_path / "e")
    data, part = tmp_path / "e" / DATA, tmp_path / "e" / f"{DATA}.part"
    part.write_bytes(data.read_bytes()[:left])
    (tmp_path / "e" / MANIFEST).rename(tmp_path / "e" / RECORD)
    data.unlink()
    write(tmp_path / "e")
    assert data.read_bytes() == (tmp_path / "whole" / DATA).read_bytes()


def test_what_is_there_is_not_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    write(tmp_path, embed=lambda x, length: pytest.fail("looked again"))
    assert "up to date" in capsys.readouterr().err
    write(tmp_path, about={**ABOUT, "fingerprint": "0" * 64})
    embeddings.open_embeddings(tmp_path, {**ABOUT, "fingerprint": "0" * 64})


def test_values_that_are_too_large_are_bounded(tmp_path: Path) -> None:
    write(tmp_path, embed=lambda x, length: embed(x, length) * 1e9)
    assert np.isfinite(np.load(tmp_path / DATA)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "0" * 64}, "made from another prepared set"),
        ({"look": {**ABOUT["look"], "size": 64}}, "with size 32 instead of 64"),
        ({"axes": {**ABOUT["axes"], "low": [0.5]}}, "on other axes"),
        (
            {"tower": {**TOWER, "model.vision.tower": "bob/net@2"}},
            "with model.vision.tower bob/net@1 instead of bob/net@2",
        ),
        ({"tower": {**TOWER, "weights": "cd"}}, "with weights ab instead of cd"),
        ({"tower": {**TOWER, "model.vision.layer": 3}}, "with model.vision.layer None instead of 3"),
    ],
)
def test_those_of_something_else_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write(tmp_path / "e")
    with pytest.raises(UserError, match=message) as caught:
        embeddings.open_embeddings(tmp_path / "e", {**ABOUT, **change})
    assert "prepare --embeddings --embeddings-dir" in str(caught.value) and "\n" not in str(caught.value)


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder of embeddings; make it with"):
        embeddings.open_embeddings(tmp_path / "e", ABOUT)
    write(tmp_path / "e")
    data = (tmp_path / "e" / DATA).read_bytes()
    (tmp_path / "e" / DATA).write_bytes(data[:-2])
    with pytest.raises(UserError, match=rf"{DATA}: is missing or truncated"):
        embeddings.open_embeddings(tmp_path / "e", ABOUT)
    (tmp_path / "e" / DATA).unlink()
    with pytest.raises(UserError, match=rf"{DATA}: is missing or truncated"):
        embeddings.open_embeddings(tmp_path / "e", ABOUT)
    for text in ("{", "[]", json.dumps({"format": 1})):
        (tmp_path / "e" / MANIFEST).write_text(text)
        with pytest.raises(UserError, match="make it with"):
            embeddings.open_embeddings(tmp_path / "e", ABOUT)


def test_a_disk_without_room_is_named_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared_core.files.free_bytes", lambda path: 10)
    with pytest.raises(UserError, match="the embeddings needs"):
        write(tmp_path / "e", embed=lambda x, length: pytest.fail("looked"))


# the whole way: prepare --embeddings, then training and validation read them


def wanted(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {
        "paths": {"data": str(tmp_path / "data"), "runs": str(tmp_path / "runs")},
        "data": {"sample_size": 80},
        "pictures": {"size": 16, "line_width": 1.0, **more},
        "model": {"dim": 16, "language": {"dim": 16, "depth": 1}, "vision": {"tower": "bob/vit", "dim": 16}},
        "curriculum": {"stages": [{"shortest": 0.2}]},
        "training": {"epochs": 1, "batch_size": 28},
        "logging": {"progress": False, "tracker": "none"},
        "runtime": {"device": "cpu"},
        "evaluation": {"lengths": [6, 20], "every": 6},
    }


@pytest.fixture
def hub(server: Hub, tmp_path: Path) -> Hub:
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    layers = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    ViTModel(ViTConfig(**layers, image_size=16, patch_size=8)).save_pretrained(tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").write_text(
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "size": 16}'
    )
    server.add("bob/vit", {file.name: file.read_bytes() for file in (tmp_path / "vit").iterdir()})
    return server


@pytest.mark.usefixtures("hub")
def test_training_reads_what_looking_again_would_show(tmp_path: Path) -> None:
    folder, file = tmp_path / "e", tmp_path / "c.yaml"
    file.write_text(json.dumps(wanted(tmp_path)))
    assert (
        main(["prepare", "--config", str(file), "--embeddings", "--scales", "5,20", "--embeddings-dir", str(folder)])
        == 0
    )
    runtime = Runtime.start(Config().runtime, 0)
    lengths = {"evaluation": {"lengths": [5, 20]}}
    live = train.EarlyTask(Config.model_validate(wanted(tmp_path) | lengths), runtime)
    reads = train.EarlyTask(Config.model_validate(wanted(tmp_path, embeddings=folder) | lengths), runtime)
    batch = next(iter(reads.batches.epoch(0)))
    assert batch["seen"].shape == (28, 1, 14, 8)
    assert set(batch["length"].unique().tolist()) <= {5, 20, 37}
    assert live.eyes is not None
    _, pictures = live.eyes.see(batch["x"], batch["length"], batch["row"])
    x, length = batch["x"], batch["length"]
    with torch.no_grad():
        assert torch.allclose(
            reads.model.eval()(x, length, batch["seen"]).logits_BKC, live.model.eval()(x, length, pictures).logits_BKC,
            atol=1e-2,
        )  # fmt: skip
        shown = (5, 20, 37)
        logits = [train.predict(task.model, task.val, shown, task.val_eyes, runtime) for task in (reads, live)]
    assert torch.allclose(*logits, atol=1e-2)
    for length in (3, 7):  # before an epoch is spent
        other = wanted(tmp_path, embeddings=folder) | {"evaluation": {"lengths": [5, length]}}
        with pytest.raises(UserError, match=f"holds nothing after {length} steps, which validation reports"):
            train.EarlyTask(Config.model_validate(other), runtime)
    loss, _ = reads.loss(reads.model.train(), batch)
    loss.backward()
    assert torch.isfinite(loss)


@pytest.mark.slow  # a whole run
@pytest.mark.usefixtures("hub")
def test_a_run_trains_is_evaluated_and_predicts(tmp_path: Path) -> None:
    folder, file = tmp_path / "data" / "timeseries-dualmodal" / "sample" / "embeddings", tmp_path / "c.yaml"
    file.write_text(json.dumps(wanted(tmp_path)))
    flags = ["--config", str(file)]
    assert main(["prepare", *flags, "--embeddings"]) == 0
    assert main(["plan", *flags, "--embeddings-dir", str(folder), "--steps", "1"]) == 0
    assert main(["train", *flags, "--embeddings-dir", str(folder)]) == 0
    (checkpoint,) = (tmp_path / "runs").glob("*/*/checkpoints/step-*")
    assert (checkpoint / "model.safetensors").stat().st_size < 500_000
    assert main(["predict", *flags, "--embeddings-dir", str(folder)]) == 0


@pytest.mark.usefixtures("hub")
def test_a_missing_folder_says_how_to_make_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(wanted(tmp_path)))
    assert main(["prepare", "--config", str(file)]) == 0
    assert main(["train", "--config", str(file), "--embeddings-dir", str(tmp_path / "e")]) == 2
    assert (
        "there is no such folder of embeddings; make it with `dualmodal prepare --embeddings" in capsys.readouterr().err
    )


def test_without_a_frozen_tower_there_is_nothing_to_keep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--paths.data", str(tmp_path), "--data.sample-size", "80"]
    assert main(["prepare", *flags, "--embeddings"]) == 2
    assert "--embeddings: only a frozen model of the Hub has them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {}}, "is about a frozen model of the Hub"),
        ({"model": {"vision": {"tower": "a/b", "frozen": False}}}, "is about a frozen model of the Hub"),
        ({"pictures": {"embeddings": "e", "cache": "c"}}, "takes the place of pictures"),
        ({"augment": {"noise": 0.1}}, "augment.noise would not reach them"),
    ],
)
def test_settings_that_contradict_are_refused(change: dict[str, Any], message: str) -> None:
    good = {"pictures": {"embeddings": "e"}, "model": {"vision": {"tower": "a/b"}}}
    Config.model_validate(good)
    with pytest.raises(ValueError, match=message):
        Config.model_validate({**good, **change})
