"""Lumina's checkpoints: every form that they come in, what is refused, masks that change nothing at first; adapters."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from retina_diffusion import lora, lumina
from retina_diffusion.lumina import Tensors
from retina_diffusion.nextdit import NextDiT, Shape
from shared_core.errors import UserError

PLAIN = Shape(32, 2, 4, 2, patch=2, caption_dim=16, channels=4, learn_sigma=True, multiple_of=16)
MASKED = dataclasses.replace(PLAIN, masks=3)


def lively(shape: Shape, seed: int = 0) -> NextDiT:
    """A network whose gates are open."""
    torch.manual_seed(seed)
    model = NextDiT(shape)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


def asked(model: NextDiT, **masks: torch.Tensor) -> torch.Tensor:
    made = torch.Generator().manual_seed(1)
    x, caption = torch.randn(2, 4, 8, 8, generator=made), torch.randn(2, 5, 16, generator=made)
    return model(x, torch.rand(2, generator=made), caption, **masks)


def written(folder: Path, name: str, tensors: Tensors) -> Path:
    path = folder / name
    save = save_file if path.suffix == ".safetensors" else torch.save
    save(tensors, path)
    return path


def split(tensors: Tensors, parts: int) -> list[Tensors]:
    """As fairscale would: a part's layers have some of the rows, or of the columns, or all."""
    found = []
    for i in range(parts):
        part = {}
        for name, tensor in tensors.items():
            module, kind = name.rpartition(".")[::2]
            last = name.split(".")[-2] if "." in name else ""
            outside = module in ("x_embedder", "t_embedder.mlp.0", "cap_embedder.1", "final_layer.linear")
            column_parallel = last in ("wq", "wk", "wv", "wk_y", "wv_y", "w1", "w3")
            if outside or column_parallel or kind == "gate" or module.endswith("adaLN_modulation.1"):
                tensor = tensor.chunk(parts)[i]
            elif last in ("wo", "w2") or name == "t_embedder.mlp.2.weight":
                tensor = tensor.chunk(parts, dim=1)[i]
            part[name] = tensor.contiguous()
        found.append(part)
    return found


class Bomb:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.trace),)


def test_lumina_has_a_rule_for_every_tensor() -> None:
    """None of its published tensors falls between rows, columns and copies, and no rule is without a tensor."""
    rules = [lumina._ROWS, lumina._COLUMNS, lumina._NORMS]
    names = list(NextDiT(PLAIN).state_dict())
    hits = {name: sum(rule.fullmatch(name) is not None for rule in rules) for name in names}
    assert max(hits.values()) == 1
    copies = {name.removeprefix("layers.0.") for name, count in hits.items() if not count and "layers.1" not in name}
    norms = ("attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2", "attention_y_norm")
    assert copies == {f"{name}.weight" for name in norms} | {
        "pad_token",
        "t_embedder.mlp.2.bias",
        "cap_embedder.0.weight",
        "cap_embedder.0.bias",
    }


@pytest.mark.parametrize(
    "name",
    [
        "consolidated.pth",
        "consolidated.00-of-01.pth",
        "consolidated.safetensors",
        "consolidated_ema.00-of-01.safetensors",
        "consolidated_ema.pth",
    ],
)
def test_every_form_is_read(tmp_path: Path, name: str) -> None:
    tensors = lively(PLAIN).state_dict()
    path = written(tmp_path, name, tensors)
    torch.save(Bomb(tmp_path / "trace"), tmp_path / "model_args.pth")
    for source in (path, tmp_path):
        found = lumina.read(source)
        assert found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) for name in found)
    assert not (tmp_path / "trace").exists()


def test_averages_and_plain_files_come_first(tmp_path: Path) -> None:
    for i, name in enumerate(("consolidated.pth", "consolidated.00-of-01.safetensors", "consolidated_ema.pth")):
        written(tmp_path, name, {"pad_token": torch.full((2,), float(i))})
        assert lumina.read(tmp_path)["pad_token"][0] == i


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_are_put_together(tmp_path: Path, suffix: str, parts: int) -> None:
    model = lively(dataclasses.replace(PLAIN, kv_heads=4, qk_norm=False))
    tensors = model.state_dict()
    for i, part in enumerate(split(tensors, parts)):
        path = written(tmp_path, f"consolidated.{i:02d}-of-{parts:02d}.{suffix}", part)
    for source in (tmp_path, path):
        found = lumina.read(source)
        assert found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) for name in found)
    path.unlink()
    with pytest.raises(UserError, match=rf"consolidated\.0{parts - 1}-of-0{parts}\.{suffix}: no such file"):
        lumina.read(tmp_path)


