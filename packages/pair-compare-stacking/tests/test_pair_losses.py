"""Losses against independent oracles (PyTorch, scikit-learn) and as laws."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import log_loss
from torch.distributions import Bernoulli, Categorical, kl_divergence
from torch.nn import functional

from pair_compare_stacking import losses
from pair_compare_stacking.model import Prediction
from pair_compare_stacking.training_config import Augment, Distill, Loss
from shared_core import config as configuration
from shared_core.errors import UserError
from shared_core.settings import Section
from shared_core.userdefined import UserFunction
from shared_core.yamlfile import Document

SMOOTHING = st.floats(0, 0.99)
SEEDS = st.integers(0, 10_000)
FOCAL = st.builds(lambda **values: Loss(kind="focal", **values), alpha=st.floats(0.01, 10), gamma=st.floats(0, 8),
                  label_smoothing=SMOOTHING)  # fmt: skip
ANY = st.one_of(FOCAL, st.builds(Loss, label_smoothing=SMOOTHING))


def drawn(seed: int, n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-odds and labels (n,)."""
    generator = torch.Generator().manual_seed(seed)
    return (
        4 * torch.randn(n, generator=generator, dtype=torch.float64),
        torch.randint(0, 2, (n,), generator=generator),
    )


def answers(seed: int, n: int = 5, requires_grad: bool = False) -> Prediction:
    generator = torch.Generator().manual_seed(seed)
    logit = 3 * torch.randn(n, generator=generator, dtype=torch.float64)
    digit_logits = 3 * torch.randn(n, 2, 10, generator=generator, dtype=torch.float64)
    return Prediction(logit.requires_grad_(requires_grad), digit_logits.requires_grad_(requires_grad))


# the comparison


@settings(deadline=None)
@given(SEEDS, SMOOTHING)
def test_cross_entropy_is_torchs(seed: int, smoothing: float) -> None:
    logit, y = drawn(seed)
    two_classes = torch.stack([torch.zeros_like(logit), logit], dim=1)
    expected = functional.cross_entropy(two_classes, y, label_smoothing=smoothing)
    torch.testing.assert_close(losses.compare(logit, y, Loss(label_smoothing=smoothing)), expected)
    softened = y.double() * (1 - smoothing) + smoothing / 2
    expected = functional.binary_cross_entropy_with_logits(logit, softened)
    torch.testing.assert_close(losses.compare(logit, y, Loss(label_smoothing=smoothing)), expected)


def test_cross_entropy_is_scikit_learns() -> None:
    logit, y = drawn(3, 200)
    expected = log_loss(y.numpy(), torch.sigmoid(logit).numpy())
    assert float(losses.compare(logit, y, Loss())) == pytest.approx(expected, rel=1e-12)


@settings(deadline=None)
@given(SEEDS, SMOOTHING)
def test_focal_loss_without_focus_is_cross_entropy_exactly(seed: int, smoothing: float) -> None:
    logit, y = drawn(seed)
    logit.requires_grad_()
    plain = losses.compare(logit, y, Loss(label_smoothing=smoothing))
    focal = losses.compare(logit, y, Loss(kind="focal", gamma=0, label_smoothing=smoothing))
    assert torch.equal(plain, focal)
    assert torch.equal(*(torch.autograd.grad(loss, logit)[0] for loss in (plain, focal)))


@settings(deadline=None)
@given(SEEDS, FOCAL)
def test_focal_loss_by_its_formula(seed: int, wanted: Loss) -> None:
    """Pair by pair with plain numbers; the factor knows nothing of the smoothing."""
    logit, y = drawn(seed)
    expected = []
    for z, label in zip(logit.tolist(), y.tolist(), strict=True):
        p = 1 / (1 + math.exp(-z if label else z))
        smooth = wanted.label_smoothing / 2
        expected.append(
            -wanted.alpha * (1 - p) ** wanted.gamma * ((1 - smooth) * math.log(p) + smooth * math.log1p(-p))
        )
    assert float(losses.compare(logit, y, wanted)) == pytest.approx(sum(expected) / len(expected), rel=1e-8)


