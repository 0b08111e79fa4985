"""Images per second in training: NextDiT, the same network in the reference code's style, and diffusers' network.

    python packages/retina-diffusion/benchmarks/throughput.py [--tokens 256] [--width 384] [--depth 4] [--compile]

A step is a forward and a backward pass over one batch of latents with captions, without an optimizer. All networks have
the same shape and number of parameters. They take turns, so that whatever else the machine does hits them alike, and
ratios are taken within each turn. First their answers are compared: the reference's are those of our weights.

"reference" restates what the published training code does, operation by operation: norms of several float32 operations,
positions as complex numbers that each layer multiplies anew, keys and values repeated for all heads, and PyTorch's
fused attention. "reference, explicit softmax" has softmax(q k^T) v instead, as where no fused attention is installed.

Shapes: B images, L tokens, S tokens of a caption, N heads (K of keys and values), D features.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from retina_diffusion import patches, rope
from retina_diffusion.layers import Attention, Block
from retina_diffusion.nextdit import NextDiT, Shape
from shared_core import measured
from shared_core.measured import seconds, spread
from shared_core.tally import Tally

CHANNELS, PATCH = 4, 2


@dataclass
class Batch:
    """What a step is given; all images are square."""

    x_BCHW: torch.Tensor
    t_B: torch.Tensor
    caption_BSD: torch.Tensor
    said_BS: torch.Tensor
    target_BCHW: torch.Tensor


class Reference(nn.Module):
    """The answers of a NextDiT, its parameters used as the published training code uses them."""

    def __init__(self, of: NextDiT, fused: bool) -> None:
        super().__init__()
        self.of, self.fused = of, fused

    def forward(
        self, x_BCHW: torch.Tensor, t_B: torch.Tensor, caption_BSD: torch.Tensor, said_BS: torch.Tensor
    ) -> torch.Tensor:
        shape, (height, width) = self.of.shape, x_BCHW.shape[2:]
        angles = rope.angles(height // PATCH, width // PATCH, shape.dim // shape.heads, device=x_BCHW.device)
        spun_LP = torch.polar(torch.ones_like(angles), angles)
        x = self.of.x_embedder(patches.of_image(x_BCHW, PATCH))
        there_BL = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        weight_BS1 = said_BS[..., None].float()
        mean = (caption_BSD * weight_BS1).sum(dim=1) / weight_BS1.sum(dim=1)
        condition = self.of.t_embedder(t_B) + self.of.cap_embedder(mean.to(caption_BSD))
        for block in self.of.layers:
            x = self._block(block, x, there_BL, spun_LP, caption_BSD, said_BS, condition)
        scale = self.of.final_layer.adaLN_modulation(condition).unsqueeze(1)
        x = self.of.final_layer.linear(F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale))
        return patches.to_image(x, height, width, PATCH)[:, : shape.channels]

    def _block(
        self,
        block: Block,
        x: torch.Tensor,
        there_BL: torch.Tensor,
        spun_LP: torch.Tensor,
        caption: torch.Tensor,
        said_BS: torch.Tensor,
        condition: torch.Tensor,
    ) -> torch.Tensor:
        scale1, gate1, scale2, gate2 = block.adaLN_modulation(condition).chunk(4, dim=1)
        inner = plain_norm(block.attention_norm1, x) * (1 + scale1.unsqueeze(1))
        heard = plain_norm(block.attention_y_norm, caption)
        mixed = self._attention(block.attention, inner, there_BL, spun_LP, heard, said_BS)
        x = x + gate1.unsqueeze(1).tanh() * plain_norm(block.attention_norm2, mixed)
        inner, ff = plain_norm(block.ffn_norm1, x) * (1 + scale2.unsqueeze(1)), block.feed_forward
        return x + gate2.unsqueeze(1).tanh() * plain_norm(block.ffn_norm2, ff.w2(F.silu(ff.w1(inner)) * ff.w3(inner)))

    def _attention(
        self,
        a: Attention,
        x: torch.Tensor,
        there_BL: torch.Tensor,
        spun_LP: torch.Tensor,
        caption: torch.Tensor,
        said_BS: torch.Tensor,
    ) -> torch.Tensor:
        q, k, v = a.wq(x), a.wk(x), a.wv(x)
        dtype = q.dtype
        q, k, v = (part.unflatten(-1, (-1, a.head_dim)) for part in (a.q_norm(q), a.k_norm(k), v))
        q, k = plain_rotation(q, spun_LP).to(dtype), plain_rotation(k, spun_LP).to(dtype)
        seen = self._attend(q, k, v, there_BL)
        ky, vy = (part.unflatten(-1, (-1, a.head_dim)) for part in (a.ky_norm(a.wk_y(caption)), a.wv_y(caption)))
        heard = self._attend(q, ky.to(dtype), vy, said_BS)
        return a.wo((seen + heard * a.gate.tanh().view(1, 1, -1, 1)).flatten(-2))

    def _attend(
        self, q_BLND: torch.Tensor, k_BSKD: torch.Tensor, v_BSKD: torch.Tensor, there_BS: torch.Tensor
    ) -> torch.Tensor:
        groups = q_BLND.shape[2] // k_BSKD.shape[2]
        k, v = (part.unsqueeze(3).repeat(1, 1, 1, groups, 1).flatten(2, 3) for part in (k_BSKD, v_BSKD))
        q, k, v = (part.transpose(1, 2) for part in (q_BLND, k, v))
        mask = there_BS[:, None, None, :].expand(-1, q.shape[1], q.shape[2], -1)
        if self.fused:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
        weight = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~mask, -torch.inf).softmax(dim=-1)
        return (weight @ v).transpose(1, 2)


def plain_norm(norm: nn.RMSNorm, x: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.eps)).type_as(x) * norm.weight


def plain_rotation(x_BLND: torch.Tensor, spun_LP: torch.Tensor) -> torch.Tensor:
    pairs = torch.view_as_complex(x_BLND.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * spun_LP[:, None]).flatten(-2).type_as(x_BLND)


def open_gates(model: nn.Module) -> None:
    """Weights as after some training, where every operation has an effect."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.02)


