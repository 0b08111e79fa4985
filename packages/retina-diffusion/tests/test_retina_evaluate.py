"""The verb `evaluate`: what reaches which measure, what is found of generators that are known, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from command_line import error
from torch.nn import functional as F

from retina_diffusion import drawn, evaluate, judged, measures, saved, train
from retina_diffusion.__main__ import APP, main
from retina_diffusion.brightness import bytes_of, light
from retina_diffusion.captions import Vocabulary
from retina_diffusion.channels import CHANNELS
from retina_diffusion.config import Config, EvaluateOptions
from retina_diffusion.judged import Real
from retina_diffusion.store import Store
from retina_diffusion.train import Material
from shared_core import records
from shared_core.errors import UserError
from shared_core.records import RunDir

SIZE = 32
TINY = [
    *("--data.sample_size", "160", "--data.size", str(SIZE), "--model.dim", "32", "--model.depth", "1"),
    *("--model.heads", "2", "--text.dim", "16", "--text.tokens", "8", "--batch-size", "16", "--training.steps", "2"),
    *("--sampling.steps", "1", "--evaluation.segmenter_steps", "60", "--evaluation.per_mask", "2"),
    *("--evaluation.grader_steps", "2", "--evaluation.generated", "20", "--evaluation.training_photographs", "12"),
    *("--logging.tracker", "none", "--logging.progress", "false", "--runtime.device", "cpu", "--runtime.threads", "1"),
    *("--name", "tiny"),
]
Fake = Callable[[Material, list[dict[str, Any]], int], torch.Tensor]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    assert run(folder, "prepare") == 0
    assert run(folder, "train") == 0
    return folder


def run(folder: Path, verb: str, *flags: str) -> int:
    return main([verb, "--paths.data", str(folder / "data"), "--paths.runs", str(folder / "runs"), *TINY, *flags])


def of_run(folder: Path, *parts: str) -> Path:
    return folder.joinpath("runs", "retina-diffusion", "tiny", *parts)


def config_of(folder: Path) -> Config:
    config = APP.load(of_run(folder, "config.yaml"))
    assert isinstance(config, Config)
    return config


def material_of(folder: Path) -> Material:
    return Material.load(config_of(folder))


def evaluated(home: Path, monkeypatch: pytest.MonkeyPatch, fake: Fake) -> dict[str, Any]:
    """The evaluation of a generator that gives what `fake` says for some rows, so many each."""
    material = material_of(home)

    def draw(
        who: Any, store: Store, rows: list[dict[str, Any]], each: int, seed: int, size: int, what: str
    ) -> torch.Tensor:
        return fake(material, rows, each)

    monkeypatch.setattr(drawn, "draw", draw)
    without_pictures(monkeypatch)
    assert run(home, "evaluate") == 0
    return records.read_evaluations(RunDir(of_run(home)))["test"]


def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of the time."""
    for module, name in ((evaluate.report, "write"), (measures.figures, "samples"), (measures.figures, "closest")):
        monkeypatch.setattr(module, name, lambda *_, **__: Path("none.png"))


def pixels(material: Material, rows: list[dict[str, Any]]) -> torch.Tensor:
    return torch.stack([material.store.read(*row["place"])[0] for row in rows])


def own(material: Material, rows: list[dict[str, Any]], each: int) -> torch.Tensor:
    """The very photograph that is asked for."""
    return pixels(material, rows).repeat_interleave(each, dim=0)


def of_others(material: Material, rows: list[dict[str, Any]], each: int) -> torch.Tensor:
    """Photographs of the same split, but of other masks."""
    return own(material, rows, each).roll(each, dims=0)


def copies(material: Material, rows: list[dict[str, Any]], each: int) -> torch.Tensor:
    """Training photographs, moved by a pixel, whatever is asked for."""
    images = pixels(material, material.part("train"))
    images = F.pad(images, (1, -1, -1, 1))
    return images[torch.arange(len(rows) * each) % len(images)]