def test_parts_that_make_no_network_are_refused(tmp_path: Path) -> None:
    def read(*parts: Tensors) -> Tensors:
        for i, part in enumerate(parts):
            written(tmp_path, f"consolidated.{i:02d}-of-02.pth", part)
        return lumina.read(tmp_path)

    with pytest.raises(UserError, match=r"q_norm\.weight was trained in 2 parts.*00-of-01"):
        read(*split(lively(PLAIN).state_dict(), 2))
    with pytest.raises(UserError, match="pad_token differs between the parts"):
        read({"pad_token": torch.zeros(2)}, {"pad_token": torch.ones(2)})
    name = "layers.0.attention.wq.weight"
    with pytest.raises(UserError, match=rf"parts of {name} do not fit together \(\[2, 3\], \[2, 4\]\)"):
        read({name: torch.zeros(2, 3)}, {name: torch.zeros(2, 4)})
    with pytest.raises(UserError, match="different tensors"):
        read({"pad_token": torch.zeros(2)}, {})


def test_what_holds_objects_is_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({"pad_token": torch.zeros(2), "more": Bomb(trace)}, tmp_path / "consolidated.pth")
    with pytest.raises(UserError, match=r"consolidated\.pth: damaged, or holds other things than tensors") as error:
        lumina.read(tmp_path)
    assert not trace.exists() and "\n" not in str(error.value)
    torch.load(tmp_path / "consolidated.pth", weights_only=False)
    assert trace.exists()  # so the bomb was one


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.9])
def test_a_truncated_file_is_one_line(tmp_path: Path, suffix: str, kept: float) -> None:
    path = written(tmp_path, f"consolidated.{suffix}", lively(PLAIN).state_dict())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(UserError, match=rf"consolidated\.{suffix}: ") as error:
        lumina.read(tmp_path)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_checkpoint_and_a_list_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no consolidated\*"):
        lumina.read(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        lumina.read(tmp_path / "consolidated.pth")
    torch.save([torch.zeros(2)], tmp_path / "consolidated.pth")
    with pytest.raises(UserError, match="no dictionary of tensors"):
        lumina.read(tmp_path)


def test_masks_change_nothing_at_first() -> None:
    source, model = lively(PLAIN), lively(MASKED, seed=1)
    found = lumina.load(model, source.state_dict(), least_share=1.0)
    expected, masks = asked(source), torch.rand(2, 3, 8, 8)
    for shown in (
        {},
        {"masks_BMHW": masks},
        {"masks_BMHW": masks, "known_BM": torch.tensor([[True, False, True], [False] * 3])},
    ):
        torch.testing.assert_close(asked(model, **shown), expected, atol=1e-6, rtol=0)
    assert found.share == 1 and len(found.loaded) == len(source.state_dict())
    assert found.new == {"x_embedder.weight (columns of masks)": 3 * 4 * 32, "unknown_MD": 3 * 32}
    assert not (found.missing or found.mismatched or found.unused)
    assert sum(found.loaded.values()) == sum(p.numel() for p in source.parameters())
    assert "(100.0% of the network's); new, at 0: unknown_MD, x_embedder.weight (columns of masks) (480" in str(found)


def test_weights_trained_with_masks_are_loaded_whole() -> None:
    source, model = lively(MASKED), NextDiT(MASKED)
    found = lumina.load(model, {name: tensor.bfloat16() for name, tensor in source.state_dict().items()}, 1.0)
    assert not found.new and model.unknown_MD.dtype is torch.float32
    for name, tensor in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor.bfloat16().float())


