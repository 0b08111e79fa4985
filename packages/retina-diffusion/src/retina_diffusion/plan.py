"""The verb `plan`: what training would cost, of one configuration or of every preset within a budget of time.

For a GPU that is named but not here, nothing is computed and no data is needed: the very network is walked through with
tensors that have a shape and no memory, so that 2.3 billion parameters are planned on a laptop.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch._subclasses import FakeTensorMode

from retina_diffusion import train
from retina_diffusion.captions import Vocabulary
from retina_diffusion.channels import CHANNELS
from retina_diffusion.config import Config, PlanOptions
from retina_diffusion.photographs import Batch
from retina_diffusion.train import FlowTask, Material
from shared_core import config as configuration
from shared_core import files
from shared_core import plan as plans
from shared_core.batches import Batches
from shared_core.cli import App
from shared_core.errors import UserError
from shared_core.plan import Plan, quantity
from shared_core.progress import duration, message
from shared_core.runtime import Runtime

PHOTOGRAPHS = 1_400  # of the predecessor's guide
WORDS = 200  # of a vocabulary that is not known yet
UNITS = {"m": 60, "h": 3_600, "d": 86_400}
UNPLANNED = ("demo", "idrid-64")  # too small to be planned for a GPU
LETTER = "guide_"  # presets that keep the guide's letter: too few steps to learn to draw


def run(app: App, config: Config, options: PlanOptions) -> int:
    """Print what training would cost."""
    here = config.runtime.model_copy(update={"device": "auto", "precision": "auto"}) if options.gpu else config.runtime
    runtime = Runtime.start(here, config.seed, config.training.accumulation)
    if options.processes:
        runtime = replace(runtime, world=options.processes)
    if options.budget is not None:
        table(app, config, options, runtime)
        return 0
    made = one(config, runtime, options)
    print(made.render())
    if options.json_file:
        files.atomic_write(options.json_file, json.dumps(made.as_dict(), indent=2) + "\n")
    _refuse_too_large(config, runtime, options, made)
    return 0


def _refuse_too_large(config: Config, runtime: Runtime, options: PlanOptions, made: Plan) -> None:
    """Raises UserError, with the setting to change, for a plan that the memory does not hold."""
    if made.memory_available is None or made.peak_memory_bytes <= made.room:
        return
    need = f"{quantity(made.peak_memory_bytes, 'B')} of {quantity(made.memory_available, 'B')}, a tenth kept free"
    again = one(_recomputing(config, True), runtime, options).peak_memory_bytes
    raise UserError(f"plan: does not fit, {need}; {_memory_advice(made, again)}")


def one(config: Config, runtime: Runtime, options: PlanOptions) -> Plan:
    """The plan of a configuration: measured on the device that is here, or counted for a GPU that is named."""
    count, note = photographs(config, options)
    if options.gpu is not None:
        with _nothing_computed(runtime) as there:
            task: FlowTask = Imagined(config, there, count)
            made = plans.plan(config, task, there, steps=0, gpu=options.gpu)
    else:
        task = Imagined(config, runtime, count) if note else train.build_task(config, runtime)
        made = plans.plan(config, task, runtime, steps=options.steps)
    made.notes[:0] = [*([note] if note else []), *_images(config, task, made)]
    return made


def photographs(config: Config, options: PlanOptions) -> tuple[int, str]:
    """How many train, and a note where that is assumed."""
    if options.photographs is not None:
        return options.photographs, f"photographs: {options.photographs:,} for training, as --photographs says"
    try:
        return len(Material.load(config).parts["train"]), ""
    except UserError:
        return PHOTOGRAPHS, f"photographs: no data set is prepared; {PHOTOGRAPHS:,} for training are assumed"


class Imagined(FlowTask):
    """A task whose photographs are not read: a batch of zeros stands for all of them."""

    def __init__(self, config: Config, runtime: Runtime, count: int) -> None:
        self.count = max(count, config.training.batch_size * runtime.world)
        words = Vocabulary(tuple(map(str, range(WORDS))), config.text.tokens)
        super().__init__(config, runtime, Material(None, [], {"train": [], "val": []}, words))  # type: ignore[arg-type]

    def _batches(self) -> Batches:
        return _Same(self.config, self.runtime, self.count)

    def _begin(self) -> None:
        """Whatever the weights are, they cost the same."""

    def leave_out_missing(self) -> list[str]:
        """Of latents and features there are zeros."""
        return []


class _Same(Batches):
    """One batch, again and again."""

    def __init__(self, config: Config, runtime: Runtime, count: int) -> None:
        self.batch_size = config.training.batch_size
        self.batches_per_epoch = count // (self.batch_size * runtime.world)
        with torch.device(runtime.device):
            self.batch = _zeros(config)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for _ in range(start, self.batches_per_epoch):
            yield self.batch


def _zeros(config: Config) -> Batch:
    """A batch as training has them, without content."""
    model, text, size, side = config.model, config.text, config.training.batch_size, config.data.size
    batch = {
        "mask": torch.zeros(size, len(CHANNELS), side, side, dtype=torch.uint8),
        "known": torch.ones(size, len(CHANNELS), dtype=torch.bool),
    }
    if model.space == "latents":
        batch["latent"] = torch.zeros(size, model.values, side // model.factor, side // model.factor)
    else:
        batch["image"] = torch.zeros(size, 3, side, side, dtype=torch.uint8)
    if text.encoder == "words":
        return {**batch, "words": torch.zeros(size, text.tokens, dtype=torch.int64)}
    features, said = torch.zeros(size, text.tokens, text.dim), torch.ones(size, text.tokens, dtype=torch.bool)
    return {**batch, "features": features, "said": said, "silent": features, "heard": said}


@contextlib.contextmanager
def _nothing_computed(runtime: Runtime) -> Iterator[Runtime]:
    """Tensors have a shape and no memory in here."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield replace(runtime, device=torch.device("cpu"))