def test_an_evaluation_holds_all_that_is_said_of_it(home: Path) -> None:
    assert run(home, "evaluate", "--downstream", "--crossed") == 0
    found = records.read_evaluations(RunDir(of_run(home)))["test"]
    metrics, baselines = found["metrics"], found["baselines"]
    assert found["headline"] == "mask_fidelity" and found["n"] == len(material_of(home).part("test"))
    assert set(baselines) == {"masks shuffled", "real photographs", "real against real", "photographs of test"}
    own_score = baselines["real photographs"]["mask_fidelity"]["value"]
    ratio = metrics["mask_fidelity"]["value"] / own_score
    assert metrics["mask_fidelity_share"]["value"] == pytest.approx(ratio, rel=1e-6)
    assert metrics["kid"]["low"] <= metrics["kid"]["value"] <= metrics["kid"]["high"]
    assert metrics["fid"]["n"] == baselines["real against real"]["fid"]["n"] == found["n"] // 2
    assert metrics["fid"]["value"] > baselines["real against real"]["fid"]["value"]  # it has hardly learned
    ratio = metrics["mask_fidelity_crossed"]["value"] / baselines["real photographs"]["mask_fidelity_crossed"]["value"]
    assert metrics["mask_fidelity_crossed_share"]["value"] == pytest.approx(ratio, rel=1e-6)
    assert set(baselines["masks shuffled"]["differences"]) == {"mask_fidelity", "mask_dice", "mask_fidelity_crossed"}
    assert {"gain_accuracy", "gain_macro_f1", "memorised", "memorised_of_training"} <= set(metrics)
    assert metrics["memorised_of_training"]["n"] == 12
    assert "Distance of generated images from real ones" in found["tables"]
    assert len(found["figures"]) == 3
    for figure in found["figures"]:
        assert of_run(home, figure).is_file()
    assert "not of Inception's" in " ".join(found["notes"]) and "another set for each" in " ".join(found["notes"])


