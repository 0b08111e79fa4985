"""Pretrained towers: real code of `transformers` and of the Hub's client, small random weights, a Hub on loopback."""

from __future__ import annotations

import copy
import functools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hub_server import Hub
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_core import weights
from shared_core.errors import UserError
from timeseries_dualmodal import curriculum, train
from timeseries_dualmodal.__main__ import main
from timeseries_dualmodal.config import Config
from timeseries_dualmodal.description import Description
from timeseries_dualmodal.hublanguage import HubLanguage
from timeseries_dualmodal.hubvision import HubVision, Pixels
from timeseries_dualmodal.members import Members
from timeseries_dualmodal.model_config import Language, Model, Vision
from timeseries_dualmodal.plots import colours, paint
from timeseries_dualmodal.pretrained import Pretrained, checksum

pytest_plugins = ("hub_fixtures",)

V, T, C, SIZE, P = 3, 9, 4, 32, 4
LAYERS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
PATCHES = {**LAYERS, "image_size": SIZE, "patch_size": 8}
WORDS = {**LAYERS, "vocab_size": 50}
STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1]}
VISION: dict[str, tuple[str, dict[str, Any]]] = {
    "clip": ("CLIPVisionModel", PATCHES),
    "vit": ("ViTModel", PATCHES),
    "dinov2": ("Dinov2Model", PATCHES),
    "swin": (
        "SwinModel",
        {"image_size": SIZE, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
    ),
    "resnet": ("ResNetModel", {**STAGES, "embedding_size": 8, "layer_type": "basic"}),
    "convnext": ("ConvNextModel", {**STAGES, "num_stages": 2}),
}
LANGUAGE: dict[str, tuple[str, dict[str, Any]]] = {
    "clip": ("CLIPTextModel", {**WORDS, "projection_dim": 16}),
    "bert": ("BertModel", WORDS),
    "gpt2": ("GPT2Model", {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 50}),
}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
PIXELS = Pixels(MEAN, STD, SIZE)


def network(kind: str, options: dict[str, Any], seed: int = 0) -> torch.nn.Module:
    import transformers

    torch.manual_seed(seed)
    maker = getattr(transformers, kind)
    return maker(maker.config_class(**options)).eval()


def pretrained(kind: tuple[str, dict[str, Any]], key: str, seed: int = 0) -> Pretrained:
    made = network(*kind, seed)
    return Pretrained(key, "bob/net@" + "0" * 40, made, checksum(made))


def sight(kind: str, size: int = SIZE, **wanted: Any) -> HubVision:
    settings = Vision(tower="bob/net", dim=12, dropout=0, **wanted)
    return HubVision(pretrained(VISION[kind], "model.vision.tower"), PIXELS, V, size, settings)


def words(kind: str, steps: int = T, **wanted: Any) -> HubLanguage:
    settings = Language(tower="bob/net", dim=12, patch=P, dropout=0, **wanted)
    return HubLanguage(pretrained(LANGUAGE[kind], "model.language.tower"), V, steps, settings)


@functools.cache
def reader(kind: str) -> HubLanguage:
    return words(kind).eval()


def pictures(n: int = 5, size: int = SIZE, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, V, size, size), dtype=torch.uint8, generator=generator)