def of_diffusers(shape: Shape, rows: int, device: torch.device) -> nn.Module:
    """diffusers' network of that shape, random; its positions are computed beforehand."""
    from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina
    from diffusers.models.transformers.lumina_nextdit2d import LuminaNextDiT2DModel

    model = LuminaNextDiT2DModel(
        patch_size=shape.patch,
        in_channels=shape.channels,
        hidden_size=shape.dim,
        num_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_kv_heads=shape.kv_heads,
        multiple_of=shape.multiple_of,
        learn_sigma=shape.learn_sigma,
        cross_attention_dim=shape.caption_dim,
    ).to(device)
    nn.init.normal_(model.pad_token)  # which is left as memory happens to be
    open_gates(model)
    grid = get_2d_rotary_pos_embed_lumina(shape.dim // shape.heads, rows, rows).to(device)

    class Answer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *given: torch.Tensor) -> torch.Tensor:
            return self.model(*given, grid, cross_attention_kwargs={}).sample[:, : shape.channels]

    return Answer()


def networks(options: argparse.Namespace, shape: Shape, rows: int, device: torch.device) -> dict[str, nn.Module]:
    """By name; ours first."""
    torch.manual_seed(0)
    ours = NextDiT(shape).to(device)
    open_gates(ours)
    found: dict[str, nn.Module] = {"ours": ours}
    if options.compile:
        found["ours, compiled"] = torch.compile(ours, fullgraph=True)  # the same parameters
    found["reference"] = Reference(ours, fused=True)
    found["reference, explicit softmax"] = Reference(ours, fused=False)
    if importlib.util.find_spec("diffusers") is not None:
        found["diffusers"] = of_diffusers(shape, rows, device)
    return found


def step(model: nn.Module, batch: Batch, context: Callable[[], AbstractContextManager]) -> None:
    with context():
        answer = model(batch.x_BCHW, batch.t_B, batch.caption_BSD, batch.said_BS)
    (answer.float() - batch.target_BCHW).square().mean().backward()
    model.zero_grad(set_to_none=True)


