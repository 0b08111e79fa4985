"""Device, precision and who owns which setting."""

import pytest
import torch

from shared_core import settings
from shared_core.errors import UserError
from shared_core.runtime import Runtime, choose_precision, guard_environment


def guard(env: dict[str, str], precision: str = "fp32", accumulation: int = 1, **runtime: object) -> None:
    guard_environment(env, settings.Runtime.model_validate(runtime), precision, accumulation)


def test_what_accelerate_launch_sets_by_itself_is_no_contradiction() -> None:
    env = {
        "ACCELERATE_MIXED_PRECISION": "no",
        "ACCELERATE_DYNAMO_BACKEND": "NO",
        "ACCELERATE_USE_FSDP": "false",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
    }
    guard(env)
    guard(env, precision="bf16", accumulation=4, compile=True)


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("ACCELERATE_MIXED_PRECISION", "bf16", "runtime.precision=fp32"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "training.accumulation=1"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "runtime.compile=false"),
    ],
)
def test_contradiction_is_refused_with_both_names(name: str, value: str, key: str) -> None:
    with pytest.raises(UserError, match=name) as caught:
        guard({name: value})
    assert key in str(caught.value)
    assert value in str(caught.value)


def test_agreement_is_accepted() -> None:
    guard({"ACCELERATE_MIXED_PRECISION": "bf16"}, precision="bf16")
    guard({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, accumulation=4)


@pytest.mark.parametrize("name", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM"])
def test_other_engines_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"{name}=true: not supported"):
        guard({name: "true"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")
def test_device_that_is_not_here() -> None:
    with pytest.raises(UserError, match=r"runtime\.device: cuda.*auto"):
        Runtime.start(settings.Runtime(device="cuda", precision="fp32"), 0)
    with pytest.raises(UserError, match=r"runtime\.precision: fp16 needs a CUDA device"):
        choose_precision(settings.Runtime(precision="fp16"))
    assert choose_precision(settings.Runtime()) == "fp32"


def test_bf16_is_computed_where_it_is_asked_for() -> None:
    runtime = Runtime.start(settings.Runtime(device="cpu", precision="bf16"), 0)
    model = runtime.accelerator.prepare(torch.nn.Sequential(torch.nn.Linear(4, 4)))
    seen = []
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    assert model(torch.randn(2, 4)).dtype == torch.float32
    assert seen == [torch.bfloat16]


def test_a_process_of_one_owns_all_rows() -> None:
    runtime = Runtime.start(settings.Runtime(device="cpu"), 0)
    rows = torch.arange(7)
    assert runtime.share(7) == slice(0, 7)
    assert torch.equal(runtime.gather(rows, 7), rows)
