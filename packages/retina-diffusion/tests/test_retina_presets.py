"""Presets: each builds, says its true size, and trains; the guide's own are the guide's."""

import re
from pathlib import Path

import pytest
import torch

import retina_diffusion
from retina_diffusion import objective
from retina_diffusion.config import Config
from retina_diffusion.keys import KEYS
from retina_diffusion.model import Condition, build, shape_of
from retina_diffusion.nextdit import NextDiT
from shared_core.config import load, preset_names
from shared_core.errors import UserError

FOLDER = Path(retina_diffusion.__file__).parent / "configs"
PRESETS = preset_names(FOLDER)
LUMINA = 1_627_386_400  # parameters of the published checkpoint


def preset(name: str, **overrides: object) -> Config:
    return load(Config, name, FOLDER, overrides, keys=KEYS)


def parameters(config: Config) -> int:
    with torch.device("meta"):
        network = NextDiT(shape_of(config.model, config.text, config.token_side))
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_how_large_its_network_is(name: str) -> None:
    (said,) = re.findall(r"^# network   ([\d,]+) parameters$", (FOLDER / f"{name}.yaml").read_text(), re.MULTILINE)
    assert said == f"{parameters(preset(name)):,}"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_opens_with_what_it_needs(name: str) -> None:
    heads = [line.split()[1] for line in (FOLDER / f"{name}.yaml").read_text().splitlines()[:6]]
    assert heads == ["data", "hardware", "time", "metric", "command", "network"]
    assert preset(name).name == name


@pytest.mark.parametrize(
    ("name", "size", "epochs", "batch", "lr", "billions"),
    [
        ("guide_ultra_fast", 256, 20, 128, 3e-4, (0.55, 0.65)),
        ("guide_fast", 512, 30, 64, 2e-4, (1.05, 1.25)),
        ("guide_standard", 1024, 100, 32, 1e-4, (2.25, 2.35)),
    ],
)
def test_the_guides_own(
    name: str, size: int, epochs: int, batch: int, lr: float, billions: tuple[float, float]
) -> None:
    config = preset(name)
    training = config.training
    assert (config.data.size, training.epochs, training.batch_size, config.optimizer.lr) == (size, epochs, batch, lr)
    assert (training.accumulation, training.steps, config.optimizer.weight_decay) == (1, None, 0.0)
    assert (config.scheduler.warmup_steps, config.scheduler.min_lr) == (200, 1e-6)
    assert billions[0] < parameters(config) / 1e9 < billions[1]


def test_luminas_is_luminas_and_what_masks_add() -> None:
    config = preset("lumina_2b")
    channels = len(config.model.channels)
    added = 2_304 * (2 * 2 * channels + channels)  # columns of x_embedder, and unknown_MD
    assert parameters(config) == LUMINA + added


@pytest.mark.parametrize("name", ["guide_fast", "guide_standard"])
def test_the_guides_own_patch_is_refused_where_it_takes_forever(name: str) -> None:
    with pytest.raises(UserError, match=r"2 makes [\d,]+ tokens of an image, more than model.most_tokens, 16,384"):
        preset(name, **{"model.patch": 2})
    assert preset("guide_ultra_fast", **{"model.patch": 2}).token_side == 128


@pytest.mark.parametrize(
    ("size", "patch", "multiple", "proposed"), [(1024, 2, 16, "8 makes 16,384"), (1000, 4, 8, "8 makes 15,625")]
)
def test_a_patch_that_fits_is_proposed(size: int, patch: int, multiple: int, proposed: str) -> None:
    with pytest.raises(UserError, match=f"model.patch: {patch} makes .*; {proposed}"):
        preset("tiny", **{"model.patch": patch, "data.size": size, "data.multiple": multiple})


def test_latents_are_counted_as_latents() -> None:
    large = {"data.size": 4096, "model.patch": 2}
    with pytest.raises(UserError, match=r"2 makes 65,536 tokens .*; 4 makes 16,384"):
        preset("lumina_2b", **large)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.patch": 48}, r"data\.size: must be a multiple of a token's side, 48 pixels \(model\.patch\)"),
        ({"data.aspect": "native", "data.multiple": 8}, r"data\.multiple: must be a multiple of a token's side, 16"),
        ({"data.size": 250, "data.aspect": "native"}, r"multiple: size 250 must be a multiple of it \(16\)"),
        ({"data.val_data_path": "x"}, "val_data_path: goes with train_data_path"),
        ({"model.channels": ["MA", "MA"]}, "channels: names one twice"),
    ],
)
def test_settings_that_do_not_fit_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        preset("tiny", **change)


def shrunk(config: Config) -> Config:
    """The same network with a width, a depth and an image that take no time."""
    model, text = config.model, config.text
    heads = max(2, model.heads // 8)
    kv_heads = None if model.kv_heads is None else max(1, heads * model.kv_heads // model.heads)
    small = model.model_copy(
        update={
            **{"dim": 8 * heads, "heads": heads, "kv_heads": kv_heads, "depth": 2, "multiple_of": 8},
            "bottleneck": None if model.bottleneck is None else 8,
        }
    )
    return config.model_copy(
        update={
            "model": small,
            "text": text.model_copy(update={"dim": 16, "tokens": 5}),
            "data": config.data.model_copy(update={"size": 3 * model.token}),
        }
    )


@pytest.mark.parametrize("name", PRESETS)
def test_one_step_of_every_preset(name: str) -> None:
    config = shrunk(preset(name))
    model, side = config.model, 3 * config.model.patch
    torch.manual_seed(0)
    network = build(model, config.text, config.token_side, vocabulary=9)
    x1, masks = torch.rand(4, model.values, side, side) * 2 - 1, torch.rand(4, len(model.channels), side, side)
    known = torch.ones(4, len(model.channels), dtype=torch.bool)
    if config.text.encoder == "words":
        asked = Condition(masks, known, words_BS=torch.randint(3, 12, (4, 5)))
    else:
        heard = torch.ones(5, dtype=torch.bool)
        asked = Condition(masks, known, None, torch.randn(4, 5, 16), heard.expand(4, 5), torch.randn(5, 16), heard)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=1e-3, betas=config.optimizer.betas, weight_decay=config.optimizer.weight_decay
    )
    one = objective.noisy(x1, config.flow, 1.0)
    assert network(one.xt_BCHW, one.t_B, asked).shape == x1.shape
    losses = []
    for _ in range(6):
        loss = objective.errors(network, one, asked, model.prediction).mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
        optimizer.step()
    assert losses[5] < losses[0]