def agree(found: dict[str, nn.Module], batch: Batch, context: Callable[[], AbstractContextManager]) -> str:
    """How far other ways to compute our network are from ours, relative to its largest answer."""
    with torch.no_grad(), context():
        answers = {
            name: model(batch.x_BCHW, batch.t_B, batch.caption_BSD, batch.said_BS).float()
            for name, model in found.items()
            if name != "diffusers"
        }
    ours = answers.pop("ours")
    return ", ".join(f"{name} {(other - ours).abs().max() / ours.abs().max():.1e}" for name, other in answers.items())


def in_turn(todo: dict[str, Callable[[], None]], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each, turn by turn, after two to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in todo}
    for turn in range(repeats + 2):
        for name, work in todo.items():
            spent = seconds(work, device)
            if turn >= 2:
                taken[name].append(spent)
    return taken


def table(taken: dict[str, list[float]], batch: int, tokens: int, flops: float, peak: float | None) -> str:
    """A row for each network: rates, the share of the device's peak, and how many times as fast ours are."""
    wide = max(map(len, taken))
    own = [name for name in taken if name.startswith("ours")]
    lines = [f"{'':{wide}} {'images/s':>24} {'tokens/s':>10} {'MFU':>6}" + "".join(f" {f'{n} / it':>24}" for n in own)]
    for name, spent in taken.items():
        rates = [batch / value for value in spent]
        middle = sorted(rates)[len(rates) // 2]
        share = f"{middle * flops / (peak * 1e12):.1%}" if peak else "-"
        row = f"{name:{wide}} {spread(rates, '.1f'):>24} {middle * tokens:>10,.0f} {share:>6}"
        for ours in own:
            ratios = [theirs / mine for theirs, mine in zip(spent, taken[ours], strict=True)]
            row += f" {spread(ratios, '.2f'):>24}"
        lines.append(row)
    return "\n".join(lines)


def given_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tokens", type=int, default=256, help="of an image, a square number")
    parser.add_argument("--caption-tokens", type=int, default=77)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--kv-heads", type=int, help="default: as many as heads")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16: by autocast")
    parser.add_argument("--compile", action="store_true", help="also ours through torch.compile, which takes a minute")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--peak-tflops", type=float, help="of the device at that precision, for MFU")
    options = parser.parse_args()
    if math.isqrt(options.tokens) ** 2 != options.tokens:
        parser.error(f"--tokens {options.tokens}: must be a square number")
    return options


def main() -> None:
    options = given_options()
    if options.threads:
        torch.set_num_threads(options.threads)
    device, rows = torch.device(options.device), math.isqrt(options.tokens)
    kv_heads = options.kv_heads or options.heads
    shape = Shape(options.width, options.depth, options.heads, kv_heads, PATCH, 768, CHANNELS, learn_sigma=True)
    found = networks(options, shape, rows, device)
    size = (options.batch, CHANNELS, PATCH * rows, PATCH * rows)
    batch = Batch(
        torch.randn(size, device=device),
        torch.rand(options.batch, device=device),
        torch.randn(options.batch, options.caption_tokens, shape.caption_dim, device=device),
        torch.ones(options.batch, options.caption_tokens, dtype=torch.bool, device=device),
        torch.randn(size, device=device),
    )

    def context() -> AbstractContextManager:
        return torch.autocast(device.type, torch.bfloat16) if options.precision == "bf16" else nullcontext()

    with Tally(compute=False) as tally:
        step(found["ours"], batch, context)
    flops = tally.flops / options.batch
    print(f"{measured.device(device)}, {options.precision}, torch {torch.__version__}")
    print(
        f"{sum(p.numel() for p in found['ours'].parameters()):,} parameters: width {shape.dim}, depth {shape.layers}, "
        f"{shape.heads} heads ({kv_heads} of keys); {options.batch} images of {options.tokens} tokens, captions of "
        f"{options.caption_tokens}; {flops / 1e9:,.1f} GFLOP an image"
    )
    print(f"largest difference to ours: {agree(found, batch, context)}")
    todo = {name: lambda model=model: step(model, batch, context) for name, model in found.items()}
    taken = in_turn(todo, options.repeats, device)
    print(f"{options.repeats} turns; median (smallest..largest)")
    print(table(taken, options.batch, options.tokens, flops, options.peak_tflops))


if __name__ == "__main__":
    main()
