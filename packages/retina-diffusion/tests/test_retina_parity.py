"""NextDiT against diffusers' LuminaNextDiT2DModel, piece by piece, and against the published equations written plainly.

The two compute the same; cross-attention takes the normed tokens in both. They differ in this:

* diffusers keeps the projection of the queries and its norm twice, once for each attention;
* it is given the positions, which NextDiT makes itself;
* of a caption without a single token it takes the mean, 0 / 0; NextDiT's is 0.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from retina_diffusion import patches, rope
from retina_diffusion.layers import Attention, Block
from retina_diffusion.nextdit import NextDiT, Shape

lumina_nextdit2d = pytest.importorskip("diffusers.models.transformers.lumina_nextdit2d")
embeddings = pytest.importorskip("diffusers.models.embeddings")

CLOSE = {"atol": 1e-5, "rtol": 0.0}
GROUPED = Shape(32, 2, 4, 2, patch=2, caption_dim=24, channels=4, learn_sigma=True, multiple_of=16)
ROWS, COLUMNS = 4, 6

# ours -> diffusers', within a block and outside
BLOCK_NAMES = {
    "attention.gate": "gate",
    "attention.wq": "attn1.to_q",
    "attention.wk": "attn1.to_k",
    "attention.wv": "attn1.to_v",
    "attention.wk_y": "attn2.to_k",
    "attention.wv_y": "attn2.to_v",
    "attention.wo": "attn2.to_out.0",
    "attention.q_norm": "attn1.norm_q",
    "attention.k_norm": "attn1.norm_k",
    "attention.ky_norm": "attn2.norm_k",
    "feed_forward.w1": "feed_forward.linear_1",
    "feed_forward.w2": "feed_forward.linear_2",
    "feed_forward.w3": "feed_forward.linear_3",
    "attention_norm1": "norm1.norm",
    "attention_norm2": "norm2",
    "ffn_norm1": "ffn_norm1",
    "ffn_norm2": "ffn_norm2",
    "attention_y_norm": "norm1_context",
    "adaLN_modulation.1": "norm1.linear",
}
OTHER_NAMES = {
    "x_embedder": "patch_embedder.proj",
    "t_embedder.mlp.0": "time_caption_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_caption_embed.timestep_embedder.linear_2",
    "cap_embedder": "time_caption_embed.caption_embedder",
    "final_layer.adaLN_modulation.1": "norm_out.linear_1",
    "final_layer.linear": "norm_out.linear_2",
}


def theirs_of(name: str) -> list[str]:
    """Names in diffusers of a parameter of ours: the queries are kept twice there, once for each attention."""
    layer, _, inner = re.fullmatch(r"(layers\.\d+\.)?((.*))", name).groups(default="")
    for ours, theirs in (BLOCK_NAMES if layer else OTHER_NAMES).items():
        if inner == ours or inner.startswith(f"{ours}."):
            found = layer + theirs + inner[len(ours) :]
            twice = theirs in ("attn1.to_q", "attn1.norm_q")
            return [found, found.replace("attn1", "attn2")] if twice else [found]
    return [name]


def pair(shape: Shape = GROUPED) -> tuple[NextDiT, nn.Module]:
    """The same random network twice, all its gates open."""
    torch.manual_seed(0)
    ours = NextDiT(shape)
    with torch.no_grad():
        for weight in ours.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    theirs = lumina_nextdit2d.LuminaNextDiT2DModel(
        patch_size=shape.patch,
        in_channels=shape.channels,
        hidden_size=shape.dim,
        num_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_kv_heads=shape.kv_heads,
        multiple_of=shape.multiple_of,
        learn_sigma=shape.learn_sigma,
        qk_norm=shape.qk_norm,
        cross_attention_dim=shape.caption_dim,
    )
    weights = {name: tensor for own, tensor in ours.state_dict().items() for name in theirs_of(own)}
    theirs.load_state_dict(weights, strict=True)
    return ours, theirs


@pytest.fixture(scope="module")
def both() -> tuple[NextDiT, nn.Module]:
    return pair()


@pytest.fixture
def given() -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(1)
    return {
        "x": torch.randn(3, ROWS * COLUMNS, GROUPED.dim, generator=made),
        "caption": torch.randn(3, 5, GROUPED.caption_dim, generator=made),
        "condition": torch.randn(3, GROUPED.dim, generator=made),
        "image": torch.randn(3, GROUPED.channels, 2 * ROWS, 2 * COLUMNS, generator=made),
        "t": torch.rand(3, generator=made),
        "said": torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4]),
    }


def turns(head_dim: int = 8) -> torch.Tensor:
    return rope.turns(rope.angles(ROWS, COLUMNS, head_dim))


def spun(head_dim: int = 8, **how: float) -> torch.Tensor:
    """diffusers' positions: complex numbers, (1, L, P)."""
    return embeddings.get_2d_rotary_pos_embed_lumina(head_dim, ROWS, COLUMNS, **how).flatten(0, 1)[None]