def _images(config: Config, task: FlowTask, made: Plan) -> list[str]:
    """What the parameters are, what an image is made of, and how often each photograph is shown."""
    tokens, network = config.token_side**2, sum(weight.numel() for weight in task.model.dit.parameters())
    return [
        f"{network:,} parameters are the network's, {made.parameters - network:,} its text encoder's",
        f"{config.data.size} x {config.data.size} pixels are {tokens:,} tokens of {config.model.patch} x "
        f"{config.model.patch} {config.model.space}",
        f"each photograph is shown {made.epochs:,} times",
    ]


# ---- every preset


def seconds(budget: str) -> float:
    """`24h`, `90m`, `12d`, in seconds. Raises UserError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mhd])", budget.strip().lower())
    if found is None or float(found[1]) == 0:
        raise UserError(f"--budget {budget}: write minutes, hours or days, such as 90m, 24h or 12d")
    return float(found[1]) * UNITS[found[2]]


def table(app: App, config: Config, options: PlanOptions, runtime: Runtime) -> None:
    """Every preset on a GPU: what it costs, whether it fits memory and budget, and the largest that does."""
    limit, rows = seconds(options.budget or ""), []
    if options.gpu is None and runtime.device.type == "cpu":
        raise UserError("--budget: name the GPU that the budget is for, such as --gpu A100-80; there is none here")
    for name in configuration.preset_names(app.presets()):
        if name in UNPLANNED:
            continue
        message(f"planning {name}")
        preset = app.load(name, {"paths": config.paths.model_dump()})
        assert isinstance(preset, Config)
        rows.append(_row(preset, options, runtime, limit))
    print(_rendered(rows, f"presets within {options.budget} on {rows[0]['device']}"))
    if options.json_file:
        files.atomic_write(options.json_file, json.dumps(rows, indent=2) + "\n")
    fitting = [row for row in rows if row["fits"] and not row["preset"].startswith(LETTER)]
    if not fitting:
        raise UserError(f"--budget {options.budget}: no preset fits; do what the table says, or take a larger GPU")
    for what, verb in (("from scratch", "train"), ("from published weights", "finetune")):
        if of_kind := [row for row in fitting if row["verb"] == verb]:
            largest = max(of_kind, key=lambda row: (row["parameters"], row["seconds"]))
            print(f"the largest that fits, {what}: {app.command} {verb} --config {largest['preset']}")


def _row(preset: Config, options: PlanOptions, runtime: Runtime, limit: float) -> dict[str, Any]:
    """What a preset costs with and without gradient checkpointing, and what keeps it from fitting."""
    memory = {}
    for again in (False, True):
        made = one(_recomputing(preset, again), runtime, options)
        memory[again] = made.peak_memory_bytes
        if again == preset.runtime.gradient_checkpointing:
            own = made
    assert own.seconds is not None
    return {
        "preset": preset.name,
        "device": own.device,
        "verb": "finetune" if preset.text.encoder == "hub" else "train",  # published weights know their text model
        "parameters": own.parameters,
        "tokens": preset.token_side**2,
        "flops_per_image": own.flops_per_sample,
        "memory": memory[False],
        "memory_recomputed": memory[True],
        "steps": own.steps,
        "seconds": own.seconds,
        "fits": own.peak_memory_bytes <= own.room and own.seconds <= limit,
        "advice": _advice(preset, own, memory, limit),
    }


def _recomputing(config: Config, again: bool) -> Config:
    """The same with or without gradient checkpointing."""
    how = config.runtime.model_copy(update={"gradient_checkpointing": again})
    return config.model_copy(update={"runtime": how})


def _advice(preset: Config, own: Plan, memory: dict[bool, float], limit: float) -> str:
    """The key to change, where something does not fit."""
    if own.peak_memory_bytes > own.room:
        return _memory_advice(own, memory[True])
    assert own.seconds is not None and preset.name is not None
    if own.seconds > limit:
        return f"--training.steps {int(own.steps * limit / own.seconds)} would end in time"
    return "fits; too few steps to learn to draw" if preset.name.startswith(LETTER) else "fits"


def _memory_advice(own: Plan, recomputed: float) -> str:
    """The key to change, where the memory does not hold a plan."""
    if recomputed <= own.room:
        return "--runtime.gradient_checkpointing true would fit"
    fits = next((note for note in own.notes if note.startswith("does not fit")), "")
    found = re.search(r"--training\.micro_batch \d+", fits)
    if found:
        return f"{found[0]} would fit"
    return (
        "weights and optimizer alone fill it; take a smaller --model.dim or --model.depth, or --runtime.fsdp true "
        "with more --processes"
    )


def _rendered(rows: list[dict[str, Any]], title: str) -> str:
    lines = [("preset", "parameters", "tokens", "FLOP/image", "memory", "recomputed", "steps", "time", "")]
    for row in rows:
        lines.append(
            (
                str(row["preset"]),
                f"{row['parameters']:,}",
                f"{row['tokens']:,}",
                quantity(row["flops_per_image"], ""),
                quantity(row["memory"], "B"),
                quantity(row["memory_recomputed"], "B"),
                f"{row['steps']:,}",
                duration(row["seconds"]),
                row["advice"],
            )
        )
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return "\n".join(
        [title, *("  ".join(x.ljust(w) for x, w in zip(line, widths, strict=True)).rstrip() for line in lines)]
    )
