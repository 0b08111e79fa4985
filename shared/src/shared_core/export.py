"""Weights in forms that others load: one ``.pt`` state dict, ONNX, or `torch.export`.

ONNX and `torch.export` trace the model's ``forward`` with a training batch of the package's own task, so they need no
description of its inputs, and whatever `forward` returns (a tensor, a tuple, a dict or a dataclass of tensors) becomes
named outputs. Each export is compared with PyTorch on that batch before the file gets its name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from shared_core import files, microbatch, runs
from shared_core.checkpoint import Checkpoints
from shared_core.errors import UserError
from shared_core.task import Task
from shared_core.tensorfile import Tensors
from shared_core.weights import load_strictly, load_weights

if TYPE_CHECKING:
    from shared_core.cli import App
    from shared_core.records import RunDir
    from shared_core.settings import RunConfig
    from shared_core.verbs import ExportOptions

SUFFIXES = {"state_dict": ".pt", "onnx": ".onnx", "torch_export": ".pt2"}
_ONNX_LIMIT = 1_900_000_000  # bytes; one ONNX file holds at most 2 GiB
_TOLERANCE = 1e-3  # of the largest value of an output, between PyTorch and the exported model


def run(app: App, config: RunConfig, options: ExportOptions) -> None:
    """The verb `export`: writes a run's weights in another form and prints where."""
    found = runs.locate(app, config, options)
    path = runs.checkpoint(found, options.checkpoint)
    out = options.out or found.path / f"{found.name}{SUFFIXES[options.format]}"
    if options.format == "state_dict":
        print(state_dict(found, path, out))
        return
    from shared_core.runtime import Runtime

    task = app.build_task(config, Runtime.start(config.runtime, config.seed))
    load_strictly(task.model, load_weights(path), path)
    write = onnx if options.format == "onnx" else torch_export
    difference = write(task, out)
    print(f"{out} (largest relative difference from PyTorch: {difference:.1e})")


def state_dict(run: RunDir, checkpoint: Path, out: Path, weights: Tensors | None = None) -> Path:
    """One ``.pt`` file that ``torch.load(out, weights_only=True)`` reads.

    Its keys are ``model_state_dict`` (averaged weights where there are any), ``epoch``, ``step``,
    ``optimizer_state_dict``, ``best_val_acc`` (None where accuracy is no metric), ``metrics`` (of the best evaluation)
    and ``config`` (YAML). A run that came from the Hub has no optimizer, and its `epoch` is None.

    Args:
        weights: what a package makes of those of the checkpoint; whose optimizer, which is of others, is left out then.

    Raises:
        UserError: the checkpoint is damaged, or `out` cannot be written.
    """
    content: dict[str, Any] = {
        "epoch": None,
        "step": None,
        "model_state_dict": load_weights(checkpoint) if weights is None else weights,
        "optimizer_state_dict": None,
        "best_val_acc": None,
        "metrics": {},
        "config": (run.path / "config.yaml").read_text(encoding="utf-8"),
    }
    if (checkpoint / "state.json").is_file():
        state = Checkpoints(run.checkpoints).load(checkpoint)
        progress = state.extra.get("progress", {})
        best = progress.get("best", {})
        optimizers = state.optimizers if weights is None else [None]
        content |= {
            "epoch": progress.get("epoch"),
            "step": progress.get("step"),
            "optimizer_state_dict": optimizers[0] if len(optimizers) == 1 else optimizers,
            "best_val_acc": best.get("val/accuracy"),
            "metrics": best,
        }
    with files.atomic_path(out) as temporary:
        torch.save(content, temporary)
    return out