def test_every_parameter_has_its_counterpart(both: tuple[NextDiT, nn.Module]) -> None:
    ours, theirs = both
    names = [name for own in ours.state_dict() for name in theirs_of(own)]
    assert sorted(names) == sorted(theirs.state_dict())


@pytest.mark.parametrize("head_dim", [8, 72])
def test_positions(head_dim: int) -> None:
    expected = torch.view_as_real(spun(head_dim)[0].to(torch.complex64))
    torch.testing.assert_close(turns(head_dim)[:, 0], expected, **CLOSE)


@pytest.mark.parametrize("scale", [1.5, 2.0, 4.0])
def test_positions_of_larger_images(scale: float) -> None:
    for time, how in ((0.1, {"linear_factor": scale}), (0.9, {"ntk_factor": scale})):
        expected = spun(16, **how)[0]
        found = rope.angles(ROWS, COLUMNS, 16, scale, time)
        torch.testing.assert_close(torch.polar(torch.ones_like(found), found), expected.to(torch.complex64), **CLOSE)


def test_rotation() -> None:
    x = torch.randn(2, ROWS * COLUMNS, 4, 8)
    expected = embeddings.apply_rotary_emb(x, spun(), use_real=False)
    torch.testing.assert_close(rope.rotate(x, turns()), expected, **CLOSE)


def test_embeddings(both: tuple[NextDiT, nn.Module], given: dict[str, torch.Tensor]) -> None:
    ours, theirs = both
    time = theirs.time_caption_embed.timestep_embedder(theirs.time_caption_embed.time_proj(given["t"]))
    torch.testing.assert_close(ours.t_embedder(given["t"]), time, **CLOSE)
    tokens = theirs.patch_embedder(given["image"], torch.ones(ROWS, COLUMNS, 4))[0]
    torch.testing.assert_close(ours.x_embedder(patches.of_image(given["image"], GROUPED.patch)), tokens, **CLOSE)


def test_feed_forward(both: tuple[NextDiT, nn.Module], given: dict[str, torch.Tensor]) -> None:
    ours, theirs = (model.layers[0].feed_forward for model in both)
    torch.testing.assert_close(ours(given["x"]), theirs(given["x"]), **CLOSE)


def test_attention(both: tuple[NextDiT, nn.Module], given: dict[str, torch.Tensor]) -> None:
    ours, theirs = both[0].layers[0].attention, both[1].layers[0]
    x, everywhere = given["x"], torch.ones(3, ROWS * COLUMNS)
    positions = {"query_rotary_emb": spun(), "key_rotary_emb": spun()}
    seen = theirs.attn1(x, encoder_hidden_states=x, attention_mask=everywhere, **positions)
    positions["key_rotary_emb"] = None
    heard = theirs.attn2(x, encoder_hidden_states=given["caption"], attention_mask=given["said"], **positions)
    expected = theirs.attn2.to_out[0]((seen + heard * theirs.gate.tanh()[:, None]).flatten(-2))
    torch.testing.assert_close(ours(x, turns(), given["caption"], said_BS=given["said"]), expected, **CLOSE)


def test_sharper_attention(both: tuple[NextDiT, nn.Module], given: dict[str, torch.Tensor]) -> None:
    """Among 24 tokens, in a network that saw 16."""
    theirs, x = both[1].layers[0].attn1, given["x"]
    expected = theirs(
        x,
        encoder_hidden_states=x,
        attention_mask=torch.ones(3, ROWS * COLUMNS),
        query_rotary_emb=spun(),
        key_rotary_emb=spun(),
        base_sequence_length=9,
    )
    ours = both[0].layers[0].attention
    q, k = (
        rope.rotate(norm(w(x)).unflatten(-1, (-1, 8)), turns())
        for norm, w in ((ours.q_norm, ours.wq), (ours.k_norm, ours.wk))
    )
    model = NextDiT(Shape(32, 0, 4, 2, patch=2, caption_dim=24, multiple_of=16, trained_side=3))
    _, sharpness = model._beyond(ROWS, COLUMNS, None)
    found = ours._attend(q, k * sharpness, ours.wv(x).unflatten(-1, (-1, 8)), None)
    torch.testing.assert_close(found, expected, **CLOSE)