def test_perfect_images_follow_their_masks_and_lie_at_the_floor(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the model to give each mask its own photograph, the share would be 1, the distance that of real ones."""
    found = evaluated(home, monkeypatch, own)
    metrics, baselines = found["metrics"], found["baselines"]
    assert metrics["mask_fidelity_share"]["value"] == metrics["mask_dice_share"]["value"] == pytest.approx(1.0)
    assert baselines["masks shuffled"]["differences"]["mask_fidelity"]["low"] > 0
    for name in ("fid", "kid"):
        assert metrics[name]["value"] == baselines["real against real"][name]["value"]
    assert metrics["memorised"]["low"] < 0.05  # photographs that were not trained on
    assert metrics["memorised_of_training"]["value"] == 1.0
    assert baselines["photographs of test"]["memorised_of_training"]["value"] == 1.0


def test_photographs_of_other_masks_follow_none(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = evaluated(home, monkeypatch, of_others)
    gap = found["baselines"]["masks shuffled"]["differences"]["mask_dice"]
    assert gap["low"] < 0.03 and gap["value"] < 0.1
    assert found["metrics"]["mask_dice_share"]["value"] < 0.8


def test_planted_copies_of_training_photographs_are_reported(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = evaluated(home, monkeypatch, copies)["metrics"]
    assert metrics["memorised"]["value"] > 0.9 and metrics["memorised_of_training"]["value"] > 0.9


def test_copies_of_validation_photographs_are_none(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what was trained on can be memorised."""

    def of_val(material: Material, rows: list[dict[str, Any]], each: int) -> torch.Tensor:
        images = pixels(material, material.part("val"))
        return images[torch.arange(len(rows) * each) % len(images)]

    assert evaluated(home, monkeypatch, of_val)["metrics"]["memorised"]["value"] < 0.2


def test_the_judge_learns_from_training_photographs_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And its thresholds are chosen on validation photographs."""
    given: dict[str, torch.Tensor] = {}

    def watched(images: torch.Tensor, *_: Any, val: tuple[torch.Tensor, ...], **__: Any) -> None:
        given["train"], given["val"] = bytes_of(images), bytes_of(val[0])
        raise UserError("seen")

    monkeypatch.setattr(saved.segmentation, "fit", watched)
    of_run(home, "evaluation", saved.SEGMENTER).unlink(missing_ok=True)
    assert run(home, "evaluate") == 2 and "seen" in error(capsys)
    material = material_of(home)
    assert set(given) == {"train", "val"}
    for name, found in given.items():
        assert torch.equal(found, pixels(material, [row for row in material.part(name) if row["masks"]]))


def test_the_judge_is_kept_for_the_next_evaluation(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted, fit = [], saved.segmentation.fit

    def watched(images: torch.Tensor, *more: Any, **options: Any) -> Any:
        fitted.append(len(images))
        return fit(images, *more, **options)

    monkeypatch.setattr(saved.segmentation, "fit", watched)
    config, material, run_ = config_of(home), material_of(home), RunDir(of_run(home))
    config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"segmenter_steps": 1})})
    path = run_.evaluation / saved.SEGMENTER

    def judge(size: int = SIZE) -> dict[str, torch.Tensor]:
        parts = [Real.load(material.store, material.part(name)[:8], size) for name in ("train", "val")]
        return saved.segmenter(run_, config, material.fingerprint, *parts, torch.device("cpu")).state_dict()

    first, again = judge(), judge()
    assert fitted == [8] and all(torch.equal(first[name], again[name]) for name in first)
    judge(24)  # another size is another ruler
    assert len(fitted) == 2
    path.write_bytes(path.read_bytes()[:100])
    judge(24)
    assert len(fitted) == 3
    path.unlink()


def test_what_is_known_is_written_before_graders_are_trained(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise UserError("stopped")

    monkeypatch.setattr(measures.downstream, "gain", stopped)
    without_pictures(monkeypatch)
    of_run(home, "evaluation", "test.json").unlink(missing_ok=True)
    assert run(home, "evaluate", "--downstream") == 2
    assert "mask_fidelity" in records.read_evaluations(RunDir(of_run(home)))["test"]["metrics"]


def rows_of(grades: list[int | None], masks: list[str] | None = None, size: int = SIZE) -> list[dict[str, Any]]:
    masks = masks or ["OD"] * len(grades)
    return [
        {"grade": grade, "masks": [mask], "present": [mask], "known": [mask], "size": [size, size], "text": ""}
        for grade, mask in zip(grades, masks, strict=True)
    ]


def material_with(train_: list[int | None], test: list[int | None]) -> Material:
    parts = {"train": np.arange(len(train_)), "val": np.arange(0), "test": len(train_) + np.arange(len(test))}
    return Material(Store(Path()), rows_of([*train_, *test]), parts, Vocabulary((), 4))


@pytest.mark.parametrize(
    ("train_", "test", "downstream", "message"),
    [
        ([0, 1, 2, 3], [0, 1, 2], False, "split.test: 3 photographs in test; evaluate needs 4"),
        ([0, 1, 2], [0, 1, 2, 3], False, "data.source: 3 photographs in train"),
        ([0, 1, 2, 3], [None] * 4, True, "--downstream: needs photographs with grades.* of one in test, which has 0"),
        ([None] * 4, [0, 1, 2, 3], True, "in train, which has 0"),
        ([1] * 4, [0, 1, 2, 3], True, "in train, which has 1"),
    ],
)
def test_too_few_photographs_are_said_before_anything_is_drawn(
    train_: list[int | None], test: list[int | None], downstream: bool, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        evaluate.require_enough(material_with(train_, test), EvaluateOptions(downstream=downstream))


def test_evaluate_refuses_before_it_draws(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without grades, as the verb says it."""
    part = train.Material.part

    def ungraded(self: Material, name: str) -> list[dict[str, Any]]:
        return [{**row, "grade": None} for row in part(self, name)]

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("drawn")

    monkeypatch.setattr(train.Material, "part", ungraded)
    monkeypatch.setattr(drawn, "draw", never)
    assert run(home, "evaluate", "--downstream") == 2
    assert "leave it out" in error(capsys)


def test_images_are_judged_at_256_pixels_at_most_unless_told() -> None:
    config = Config()

    def at(size: int, told: int | None = None) -> int:
        data = config.data.model_copy(update={"size": size})
        evaluation = config.evaluation.model_copy(update={"size": told})
        return evaluate.side(config.model_copy(update={"data": data, "evaluation": evaluation}))

    assert (at(48), at(1024), at(1024, 512), at(48, 24)) == (48, 256, 512, 24)
    with pytest.raises(UserError, match=r"data\.size: 8; images are judged from 11 pixels"):
        at(8)


def test_classes_are_those_that_two_photographs_show() -> None:
    """Photographs may each know another class."""

    def real(masks: list[str]) -> Real:
        count = len(masks)
        empty = torch.zeros(count, len(CHANNELS), 4, 4, dtype=torch.uint8)
        return Real(rows_of([0] * count, masks), empty[:, :3], empty, torch.ones(count, len(CHANNELS)).bool())

    config = Config()
    assert evaluate.judged_classes(config, real(["OD", "EX", "OD", "EX", "HE"])) == ("EX", "OD")
    with pytest.raises(UserError, match="no image could be said to follow"):
        evaluate.judged_classes(config, real(["OD", "EX"]))
    told = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"classes": ("HE", "OD")})})
    with pytest.raises(UserError, match=r"evaluation\.classes: fewer than two of these photographs have HE"):
        evaluate.judged_classes(told, real(["OD", "OD", "HE"]))


