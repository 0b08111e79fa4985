"""The network: causal, any prefix, any subset of variables, every type trains."""

from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from timeseries_dualmodal import losses
from timeseries_dualmodal.members import Members
from timeseries_dualmodal.model import DualModel
from timeseries_dualmodal.model_config import Loss, Model, ModelType

TYPES = get_args(ModelType)
V, T, C, SIZE = 3, 9, 4, 32


def build(kind: str = "dual_modal", tower: str = "small_cnn", **more: Any) -> DualModel:
    torch.manual_seed(0)
    small = {
        "type": kind,
        "dim": 16,
        "language": {"dim": 16, "depth": 2, "patch": 4},
        "vision": {"tower": tower, "dim": 16, "depth": 2, "channels": (8, 8)},
    }
    return DualModel(Model.model_validate(small), V, C, torch.arange(T).double(), SIZE, **more).eval()


def series(batch: int = 5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, V, T, generator=generator)
    return x.masked_fill(torch.rand(x.shape, generator=generator) < 0.2, torch.nan)


def pictures(lengths: torch.Tensor, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (*lengths.shape, V, SIZE, SIZE), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("tower", ["small_cnn", "small_vit"])
def test_every_type_trains_a_step_and_every_weight_learns(kind: str, tower: str) -> None:
    """The predecessor's `language_only` crashed on its first batch."""
    model = build(kind, tower).train()
    x, length = series(), torch.tensor([[1, 4, T]]).expand(5, 3)
    answer = model(x, length, pictures(length) if model.sight is not None else None)
    loss, parts = losses.total(answer, torch.arange(5) % C, length, T, torch.ones(C), Loss())
    loss.backward()
    assert torch.isfinite(loss)
    assert set(parts) == ({"alignment", "sight", "words"} if kind == "dual_modal" else set())
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_parts_that_nothing_trains_are_not_made() -> None:
    model = build(aligned=False, branched=False).train()
    length = torch.full((5, 1), T)
    answer = model(series(), length, pictures(length))
    losses.total(answer, torch.arange(5) % C, length, T, torch.ones(C), Loss(alignment=0, branches=0))[0].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@settings(max_examples=20, deadline=None)
@given(kind=st.sampled_from(TYPES), length=st.integers(1, T), seed=st.integers(0, 99))
def test_nothing_after_a_prefix_moves_its_answer_by_a_bit(kind: str, length: int, seed: int) -> None:
    model, before = build(kind), series(seed=seed)
    after = before.clone()
    after[:, :, length:] = torch.tensor([torch.nan, 1e30, -3.0])[torch.randint(3, after[:, :, length:].shape)]
    lengths = torch.full((5, 1), length)
    seen = pictures(lengths, seed)
    assert torch.equal(model(before, lengths, seen).logits_BKC, model(after, lengths, seen).logits_BKC)


@pytest.mark.parametrize("kind", TYPES)
def test_a_prefix_is_answered_alike_alone_and_among_others(kind: str) -> None:
    """Training shows several prefixes at once, evaluation all lengths, a stream one."""
    model, x = build(kind), series()
    every = torch.arange(1, T + 1).expand(5, T)
    seen = pictures(every)
    together = model(x, every, seen).logits_BKC
    for k in range(T):
        alone = model(x[2:3], every[2:3, k : k + 1], seen[2:3, k : k + 1]).logits_BKC
        assert torch.allclose(alone[0, 0], together[2, k], atol=1e-5)


@pytest.mark.parametrize("kind", TYPES)
def test_a_season_that_has_only_begun_has_fewer_steps(kind: str) -> None:
    model, x, lengths = build(kind), series(), torch.tensor([[3, 5]]).expand(5, 2)
    seen = pictures(lengths)
    assert torch.allclose(model(x[:, :, :5], lengths, seen).logits_BKC, model(x, lengths, seen).logits_BKC, atol=1e-5)


@pytest.mark.parametrize("kind", TYPES)
def test_a_missing_variable_is_not_looked_at(kind: str) -> None:
    """Its picture may say anything."""
    model, x, lengths = build(kind), series(), torch.full((5, 1), 6)
    x[:, 1] = torch.nan
    seen = pictures(lengths)
    other = seen.clone()
    other[:, :, 1] = 0
    assert torch.equal(model(x, lengths, seen).logits_BKC, model(x, lengths, other).logits_BKC)


@pytest.mark.parametrize("kind", TYPES)
def test_a_series_without_any_value_has_an_answer(kind: str) -> None:
    model, lengths = build(kind), torch.tensor([[1, T]])
    answer = model(torch.full((1, V, T), torch.nan), lengths, pictures(lengths))
    assert torch.isfinite(answer.logits_BKC).all()


def test_values_count_in_units_of_the_training_series() -> None:
    """The same series in other units, with the scale fitted in those, has the same answer."""
    model, x, lengths = build("language_only"), series(), torch.full((5, 1), T)
    model.scale.mean_V.copy_(torch.tensor([1.0, 2.0, 3.0]))
    one = model(x, lengths).logits_BKC
    model.scale.mean_V.mul_(100)
    model.scale.std_V.mul_(100)
    assert torch.allclose(model(100 * x, lengths).logits_BKC, one, atol=1e-4)


@pytest.mark.parametrize("kind", TYPES)
def test_one_variable_of_one_step_is_enough(kind: str) -> None:
    model = DualModel(Model(type=kind), 1, 2, torch.zeros(1).double(), 64).eval()
    lengths = torch.ones(7, 2, dtype=torch.int64)
    seen = torch.zeros(7, 2, 1, 64, 64, dtype=torch.uint8)
    assert model(torch.randn(7, 1, 1), lengths, seen).logits_BKC.shape == (7, 2, 2)


def test_irregular_steps_are_told_apart_from_regular_ones() -> None:
    torch.manual_seed(0)
    wanted = Model(type="language_only")
    regular = DualModel(wanted, V, C, torch.arange(T).double(), SIZE).eval()
    irregular = DualModel(wanted, V, C, torch.arange(T).double() ** 2, SIZE).eval()
    irregular.load_state_dict(regular.state_dict())
    x, lengths = series(), torch.full((5, 1), T)
    assert not torch.allclose(regular(x, lengths).logits_BKC, irregular(x, lengths).logits_BKC, atol=1e-3)


# several networks as one


def members() -> Members:
    made = [build() for _ in range(3)]
    for index, member in enumerate(made):
        torch.manual_seed(index)
        for parameter in member.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return Members(made)


def test_their_probabilities_are_averaged() -> None:
    model, x, lengths = members().eval(), series(), torch.tensor([[2, 9]]).expand(5, 2)
    seen = pictures(lengths)
    each = torch.stack([member(x, lengths, seen).logits_BKC.softmax(-1) for member in model.members])
    together = model(x, lengths, seen)
    assert torch.allclose(together.logits_BKC.softmax(-1), each.mean(dim=0), atol=1e-6)
    assert torch.allclose(together.logits_BKC.exp().sum(-1), torch.ones(5, 2), atol=1e-5)


def test_each_learns_as_it_would_alone() -> None:
    """The loss is a sum: no member's gradient knows of the others."""
    model, x, lengths = members().train(), series(), torch.tensor([[2, 9]]).expand(5, 2)
    for member in model.modules():
        if isinstance(member, torch.nn.Dropout):
            member.p = 0.0
    seen = pictures(lengths)
    sum(answer.logits_BKC.square().sum() for answer in model(x, lengths, seen)).backward()
    together = [p.grad.clone() for p in model.members[1].parameters() if p.grad is not None]
    model.zero_grad()
    model.members[1](x, lengths, seen).logits_BKC.square().sum().backward()
    alone = [p.grad for p in model.members[1].parameters() if p.grad is not None]
    assert len(alone) == len(together) > 10
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(alone, together, strict=True))