def test_block(both: tuple[NextDiT, nn.Module], given: dict[str, torch.Tensor]) -> None:
    for ours, theirs in zip(both[0].layers, both[1].layers, strict=True):
        found = ours(given["x"], turns(), given["caption"], given["condition"], said_BS=given["said"])
        everywhere = torch.ones(3, ROWS * COLUMNS)
        expected = theirs(
            given["x"],
            everywhere,
            spun(),
            given["caption"],
            given["said"],
            given["condition"],
            cross_attention_kwargs={},
        )
        torch.testing.assert_close(found, expected, **CLOSE)


def test_final_layer(both: tuple[NextDiT, nn.Module], given: dict[str, torch.Tensor]) -> None:
    ours, theirs = both
    expected = theirs.norm_out(given["x"], given["condition"])
    torch.testing.assert_close(ours.final_layer(given["x"], given["condition"]), expected, **CLOSE)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("qk_norm", [True, False])
def test_whole(kv_heads: int, qk_norm: bool, given: dict[str, torch.Tensor]) -> None:
    shape = Shape(
        32, 3, 4, kv_heads, patch=2, caption_dim=24, channels=4, learn_sigma=True, multiple_of=16, qk_norm=qk_norm
    )
    ours, theirs = pair(shape)
    with torch.no_grad():
        found = ours(given["image"], given["t"], given["caption"], given["said"])
        grid = embeddings.get_2d_rotary_pos_embed_lumina(8, ROWS, COLUMNS)
        asked = (given["image"], given["t"], given["caption"], given["said"], grid)
        expected = theirs(*asked, cross_attention_kwargs={}).sample
    assert found.std() > 0.1  # not the zeros of a network at its start
    torch.testing.assert_close(found, expected[:, : shape.channels], **CLOSE)


def test_gradients(given: dict[str, torch.Tensor]) -> None:
    ours, theirs = pair()
    grid = embeddings.get_2d_rotary_pos_embed_lumina(8, ROWS, COLUMNS)
    asked = [given[name] for name in ("image", "t", "caption", "said")]
    ours(*asked).square().mean().backward()
    theirs(*asked, grid, cross_attention_kwargs={}).sample[:, : GROUPED.channels].square().mean().backward()
    other = dict(theirs.named_parameters())
    for name, weight in ours.named_parameters():
        if name != "pad_token":  # of neither
            expected = sum(other[twin].grad for twin in theirs_of(name))
            torch.testing.assert_close(weight.grad, expected, **CLOSE)


def test_a_caption_without_tokens_is_where_they_differ(given: dict[str, torch.Tensor]) -> None:
    ours, theirs = pair()
    grid = embeddings.get_2d_rotary_pos_embed_lumina(8, ROWS, COLUMNS)
    asked = (given["image"], given["t"], given["caption"], torch.zeros(3, 5, dtype=torch.bool))
    assert theirs(*asked, grid, cross_attention_kwargs={}).sample.isnan().all()
    assert ours(*asked).isfinite().all()


# The published equations, written as plainly as they can be: one image, one head, one token at a time.