def test_some_of_many_are_spread_over_all() -> None:
    assert evaluate.evenly(np.arange(101), 5).tolist() == [0, 25, 50, 75, 100]
    assert evaluate.evenly(np.arange(3), 5).tolist() == evaluate.evenly(np.arange(3), None).tolist() == [0, 1, 2]


def test_each_image_is_drawn_at_its_photographs_size_and_stands_in_its_place() -> None:
    """The images of this model are flat, and their light is their number."""
    sizes = [(32, 32), (24, 40), (32, 32), (40, 24), (24, 40)]
    asked: list[tuple[int, int]] = []

    class Model:
        config = Config.model_validate({"sampling": {"batch_size": 3}, "logging": {"progress": False}})

        def hear(self, texts: Any) -> None:
            assert list(texts) == [""] * 5

        def sample(self, image: torch.Tensor, mask: torch.Tensor, known: torch.Tensor, text: str) -> torch.Tensor:
            assert image.shape[1:] == mask.shape[1:]
            return image

        def condition(self, samples: list[torch.Tensor]) -> torch.Tensor:
            return torch.stack(samples)  # fails where sizes differ

        def draw(self, condition: torch.Tensor, numbers: list[int], seed: int, wanted: Any) -> Any:
            asked.extend([(condition.shape[2], condition.shape[3])] * len(numbers))
            lights = torch.tensor([(10 + 20 * number) / 127.5 - 1 for number in numbers])
            return SimpleNamespace(x_B=lights[:, None, None, None].expand(-1, 3, *condition.shape[2:]))

    class Masks:
        def mask(self, number: int) -> torch.Tensor:
            return torch.zeros(len(CHANNELS), *sizes[number], dtype=torch.uint8)

    rows = [
        {**row, "size": list(size), "place": [k]}
        for k, (row, size) in enumerate(zip(rows_of([0] * 5), sizes, strict=True))
    ]
    found = drawn.draw(Model(), Masks(), rows, 2, 0, 20, "images")  # type: ignore[arg-type]
    assert found.shape == (10, 3, 20, 20)
    assert found[:, :, 10, 10].tolist() == [[10 + 20 * number] * 3 for number in range(10)]
    assert sorted(asked) == sorted(size for size in sizes for _ in range(2))
    wide, tall = found[2], found[6]
    assert not wide[:, :4].any() and wide[:, 4:16].all() and not tall[:, :, :4].any()  # fitted, not squeezed


def test_what_is_fitted_keeps_its_shape() -> None:
    """A disc stays a disc, and masks and images are moved alike."""
    height, width = 60, 120
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    disc = (((rows - 30) ** 2 + (columns - 50) ** 2) < 20**2).to(torch.uint8)[None] * 255
    found = judged.fitted(disc, 60)[0].float() / 255
    there = found >= 0.5
    assert abs(int(there.any(0).sum()) - int(there.any(1).sum())) <= 1
    assert float(found.sum()) == pytest.approx(float(disc.sum()) / 255 / 4, rel=0.02)
    assert torch.equal(judged.fitted(disc[:, :, :60], 60), disc[:, :, :60])


def test_light_and_bytes_are_inverse() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(bytes_of(light(every)), every)


def test_what_is_looked_at_does_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    every = torch.randint(0, 256, (7, 3, 4, 4), dtype=torch.uint8)
    monkeypatch.setattr(judged, "AT_A_TIME", 3)
    found = judged.each(lambda image: image.mean(dim=(2, 3)), every, torch.device("cpu"))
    torch.testing.assert_close(found, light(every).mean(dim=(2, 3)))