def test_other_names_are_refused() -> None:
    """A wrapper's prefix: nothing fits, and nothing is changed."""
    model = lively(MASKED)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wrapped = {f"base_model.{name}": tensor for name, tensor in lively(PLAIN, seed=1).state_dict().items()}
    with pytest.raises(UserError) as error:
        lumina.load(model, wrapped, least_share=0.01)
    said = str(error.value)
    assert said.startswith("pretrained weights: 0.0% of the network's parameters are in the checkpoint")
    assert "missing pad_token, x_embedder.weight, x_embedder.bias and 58 more" in said
    assert "not the network's: base_model.pad_token" in said and "lower pretrained.least_share" in said
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_another_number_of_key_heads_is_refused() -> None:
    tensors = lively(PLAIN).state_dict()
    model = NextDiT(dataclasses.replace(MASKED, kv_heads=4))
    with pytest.raises(UserError) as error:
        lumina.load(model, tensors, least_share=0.9)
    said = str(error.value)
    assert "layers.0.attention.wk.weight is [16, 32], not [32, 32]" in said and "and 13 more" in said
    found = lumina.load(model, tensors, least_share=0.5)
    assert 0.5 < found.share < 0.9 and len(found.mismatched) == 16
    assert "of another shape, left as they were: layers.0.attention.wk.weight" in str(found)


def test_columns_are_appended_for_masks_alone() -> None:
    """An embedding of other patches is no embedding without masks."""
    tensors = lively(PLAIN).state_dict() | {"x_embedder.weight": torch.zeros(32, 12)}
    found = lumina.load(NextDiT(MASKED), tensors, least_share=0.5)
    assert list(found.mismatched) == ["x_embedder.weight"]


# Adapters


def trained(model: NextDiT) -> NextDiT:
    """Adapters that are not at their start any more."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(".up"):
                weight.normal_(std=0.1)
    return model


def test_adapters_start_as_nothing_and_merge_into_the_same() -> None:
    model = lively(MASKED)
    names, before = list(model.state_dict()), asked(model)
    lora.add(model, rank=4, alpha=8.0)
    assert torch.equal(asked(model), before)
    changed = asked(trained(model))
    assert not torch.allclose(changed, before, atol=1e-3)
    lora.merge(model)
    assert list(model.state_dict()) == names
    assert all(weight.requires_grad for weight in model.parameters())
    torch.testing.assert_close(asked(model), changed, atol=1e-6, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 7), st.floats(0.5, 32), st.integers(0, 1000))
def test_a_merged_layer_answers_the_same(rank: int, alpha: float, seed: int) -> None:
    torch.manual_seed(seed)
    layer = lora.LowRank(torch.nn.Linear(8, 12, bias=False).double(), rank, alpha)
    torch.nn.init.normal_(layer.up)
    x = torch.randn(5, 8, dtype=torch.float64)
    expected = x @ layer.weight.T + alpha / rank * (x @ layer.down.T @ layer.up.T)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.merged()(x), expected)


def test_adapters_travel_as_plain_tensors(tmp_path: Path) -> None:
    model = lively(MASKED)
    lora.add(model, rank=2, alpha=2.0)
    path = written(tmp_path, "model.safetensors", trained(model).state_dict())
    other = NextDiT(MASKED)
    lora.add(other, rank=2, alpha=2.0)
    other.load_state_dict(lumina.read(path), strict=True)
    assert torch.equal(asked(other), asked(model))


def test_what_is_frozen_does_not_learn() -> None:
    model = lively(MASKED)
    new = {"x_embedder.weight", "x_embedder.bias", "unknown_MD"}
    lora.freeze(model, "new")
    assert {name for name, weight in model.named_parameters() if weight.requires_grad} == new
    with pytest.raises(ValueError, match="no adapters; add them first"):
        lora.freeze(model, "lora")
    lora.add(model, rank=2, alpha=2.0)
    trained(model)
    asked(model, masks_BMHW=torch.rand(2, 3, 8, 8), known_BM=torch.tensor([[True, False, True]] * 2)).sum().backward()
    learned = {name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()}
    adapters = {name for name, _ in model.named_parameters() if name.endswith((".down", ".up"))}
    assert learned == new | adapters and len(adapters) == 2 * (6 + 3) * MASKED.layers
    lora.freeze(model, "all")
    assert all(weight.requires_grad for weight in model.parameters())


def test_ranks_that_are_no_use_are_refused() -> None:
    model = NextDiT(PLAIN)
    for rank in (0, 32):
        with pytest.raises(ValueError, match=f"rank: {rank}; must be"):
            lora.add(model, rank, 1.0)
    lora.add(model, 2, 1.0)
    with pytest.raises(ValueError, match="adapters already"):
        lora.add(model, 2, 1.0)