def onnx(task: Task, out: Path) -> float:
    """The model of `task` as one ONNX file with a free batch size where the model allows one.

    Returns the largest difference from PyTorch's answer to a training batch, relative to its largest value.

    Raises:
        UserError: the extra `onnx` is missing, the model is too large for one file or does something that ONNX does
            not know, or ONNX Runtime answers differently from PyTorch.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch.onnx works through it
    except ModuleNotFoundError as error:
        raise UserError(f"--format onnx needs {error.name}; run: pip install onnx onnxscript onnxruntime") from None
    size = sum(tensor.nbytes for tensor in task.model.state_dict().values())
    if size > _ONNX_LIMIT:
        raise UserError(f"the weights take {size / 1e9:.1f} GB, one ONNX file holds 2; use --format torch_export")
    traced = _Traced(task)
    with _exporting(traced, "ONNX"):
        program = torch.onnx.export(
            traced,
            traced.inputs,
            dynamo=True,
            dynamic_shapes=traced.free_batch(),
            input_names=list(traced.names),
            output_names=list(traced.outputs),
            verbose=False,
        )
    assert program is not None
    with files.atomic_path(out) as temporary:
        program.save(temporary, external_data=False)
        session = onnxruntime.InferenceSession(temporary.read_bytes(), providers=["CPUExecutionProvider"])
        given = dict(zip(traced.names, (tensor.numpy() for tensor in traced.inputs), strict=True))
        wanted = {item.name for item in session.get_inputs()}  # an input that no output depends on is dropped
        answers = session.run(None, {name: value for name, value in given.items() if name in wanted})
        return traced.compare([torch.as_tensor(answer) for answer in answers], "ONNX Runtime")


def torch_export(task: Task, out: Path) -> float:
    """The model of `task` as a ``.pt2`` program for ``torch.export.load``; returns and raises as `onnx`."""
    traced = _Traced(task)
    with _exporting(traced, "torch.export"):
        program = torch.export.export(traced, traced.inputs, dynamic_shapes=traced.free_batch())
    difference = traced.compare(list(program.module()(*traced.inputs)), "torch.export")
    with files.atomic_path(out) as temporary, temporary.open("wb") as file:
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(program, buffer)
        file.write(buffer.getbuffer())
    return difference


class _Traced(nn.Module):
    """A model in evaluation mode whose inputs are a tuple of tensors and whose outputs are a tuple of tensors."""

    def __init__(self, task: Task, rows: int = 4) -> None:
        super().__init__()
        arguments, keywords = _call(task, rows)
        bound = inspect.signature(task.model.forward).bind(*arguments, **keywords).arguments
        tensors = {name: value for name, value in bound.items() if isinstance(value, torch.Tensor)}
        self.model = task.model.cpu().float().eval()
        self.names = tuple(tensors)
        self.constants = {name: value for name, value in bound.items() if name not in tensors}
        self.inputs = tuple(tensor.detach().cpu() for tensor in tensors.values())
        with torch.no_grad():
            answer = _named(self.model(**self.constants, **dict(zip(self.names, self.inputs, strict=True))))
        self.outputs = tuple(answer)
        self.expected = tuple(answer.values())

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        answer = self.model(**self.constants, **dict(zip(self.names, inputs, strict=True)))
        return tuple(_named(answer).values())

    def free_batch(self) -> tuple[tuple[dict[int, Any], ...]]:
        """The first dimension of each input that has as many rows as the batch is free, if the model allows it."""
        rows = len(self.inputs[0])
        free = {0: torch.export.Dim.AUTO}
        return (tuple(free if tensor.ndim and len(tensor) == rows else {} for tensor in self.inputs),)

    @torch.no_grad()
    def compare(self, answers: list[torch.Tensor], who: str) -> float:
        """Largest difference from `expected`, relative to each output's largest value; UserError beyond tolerance."""
        worst = 0.0
        for name, ours, theirs in zip(self.outputs, self.expected, answers, strict=True):
            scale = ours.double().abs().max().clamp_min(1e-12)
            difference = float((ours.double() - theirs.double()).abs().max() / scale)
            if not difference <= _TOLERANCE:
                raise UserError(
                    f"{who} answers differently from PyTorch (output {name}: by {difference:.1e} of its largest); "
                    "nothing was written, use --format state_dict"
                )
            worst = max(worst, difference)
        return worst


def _call(task: Task, rows: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with which the task's loss calls its model, for the first `rows` samples of its training data."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    hook = task.model.register_forward_pre_hook(
        lambda _, arguments, keywords: calls.append((arguments, keywords)), with_kwargs=True
    )
    try:
        with torch.no_grad():  # also tells a task that nobody trains
            piece, _ = next(microbatch.pieces(next(iter(task.batches.epoch(0))), rows))
            task.loss(task.model.eval(), piece)
    finally:
        hook.remove()
    if not calls:
        raise UserError("the task's loss does not call its model as a whole, so it cannot be traced; use state_dict")
    return calls[0]


def _named(answer: Any) -> dict[str, torch.Tensor]:
    """The tensors of a model's answer with a name each."""
    if isinstance(answer, torch.Tensor):
        return {"output": answer}
    if dataclasses.is_dataclass(answer):
        answer = {field.name: getattr(answer, field.name) for field in dataclasses.fields(answer)}
    elif isinstance(answer, tuple) and hasattr(answer, "_asdict"):
        answer = answer._asdict()
    elif isinstance(answer, list | tuple):
        answer = {f"output{i}": value for i, value in enumerate(answer)}
    if not isinstance(answer, Mapping):
        raise UserError(f"the model answers with a {type(answer).__name__}, which has no named tensors; use state_dict")
    return {str(name): value for name, value in answer.items() if isinstance(value, torch.Tensor)}


@contextlib.contextmanager
def _exporting(traced: _Traced, what: str) -> Iterator[None]:
    """Quiet, without gradients; what the exporter cannot do is the user's choice of format, so it ends in one line."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except Exception as error:
        name = type(traced.model).__name__
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"{name} cannot be exported to {what}: {reason}; use --format state_dict") from error
    finally:
        logger.setLevel(level)