def test_smoothing_leaves_the_focal_factor_alone() -> None:
    """The predecessor took p from the smoothed target, so that no certainty ever silenced a pair."""
    logit, y = torch.tensor([30.0], dtype=torch.float64), torch.tensor([1])
    silent = losses.compare(logit, y, Loss(kind="focal", label_smoothing=0.1))
    assert 0 < float(silent) < 1e-20
    logit = torch.tensor([0.7], dtype=torch.float64)
    ratio = [
        losses.compare(logit, y, Loss(kind="focal", label_smoothing=smoothing))
        / losses.compare(logit, y, Loss(label_smoothing=smoothing))
        for smoothing in (0.0, 0.1, 0.5)
    ]
    torch.testing.assert_close(torch.stack(ratio), torch.sigmoid(-logit).square().expand(3))


@settings(deadline=None)
@given(SEEDS, ANY)
def test_the_comparison_loss_does_not_know_left_from_right(seed: int, wanted: Loss) -> None:
    logit, y = drawn(seed)
    assert torch.equal(losses.compare(logit, y, wanted), losses.compare(-logit, 1 - y, wanted))


@settings(deadline=None)
@given(SEEDS, ANY)
def test_a_batch_is_the_mean_of_its_pairs(seed: int, wanted: Loss) -> None:
    logit, y = drawn(seed)
    each = torch.stack([losses.compare(logit[i : i + 1], y[i : i + 1], wanted) for i in range(len(y))])
    torch.testing.assert_close(losses.compare(logit, y, wanted), each.mean())


@settings(deadline=None, max_examples=30)
@given(SEEDS, ANY)
def test_gradient_of_the_comparison(seed: int, wanted: Loss) -> None:
    logit, y = drawn(seed)
    assert torch.autograd.gradcheck(lambda z: losses.compare(z, y, wanted), logit.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    "wanted",
    [
        Loss(),
        Loss(label_smoothing=0.1),
        Loss(kind="focal", label_smoothing=0.1),
        Loss(kind="focal", gamma=0.0),
        Loss(kind="focal", gamma=0.3),
        Loss(kind="focal", gamma=5.0),
    ],
)
def test_extreme_logits_stay_finite(dtype: torch.dtype, wanted: Loss) -> None:
    for label in (0, 1):
        logit = torch.tensor([1e4, -1e4, 90.0, -90.0, 0.0], dtype=dtype, requires_grad=True)
        loss = losses.compare(logit, torch.full((5,), label), wanted)
        (gradient,) = torch.autograd.grad(loss, logit)
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss) and torch.isfinite(gradient).all()
        wrong = 1 - label  # the pair that is answered most wrongly has the full slope, however certain the answer
        slope = wanted.alpha if wanted.kind == "focal" else 1.0
        expected = (1 if label == 0 else -1) * slope * (1 - wanted.label_smoothing / 2) / 5
        assert float(gradient[1 - wrong]) == pytest.approx(expected, rel=5e-3)


def test_half_precision_is_computed_in_single() -> None:
    logit, y = drawn(1, 400)
    half = logit.half()
    assert torch.equal(losses.compare(half, y, Loss()), losses.compare(half.float(), y, Loss()))
    digit_logits, digits = torch.randn(50, 2, 10).bfloat16(), torch.randint(0, 10, (50, 2))
    assert torch.equal(losses.digit(digit_logits, digits), losses.digit(digit_logits.float(), digits))


# digits, and the whole


def test_digit_loss_is_scikit_learns() -> None:
    prediction, digits = answers(0, 40), torch.randint(0, 10, (40, 2), generator=torch.Generator().manual_seed(1))
    probabilities = torch.softmax(prediction.digit_logits, dim=-1).reshape(80, 10).numpy()
    expected = log_loss(digits.reshape(80).numpy(), probabilities, labels=range(10))
    assert float(losses.digit(prediction.digit_logits, digits)) == pytest.approx(expected, rel=1e-10)