def series(batch: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised values and which are known."""
    generator = torch.Generator().manual_seed(seed)
    known = torch.rand(batch, V, T, generator=generator) > 0.2
    return torch.randn(batch, V, T, generator=generator) * known, known


# sight


@pytest.mark.parametrize(("frozen", "layer"), [(True, None), (False, None), (False, 1)])
@pytest.mark.parametrize("kind", VISION)
def test_any_vision_model_sees_and_trains(kind: str, frozen: bool, layer: int | None) -> None:
    tower = sight(kind, frozen=frozen, layer=layer).train()
    found = tower(pictures())
    assert found.shape == (5, V, 12)
    found.square().sum().backward()
    trained = [name for name, p in tower.named_parameters() if p.requires_grad]
    # or processes would wait for each other
    assert [name for name in trained if tower.get_parameter(name).grad is None] == []
    assert any(name.startswith("network") for name in trained) != frozen


@pytest.mark.parametrize("kind", ["clip", "resnet"])
def test_pictures_are_in_colour_and_normalised_as_the_model_wants_them(kind: str) -> None:
    """Against the library called by hand; the predecessor forgot to normalise."""
    tower, seen = sight(kind).eval(), pictures()
    rgb = paint(seen, colours(V)).flatten(0, 1)
    expected = (rgb - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    wanted = network(*VISION[kind])(pixel_values=expected).pooler_output.reshape(5, V, -1)
    assert torch.allclose(tower.embed(seen), wanted, atol=1e-5)


def test_a_layer_is_the_mean_of_its_tokens() -> None:
    seen = pictures()
    pixels = (paint(seen, colours(V)).flatten(0, 1) - sight("vit").mean_311) / sight("vit").std_311
    hidden = network(*VISION["vit"])(pixel_values=pixels, output_hidden_states=True).hidden_states
    assert torch.allclose(sight("vit", layer=1).embed(seen).flatten(0, 1), hidden[1].mean(dim=1), atol=1e-5)
    assert torch.allclose(sight("vit", layer=-1).embed(seen), sight("vit", layer=2).embed(seen))


def test_many_pictures_are_seen_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    tower, seen = sight("clip").eval(), pictures(7)
    together = tower.embed(seen)
    monkeypatch.setattr("timeseries_dualmodal.hubvision.AT_A_TIME", 2 * V)
    assert torch.allclose(tower.embed(seen), together, atol=1e-5)


@pytest.mark.parametrize("kind", ["dinov2", "resnet", "convnext"])
def test_models_without_a_size_of_their_own_take_others(kind: str) -> None:
    assert sight(kind, size=48)(pictures(size=48)).shape == (5, V, 12)


@pytest.mark.parametrize("kind", ["clip", "vit"])
def test_other_models_say_which_size_to_draw(kind: str) -> None:
    with pytest.raises(UserError, match=r"does not take pictures of 64 pixels; set --pictures\.size 32") as caught:
        sight(kind, size=64)
    assert "\n" not in str(caught.value)


def test_a_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"model\.vision\.layer: bob/net@0+ has no hidden layer 3"):
        sight("vit", layer=3)


def test_a_text_model_is_no_vision_model() -> None:
    tower = pretrained(LANGUAGE["bert"], "model.vision.tower")
    with pytest.raises(UserError, match=r"model\.vision\.tower: .* sees no pictures .*choose a vision model"):
        HubVision(tower, PIXELS, V, SIZE, Vision(tower="bob/net"))


# numbers


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("kind", LANGUAGE)
def test_any_text_model_reads_and_trains(kind: str, frozen: bool) -> None:
    tower, (z, known) = words(kind, frozen=frozen).train(), series()
    found = tower(z, known, torch.tensor([[1, 4, T]]).expand(5, 3))
    assert found.shape == (5, 3, V, 12)
    found.square().sum().backward()
    trained = [name for name, p in tower.named_parameters() if p.requires_grad]
    assert [name for name in trained if tower.get_parameter(name).grad is None] == []
    assert any(name.startswith("network") for name in trained) != frozen


@settings(max_examples=12, deadline=None)
@given(kind=st.sampled_from(sorted(LANGUAGE)), length=st.integers(1, T), seed=st.integers(0, 99))
def test_nothing_after_a_prefix_reaches_its_features(kind: str, length: int, seed: int) -> None:
    tower, (z, known) = reader(kind), series(seed=seed)
    other_z, other_known = z.clone(), known.clone()
    other_z[:, :, length:], other_known[:, :, length:] = 1e30, True
    lengths = torch.full((5, 1), length)
    assert torch.equal(tower(z, known, lengths), tower(other_z, other_known, lengths))


@settings(max_examples=12, deadline=None)
@given(kind=st.sampled_from(sorted(LANGUAGE)), length=st.integers(1, T), step=st.integers(0, T - 1))
def test_each_step_of_a_prefix_reaches_its_features(kind: str, length: int, step: int) -> None:
    """Also those of the last patch that is not full, which the predecessor dropped."""
    tower, (z, known) = reader(kind), series()
    other = z.clone()
    other[:, :, step] += 3
    lengths = torch.full((5, 1), length)
    same = torch.equal(tower(z, known, lengths), tower(other, known, lengths))
    assert same == (step >= length)


@pytest.mark.parametrize("kind", LANGUAGE)
def test_a_prefix_reads_alike_alone_and_among_others(kind: str) -> None:
    tower, (z, known) = reader(kind), series()
    every = torch.arange(1, T + 1).expand(5, T)
    together = tower(z, known, every)
    for k in range(T):
        alone = tower(z[2:3], known[2:3], every[2:3, k : k + 1])
        assert torch.allclose(alone[0, 0], together[2, k], atol=1e-5)


def test_tokens_that_are_not_there_are_not_looked_at() -> None:
    """A short prefix reads as in a model that has room for no more."""
    (z, known), lengths = series(), torch.full((5, 1), P)
    for kind in LANGUAGE:
        large, small = reader(kind), words(kind, steps=P).eval()
        state = {name: tensor[: small.state_dict()[name].shape[0]] for name, tensor in large.state_dict().items()
                 if name == "position_LW"}  # fmt: skip
        small.load_state_dict({**large.state_dict(), **state})
        assert torch.allclose(small(z[..., :P], known[..., :P], lengths), large(z, known, lengths), atol=1e-5)


def test_a_text_model_that_is_too_short_is_named() -> None:
    short = ("BertModel", {**WORDS, "max_position_embeddings": 2})
    tower = pretrained(short, "model.language.tower")
    with pytest.raises(
        UserError, match=r"language\.tower: .* does not read 4 patches .*larger --model\.language\.patch"
    ):
        HubLanguage(tower, V, T, Language(tower="bob/net", patch=P))


def test_a_vision_model_is_no_text_model() -> None:
    with pytest.raises(UserError, match=r"model\.language\.tower: .* choose a text model"):
        HubLanguage(pretrained(VISION["vit"], "model.language.tower"), V, T, Language(tower="bob/net", patch=P))


# weights that stay as they are


def test_frozen_weights_are_in_no_checkpoint_and_stay() -> None:
    tower = sight("clip", frozen=True)
    state = tower.state_dict()
    assert {name.partition(".")[0] for name in state} == {"mean_311", "std_311", "frozen", "project"}
    assert sum(tensor.numel() for tensor in state.values()) < 500
    before = tower.embed(pictures())
    optimizer = torch.optim.AdamW(tower.train().parameters(), lr=1.0)
    tower(pictures()).square().sum().backward()
    optimizer.step()
    assert torch.equal(tower.embed(pictures()), before)


def test_weights_go_with_their_tower_only() -> None:
    """The same name may mean other weights one day."""
    one = sight("clip", frozen=True)
    other = HubVision(
        pretrained(VISION["clip"], "model.vision.tower", seed=1), PIXELS, V, SIZE, Vision(tower="bob/net", dim=12)
    )
    weights.load_strictly(sight("clip", frozen=True), one.state_dict(), "here")
    with pytest.raises(UserError, match=r"model\.vision\.tower: the weights of bob/net@0+ are not those .*COMMIT"):
        weights.load_strictly(other, one.state_dict(), "here")
    lacking = {name: tensor for name, tensor in one.state_dict().items() if name != "frozen.sha256"}
    with pytest.raises(UserError, match="sha256 is missing"):
        weights.load_strictly(sight("clip", frozen=True), lacking, "here")


def test_a_copy_for_evaluation_has_the_tower_too() -> None:
    """As the trainer makes it: without memory, then with borrowed weights."""
    tower = sight("clip", frozen=True).eval()
    expected = tower(pictures())
    twin = copy.deepcopy(tower).to("meta")
    assert torch.equal(tower(pictures()), expected)
    twin.load_state_dict(tower.state_dict(), assign=True)
    twin.colours_V3 = tower.colours_V3
    assert torch.equal(twin(pictures()), expected)


# the whole way, from a Hub


def folder_of(kind: str, options: dict[str, Any], path: Path, seed: int = 0, **processor: Any) -> dict[str, bytes]:
    network(kind, options, seed).save_pretrained(path)
    about = {"image_mean": MEAN, "image_std": STD, "crop_size": {"height": SIZE, "width": SIZE}, **processor}
    (path / "preprocessor_config.json").write_text(json.dumps(about))
    return {file.name: file.read_bytes() for file in path.iterdir()}


def clip(path: Path, seed: int = 0) -> dict[str, bytes]:
    """A model of pictures and text."""
    text, vision = {**WORDS, "projection_dim": 16}, {**PATCHES, "projection_dim": 16}
    return folder_of("CLIPModel", {"text_config": text, "vision_config": vision, "projection_dim": 16}, path, seed)


def config(tmp_path: Path, **more: Any) -> Config:
    wanted = {
        "paths": {"data": tmp_path / "data", "runs": tmp_path / "runs"},
        "pictures": {"size": SIZE},
        "model": {
            "dim": 16,
            "members": 2,
            "language": {"tower": "bob/clip", "dim": 16, "patch": P, "frozen": True},
            "vision": {"tower": "bob/clip", "dim": 16},
        },
    }
    return Config.model_validate(wanted | more)


ABOUT = Description(tuple("abc"), tuple("wxyz"), torch.arange(T).double().numpy())


def answer(model: Members) -> torch.Tensor:
    x = torch.randn(5, V, T, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([[2, T]]).expand(5, 2)
    seen = torch.stack([pictures(seed=0), pictures(seed=1)], dim=1)
    with torch.no_grad():
        return model.eval()(x, lengths, seen).logits_BKC


@pytest.fixture
def hub(server: Hub, tmp_path: Path) -> Hub:
    server.add("bob/clip", clip(tmp_path / "clip"))
    return server


def test_both_halves_of_clip_come_from_the_hub_once(hub: Hub, tmp_path: Path) -> None:
    model = train.build_model(config(tmp_path), ABOUT)
    assert isinstance(model.members[0].sight, HubVision) and isinstance(model.members[1].words, HubLanguage)
    assert hub.count(r"GET .*/cdn/") == 1  # large files, for two towers of two members
    assert answer(model).shape == (5, 2, C)
    kept = model.state_dict()
    assert not any("encoder" in name for name in kept)
    again = train.build_model(config(tmp_path), ABOUT)
    weights.load_strictly(again, kept, "here")
    assert torch.equal(answer(again), answer(model))


def test_a_moved_branch_is_noticed(hub: Hub, tmp_path: Path) -> None:
    before = hub.repo("bob/clip").refs["main"]
    kept = train.build_model(config(tmp_path), ABOUT).state_dict()
    hub.commit(hub.repo("bob/clip"), clip(tmp_path / "other", seed=1))
    with pytest.raises(UserError, match="are not those that this model was trained with"):
        weights.load_strictly(train.build_model(config(tmp_path), ABOUT), kept, "here")
    pinned = {"tower": f"bob/clip@{before}", "dim": 16}
    wanted = config(tmp_path)
    language = wanted.model.language.model_copy(update={"tower": f"bob/clip@{before}"})
    vision = Vision.model_validate(pinned)
    model = wanted.model.model_copy(update={"language": language, "vision": vision})
    weights.load_strictly(train.build_model(wanted.model_copy(update={"model": model}), ABOUT), kept, "here")


@pytest.mark.slow  # an interpreter of its own
def test_what_was_fetched_is_there_offline(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = answer(train.build_model(config(tmp_path), ABOUT))
    code = (
        "import sys, torch; sys.path[:0] = sys.argv[1:3]\n"
        "import test_dual_towers as t; from pathlib import Path\n"
        "from timeseries_dualmodal import train\n"
        "torch.save(t.answer(train.build_model(t.config(Path('.')), t.ABOUT)), sys.argv[3])\n"
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(hub.requests)
    helpers = str(Path(sys.modules["hub_server"].__file__ or "").parent)
    arguments = [str(Path(__file__).parent), helpers, str(tmp_path / "answer.pt")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(hub.requests) == asked
    assert torch.allclose(torch.load(tmp_path / "answer.pt", weights_only=True), first, atol=1e-6)


def test_a_model_that_does_not_say_how_pictures_are_normalised_is_refused(hub: Hub, tmp_path: Path) -> None:
    files = clip(tmp_path / "bare")
    hub.commit(hub.repo("bob/clip"), {name: data for name, data in files.items() if "processor" not in name})
    with pytest.raises(UserError, match=r"bob/clip@\w{40} does not say how its pictures are normalised"):
        train.build_model(config(tmp_path), ABOUT)
    hub.commit(hub.repo("bob/clip"), {**files, "preprocessor_config.json": b'{"image_mean": [0.5], "image_std": [1]}'})
    with pytest.raises(UserError, match=r"preprocessor_config\.json of bob/clip@\w{40} is not understood"):
        train.build_model(config(tmp_path), ABOUT)


def test_weights_that_could_run_code_are_not_loaded(hub: Hub, tmp_path: Path) -> None:
    files = clip(tmp_path / "bin")
    pickled = {name.replace("model.safetensors", "pytorch_model.bin"): data for name, data in files.items()}
    hub.commit(hub.repo("bob/clip"), pickled)
    with pytest.raises(
        UserError, match=r"model\.vision\.tower: bob/clip@\w{40} cannot be loaded .*safetensors"
    ) as caught:
        train.build_model(config(tmp_path), ABOUT)
    assert "\n" not in str(caught.value)


# settings


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"vision": {"tower": "small_vti"}}, "there is no 'small_vti'; write small_cnn or small_vit, or OWNER/NAME"),
        ({"language": {"tower": "bert"}}, "there is no 'bert'; write small, or OWNER/NAME"),
        ({"type": "numeric", "language": {"tower": "bob/bert"}}, "reads one variable at a time"),
    ],
)
def test_towers_that_are_none_are_refused(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Model.model_validate(wanted)


def test_the_guides_preset_pins_its_towers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", "guide", "--print-config"]) == 0
    wanted = Config.model_validate(yaml.safe_load(capsys.readouterr().out))
    towers = {wanted.model.vision.tower, wanted.model.language.tower}
    assert [bool(re.fullmatch(r"openai/clip-vit-base-patch16@[0-9a-f]{40}", tower)) for tower in towers] == [True]
    steps = [curriculum.bounds(stage, 37)[0] for stage in wanted.curriculum.stages]
    assert steps == [26, 20, 7]  # the guide's 70, 55 and 20 %
    assert (wanted.pictures.size, wanted.pictures.axes) == (224, "autoscale")