def by_hand_rotated(vector: torch.Tensor, row: int, column: int) -> torch.Tensor:
    """Pairs as complex numbers; pair 2 j turns with the row, pair 2 j + 1 with the column, both by theta^(-4 j / D)."""
    dim, out = len(vector), []
    for p in range(dim // 2):
        angle = torch.tensor((column if p % 2 else row) * 10_000.0 ** (-4 * (p // 2) / dim), dtype=torch.float64)
        turned = torch.complex(vector[2 * p], vector[2 * p + 1]) * torch.polar(torch.ones_like(angle), angle)
        out += [turned.real, turned.imag]
    return torch.stack(out)


def by_hand_attention(module: Attention, x_LD: torch.Tensor, caption_SD: torch.Tensor) -> torch.Tensor:
    """(L, D). Each query head n uses the key head n // (N / K); the caption's keys are not rotated."""
    tokens, heads, size = len(x_LD), module.heads, module.head_dim
    place = [divmod(i, COLUMNS) for i in range(tokens)]
    q, k, v = module.q_norm(module.wq(x_LD)), module.k_norm(module.wk(x_LD)), module.wv(x_LD)
    ky, vy = module.ky_norm(module.wk_y(caption_SD)), module.wv_y(caption_SD)
    rows = []
    for i in range(tokens):
        mixed = []
        for n in range(heads):
            own, kv = slice(n * size, (n + 1) * size), n // (heads // module.kv_heads)
            of = slice(kv * size, (kv + 1) * size)
            query = by_hand_rotated(q[i, own], *place[i])
            keys = torch.stack([by_hand_rotated(k[j, of], *place[j]) for j in range(tokens)])
            seen = torch.exp(keys @ query / size**0.5)
            heard = torch.exp(ky[:, of] @ query / size**0.5)
            mixed.append(seen / seen.sum() @ v[:, of] + module.gate[n].tanh() * (heard / heard.sum() @ vy[:, of]))
        rows.append(torch.cat(mixed))
    return module.wo(torch.stack(rows))


def by_hand_rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * weight


def by_hand_block(block: Block, x: torch.Tensor, caption: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
    """Sandwich norms, no shift, tanh gates."""
    wide = x.shape[-1]
    modulation = block.adaLN_modulation[1].weight @ (condition * condition.sigmoid()) + block.adaLN_modulation[1].bias
    scale_a, gate_a, scale_f, gate_f = (modulation[i * wide : (i + 1) * wide] for i in range(4))
    inner = by_hand_rms(x, block.attention_norm1.weight) * (1 + scale_a)
    seen = by_hand_attention(block.attention, inner, by_hand_rms(caption, block.attention_y_norm.weight))
    x = x + gate_a.tanh() * by_hand_rms(seen, block.attention_norm2.weight)
    inner = by_hand_rms(x, block.ffn_norm1.weight) * (1 + scale_f)
    ff = block.feed_forward
    up = inner @ ff.w1.weight.T
    hidden = (up * up.sigmoid() * (inner @ ff.w3.weight.T)) @ ff.w2.weight.T
    return x + gate_f.tanh() * by_hand_rms(hidden, block.ffn_norm2.weight)


@torch.no_grad()
def test_block_is_as_published(given: dict[str, torch.Tensor]) -> None:
    block = pair()[0].layers[0].double()
    x, caption, condition = (given[name].double() for name in ("x", "caption", "condition"))
    found = block(x, turns().double(), caption, condition)
    for i in range(2):
        torch.testing.assert_close(found[i], by_hand_block(block, x[i], caption[i], condition[i]), **CLOSE)


def test_final_layer_is_as_published(given: dict[str, torch.Tensor]) -> None:
    """LayerNorm without weights of its own, eps 1e-6; 1 + scale; then the linear layer."""
    layer, x, condition = pair()[0].final_layer, given["x"], given["condition"]
    mean, spread = x.mean(dim=-1, keepdim=True), x.var(dim=-1, keepdim=True, correction=0)
    scale = F.linear(condition * condition.sigmoid(), layer.adaLN_modulation[1].weight, layer.adaLN_modulation[1].bias)
    normed = (x - mean) / (spread + 1e-6).sqrt() * (1 + scale[:, None])
    torch.testing.assert_close(layer(x, condition), normed @ layer.linear.weight.T + layer.linear.bias, **CLOSE)


def test_time_is_as_published(given: dict[str, torch.Tensor]) -> None:
    """256 waves, cosines first, of periods up to 10,000; time is not multiplied by 1,000."""
    module, t = pair()[0].t_embedder, given["t"]
    angle = t[:, None] * 10_000.0 ** (-torch.arange(128) / 128)
    first = F.linear(torch.cat((angle.cos(), angle.sin()), dim=1), module.mlp[0].weight, module.mlp[0].bias)
    expected = F.linear(first * first.sigmoid(), module.mlp[2].weight, module.mlp[2].bias)
    torch.testing.assert_close(module(t), expected, **CLOSE)


def test_the_benchmark_compares_what_is_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path = Path(__file__).parents[1] / "benchmarks" / "throughput.py"
    spec = importlib.util.spec_from_file_location("retina_throughput", path)
    benchmark = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, benchmark)
    spec.loader.exec_module(benchmark)
    small = "--tokens 16 --width 32 --depth 2 --heads 4 --kv-heads 2 --batch 2 --repeats 1 --peak-tflops 0.1"
    monkeypatch.setattr(sys, "argv", [str(path), *small.split()])
    benchmark.main()
    said = capsys.readouterr().out
    differences = [float(number) for number in re.findall(r"\d\.\de-\d+", said)]
    assert len(differences) == 2 and max(differences) < 1e-5
    assert {line.split()[0] for line in said.splitlines()[-4:]} == {"ours", "reference", "reference,", "diffusers"}