def test_total_and_its_parts() -> None:
    prediction, teacher = answers(0), answers(1)
    y, digits = torch.tensor([0, 1, 1, 0, 1]), torch.arange(10).view(5, 2)
    wanted = Loss(kind="focal", digit_weight=0.25)
    hard, parts = losses.total(prediction, y, digits, wanted)
    assert list(parts) == ["compare_loss", "digit_loss"]
    assert torch.equal(parts["compare_loss"], losses.compare(prediction.logit, y, wanted))
    torch.testing.assert_close(hard, parts["compare_loss"] + 0.25 * parts["digit_loss"])

    unknown, parts = losses.total(prediction, y, None, wanted)
    assert list(parts) == ["compare_loss"] and torch.equal(unknown, parts["compare_loss"])

    distill = Distill(teacher="somebody", soft=0.4, temperature=2)
    both, parts = losses.total(prediction, y, digits, wanted, teacher=teacher, distill=distill)
    assert list(parts) == ["compare_loss", "digit_loss", "distill_loss"]
    torch.testing.assert_close(parts["distill_loss"], losses.imitate(prediction, teacher, 2.0, 0.25))
    torch.testing.assert_close(both, 0.4 * parts["distill_loss"] + 0.6 * hard)

    both, parts = losses.total(prediction, y, digits, wanted, teacher=teacher)
    torch.testing.assert_close(both, 0.7 * losses.imitate(prediction, teacher, 3.0, 0.25) + 0.3 * hard)
    assert torch.equal(losses.total(prediction, y, digits, wanted, distill=Distill())[0], hard)  # nobody to learn from


def test_gradient_of_everything() -> None:
    """Also that every part has one, and that none reaches the teacher."""
    prediction, teacher = answers(0, 3, requires_grad=True), answers(1, 3, requires_grad=True)
    y, digits = torch.tensor([0, 1, 1]), torch.tensor([[1, 2], [9, 3], [5, 4]])

    def whole(logit: torch.Tensor, digit_logits: torch.Tensor) -> torch.Tensor:
        wanted = Loss(kind="focal", label_smoothing=0.1)
        return losses.total(Prediction(logit, digit_logits), y, digits, wanted, teacher=teacher)[0]

    assert torch.autograd.gradcheck(whole, (prediction.logit, prediction.digit_logits))
    whole(prediction.logit, prediction.digit_logits).backward()
    assert teacher.logit.grad is None and teacher.digit_logits.grad is None


# distillation


@settings(deadline=None)
@given(SEEDS, SEEDS, st.floats(0.5, 20), st.floats(0, 3))
def test_imitation_is_the_divergence_of_tempered_answers(first: int, second: int, t: float, weight: float) -> None:
    """Against PyTorch's distributions, and its kl_div on the probabilities of two classes."""
    student, teacher = answers(first), answers(second)
    compared = kl_divergence(Bernoulli(logits=teacher.logit / t), Bernoulli(logits=student.logit / t)).mean()
    digits = kl_divergence(
        Categorical(logits=teacher.digit_logits / t), Categorical(logits=student.digit_logits / t)
    ).mean()
    expected = t**2 * (compared + weight * digits)
    torch.testing.assert_close(losses.imitate(student, teacher, t, weight), expected, rtol=1e-6, atol=1e-9)

    log_p = functional.log_softmax(torch.stack([torch.zeros(5), student.logit / t], dim=1), dim=1)
    q = torch.softmax(torch.stack([torch.zeros(5), teacher.logit / t], dim=1), dim=1)
    expected = t**2 * functional.kl_div(log_p, q, reduction="batchmean")
    torch.testing.assert_close(losses.imitate(student, teacher, t, 0.0), expected, rtol=1e-6, atol=1e-9)


