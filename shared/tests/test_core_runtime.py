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


def test_launcher_does_not_choose_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for device in ("cuda", "auto"):
        with pytest.raises(UserError, match=f"ACCELERATE_USE_CPU contradicts runtime.device={device}"):
            guard({"ACCELERATE_USE_CPU": "True"}, device=device)
    guard({"ACCELERATE_USE_CPU": "True"}, device="cpu")
    guard({"ACCELERATE_USE_CPU": "False"}, device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    guard({"ACCELERATE_USE_CPU": "True"}, device="auto")


def test_sharding_belongs_to_the_configuration() -> None:
    with pytest.raises(UserError, match=r"ACCELERATE_USE_FSDP=true contradicts runtime\.fsdp=false"):
        guard({"ACCELERATE_USE_FSDP": "true"})
    guard({"ACCELERATE_USE_FSDP": "true"}, fsdp=True)
    with pytest.raises(UserError, match=r"runtime\.fsdp: .*fp16"):
        guard({}, precision="fp16", fsdp=True)


@pytest.mark.parametrize("name", ["ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM"])
def test_other_engines_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"{name}=true: not supported"):
        guard({name: "true"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")
def test_precision_that_the_device_lacks() -> None:
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


def test_launcher_that_agrees_on_accumulation_does_not_divide_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer weighs each forward pass itself; Accelerate would divide its gradient by 4 once more."""
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    runtime = Runtime.start(settings.Runtime(device="cpu"), 0, accumulation=4)
    weight = torch.ones(1, requires_grad=True)
    runtime.accelerator.backward(weight.sum())
    assert weight.grad is not None
    assert weight.grad.item() == 1.0


def test_processes_that_did_not_find_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would train alone and write the same run."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"^WORLD_SIZE=2, but 1 process joined; start several with `accelerate launch"):
        Runtime.start(settings.Runtime(), 0)


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_device_that_is_not_here(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    line = f"runtime.device: {name}, but this machine has no {name} device; use --runtime.device auto"
    with pytest.raises(UserError, match=f"^{line}$"):
        Runtime.start(settings.Runtime(device=name, precision="fp32"), 0)
