"""Models in one batched call answer, learn and keep statistics as in a call for each."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from pair_compare_stacking import batched
from pair_compare_stacking.generator import digit_prior
from pair_compare_stacking.members import Members
from pair_compare_stacking.model import PairModel

SHAPES = [
    {"attention": "cbam", "heads": ("difference", "concatenation", "product", "cosine", "l2", "residual")},
    {"attention": "se", "pyramid": True, "stem_stride": 1},
    {"block": "bottleneck", "posteriors": False, "antisymmetric": False},
]


def models(seeds: int, **settings: object) -> list[PairModel]:
    made = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        wanted = {"widths": (8, 16), "layers": (1, 1), "feat_dim": 16, "hidden": 16, **settings}
        model = PairModel(digit_prior(0.8), **wanted)  # type: ignore[arg-type]
        for head in model.comparison.terms:
            nn.init.normal_(head.out.weight)  # its zeros would hide what a head sees
        made.append(model)
    return made


@pytest.mark.parametrize("settings", SHAPES, ids=["six-heads", "pyramid", "bottleneck"])
def test_batched_is_as_in_turn(settings: dict[str, object]) -> None:
    """In float64, since in float32 the order of a sum decides on which side of a kink a value lies."""
    in_turn = Members([*models(3, **settings), *models(1, widths=(8, 24))]).double()
    together = Members(copy.deepcopy(list(in_turn.members)), in_batches=True)  # type: ignore[arg-type]
    assert together.groups == [[0, 1, 2]]
    torch.manual_seed(9)
    x = [torch.rand(6, 2, 28, 28, dtype=torch.float64) for _ in range(4)]
    for each in (in_turn, together):
        for _ in range(2):  # the second call sees the statistics that the first has left
            predictions = each(x)
        sum(p.logit.square().sum() + p.digit_logits.square().sum() for p in predictions).backward()
        each.eval()
    close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-6)  # some of the last steps are float32
    for one, other in zip(in_turn(x), together(x), strict=True):
        close(one.logit, other.logit)
        close(one.digit_logits, other.digit_logits)
    for (name, one), (_, other) in zip(in_turn.named_buffers(), together.named_buffers(), strict=True):
        close(one, other, msg=name)
    for (name, one), (_, other) in zip(in_turn.named_parameters(), together.named_parameters(), strict=True):
        assert one.grad is not None and other.grad is not None, name
        close(one.grad, other.grad, msg=name)


def test_only_equal_architectures_share_a_call() -> None:
    """Also those that differ in nothing but a branch, and hold the same tensors."""
    first, second = models(2)
    one_way = models(1, antisymmetric=False)[0]
    wider = models(1, widths=(8, 24))[0]
    dropped = models(1, dropout=0.5)[0]
    assert batched.groups([first, one_way, second, wider, dropped]) == [[0, 2], [1], [3], [4]]


def test_a_model_learns_nothing_from_its_neighbours_batch() -> None:
    together = Members(models(2), in_batches=True)
    x = [torch.rand(4, 2, 28, 28) for _ in range(2)]
    together(x)[0].logit.sum().backward()
    mine, other = together.members
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in mine.parameters())
    assert all(p.grad is None or not p.grad.any() for p in other.parameters())
