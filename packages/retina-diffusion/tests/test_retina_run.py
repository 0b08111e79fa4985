"""The whole command on a tiny set: prepare, train, resume, predict, publish, and what goes wrong."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import error
from PIL import Image

from retina_diffusion import photographs, predict, prepare, sampler, subject, train
from retina_diffusion.__main__ import APP, main
from retina_diffusion.captions import Vocabulary
from retina_diffusion.channels import CHANNELS
from retina_diffusion.config import Config
from retina_diffusion.guidance import Guidance
from retina_diffusion.model_config import Sampling
from retina_diffusion.subject import Trained
from shared_core import manifest, records
from shared_core.records import RunDir
from shared_core.runtime import Runtime
from shared_core.weights import load_weights

TINY = [
    *("--data.sample_size", "60", "--data.size", "32", "--model.dim", "32", "--model.depth", "2", "--model.heads", "2"),
    *("--text.dim", "16", "--text.tokens", "8", "--batch-size", "16", "--training.steps", "7", "--epochs", "9"),
    *("--training.ema_decay", "0.9", "--sampling.steps", "2", "--evaluation.segmenter_steps", "8"),
    *("--evaluation.per_mask", "2", "--evaluation.grader_steps", "3", "--evaluation.generated", "20"),
    *("--logging.tracker", "none", "--logging.progress", "false", "--runtime.device", "cpu", "--runtime.threads", "1"),
    *("--name", "tiny"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    assert run(folder, "prepare") == 0
    assert run(folder, "train") == 0
    return folder


def run(folder: Path, verb: str, *flags: str) -> int:
    return main([verb, "--paths.data", str(folder / "data"), "--paths.runs", str(folder / "runs"), *TINY, *flags])


def of_run(folder: Path, *parts: str, name: str = "tiny") -> Path:
    return folder.joinpath("runs", "retina-diffusion", name, *parts)


def config_of(folder: Path) -> Config:
    config = APP.load(of_run(folder, "config.yaml"))
    assert isinstance(config, Config)
    return config


def trained(folder: Path) -> Trained:
    config = config_of(folder)
    return subject.of_run(RunDir(of_run(folder)), config, "best", Runtime.start(config.runtime, config.seed))


def asked(who: Trained, rows: int = 3) -> Any:
    material = train.Material.load(who.config)
    chosen = material.part("test")[:rows]
    pixels = [material.store.read(*row["place"]) for row in chosen]
    known = [photographs.known_of(row) for row in chosen]
    texts = [row["text"] for row in chosen]
    return who.condition([who.sample(*x, k, t) for x, k, t in zip(pixels, known, texts, strict=True)])


def test_training_learns_and_draws_as_it_goes(home: Path) -> None:
    rows = records.read_metrics(of_run(home))
    losses = [row["val/loss"] for row in rows if "val/loss" in row]
    assert len(losses) == 4 and losses[-1] < losses[0]  # 2 steps in each epoch, 7 in all
    grids = sorted(path.name for path in of_run(home, "samples").iterdir())
    assert grids == [f"grid-{step:07d}.png" for step in (2, 4, 6, 7)]
    with Image.open(of_run(home, "samples", grids[-1])) as grid:
        assert grid.height == 3 * (96 + 2)  # photographs, masks, samples: 32 pixels, three times as large
    assert {"train/grad_norm", "train/lr"} <= set().union(*rows)
    assert json.loads(of_run(home, "preprocessing", "words.json").read_text())["tokens"] == 8


def test_captions_that_are_cut_or_mirrored_are_said(home: Path) -> None:
    config = config_of(home)
    material = train.Material.load(config)
    runtime = Runtime.start(config.runtime, config.seed)
    assert train.FlowTask(config, runtime, material).warnings() == []
    said = ("Left eye.", "A right eye with one two three four five", "one two three four five six seven eight", "")
    rows = [{**row, "text": said[k % 4]} for k, row in enumerate(material.rows)]
    material = dataclasses.replace(material, rows=rows, vocabulary=Vocabulary.of(said, 8))
    cut, sided = train.FlowTask(config, runtime, material).warnings()
    assert cut == "text.tokens: 1 of 4 captions are longer than 8; the rest is not read"
    assert sided.startswith("augment.flip: 2 of 4 captions say left or right")
    still = config.model_copy(update={"augment": config.augment.model_copy(update={"flip": False})})
    assert train.FlowTask(still, runtime, material).warnings() == [cut]
    numbers = material.vocabulary.numbers  # made once, not for each sample
    assert material.vocabulary.encode("left").tolist()[0] == numbers["left"] and material.vocabulary.numbers is numbers


def test_a_run_that_is_stopped_goes_on_as_if_it_had_not(home: Path, tmp_path: Path) -> None:
    """Bit for bit: the noise, the times and the hidden masks are those of an uninterrupted run."""
    shutil.copytree(home / "data", tmp_path / "data")
    constant, whole, parts = (
        ("--scheduler.name", "constant"),
        of_run(tmp_path, name="whole"),
        of_run(tmp_path, name="parts"),
    )
    assert run(tmp_path, "train", *constant, "--name", "whole") == 0
    for steps in ("2", "5", "7"):
        newest = manifest.newest_good(parts / "checkpoints")[0] if parts.exists() else "auto"
        flags = (*constant, "--name", "parts", "--training.steps", steps, "--resume", str(newest))
        assert run(tmp_path, "train", *flags) == 0
    first, second = (load_weights(one, "ema") for one in (whole, parts))
    assert [path.name for path in parts.parent.iterdir() if path.name.startswith("parts")] == ["parts"]
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_images_are_those_of_seed_and_number_whatever_the_batch(home: Path) -> None:
    who = trained(home)
    three = who.draw(asked(who), [4, 5, 6], 1, who.config.sampling)
    again = who.draw(asked(who), [4, 5, 6], 1, who.config.sampling)
    assert torch.equal(three.x_B, again.x_B)
    alone = who.draw(asked(who, 1), [4], 1, who.config.sampling)
    torch.testing.assert_close(alone.x_B, three.x_B[:1], atol=1e-4, rtol=1e-4)
    other = who.draw(asked(who), [4, 5, 6], 2, who.config.sampling)
    assert not torch.allclose(other.x_B, three.x_B, atol=0.05)
    assert three.evaluations == 3  # Heun asks twice a step, but for the last


def test_shifted_times_are_other_steps(home: Path) -> None:
    who = trained(home)
    plain, shifted, same = (
        who.draw(asked(who), [0, 1, 2], 0, Sampling(steps=3, shift=shift)).x_B for shift in (None, 0.3, 1.0)
    )
    assert torch.equal(plain, same) and not torch.allclose(plain, shifted, atol=1e-3)


def test_each_condition_counts_and_guidance_turns_it_up(home: Path) -> None:
    who = trained(home)
    with torch.no_grad():
        for parameter in who.model.parameters():  # as if long trained: every path is open
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    ask = asked(who)
    noise = sampler.noise(0, [0, 1, 2], (3, 32, 32))

    def drawn(condition: Any, **how: float) -> torch.Tensor:
        wanted = Sampling(steps=2, guided_from=0.0, guided_to=1.0, **how)  # type: ignore[arg-type]
        return sampler.draw(who.model, noise, condition, who.config.model, wanted, 1.0).x_B

    plain = drawn(ask)
    for changed in (ask.without_masks(), ask.without_text(), ask.without_masks().without_text()):
        assert not torch.allclose(drawn(changed), plain, atol=1e-3)
    for how in ({"mask_guidance": 3.0}, {"text_guidance": 3.0}):
        assert not torch.allclose(drawn(ask, **how), plain, atol=1e-3)
    torch.testing.assert_close(
        drawn(ask, mask_guidance=0.0, text_guidance=0.0), drawn(ask.without_masks().without_text())
    )
    assert len(Guidance(2.0, 3.0).passes(0.5)) == 3


def test_predictions_are_a_data_set(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "made"
    assert run(home, "predict", "--count", "12", "--out", str(out)) == 0
    rows = [json.loads(line) for line in (out / "photographs.jsonl").read_text().splitlines()]
    assert len(rows) == 12 and {row["source"] for row in rows} == {"generated"}
    assert {row["split"] for row in rows} == {"train"} and {row["metadata"]["like_of"] for row in rows} == {
        "split train"
    }
    learned_from = {row["name"] for row in train.Material.load(config_of(home)).part("train")}
    assert {row["metadata"]["like"] for row in rows} <= learned_from
    assert rows[2]["metadata"]["number"] == 2 and rows[2]["metadata"]["evaluations"] == 3
    with Image.open(out / rows[0]["image_path"]) as image:
        assert image.size == (32, 32)
    assert (out / "sheet.png").is_file()
    data = config_of(home).data.model_copy(update={"source": str(out), "sample_size": 60})
    made = prepare.prepare(data, config_of(home).split, tmp_path / "prepared", bar=False)
    assert made["counts"]["photographs"] == 12
    material, mine = train.Material.load(config_of(home)), prepare.load(tmp_path / "prepared")
    like = {row["name"]: row for row in material.rows}[rows[0]["metadata"]["like"]]
    drawn, _ = prepare.store.Store(tmp_path / "prepared").read(*mine[0]["place"])
    assert drawn.shape == (3, 32, 32) and mine[0]["grade"] == like["grade"]


def test_the_masks_of_predictions_are_those_asked_for(home: Path, tmp_path: Path) -> None:
    """As covered shares, which is what the network was shown."""
    out = tmp_path / "made"
    assert run(home, "predict", "--count", "1", "--out", str(out)) == 0
    row = json.loads((out / "photographs.jsonl").read_text())
    material = train.Material.load(config_of(home))
    like = {one["name"]: one for one in material.rows}[row["metadata"]["like"]]
    _, mask = material.store.read(*like["place"])
    with Image.open(out / row["mask_path"]["OD"]) as picture:
        np.testing.assert_array_equal(np.asarray(picture), mask[4].numpy())


def test_no_mask_is_written_that_the_network_does_not_see(home: Path) -> None:
    """Nothing follows it: as a label it would be wrong."""
    sample = {"mask": torch.full((len(CHANNELS), 4, 4), 9, dtype=torch.uint8), "known": torch.ones(len(CHANNELS)) > 0}
    assert list(predict._masks(sample, ("OD", "FOV"))) == ["OD", "FOV"]
    sample["known"][CHANNELS.index("OD")] = False
    assert list(predict._masks(sample, ("OD", "FOV"))) == ["FOV"]


def test_images_stay_in_the_split_of_their_masks(home: Path, tmp_path: Path) -> None:
    """Else masks of test photographs would train whoever prepares the folder."""
    out = tmp_path / "made"
    assert run(home, "predict", "--count", "3", "--split", "test", "--out", str(out)) == 0
    assert run(home, "predict", "--count", "2", "--split", "test", "--out", str(out)) == 0
    rows = [json.loads(line) for line in (out / "photographs.jsonl").read_text().splitlines()]
    assert [row["split"] for row in rows] == 3 * ["test"]  # all that are there, not the two of the second call


def test_words_that_training_never_showed(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--count", "1", "--out", str(tmp_path / "made"))
    assert run(home, "predict", *flags, "--caption", "Fundus photograph of a zebra.") == 0
    assert "words that training never showed say nothing: of, a, zebra" in capsys.readouterr().err
    assert run(home, "predict", *flags, "--caption", "Striped zebra") == 2
    assert "knows none of these words; training taught it: " in error(capsys)


def test_masks_of_another_size_and_kind(home: Path, tmp_path: Path) -> None:
    """A model that was trained at 32 pixels draws at 48."""
    folder = tmp_path / "own"
    for part, name in (("images", "a.png"), ("masks", "a_OD.png")):
        (folder / part).mkdir(parents=True)
        mask = np.zeros((60, 60), np.uint8)
        mask[20:30, 10:20] = 255
        Image.fromarray(mask if part == "masks" else mask * 0 + 90).save(folder / part / name)
    flags = ("--input", str(folder), "--input_layout", "pairs", "--data.size", "48", "--out", str(tmp_path / "made"))
    assert run(home, "predict", *flags) == 0
    with Image.open(tmp_path / "made" / "images" / "000000.png") as image:
        assert image.size == (48, 48)


def test_images_of_masks_alone(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = np.zeros((50, 50), np.uint8)
    mask[20:30, 10:20] = 255
    (tmp_path / "masks").mkdir()
    for k in range(2):
        Image.fromarray(mask).save(tmp_path / "masks" / f"{k}_OD.png")
    line = {"mask_path": {"OD": "masks/0_OD.png", "EX": None}, "caption": "Fundus photograph."}
    (tmp_path / "lines.jsonl").write_text(json.dumps(line))
    (tmp_path / "empty.jsonl").write_text(json.dumps({"mask_path": {"OD": None}}))
    for source, count in (("lines.jsonl", 1), ("", 2)):
        out = tmp_path / f"made-{count}"
        flags = ("--input", str(tmp_path / source), "--input_layout", "auto" if source else "pairs")
        assert run(home, "predict", *flags, "--out", str(out)) == 0
        rows = [json.loads(row) for row in (out / "photographs.jsonl").read_text().splitlines()]
        assert [sorted(row["mask_path"]) for row in rows] == count * [["EX", "FOV", "OD"] if source else ["FOV", "OD"]]
    with Image.open(out / "images" / "000001.png") as image:
        assert image.size == (32, 32)
    assert run(home, "predict", "--input", str(tmp_path / "empty.jsonl"), "--out", str(tmp_path / "none")) == 2
    assert 'must be an object with "image_path", or with a mask' in error(capsys)
    assert run(home, "prepare", "--data.source", str(tmp_path / "lines.jsonl"), "--data.name", "alone") == 2
    assert 'lines.jsonl:1: must be an object with "image_path"' in error(capsys)


def test_predictions_go_on_where_they_stopped(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "made"
    assert run(home, "predict", "--count", "4", "--out", str(out)) == 0
    first = (out / "images" / "000001.png").read_bytes()
    (out / "metadata" / "000002.json").unlink()  # stopped before this one was whole
    (out / "images" / "000002.png").write_bytes(b"half a picture")
    Image.new("RGB", (32, 32)).save(out / "images" / "000001.png")  # kept as it is
    assert run(home, "predict", "--count", "6", "--out", str(out)) == 0
    assert (out / "images" / "000001.png").read_bytes() != first
    with Image.open(out / "images" / "000002.png") as image:
        image.load()
    assert len((out / "photographs.jsonl").read_text().splitlines()) == 6


def test_other_settings_do_not_mix_into_a_folder(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made"
    assert run(home, "predict", "--count", "1", "--out", str(out)) == 0
    assert run(home, "predict", "--count", "1", "--out", str(out), "--seed", "5") == 2
    assert "drawn with another seed; give another --out" in error(capsys)
    listed = tmp_path / "listed.jsonl"
    row = json.loads((out / "photographs.jsonl").read_text())
    row = {**row, "image_path": str(out / row["image_path"]), "mask_path": None}
    for grade, wanted in ((1, 0), (1, 0), (2, 2)):  # the list's content counts, not its name
        listed.write_text(json.dumps({**row, "grade": grade}))
        assert run(home, "predict", "--input", str(listed), "--out", str(tmp_path / "listed")) == wanted
    assert "drawn with another data; give another --out" in error(capsys)


def test_balanced_predictions(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "made"
    assert run(home, "predict", "--count", "10", "--balance", "grade", "--split", "train", "--out", str(out)) == 0
    grades = [json.loads(line)["grade"] for line in (out / "photographs.jsonl").read_text().splitlines()]
    material = train.Material.load(config_of(home))
    kinds = {row["grade"] for row in material.part("train")}
    assert {grade: grades.count(grade) for grade in kinds} == {grade: 10 // len(kinds) for grade in kinds}


def test_weights_of_another_architecture_are_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "predict", "--model.depth", "3", "--run", "tiny", "--count", "1") == 2
    assert "do not fit the configuration's model" in error(capsys)


def test_what_a_run_learned_from_does_not_judge_it(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(home, "evaluate", "--split.seed", "7") == 2
    assert "was trained with another split" in error(capsys)
    shutil.copytree(home, tmp_path / "home")
    about = of_run(tmp_path / "home", "run.json")
    text = json.loads(about.read_text())
    text["made_from"]["data"]["sha256"] = "0" * 64
    about.write_text(json.dumps(text))
    assert run(tmp_path / "home", "evaluate") == 2
    assert "is another data set than" in error(capsys)


def test_a_set_that_is_not_prepared_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "train") == 2
    assert "run `prepare` first" in error(capsys)
    assert not (tmp_path / "runs").exists()


def test_an_export_is_the_network(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "weights.pt"
    assert run(home, "export", "--out", str(out)) == 0
    assert "dit.x_embedder.weight" in torch.load(out, weights_only=True)["model_state_dict"]


def test_images_of_several_sizes_train_together(tmp_path: Path) -> None:
    """Photographs keep their aspect ratio; what is padded has no say."""
    for k in range(24):
        shape = ((40, 64), (64, 40), (48, 48))[k % 3]
        picture = np.random.default_rng(k).integers(60, 200, (*shape, 3), dtype=np.uint8)
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "images" / f"{k}.png")
        mask = np.zeros(shape, np.uint8)
        mask[10:20, 10:20] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{k}_OD.png")
    native = ["--data.source", str(tmp_path), "--data.aspect", "native", "--data.multiple", "8", "--batch-size", "8"]
    assert run(tmp_path, "prepare", *native) == 0
    assert run(tmp_path, "train", *native, "--training.steps", "2") == 0
    assert run(tmp_path, "predict", *native, "--count", "4") == 0
    who = trained(tmp_path)
    with torch.no_grad():
        for weight in who.model.parameters():  # so that noise matters
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    for method in ("heun", "dopri5"):  # an image is the same whatever is drawn beside it
        wanted = who.config.sampling.model_copy(update={"method": method})
        samples = [
            who.sample(torch.zeros(3, *size), torch.full((len(CHANNELS), *size), 99, dtype=torch.uint8),
                       torch.ones(len(CHANNELS)) > 0, "")
            for size in ((24, 40), (40, 24), (32, 32))
        ]  # fmt: skip
        together = who.draw(who.condition(samples), [7, 8, 9], 1, wanted).x_B
        assert together.shape == (3, 3, 40, 40)
        for k, sample in enumerate(samples):
            alone = who.draw(who.condition([sample]), [7 + k], 1, wanted).x_B
            height, width = alone.shape[2:]
            torch.testing.assert_close(together[k, :, :height, :width], alone[0], atol=1e-4, rtol=1e-4)
            assert (together[k, :, height:] == -1).all() and alone.std() > 0.1
    sizes = {Image.open(path).size for path in of_run(tmp_path, "predictions", "train", "images").glob("*.png")}
    assert sizes <= {(40, 24), (24, 40), (32, 32)} and len(sizes) > 1


@pytest.mark.slow
def test_two_processes_train_one_run(home: Path, tmp_path: Path) -> None:
    """What both found of the validation photographs is what one finds of the weights."""
    shutil.copytree(home / "data", tmp_path / "data")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    where = ["--paths.data", str(tmp_path / "data"), "--paths.runs", str(tmp_path / "runs")]
    command = [*launcher, "-m", "retina_diffusion", "train", *where, *TINY, "--batch-size", "8"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(of_run(tmp_path, "run.json").read_text())["processes"] == 2
    rows = [row for row in records.read_metrics(of_run(tmp_path)) if "val/loss" in row]
    assert [row["step"] for row in rows] == [2, 4, 6, 7]
    config = config_of(tmp_path)
    runtime = Runtime.start(config.runtime, config.seed)
    task = train.FlowTask(config, runtime)
    newest, _ = manifest.newest_good(of_run(tmp_path, "checkpoints"))
    assert newest is not None
    task.model.load_state_dict(load_weights(newest, "ema"))
    task.model.eval()
    with torch.no_grad():
        found = task.evaluate(task.model, runtime)
    assert found["val/loss"] == pytest.approx(rows[-1]["val/loss"], rel=1e-5)