@settings(deadline=None)
@given(SEEDS, st.floats(0.5, 20))
def test_nobody_differs_from_oneself(seed: int, t: float) -> None:
    student = answers(seed, requires_grad=True)
    loss = losses.imitate(student, student, t, 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    for gradient in (student.logit.grad, student.digit_logits.grad):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


def test_hot_imitation_is_matching_of_logits() -> None:
    """Hinton et al. 2015, equation 4: at a high temperature T^2 KL is half the variance of the logits' difference."""
    student, teacher = answers(0), answers(1)
    gap = student.digit_logits - teacher.digit_logits
    expected = gap.var(dim=-1, correction=0).mean() / 2 + (student.logit - teacher.logit).square().mean() / 8
    torch.testing.assert_close(losses.imitate(student, teacher, 1e4, 1.0), expected, rtol=2e-3, atol=0)


def test_a_teacher_that_is_certain() -> None:
    """Log-odds without end, and digits of probability 0, as averages of several models can have."""
    certain = torch.full((2, 2, 10), -math.inf)
    certain[:, :, 3] = 0.0
    teacher = Prediction(torch.tensor([math.inf, -math.inf]), certain)
    for size in (1.0, 1e4):
        logit = torch.tensor([-size, size], requires_grad=True)
        digit_logits = (size * torch.randn(2, 2, 10)).requires_grad_()
        loss = losses.imitate(Prediction(logit, digit_logits), teacher, 3.0, 1.0)
        loss.backward()
        tempered = Prediction(logit / 3, digit_logits / 3)
        hard = functional.binary_cross_entropy_with_logits(tempered.logit, torch.tensor([1.0, 0.0]))
        hard = hard + losses.digit(tempered.digit_logits, torch.full((2, 2), 3))
        torch.testing.assert_close(loss, 9 * hard)
        assert torch.isfinite(logit.grad).all() and torch.isfinite(digit_logits.grad).all()


# the user's own loss


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_loss_of_the_users(reduction: str) -> None:
    prediction, y = answers(0, requires_grad=True), torch.tensor([0, 1, 1, 0, 1])

    def mine(logit: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(logit, y, reduction=reduction)

    total, parts = losses.total(prediction, y, None, Loss(function="mine:mine"), function=mine)
    assert list(parts) == ["compare_loss"] and total.shape == ()
    torch.testing.assert_close(total, losses.compare(prediction.logit, y, Loss()))


def test_the_users_loss_gets_single_precision() -> None:
    seen: list[torch.Tensor] = []

    def mine(logit: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        seen.extend((logit, y))
        return logit.sum()

    losses.own(mine, torch.zeros(3).half(), torch.tensor([0, 1, 1]))
    assert [x.dtype for x in seen] == [torch.float32] * 2 and seen[1].tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("mine", "complaint"),
    [
        (lambda logit, y: None, "must return a tensor of shape () or (5,), one loss for each pair, not NoneType"),
        (lambda logit, y: float(logit.detach().sum()), "must return .*, not float"),
        (lambda logit, y: logit[:, None] - y, "must return .*, not torch.float64 of shape (5, 5)"),
        (lambda logit, y: logit[:3], "must return .*, not torch.float64 of shape (3,)"),
        (lambda logit, y: (logit > 0) == (y > 0), "must return .*, not torch.bool of shape (5,)"),
        (lambda logit, y: (logit.detach() - y).square(), "its loss has no gradient; compute it from the logits with"),
    ],
)
def test_a_wrong_loss_of_the_users_is_named(mine: Any, complaint: str) -> None:
    function = UserFunction("loss.function", "mine:mine", mine)
    pattern = complaint.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(UserError, match=rf"^loss\.function: mine:mine: {pattern}"):
        losses.total(answers(0, requires_grad=True), torch.tensor([0, 1, 1, 0, 1]), None, Loss(), function=function)


# settings


class Whole(Section):
    """As a package's configuration holds the section."""

    loss: Loss = Loss()


def refused(section: type, **values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        section(**values)
    return str(caught.value)


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (Loss, {"kind": "hinge"}),
        (Loss, {"kind": "focal", "alpha": 0}),
        (Loss, {"kind": "focal", "gamma": -0.1}),
        (Loss, {"label_smoothing": 1}),
        (Loss, {"digit_weight": -1}),
        (Distill, {"temperature": 0}),
        (Distill, {"soft": 1.1}),
        (Augment, {"rotation": 181}),
        (Augment, {"translate": -0.1}),
        (Augment, {"resized_crop": 0}),
        (Augment, {"resized_crop": 1.1}),
        (Augment, {"probability": 0}),
    ],
)
def test_bounds(section: type, values: dict[str, Any]) -> None:
    assert list(values)[-1] in refused(section, **values)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"gamma": 3}, "gamma has no effect beside kind bce"),
        ({"alpha": 0.5}, "alpha has no effect beside kind bce"),
        ({"function": "m:f", "kind": "focal"}, "kind has no effect beside function"),
        ({"function": "m:f", "label_smoothing": 0.1}, "label_smoothing has no effect beside function"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(values: dict[str, Any], complaint: str) -> None:
    assert complaint in refused(Loss, **values)
    _, lines = configuration.validate(Whole, Document({"loss": values}), {}, {})
    assert lines == [f"loss: {complaint}; leave one of them out"]


def test_every_section_survives_being_written_down() -> None:
    for section in (Loss(), Loss(kind="focal"), Loss(function="m:f", digit_weight=0), Augment(), Distill()):
        assert type(section)(**section.model_dump()) == section


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, pair_compare_stacking.training_config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
