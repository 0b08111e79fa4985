"""Networks: counts against formulas, layers against PyTorch's, and what a frame's logits depend on."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from mabe_behavior.convbilstm import ConvBiLSTM
from mabe_behavior.convtransformer import Attention, Convolution, ConvTransformer, rotated, rotations
from mabe_behavior.tcn import TCN, DilatedConvolution

SMALL = {
    "convbilstm": lambda: ConvBiLSTM(6, 3, channels=(8, 12), hidden=5),
    "convbilstm-1": lambda: ConvBiLSTM(6, 3, channels=(8,), hidden=5, layers=1),
    "tcn": lambda: TCN(6, 3, width=8, depth=4, largest=4),
    "tcn-3": lambda: TCN(6, 3, width=8, depth=3, stages=3),
    "tcn-exclusive": lambda: TCN(6, 3, width=8, depth=2, stages=2, exclusive=True),
    "convtransformer": lambda: ConvTransformer(6, 3, width=16, depth=2, heads=4, kernel=5),
}


def made(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return SMALL[name]()


def last(said: torch.Tensor | list[torch.Tensor]) -> torch.Tensor:
    return said[-1] if isinstance(said, list) else said


def bilstm_parameters(inputs: int, outputs: int, channels: tuple[int, ...], hidden: int, layers: int) -> int:
    """Layer by layer."""
    total, before = 0, inputs
    for after in channels:
        total += 3 * before * after + after  # convolution
        total += 2 * after  # batch normalisation
        before = after
    for _ in range(layers):
        one_way = 4 * hidden * (before + hidden) + 2 * 4 * hidden  # four gates, each with two biases
        total, before = total + 2 * one_way, 2 * hidden
    return total + before * outputs + outputs


@pytest.mark.parametrize(("inputs", "count"), [(28, 2_761_284), (144, 2_783_556), (288, 2_811_204)])
def test_v4_has_the_parameters_of_its_description(inputs: int, count: int) -> None:
    model = ConvBiLSTM(inputs, 4)
    assert sum(p.numel() for p in model.parameters()) == count
    assert bilstm_parameters(inputs, 4, (64, 128, 256), 256, 2) == count


@given(
    *(st.integers(1, 9) for _ in range(2)),
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    *(st.integers(1, 4) for _ in range(2)),
)
def test_other_widths_have_those_of_the_formula(
    inputs: int, outputs: int, channels: list[int], hidden: int, layers: int
) -> None:
    model = ConvBiLSTM(inputs, outputs, channels, hidden, layers)
    expected = bilstm_parameters(inputs, outputs, tuple(channels), hidden, layers)
    assert sum(p.numel() for p in model.parameters()) == expected


def test_v4_is_its_layers_one_after_the_other() -> None:
    """In eval mode, with weights and statistics that are not the initial ones."""
    torch.manual_seed(0)
    model = ConvBiLSTM(4, 2, channels=(6,), hidden=3, layers=1).train()
    for _ in range(3):
        model(torch.randn(5, 9, 4) * 3 + 1)
    x, model = torch.randn(2, 7, 4), model.eval()
    weights = model.state_dict()
    conv, norm = "convolutions.0.0", "convolutions.0.1"
    padded = functional.pad(x, (0, 0, 1, 1))
    seen = torch.stack(
        [
            torch.einsum("bkf,cfk->bc", padded[:, t : t + 3], weights[f"{conv}.weight"]) + weights[f"{conv}.bias"]
            for t in range(7)
        ],
        dim=1,
    )
    mean, var = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
    seen = ((seen - mean) / (var + 1e-5).sqrt() * weights[f"{norm}.weight"] + weights[f"{norm}.bias"]).relu()
    read = torch.cat([_lstm(seen, weights, ""), _lstm(seen.flip(1), weights, "_reverse").flip(1)], dim=-1)
    expected = read @ weights["head.weight"].T + weights["head.bias"]
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def _lstm(x_BTC: torch.Tensor, weights: dict[str, torch.Tensor], way: str) -> torch.Tensor:
    """Hochreiter and Schmidhuber's cell with a forget gate, frame by frame; PyTorch's order of gates."""
    w, u, b, c = (weights[f"lstm.{name}_l0{way}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    hidden = cell = torch.zeros(len(x_BTC), u.shape[1])
    states = []
    for t in range(x_BTC.shape[1]):
        enter, forget, new, leave = (x_BTC[:, t] @ w.T + b + hidden @ u.T + c).chunk(4, dim=-1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        states.append(hidden)
    return torch.stack(states, dim=1)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("frames", [1, 2, 7, 40])
def test_every_frame_has_logits_however_long_the_window(name: str, frames: int) -> None:
    model = made(name)
    x = torch.randn(3, frames, 6)
    assert last(model.train()(x)).shape == (3, frames, 3)
    assert model.eval()(x).shape == (3, frames, 3)


@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_every_parameter(name: str) -> None:
    model = made(name).train()
    said = model(torch.randn(4, 20, 6))
    sum(one.square().sum() for one in (said if isinstance(said, list) else [said])).backward()
    for what, parameter in model.named_parameters():
        assert parameter.grad is not None, what
        if not re.fullmatch(r"convolutions\.\d\.0\.bias", what):  # batch normalisation takes it away again
            assert parameter.grad.abs().max() > 1e-6, what


@pytest.mark.parametrize("name", SMALL)
def test_windows_do_not_see_each_other(name: str) -> None:
    model, x, order = made(name).eval(), torch.randn(5, 16, 6), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(model(x[order]), model(x)[order])
    torch.testing.assert_close(model(x[2:3]), model(x)[2:3])


@pytest.mark.parametrize("name", SMALL)
def test_a_seed_fixes_weights_and_dropout(name: str) -> None:
    x = torch.randn(2, 12, 6)
    first, again, other = (last(made(name, seed).train()(x)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", SMALL)
def test_weights_tell_everything(name: str) -> None:
    x, model, other = torch.randn(2, 12, 6), made(name, 1), made(name, 2)
    last(model.train()(x * 3))  # batch normalisation's statistics are part of it
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(x), model.eval()(x))


@pytest.mark.parametrize("name", SMALL)
def test_half_precision_says_nearly_the_same(name: str) -> None:
    model, x = made(name), torch.randn(2, 32, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        last(model.train()(x)).float().sum().backward()
        found = model.eval()(x)
    assert (found - model(x)).abs().max() < 0.05 * model(x).std() + 0.05
    assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.grad is not None)


@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 2**31))
@settings(deadline=None, max_examples=30)
def test_the_dilated_convolution_is_pytorchs(frames: int, dilation: int, seed: int) -> None:
    torch.manual_seed(seed)
    layer, x = DilatedConvolution(4, 5, dilation), torch.randn(2, frames, 4)
    kernel = layer.weight.view(5, 3, 4).transpose(1, 2)
    expected = functional.conv1d(x.transpose(1, 2), kernel, layer.bias, padding=dilation, dilation=dilation)
    torch.testing.assert_close(layer(x), expected.transpose(1, 2))


@pytest.mark.parametrize(
    ("options", "reach"),
    [
        ({"depth": 3}, 7),
        ({"depth": 4, "largest": 2}, 6),
        ({"depth": 2, "stages": 3}, 9),
        ({"depth": 1, "largest": 1}, 1),
    ],
)
def test_a_frame_is_felt_as_far_as_dilations_reach(options: dict[str, int], reach: int) -> None:
    torch.manual_seed(0)
    model = TCN(3, 2, width=8, **options).double().eval()
    x = torch.randn(1, 41, 3, dtype=torch.float64)
    changed = x.clone()
    changed[0, 20] += 1
    felt = (model(changed) != model(x)).any(-1)[0].nonzero().flatten().tolist()
    assert model.reach == reach
    assert felt == list(range(20 - reach, 21 + reach))


def test_the_default_reaches_128_frames() -> None:
    assert TCN(3, 2).dilations == [1, 2, 4, 8, 16, 32, 64, 1]
    assert TCN(3, 2).reach == 128


@pytest.mark.parametrize("exclusive", [True, False])
def test_later_stages_see_probabilities(exclusive: bool) -> None:
    """Adding a number to all logits of a frame changes the probabilities of independent outputs, not of classes."""
    torch.manual_seed(0)
    model = TCN(3, 4, width=8, depth=2, stages=2, exclusive=exclusive).double().eval()
    x = torch.randn(2, 9, 3, dtype=torch.float64)
    before = model(x)
    with torch.no_grad():
        model.stages[0].head.bias += 1.5
    assert torch.allclose(model(x), before + 1.5) == exclusive


def test_training_hears_every_stage() -> None:
    torch.manual_seed(0)
    model, x = TCN(3, 2, width=8, depth=2, stages=3, dropout=0), torch.randn(2, 9, 3)
    said = model.train()(x)
    assert len(said) == 3
    torch.testing.assert_close(model.eval()(x), said[-1])
    torch.testing.assert_close(model.stages[0](x), said[0])
    for stage in (1, 2):
        corrected = said[stage - 1] + model.stages[stage](said[stage - 1].sigmoid())
        torch.testing.assert_close(corrected, said[stage])


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
@settings(deadline=None)
def test_rotary_products_depend_on_distances(first: int, second: int, later: int) -> None:
    q, k = torch.randn(2, 8, generator=torch.Generator().manual_seed(first + 41 * second), dtype=torch.float64)
    turns = rotations(81, 8, torch.device("cpu")).double()

    def product(t: int, s: int) -> float:
        return float(rotated(q, turns[:, t]) @ rotated(k, turns[:, s]))

    assert product(first, second) == pytest.approx(product(first + later, second + later), abs=1e-4)


def test_rotations_are_products_of_complex_numbers() -> None:
    x = torch.randn(5, 6, dtype=torch.float64)
    found = rotated(x, rotations(5, 6, torch.device("cpu")).double())
    for t in range(5):
        for i in range(3):
            turned = complex(x[t, i], x[t, i + 3]) * complex(
                math.cos(t * 10_000 ** (-2 * i / 6)), math.sin(t * 10_000 ** (-2 * i / 6))
            )
            assert complex(found[t, i], found[t, i + 3]) == pytest.approx(turned, abs=1e-5)


def test_attention_is_a_softmax_of_products_of_turned_features() -> None:
    torch.manual_seed(0)
    layer, x, turns = Attention(8, 2), torch.randn(1, 6, 8), rotations(6, 4, torch.device("cpu"))
    q, k, v = layer.qkv(layer.norm(x))[0].split(8, dim=-1)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        scores = rotated(q[:, head], turns) @ rotated(k[:, head], turns).T / math.sqrt(4)
        heads.append(scores.softmax(-1) @ v[:, head])
    torch.testing.assert_close(layer(x, turns)[0], layer.out(torch.cat(heads, dim=-1)))


def test_the_convolution_module_looks_at_its_kernel_and_attention_at_the_window() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 31, 16, dtype=torch.float64)
    changed = x.clone()
    changed[0, 15] *= 2
    changed[0, 15, 0] += 1
    module = Convolution(16, 7).double()
    felt = (module(changed) != module(x)).any(-1)[0].nonzero().flatten().tolist()
    assert felt == list(range(12, 19))
    model = ConvTransformer(16, 3, width=16, depth=1, heads=2, kernel=3).double().eval()
    assert (model(changed) != model(x)).any(-1).all()


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: ConvBiLSTM(3, 2, channels=()), "channels"),
        (lambda: ConvBiLSTM(3, 2, layers=0), "layers"),
        (lambda: TCN(3, 2, depth=0), "depth"),
        (lambda: TCN(3, 2, stages=0), "stages"),
        (lambda: TCN(3, 2, largest=6), "largest"),
        (lambda: TCN(3, 2, largest=0), "largest"),
        (lambda: ConvTransformer(3, 2, depth=0), "depth"),
        (lambda: ConvTransformer(3, 2, width=20, heads=4), "width"),
        (lambda: ConvTransformer(3, 2, kernel=4), "kernel"),
    ],
)
def test_errors_name_the_setting(make, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make()
